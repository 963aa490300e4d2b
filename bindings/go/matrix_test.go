package df11_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"sync"
	"testing"
	"unsafe"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

func value(w df11.BF16) float32 { return math.Float32frombits(uint32(w) << 16) }

// lanes is the sum of a row in the order OrderLanes. FMA in float64 rounds a sum of float32 products twice, so x is small
// enough for every sum to be exact.
func lanes(row []df11.BF16, x []float32) float32 {
	var sums [32]float32
	for k, w := range row {
		sums[k%32] = float32(math.FMA(float64(value(w)), float64(x[k]), float64(sums[k%32])))
	}
	for half := 16; half > 0; half /= 2 {
		for j := range half {
			sums[j] += sums[j+half]
		}
	}
	return sums[0]
}

func TestMatrix(t *testing.T) {
	m := open(t, modelOf("block"), nil)
	tensor, err := m.FindTensor("model.layers.0.mlp.down_proj.weight")
	if err != nil {
		t.Fatal(err)
	}
	rows, columns := tensor.Shape[0], tensor.Shape[1]
	weights := make([]df11.BF16, rows*columns)
	if err := m.ReadTensorBF16(tensor.Index, 0, weights, 1); err != nil {
		t.Fatal(err)
	}
	one, err := m.Matrix(ctx, tensor.Index, columns, 0, rows, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := df11.NewMatrix(ctx, weights, int(columns), 1)
	if err != nil {
		t.Fatal(err)
	}
	if string(one.Data()) != string(two.Data()) || one.Rows() != rows || one.Columns() != columns {
		t.Fatal("two matrices of the same weights differ")
	}
	back := make([]df11.BF16, 1000)
	if err := one.Decompress(77, back); err != nil {
		t.Fatal(err)
	}
	for i, w := range back {
		if w != weights[77+i] {
			t.Fatalf("weight %d is %#x", 77+i, w)
		}
	}
	// Small powers of two: every product is exact.
	x, halves := make([]float32, 2*columns), make([]df11.BF16, 2*columns)
	for k := range x {
		x[k] = float32(k%3) / 2
		halves[k] = df11.BF16(math.Float32bits(x[k]) >> 16)
	}
	y := make([]float32, 2*rows)
	var wait sync.WaitGroup
	for part := range uint64(4) { // rows of their own, as goroutines of an engine have them
		wait.Add(1)
		go func() {
			defer wait.Done()
			from, to := rows*part/4, rows*(part+1)/4
			if err := two.Multiply(from, x[:columns], df11.OrderLanes, y[from:to]); err != nil {
				t.Error(err)
			}
		}()
	}
	wait.Wait()
	again := make([]float32, 2*rows)
	if err := one.MultiplyBF16(0, halves, df11.OrderLanes, again); err != nil {
		t.Fatal(err)
	}
	for r := range rows {
		row := weights[r*columns : (r+1)*columns]
		if want := lanes(row, x[:columns]); again[r] != y[r] || math.Abs(float64(want-y[r])) > 1e-5 {
			t.Fatalf("row %d: %v, %v, and not %v", r, y[r], again[r], want)
		}
	}
	if err := one.Multiply(0, x[:columns], df11.OrderGGMLAVX2, y[:rows]); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Fatal(err)
	}
	if err := one.Multiply(0, x[:columns-1], df11.OrderLanes, y[:rows]); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Fatal(err)
	}
	if err := one.Multiply(rows, x[:columns], df11.OrderLanes, y[:1]); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Fatal(err)
	}
	two.Close()
	two.Close()
	if err := two.Decompress(0, back); !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
}

// Weights whose exponents are all rare take more bytes than is guessed at first.
func TestMatrixOfAnything(t *testing.T) {
	weights := make([]df11.BF16, 100*64)
	for i := range weights {
		weights[i] = df11.BF16(i * 2621)
	}
	m, err := df11.NewMatrix(ctx, weights, 64, 1)
	if err != nil {
		t.Fatal(err)
	}
	back := make([]df11.BF16, len(weights))
	if err := m.Decompress(0, back); err != nil {
		t.Fatal(err)
	}
	for i, w := range back {
		if w != weights[i] {
			t.Fatalf("weight %d is %#x", i, w)
		}
	}
	if _, err := df11.NewMatrix(ctx, weights, 0, 1); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	if _, err := df11.NewMatrix(stopped, weights, 64, 1); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	data := m.Data()
	if uintptr(unsafe.Pointer(&data[0]))%df11.MatrixAlignment != 0 {
		t.Fatal("not aligned")
	}
	if _, err := df11.BindMatrix(data[:100]); !errors.Is(err, df11.ErrInvalidFormat) {
		t.Fatal(err)
	}
	if _, err := df11.BindMatrix(nil); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Fatal(err)
	}
	m.Close()
	bound, err := df11.BindMatrix(data)
	if err != nil || bound.Rows() != 100 {
		t.Fatal(err)
	}
	bound.Close()
}
