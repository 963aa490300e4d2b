package df11_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"
	"unsafe"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

var ctx = context.Background()

const (
	golden  = "../../tests/data/golden/"
	hostile = "../../tests/data/hostile/"
)

// models are the folders with models of the reference compressor and their originals.
var models = []string{"tiny", "block", "sharded", "edge", "edge_patched"}

func modelOf(name string) string    { return golden + name + "/model" }
func originalOf(name string) string { return golden + name + "/original.safetensors" }

func open(t testing.TB, path string, o *df11.Options) *df11.Model {
	t.Helper()
	m, err := df11.Open(ctx, path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// stored is a tensor in a safetensors file.
type stored struct {
	DType   string   `json:"dtype"`
	Shape   []uint64 `json:"shape"`
	Offsets [2]int   `json:"data_offsets"`
	bytes   []byte
}

// safetensors reads a file without the library.
func safetensors(t testing.TB, path string) map[string]stored {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := binary.LittleEndian.Uint64(file)
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(file[8:8+size], &raw); err != nil {
		t.Fatal(err)
	}
	tensors := map[string]stored{}
	for name, text := range raw {
		if name == "__metadata__" {
			continue
		}
		var s stored
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		s.bytes = file[8+size:][s.Offsets[0]:s.Offsets[1]]
		tensors[name] = s
	}
	return tensors
}

// write writes tensors as a safetensors file.
func write(t testing.TB, path string, tensors map[string]stored) {
	t.Helper()
	names := make([]string, 0, len(tensors))
	for name := range tensors {
		names = append(names, name)
	}
	sort.Strings(names)
	header := map[string]stored{}
	at := 0
	for _, name := range names {
		s := tensors[name]
		s.Offsets = [2]int{at, at + len(s.bytes)}
		at += len(s.bytes)
		header[name] = s
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	parts := [][]byte{binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text}
	for _, name := range names {
		parts = append(parts, tensors[name].bytes)
	}
	for _, part := range parts {
		if _, err := file.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// large writes a model with the groups of "block", each several times under other names, and returns its path.
func large(t testing.TB, times int) string {
	t.Helper()
	tensors := map[string]stored{}
	for name, s := range safetensors(t, modelOf("block")+"/model.safetensors") {
		if rest, ok := strings.CutPrefix(name, "model.layers."); ok && len(s.bytes) > 0 {
			for i := range times {
				tensors[fmt.Sprintf("model.layers.%d%s", i, rest)] = s
			}
		}
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	write(t, path, tensors)
	return path
}

// bytesOf returns weights as bytes, without a copy.
func bytesOf(w []df11.BF16) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 2*len(w))
}

// eventually waits until a condition is true, and collects garbage meanwhile.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 seconds; %+v", what, df11.Stats())
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}
