package server

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// readyz requests the health over HTTP.
func readyz(t testing.TB, url string) (int, Health) {
	t.Helper()
	answer, body := get(t, url+"/readyz")
	var h Health
	if err := json.Unmarshal(body, &h); err != nil {
		t.Fatalf("%v: %q", err, body)
	}
	if answer.Header.Get("Content-Type") != "application/json" || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", answer.Header)
	}
	return answer.StatusCode, h
}

// The states of a good model in their order, and the answers to requests in each.
func TestStates(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100, false}, fakeTensor{"plain", 7, true})
	type step struct{ done, total uint64 }
	steps, opened := make(chan step), make(chan struct{})
	cfg := config(filepath.Dir(f.parts))
	cfg.Verify = true
	cfg.Open = func(ctx context.Context, path string, o *df11.Options) (Model, error) {
		if path != cfg.Model || !o.Verify || !o.NoMap || o.Threads != cfg.VerifyThreads {
			t.Errorf("%s, %+v", path, o)
		}
		for s := range steps {
			o.Progress(s.done, s.total)
			opened <- struct{}{}
		}
		return f, nil
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s.Health().State != "opening" {
		t.Errorf("before Start: %+v", s.Health())
	}
	s, url := serve(t, cfg)
	unready := func(state, what string, done, total uint64) {
		t.Helper()
		status, h := readyz(t, url)
		if status != 503 || h.State != state || h.Step != what || h.Done != done || h.Total != total ||
			h.Attempts != 1 {
			t.Errorf("%d %+v", status, h)
		}
		answer, body := get(t, url+"/v1/tensors/t")
		if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" ||
			!strings.Contains(string(body), state) {
			t.Errorf("%d %v %q", answer.StatusCode, answer.Header, body)
		}
		if answer, body := get(t, url+"/healthz"); answer.StatusCode != 200 || string(body) != "ok\n" {
			t.Errorf("healthz: %d %q", answer.StatusCode, body)
		}
		if _, body := get(t, url+"/metrics"); !strings.Contains(string(body),
			`df11_service_state{state="`+state+`"} 1`) {
			t.Errorf("no state %s in the metrics", state)
		}
	}
	await(t, "opening", func() bool { return s.Health().Attempts == 1 })
	unready("opening", "", 0, 0)
	steps <- step{0, 0} // nothing is known yet
	<-opened
	unready("opening", "", 0, 0)
	steps <- step{0, 1000}
	<-opened
	unready("verifying", "codes", 0, 1000)
	steps <- step{250, 1000}
	<-opened
	unready("verifying", "codes", 250, 1000)
	close(steps)
	await(t, "ready", func() bool { return s.Health().State == "ready" })
	if status, h := readyz(t, url); status != 200 || h.State != "ready" || h.Error != "" || h.Seconds < 0 {
		t.Errorf("%d %+v", status, h)
	}
	if s.metrics.hashes.Load() != 2 {
		t.Errorf("%d hashes, though verified", s.metrics.hashes.Load())
	}
	if answer, _ := get(t, url+"/v1/tensors/t"); answer.StatusCode != 200 {
		t.Errorf("ready: %d", answer.StatusCode)
	}
	s.Close()
	if status, h := readyz(t, url); status != 503 || h.State != "closing" {
		t.Errorf("%d %+v", status, h)
	}
	if answer, _ := get(t, url+"/v1/tensors/t"); answer.StatusCode != 503 {
		t.Errorf("closed: %d", answer.StatusCode)
	}
	if f.closed.Load() != 1 {
		t.Errorf("closed %d times", f.closed.Load())
	}
}

// The library's progress is visible: a verifying state, and numbers that grow to their total.
func TestProgressOfTheLibrary(t *testing.T) {
	var saw []Health
	cfg := config(filepath.Join(golden, "block", "model"))
	cfg.Verify = true
	var s *Server
	cfg.Open = func(ctx context.Context, path string, o *df11.Options) (Model, error) {
		inner := o.Progress
		o.Progress = func(done, total uint64) {
			inner(done, total)
			saw = append(saw, s.Health())
		}
		return Open(ctx, path, o)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	await(t, "ready", func() bool { return s.Health().State == "ready" })
	s.Close()
	if len(saw) == 0 {
		t.Fatal("no progress was told")
	}
	last := saw[len(saw)-1]
	if last.State != "verifying" || last.Step != "codes" || last.Done != last.Total || last.Total == 0 {
		t.Errorf("the last progress: %+v", last)
	}
}

// The service reports the library's message about a model that must be refused.
func TestHostileModels(t *testing.T) {
	entries, err := os.ReadDir(hostile)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, entry := range entries {
		if entry.Name() == "README.md" {
			continue
		}
		path := filepath.Join(hostile, entry.Name())
		m, err := df11.Open(t.Context(), path, &df11.Options{Verify: true, NoMap: true})
		if err == nil {
			m.Close() // verified by its hashes only, or refused by calls that the service does not make
			continue
		}
		refused++
		s, url := serve(t, func() Config { c := config(path); c.Verify = true; return c }())
		await(t, "failed", func() bool { return s.Health().State == "failed" })
		status, h := readyz(t, url)
		if status != 503 || h.Error != err.Error() || h.Status != statusName(err) || h.Status == "" {
			t.Errorf("%s: %d %+v, not %v", entry.Name(), status, h, err)
		}
		answer, body := get(t, url+"/v1/tensors")
		if answer.StatusCode != 503 || !strings.Contains(string(body), `"state":"failed"`) {
			t.Errorf("%s: %d %q", entry.Name(), answer.StatusCode, body)
		}
		if answer, _ := get(t, url+"/healthz"); answer.StatusCode != 200 {
			t.Errorf("%s: not alive", entry.Name())
		}
	}
	if refused < 100 {
		t.Errorf("only %d models were refused", refused)
	}
}

// Without verification, requests for wrong codes get the library's message, and everything else works.
func TestHostileCodesThatWereNotVerified(t *testing.T) {
	s, url := serveModel(t, filepath.Join(hostile, "bits_that_are_no_code.safetensors"), nil)
	bad := 0
	for _, one := range listTensors(t, url) {
		answer, body := get(t, url+one.URL)
		if answer.StatusCode == 200 {
			continue
		}
		bad++
		var p problem
		if err := json.Unmarshal(body, &p); err != nil || answer.StatusCode != 500 || p.Status != "CORRUPT" ||
			p.Error == "" {
			t.Errorf("%d %v %q", answer.StatusCode, err, body)
		}
		if answer.Header.Get("ETag") != "" || answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v", answer.Header)
		}
	}
	if bad == 0 {
		t.Error("everything was decoded")
	}
	if s.Health().State != "ready" || s.pool.used() != 0 || len(s.decodes) != 0 {
		t.Errorf("%+v, %d buffers, %d decodes", s.Health(), s.pool.used(), len(s.decodes))
	}
}

// A model that cannot be read is opened again; a damaged one is not.
func TestOpenedAgain(t *testing.T) {
	f := newFake(t, fakeTensor{"t", 100, false})
	io := &df11.Error{Status: df11.ErrIO, Message: "the disk is away", Op: "open"}
	attempts := 0
	cfg := config(filepath.Dir(f.parts))
	cfg.Retry = time.Millisecond
	cfg.Open = func(context.Context, string, *df11.Options) (Model, error) {
		if attempts++; attempts < 4 {
			return nil, io
		}
		return f, nil
	}
	s, url := serve(t, cfg)
	await(t, "ready", func() bool { return s.Health().State == "ready" })
	if status, h := readyz(t, url); status != 200 || h.Attempts != 4 || h.Error != "" || h.Status != "" {
		t.Errorf("%d %+v", status, h)
	}

	for _, c := range []struct {
		err   error
		retry time.Duration
	}{{df11.ErrCorrupt, time.Millisecond}, {errors.New("a surprise"), time.Millisecond}, {io, 0}} {
		cfg.Retry = c.retry
		cfg.Open = func(context.Context, string, *df11.Options) (Model, error) { return nil, c.err }
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		<-s.loaded
		if h := s.Health(); h.State != "failed" || h.Error != c.err.Error() || h.Attempts != 1 {
			t.Errorf("%v: %+v", c.err, h)
		}
		s.Close()
	}
}

// A path that does not exist, with the real library: the state is failed, with its message. Then the model appears, and
// is served.
func TestModelThatComesLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	cfg := config(path)
	cfg.Retry = 5 * time.Millisecond
	s, url := serve(t, cfg)
	await(t, "failed", func() bool { return s.Health().State == "failed" })
	if _, h := readyz(t, url); h.State == "failed" && (h.Status != "IO" || !strings.Contains(h.Error, path)) {
		t.Errorf("%+v", h)
	}
	content, err := os.ReadFile(filepath.Join(golden, "tiny", "model", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".part", content, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
	await(t, "ready", func() bool { return s.Health().State == "ready" })
}

// Closing while the model is being opened cancels the opening.
func TestCloseWhileOpening(t *testing.T) {
	cfg := config("anywhere")
	began := make(chan struct{})
	cfg.Open = func(ctx context.Context, _ string, _ *df11.Options) (Model, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	<-began
	s.Close()
	s.Close() // again does nothing
	if s.Health().State != "closing" {
		t.Errorf("%+v", s.Health())
	}
}

// No state follows closing.
func TestClosingStays(t *testing.T) {
	var h health
	for _, s := range []State{Opening, Verifying, Failed, Opening, Ready, Closing} {
		if !h.enter(s, "", nil) || h.report().State != s.String() {
			t.Errorf("%v: %+v", s, h.report())
		}
	}
	for _, s := range []State{Opening, Verifying, Ready, Failed, Closing} {
		if h.enter(s, "", nil) || h.report().State != "closing" {
			t.Errorf("%v after the end", s)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := config("x")
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Config){
		"model":      func(c *Config) { c.Model = "" },
		"chunk":      func(c *Config) { c.Chunk = 4097 },
		"chunk ":     func(c *Config) { c.Chunk = 2 },
		"streams":    func(c *Config) { c.Streams = 0 },
		"decodes":    func(c *Config) { c.Decodes = -1 },
		"waiting":    func(c *Config) { c.Waiting = -1 },
		"wait":       func(c *Config) { c.Wait = -1 },
		"shutdown":   func(c *Config) { c.Shutdown = 0 },
		"write-time": func(c *Config) { c.WriteTimeout = 0 },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(what)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
