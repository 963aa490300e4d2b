package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// catalog is an open model with the data that requests need. It is immutable.
type catalog struct {
	model   Model
	tensors []df11.TensorInfo
	byName  map[string]int
	digests *digests
	// The listings, which are made once.
	groupList, tensorList document
}

// document is a body in memory.
type document struct {
	bytes []byte
	etag  string
}

// groupEntry and tensorEntry are the entries of the listings.
type groupEntry struct {
	Name        string `json:"name"`
	Index       int    `json:"index"`
	Elements    uint64 `json:"elements"`
	Bytes       uint64 `json:"bytes"` // decoded
	PackedBytes uint64 `json:"packed_bytes"`
	ImageBytes  uint64 `json:"image_bytes"`
	FirstTensor int    `json:"first_tensor"`
	Tensors     int    `json:"tensors"`
}

type tensorEntry struct {
	Name        string   `json:"name"`
	Index       int      `json:"index"`
	DType       string   `json:"dtype"`
	Shape       []uint64 `json:"shape"`
	Elements    uint64   `json:"elements"`
	Bytes       uint64   `json:"bytes"`
	Group       *int     `json:"group"` // null for a plain tensor
	GroupOffset uint64   `json:"group_offset"`
	URL         string   `json:"url"`
}

func newCatalog(m Model, d *digests) (*catalog, error) {
	c := &catalog{model: m, tensors: m.Tensors(), byName: map[string]int{}, digests: d}
	groups := make([]groupEntry, 0, len(m.Groups()))
	for _, g := range m.Groups() {
		groups = append(groups, groupEntry{g.Name, g.Index, g.Elements, 2 * g.Elements, g.PackedBytes, g.ImageBytes,
			g.FirstTensor, g.Tensors})
	}
	tensors := make([]tensorEntry, 0, len(c.tensors))
	for i := range c.tensors {
		t := &c.tensors[i]
		c.byName[t.Name] = i
		entry := tensorEntry{t.Name, t.Index, t.DType.String(), t.Shape, t.Elements, t.DataBytes, nil, t.GroupOffset,
			tensorURL(t.Name)}
		if t.Group >= 0 {
			entry.Group = &t.Group
		}
		if entry.Shape == nil {
			entry.Shape = []uint64{} // a scalar
		}
		tensors = append(tensors, entry)
	}
	var err error
	if c.groupList, err = newDocument(map[string]any{"groups": groups}); err != nil {
		return nil, err
	}
	c.tensorList, err = newDocument(map[string]any{"tensors": tensors})
	return c, err
}

func newDocument(value any) (document, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return document{}, fmt.Errorf("listing: %w", err)
	}
	text = append(text, '\n')
	digest := sha256.Sum256(text)
	return document{text, `"` + base64.RawURLEncoding.EncodeToString(digest[:]) + `"`}, nil
}

// tensorPath precedes a tensor's name in a URL.
const tensorPath = "/v1/tensors/"

// tensorURL returns a path that leads to a tensor with any name. It escapes slashes, and names that consist of dots,
// which clients and proxies would resolve.
func tensorURL(name string) string {
	escaped := url.PathEscape(name)
	if strings.Trim(name, ".") == "" {
		escaped = strings.ReplaceAll(name, ".", "%2E")
	}
	return tensorPath + escaped
}

// read decodes bytes of a tensor into buffer, which may have to hold one more byte at each end, because only whole
// weights are decoded. The result is a part of buffer.
func (c *catalog) read(t *df11.TensorInfo, s span, buffer []byte) ([]byte, error) {
	first, end := s.first, s.first+s.length
	if t.Group >= 0 {
		first, end = first&^1, end+end&1
	}
	b := buffer[:end-first]
	if err := c.model.ReadTensor(t.Index, first, b, 1); err != nil {
		return nil, err
	}
	return b[s.first-first:][:s.length], nil
}

// etag returns a tensor's entity tag, or "" if it cannot be computed, in which case digests logs the reason. It fails
// only if nobody waits for the answer any more, because ctx or the service has ended.
func (c *catalog) etag(ctx context.Context, t *df11.TensorInfo) (string, error) {
	tag, err := c.digests.etag(ctx, t)
	if err != nil && (ctx.Err() != nil || c.digests.stop.Err() != nil) {
		return "", err
	}
	return tag, nil
}
