package df11_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

func TestStatsCount(t *testing.T) {
	before := df11.Stats()
	m := open(t, modelOf("tiny"), nil)
	group := m.Groups()[0]
	if err := errors.Join(m.Decompress(0, 0, make([]df11.BF16, 10), 1), m.ReadTensor(0, 0, make([]byte, 6), 1),
		m.WriteImage(0, make([]byte, group.ImageBytes))); err != nil {
		t.Fatal(err)
	}
	if m.Decompress(0, 1<<60, make([]df11.BF16, 10), 1) == nil {
		t.Fatal("there is no such range")
	}
	if _, err := df11.Open(ctx, golden+"nowhere", nil); err == nil {
		t.Fatal("there is no such model")
	}
	// A program may look for optional tensors: that does not count as a failed call.
	if _, err := m.FindTensor("no such tensor"); !errors.Is(err, df11.ErrNotFound) {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := df11.Open(over, modelOf("tiny"), nil); err == nil {
		t.Fatal("the context is over")
	}
	now := df11.Stats()
	want := before
	want.ModelsOpened++
	want.ModelsOpen++
	want.ModelBytesOpen = now.ModelBytesOpen
	want.HostDecodes += 2
	want.HostBytes += 26
	want.ImagesWritten++
	want.ImageBytesWritten += group.ImageBytes
	want.ErrorsCaller += 2
	want.ErrorsFile++
	stored := group.PackedBytes
	for _, tensor := range m.Tensors() {
		if tensor.Group < 0 {
			stored += tensor.DataBytes
		}
	}
	if now != want || now.ModelBytesOpen != before.ModelBytesOpen+stored {
		t.Errorf("%+v\nnot\n%+v", now, want)
	}
	m.Close()
	if now := df11.Stats(); now.ModelsOpen != before.ModelsOpen || now.ModelBytesOpen != before.ModelBytesOpen {
		t.Errorf("%+v", now)
	}
}

var sample = regexp.MustCompile(`^(df11_[a-z_]+)(\{[a-z]+="[^"\\]*"\})? (\d+)$`)

// WriteMetrics writes the text format of Prometheus: each metric's help and type, once, before its samples.
func TestMetrics(t *testing.T) {
	var text bytes.Buffer
	if err := df11.WriteMetrics(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(text.String(), "\n") {
		t.Error("the last line has no end")
	}
	types, values := map[string]string{}, map[string]uint64{}
	help := ""
	for line := range strings.SplitSeq(strings.TrimSuffix(text.String(), "\n"), "\n") {
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			help, _, _ = strings.Cut(rest, " ")
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if name != help || types[name] != "" || kind != "counter" && kind != "gauge" ||
				(kind == "counter") != strings.HasSuffix(name, "_total") {
				t.Error(line)
			}
			types[name] = kind
			continue
		}
		parts := sample.FindStringSubmatch(line)
		if parts == nil || types[parts[1]] == "" || parts[1] != help {
			t.Errorf("%q", line)
			continue
		}
		if _, twice := values[parts[1]+parts[2]]; twice {
			t.Error(line)
		}
		values[parts[1]+parts[2]], _ = strconv.ParseUint(parts[3], 10, 64)
	}
	now := df11.Stats()
	for name, want := range map[string]uint64{
		"df11_models_opened_total":                          now.ModelsOpened,
		"df11_models_open":                                  now.ModelsOpen,
		"df11_host_decoded_bytes_total":                     now.HostBytes,
		`df11_errors_total{by="file"}`:                      now.ErrorsFile,
		`df11_build_info{version="` + df11.Version() + `"}`: 1,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s: %d, not %d", name, got, want)
		}
	}
	if len(values) != 18 {
		t.Errorf("%d samples: %v", len(values), values)
	}
	r, w := io.Pipe()
	r.Close()
	if err := df11.WriteMetrics(w); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}
