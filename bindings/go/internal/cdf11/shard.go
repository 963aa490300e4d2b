package cdf11

// #include "shim.h"
import "C"

import "unsafe"

// Rules of splitting.
const (
	SplitEven       = C.DF11_SPLIT_EVEN
	SplitReplicate  = C.DF11_SPLIT_REPLICATE
	SplitSpread     = C.DF11_SPLIT_SPREAD
	SplitPad        = C.DF11_SPLIT_PAD
	DimensionByName = C.DF11_DIMENSION_BY_NAME
)

// Slice is a df11_slice, field by field.
type Slice struct{ Tensor, First, RunElements, RunStride, RunCount uint32 }

// Segment is a df11_segment, field by field.
type Segment struct {
	Extent, Unit   uint64
	Rule, Reserved uint32
}

// Share is df11_split_segment: the first and the number of rows or columns.
func (s Segment) Share(rank, world uint32) (first, n uint64, err *Error) {
	var f, c C.uint64_t
	var e C.df11_error
	status := C.df11_split_segment((*C.df11_segment)(unsafe.Pointer(&s)), C.uint32_t(rank), C.uint32_t(world), &f, &c, &e)
	return uint64(f), uint64(c), failed(status, &e)
}

// Slices is df11_model_get_slices. out has a slice for each segment, or one.
func (m Model) Slices(group, tensor uint64, dimension uint32, segments []Segment, rank, world uint32,
	out []Slice) *Error {
	var e C.df11_error
	s := C.df11_model_get_slices(m.p, C.uint64_t(group), C.uint64_t(tensor), C.uint32_t(dimension),
		(*C.df11_segment)(unsafe.Pointer(unsafe.SliceData(segments))), C.size_t(len(segments)), C.uint32_t(rank),
		C.uint32_t(world), (*C.df11_slice)(unsafe.Pointer(unsafe.SliceData(out))), &e)
	return failed(s, &e)
}

// ImageRangeInfo is df11_model_get_image_range_info.
func (m Model) ImageRangeInfo(group, first, n uint64) (ImageInfo, *Error) {
	var e C.df11_error
	info := C.df11_image_info{struct_size: C.sizeof_df11_image_info}
	s := C.df11_model_get_image_range_info(m.p, C.uint64_t(group), C.uint64_t(first), C.uint64_t(n), &info, &e)
	return imageInfo(&info), failed(s, &e)
}

// WriteImageRange is df11_model_write_image_range.
func (m Model) WriteImageRange(group, first, n uint64, dst []byte, threads uint32) *Error {
	var e C.df11_error
	s := C.df11_model_write_image_range(m.p, C.uint64_t(group), C.uint64_t(first), C.uint64_t(n),
		unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst)), C.uint32_t(threads), &e)
	return failed(s, &e)
}

// Shard is a df11_shard.
type Shard struct{ p *C.df11_shard }

// MakeShard is df11_model_make_shard. The model must stay open until the shard is freed.
func (m Model) MakeShard(group uint64, slices []Slice, threads uint32, progress Progress) (Shard, *Error) {
	var h Shard
	var e C.df11_error
	s := C.df11_model_make_shard(m.p, C.uint64_t(group), (*C.df11_slice)(unsafe.Pointer(unsafe.SliceData(slices))),
		C.size_t(len(slices)), C.uint32_t(threads), progress.p, &h.p, &e)
	return h, failed(s, &e)
}

// ImageInfo is df11_shard_get_image_info.
func (h Shard) ImageInfo() (ImageInfo, *Error) {
	var e C.df11_error
	info := C.df11_image_info{struct_size: C.sizeof_df11_image_info}
	s := C.df11_shard_get_image_info(h.p, &info, &e)
	return imageInfo(&info), failed(s, &e)
}

// WriteImage is df11_shard_write_image.
func (h Shard) WriteImage(dst []byte, threads uint32, progress Progress) *Error {
	var e C.df11_error
	s := C.df11_shard_write_image(h.p, unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst)), C.uint32_t(threads),
		progress.p, &e)
	return failed(s, &e)
}

// Free is df11_shard_free.
func (h Shard) Free() { C.df11_shard_free(h.p) }
