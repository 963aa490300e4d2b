package df11_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// lines is a handler that keeps the lines it receives.
type lines struct {
	lock  sync.Mutex
	level slog.Level
	said  []string
	then  func()
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *lines) WithGroup(string) slog.Handler                    { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.lock.Lock()
	l.said = append(l.said, fmt.Sprint(r.Level, " ", r.Message))
	l.lock.Unlock()
	if l.then != nil {
		l.then()
	}
	return nil
}
func (l *lines) take() string {
	l.lock.Lock()
	defer l.lock.Unlock()
	said := strings.Join(l.said, "\n")
	l.said = nil
	return said
}

func TestTheLibrarysLog(t *testing.T) {
	defer df11.SetLogger(nil)
	l := &lines{level: slog.LevelDebug}
	df11.SetLogger(slog.New(l))
	// The config.json next to the file is not JSON: it is ignored, with a warning.
	folder := t.TempDir()
	file, err := os.ReadFile(modelOf("tiny") + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"model.safetensors": file, "config.json": []byte("{")} {
		if err := os.WriteFile(folder+"/"+name, text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	open(t, folder+"/model.safetensors", nil)
	if said := l.take(); !strings.Contains(said, "WARN '") || !strings.Contains(said, "config.json") ||
		!strings.Contains(said, "DEBUG opened 1 file") {
		t.Errorf("%q", said)
	}
	if _, err := df11.Open(ctx, golden+"nowhere", nil); err == nil || !strings.Contains(l.take(), "DEBUG cannot open") {
		t.Error(err)
	}

	// At the level of warnings there is no debugging, and no error that a call returns. A handler may use this package.
	l.level, l.then = slog.LevelWarn, func() { df11.Stats(); df11.Version() }
	df11.SetLogger(slog.New(l))
	open(t, modelOf("tiny"), nil)
	df11.Open(ctx, golden+"nowhere", nil)
	if said := l.take(); said != "" {
		t.Errorf("%q", said)
	}
	open(t, folder+"/model.safetensors", nil)
	l.then = nil
	if said := l.take(); !strings.Contains(said, "WARN '") || strings.Contains(said, "DEBUG") {
		t.Errorf("%q", said)
	}
	df11.SetLogger(nil)
	l.take()
	open(t, folder+"/model.safetensors", nil)
	if said := l.take(); said != "" {
		t.Errorf("%q", said)
	}
}

// Lines of many goroutines all arrive. Lines for which there is no space are counted.
func TestLogOfManyGoroutines(t *testing.T) {
	defer df11.SetLogger(nil)
	l := &lines{level: slog.LevelDebug}
	df11.SetLogger(slog.New(l))
	var all sync.WaitGroup
	for n := range 16 {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := range 25 {
				df11.Open(ctx, fmt.Sprintf("nowhere/%d/%d", n, i), nil)
			}
		}()
	}
	all.Wait()
	said := l.take()
	for n := range 16 {
		for i := range 25 {
			if strings.Count(said, fmt.Sprintf("'nowhere/%d/%d'", n, i)) != 1 && !strings.Contains(said, "lost") {
				t.Fatalf("%d, %d: %s", n, i, said)
			}
		}
	}
}

func TestLoggersOfOptions(t *testing.T) {
	var text bytes.Buffer
	o := &df11.Options{Verify: true, Logger: slog.New(slog.NewTextHandler(&text, nil))}
	open(t, modelOf("tiny"), o)
	if said := text.String(); !strings.Contains(said, "level=INFO") || !strings.Contains(said, "groups=1") ||
		!strings.Contains(said, "verified=true") {
		t.Error(said)
	}
	text.Reset()
	df11.Open(ctx, golden+"nowhere", o)
	df11.VerifyModel(ctx, modelOf("tiny"), originalOf("block"), &df11.VerifyOptions{Logger: o.Logger})
	df11.VerifyModel(ctx, modelOf("tiny"), originalOf("tiny"), &df11.VerifyOptions{Logger: o.Logger})
	if said := text.String(); strings.Count(said, "level=ERROR") < 3 || !strings.Contains(said, "open failed") ||
		!strings.Contains(said, "a fault in a model") || strings.Count(said, "level=INFO") != 1 {
		t.Error(said)
	}
}
