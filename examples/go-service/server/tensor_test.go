package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// Names come from files, and may be any UTF-8 without a zero byte. The listing has a URL for each.
func TestNames(t *testing.T) {
	names := []string{
		"plain", "a/b/c", "/", "//", "/a", "a/", "a//b", "..", ".", "...", "../../etc/passwd", "a/../b", "a/./b", "%2F",
		"%", "%zz", "a b",
		"a+b", "a?b=c", "a#b", "\n\r\t\x01\x7f", "ünï/çødé", "日本", "\"quoted\"", "<script>", "back\\slash", ";,:@&=$",
		"*", "",
		strings.Repeat("long/", 1000),
	}
	var tensors []fakeTensor
	for i, name := range names {
		tensors = append(tensors, fakeTensor{name, uint64(2 * (i + 1)), i%2 == 0})
	}
	_, url := serveFake(t, newFake(t, tensors...), nil)
	listed := listTensors(t, url)
	for i, name := range names {
		if listed[i].Name != name {
			t.Errorf("%q is listed as %q", name, listed[i].Name)
		}
		if clean := path.Clean(listed[i].URL); clean != strings.TrimSuffix(listed[i].URL, "/") {
			t.Errorf("%q at %q, which proxies make %q", name, listed[i].URL, clean)
		}
		answer, body := get(t, url+listed[i].URL)
		if answer.StatusCode != 200 || !bytes.Equal(body, fakeBytes(i, 0, tensors[i].bytes)) {
			t.Errorf("%.40q at %.40q: %d %q", name, listed[i].URL, answer.StatusCode, body)
		}
	}
	// Clients may send slashes and dots unescaped.
	for path, want := range map[string]int{"/v1/tensors/a/b/c": 1, "/v1/tensors/a//b": 6, "/v1/tensors/a/../b": 11,
		"/v1/tensors//": 2} {
		status, body := raw(t, url, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if status != 200 || !bytes.Equal(body, fakeBytes(want, 0, tensors[want].bytes)) {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	for _, path := range []string{"/v1/tensors/none", "/v1/tensors/a/b", "/v1/tensors/a%2fb%2fc%2fd", "/", "/v1",
		"/v1/groups/", "/v1/groups/group",
		"/v2/tensors", "/healthz/", "//healthz", "/v1/tensors/../groups", "/%2e%2e/healthz", "/v1%2ftensors"} {
		if status, body := raw(t, url,
			"GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); status != 404 ||
			!bytes.Contains(body, []byte(`"error"`)) {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

// raw sends bytes unchanged, and returns the status and body of the answer.
func raw(t testing.TB, url, request string) (int, []byte) {
	t.Helper()
	conn := dial(t, url)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	var status int
	if _, err := fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status); err != nil {
		t.Fatalf("%.60q: %v: %q", request, err, answer)
	}
	_, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	return status, body
}

// dial opens a connection that is closed at the end of the test.
func dial(t testing.TB, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestMethods(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100, false}, fakeTensor{"empty", 0, true})
	_, url := serveFake(t, f, nil)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"} {
		for _, path := range []string{"/v1/tensors/t", "/v1/tensors", "/v1/groups", "/healthz", "/readyz", "/metrics"} {
			answer, _ := do(t, method, url+path)
			if answer.StatusCode != 405 || answer.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d %v", method, path, answer.StatusCode, answer.Header)
			}
		}
	}
	for _, path := range []string{"/v1/tensors/t", "/v1/tensors", "/v1/groups", "/healthz", "/readyz", "/metrics",
		"/none", "/v1/tensors/empty"} {
		first, body := get(t, url+path)
		second, none := do(t, "HEAD", url+path)
		if first.StatusCode != second.StatusCode || len(none) != 0 ||
			first.Header.Get("Content-Type") != second.Header.Get("Content-Type") {
			t.Errorf("%s: GET %d, HEAD %d with %d bytes", path, first.StatusCode, second.StatusCode, len(none))
		}
		if path != "/metrics" && path != "/readyz" && second.ContentLength != int64(len(body)) {
			t.Errorf("%s: HEAD says %d bytes, GET has %d", path, second.ContentLength, len(body))
		}
		if first.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, first.Header)
		}
	}
	if n := f.reads.Load(); n != 1 {
		t.Errorf("%d reads for one GET of a small tensor", n)
	}
	answer, body := get(t, url+"/v1/tensors/empty", "Range: bytes=0-")
	if answer.StatusCode != 416 || answer.Header.Get("Content-Range") != "bytes */0" || len(body) == 0 {
		t.Errorf("a range of nothing: %d %v", answer.StatusCode, answer.Header)
	}
}

// An error before the first byte is answered with its status. A later one ends the connection, so that no client
// mistakes the part for the whole.
func TestErrorsOfTheModel(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100_000, false})
	f.on(func(_ int, offset uint64, _ int) error {
		if offset >= 50_000 {
			return &df11.Error{Status: df11.ErrCorrupt, Message: "bad from 50000 on", Op: "read tensor"}
		}
		return nil
	})
	s, url := serveFake(t, f, nil)
	answer, body := get(t, url+"/v1/tensors/t", "Range: bytes=60000-")
	if answer.StatusCode != 500 || !strings.Contains(string(body), "bad from 50000 on") ||
		!strings.Contains(string(body), "CORRUPT") {
		t.Errorf("%d %q", answer.StatusCode, body)
	}
	if answer.Header.Get("Content-Range") != "" || answer.Header.Get("Accept-Ranges") != "" {
		t.Errorf("%v", answer.Header)
	}
	answer, err := http.Get(url + "/v1/tensors/t")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	if answer.StatusCode != 200 || err == nil || len(body) >= 100_000 || len(body) < 40_000 {
		t.Errorf("%d, %d bytes, %v", answer.StatusCode, len(body), err)
	}
	if !bytes.Equal(body, fakeBytes(0, 0, uint64(len(body)))) {
		t.Error("other bytes before the bad ones")
	}
	await(t, "the figures", func() bool { return ended(s, endFailed) == 2 })

	f.on(func(int, uint64, int) error { return df11.ErrOutOfMemory })
	if answer, body := get(t, url+"/v1/tensors/t"); answer.StatusCode != 503 ||
		answer.Header.Get("Retry-After") != "5" {
		t.Errorf("%d %v %q", answer.StatusCode, answer.Header, body)
	}
	f.on(func(int, uint64, int) error { panic("a secret") })
	if answer, body := get(t, url+"/v1/tensors/t"); answer.StatusCode != 500 ||
		strings.Contains(string(body), "a secret") {
		t.Errorf("%d %q", answer.StatusCode, body)
	}
	f.on(func(_ int, offset uint64, _ int) error {
		if offset > 0 {
			panic("a bug in the middle")
		}
		return nil
	})
	answer, err = http.Get(url + "/v1/tensors/t")
	if err == nil {
		_, err = io.ReadAll(answer.Body)
		answer.Body.Close()
	}
	if err == nil {
		t.Error("a body that a panic ended is whole")
	}
	await(t, "the figures", func() bool { return s.metrics.panics.Load() == 2 })

	f.on(func(int, uint64, int) error { return nil })
	if answer, body := get(t, url+"/v1/tensors/t"); answer.StatusCode != 200 || len(body) != 100_000 {
		t.Errorf("afterwards: %d", answer.StatusCode)
	}
	if s.pool.used() != 0 || len(s.decodes) != 0 || s.metrics.inFlight.Load() != 0 {
		t.Errorf("not freed: %d buffers, %d decodes, %d requests", s.pool.used(), len(s.decodes),
			s.metrics.inFlight.Load())
	}
	f.on(func(int, uint64, int) error { return fmt.Errorf("closed: %w", errors.ErrUnsupported) })
	if answer, _ := get(t, url+"/v1/tensors/t"); answer.StatusCode != 500 {
		t.Errorf("an error of no status: %d", answer.StatusCode)
	}
}

// ended returns the number of requests for tensors that ended in this way.
func ended(s *Server, e end) uint64 {
	s.metrics.lock.Lock()
	defer s.metrics.lock.Unlock()
	return s.metrics.ended[routeTensor][e]
}
