package df11

import (
	"context"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// DecompressOptions control [DecompressModel]. A nil *DecompressOptions and the zero value mean the defaults.
type DecompressOptions struct {
	// Threads is the number of threads that work; 0 means 1. Each works in some 3 MiB of memory.
	Threads int
	// Tensors are the names of the tensors that are written, and Groups those of groups whose tensors are. Without either,
	// all are.
	Tensors, Groups []string
	// ShardBytes is the upper limit of the tensors of one file in a folder; 0 means 5 GB. A tensor that is larger has a
	// file of its own.
	ShardBytes uint64
	// Flat writes tensors whose shapes are not known to a folder with one dimension. Without it they are an error. In a
	// single file they have one dimension in any case.
	Flat bool
	// KeepExisting returns [ErrExists] instead of replacing a single file. A folder that is not empty is never written to.
	KeepExisting bool
	// Config is the text of a config.json to use instead of the model's own.
	Config []byte
	// ShapesFrom and Shapes say the shapes that the model's files do not, as those of [Options].
	ShapesFrom string
	Shapes     []byte
	// AnyVersion accepts a model whose config names an unknown version of the compressor.
	AnyVersion bool
	// Incomplete writes what is there of a model that lacks files, tensors or layers. Without it such a model is refused,
	// unless Tensors or Groups choose some of it.
	Incomplete bool
	// Progress, if set, is called as that of [CompressOptions].
	Progress func(done, total uint64)
}

// DecompressReport is the result of [DecompressModel].
type DecompressReport struct {
	// Tensors is the number of tensors that were written, and Flat the number of those that have one dimension because
	// their shapes are not known.
	Tensors, Flat uint64
	// Files is the number of files of tensors, and WrittenBytes their size.
	Files, WrittenBytes uint64
	// Dropped is the number of heads that are not stored, because they are tied to the embedding and equal to it.
	Dropped uint64
	// ConfigKeys is the number of keys of the config.json that was written, without dfloat11_config; 0 if there is none.
	ConfigKeys uint64
}

// DecompressModel turns a model back into plain safetensors, bit for bit. If dst ends in .safetensors it becomes one file
// of all tensors, which is replaced when everything is done. Otherwise it becomes a folder as models are published, which
// is new or empty: files of tensors with an index, config.json without dfloat11_config, and all other files of the model's
// folder. Memory use is bounded for any model. A failed call leaves nothing.
//
// Statuses tell what is wrong: [ErrExists] and [ErrBusy] with dst, [ErrInvalidArgument] that shapes are not known,
// [ErrNotFound] that a name is not there. When ctx ends, DecompressModel returns soon, with an error that is both
// [ErrCancelled] and the context's.
func DecompressModel(ctx context.Context, src, dst string, o *DecompressOptions) (DecompressReport, error) {
	const op = "decompress"
	if o == nil {
		o = &DecompressOptions{}
	}
	threads, err := threads(op, o.Threads)
	texts := []struct{ what, text string }{{"source", src}, {"destination", dst}, {"config", string(o.Config)},
		{"path of the shapes", o.ShapesFrom}, {"list of shapes", string(o.Shapes)}}
	for _, name := range o.Tensors {
		texts = append(texts, struct{ what, text string }{"name of a tensor", name})
	}
	for _, name := range o.Groups {
		texts = append(texts, struct{ what, text string }{"name of a group", name})
	}
	for _, text := range texts {
		if err == nil {
			err = noZero(op, text.what, text.text)
		}
	}
	if err != nil {
		return DecompressReport{}, err
	}
	how := cdf11.Decompressing{Threads: threads, ShardBytes: o.ShardBytes, Config: o.Config, Shapes: o.Shapes,
		ShapesFrom: given(o.ShapesFrom), Tensors: o.Tensors, Groups: o.Groups}
	for _, flag := range []struct {
		is  bool
		bit uint32
	}{
		{o.Flat, cdf11.DecompressFlat}, {o.KeepExisting, cdf11.DecompressKeepExisting},
		{o.AnyVersion, cdf11.DecompressAnyVersion}, {o.Incomplete, cdf11.DecompressIncomplete},
	} {
		if flag.is {
			how.Flags |= flag.bit
		}
	}
	var r cdf11.Decompressed
	err = watch(ctx, op, o.Progress, func(progress cdf11.Progress) (e *cdf11.Error) {
		r, e = cdf11.DecompressModel(src, dst, &how, progress)
		return e
	}, func() {})
	if err != nil {
		return DecompressReport{}, err
	}
	return DecompressReport(r), nil
}

// RepackOptions control [RepackModel]. A nil *RepackOptions and the zero value mean the defaults.
type RepackOptions struct {
	// Threads is the number of threads that work; 0 means 1.
	Threads int
	// SingleFile writes all tensors to one file, model.safetensors in the folder dst. Without it, dst is a file if its
	// name ends in .safetensors, and else a folder.
	SingleFile bool
	// KeepExisting returns [ErrExists] instead of replacing a single file or its own config. A folder that is not empty is
	// never written to.
	KeepExisting bool
	// Config is the text of a config.json to use instead of the model's own. It is written, too.
	Config []byte
	// ShapesFrom and Shapes say the shapes that the model's files do not, as those of [Options]. They are written, too.
	ShapesFrom string
	Shapes     []byte
	// AnyVersion accepts a model whose config names an unknown version of the compressor.
	AnyVersion bool
	// Incomplete repacks what is there of a model that lacks files, tensors or layers. Without it such a model is refused.
	Incomplete bool
	// Progress, if set, is called as that of [CompressOptions].
	Progress func(done, total uint64)
}

// RepackReport is the result of [RepackModel].
type RepackReport struct {
	// Groups is the number of groups that were copied, and Plain the number of tensors in no group.
	Groups, Plain uint64
	// Files is the number of files of tensors, and WrittenBytes their size.
	Files, WrittenBytes uint64
}

// RepackModel writes a compressed model in other files: a folder of one file per group as one file, and back. Nothing is
// decoded: groups and plain tensors keep their bytes, and what the files' metadata says is kept. Destinations and errors
// are as for [DecompressModel].
func RepackModel(ctx context.Context, src, dst string, o *RepackOptions) (RepackReport, error) {
	const op = "repack"
	if o == nil {
		o = &RepackOptions{}
	}
	threads, err := threads(op, o.Threads)
	for _, text := range []struct{ what, text string }{{"source", src}, {"destination", dst}, {"config", string(o.Config)},
		{"path of the shapes", o.ShapesFrom}, {"list of shapes", string(o.Shapes)}} {
		if err == nil {
			err = noZero(op, text.what, text.text)
		}
	}
	if err != nil {
		return RepackReport{}, err
	}
	how := cdf11.Reading{Threads: threads, Config: o.Config, ShapesFrom: given(o.ShapesFrom), Shapes: o.Shapes}
	for _, flag := range []struct {
		is  bool
		bit uint32
	}{
		{o.SingleFile, cdf11.RepackSingleFile}, {o.KeepExisting, cdf11.RepackKeepExisting},
		{o.AnyVersion, cdf11.RepackAnyVersion}, {o.Incomplete, cdf11.RepackIncomplete},
	} {
		if flag.is {
			how.Flags |= flag.bit
		}
	}
	var r cdf11.Repacked
	err = watch(ctx, op, o.Progress, func(progress cdf11.Progress) (e *cdf11.Error) {
		r, e = cdf11.RepackModel(src, dst, &how, progress)
		return e
	}, func() {})
	if err != nil {
		return RepackReport{}, err
	}
	return RepackReport(r), nil
}
