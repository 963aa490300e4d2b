package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// life is a server that runs as in the program, on its own listener.
type life struct {
	*Server
	url  string
	end  context.CancelFunc
	done chan error
	l    net.Listener
}

// live runs a server of a fake, or of cfg.Open if there is no fake.
func live(t testing.TB, f *fake, change func(*Config)) *life {
	t.Helper()
	cfg := config("nowhere")
	if f != nil {
		cfg.Model = filepath.Dir(f.parts)
		cfg.Open = func(context.Context, string, *df11.Options) (Model, error) { return f, nil }
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	one := &life{s, "http://" + l.Addr().String(), cancel, make(chan error, 1), l}
	go func() { one.done <- s.Run(ctx, smallBuffers{l}) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		select {
		case <-s.loaded:
		case <-time.After(20 * time.Second):
			t.Error("the loader did not end")
		}
	})
	if f != nil {
		await(t, "ready", func() bool { return s.Health().State == "ready" })
	}
	return one
}

// smallBuffers limits the system's buffers on any machine, so that bytes that are not received are not sent.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(256 << 10)
	}
	return conn, err
}

// ended waits for the end of Run.
func (l *life) ended(t testing.TB) error {
	t.Helper()
	select {
	case err := <-l.done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("Run did not end")
		return nil
	}
}

// A graceful shutdown: /readyz answers 503 while requests are still accepted, running requests complete, and then the
// model is closed.
func TestShutdownInOrder(t *testing.T) {
	const size = 12 << 20
	f := newFake(t, fakeTensor{"t", size, false}, fakeTensor{"small", 10, false})
	l := live(t, f, func(c *Config) { c.Drain, c.Chunk = 1500*time.Millisecond, 64<<10 })
	running, err := http.Get(l.url + "/v1/tensors/t")
	if err != nil {
		t.Fatal(err)
	}
	l.end()
	await(t, "closing", func() bool { return l.Health().State == "closing" })
	if status, h := readyz(t, l.url); status != 503 || h.State != "closing" {
		t.Errorf("%d %+v", status, h)
	}
	if answer, body := get(t, l.url+"/v1/tensors/small"); answer.StatusCode != 200 || len(body) != 10 {
		t.Errorf("during the drain: %d", answer.StatusCode)
	}
	await(t, "no listener", func() bool {
		conn, err := net.Dial("tcp", l.l.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if f.closed.Load() != 0 {
		t.Error("closed while a request runs")
	}
	body, err := io.ReadAll(running.Body)
	running.Body.Close()
	if err != nil || !bytes.Equal(body, fakeBytes(0, 0, size)) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if err := l.ended(t); err != nil {
		t.Error(err)
	}
	if f.closed.Load() != 1 || l.metrics.inFlight.Load() != 0 || ended(l.Server, endComplete) != 2 {
		t.Errorf("closed %d times, %d requests run", f.closed.Load(), l.metrics.inFlight.Load())
	}
}

// Requests that do not end are cut off, whether they send, wait for a buffer, or decode.
func TestShutdownCutsOff(t *testing.T) {
	f := newFake(t, fakeTensor{"t", huge, false})
	l := live(t, f, func(c *Config) { c.Shutdown, c.Streams, c.Wait = 100*time.Millisecond, 1, time.Hour })
	slurp(t, l.url, "/v1/tensors/t")
	waits := make(chan error)
	go func() {
		answer, err := http.Get(l.url + "/v1/tensors/t")
		if err == nil {
			// It may still get the other's buffer, but not the end of the body.
			_, err = io.ReadAll(answer.Body)
			answer.Body.Close()
			if err == nil && answer.StatusCode != http.StatusServiceUnavailable {
				waits <- errors.New(answer.Status)
				return
			}
		}
		waits <- nil // cut off, or told so
	}()
	await(t, "one waiting", func() bool { return l.pool.waiting.Load() == 1 })
	l.end()
	start := time.Now()
	if err := l.ended(t); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := <-waits; err != nil {
		t.Errorf("who waited got %v", err)
	}
	await(t, "the figures", func() bool { return ended(l.Server, endStopped) == 2 })
	if f.closed.Load() != 1 || l.pool.used() != 0 {
		t.Errorf("closed %d times, %d buffers", f.closed.Load(), l.pool.used())
	}
}

// Waiting requests end with the server, and no client mistakes that for an empty tensor.
func TestCloseEndsRequests(t *testing.T) {
	for what, block := range map[string]func(s *Server){
		"a decode": func(s *Server) { s.decodes <- struct{}{}; s.decodes <- struct{}{} },
		"a hash":   func(s *Server) { s.catalog.Load().digests.turn <- struct{}{} },
		"a buffer": func(s *Server) {
			for range cap(s.pool.free) {
				<-s.pool.free
			}
		},
	} {
		f := newFake(t, fakeTensor{"t", 100, false})
		s, url := serveFake(t, f, func(c *Config) { c.Wait = time.Hour })
		block(s)
		status := make(chan int)
		go func() {
			answer, _ := get(t, url+"/v1/tensors/t")
			status <- answer.StatusCode
		}()
		await(t, "one request", func() bool { return s.metrics.inFlight.Load() == 1 })
		time.Sleep(20 * time.Millisecond) // until it waits
		s.Close()
		if got := <-status; got != 503 {
			t.Errorf("%s: %d", what, got)
		}
		await(t, "stopped", func() bool { return ended(s, endStopped) == 1 })
	}
}

// The deadline for receiving an answer begins with the answer, however long the request has waited.
func TestAnswersAfterAWait(t *testing.T) {
	f := newFake(t, fakeTensor{"t", huge, false}, fakeTensor{"small", 10, false})
	l := live(t, f, func(c *Config) {
		c.WriteTimeout, c.Streams, c.Wait = 300*time.Millisecond, 1, 600*time.Millisecond
		c.Chunk = 64 << 10
	})
	d := l.catalog.Load().digests
	d.turn <- struct{}{}
	time.AfterFunc(600*time.Millisecond, func() { <-d.turn })
	if tag(t, l.url, "small") == "" { // waits for its hash
		t.Error("no tag")
	}
	<-l.pool.free
	if answer, _ := get(t, l.url+"/v1/tensors/small"); answer.StatusCode != 503 { // waits for a buffer
		t.Errorf("%d", answer.StatusCode)
	}
	l.pool.give(make([]byte, l.pool.size))
	f.on(func(int, uint64, int) error { time.Sleep(600 * time.Millisecond); return nil })
	if answer, body := get(t, l.url+"/v1/tensors/small"); answer.StatusCode != 200 || len(body) != 10 { // is decoded
		t.Errorf("%d, %d bytes", answer.StatusCode, len(body))
	}
}

// A shutdown does not wait for the model to be opened.
func TestShutdownWhileOpening(t *testing.T) {
	l := live(t, nil, func(c *Config) {
		c.Open = func(ctx context.Context, _ string, _ *df11.Options) (Model, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	await(t, "opening", func() bool { return l.Health().Attempts == 1 })
	l.end()
	if err := l.ended(t); err != nil {
		t.Error(err)
	}
}

func TestListenerThatFails(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 10, false})
	l := live(t, f, nil)
	l.l.Close()
	if err := l.ended(t); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if f.closed.Load() != 1 {
		t.Error("not closed")
	}
}

// The log has a line for each request except probes, whatever clients send, and lines about the model.
func TestLog(t *testing.T) {
	var log lockedBuffer
	f := newFake(t, fakeTensor{"t", 10, false})
	l := live(t, f, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	get(t, l.url+"/v1/tensors/t", "Range: bytes=0-1", "X-Request-Id: id-7")
	get(t, l.url+"/v1/tensors/a%0A%1b%22%ff")
	get(t, l.url+"/healthz")
	get(t, l.url+"/readyz")
	get(t, l.url+"/metrics")
	raw(t, l.url, "GET /v1/tensors/"+string(bytes.Repeat([]byte("x"),
		3000))+" HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\xff\xfeb\r\nConnection: close\r\n\r\n")
	l.end()
	if err := l.ended(t); err != nil {
		t.Error(err)
	}
	lines := bytes.Split(bytes.TrimSpace(log.bytes()), []byte("\n"))
	if len(lines) != 7 {
		t.Errorf("%d lines: %s", len(lines), log.bytes())
	}
	for i, words := range [][]string{
		{"msg=listening"}, {"msg=ready", "tensors=1"},
		{"msg=request", "method=GET", "path=/v1/tensors/t", "status=206", "end=complete", "bytes=2",
			`range="bytes=0-1"`, "request_id=id-7"},
		{"msg=request", "path=/v1/tensors/a%0A%1b%22%ff", "status=404"},
		{"msg=request", "path=/v1/tensors/xxx", "xxx…", "status=404"},
		{"msg=closing"}, {"msg=closed", "models_open=0", "requests_running=0"},
	} {
		for _, word := range words {
			if i >= len(lines) || !bytes.Contains(lines[i], []byte(word)) {
				t.Errorf("line %d has no %s: %s", i, word, log.bytes())
				break
			}
		}
		if i < len(lines) && len(lines[i]) > 1000 {
			t.Errorf("line %d has %d bytes", i, len(lines[i]))
		}
	}
}

type lockedBuffer struct {
	lock sync.Mutex
	b    bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) bytes() []byte {
	l.lock.Lock()
	defer l.lock.Unlock()
	return bytes.Clone(l.b.Bytes())
}
