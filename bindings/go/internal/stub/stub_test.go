//go:build !cgo

package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// Every call of a program that was built without cgo says so, and none panics.
func TestCallsWithoutCgo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	progress := func(done, total uint64) {}
	calls := map[string]func(context.Context) error{
		"Open": func(ctx context.Context) error {
			_, err := df11.Open(ctx, "model", &df11.Options{Progress: progress, Logger: slog.New(slog.DiscardHandler)})
			return err
		},
		"OpenMemory": func(ctx context.Context) error {
			_, err := df11.OpenMemory(ctx, make([]byte, 8), nil)
			return err
		},
		"VerifyModel": func(ctx context.Context) error {
			_, err := df11.VerifyModel(ctx, "model", "", nil)
			return err
		},
		"CompressModel": func(ctx context.Context) error {
			_, err := df11.CompressModel(ctx, "model", "out", nil)
			return err
		},
		"MergeModel": func(ctx context.Context) error {
			_, err := df11.MergeModel(ctx, "model", "out", nil)
			return err
		},
		"OpenDevice": func(context.Context) error {
			_, err := df11.OpenDevice(0, &df11.DeviceOptions{LibCUDA: "libcuda.so.1"})
			return err
		},
		"OpenCurrentDevice": func(context.Context) error {
			_, err := df11.OpenCurrentDevice(nil)
			return err
		},
	}
	for _, ctx := range []context.Context{context.Background(), ctx} {
		for name, call := range calls {
			err := call(ctx)
			if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, df11.ErrUnsupportedOption) ||
				!strings.Contains(err.Error(), "CGO_ENABLED=1") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	df11.SetLogger(slog.New(slog.DiscardHandler))
	df11.SetLogger(nil)
	if version := df11.Version(); version != "" {
		t.Error(version)
	}
	if stats := df11.Stats(); stats.ErrorsCaller != uint64(2*len(calls)) {
		t.Error(stats.ErrorsCaller)
	}
}

// What the generator refuses, rather than write something that is wrong.
func TestWhatCannotBeAStub(t *testing.T) {
	for _, text := range []string{"package p\nvar Exported int", "package p\nconst A = C.DF11_NOT_THERE"} {
		if _, err := of("x.go", text, map[string]string{}); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	made, err := of("x.go", "package p\nconst A = C.DF11_A\nfunc F() *Error { return nil }\nfunc g() {}", map[string]string{"DF11_A": "7"})
	if err != nil || !strings.Contains(made, "const A = 7") || !strings.Contains(made, "e = missing") || strings.Contains(made, "g()") {
		t.Error(made, err)
	}
}
