package df11

import (
	"context"
	"errors"
	"runtime"
	"unsafe"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// MatrixAlignment is the alignment of a matrix's first byte.
const MatrixAlignment = cdf11.MatrixAlignment

// Order is the order in which the products of a row are summed up. df11.h describes each.
type Order uint32

const (
	// OrderLanes has 32 sums by fused multiply-adds, and is the same on every processor.
	OrderLanes Order = cdf11.OrderLanes
	// OrderGGMLAVX2, OrderGGMLAVX512 and OrderGGMLAVX512BF16 are those of ggml's ggml_vec_dot_bf16, compiled for these
	// instruction sets. They are for x of bf16.
	OrderGGMLAVX2       Order = cdf11.OrderGGMLAVX2
	OrderGGMLAVX512     Order = cdf11.OrderGGMLAVX512
	OrderGGMLAVX512BF16 Order = cdf11.OrderGGMLAVX512BF16
)

// Matrix is a matrix of bf16 weights at about 12 bits each. Products with it have the bits of products with plain bf16
// rows, and take less time, because they wait for fewer bytes. It is immutable, and any number of goroutines may use it at
// once.
//
// Close it, or let the garbage collector do so when it is unreachable.
type Matrix struct {
	handle
	c       *matrixHandle
	cleanup runtime.Cleanup
}

// matrixHandle is a C matrix and its bytes.
type matrixHandle struct {
	cdf11.Matrix
	info   cdf11.MatrixInfo
	data   []byte
	pinned runtime.Pinner
}

func (h *matrixHandle) release() {
	h.Free()
	h.pinned.Unpin()
}

// NewMatrix makes a matrix of rows of columns weights, one row after the other, with so many threads (0 means 1). The
// bytes are those of the Go heap. If ctx is cancelled, the call ends soon.
func NewMatrix(ctx context.Context, weights []BF16, columns, threads int) (*Matrix, error) {
	const op = "new matrix"
	if columns <= 0 || len(weights)%columns != 0 {
		return nil, invalid(op, "%d weights are no whole rows of %d", len(weights), columns)
	}
	rows := uint64(len(weights) / columns)
	return newMatrix(ctx, op, rows, uint64(columns), threads,
		func(dst []byte, threads uint32, progress cdf11.Progress) (uint64, *cdf11.Error) {
			return cdf11.WriteMatrix(bits(weights), rows, uint64(columns), dst, threads, progress)
		})
}

// Matrix makes a matrix of a tensor of type [DTypeBF16], plain or compressed: of rows rows from row first on. The tensor
// is seen as rows of columns weights, one after the other: one of experts, rows and columns has experts times rows of them.
// It is decoded in pieces, so that its weights are never all in memory. Everything else is as for [NewMatrix].
func (m *Model) Matrix(ctx context.Context, tensor int, columns, first, rows uint64, threads int) (*Matrix, error) {
	const op = "matrix"
	if _, err := m.begin(op, "tensor", tensor, threads); err != nil {
		return nil, err
	}
	defer m.leave()
	return newMatrix(ctx, op, rows, columns, threads,
		func(dst []byte, threads uint32, progress cdf11.Progress) (uint64, *cdf11.Error) {
			return m.c.WriteMatrix(uint64(tensor), columns, first, rows, dst, threads, progress)
		})
}

// BindMatrix takes the bytes of a matrix, [Matrix.Data], wherever they have been since: in a file, or in memory that
// processes share. Their first byte is aligned to [MatrixAlignment], and they must not change until the matrix is closed.
// A newer library may refuse them: this is a format of memory.
func BindMatrix(data []byte) (*Matrix, error) {
	const op = "bind matrix"
	h := &matrixHandle{data: data}
	if len(data) > 0 {
		h.pinned.Pin(unsafe.SliceData(data))
	}
	var e *cdf11.Error
	if h.Matrix, e = cdf11.BindMatrix(data); e == nil {
		h.info, e = h.Info()
	}
	if e != nil {
		h.release()
		return nil, result(op, e)
	}
	m := &Matrix{c: h}
	m.init()
	m.cleanup = runtime.AddCleanup(m, (*matrixHandle).release, h)
	return m, nil
}

// newMatrix makes a matrix with as little memory as is enough.
func newMatrix(ctx context.Context, op string, rows, columns uint64, n int,
	write func(dst []byte, threads uint32, progress cdf11.Progress) (uint64, *cdf11.Error)) (*Matrix, error) {
	t, err := threads(op, n)
	if err != nil {
		return nil, err
	}
	most, e := cdf11.MatrixBound(rows, columns)
	if e != nil {
		return nil, result(op, e)
	}
	// Trained weights have rare exponents in less than one of a hundred. If there are more, the call says how many.
	lines := columns/128*3 + (columns%128+63)/64*2
	guess := min(most, rows*lines*64+rows*columns/64+rows*4+4096)
	for {
		data := aligned(guess)
		var used uint64
		err := watch(ctx, op, nil, func(progress cdf11.Progress) (e *cdf11.Error) {
			used, e = write(data, t, progress)
			return e
		}, func() {})
		if err == nil {
			return BindMatrix(data[:used:used])
		}
		if !errors.Is(err, ErrBufferTooSmall) || used <= guess {
			return nil, err
		}
		guess = used
	}
}

// aligned returns so many bytes at a cache line's beginning.
func aligned(n uint64) []byte {
	data := make([]byte, n+MatrixAlignment)
	at := -uintptr(unsafe.Pointer(unsafe.SliceData(data))) % MatrixAlignment
	return data[at : uint64(at)+n : uint64(at)+n]
}

// Close frees the matrix. It waits for running calls; later ones fail with [io/fs.ErrClosed]. Closing again does nothing,
// and Close never fails.
func (m *Matrix) Close() error {
	m.close(func() {
		m.cleanup.Stop()
		m.c.release()
	})
	runtime.KeepAlive(m)
	return nil
}

// Rows returns the number of rows.
func (m *Matrix) Rows() uint64 { return m.c.info.Rows }

// Columns returns the number of columns.
func (m *Matrix) Columns() uint64 { return m.c.info.Columns }

// Data returns the bytes of the matrix, for [BindMatrix]. They must not be changed.
func (m *Matrix) Data() []byte { return m.c.data[:m.c.info.Bytes] }

// Decompress decodes len(dst) weights, from weight first on. Row r begins at weight r * [Matrix.Columns]. The calling
// thread works.
func (m *Matrix) Decompress(first uint64, dst []BF16) error {
	const op = "decompress matrix"
	if !m.enter() {
		return errClosed(op, "matrix")
	}
	defer m.leave()
	return result(op, m.c.Decompress(first, bits(dst)))
}

// Multiply multiplies rows, from row first on, with one or more vectors of [Matrix.Columns] elements, one after the other
// in x. y has a number for each row and each vector: first those of the first vector. The calling thread works: call
// it from several goroutines, each with rows of its own. One vector is the fast case. Only [OrderLanes] is for x of
// float32.
func (m *Matrix) Multiply(first uint64, x []float32, order Order, y []float32) error {
	return m.multiply(first, unsafe.Pointer(unsafe.SliceData(x)), len(x), false, order, y)
}

// MultiplyBF16 multiplies as [Matrix.Multiply] does, with x of bf16.
func (m *Matrix) MultiplyBF16(first uint64, x []BF16, order Order, y []float32) error {
	return m.multiply(first, unsafe.Pointer(unsafe.SliceData(x)), len(x), true, order, y)
}

func (m *Matrix) multiply(first uint64, x unsafe.Pointer, n int, half bool, order Order, y []float32) error {
	const op = "multiply"
	if !m.enter() {
		return errClosed(op, "matrix")
	}
	defer m.leave()
	columns := int(m.c.info.Columns)
	if n == 0 || n%columns != 0 || len(y)%(n/columns) != 0 {
		return invalid(op, "x of %d and y of %d elements: x has %d for each vector, and y as many for each",
			n, len(y), columns)
	}
	if len(y) == 0 {
		return nil
	}
	vectors := n / columns
	return result(op, m.c.Multiply(first, uint64(len(y)/vectors), x, half, uint64(columns), uint64(vectors),
		uint32(order), y))
}
