package cdf11

// #include "shim.h"
//
// #cgo noescape df11_matrix_multiply
// #cgo nocallback df11_matrix_multiply
// #cgo noescape df11_matrix_decompress
// #cgo nocallback df11_matrix_decompress
import "C"

import "unsafe"

// MatrixAlignment is DF11_MATRIX_ALIGNMENT.
const MatrixAlignment = C.DF11_MATRIX_ALIGNMENT

// Orders of sums.
const (
	OrderLanes          = C.DF11_ORDER_LANES
	OrderGGMLAVX2       = C.DF11_ORDER_GGML_AVX2
	OrderGGMLAVX512     = C.DF11_ORDER_GGML_AVX512
	OrderGGMLAVX512BF16 = C.DF11_ORDER_GGML_AVX512_BF16
)

// Matrix is a df11_matrix.
type Matrix struct{ p *C.df11_matrix }

// MatrixBound is df11_matrix_bound.
func MatrixBound(rows, columns uint64) (uint64, *Error) {
	var n C.uint64_t
	var e C.df11_error
	s := C.df11_matrix_bound(C.uint64_t(rows), C.uint64_t(columns), &n, &e)
	return uint64(n), failed(s, &e)
}

// WriteMatrix is df11_matrix_write. It returns the bytes that are used, or, if dst is too small, needed.
func WriteMatrix(weights []uint16, rows, columns uint64, dst []byte, threads uint32, progress Progress) (uint64, *Error) {
	var n C.uint64_t
	var e C.df11_error
	s := C.df11_matrix_write((*C.uint16_t)(unsafe.SliceData(weights)), C.uint64_t(rows), C.uint64_t(columns),
		unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst)), C.uint32_t(threads), progress.p, &n, &e)
	return uint64(n), failed(s, &e)
}

// WriteMatrix is df11_model_write_matrix. It returns the bytes that are used, or, if dst is too small, needed.
func (m Model) WriteMatrix(tensor, columns, first, rows uint64, dst []byte, threads uint32,
	progress Progress) (uint64, *Error) {
	var n C.uint64_t
	var e C.df11_error
	s := C.df11_model_write_matrix(m.p, C.uint64_t(tensor), C.uint64_t(columns), C.uint64_t(first), C.uint64_t(rows),
		unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst)), C.uint32_t(threads), progress.p, &n, &e)
	return uint64(n), failed(s, &e)
}

// BindMatrix is df11_matrix_bind. The memory must stay in place, unchanged, until the matrix is freed: pin Go memory.
func BindMatrix(data []byte) (Matrix, *Error) {
	var m Matrix
	var e C.df11_error
	s := C.df11go_bind_matrix(C.uintptr_t(uintptr(unsafe.Pointer(unsafe.SliceData(data)))), C.size_t(len(data)), &m.p, &e)
	return m, failed(s, &e)
}

// Free is df11_matrix_free.
func (m Matrix) Free() { C.df11_matrix_free(m.p) }

// MatrixInfo is a df11_matrix_info.
type MatrixInfo struct {
	Rows, Columns, Bytes, Escapes uint64
}

// Info is df11_matrix_get_info.
func (m Matrix) Info() (MatrixInfo, *Error) {
	var e C.df11_error
	i := C.df11_matrix_info{struct_size: C.sizeof_df11_matrix_info}
	s := C.df11_matrix_get_info(m.p, &i, &e)
	return MatrixInfo{uint64(i.row_count), uint64(i.column_count), uint64(i.matrix_bytes), uint64(i.escape_count)},
		failed(s, &e)
}

// Decompress is df11_matrix_decompress.
func (m Matrix) Decompress(first uint64, dst []uint16) *Error {
	var e C.df11_error
	n := len(dst)
	s := C.df11_matrix_decompress(m.p, C.uint64_t(first), C.uint64_t(n), unsafe.Pointer(unsafe.SliceData(dst)),
		C.size_t(2*n), &e)
	return failed(s, &e)
}

// Multiply is df11_matrix_multiply: vectors and results one after the other. x are float32 or, with half, bf16.
func (m Matrix) Multiply(first, rows uint64, x unsafe.Pointer, half bool, columns, vectors uint64, order uint32,
	y []float32) *Error {
	dtype := C.uint32_t(C.DF11_DTYPE_F32)
	if half {
		dtype = C.DF11_DTYPE_BF16
	}
	var e C.df11_error
	s := C.df11_matrix_multiply(m.p, C.uint64_t(first), C.uint64_t(rows), x, dtype, C.uint64_t(columns),
		C.uint64_t(vectors), C.uint32_t(order), (*C.float)(unsafe.SliceData(y)), C.uint64_t(rows), &e)
	return failed(s, &e)
}
