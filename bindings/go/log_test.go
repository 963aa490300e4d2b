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

// lines is a logger that keeps what it is told.
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
	// A file beside which lies a config.json that is none: it is passed over, and said to be.
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
	if said := l.take(); !strings.Contains(said, "WARN '") || !strings.Contains(said, "passed over") ||
		!strings.Contains(said, "DEBUG opened 1 file") {
		t.Errorf("%q", said)
	}
	if _, err := df11.Open(ctx, golden+"nowhere", nil); err == nil || !strings.Contains(l.take(), "ERROR cannot open") {
		t.Error(err)
	}

	// One who wants warnings gets no debugging; a handler may use this package itself.
	l.level, l.then = slog.LevelWarn, func() { df11.Stats(); df11.Version() }
	df11.SetLogger(slog.New(l))
	open(t, modelOf("tiny"), nil)
	if said := l.take(); said != "" {
		t.Errorf("%q", said)
	}
	df11.Open(ctx, golden+"nowhere", nil)
	l.then = nil
	if said := l.take(); !strings.Contains(said, "ERROR cannot open") {
		t.Errorf("%q", said)
	}
	df11.SetLogger(nil)
	l.take()
	df11.Open(ctx, golden+"nowhere", nil)
	if said := l.take(); said != "" {
		t.Errorf("%q", said)
	}
}

// Lines of many goroutines all arrive; what there is no room for is counted.
func TestLogOfManyGoroutines(t *testing.T) {
	defer df11.SetLogger(nil)
	l := &lines{level: slog.LevelError}
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
