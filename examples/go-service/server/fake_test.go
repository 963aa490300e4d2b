package server

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// fake is a model with computed bytes, so that it may be large without using memory. It checks its arguments as a real
// model does.
type fake struct {
	t       testing.TB
	groups  []df11.GroupInfo
	tensors []df11.TensorInfo
	parts   string // a file whose bytes stand for those of every part
	read    atomic.Pointer[func(tensor int, offset uint64, n int) error]
	reads   atomic.Int64
	closed  atomic.Int64
}

// fakeTensor is a tensor's name and size, and whether it is plain.
type fakeTensor struct {
	name  string
	bytes uint64
	plain bool
}

// newFake makes a model with one group and some plain tensors, and its file in a new folder.
func newFake(t testing.TB, tensors ...fakeTensor) *fake {
	f := &fake{t: t, parts: filepath.Join(t.TempDir(), "parts.safetensors")}
	if err := os.WriteFile(f.parts, []byte("what the model was compressed to"), 0o666); err != nil {
		t.Fatal(err)
	}
	g := df11.GroupInfo{Name: "group"}
	for i, one := range tensors {
		info := df11.TensorInfo{Name: one.name, Index: i, DType: df11.DTypeBF16, DataBytes: one.bytes,
			Elements: one.bytes / 2,
			Shape:    []uint64{one.bytes / 2}}
		if one.plain {
			info.Group, info.DType, info.Elements, info.Shape = -1, df11.DTypeU8, one.bytes, []uint64{one.bytes}
			info.File = f.parts
		} else {
			info.GroupOffset = g.Elements
			g.Elements += info.Elements
			g.Tensors++
		}
		f.tensors = append(f.tensors, info)
	}
	g.PackedBytes = 6 * 32
	f.groups = []df11.GroupInfo{g}
	return f
}

// on sets a function that is called before each read.
func (f *fake) on(read func(tensor int, offset uint64, n int) error) { f.read.Store(&read) }

func (f *fake) Groups() []df11.GroupInfo   { return f.groups }
func (f *fake) Tensors() []df11.TensorInfo { return f.tensors }

func (f *fake) GroupPart(group int, part df11.Part) (df11.PartInfo, error) {
	return df11.PartInfo{File: f.parts, FileOffset: 0, DataBytes: 32}, nil
}

// TensorRuns is called for tensors in several groups only.
func (f *fake) TensorRuns(tensor int) ([]df11.Run, error) { return nil, df11.ErrNotFound }

func (f *fake) ReadTensor(tensor int, offset uint64, dst []byte, threads int) error {
	f.reads.Add(1)
	if f.closed.Load() > 0 {
		return fs.ErrClosed
	}
	t := &f.tensors[tensor]
	if offset+uint64(len(dst)) > t.DataBytes {
		f.t.Errorf("tensor %d: bytes %d to %d of %d", tensor, offset, offset+uint64(len(dst)), t.DataBytes)
	}
	if t.Group >= 0 && (offset%2 != 0 || len(dst)%2 != 0) {
		f.t.Errorf("tensor %d: half a weight: %d bytes from %d on", tensor, len(dst), offset)
	}
	if read := f.read.Load(); read != nil {
		if err := (*read)(tensor, offset, len(dst)); err != nil {
			return err
		}
	}
	for i := range dst {
		dst[i] = fakeByte(tensor, offset+uint64(i))
	}
	return nil
}

func (f *fake) Close() error {
	if f.closed.Add(1) > 1 {
		f.t.Error("closed twice")
	}
	return nil
}

func fakeByte(tensor int, at uint64) byte { return byte(uint64(tensor+1)*at>>3 ^ at) }

// fakeBytes returns the correct bytes of a tensor.
func fakeBytes(tensor int, first, length uint64) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = fakeByte(tensor, first+uint64(i))
	}
	return b
}

// config returns a config for tests: no verification, no log, small limits.
func config(path string) Config {
	c := Defaults()
	c.Model, c.Verify, c.Logger = path, false, slog.New(slog.DiscardHandler)
	c.Chunk, c.Streams, c.Decodes = 4096, 4, 2
	return c
}

// serve makes a server and serves on a loopback address until the test ends.
func serve(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(s)
	web.Config.ConnState = s.conns.hook
	web.Start()
	s.Start()
	t.Cleanup(func() {
		s.cancel()
		web.CloseClientConnections()
		web.Close()
		s.Close()
	})
	return s, web.URL
}

// serveFake serves a fake, and waits until it is ready.
func serveFake(t testing.TB, f *fake, change func(*Config)) (*Server, string) {
	t.Helper()
	cfg := config(filepath.Dir(f.parts))
	cfg.Open = func(context.Context, string, *df11.Options) (Model, error) { return f, nil }
	if change != nil {
		change(&cfg)
	}
	s, url := serve(t, cfg)
	await(t, "ready", func() bool { return s.Health().State == "ready" })
	return s, url
}

// await waits until a condition is true.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			buffer := make([]byte, 1<<16)
			t.Fatalf("not in 20 s: %s\n%s", what, buffer[:runtime.Stack(buffer, true)])
		}
	}
}

// do sends a request with headers of the form "Name: value", and reads the answer.
func do(t testing.TB, method, url string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer, body
}

func get(t testing.TB, url string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	return do(t, http.MethodGet, url, headers...)
}
