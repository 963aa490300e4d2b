package server

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Many connections that send nothing, or a header byte by byte, keep nobody out, and are closed in time.
func TestCrowdOfConnections(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 10, false})
	l := live(t, f, func(c *Config) { c.Connections, c.HeaderTimeout = 16, 500*time.Millisecond })
	for i := range 100 {
		conn := dial(t, l.url)
		if i%2 == 0 {
			io.WriteString(conn, "GET /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
		}
		if i%10 == 0 {
			if answer, _ := get(t, l.url+"/v1/tensors/t"); answer.StatusCode != 200 {
				t.Errorf("%d connections keep others out: %d", i, answer.StatusCode)
			}
		}
	}
	await(t, "most evicted", func() bool { return l.metrics.evicted.Load() >= 84 })
	if all, _ := l.conns.count(); all > 16 {
		t.Errorf("%d connections", all)
	}
	await(t, "the rest timed out", func() bool {
		all, _ := l.conns.count()
		return all <= 1 // the tests' own
	})
}

// A client that sends a header slowly has HeaderTimeout for all of it, not for each byte.
func TestDrippedHeader(t *testing.T) {
	l := live(t, newFake(t, fakeTensor{"t", 10, false}), func(c *Config) { c.HeaderTimeout = 300 * time.Millisecond })
	conn := dial(t, l.url)
	start := time.Now()
	io.WriteString(conn, "GET / HTTP/1.1\r\n")
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(conn, "X-%d: y\r\n", i); err != nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("still connected")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// An active connection is never closed for a new one: the new one is closed.
func TestBusyConnectionsStay(t *testing.T) {
	f := newFake(t, fakeTensor{"t", huge, false})
	l := live(t, f, func(c *Config) { c.Connections, c.Streams = 2, 4 })
	one, two := slurp(t, l.url, "/v1/tensors/t"), slurp(t, l.url, "/v1/tensors/t")
	conn := dial(t, l.url)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a third connection: %v", err)
	}
	for _, conn := range []io.Reader{one, two} {
		if n, err := io.ReadFull(conn, make([]byte, 1<<20)); err != nil {
			t.Errorf("a busy one: %d, %v", n, err)
		}
	}
}

// A request with a body is refused at once, whatever its length, and whether or not the body is sent.
func TestBodies(t *testing.T) {
	l := live(t, newFake(t, fakeTensor{"t", 10, false}), nil)
	for _, header := range []string{"Content-Length: 1000000000000", "Transfer-Encoding: chunked",
		"Content-Length: 5\r\nExpect: 100-continue"} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(method, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				status, _ := raw(t, l.url, method+" /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n\r\n")
				if took := time.Since(start); status != 413 || took > 5*time.Second {
					t.Errorf("%s: %d after %v", header, status, took)
				}
			})
		}
	}
}

func TestHostileRequests(t *testing.T) {
	l := live(t, newFake(t, fakeTensor{"t", 100, false}), nil)
	ranges := "bytes=" + strings.Repeat("0-0,2-2,", 1500) + "4-4"
	for request, want := range map[string]int{
		"GET /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nRange: " + ranges +
			"\r\n\r\n": 416,
		"GET /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nRange: " + strings.Repeat("x", 30000) +
			"\r\n\r\n": 431,
		"GET /v1/tensors/" + strings.Repeat("x", 30000) +
			" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n": 431,
		"GET /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + strings.Repeat("A: b\r\n", 5000) +
			"\r\n": 431,
		"GET /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIf-None-Match: " +
			strings.Repeat("\"", 9999) + "\r\n\r\n": 200,
		"GET /v1/tensors/%zz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":               400,
		"GET /v1/tensors/t%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":              404,
		"GET /v1/tensors/%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":            404,
		"GET http://localhost/v1/tensors/t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n": 200,
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":                         404,
		"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":                       421,
		"GET /v1/tensors/t HTTP/1.1\r\nConnection: close\r\n\r\n":                                    400,
		"GET /v1/tensors/t?../../x#y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":       200,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                                           413,
		"\x16\x03\x01\x00\xa5\x01\r\n\r\n":                                                           400,
	} {
		if status, _ := raw(t, l.url, request); status != want {
			t.Errorf("%.70q: %d, not %d", request, status, want)
		}
	}
	// Pipelined requests are answered in order.
	conn := dial(t, l.url)
	for i := range 100 {
		fmt.Fprintf(conn, "GET /v1/tensors/t HTTP/1.1\r\nHost: localhost\r\nRange: bytes=%d-%d\r\n\r\n", i, i)
	}
	reader := bufio.NewReader(conn)
	for i := range 100 {
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != 206 || string(body) != string(fakeBytes(0, uint64(i), 1)) {
			t.Fatalf("%d: %d %q %v", i, answer.StatusCode, body, err)
		}
	}
	if l.metrics.panics.Load() != 0 {
		t.Errorf("%d panics", l.metrics.panics.Load())
	}
}

// Metrics have a bounded number of samples, whatever clients request.
func TestMetricsDoNotGrow(t *testing.T) {
	l := live(t, newFake(t, fakeTensor{"t", 100, false}), nil)
	ask := func(i int) {
		do(t, fmt.Sprintf("METHOD%d", i), fmt.Sprintf("%s/path/%d", l.url, i))
		get(t, fmt.Sprintf("%s/v1/tensors/%d", l.url, i))
	}
	ask(0)
	get(t, l.url+"/metrics")
	var before int
	await(t, "the figures", func() bool { before = len(scrape(t, l.url)); return before == len(scrape(t, l.url)) })
	for i := range 50 {
		ask(i)
	}
	if after := len(scrape(t, l.url)); after != before {
		t.Errorf("%d samples, then %d", before, after)
	}
}

// A web page whose name leads to this machine is refused. Requests that name this machine are accepted.
func TestNamesOfTheHost(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100, false})
	plain := live(t, f, nil)
	named := live(t, newFake(t, fakeTensor{"t", 100, false}), func(c *Config) {
		c.Hosts = []string{"model.internal", "other"}
	})
	open := live(t, newFake(t, fakeTensor{"t", 100, false}), func(c *Config) { c.Hosts = []string{"*"} })
	for host, want := range map[string][3]int{
		"localhost":               {200, 200, 200},
		"LOCALHOST:8311":          {200, 200, 200},
		"localhost.":              {200, 200, 200},
		"127.0.0.1:8311":          {200, 200, 200},
		"[::1]:8311":              {200, 200, 200},
		"[::1]":                   {200, 200, 200},
		"10.1.2.3":                {200, 200, 200},
		"":                        {200, 200, 200},
		"evil.example":            {421, 421, 200},
		"evil.example:8311":       {421, 421, 200},
		"localhost.evil.example":  {421, 421, 200},
		"127.0.0.1.evil.example":  {421, 421, 200},
		"model.internal":          {421, 200, 200},
		"Model.Internal:80":       {421, 200, 200},
		"model.internal.evil.com": {421, 421, 200},
	} {
		for i, l := range []*life{plain, named, open} {
			for _, path := range []string{"/v1/tensors/t", "/healthz", "/metrics"} {
				if status, _ := raw(t, l.url,
					"GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); status != want[i] {
					t.Errorf("%q, server %d, %s: %d", host, i, path, status)
				}
			}
		}
	}
	if f.reads.Load() != 8 {
		t.Errorf("%d reads", f.reads.Load())
	}
}
