package server

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// errBusy reports that all buffers are in use, and that the request cannot wait.
var errBusy = errors.New("too many requests at once")

// pool has a fixed number of buffers of one size. A request needs one to send a body, which bounds memory and work.
// Buffers are allocated when they are first needed, and kept.
type pool struct {
	free    chan []byte // a buffer, or nil for one that is not allocated yet
	size    int
	wait    time.Duration
	most    int64 // the limit of waiting requests
	waiting atomic.Int64
}

func newPool(buffers, size, waiting int, wait time.Duration) *pool {
	p := &pool{free: make(chan []byte, buffers), size: size, wait: wait, most: int64(waiting)}
	for range buffers {
		p.free <- nil
	}
	return p
}

// take waits for a buffer, which give returns. It fails with errBusy, or if ctx ends.
func (p *pool) take(ctx context.Context) ([]byte, error) {
	select {
	case b := <-p.free:
		return p.made(b), nil
	default:
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > p.most || p.wait == 0 {
		return nil, errBusy
	}
	late := time.NewTimer(p.wait)
	defer late.Stop()
	select {
	case b := <-p.free:
		return p.made(b), nil
	case <-late.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pool) made(b []byte) []byte {
	if b == nil {
		b = make([]byte, p.size)
	}
	return b
}

func (p *pool) give(b []byte) { p.free <- b[:p.size] }

// used returns the number of buffers in use.
func (p *pool) used() int { return cap(p.free) - len(p.free) }
