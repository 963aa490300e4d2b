package df11

import (
	"runtime"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// Resident is a group's image on a device, ready to be decoded. It owns no device memory. It never changes: any number
// of goroutines may use it at once.
//
// Its decodes only launch: they allocate nothing, wait for nothing, and may be captured in a graph. What was put into a
// stream uses the image, the destination and the status word when the stream gets there: they are the caller's to keep
// that long.
type Resident struct {
	handle
	c       *residentHandle
	cleanup runtime.Cleanup
}

// ResidentInfo is what a resident is.
type ResidentInfo struct {
	// Image is where the image lies, ImageBytes how large it is.
	Image      uintptr
	ImageBytes uint64
	// Elements are the weights of the group.
	Elements uint64
	// TensorEnds are for each tensor the weights of the group up to its end.
	TensorEnds []uint64
}

// Close frees the resident, when the stream has passed its upload, if it was uploaded. Calls that run are waited for,
// later ones fail with [io/fs.ErrClosed]; closing again does nothing. It never fails. No device memory is touched, and
// decodes that are in streams or graphs go on.
//
// A resident that becomes unreachable is closed by the garbage collector; one that was uploaded, and of which nobody
// has said [Resident.Uploaded], is when its device is closed.
func (r *Resident) Close() error {
	r.close(func() {
		r.cleanup.Stop()
		r.c.release()
	})
	runtime.KeepAlive(r)
	return nil
}

// Uploaded says that the stream has passed the upload: the resident then keeps neither the model's files nor memory for
// it. Of a resident that was bound it says nothing.
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
	return ResidentInfo{i.Image, i.ImageBytes, i.Elements, i.TensorEnds}, result(op, e)
}

// Decompress puts the decoding of the whole group into stream: bytes of device memory at dst, at least 2 for each
// weight, an address that is a multiple of 2 (16 is fastest).
//
// status is 0, or the address of a uint32 in device memory that was set to 0: it is raised to [Corrupt] if the image
// contradicts itself, and otherwise left alone. The destination then holds anything; nothing outside it is ever
// written.
func (r *Resident) Decompress(dst uintptr, bytes uint64, status, stream uintptr) error {
	const op = "decompress"
	if !r.enter() {
		return errClosed(op, "resident")
	}
	defer r.leave()
	return result(op, r.c.Decompress(dst, bytes, status, stream))
}

// DecompressRange decodes count weights of the group, from its weight first on: exactly those 2 * count bytes are
// written. All else is as for [Resident.Decompress].
func (r *Resident) DecompressRange(first, count uint64, dst uintptr, bytes uint64, status, stream uintptr) error {
	const op = "decompress range"
	if !r.enter() {
		return errClosed(op, "resident")
	}
	defer r.leave()
	return result(op, r.c.DecompressRange(first, count, dst, bytes, status, stream))
}

// DecompressTensors decodes each tensor of the group, in the order of their weights, to a destination of its own, which
// holds as many bytes as the second list says. A destination of 0 leaves its tensor out. All else is as for
// [Resident.Decompress].
func (r *Resident) DecompressTensors(dsts []uintptr, bytes []uint64, status, stream uintptr) error {
	const op = "decompress tensors"
	if len(dsts) != len(bytes) {
		return invalid(op, "%d destinations and %d sizes", len(dsts), len(bytes))
	}
	if !r.enter() {
		return errClosed(op, "resident")
	}
	defer r.leave()
	return result(op, r.c.DecompressTensors(dsts, bytes, status, stream))
}

// DecompressBatch decodes many whole groups with few launches: residents[i] to dsts[i], which holds bytes[i] bytes.
// They may come from several devices, but of one context. statuses is 0, or the address of a uint32 for each group, one
// after the other in device memory. All else is as for [Resident.Decompress].
func DecompressBatch(residents []*Resident, dsts []uintptr, bytes []uint64, statuses, stream uintptr) error {
	const op = "decompress batch"
	if len(dsts) != len(residents) || len(bytes) != len(residents) {
		return invalid(op, "%d residents, %d destinations and %d sizes", len(residents), len(dsts), len(bytes))
	}
	var few [64]cdf11.Resident // on the stack
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
	return result(op, cdf11.DecompressBatch(list, dsts, bytes, statuses, stream))
}

// ImageInfo is what an image is.
type ImageInfo struct {
	// ImageBytes is the size of the image, HeadBytes of its head, its first bytes, which [Device.BindImage] needs.
	ImageBytes, HeadBytes uint64
	// Elements are the weights of the group, Tensors its tensors.
	Elements, Tensors uint64
}

// ImageHeadBytesMax are the bytes that the head of no image exceeds.
const ImageHeadBytesMax = cdf11.ImageHeadBytesMax

// DescribeImage describes an image by its first bytes in host memory: [ImageHeadBytesMax] of them are enough for any.
func DescribeImage(head []byte) (ImageInfo, error) {
	i, e := cdf11.GetImageInfo(head)
	return ImageInfo(i), result("describe image", e)
}
