package df11

import (
	"io/fs"
	"sync/atomic"
)

// handle lets calls use something of C's until it is closed: Close waits for those that run, and those that come later
// fail. It holds no lock while a call runs, so that calls do not wait for one another.
type handle struct {
	// Calls in progress, and closing once Close was called. Nothing is counted any more after that.
	state  atomic.Uint64
	idle   chan struct{} // closed by whoever leaves last, or by Close
	closed chan struct{} // closed when all is freed
}

const closing = 1 << 63

func (h *handle) init() {
	h.idle, h.closed = make(chan struct{}), make(chan struct{})
}

// enter begins a call, which leave ends. It is false once Close was called.
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

// close lets no more calls in, waits for those that run, and then calls free: once, whoever closes and how often. All who
// close return when free has.
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
	return &Error{Status: InvalidArgument, Message: "the " + what + " is closed", Op: op, cause: fs.ErrClosed}
}
