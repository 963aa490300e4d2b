package df11_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// A plan of a DF11 model is what the model says.
func TestPlan(t *testing.T) {
	m := open(t, modelOf("sharded"), nil)
	p, err := df11.PlanModel(ctx, modelOf("sharded"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var packed, images uint64
	for i, g := range m.Groups() {
		planned := p.Groups[i]
		if planned.Name != g.Name || planned.ImageBytes != g.ImageBytes || planned.PackedBytes != g.PackedBytes {
			t.Fatalf("%+v is planned as %+v", g, planned)
		}
		packed += g.PackedBytes
		images += g.ImageBytes
	}
	if !p.Exact || p.PackedBytes != packed || p.ImageBytes != images || len(p.Groups) != len(m.Groups()) {
		t.Fatalf("%+v", p)
	}
	// Two layers of two heads of 32 numbers, keys and values, in bf16.
	if p.CacheBytesPerToken != 512 || p.CachedLayers != 2 || p.CacheUnknown != "" {
		t.Fatalf("%+v", p)
	}
	share, err := p.Share(df11.SplitLayers, 1, 0)
	if err != nil || share.ImageBytes != images || share.BF16Bytes != p.OriginalBytes || !share.CacheKnown {
		t.Fatalf("%+v, %v", share, err)
	}
	tokens, err := p.Tokens(df11.SplitLayers, 1, share.TotalBytes+5*512)
	if err != nil || !tokens.CompressedFits || tokens.Compressed != 5 {
		t.Fatalf("%+v, %v", tokens, err)
	}
	if tokens, err = p.Tokens(df11.SplitRows, 2, 1000); err != nil || tokens.CompressedFits || tokens.BF16Fits {
		t.Fatalf("%+v, %v", tokens, err)
	}
	if _, err = p.Tokens(df11.SplitRows, 3, 1<<30); !errors.Is(err, df11.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err = p.Share(df11.SplitLayers, 2, 2); !errors.Is(err, df11.ErrNotFound) {
		t.Fatal(err)
	}
	for _, devices := range []int{-1, 0, 1025, 1 << 40} {
		if _, err = p.Share(df11.SplitRows, devices, 0); !errors.Is(err, df11.ErrInvalidArgument) {
			t.Fatal(devices, err)
		}
	}
}

func TestPlanOfAnOriginal(t *testing.T) {
	exact, err := df11.PlanModel(ctx, modelOf("sharded"), nil)
	if err != nil {
		t.Fatal(err)
	}
	o := df11.PlanOptions{Sample: true, Slots: 1, CacheNumberBytes: 1, Preset: "llama"}
	p, err := df11.PlanModel(ctx, originalOf("sharded"), &o)
	if err != nil {
		t.Fatal(err)
	}
	if p.Exact || p.Preset != "llama" || p.ScratchBytes*2 != exact.ScratchBytes || p.Elements != exact.Elements {
		t.Fatalf("%+v", p)
	}
	if off := float64(p.PackedBytes)/float64(exact.PackedBytes) - 1; off < -0.01 || off > 0.01 {
		t.Fatalf("%d, and %d in truth", p.PackedBytes, exact.PackedBytes)
	}
	if p.CacheBytesPerToken != 0 || !strings.Contains(p.CacheUnknown, "config.json") {
		t.Fatalf("%+v", p)
	}
	if _, err = p.Tokens(df11.SplitLayers, 1, 1<<40); !errors.Is(err, df11.ErrNotFound) {
		t.Fatal(err)
	}
	for name, bad := range map[string]struct {
		path   string
		o      df11.PlanOptions
		status df11.Status
	}{
		"no file":       {golden + "nothing", df11.PlanOptions{}, df11.ErrIO},
		"no preset":     {originalOf("sharded"), df11.PlanOptions{Preset: "qwen-3"}, df11.ErrNotFound},
		"own groups":    {modelOf("sharded"), df11.PlanOptions{Preset: "llama"}, df11.ErrInvalidArgument},
		"slots":         {originalOf("sharded"), df11.PlanOptions{Slots: -1}, df11.ErrInvalidArgument},
		"bytes":         {originalOf("sharded"), df11.PlanOptions{CacheNumberBytes: 9}, df11.ErrInvalidArgument},
		"a zero byte":   {"a\x00b", df11.PlanOptions{}, df11.ErrInvalidArgument},
		"patterns, too": {originalOf("sharded"), df11.PlanOptions{Preset: "llama", Patterns: []byte("{}")}, df11.ErrInvalidArgument},
	} {
		if _, err := df11.PlanModel(ctx, bad.path, &bad.o); !errors.Is(err, bad.status) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is given of a compressed model, and what its groups need.
	config := []byte(`{"dfloat11_config": {"version": "9.5.0", "pattern_dict": {}}}`)
	for name, other := range map[string]struct {
		path   string
		o      df11.PlanOptions
		status df11.Status
	}{
		"a version":       {modelOf("edge"), df11.PlanOptions{Config: config}, df11.ErrUnsupportedFormat},
		"of the original": {originalOf("edge"), df11.PlanOptions{Config: config, AnyVersion: true}, df11.ErrInvalidArgument},
		"shapes":          {modelOf("edge"), df11.PlanOptions{Shapes: []byte(`{"blocks.0.ff.net.0.weight": [1, 1]}`)}, df11.ErrInvalidArgument},
		"no shapes":       {modelOf("edge"), df11.PlanOptions{ShapesFrom: golden + "nothing"}, df11.ErrIO},
	} {
		if _, err := df11.PlanModel(ctx, other.path, &other.o); !errors.Is(err, other.status) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o = df11.PlanOptions{Config: config, AnyVersion: true}
	if p, err = df11.PlanModel(ctx, modelOf("edge"), &o); err != nil || !p.Exact || p.Groups[0].Extended {
		t.Fatalf("%+v: %v", p, err)
	}
	o = df11.PlanOptions{ShapesFrom: originalOf("edge")}
	if _, err = df11.PlanModel(ctx, modelOf("edge"), &o); err != nil {
		t.Fatal(err)
	}
	if p, err = df11.PlanModel(ctx, golden+"../extension/model", nil); err != nil {
		t.Fatal(err)
	}
	extended := 0
	for _, g := range p.Groups {
		if g.Extended {
			extended++
		}
	}
	if extended != 5 {
		t.Fatalf("%d of %d groups are an extension", extended, len(p.Groups))
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := df11.PlanModel(ended, originalOf("sharded"), nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
