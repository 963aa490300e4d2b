package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// huge is larger than the system's buffers, so that a client that does not read it blocks the server.
const huge = 1 << 40

// slurp begins a GET and returns the connection. Only the first bytes of the answer are read.
func slurp(t testing.TB, url, path string) net.Conn {
	t.Helper()
	conn := dial(t, url)
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 12)
	if _, err := io.ReadFull(conn, first); err != nil {
		t.Fatal(err)
	}
	if string(first) != "HTTP/1.1 200" {
		t.Fatalf("%q", first)
	}
	return conn
}

// A client that goes away in the middle of a body ends its work at once.
func TestClientThatGoesAway(t *testing.T) {
	f := newFake(t, fakeTensor{"t", huge, false})
	s, url := serveFake(t, f, nil)
	conn := slurp(t, url, "/v1/tensors/t")
	conn.Close()
	await(t, "gone", func() bool { return ended(s, endGone) == 1 && s.pool.used() == 0 })
	reads := f.reads.Load()
	time.Sleep(50 * time.Millisecond)
	if now := f.reads.Load(); now != reads {
		t.Errorf("%d more reads for nobody", now-reads)
	}
	if s.metrics.inFlight.Load() != 0 || len(s.decodes) != 0 {
		t.Errorf("%d requests, %d decodes", s.metrics.inFlight.Load(), len(s.decodes))
	}
}

// A client that goes away while a piece is being decoded costs that piece only.
func TestClientThatGoesAwayDuringADecode(t *testing.T) {
	f := newFake(t, fakeTensor{"t", huge, false})
	during, release := make(chan struct{}), make(chan struct{})
	f.on(func(_ int, offset uint64, _ int) error {
		if offset == 0 {
			close(during)
			<-release
		}
		return nil
	})
	s, url := serveFake(t, f, nil)
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", url+"/v1/tensors/t", nil)
	failed := make(chan error)
	go func() {
		_, err := http.DefaultClient.Do(r)
		failed <- err
	}()
	<-during
	cancel()
	if err := <-failed; err == nil {
		t.Error("no error")
	}
	time.Sleep(20 * time.Millisecond) // the server hears of it
	close(release)
	await(t, "gone", func() bool { return ended(s, endGone) == 1 })
	if n := f.reads.Load(); n > 2 {
		t.Errorf("%d reads", n)
	}
}

// A client that goes away while it waits for decoding stops waiting.
func TestClientThatGoesAwayBeforeADecode(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100, false})
	s, url := serveFake(t, f, nil)
	for range cap(s.decodes) {
		s.decodes <- struct{}{}
	}
	conn := dial(t, url)
	io.WriteString(conn, "GET /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\n\r\n")
	await(t, "a buffer in use", func() bool { return s.pool.used() == 1 })
	conn.Close()
	await(t, "gone", func() bool { return ended(s, endGone) == 1 && s.pool.used() == 0 })
	if f.reads.Load() != 0 {
		t.Error("decoded for nobody")
	}
}

// A client that receives nothing is disconnected, and its buffer is free for another.
func TestSlowClient(t *testing.T) {
	f := newFake(t, fakeTensor{"t", huge, false})
	s, url := serveFake(t, f, func(c *Config) { c.WriteTimeout = 100 * time.Millisecond })
	slurp(t, url, "/v1/tensors/t")
	await(t, "slow", func() bool { return ended(s, endSlow) == 1 && s.pool.used() == 0 })
}

// A slow client that keeps receiving gets the whole body: the deadline is for a piece, not for the body.
func TestUnhurriedClient(t *testing.T) {
	const size = 24 << 20
	f := newFake(t, fakeTensor{"t", size, false})
	l := live(t, f, func(c *Config) { c.WriteTimeout, c.Chunk = time.Second, 64<<10 })
	answer, err := http.Get(l.url + "/v1/tensors/t")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	start, got := time.Now(), 0
	for buffer := make([]byte, 1<<20); ; {
		n, err := io.ReadFull(answer.Body, buffer)
		got += n
		if err != nil {
			break
		}
		time.Sleep(70 * time.Millisecond)
	}
	if got != size {
		t.Errorf("%d bytes", got)
	}
	if took := time.Since(start); took < 1500*time.Millisecond {
		t.Errorf("in %v the time of a piece was not at stake", took)
	}
}

// When all buffers are in use, some requests wait, and others get 503. The limits hold.
func TestTooManyRequests(t *testing.T) {
	f := newFake(t, fakeTensor{"t", huge, false}, fakeTensor{"small", 10, false})
	s, url := serveFake(t, f, func(c *Config) { c.Streams, c.Waiting, c.Wait = 2, 3, 20*time.Second })
	one, two := slurp(t, url, "/v1/tensors/t"), slurp(t, url, "/v1/tensors/t")

	var waiting sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 3 {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			of := t.Context()
			if i == 2 {
				of = ctx // goes away
			}
			r, _ := http.NewRequestWithContext(of, "GET", url+"/v1/tensors/small", nil)
			answer, err := http.DefaultClient.Do(r)
			if i == 2 {
				if err == nil {
					t.Error("who went away got an answer")
				}
				return
			}
			if err != nil || answer.StatusCode != 200 {
				t.Errorf("%v %v", answer, err)
				return
			}
			answer.Body.Close()
		}()
	}
	await(t, "three waiting", func() bool { return s.pool.waiting.Load() == 3 })
	answer, body := get(t, url+"/v1/tensors/small")
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") != "1" ||
		!strings.Contains(string(body), "too many") {
		t.Errorf("%d %v %q", answer.StatusCode, answer.Header, body)
	}
	// Requests that need no buffer are always served.
	for path, status := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/tensors": 200,
		"/v1/tensors/none": 404} {
		if answer, _ := get(t, url+path); answer.StatusCode != status {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
	if answer, _ := do(t, "HEAD", url+"/v1/tensors/small"); answer.StatusCode != 200 {
		t.Errorf("HEAD: %d", answer.StatusCode)
	}
	cancel()
	await(t, "two waiting", func() bool { return s.pool.waiting.Load() == 2 && ended(s, endGone) == 1 })
	one.Close()
	two.Close()
	waiting.Wait()
	if s.metrics.rejected.Load() != 1 {
		t.Errorf("%d rejected", s.metrics.rejected.Load())
	}
}

func TestWaitIsBounded(t *testing.T) {
	for _, wait := range []time.Duration{0, 30 * time.Millisecond} {
		f := newFake(t, fakeTensor{"t", huge, false})
		_, url := serveFake(t, f, func(c *Config) { c.Streams, c.Wait = 1, wait })
		slurp(t, url, "/v1/tensors/t")
		start := time.Now()
		if answer, _ := get(t, url+"/v1/tensors/t"); answer.StatusCode != 503 {
			t.Errorf("%d", answer.StatusCode)
		}
		if took := time.Since(start); took < wait {
			t.Errorf("after %v of %v", took, wait)
		}
	}
}

// At most Decodes pieces are decoded at once, though more clients are served. Slow clients do not count.
func TestDecodesAtOnce(t *testing.T) {
	f := newFake(t, fakeTensor{"slow", huge, false}, fakeTensor{"t", 100_000, false})
	var lock sync.Mutex
	now, most := 0, 0
	f.on(func(tensor int, _ uint64, _ int) error {
		lock.Lock()
		now++
		most = max(most, now)
		lock.Unlock()
		if tensor == 1 {
			time.Sleep(time.Millisecond)
		}
		lock.Lock()
		now--
		lock.Unlock()
		return nil
	})
	_, url := serveFake(t, f, func(c *Config) { c.Streams, c.Decodes = 16, 2 })
	for range 4 {
		slurp(t, url, "/v1/tensors/slow")
	}
	var clients sync.WaitGroup
	for range 12 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			if answer, body := get(t, url+"/v1/tensors/t"); answer.StatusCode != 200 || len(body) != 100_000 {
				t.Errorf("%d, %d bytes", answer.StatusCode, len(body))
			}
		}()
	}
	clients.Wait()
	lock.Lock()
	defer lock.Unlock()
	if most != 2 {
		t.Errorf("%d at once", most)
	}
}

func TestPoolKeepsItsBuffers(t *testing.T) {
	p := newPool(2, 64, 0, 0)
	seen := map[*byte]bool{}
	for range 100 {
		a, err := p.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.take(t.Context()); err != errBusy || p.used() != 2 || p.waiting.Load() != 0 {
			t.Fatalf("%v, %d used, %d waiting", err, p.used(), p.waiting.Load())
		}
		seen[&a[0]], seen[&b[0]] = true, true
		p.give(a[:10])
		p.give(b)
		if len(a) != 64 || len(b) != 64 {
			t.Fatal("a buffer has shrunk")
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d buffers", len(seen))
	}
}
