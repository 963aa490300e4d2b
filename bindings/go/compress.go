package df11

import (
	"context"
	"log/slog"
	"time"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// CompressOptions control a compression. A nil *CompressOptions and the zero value mean the defaults.
type CompressOptions struct {
	// Threads is the number of threads that work; 0 means 1. The written bytes do not depend on it.
	Threads int
	// MemoryBytes is the upper limit of working memory, 5 MiB for each thread; 0 means 512 MiB. It does not depend on
	// the size of the model.
	MemoryBytes uint64
	// Preset is the name of a preset, the groups of a published model, as `df11 presets` lists them. Without Preset and
	// Patterns, the preset is chosen by the source's config.json and tensors.
	Preset string
	// Patterns gives the groups instead: the JSON text of a pattern_dict, or of a config.json that contains one.
	Patterns []byte
	// SingleFile writes all tensors to one file, model.safetensors in the folder dst. Without it, dst is a file if its
	// name ends in .safetensors, and else a folder.
	SingleFile bool
	// Part is the part of the groups to write, 1 to Parts. Other processes or machines write the other parts to the
	// same folder, and then one of them calls [MergeModel]. 0 and 0 mean the whole model.
	Part, Parts int
	// Resume continues an interrupted run.
	Resume bool
	// NoVerify skips decoding and comparing each group before its file gets its name.
	NoVerify bool
	// KeepExisting returns [ErrExists] instead of replacing a single file or its own config. A folder that is not empty is never
	// written to.
	KeepExisting bool
	// Strict makes it an error if a tensor that the patterns ask for cannot be compressed.
	Strict bool
	// AllowPlain writes a plain copy of a source of which nothing can be compressed, instead of failing.
	AllowPlain bool
	// Incomplete compresses a source that lacks files, tensors or layers, instead of failing.
	Incomplete bool
	// Hashes writes the SHA-256 of every tensor to the files, and Shapes the shapes of compressed tensors. The
	// reference compressor writes neither.
	Hashes, Shapes bool
	// ReferenceOnly leaves plain what the reference's format cannot name or hold: experts in one tensor whose name does
	// not end in .weight, and tensors of 2^32 weights. Without it, and with neither Preset nor Patterns, they become groups
	// by an extension of the format that only this library reads.
	ReferenceOnly bool
	// Progress, if set, is called with the number of bytes that are done: at the beginning, about twenty times a
	// second, and at the end, on the calling goroutine. The total is 0 until it is known.
	Progress func(done, total uint64)
	// Logger, if set, receives a line about the result, and one about each tensor that stays plain.
	Logger *slog.Logger
}

// CompressReport is the result of a compression, or of one part of it.
type CompressReport struct {
	// Groups is the number of groups in the files that exist now, and Weights the number of weights in them.
	Groups, Weights uint64
	// ExtendedGroups is the number of those groups that are an extension of the format.
	ExtendedGroups uint64
	// WeightBytes is the size of those weights before, PackedBytes the size of the groups.
	WeightBytes, PackedBytes uint64
	// SourceBytes is the size of all tensors of the source, WrittenBytes the size of the files that exist now.
	SourceBytes, WrittenBytes uint64
	// BF16 says how many bytes of the source's bf16 tensors are in groups, and why the others are not.
	BF16 BF16Bytes
	// Carried is the number of files beside the weights that were copied (tokenizers, code, licences), and LeftBehind the
	// number of those that were not: weights in other formats, states of a training, downloads that have not ended.
	Carried, LeftBehind uint64
	// CarriedBytes and LeftBehindBytes are the sizes of those files.
	CarriedBytes, LeftBehindBytes uint64
	// Missing counts what the source lacks. It is not 0 with Incomplete only, or if config.json counts layers that cannot
	// have got lost.
	Missing uint64
	// Resumed is the number of groups that an earlier run had written.
	Resumed uint64
	// Dropped is the number of heads that are not stored, because they are tied to the embedding and equal to it.
	Dropped uint64
	// Unmatched is the number of patterns that match no module.
	Unmatched uint64
	// Complete reports whether the model is complete. After a part it is not, until [MergeModel].
	Complete bool
	// Preset is the name of the preset that was used; empty with Patterns.
	Preset string
	// Left lists the tensors that stay plain although the patterns ask for them.
	Left []Left
	// LeftLost is the number of further such tensors, which are not in the list: about 16 MiB are kept.
	LeftLost uint64
}

// BF16Bytes counts the bytes of a source's bf16 tensors by what has become of them.
type BF16Bytes struct {
	// All counts all of them, without tied heads that are not stored.
	All uint64
	// Grouped counts those in groups, each tensor once.
	Grouped uint64
	// Unasked counts those for which no pattern asks.
	Unasked uint64
	// Small counts those that are too small for a group to pay.
	Small uint64
	// Mixed counts those whose group has a tensor of another type.
	Mixed uint64
	// Unfit counts those whose group has an infinity, a NaN, or a magnitude of 2^113 and more.
	Unfit uint64
	// Unnamed counts those that the reference's format cannot name or hold.
	Unnamed uint64
}

// Left is a tensor that stays plain: its name, its group's name, and the reason. Names come from the source: quote them
// before you print them.
type Left struct {
	Tensor, Group, Reason string
}

// CompressModel compresses a model. src is a folder in Hugging Face layout or one .safetensors file, and is not
// changed. dst is a new or empty folder, or a file, which is replaced. Every byte of a group is as the reference
// compressor writes it, and files get their names when they are complete. Memory use is bounded for any model.
//
// A failed call may leave unfinished work, which [Open] does not accept as a model. Resume continues it if something
// was completed. Statuses tell what is wrong with dst: [ErrExists], [ErrUnfinished] and [ErrBusy].
//
// After an error the report is empty. When ctx ends, CompressModel returns soon, with an error that is both
// [ErrCancelled] and the context's.
func CompressModel(ctx context.Context, src, dst string, o *CompressOptions) (CompressReport, error) {
	return write(ctx, "compress", false, src, dst, o)
}

// MergeModel completes a folder whose parts are all finished, and reports on the whole model. The options are those of
// the parts; Part and Resume are ignored.
func MergeModel(ctx context.Context, src, dst string, o *CompressOptions) (CompressReport, error) {
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
		Memory:   o.MemoryBytes,
		Preset:   o.Preset,
		Patterns: o.Patterns,
	}
	for _, flag := range []struct {
		is  bool
		bit uint32
	}{
		{o.SingleFile, cdf11.CompressSingleFile}, {o.Resume, cdf11.CompressResume}, {o.NoVerify, cdf11.CompressNoVerify},
		{o.KeepExisting, cdf11.CompressKeepExisting},
		{o.AllowPlain, cdf11.CompressAllowPlain}, {o.Incomplete, cdf11.CompressIncomplete},
		{o.Strict, cdf11.CompressStrict}, {o.Hashes, cdf11.CompressHashes}, {o.Shapes, cdf11.CompressShapes},
		{o.ReferenceOnly, cdf11.CompressReferenceOnly},
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
		ExtendedGroups: r.Extended,
		Groups:         r.Groups,
		Weights:        r.Weights,
		WeightBytes:    r.WeightBytes,
		PackedBytes:    r.PackedBytes,
		SourceBytes:    r.SourceBytes,
		WrittenBytes:   r.WrittenBytes,
		Resumed:        r.Resumed,
		Dropped:        r.Dropped,
		Unmatched:      r.Unmatched,
		Complete:       r.Complete,
		Preset:         r.Preset,
		LeftLost:       r.LeftLost,

		BF16:            BF16Bytes{r.BF16, r.Grouped, r.Unasked, r.Small, r.Mixed, r.Unfit, r.Unnamed},
		Carried:         r.Carried,
		CarriedBytes:    r.CarriedBytes,
		LeftBehind:      r.LeftBehind,
		LeftBehindBytes: r.LeftBehindBytes,
		Missing:         r.Missing,
	}
	for _, left := range r.Left {
		report.Left = append(report.Left, Left(left))
	}
	return report, nil
}
