package df11

import (
	"context"
	"runtime"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// Split is a way to split a model among devices.
type Split uint32

const (
	// SplitLayers gives each device some of the layers.
	SplitLayers Split = cdf11.SplitLayers
	// SplitRows gives each device an equal part of every matrix.
	SplitRows Split = cdf11.SplitRows
)

// PlanOptions control a plan. A nil *PlanOptions and the zero value mean the defaults.
type PlanOptions struct {
	// Sample counts some weights of each kind of group, instead of assuming how well they compress.
	Sample bool
	// Incomplete plans what is there of a model that lacks something. Without it such a model is refused.
	Incomplete bool
	// Slots is the number of buffers for decoded weights, each as large as the largest group; 0 means 2.
	Slots int
	// CacheNumberBytes is the size of a number in the KV cache; 0 means 2, as bf16 has.
	CacheNumberBytes int
	// Preset and Patterns are as in [CompressOptions]. A model that is compressed already has its own groups.
	Preset   string
	Patterns []byte
	// Config, ShapesFrom, Shapes and AnyVersion are as in [Options], for a model that is compressed already.
	Config     []byte
	ShapesFrom string
	Shapes     []byte
	AnyVersion bool
}

// PlanGroup is a group of a plan.
type PlanGroup struct {
	// Name is the module's full name. It comes from the model: quote it before you print it.
	Name string
	// Elements is the number of weights in its Tensors tensors.
	Elements, Tensors uint64
	// PackedBytes is the size of its six members in the file, ImageBytes that of its image on a device.
	PackedBytes, ImageBytes uint64
	// Extended reports whether the group is, or will be, an extension of the format, as in [GroupInfo].
	Extended bool
}

// PlanShare is the part of a model that is on one device.
type PlanShare struct {
	// ImageBytes is the size of its images, PlainBytes that of tensors that are stored as they are, and ScratchBytes that
	// of the buffers for decoded weights. TotalBytes is the sum.
	ImageBytes, PlainBytes, ScratchBytes, TotalBytes uint64
	// CacheBytesPerToken is the size of the KV cache for each token. It is 0 if CacheKnown is false.
	CacheBytesPerToken uint64
	// CacheKnown reports whether the size of the KV cache is known.
	CacheKnown bool
	// BF16Bytes is the size of what the device of this number holds if the model is not compressed.
	BF16Bytes uint64
}

// PlanTokens are tokens of KV cache.
type PlanTokens struct {
	// Compressed is the number of tokens that fit next to the compressed model, BF16 that next to the same model not
	// compressed. It is 0 if the model itself does not fit.
	Compressed, BF16 uint64
	// CompressedFits and BF16Fits report whether the weights fit.
	CompressedFits, BF16Fits bool
}

// Plan says what a model becomes and needs. Any number of goroutines may use it at once. It needs no Close.
type Plan struct {
	// Exact reports whether the model is compressed already, so that all sizes are exact. Else they are estimates.
	Exact bool
	// Groups are the groups, in the natural order of their names, and Elements the weights in them.
	Groups   []PlanGroup
	Elements uint64
	// PackedBytes is the size of all groups in their files, ImageBytes that of all images, PlainBytes that of tensors
	// that are stored as they are, and OriginalBytes that of all tensors, not compressed.
	PackedBytes, ImageBytes, PlainBytes, OriginalBytes uint64
	// Files is the number of the .safetensors files of a folder, WrittenBytes their size.
	Files, WrittenBytes uint64
	// ScratchBytes is the size of all buffers for decoded weights on one device.
	ScratchBytes uint64
	// CacheBytesPerToken is the size of the KV cache for each token, and CachedLayers the number of layers that have one.
	// Both are 0 if it is not known; CacheUnknown then says why.
	CacheBytesPerToken, CachedLayers uint64
	CacheUnknown                     string
	// Left is the number of tensors that stay plain although the patterns ask for them.
	Left uint64
	// Preset is the name of the preset that gives the groups; empty if none does.
	Preset string

	c cdf11.Plan
}

// PlanModel plans a model, compressed or not, without writing anything. It reads headers and config.json, and weights only
// with Sample, which takes seconds for the largest models. The groups are those that [CompressModel] would make.
//
// Activations, and what an engine and the driver take for themselves, are not counted.
func PlanModel(ctx context.Context, path string, o *PlanOptions) (*Plan, error) {
	if o == nil {
		o = &PlanOptions{}
	}
	const op = "plan"
	for _, text := range []struct{ what, text string }{
		{"path", path}, {"preset", o.Preset}, {"text of the patterns", string(o.Patterns)},
		{"config", string(o.Config)}, {"path of the shapes", o.ShapesFrom}, {"list of shapes", string(o.Shapes)},
	} {
		if err := noZero(op, text.what, text.text); err != nil {
			return nil, err
		}
	}
	if o.Slots < 0 || o.Slots > 1<<16 || o.CacheNumberBytes < 0 {
		return nil, invalid(op, "%d slots, and %d bytes for a number of the KV cache", o.Slots, o.CacheNumberBytes)
	}
	how := cdf11.Planning{
		Slots:            uint32(o.Slots),
		CacheNumberBytes: uint64(o.CacheNumberBytes),
		Preset:           o.Preset,
		Patterns:         o.Patterns,
		Config:           o.Config,
		ShapesFrom:       given(o.ShapesFrom),
		Shapes:           o.Shapes,
	}
	if o.Sample {
		how.Flags |= cdf11.PlanSample
	}
	if o.Incomplete {
		how.Flags |= cdf11.PlanIncomplete
	}
	if o.AnyVersion {
		how.Flags |= cdf11.PlanAnyVersion
	}
	p := &Plan{}
	err := watch(ctx, op, nil, func(progress cdf11.Progress) (e *cdf11.Error) {
		p.c, e = cdf11.NewPlan(path, &how, progress)
		return e
	}, func() {})
	if err != nil {
		return nil, err
	}
	runtime.AddCleanup(p, cdf11.Plan.Free, p.c)
	if e := p.describe(); e != nil {
		return nil, result(op, e)
	}
	return p, nil
}

// describe copies the numbers and the groups.
func (p *Plan) describe() *cdf11.Error {
	defer runtime.KeepAlive(p)
	info, e := p.c.Info()
	if e != nil {
		return e
	}
	p.Exact, p.Elements, p.PackedBytes = info.Exact, info.Elements, info.PackedBytes
	p.ImageBytes, p.PlainBytes, p.OriginalBytes = info.ImageBytes, info.PlainBytes, info.OriginalBytes
	p.Files, p.WrittenBytes, p.ScratchBytes = info.Files, info.WrittenBytes, info.ScratchBytes
	p.CachedLayers, p.CacheUnknown = info.CacheLayers, info.CacheUnknown
	p.Left, p.Preset = info.Left, info.Preset
	if info.CacheBytes != cdf11.PlanNone {
		p.CacheBytesPerToken = info.CacheBytes
	}
	p.Groups = make([]PlanGroup, info.Groups)
	for i := range p.Groups {
		group, e := p.c.Group(uint64(i))
		if e != nil {
			return e
		}
		p.Groups[i] = PlanGroup(group)
	}
	return nil
}

// Share returns what the device of that number, from 0, holds of a model that is split among devices.
func (p *Plan) Share(split Split, devices, device int) (PlanShare, error) {
	defer runtime.KeepAlive(p)
	const op = "plan"
	if devices < 0 || device < 0 || devices > 1<<31 || device > 1<<31 {
		return PlanShare{}, invalid(op, "there is no device %d of %d", device, devices)
	}
	s, e := p.c.Share(uint32(split), uint32(devices), uint32(device))
	if e != nil {
		return PlanShare{}, result(op, e)
	}
	share := PlanShare{
		ImageBytes:   s.ImageBytes,
		PlainBytes:   s.PlainBytes,
		ScratchBytes: s.ScratchBytes,
		TotalBytes:   s.TotalBytes,
		CacheKnown:   s.CacheBytes != cdf11.PlanNone,
		BF16Bytes:    s.BF16Bytes,
	}
	if share.CacheKnown {
		share.CacheBytesPerToken = s.CacheBytes
	}
	return share, nil
}

// Tokens returns how many tokens of KV cache fit devices with memoryBytes bytes each. The error is [ErrNotFound] if the
// size of the cache is not known, or if it cannot be split so.
func (p *Plan) Tokens(split Split, devices int, memoryBytes uint64) (PlanTokens, error) {
	defer runtime.KeepAlive(p)
	const op = "plan"
	if devices < 0 || devices > 1<<31 {
		return PlanTokens{}, invalid(op, "%d devices", devices)
	}
	compressed, bf16, e := p.c.Tokens(uint32(split), uint32(devices), memoryBytes)
	if e != nil {
		return PlanTokens{}, result(op, e)
	}
	tokens := PlanTokens{CompressedFits: compressed != cdf11.PlanNone, BF16Fits: bf16 != cdf11.PlanNone}
	if tokens.CompressedFits {
		tokens.Compressed = compressed
	}
	if tokens.BF16Fits {
		tokens.BF16 = bf16
	}
	return tokens, nil
}
