package server

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// golden is the folder with models of the reference compressor, hostile the one with models that must be refused.
const (
	golden  = "../../../tests/data/golden"
	hostile = "../../../tests/data/hostile"
)

// original is a tensor before compression.
type original struct {
	dtype string
	shape []uint64
	bytes []byte
}

// originals reads a safetensors file.
func originals(t testing.TB, path string) map[string]original {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(file)
	header, data := file[8:8+n], file[8+n:]
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(header, &entries); err != nil {
		t.Fatal(err)
	}
	delete(entries, "__metadata__")
	tensors := map[string]original{}
	for name, text := range entries {
		var entry struct {
			DType string    `json:"dtype"`
			Shape []uint64  `json:"shape"`
			Data  [2]uint64 `json:"data_offsets"`
			Other *struct{} `json:"-"`
		}
		if err := json.Unmarshal(text, &entry); err != nil {
			t.Fatal(err)
		}
		tensors[name] = original{entry.DType, entry.Shape, data[entry.Data[0]:entry.Data[1]]}
	}
	return tensors
}

// models are the golden models and their expected results.
var models = []string{"tiny", "block", "sharded", "edge", "edge_patched"}

// serveModel serves a real model, and waits until it is ready.
func serveModel(t testing.TB, path string, change func(*Config)) (*Server, string) {
	t.Helper()
	cfg := config(path)
	if change != nil {
		change(&cfg)
	}
	s, url := serve(t, cfg)
	await(t, "ready", func() bool {
		if h := s.Health(); h.State == "failed" {
			t.Fatal(h.Error)
		}
		return s.Health().State == "ready"
	})
	return s, url
}

// Every tensor of every golden model, whole and in ranges, with the URLs of the listing.
func TestGoldenModels(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, name := range models {
		want := originals(t, filepath.Join(golden, name, "original.safetensors"))
		for _, how := range []struct{ verify, mapped bool }{{true, false}, {false, true}} {
			_, url := serveModel(t, filepath.Join(golden, name, "model"), func(c *Config) {
				c.Verify, c.Map, c.Chunk = how.verify, how.mapped, 64<<10
			})
			listed := listTensors(t, url)
			if len(listed) != len(want) {
				t.Errorf("%s: %d tensors, not %d", name, len(listed), len(want))
			}
			for _, one := range listed {
				whole, ok := want[one.Name]
				if !ok {
					t.Errorf("%s: there is no %q in the original", name, one.Name)
					continue
				}
				if one.DType != whole.dtype || one.Bytes != uint64(len(whole.bytes)) {
					t.Errorf("%s: %q: %s, %d bytes", name, one.Name, one.DType, one.Bytes)
				}
				if one.Group == nil && fmt.Sprint(one.Shape) != fmt.Sprint(whole.shape) {
					t.Errorf("%s: %q: shape %v, not %v", name, one.Name, one.Shape, whole.shape)
				}
				answer, body := get(t, url+one.URL)
				if answer.StatusCode != 200 || !bytes.Equal(body, whole.bytes) {
					t.Errorf("%s: %q: %d, %d bytes that differ", name, one.Name, answer.StatusCode, len(body))
				}
				if answer.ContentLength != int64(len(whole.bytes)) || answer.Header.Get("DF11-DType") != whole.dtype ||
					answer.Header.Get("DF11-Shape") != shapeText(one.Shape) || answer.Header.Get("ETag") == "" {
					t.Errorf("%s: %q: %v", name, one.Name, answer.Header)
				}
				for range 3 {
					if len(whole.bytes) == 0 {
						break
					}
					first := random.IntN(len(whole.bytes))
					last := first + random.IntN(len(whole.bytes)-first)
					answer, body := get(t, url+one.URL, fmt.Sprintf("Range: bytes=%d-%d", first, last))
					if answer.StatusCode != http.StatusPartialContent || !bytes.Equal(body, whole.bytes[first:last+1]) {
						t.Errorf("%s: %q: %d-%d: %d, or other bytes", name, one.Name, first, last, answer.StatusCode)
					}
				}
			}
		}
	}
}

// listTensors requests the listing.
func listTensors(t testing.TB, url string) []tensorEntry {
	t.Helper()
	answer, body := get(t, url+"/v1/tensors")
	var listing struct{ Tensors []tensorEntry }
	if err := json.Unmarshal(body, &listing); err != nil || answer.StatusCode != 200 {
		t.Fatalf("%d %v: %q", answer.StatusCode, err, body)
	}
	return listing.Tensors
}

func TestListings(t *testing.T) {
	_, url := serveModel(t, filepath.Join(golden, "block", "model"), nil)
	answer, body := get(t, url+"/v1/groups")
	var listing struct{ Groups []groupEntry }
	if err := json.Unmarshal(body, &listing); err != nil {
		t.Fatal(err)
	}
	tensors := listTensors(t, url)
	if answer.Header.Get("Content-Type") != "application/json" || len(listing.Groups) != 4 || len(tensors) != 21+0 {
		t.Errorf("%v, %d groups, %d tensors", answer.Header, len(listing.Groups), len(tensors))
	}
	for _, g := range listing.Groups {
		at := uint64(0)
		for i := range g.Tensors {
			one := tensors[g.FirstTensor+i]
			if one.Group == nil || *one.Group != g.Index || one.GroupOffset != at || one.Index != g.FirstTensor+i {
				t.Errorf("%s: tensor %d: %+v", g.Name, i, one)
			}
			at += one.Elements
		}
		if at != g.Elements || g.Bytes != 2*at || g.PackedBytes == 0 || g.PackedBytes >= g.Bytes {
			t.Errorf("%+v: the tensors have %d weights", g, at)
		}
	}
	// Listings support conditions, ranges and HEAD, as tensors do.
	answer, _ = get(t, url+"/v1/groups", "If-None-Match: "+answer.Header.Get("ETag"))
	if answer.StatusCode != http.StatusNotModified {
		t.Errorf("If-None-Match: %d", answer.StatusCode)
	}
	if _, part := get(t, url+"/v1/groups", "Range: bytes=1-20"); string(part) != string(body[1:21]) {
		t.Errorf("%q", part)
	}
	if answer, none := do(t, http.MethodHead, url+"/v1/groups"); answer.ContentLength != int64(len(body)) ||
		len(none) != 0 {
		t.Errorf("HEAD: %d", answer.ContentLength)
	}
}
