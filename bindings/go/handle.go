package df11

import (
	"io/fs"
	"sync/atomic"
)

// handle lets calls use a C object until it is closed: Close waits for running calls, and later calls fail. No lock is
// held while a call runs, so calls do not wait for one another.
type handle struct {
	// state is the number of calls in progress, with the bit closing set once Close was called. After that, no call is
	// let in.
	state  atomic.Uint64
	idle   chan struct{} // closed by the call that leaves last, or by Close
	closed chan struct{} // closed when everything is freed
}

const closing = 1 << 63

func (h *handle) init() {
	h.idle, h.closed = make(chan struct{}), make(chan struct{})
}

// enter begins a call, which leave ends. It returns false once Close was called.
func (h *handle) enter() bool {
	for {
		state := h.state.Load()
		if state&closing != 0 {
			return false
		}
		if h.state.CompareAndSwap(state, state+1) {
			return true
		}
	}
}

func (h *handle) leave() {
	if h.state.Add(^uint64(0)) == closing {
		close(h.idle)
	}
}

// close lets no more calls in, waits for running ones, and then calls free. However often and from wherever it is
// called, free is called once, and every call of close returns after free has.
func (h *handle) close(free func()) {
	before := h.state.Or(closing)
	if before&closing != 0 {
		<-h.closed
		return
	}
	if before == 0 {
		close(h.idle)
	}
	<-h.idle
	free()
	close(h.closed)
}

func errClosed(op, what string) error {
	return failed(&Error{Status: ErrInvalidArgument, Message: "the " + what + " is closed", Op: op, cause: fs.ErrClosed})
}
