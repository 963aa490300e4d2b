package df11

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// The handles in this file hold the C objects of Model, Device and Resident. They are freed by Close or, if nobody
// calls it, by the cleanup that the garbage collector runs when the Go object is unreachable. They never point back to
// the Go object.

// modelHandle counts the users of a C model: the Model itself, and each resident whose upload may still read its files.
// The last user frees it.
type modelHandle struct {
	cdf11.Model
	users  atomic.Int64
	pinned runtime.Pinner // the memory of OpenMemory

	counted     bool   // in ModelsOpen
	storedBytes uint64 // counted in ModelBytesOpen
}

// newModelHandle returns a handle that has no model yet.
func newModelHandle() *modelHandle {
	h := &modelHandle{}
	h.users.Store(1)
	return h
}

// opened counts the model as open.
func (h *modelHandle) opened(storedBytes uint64) {
	h.counted, h.storedBytes = true, storedBytes
	count.modelsOpened.Add(1)
	count.modelsOpen.Add(1)
	count.modelBytesOpen.Add(storedBytes)
}

// retain adds a user. The caller knows of another user that does not release the handle meanwhile.
func (h *modelHandle) retain() { h.users.Add(1) }

func (h *modelHandle) release() {
	if h.users.Add(-1) == 0 {
		h.Free()
		h.pinned.Unpin()
		if h.counted {
			subtract(&count.modelsOpen, 1)
			subtract(&count.modelBytesOpen, h.storedBytes)
		}
	}
}

// residentHandle is a C resident, and the model that its upload may still read. Both may be missing.
type residentHandle struct {
	cdf11.Resident
	info   cdf11.ResidentInfo // zero without a resident
	device *deviceHandle
	model  *modelHandle
	// pending says that an upload was put into a stream, and that nobody has said yet that the stream has executed it.
	pending atomic.Bool
}

// settle notes that the stream has executed the upload.
func (h *residentHandle) settle() {
	if h.pending.CompareAndSwap(true, false) && h.model != nil {
		h.model.release()
	}
}

func (h *residentHandle) release() {
	h.settle()
	h.Free()
	if h.info.ImageBytes > 0 {
		subtract(&count.residents, 1)
		subtract(&count.residentBytes, h.info.ImageBytes)
	}
}

// abandon releases a resident that became unreachable. It must not be freed while its upload may read host memory, and
// nothing here can ask the stream: such a resident waits until its device is closed.
func (h *residentHandle) abandon() {
	if !h.pending.Load() || !h.device.keep(h) {
		h.release()
	}
}

// deviceHandle is a C device, and the residents that wait for its end.
type deviceHandle struct {
	cdf11.Device
	lock    sync.Mutex
	waiting []*residentHandle
	closed  bool
}

// keeping holds the devices for whose end a resident waits. A device that nobody closes has no end. Without this map
// its residents would become unreachable, and with them the memory of OpenMemory, which a stream may still read; the Go
// runtime ends a process in which pinned memory is collected.
var keeping sync.Map // *deviceHandle: nothing

// keep keeps a resident until the device is closed. It returns false if the device is closed already.
func (d *deviceHandle) keep(h *residentHandle) bool {
	d.lock.Lock()
	defer d.lock.Unlock()
	if !d.closed {
		d.waiting = append(d.waiting, h)
		keeping.Store(d, nil)
	}
	return !d.closed
}

// release closes the device. The caller promises that no upload is in any stream any more.
func (d *deviceHandle) release() {
	d.lock.Lock()
	waiting := d.waiting
	d.waiting, d.closed = nil, true
	keeping.Delete(d)
	d.lock.Unlock()
	for _, h := range waiting {
		h.release()
	}
	d.Free()
}

// abandon frees a device that became unreachable. Nobody has said anything about its streams, so the residents that
// wait for its end, now or later, are kept forever.
func (d *deviceHandle) abandon() { d.Free() }
