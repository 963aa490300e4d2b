package cdf11

// #include <stdlib.h>
// #include "shim.h"
//
// #cgo nocallback df11go_decompress_model
// #cgo nocallback df11go_repack_model
import "C"

import "unsafe"

// Flags of decompressing and repacking a model.
const (
	DecompressFlat         = C.DF11_DECOMPRESS_FLAT
	DecompressKeepExisting = C.DF11_DECOMPRESS_KEEP_EXISTING
	DecompressAnyVersion   = C.DF11_DECOMPRESS_ANY_VERSION
	DecompressIncomplete   = C.DF11_DECOMPRESS_INCOMPLETE
	RepackSingleFile       = C.DF11_REPACK_SINGLE_FILE
	RepackKeepExisting     = C.DF11_REPACK_KEEP_EXISTING
	RepackAnyVersion       = C.DF11_REPACK_ANY_VERSION
	RepackIncomplete       = C.DF11_REPACK_INCOMPLETE
)

// Decompressing is a df11_decompress_options. No string may contain a zero byte. A nil config means none, and so do nil shapes.
type Decompressing struct {
	Threads, Flags             uint32
	ShardBytes                 uint64
	Config, ShapesFrom, Shapes []byte
	Tensors, Groups            []string
}

// Decompressed is a df11_decompress_report.
type Decompressed struct {
	Tensors, Flat, Files, WrittenBytes, Dropped, ConfigKeys uint64
}

// names copies strings to C. The caller frees what it returns by freeNames.
func names(list []string) (**C.char, C.size_t) {
	if len(list) == 0 {
		return nil, 0
	}
	at := (**C.char)(C.calloc(C.size_t(len(list)), C.size_t(unsafe.Sizeof(uintptr(0)))))
	for i, name := range list {
		unsafe.Slice(at, len(list))[i] = C.CString(name)
	}
	return at, C.size_t(len(list))
}

func freeNames(at **C.char, count C.size_t) {
	for _, name := range unsafe.Slice(at, count) {
		free(name)
	}
	C.free(unsafe.Pointer(at))
}

// DecompressModel is df11_decompress_model.
func DecompressModel(src, dst string, o *Decompressing, progress Progress) (Decompressed, *Error) {
	csrc, cdst := C.CString(src), C.CString(dst)
	defer free(csrc)
	defer free(cdst)
	config, shapesFrom, shapes := text(o.Config), text(o.ShapesFrom), text(o.Shapes)
	defer free(config)
	defer free(shapesFrom)
	defer free(shapes)
	// In C memory, because Go memory must not hold pointers for C.
	how := (*C.df11go_decompressing)(C.calloc(1, C.sizeof_df11go_decompressing))
	defer C.free(unsafe.Pointer(how))
	how.threads, how.flags, how.shard_bytes = C.uint32_t(o.Threads), C.uint32_t(o.Flags), C.uint64_t(o.ShardBytes)
	how.config_json, how.shapes_from, how.shapes_json = config, shapesFrom, shapes
	how.tensors, how.tensor_count = names(o.Tensors)
	defer freeNames(how.tensors, how.tensor_count)
	how.groups, how.group_count = names(o.Groups)
	defer freeNames(how.groups, how.group_count)
	var e C.df11_error
	var r C.df11_decompress_report
	s := C.df11go_decompress_model(csrc, cdst, how, progress.p, &r, &e)
	return Decompressed{
		Tensors:      uint64(r.tensor_count),
		Flat:         uint64(r.flat_count),
		Files:        uint64(r.file_count),
		WrittenBytes: uint64(r.written_bytes),
		Dropped:      uint64(r.dropped_count),
		ConfigKeys:   uint64(r.config_key_count),
	}, failed(s, &e)
}

// Repacked is a df11_repack_report.
type Repacked struct {
	Groups, Plain, Files, WrittenBytes uint64
}

// RepackModel is df11_repack_model. No string may contain a zero byte.
func RepackModel(src, dst string, o *Reading, progress Progress) (Repacked, *Error) {
	csrc, cdst, how := C.CString(src), C.CString(dst), o.c()
	defer free(csrc)
	defer free(cdst)
	defer freeReading(how)
	var e C.df11_error
	var r C.df11_repack_report
	s := C.df11go_repack_model(csrc, cdst, how, progress.p, &r, &e)
	return Repacked{
		Groups:       uint64(r.group_count),
		Plain:        uint64(r.plain_count),
		Files:        uint64(r.file_count),
		WrittenBytes: uint64(r.written_bytes),
	}, failed(s, &e)
}
