package df11

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// The handles here are what lies behind Model, Device and Resident: what is freed by their Close, or, if nobody calls
// that, by the cleanup that the garbage collector runs when they are unreachable. They never point back to those.

// modelHandle counts who needs a model of C's: the Model itself, and each resident whose upload may still read its
// files. The last one to let go frees it.
type modelHandle struct {
	cdf11.Model
	users  atomic.Int64
	pinned runtime.Pinner // the memory of OpenMemory
}

// newModelHandle has no model yet.
func newModelHandle() *modelHandle {
	h := &modelHandle{}
	h.users.Store(1)
	return h
}

// retain is for those who know of another user that will not let go meanwhile.
func (h *modelHandle) retain() { h.users.Add(1) }

func (h *modelHandle) release() {
	if h.users.Add(-1) == 0 {
		h.Free()
		h.pinned.Unpin()
	}
}

// residentHandle is a resident, and the model that its upload may still read; both may be missing.
type residentHandle struct {
	cdf11.Resident
	device *deviceHandle
	model  *modelHandle
	// pending: an upload was put into a stream, and nobody has said yet that the stream has passed it.
	pending atomic.Bool
}

// settle is told that the stream has passed the upload.
func (h *residentHandle) settle() {
	if h.pending.CompareAndSwap(true, false) && h.model != nil {
		h.model.release()
	}
}

func (h *residentHandle) release() {
	h.settle()
	h.Free()
}

// abandon is release for a resident that became unreachable. While its upload may read host memory it must not go, and
// nobody here can ask a stream whether it does: such a one waits until its device is closed.
func (h *residentHandle) abandon() {
	if !h.pending.Load() || !h.device.keep(h) {
		h.release()
	}
}

// deviceHandle is a device, and what waits for its end.
type deviceHandle struct {
	cdf11.Device
	lock    sync.Mutex
	waiting []*residentHandle
	closed  bool
}

// keeping are the devices for whose end something waits. A device that nobody closes has no end: what waits for it stays
// reachable by this, or else memory of OpenMemory would be collected that a stream may still read, and the runtime ends a
// process in which pinned memory is.
var keeping sync.Map // *deviceHandle: nothing

// keep takes care of a resident until the device is closed; false if it is already.
func (d *deviceHandle) keep(h *residentHandle) bool {
	d.lock.Lock()
	defer d.lock.Unlock()
	if !d.closed {
		d.waiting = append(d.waiting, h)
		keeping.Store(d, nil)
	}
	return !d.closed
}

// release is Close: the caller says that no upload is in any stream any more.
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

// abandon is release for a device that became unreachable: nobody has said anything of its streams, so what waits, now
// or later, stays for ever.
func (d *deviceHandle) abandon() { d.Free() }
