package server

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// tag requests a tensor's entity tag.
func tag(t testing.TB, url, name string) string {
	t.Helper()
	answer, _ := do(t, http.MethodHead, url+tensorURL(name))
	if answer.StatusCode != 200 {
		t.Fatalf("%s: %d", name, answer.StatusCode)
	}
	return answer.Header.Get("ETag")
}

// Tags depend on the content. They are the same in another folder, for another way of reading, and computed early or
// late, and differ between tensors.
func TestTagsAreOfTheContent(t *testing.T) {
	model := filepath.Join(golden, "sharded", "model")
	copied := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.CopyFS(copied, os.DirFS(model)); err != nil {
		t.Fatal(err)
	}
	_, here := serveModel(t, model, func(c *Config) { c.Verify = true })
	s, there := serveModel(t, copied+"/./", func(c *Config) { c.Verify, c.Map = false, true })
	if s.metrics.hashes.Load() != 0 {
		t.Error("hashed though nobody asked")
	}
	tags := map[string]string{}
	for _, one := range listTensors(t, here) {
		first, second := tag(t, here, one.Name), tag(t, there, one.Name)
		if first == "" || first != second {
			t.Errorf("%s: %q and %q", one.Name, first, second)
		}
		if other := tags[first]; other != "" {
			t.Errorf("%s and %s have the same tag", one.Name, other)
		}
		tags[first] = one.Name
	}
	if n := s.metrics.hashes.Load(); n >= uint64(len(tags)) {
		t.Errorf("%d hashes for %d tensors, most of them in groups", n, len(tags))
	}
}

// A changed byte in any part of a group changes the tags of its tensors.
func TestTagsFollowTheBytes(t *testing.T) {
	f := newFake(t, fakeTensor{"a", 10, false}, fakeTensor{"b", 10, false}, fakeTensor{"plain", 10, true},
		fakeTensor{"empty", 0, true})
	_, url := serveFake(t, f, nil)
	content, err := os.ReadFile(f.parts)
	if err != nil {
		t.Fatal(err)
	}
	content[31] ^= 1
	content[5] ^= 1
	other := newFake(t, fakeTensor{"a", 10, false}, fakeTensor{"b", 10, false}, fakeTensor{"plain", 10, true},
		fakeTensor{"empty", 0, true})
	if err := os.WriteFile(other.parts, content, 0o666); err != nil {
		t.Fatal(err)
	}
	_, second := serveFake(t, other, nil)
	for name, same := range map[string]bool{"a": false, "b": false, "plain": false, "empty": true} {
		if (tag(t, url, name) == tag(t, second, name)) != same {
			t.Errorf("%s: %q and %q", name, tag(t, url, name), tag(t, second, name))
		}
	}
	if tag(t, url, "a") == tag(t, url, "b") {
		t.Error("two tensors of a group have one tag")
	}
}

// Files that were replaced after the model was opened give no tag, and the tensors are served without one.
func TestChangedFiles(t *testing.T) {
	for what, change := range map[string]func(path string) error{
		"written to": func(path string) error {
			return os.WriteFile(path, []byte("WHAT the model was compressed to"),
				0o666)
		},
		"replaced": func(path string) error {
			if err := os.WriteFile(path+".new", []byte("what the model was compressed to"), 0o666); err != nil {
				return err
			}
			if err := os.Chtimes(path+".new", time.Time{}, time.Unix(2e9, 0)); err != nil {
				return err
			}
			return os.Rename(path+".new", path) // as large and as old as the other one
		},
		"touched":   func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)) },
		"cut short": func(path string) error { return os.Truncate(path, 16) },
		"removed":   os.Remove,
	} {
		f := newFake(t, fakeTensor{"t", 100, false})
		// File times are coarse.
		if err := os.Chtimes(f.parts, time.Time{}, time.Unix(2e9, 0)); err != nil {
			t.Fatal(err)
		}
		s, url := serveFake(t, f, nil)
		if err := change(f.parts); err != nil {
			t.Fatal(err)
		}
		answer, body := get(t, url+"/v1/tensors/t", `If-None-Match: "x"`)
		if answer.StatusCode != 200 || len(body) != 100 || answer.Header.Values("ETag") != nil {
			t.Errorf("%s: %d, %d bytes, %v", what, answer.StatusCode, len(body), answer.Header)
		}
		if s.metrics.hashFailures.Load() == 0 {
			t.Errorf("%s: not counted", what)
		}
	}
	// The same for a file that changes while it is read.
	during := newFake(t, fakeTensor{"t", 32, true})
	d := newDigests(t.Context(), during, look(during.parts), config("").Logger, &metrics{})
	if _, err := d.plain(&during.tensors[0], func(int) {
		os.Chtimes(during.parts, time.Time{},
			time.Unix(1e9, 0))
	}); !errors.Is(err, errChanged) {
		t.Errorf("%v", err)
	}
	// With verification such a model does not become ready.
	f := newFake(t, fakeTensor{"t", 100, false})
	files := look(f.parts)
	if err := os.WriteFile(f.parts, []byte("another length"), 0o666); err != nil {
		t.Fatal(err)
	}
	d = newDigests(t.Context(), f, files, config("").Logger, &metrics{})
	if err := d.all(t.Context(), func(uint64, uint64) {}); !errors.Is(err, errChanged) {
		t.Errorf("%v", err)
	}
}

// A tag is computed once for any number of concurrent requests, and a client that goes away does not affect the others.
func TestOneDigestForAll(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100, false})
	s, url := serveFake(t, f, nil)
	d := s.catalog.Load().digests
	d.turn <- struct{}{} // the work waits

	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := d.etag(ctx, &f.tensors[0])
		gone <- err
	}()
	var clients sync.WaitGroup
	for range 20 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			if tag(t, url, "t") == "" {
				t.Error("no tag")
			}
		}()
	}
	await(t, "all asking", func() bool { return s.metrics.inFlight.Load() == 20 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-d.turn
	clients.Wait()
	if n := s.metrics.hashes.Load(); n != 1 {
		t.Errorf("%d hashes", n)
	}
}

// Closing neither waits for a long hash nor leaves it running.
func TestCloseDuringADigest(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100, false})
	s, url := serveFake(t, f, nil)
	d := s.catalog.Load().digests
	d.turn <- struct{}{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		http.Get(url + "/v1/tensors/t")
	}()
	await(t, "asking", func() bool { return s.metrics.inFlight.Load() == 1 })
	s.Close()
	<-done
	if f.closed.Load() != 1 {
		t.Error("not closed")
	}
}
