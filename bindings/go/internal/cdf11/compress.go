package cdf11

// #include <stdlib.h>
// #include "shim.h"
//
// #cgo nocallback df11go_compress
import "C"

import "unsafe"

// Flags of a compression.
const (
	CompressNoVerify      = C.DF11_COMPRESS_NO_VERIFY
	CompressKeepExisting  = C.DF11_COMPRESS_KEEP_EXISTING
	CompressResume        = C.DF11_COMPRESS_RESUME
	CompressStrict        = C.DF11_COMPRESS_STRICT
	CompressHashes        = C.DF11_COMPRESS_HASHES
	CompressShapes        = C.DF11_COMPRESS_SHAPES
	CompressSingleFile    = C.DF11_COMPRESS_SINGLE_FILE
	CompressFolder        = C.DF11_COMPRESS_FOLDER
	CompressAllowPlain    = C.DF11_COMPRESS_ALLOW_PLAIN
	CompressIncomplete    = C.DF11_COMPRESS_INCOMPLETE
	CompressReferenceOnly = C.DF11_COMPRESS_REFERENCE_ONLY
)

// Compressing is a df11_compress_options. No string may contain a zero byte. An empty preset means none, and so do nil
// patterns.
type Compressing struct {
	Threads, Flags, Part, Parts uint32
	Memory                      uint64
	Preset                      string
	Patterns                    []byte
}

// Left holds the arguments of a df11_left_fn.
type Left struct{ Tensor, Group, Reason string }

// Compressed is a df11_compress_report.
type Compressed struct {
	Groups, Weights, WeightBytes, PackedBytes, SourceBytes, WrittenBytes, Resumed, Dropped, Unmatched uint64
	Complete                                                                                          bool
	Preset                                                                                            string
	Left                                                                                              []Left
	LeftLost, Extended                                                                                uint64
	// Bytes of bf16 tensors: all, those in groups, and the others by the reasons why they are not.
	BF16, Grouped, Unasked, Small, Mixed, Unfit, Unnamed        uint64
	Carried, CarriedBytes, LeftBehind, LeftBehindBytes, Missing uint64
}

// Compress is df11_compress_model, or df11_merge_model.
func Compress(merge bool, src, dst string, o *Compressing, progress Progress) (Compressed, *Error) {
	csrc, cdst, cpatterns := C.CString(src), C.CString(dst), text(o.Patterns)
	defer free(csrc)
	defer free(cdst)
	defer free(cpatterns)
	// In C memory, because Go memory must not hold pointers for C.
	how := (*C.df11go_compressing)(C.calloc(1, C.sizeof_df11go_compressing))
	defer C.free(unsafe.Pointer(how))
	how.threads, how.flags, how.memory_bytes = C.uint32_t(o.Threads), C.uint32_t(o.Flags), C.uint64_t(o.Memory)
	how.part, how.part_count, how.pattern_json = C.uint32_t(o.Part), C.uint32_t(o.Parts), cpatterns
	if o.Preset != "" {
		how.preset = C.CString(o.Preset)
		defer free(how.preset)
	}
	var e C.df11_error
	var r C.df11_compress_report
	var n C.df11go_notes
	var which C.int
	if merge {
		which = 1
	}
	s := C.df11go_compress(which, csrc, cdst, how, progress.p, &r, &n, &e)
	out := Compressed{
		Groups:       uint64(r.groups),
		Weights:      uint64(r.weights),
		WeightBytes:  uint64(r.weight_bytes),
		PackedBytes:  uint64(r.packed_bytes),
		SourceBytes:  uint64(r.source_bytes),
		WrittenBytes: uint64(r.written_bytes),
		Resumed:      uint64(r.resumed),
		Dropped:      uint64(r.dropped_count),
		Unmatched:    uint64(r.unmatched_count),
		Complete:     r.complete != 0,
		LeftLost:     uint64(n.lost),
		Extended:     uint64(r.extended_groups),

		BF16:            uint64(r.bf16_bytes),
		Grouped:         uint64(r.grouped_bf16_bytes),
		Unasked:         uint64(r.unasked_bf16_bytes),
		Small:           uint64(r.small_bf16_bytes),
		Mixed:           uint64(r.mixed_bf16_bytes),
		Unfit:           uint64(r.unfit_bf16_bytes),
		Unnamed:         uint64(r.unnamed_bf16_bytes),
		Carried:         uint64(r.carried_count),
		CarriedBytes:    uint64(r.carried_bytes),
		LeftBehind:      uint64(r.left_behind_count),
		LeftBehindBytes: uint64(r.left_behind_bytes),
		Missing:         uint64(r.missing_count),
	}
	if r.preset != nil {
		out.Preset = C.GoString(r.preset)
	}
	for _, left := range take(&n) {
		out.Left = append(out.Left, Left{left.texts[0], left.texts[1], left.texts[2]})
	}
	return out, failed(s, &e)
}
