package df11

import (
	"sync/atomic"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// modelHandle counts who needs a model of C's: the Model itself, and each resident whose upload may still read its files.
// The last one to let go frees it.
type modelHandle struct {
	cdf11.Model
	users atomic.Int64
}

func newModelHandle(c cdf11.Model) *modelHandle {
	h := &modelHandle{Model: c}
	h.users.Store(1)
	return h
}

// retain is for those who know of another user that will not let go meanwhile.
func (h *modelHandle) retain() { h.users.Add(1) }

func (h *modelHandle) release() {
	if h.users.Add(-1) == 0 {
		h.Free()
	}
}
