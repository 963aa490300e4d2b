package df11

import (
	"context"
	"log/slog"
	"time"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// CompressOptions say how to compress. A nil *CompressOptions, and the zero one, are all defaults.
type CompressOptions struct {
	// Threads to work with; 0 means 1. The bytes written do not depend on their number.
	Threads int
	// Memory to work in at most, in bytes, 5 MiB for each thread; 0 means 512 MiB. It does not depend on the model's size.
	Memory uint64
	// Preset names the groups of a published model, as `df11 presets` lists them. Without it, and without Patterns, the
	// one is taken that fits the source's config.json and tensors.
	Preset string
	// Patterns are the groups instead: the JSON text of a pattern_dict, or of a config.json that has one.
	Patterns []byte
	// SingleFile writes all tensors to one file, model.safetensors in the folder dst. Otherwise dst's name decides: one
	// that ends in .safetensors is a file.
	SingleFile bool
	// Part of the groups to do, 1 to Parts: other processes or machines do the others, in the same folder, and then
	// somebody calls [Merge]. 0 and 0 are the whole model.
	Part, Parts int
	// Resume goes on with what an interrupted run has left.
	Resume bool
	// NoVerify saves the time of decoding and comparing each group before its file gets its name.
	NoVerify bool
	// Strict makes it an error if something that the patterns ask for cannot be compressed.
	Strict bool
	// Hashes writes the SHA-256 of every tensor to the files, and Shapes the shapes of compressed ones. The reference
	// compressor writes neither.
	Hashes, Shapes bool
	// Progress, if set, is told how many bytes of the work are done: at the beginning, some twenty times a second, and
	// at the end, on the goroutine that called. Total is 0 until it is known.
	Progress func(done, total uint64)
	// Logger, if set, is told what came of it, and of every tensor that stays plain.
	Logger *slog.Logger
}

// CompressReport is what came of a compression, or of one part of it.
type CompressReport struct {
	// Groups in the files that there are now, and weights in them.
	Groups, Weights uint64
	// WeightBytes are the bytes of those weights before, PackedBytes those of the groups.
	WeightBytes, PackedBytes uint64
	// SourceBytes are the bytes of all tensors of the source, WrittenBytes those of the files that there are now.
	SourceBytes, WrittenBytes uint64
	// Resumed is how many groups were there already, of an earlier run.
	Resumed uint64
	// Dropped is how many heads are not stored, because they are tied to the embedding and equal to it.
	Dropped uint64
	// Unmatched is how many patterns match no module.
	Unmatched uint64
	// Complete says whether this is a model: after a part it is none, until [Merge].
	Complete bool
	// Preset is the name of the one whose groups these are; empty, if there were Patterns.
	Preset string
	// Left are the tensors that stay plain although the patterns ask for them.
	Left []Left
	// LeftLost is how many more there were: some 16 MiB of them are kept.
	LeftLost uint64
}

// Left is a tensor that stays as it is: its name, its group's, and why. Names come from the source: quote them before
// you print them.
type Left struct {
	Tensor, Group, Reason string
}

// Compress compresses a model: src is a folder in Hugging Face layout, or one .safetensors file, of which nothing is
// changed; dst is a new or empty folder, or a file, which is replaced. Every byte of a group is as the reference
// compressor writes it, and files get their names when they are complete. Memory is bounded, whatever the model.
//
// What a call that fails leaves, [Open] does not take for a model; where it has completed something, Resume goes on
// with that. After an error the report is empty. When ctx ends, so does Compress, soon, with an error that is both
// [Cancelled] and the context's.
func Compress(ctx context.Context, src, dst string, o *CompressOptions) (CompressReport, error) {
	return write(ctx, "compress", false, src, dst, o)
}

// Merge completes a folder whose parts are all finished, and tells of the whole model. The options are those of the
// parts; Part and Resume do not matter.
func Merge(ctx context.Context, src, dst string, o *CompressOptions) (CompressReport, error) {
	return write(ctx, "merge", true, src, dst, o)
}

func write(ctx context.Context, op string, merge bool, src, dst string, o *CompressOptions) (CompressReport, error) {
	if o == nil {
		o = &CompressOptions{}
	}
	start := time.Now()
	report, err := compress(ctx, op, merge, src, dst, o)
	if log := o.Logger; log != nil {
		for _, left := range report.Left {
			log.WarnContext(ctx, "df11: a tensor stays plain", "path", dst, "tensor", left.Tensor, "group", left.Group,
				"reason", left.Reason)
		}
		if err != nil {
			log.ErrorContext(ctx, "df11: compression failed", "source", src, "path", dst, "error", err)
		} else {
			log.InfoContext(ctx, "df11: compressed a model", "source", src, "path", dst, "groups", report.Groups,
				"bytes", report.WrittenBytes, "complete", report.Complete, "took", time.Since(start))
		}
	}
	return report, err
}

func compress(ctx context.Context, op string, merge bool, src, dst string, o *CompressOptions) (CompressReport, error) {
	threads, err := threads(op, o.Threads)
	for _, number := range []int{o.Part, o.Parts} {
		if err == nil && (number < 0 || uint64(number) > 1<<32-1) {
			err = invalid(op, "there is no part %d of %d", o.Part, o.Parts)
		}
	}
	for _, text := range []struct{ what, text string }{
		{"source", src}, {"destination", dst}, {"preset", o.Preset}, {"text of the patterns", string(o.Patterns)},
	} {
		if err == nil {
			err = noZero(op, text.what, text.text)
		}
	}
	if err != nil {
		return CompressReport{}, err
	}
	how := cdf11.Compressing{
		Threads:  threads,
		Part:     uint32(o.Part),
		Parts:    uint32(o.Parts),
		Memory:   o.Memory,
		Preset:   o.Preset,
		Patterns: o.Patterns,
	}
	for _, flag := range []struct {
		is  bool
		bit uint32
	}{
		{o.SingleFile, cdf11.CompressSingleFile}, {o.Resume, cdf11.CompressResume}, {o.NoVerify, cdf11.CompressNoVerify},
		{o.Strict, cdf11.CompressStrict}, {o.Hashes, cdf11.CompressHashes}, {o.Shapes, cdf11.CompressShapes},
	} {
		if flag.is {
			how.Flags |= flag.bit
		}
	}
	var r cdf11.Compressed
	err = watch(ctx, op, o.Progress, func(progress cdf11.Progress) (e *cdf11.Error) {
		r, e = cdf11.Compress(merge, src, dst, &how, progress)
		return e
	}, func() {})
	if err != nil {
		return CompressReport{}, err
	}
	report := CompressReport{
		Groups:       r.Groups,
		Weights:      r.Weights,
		WeightBytes:  r.WeightBytes,
		PackedBytes:  r.PackedBytes,
		SourceBytes:  r.SourceBytes,
		WrittenBytes: r.WrittenBytes,
		Resumed:      r.Resumed,
		Dropped:      r.Dropped,
		Unmatched:    r.Unmatched,
		Complete:     r.Complete,
		Preset:       r.Preset,
		LeftLost:     r.LeftLost,
	}
	for _, left := range r.Left {
		report.Left = append(report.Left, Left(left))
	}
	return report, nil
}
