package df11

import (
	"context"
	"math"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// SplitRule says how rows or columns are divided among ranks.
type SplitRule uint32

const (
	// SplitEven gives each rank as many units, and fails if they do not divide by the ranks.
	SplitEven SplitRule = cdf11.SplitEven
	// SplitReplicate is SplitEven; but where there are more ranks than units, each unit goes to as many ranks as there
	// are for one, as engines divide heads of keys and values.
	SplitReplicate SplitRule = cdf11.SplitReplicate
	// SplitSpread gives the first ranks one unit more than the last ones, or as many.
	SplitSpread SplitRule = cdf11.SplitSpread
	// SplitPad gives each rank as many units, rounded up, and the last ones what is left, or nothing, as engines divide
	// a vocabulary that they pad.
	SplitPad SplitRule = cdf11.SplitPad
)

// DimensionByName is the dimension of [Model.Slices] that follows from the tensor's name.
const DimensionByName = -1

// Segment is a number of consecutive rows or columns that ranks divide alike: all of a dimension, or those of one of the
// matrices that a fused tensor joins.
type Segment struct {
	// Extent is the number of rows or columns.
	Extent uint64
	// Unit is how many of them stay together, such as those of a head. 0 means 1.
	Unit uint64
	// Rule says how units are divided.
	Rule SplitRule
}

func (s Segment) c() cdf11.Segment {
	return cdf11.Segment{Extent: s.Extent, Unit: s.Unit, Rule: uint32(s.Rule)}
}

// Share returns the rows or columns that a rank holds, 0 to world - 1: n of them from first on.
func (s Segment) Share(rank, world int) (first, n uint64, err error) {
	const op = "share"
	if err := ranks(op, rank, world); err != nil {
		return 0, 0, err
	}
	first, n, e := s.c().Share(uint32(rank), uint32(world))
	return first, n, result(op, e)
}

func ranks(op string, rank, world int) error {
	if rank < 0 || rank >= world || int64(world) > math.MaxUint32 {
		return invalid(op, "there is no rank %d of %d", rank, world)
	}
	return nil
}

// Slice is a part of one of a group's tensors: RunCount runs of RunElements elements each, of which the first begins at
// element First and each other one RunStride elements after the one before. Tensor is the tensor's number among those of
// the group. If the group has only a run of the tensor, elements count from there.
type Slice cdf11.Slice

// Slices makes the slices that a rank holds of a group's tensor, whose number among those of the group is tensor: one for
// each segment of a dimension, or one if there are no segments, which then is divided evenly. Dimension 0 are the rows
// of a matrix, 1 its columns; [DimensionByName] takes the one by which tensor parallelism divides a matrix of this name.
// The shape of the tensor must be known: give it by [OpenOptions] where no file says it.
func (m *Model) Slices(group, tensor, dimension int, segments []Segment, rank, world int) ([]Slice, error) {
	const op = "slices"
	if tensor < 0 || dimension < DimensionByName || int64(dimension) > math.MaxInt32 {
		return nil, invalid(op, "there is no dimension %d of tensor %d", dimension, tensor)
	}
	if err := ranks(op, rank, world); err != nil {
		return nil, err
	}
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return nil, err
	}
	defer m.leave()
	c := make([]cdf11.Segment, len(segments))
	for i, s := range segments {
		c[i] = s.c()
	}
	d := uint32(cdf11.DimensionByName)
	if dimension != DimensionByName {
		d = uint32(dimension)
	}
	found := make([]cdf11.Slice, max(len(segments), 1))
	e := m.c.Slices(uint64(group), uint64(tensor), d, c, uint32(rank), uint32(world), found)
	if e != nil {
		return nil, result(op, e)
	}
	slices := make([]Slice, len(found))
	for i, s := range found {
		slices[i] = Slice(s)
	}
	return slices, result(op, nil)
}

// ImageRangeInfo describes the image of n of a group's weights, from weight first on, before [Model.WriteImageRange] or
// [Device.UploadRange] makes it.
func (m *Model) ImageRangeInfo(group int, first, n uint64) (ImageInfo, error) {
	const op = "image range info"
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return ImageInfo{}, err
	}
	defer m.leave()
	i, e := m.c.ImageRangeInfo(uint64(group), first, n)
	return ImageInfo(i), result(op, e)
}

// WriteImageRange writes the image of n of a group's weights, from weight first on, as [Model.WriteImage] writes that of
// all: rows of a tensor, for devices that share the work of a layer. dst holds at least the ImageBytes of
// [Model.ImageRangeInfo]. So many threads work; 0 means 1. Decoding counts as for the whole group.
func (m *Model) WriteImageRange(group int, first, n uint64, dst []byte, threads int) error {
	const op = "write image range"
	t, err := m.begin(op, "group", group, threads)
	if err != nil {
		return err
	}
	defer m.leave()
	err = result(op, m.c.WriteImageRange(uint64(group), first, n, dst, t))
	if err == nil {
		written, _ := cdf11.GetImageInfo(dst)
		wrote(written.ImageBytes)
	}
	return err
}

// WriteShard writes the image of slices of a group: what one of several devices holds of it, for [Device.BindImage]. The
// slices are decoded a piece at a time and encoded anew with the group's own table; slice i is tensor i of the image. So
// many threads work; 0 means 1. alloc is called with the size of the image and returns the memory for it, which WriteShard
// returns; nil means memory of the Go heap. If ctx is cancelled, the call ends soon.
func (m *Model) WriteShard(ctx context.Context, group int, slices []Slice, threads int,
	alloc func(imageBytes uint64) []byte) ([]byte, error) {
	const op = "write shard"
	t, err := m.begin(op, "group", group, threads)
	if err != nil {
		return nil, err
	}
	defer m.leave()
	c := make([]cdf11.Slice, len(slices))
	for i, s := range slices {
		c[i] = cdf11.Slice(s)
	}
	if alloc == nil {
		alloc = func(n uint64) []byte { return make([]byte, n) }
	}
	var shard cdf11.Shard
	defer func() { shard.Free() }()
	err = watch(ctx, op, nil, func(progress cdf11.Progress) (e *cdf11.Error) {
		shard, e = m.c.MakeShard(uint64(group), c, t, progress)
		return e
	}, func() {})
	if err != nil {
		return nil, err
	}
	info, e := shard.ImageInfo()
	if e != nil {
		return nil, result(op, e)
	}
	dst := alloc(info.ImageBytes)
	err = watch(ctx, op, nil, func(progress cdf11.Progress) *cdf11.Error {
		return shard.WriteImage(dst, t, progress)
	}, func() {})
	if err != nil {
		return nil, err
	}
	wrote(info.ImageBytes)
	return dst[:info.ImageBytes], nil
}

// wrote counts an image of a part of a group.
func wrote(bytes uint64) {
	count.imagesWritten.Add(1)
	count.imageBytesWritten.Add(bytes)
}
