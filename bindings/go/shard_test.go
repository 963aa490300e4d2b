package df11_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
	"github.com/libdf11/libdf11/bindings/go/internal/cudatest"
)

// A range and the shards of two ranks, of every group, on the host and on the device.
func TestPartsOfGroups(t *testing.T) {
	d := device(t, nil)
	m, s := open(t, modelOf("sharded"), nil), stream(t)
	status := memory(t, 4)
	cudatest.Put(status, make([]byte, 4))
	before := df11.Stats()
	written := uint64(0)
	for i, g := range m.Groups() {
		want := weights(t, m, i)
		dst := memory(t, uint64(len(want))+64)
		first, n := g.Elements/3, g.Elements/2
		info, err := m.ImageRangeInfo(i, first, n)
		if err != nil || info.FirstElement != first || info.Elements != n || info.GroupElements != g.Elements {
			t.Fatalf("%+v %v", info, err)
		}
		image := make([]byte, info.ImageBytes)
		if err := m.WriteImageRange(i, first, n, image, 2); err != nil {
			t.Fatal(err)
		}
		if again, err := df11.GetImageInfo(image); err != nil || again != info {
			t.Fatalf("%+v %v", again, err)
		}
		written++
		r, err := d.UploadRange(m, i, first, n, memory(t, info.ImageBytes), info.ImageBytes, s, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		cudatest.Put(dst, bytes.Repeat([]byte{0xa5}, len(want)+64))
		if err := r.DecompressRange(first+3, n-5, dst, 2*n, status, s); err != nil {
			t.Fatal(err)
		}
		same(t, "range", s, dst, status, want[2*(first+3):2*(first+n-2)], 64)
		if err := r.DecompressRange(first-1, 1, dst, 2*n, status, s); !errors.Is(err, df11.ErrInvalidArgument) {
			t.Fatal(err)
		}
		about, err := r.Info()
		if err != nil || about.FirstElement != first || about.Elements != n || len(about.Slices) != 0 {
			t.Fatalf("%+v %v", about, err)
		}
		if err := errors.Join(r.Uploaded(), r.Close()); err != nil {
			t.Fatal(err)
		}

		// The second of two ranks holds the right half of each row of the first tensor.
		tensor := m.Tensors()[g.FirstTensor]
		slices, err := m.Slices(i, 0, 1, nil, 1, 2)
		if err != nil || len(slices) != 1 || uint64(slices[0].RunCount) != tensor.Shape[0] {
			t.Fatalf("%+v %v", slices, err)
		}
		shard, err := m.WriteShard(context.Background(), i, slices, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		written++
		at := memory(t, uint64(len(shard)))
		cudatest.Put(at, shard)
		r, err = d.BindImage(shard, at, uint64(len(shard)))
		if err != nil {
			t.Fatal(err)
		}
		half := []byte{}
		for row, columns := uint64(0), tensor.Shape[1]; row < tensor.Shape[0]; row++ {
			half = append(half, want[2*(row*columns+columns/2):2*(row+1)*columns]...)
		}
		cudatest.Put(dst, bytes.Repeat([]byte{0xa5}, len(want)+64))
		if err := r.DecompressTensors([]uintptr{dst}, []uint64{uint64(len(half))}, status, s); err != nil {
			t.Fatal(err)
		}
		same(t, "shard", s, dst, status, half, 64)
		about, err = r.Info()
		if err != nil || len(about.Slices) != 1 || about.Slices[0] != slices[0] {
			t.Fatalf("%+v %v", about, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := df11.Stats().ImagesWritten - before.ImagesWritten; got != written {
		t.Errorf("%d images written, and %d counted", written, got)
	}

	// What is refused.
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	some := []df11.Slice{{RunElements: 1, RunStride: 1, RunCount: 1}}
	_, stopped := m.WriteShard(cancelled, 0, some, 1, nil)
	_, nothing := m.WriteShard(context.Background(), 0, nil, 1, nil)
	_, negative := m.WriteShard(context.Background(), -1, some, 1, nil)
	_, noTensor := m.Slices(0, -1, 0, nil, 0, 1)
	_, noRank := m.Slices(0, 0, 0, nil, 1, 1)
	_, uneven := m.Slices(0, 0, 0, nil, 0, 7)
	_, noRange := m.ImageRangeInfo(0, 0, 0)
	for what, c := range map[string]struct{ got, want error }{
		"cancelled":    {stopped, context.Canceled},
		"no slices":    {nothing, df11.ErrInvalidArgument},
		"group -1":     {negative, df11.ErrNotFound},
		"tensor -1":    {noTensor, df11.ErrInvalidArgument},
		"rank 1 of 1":  {noRank, df11.ErrInvalidArgument},
		"seven ranks":  {uneven, df11.ErrInvalidArgument},
		"empty range":  {noRange, df11.ErrInvalidArgument},
		"small memory": {m.WriteImageRange(0, 1, 5, make([]byte, 256), 1), df11.ErrBufferTooSmall},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v", what, c.got)
		}
	}
	first, n, err := df11.Segment{Extent: 1024, Unit: 128, Rule: df11.SplitReplicate}.Share(5, 16)
	if err != nil || first != 256 || n != 128 {
		t.Error(first, n, err)
	}
}
