package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const golden = "../../tests/data/golden"

// In a child process the test is the program.
func TestMain(m *testing.M) {
	if os.Getenv("GO_SERVICE_CHILD") != "" {
		os.Exit(run(os.Args[1:], os.LookupEnv, os.Stderr))
	}
	os.Exit(m.Run())
}

// process is the program in a process of its own.
type process struct {
	*exec.Cmd
	url   string
	lines chan string // of its log; closed at its end
}

// start starts the program, and waits until it prints its address.
func start(t *testing.T, environment []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], args...), lines: make(chan string, 1000)}
	p.Env = append(append(os.Environ(), "GO_SERVICE_CHILD=1"), environment...)
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill() })
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	line := p.line(t, "listening")
	p.url = "http://" + regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	return p
}

// line waits for a line that contains a word.
func (p *process) line(t *testing.T, word string) string {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("the program ended without %q", word)
			}
			if strings.Contains(line, word) {
				return line
			}
		case <-late:
			t.Fatalf("no %q in 20 s", word)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// The whole life of the program: it starts, serves, receives a signal, drains, and ends with nothing open.
func TestProcess(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, []string{"DF11_SERVICE_MODEL=" + filepath.Join(golden, "block", "model"),
				"DF11_SERVICE_DRAIN=3s"},
				"-listen", "127.0.0.1:0", "-log-format=json")
			p.line(t, `"ready"`)
			if status, body := get(t, p.url+"/readyz"); status != 200 || !strings.Contains(body, `"state":"ready"`) {
				t.Errorf("%d %s", status, body)
			}
			if status, body := get(t, p.url+"/v1/tensors/lm_head.weight"); status != 200 || len(body) != 262144 {
				t.Errorf("%d, %d bytes", status, len(body))
			}
			if _, body := get(t, p.url+"/metrics"); !strings.Contains(body, "\ndf11_models_open 1\n") {
				t.Error(body)
			}
			if err := p.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			p.line(t, `"closing"`)
			if status, body := get(t, p.url+"/readyz"); status != 503 || !strings.Contains(body, `"state":"closing"`) {
				t.Errorf("%d %s", status, body)
			}
			if status, _ := get(t, p.url+"/healthz"); status != 200 {
				t.Errorf("%d", status)
			}
			if status, body := get(t, p.url+"/v1/tensors/lm_head.weight"); status != 200 || len(body) != 262144 {
				t.Errorf("during the drain: %d, %d bytes", status, len(body))
			}
			var closed struct {
				ModelsOpen *int `json:"models_open"`
				Running    *int `json:"requests_running"`
			}
			line := p.line(t, `"closed"`)
			if err := json.Unmarshal([]byte(line), &closed); err != nil || closed.ModelsOpen == nil ||
				*closed.ModelsOpen != 0 ||
				closed.Running == nil || *closed.Running != 0 {
				t.Errorf("%v: %s", err, line)
			}
			if err := p.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A model that must be refused does not end the program, so that its owner can read the reason.
func TestProcessWithAWrongModel(t *testing.T) {
	p := start(t, nil, "-listen=127.0.0.1:0", "../../tests/data/hostile/code_with_a_hole.safetensors")
	p.line(t, "cannot be served")
	if status, body := get(t, p.url+"/readyz"); status != 503 || !strings.Contains(body, `"failed"`) ||
		!strings.Contains(body, "code_with_a_hole.safetensors") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get(t, p.url+"/healthz"); status != 200 {
		t.Errorf("%d", status)
	}
	p.Process.Signal(syscall.SIGTERM)
	p.line(t, "closed")
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// A second signal ends the program at once.
func TestSecondSignal(t *testing.T) {
	p := start(t, nil, "-listen=127.0.0.1:0", "-drain=1h", filepath.Join(golden, "tiny", "model"))
	p.line(t, "ready")
	p.Process.Signal(syscall.SIGTERM)
	p.line(t, "closing")
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	for range 200 {
		p.Process.Signal(syscall.SIGTERM) // it takes a moment until signals are as before
		select {
		case err := <-done:
			if err == nil {
				t.Error("ended in order")
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Error("did not end")
}

func TestFlags(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	set, err := parse([]string{"-chunk=8192", "-verify=false", "-log-level=warn", "m"},
		func(name string) (string, bool) {
			value, ok := map[string]string{"DF11_SERVICE_CHUNK": "1", "DF11_SERVICE_STREAMS": "7",
				"DF11_SERVICE_WRITE_TIMEOUT": "9s",
				"DF11_SERVICE_MODEL":         "other"}[name]
			return value, ok
		}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if set.Chunk != 8192 || set.Streams != 7 || set.WriteTimeout != 9*time.Second || set.Verify || set.Model != "m" ||
		set.listen != "127.0.0.1:8311" || set.Map {
		t.Errorf("%+v", set)
	}
	if set.Logger.Enabled(t.Context(), slog.LevelInfo) || !set.Logger.Enabled(t.Context(), slog.LevelWarn) {
		t.Error("another level")
	}
	for want, args := range map[string][]string{
		"no model":        {},
		"one model":       {"a", "b"},
		"after the flags": {"m", "-wait=5s"},
		"log-format":      {"-log-format=xml", "m"},
		"nowhere.json":    {"-config=nowhere.json", "m"},
		"not defined":     {"-none", "m"},
		"invalid value":   {"-wait=5", "m"},
		"invalid":         {"-log-level=loud", "m"},
	} {
		if _, err := parse(args, none, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := parse([]string{"m"}, func(name string) (string, bool) { return "x", name == "DF11_SERVICE_WAIT" },
		io.Discard); err == nil ||
		!strings.Contains(err.Error(), `DF11_SERVICE_WAIT="x"`) {
		t.Errorf("%v", err)
	}
	var out bytes.Buffer
	if code := run([]string{"-chunk=3", "m"}, none, &out); code != 2 || !strings.Contains(out.String(),
		"chunk must be even") {
		t.Errorf("%d %s", code, out.String())
	}
	if code := run([]string{"-listen=256.0.0.1:1", "m"}, none, &out); code != 2 {
		t.Errorf("%d %s", code, out.String())
	}
	out.Reset()
	if code := run([]string{"-help"}, none, &out); code != 0 || !strings.Contains(out.String(),
		"DF11_SERVICE_WRITE_TIMEOUT") {
		t.Errorf("%d %s", code, out.String())
	}
}
