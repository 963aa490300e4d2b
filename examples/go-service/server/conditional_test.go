package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestConditions(t *testing.T) {
	const tag = `"abc"`
	const partial = "Range: bytes=2-3"
	for _, c := range []struct {
		method, etag string
		headers      []string
		status       int
		body         span
	}{
		{"GET", tag, nil, 200, span{0, 10}},
		{"GET", tag, []string{partial}, 206, span{2, 2}},
		{"HEAD", tag, []string{partial}, 200, span{0, 10}}, // ranges have a meaning for GET only
		{"GET", tag, []string{"Range: bytes=10-"}, 416, span{}},
		{"GET", tag, []string{"Range: bytes=0-0", "Range: bytes=2-2"}, 416, span{}},

		{"GET", tag, []string{`If-None-Match: "abc"`}, 304, span{}},
		{"HEAD", tag, []string{`If-None-Match: "abc"`}, 304, span{}},
		{"GET", tag, []string{`If-None-Match: W/"abc"`}, 304, span{}}, // compared weakly
		{"GET", tag, []string{`If-None-Match: *`}, 304, span{}},
		{"GET", tag, []string{`If-None-Match: "x", W/"y" ,"abc"`}, 304, span{}},
		{"GET", tag, []string{`If-None-Match: "x"`, `If-None-Match: "abc"`}, 304, span{}},
		{"GET", tag, []string{`If-None-Match: "x,\"abc"`}, 200, span{0, 10}},
		{"GET", tag, []string{`If-None-Match: "abcd"`}, 200, span{0, 10}},
		{"GET", tag, []string{`If-None-Match: abc`}, 200, span{0, 10}},
		{"GET", tag, []string{`If-None-Match: "abc`}, 200, span{0, 10}},
		{"GET", tag, []string{`If-None-Match: "`}, 200, span{0, 10}},
		{"GET", tag, []string{`If-None-Match: `}, 200, span{0, 10}},
		{"GET", tag, []string{`If-None-Match: "abc"`, partial}, 304, span{}}, // conditions come before ranges

		{"GET", tag, []string{`If-Match: "abc"`}, 200, span{0, 10}},
		{"GET", tag, []string{`If-Match: *`}, 200, span{0, 10}},
		{"GET", tag, []string{`If-Match: "x"`}, 412, span{}},
		{"GET", tag, []string{`If-Match: W/"abc"`}, 412, span{}}, // compared strongly
		{"GET", tag, []string{`If-Match: "x", "abc"`, partial}, 206, span{2, 2}},
		{"GET", tag, []string{`If-Match: "x"`, `If-None-Match: "abc"`}, 412, span{}},

		{"GET", tag, []string{`If-Range: "abc"`, partial}, 206, span{2, 2}},
		{"GET", tag, []string{`If-Range: W/"abc"`, partial}, 200, span{0, 10}},
		{"GET", tag, []string{`If-Range: "x"`, partial}, 200, span{0, 10}},
		{"GET", tag, []string{`If-Range: "x"`, "Range: bytes=10-"}, 200, span{0, 10}}, // nor is the range looked at
		{"GET", tag, []string{`If-Range: Sat, 29 Oct 1994 19:43:31 GMT`, partial}, 200, span{0, 10}},
		{"GET", tag, []string{`If-Range: "abc"`, `If-Range: "abc"`, partial}, 200, span{0, 10}},
		{"GET", tag, []string{`If-Range: "abc"`}, 200, span{0, 10}},

		// Without a tag nothing matches.
		{"GET", "", []string{`If-None-Match: "abc"`}, 200, span{0, 10}},
		{"GET", "", []string{`If-None-Match: ""`}, 200, span{0, 10}},
		{"GET", "", []string{`If-Match: "abc"`}, 412, span{}},
		{"GET", "", []string{`If-Range: "abc"`, partial}, 200, span{0, 10}},
		{"GET", "", []string{`If-Range: `, partial}, 200, span{0, 10}},
		{"GET", "", []string{partial}, 206, span{2, 2}},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		for _, h := range c.headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Add(name, value)
		}
		if got := decide(r, c.etag, 10); got.status != c.status || got.body != c.body {
			t.Errorf("%s %s %q: %v", c.method, c.etag, c.headers, got)
		}
	}
}

// A tensor's own tag in every kind of condition.
func TestConditionsOverHTTP(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 10000, false})
	_, url := serveFake(t, f, nil)
	url += "/v1/tensors/t"
	answer, _ := do(t, http.MethodHead, url)
	tag := answer.Header.Get("ETag")
	if answer.StatusCode != 200 || answer.ContentLength != 10000 || len(tag) != 45 {
		t.Fatalf("HEAD: %d, %d bytes, ETag %q", answer.StatusCode, answer.ContentLength, tag)
	}
	if n := f.reads.Load(); n != 0 {
		t.Errorf("a HEAD decoded %d times", n)
	}
	answer, body := get(t, url, "If-None-Match: "+tag)
	if answer.StatusCode != 304 || len(body) != 0 || answer.Header.Get("ETag") != tag ||
		answer.Header.Get("Content-Length") != "" {
		t.Errorf("If-None-Match: %d, %d bytes, %v", answer.StatusCode, len(body), answer.Header)
	}
	answer, _ = get(t, url, `If-Match: "x"`)
	if answer.StatusCode != 412 {
		t.Errorf("If-Match: %d", answer.StatusCode)
	}
	if n := f.reads.Load(); n != 0 {
		t.Errorf("answers without a body decoded %d times", n)
	}
	answer, body = get(t, url, "If-Range: "+tag, "Range: bytes=1-2")
	if answer.StatusCode != 206 || string(body) != string(fakeBytes(0, 1, 2)) || answer.Header.Get("ETag") != tag {
		t.Errorf("If-Range: %d, %q", answer.StatusCode, body)
	}
	answer, body = get(t, url, `If-Range: "x"`, "Range: bytes=1-2")
	if answer.StatusCode != 200 || string(body) != string(fakeBytes(0, 0, 10000)) {
		t.Errorf("another If-Range: %d, %d bytes", answer.StatusCode, len(body))
	}
	answer, _ = get(t, url, "Range: bytes=10000-")
	if answer.StatusCode != 416 || answer.Header.Get("Content-Range") != "bytes */10000" {
		t.Errorf("after the end: %d %q", answer.StatusCode, answer.Header.Get("Content-Range"))
	}
}
