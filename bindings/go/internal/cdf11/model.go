package cdf11

// #include <stdlib.h>
// #include "shim.h"
//
// #cgo noescape df11go_open
// #cgo nocallback df11go_open
// #cgo noescape df11go_open_memory
// #cgo nocallback df11go_open_memory
// #cgo noescape df11_model_decompress
// #cgo nocallback df11_model_decompress
// #cgo noescape df11_model_read_tensor
// #cgo nocallback df11_model_read_tensor
// #cgo noescape df11_model_write_image
// #cgo nocallback df11_model_write_image
// #cgo noescape df11_model_write_image_part
// #cgo nocallback df11_model_write_image_part
// #cgo noescape df11_model_get_group_info
// #cgo nocallback df11_model_get_group_info
// #cgo noescape df11_model_get_tensor_info
// #cgo nocallback df11_model_get_tensor_info
// #cgo noescape df11_model_get_tensor_run
// #cgo nocallback df11_model_get_tensor_run
// #cgo noescape df11_model_get_group_run
// #cgo nocallback df11_model_get_group_run
import "C"

import "unsafe"

// Flags of Open.
const (
	OpenVerify     = C.DF11_OPEN_VERIFY
	OpenRead       = C.DF11_OPEN_READ
	OpenAnyVersion = C.DF11_OPEN_ANY_VERSION
	// OpenNoDerivedShapes leaves shapes unknown that can only be derived.
	OpenNoDerivedShapes = C.DF11_OPEN_NO_DERIVED_SHAPES
)

// Model is a df11_model.
type Model struct{ p *C.df11_model }

// Opening is what a df11_open_options says. Its texts must not contain a zero byte; nil means none.
type Opening struct {
	Flags, Threads             uint32
	Config, ShapesFrom, Shapes []byte
	Progress                   Progress
}

// c copies the options to C memory, because Go memory must not hold pointers for C. The caller frees it by the function.
func (o Opening) c() (*C.df11go_opening, func()) {
	how := (*C.df11go_opening)(C.calloc(1, C.sizeof_df11go_opening))
	how.flags, how.threads = C.uint32_t(o.Flags), C.uint32_t(o.Threads)
	how.config, how.shapes_from, how.shapes = text(o.Config), text(o.ShapesFrom), text(o.Shapes)
	return how, func() {
		free(how.config)
		free(how.shapes_from)
		free(how.shapes)
		C.free(unsafe.Pointer(how))
	}
}

// Open is df11_model_open. path must not contain a zero byte.
func Open(path string, o Opening) (Model, *Error) {
	cpath := C.CString(path)
	defer free(cpath)
	how, done := o.c()
	defer done()
	var m Model
	var e C.df11_error
	s := C.df11go_open(cpath, how, o.Progress.p, &m.p, &e)
	return m, failed(s, &e)
}

// OpenMemory is df11_model_open_memory. The memory must stay in place, unchanged, until the model is freed: pin Go
// memory.
func OpenMemory(data []byte, o Opening) (Model, *Error) {
	how, done := o.c()
	defer done()
	var m Model
	var e C.df11_error
	s := C.df11go_open_memory(C.uintptr_t(uintptr(unsafe.Pointer(unsafe.SliceData(data)))), C.size_t(len(data)),
		how, o.Progress.p, &m.p, &e)
	return m, failed(s, &e)
}

// ConfigText is df11_model_config_text.
func (m Model) ConfigText() string {
	var n C.uint64_t
	text := C.df11_model_config_text(m.p, &n)
	if text == nil {
		return ""
	}
	return string(unsafe.Slice((*byte)(unsafe.Pointer(text)), int(n)))
}

// DTypeBytes is df11_dtype_bytes.
func DTypeBytes(dtype uint32) int { return int(C.df11_dtype_bytes(C.uint32_t(dtype))) }

// Free is df11_model_free.
func (m Model) Free() { C.df11_model_free(m.p) }

// Groups is df11_model_group_count.
func (m Model) Groups() uint64 { return uint64(C.df11_model_group_count(m.p)) }

// Tensors is df11_model_tensor_count.
func (m Model) Tensors() uint64 { return uint64(C.df11_model_tensor_count(m.p)) }

// Group is a df11_group_info.
type Group struct {
	Name                                               string
	Elements, Tensors, FirstTensor, Packed, ImageBytes uint64
	Extended                                           bool
}

// Group is df11_model_get_group_info.
func (m Model) Group(number uint64) (Group, *Error) {
	var e C.df11_error
	info := C.df11_group_info{struct_size: C.sizeof_df11_group_info}
	if s := C.df11_model_get_group_info(m.p, C.uint64_t(number), &info, &e); s != C.DF11_OK {
		return Group{}, failed(s, &e)
	}
	return Group{
		Name:        C.GoString(info.name),
		Elements:    uint64(info.element_count),
		Tensors:     uint64(info.tensor_count),
		FirstTensor: uint64(info.first_tensor),
		Packed:      uint64(info.packed_bytes),
		ImageBytes:  uint64(info.image_bytes),
		Extended:    info.extended != 0,
	}, nil
}

// NoTensor is the first tensor of a group whose tensors have no consecutive numbers.
const NoTensor uint64 = C.DF11_NO_TENSOR

// NoGroup is the group of a tensor that is in no group.
const NoGroup uint64 = C.DF11_NO_GROUP

// Tensor is a df11_tensor_info.
type Tensor struct {
	Name               string
	DType              uint32
	Shape              []uint64
	DataBytes          uint64
	Group, GroupOffset uint64
	File               string
	FileOffset         uint64
	ShapeKnown         uint32
	Runs               uint64
}

// Files caches the paths that Tensor has seen, so that the tensors of a file share one string.
type Files map[*C.char]string

// Tensor is df11_model_get_tensor_info.
func (m Model) Tensor(number uint64, files Files) (Tensor, *Error) {
	var e C.df11_error
	info := C.df11_tensor_info{struct_size: C.sizeof_df11_tensor_info}
	if s := C.df11_model_get_tensor_info(m.p, C.uint64_t(number), &info, &e); s != C.DF11_OK {
		return Tensor{}, failed(s, &e)
	}
	t := Tensor{
		Name:        C.GoString(info.name),
		DType:       uint32(info.dtype),
		DataBytes:   uint64(info.data_bytes),
		Group:       uint64(info.group),
		GroupOffset: uint64(info.group_offset),
		FileOffset:  uint64(info.file_offset),
		ShapeKnown:  uint32(info.shape_known),
		Runs:        uint64(info.run_count),
	}
	if info.rank > 0 {
		t.Shape = append(t.Shape, unsafe.Slice((*uint64)(info.shape), info.rank)...)
	}
	if info.file != nil {
		file, ok := files[info.file]
		if !ok {
			file = C.GoString(info.file)
			files[info.file] = file
		}
		t.File = file
	}
	return t, nil
}

// Run is a df11_run_info.
type Run struct{ Tensor, TensorOffset, Group, GroupOffset, Elements uint64 }

// TensorRun is df11_model_get_tensor_run.
func (m Model) TensorRun(tensor, run uint64) (Run, *Error) {
	var e C.df11_error
	info := C.df11_run_info{struct_size: C.sizeof_df11_run_info}
	s := C.df11_model_get_tensor_run(m.p, C.uint64_t(tensor), C.uint64_t(run), &info, &e)
	return runOf(&info), failed(s, &e)
}

// GroupRun is df11_model_get_group_run.
func (m Model) GroupRun(group, run uint64) (Run, *Error) {
	var e C.df11_error
	info := C.df11_run_info{struct_size: C.sizeof_df11_run_info}
	s := C.df11_model_get_group_run(m.p, C.uint64_t(group), C.uint64_t(run), &info, &e)
	return runOf(&info), failed(s, &e)
}

func runOf(info *C.df11_run_info) Run {
	return Run{
		Tensor:       uint64(info.tensor),
		TensorOffset: uint64(info.tensor_offset),
		Group:        uint64(info.group),
		GroupOffset:  uint64(info.group_offset),
		Elements:     uint64(info.element_count),
	}
}

// Decompress is df11_model_decompress.
func (m Model) Decompress(group, first uint64, dst []uint16, threads uint32) *Error {
	var e C.df11_error
	n := len(dst)
	s := C.df11_model_decompress(m.p, C.uint64_t(group), C.uint64_t(first), C.uint64_t(n),
		unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(2*n), C.uint32_t(threads), &e)
	return failed(s, &e)
}

// ReadTensor is df11_model_read_tensor.
func (m Model) ReadTensor(tensor, offset uint64, dst []byte, threads uint32) *Error {
	var e C.df11_error
	s := C.df11_model_read_tensor(m.p, C.uint64_t(tensor), C.uint64_t(offset), unsafe.Pointer(unsafe.SliceData(dst)),
		C.size_t(len(dst)), C.uint32_t(threads), &e)
	return failed(s, &e)
}

// WriteImage is df11_model_write_image.
func (m Model) WriteImage(group uint64, dst []byte) *Error {
	var e C.df11_error
	s := C.df11_model_write_image(m.p, C.uint64_t(group), unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst)), &e)
	return failed(s, &e)
}

// WriteImagePart is df11_model_write_image_part.
func (m Model) WriteImagePart(group uint64, dst []byte, part, parts uint32) *Error {
	var e C.df11_error
	s := C.df11_model_write_image_part(m.p, C.uint64_t(group), unsafe.Pointer(unsafe.SliceData(dst)),
		C.size_t(len(dst)), C.uint32_t(part), C.uint32_t(parts), &e)
	return failed(s, &e)
}

// Part is a df11_part_info.
type Part struct {
	File              string
	Offset, DataBytes uint64
}

// GroupPart is df11_model_get_group_part.
func (m Model) GroupPart(group uint64, part uint32) (Part, *Error) {
	var e C.df11_error
	info := C.df11_part_info{struct_size: C.sizeof_df11_part_info}
	if s := C.df11_model_get_group_part(m.p, C.uint64_t(group), C.uint32_t(part), &info, &e); s != C.DF11_OK {
		return Part{}, failed(s, &e)
	}
	return Part{C.GoString(info.file), uint64(info.file_offset), uint64(info.data_bytes)}, nil
}
