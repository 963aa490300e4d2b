package df11

import (
	"runtime"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// Resident is a group's image on a device, ready to be decoded. It owns no device memory. It is immutable, and any
// number of goroutines may use it at once.
//
// Its decodes only launch work: they do not allocate or wait, and may be captured in a graph. Keep the image, the
// destination and the status word until the stream has executed the work.
type Resident struct {
	handle
	c       *residentHandle
	cleanup runtime.Cleanup
}

// ResidentInfo describes a resident.
type ResidentInfo struct {
	// Image is the address of the image, ImageBytes its size.
	Image      uintptr
	ImageBytes uint64
	// Elements is the number of weights that it holds.
	Elements uint64
	// TensorEnds holds, for each tensor (or slice) of which it holds weights, the number of the weight after the last
	// one, counted as FirstElement is.
	TensorEnds []uint64
	// FirstElement is the number of its first weight, as [Resident.DecompressRange] counts them: among those of the
	// group, so 0 for a whole group. If it holds slices it is 0: their weights are numbered from 0.
	FirstElement uint64
	// FirstTensor is the number of its first tensor among those of the group; 0 if it holds slices.
	FirstTensor uint64
	// GroupElements and GroupTensors are the weights and the tensors of the whole group.
	GroupElements, GroupTensors uint64
	// Slices are those that it holds, if it holds slices.
	Slices []Slice
}

// Close frees the resident. If it was uploaded, close it only after the stream has executed the upload. Close waits for
// running calls; later ones fail with [io/fs.ErrClosed]. Closing again does nothing, and Close never fails. No device
// memory is touched, and decodes that are in streams or graphs continue.
//
// The garbage collector closes a resident that becomes unreachable. If the resident was uploaded and
// [Resident.Uploaded] was not called, it is freed when its device is closed.
func (r *Resident) Close() error {
	r.close(func() {
		r.cleanup.Stop()
		r.c.release()
	})
	runtime.KeepAlive(r)
	return nil
}

// Uploaded tells the resident that the stream has executed the upload. The resident then releases the model's files and
// the memory that the upload read. It has no effect on a resident that was bound.
func (r *Resident) Uploaded() error {
	const op = "uploaded"
	if !r.enter() {
		return errClosed(op, "resident")
	}
	defer r.leave()
	r.c.settle()
	return nil
}

// Info describes the resident.
func (r *Resident) Info() (ResidentInfo, error) {
	const op = "resident info"
	if !r.enter() {
		return ResidentInfo{}, errClosed(op, "resident")
	}
	defer r.leave()
	i, e := r.c.Info()
	info := ResidentInfo{
		Image:         i.Image,
		ImageBytes:    i.ImageBytes,
		Elements:      i.Elements,
		TensorEnds:    i.TensorEnds,
		FirstElement:  i.FirstElement,
		FirstTensor:   i.FirstTensor,
		GroupElements: i.GroupElements,
		GroupTensors:  i.GroupTensors,
	}
	for _, s := range i.Slices {
		info.Slices = append(info.Slices, Slice(s))
	}
	return info, result(op, e)
}

// Decompress launches the decoding of the whole group on stream. dst is an address in device memory, a multiple of 2
// (16 is fastest), with dstBytes bytes, at least 2 for each weight.
//
// status is 0, or the address of a uint32 in device memory that you have set to 0. A decode sets it to [ErrCorrupt] if
// the image is inconsistent, and otherwise leaves it as it is. The contents of the destination are then undefined, but
// nothing outside it is ever written.
func (r *Resident) Decompress(dst uintptr, dstBytes uint64, status, stream uintptr) error {
	const op = "decompress"
	if !r.enter() {
		return errClosed(op, "resident")
	}
	defer r.leave()
	return r.launched(1, r.c.info.Elements, result(op, r.c.Decompress(dst, dstBytes, status, stream)))
}

// DecompressRange decodes count weights of the group, from its weight first on. Exactly 2 * count bytes are written. The
// numbers are the same if the resident holds a range of the group only; weights of slices are numbered from 0. Everything
// else is as for [Resident.Decompress].
func (r *Resident) DecompressRange(first, count uint64, dst uintptr, dstBytes uint64, status, stream uintptr) error {
	const op = "decompress range"
	if !r.enter() {
		return errClosed(op, "resident")
	}
	defer r.leave()
	return r.launched(min(1, count), count, result(op, r.c.DecompressRange(first, count, dst, dstBytes, status, stream)))
}

// DecompressTensors decodes each tensor of the group to its own destination: tensor i, in the order of their weights
// (of a range, what it holds of tensor FirstTensor + i; of slices, slice i), to dsts[i], which holds dstBytes[i] bytes. A destination of 0 skips its tensor. Everything else is as for
// [Resident.Decompress].
func (r *Resident) DecompressTensors(dsts []uintptr, dstBytes []uint64, status, stream uintptr) error {
	const op = "decompress tensors"
	if len(dsts) != len(dstBytes) {
		return invalid(op, "%d destinations and %d sizes", len(dsts), len(dstBytes))
	}
	if !r.enter() {
		return errClosed(op, "resident")
	}
	defer r.leave()
	err := result(op, r.c.DecompressTensors(dsts, dstBytes, status, stream))
	var tensors, weights, start uint64
	for i, end := range r.c.info.TensorEnds {
		if i < len(dsts) && dsts[i] != 0 && end > start {
			tensors, weights = tensors+1, weights+end-start
		}
		start = end
	}
	return r.launched(tensors, weights, err)
}

// launched counts decodes that were put into a stream, if the call succeeded, and returns its error.
func (r *Resident) launched(decodes, weights uint64, err error) error {
	if err == nil {
		count.deviceDecodes.Add(decodes)
		count.deviceBytes.Add(2 * weights)
	}
	return err
}

// DecompressBatch decodes many whole groups with few launches: residents[i] to dsts[i], which holds dstBytes[i] bytes.
// They may come from several devices of one context. statuses is 0, or the address of an array in device memory with
// one uint32 for each group. Everything else is as for [Resident.Decompress].
func DecompressBatch(residents []*Resident, dsts []uintptr, dstBytes []uint64, statuses, stream uintptr) error {
	const op = "decompress batch"
	if len(dsts) != len(residents) || len(dstBytes) != len(residents) {
		return invalid(op, "%d residents, %d destinations and %d sizes", len(residents), len(dsts), len(dstBytes))
	}
	var few [64]cdf11.Resident // on the stack: most batches allocate nothing
	list := few[:0]
	if len(residents) > len(few) {
		list = make([]cdf11.Resident, 0, len(residents))
	}
	defer func() {
		for _, r := range residents[:len(list)] {
			r.leave()
		}
	}()
	for i, r := range residents {
		if r == nil {
			return invalid(op, "resident %d is nil", i)
		}
		if !r.enter() {
			return errClosed(op, "resident")
		}
		list = append(list, r.c.Resident)
	}
	err := result(op, cdf11.DecompressBatch(list, dsts, dstBytes, statuses, stream))
	for _, r := range residents {
		r.launched(1, r.c.info.Elements, err)
	}
	return err
}

// ImageInfo describes an image.
type ImageInfo struct {
	// ImageBytes is the size of the image, and HeadBytes the size of its head, the first bytes that [Device.BindImage]
	// needs.
	ImageBytes, HeadBytes uint64
	// Elements is the number of weights that it holds, Tensors the number of tensors (or slices) of which it does.
	Elements, Tensors uint64
	// FirstElement and FirstTensor are the numbers of its first weight and its first tensor among those of the group; 0
	// if it holds slices.
	FirstElement, FirstTensor uint64
	// GroupElements and GroupTensors are the weights and the tensors of the whole group.
	GroupElements, GroupTensors uint64
	// Slices is the number of slices that it holds; 0 for a range and for a whole group.
	Slices uint64
}

// ImageHeadBytesMax is the upper limit of the size of an image's head.
const ImageHeadBytesMax = cdf11.ImageHeadBytesMax

// GetImageInfo describes an image by its first bytes in host memory. [ImageHeadBytesMax] bytes are enough for any
// image.
func GetImageInfo(head []byte) (ImageInfo, error) {
	i, e := cdf11.GetImageInfo(head)
	return ImageInfo(i), result("image info", e)
}
