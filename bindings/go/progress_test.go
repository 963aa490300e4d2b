package df11_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

func TestProgress(t *testing.T) {
	var done, total uint64
	calls := 0
	o := &df11.Options{Verify: true, Progress: func(d, n uint64) {
		if d < done || total != 0 && n != total {
			t.Errorf("%d of %d after %d of %d", d, n, done, total)
		}
		done, total = d, n
		calls++
	}}
	m := open(t, modelOf("block"), o)
	var want uint64
	for _, g := range m.Groups() {
		want += 2 * g.Elements
	}
	if calls == 0 || done != want || total != want {
		t.Fatalf("%d of %d bytes, in %d calls, and not %d", done, total, calls, want)
	}

	done, total, calls = 0, 0, 0
	report, err := df11.VerifyModel(ctx, modelOf("block"), originalOf("block"), &df11.VerifyOptions{Threads: 2, Progress: o.Progress})
	if err != nil || calls == 0 || done != total || total < want {
		t.Fatalf("%d of %d bytes, in %d calls: %v", done, total, calls, err)
	}
	if report.GroupsGood != uint64(len(m.Groups())) || report.TensorsEqual != uint64(len(m.Tensors())) ||
		2*report.Codes != want || len(report.Findings) < len(m.Groups()) || report.Findings[0].Kind != df11.FindingGood {
		t.Fatalf("%+v", report)
	}
}

func TestAContextThatIsOver(t *testing.T) {
	over, cancel := context.WithCancelCause(ctx)
	reason := errors.New("nobody wants it any more")
	cancel(reason)
	_, opened := df11.Open(over, modelOf("tiny"), nil)
	_, inMemory := df11.OpenMemory(over, []byte{1}, nil)
	_, verified := df11.VerifyModel(over, modelOf("tiny"), "", nil)
	for _, err := range []error{opened, inMemory, verified} {
		if !errors.Is(err, df11.ErrCancelled) || !errors.Is(err, context.Canceled) || !errors.Is(err, reason) ||
			errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
}

// The end of the context ends the call in the middle, and everything is freed.
func TestCancelled(t *testing.T) {
	path := large(t, 48)
	before := df11.Stats().ModelsOpen
	var whole uint64
	m := open(t, path, nil)
	for _, g := range m.Groups() {
		whole += 2 * g.Elements
	}
	m.Close()

	for name, call := range map[string]func(context.Context, func(done, total uint64)) error{
		"open": func(ctx context.Context, progress func(done, total uint64)) error {
			m, err := df11.Open(ctx, path, &df11.Options{Verify: true, Progress: progress})
			if err == nil {
				m.Close()
			}
			return err
		},
		"verify": func(ctx context.Context, progress func(done, total uint64)) error {
			_, err := df11.VerifyModel(ctx, path, "", &df11.VerifyOptions{Progress: progress})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			// On a busy machine the call may end before the cancellation: one of many tries must be cancelled.
			cancelled := func(try func() error) (err error) {
				for range 20 {
					if err = try(); err != nil {
						break
					}
				}
				return err
			}
			var done, total uint64
			if err := cancelled(func() error {
				soon, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
				defer cancel()
				return call(soon, func(d, n uint64) { done, total = d, n })
			}); !errors.Is(err, df11.ErrCancelled) || !errors.Is(err, context.DeadlineExceeded) || done >= whole {
				t.Fatalf("%d of %d bytes of %d: %v", done, total, whole, err)
			}
			// Without Progress, and cancelled explicitly.
			if err := cancelled(func() error {
				byHand, stop := context.WithCancel(ctx)
				go func() { time.Sleep(5 * time.Millisecond); stop() }()
				return call(byHand, nil)
			}); !errors.Is(err, df11.ErrCancelled) || !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			// By Progress itself, which is called before the call begins.
			inside, stop := context.WithCancel(ctx)
			if err := call(inside, func(d, n uint64) { stop() }); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		})
	}
	if now := df11.Stats().ModelsOpen; now != before {
		t.Errorf("%d models are open, and %d were before", now, before)
	}
	// An open model does not depend on its context.
	over, stop := context.WithCancel(ctx)
	m, err := df11.Open(over, modelOf("tiny"), nil)
	stop()
	if err != nil || m.Decompress(0, 0, make([]df11.BF16, 1), 1) != nil {
		t.Error(err)
	}
	m.Close()
}

// The end of the context ends opening itself, when nothing is verified, too.
func TestOpeningIsCancelled(t *testing.T) {
	var header strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&header, `%c"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, "{,"[min(i, 1)], 1_000_000-i)
	}
	header.WriteByte('}')
	path := filepath.Join(t.TempDir(), "model.safetensors")
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(header.Len())), header.String()...)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m, err := df11.Open(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	m.Close()
	cancelled := 0
	for part := range 8 {
		at := whole * time.Duration(part) / 16
		soon, cancel := context.WithTimeout(ctx, at)
		start := time.Now()
		m, err := df11.Open(soon, path, nil)
		late := time.Since(start) - at
		cancel()
		if err == nil {
			m.Close()
			continue
		}
		cancelled++
		// A tenth of a second is the promise; other programs may have the processor.
		if !errors.Is(err, context.DeadlineExceeded) || late > 2*time.Second {
			t.Errorf("%v, %v after the deadline at %v of %v", err, late, at, whole)
		}
	}
	if cancelled < 3 {
		t.Errorf("only %d of 8 calls were cancelled before they ended", cancelled)
	}
}

// A panic of Progress reaches the caller after the call has ended.
func TestProgressThatPanics(t *testing.T) {
	path := large(t, 16)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before := df11.Stats().ModelsOpen
	o := &df11.Options{Verify: true, Progress: func(_, _ uint64) { panic("told") }}
	for name, call := range map[string]func() error{
		"open":        func() error { _, err := df11.Open(ctx, path, o); return err },
		"small":       func() error { _, err := df11.Open(ctx, modelOf("tiny"), o); return err },
		"open memory": func() error { _, err := df11.OpenMemory(ctx, file, o); return err },
		"verify": func() error {
			_, err := df11.VerifyModel(ctx, path, "", &df11.VerifyOptions{Progress: o.Progress})
			return err
		},
	} {
		func() {
			defer func() {
				if got := recover(); got != "told" {
					t.Errorf("%s: %v", name, got)
				}
			}()
			t.Error(name, call())
		}()
	}
	if now := df11.Stats().ModelsOpen; now != before {
		t.Errorf("%d models are open, and %d were before", now, before)
	}
}
