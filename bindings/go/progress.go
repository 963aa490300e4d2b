package df11

import (
	"context"
	"sync"
	"time"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// every is how often a long call's progress is looked at.
const every = 50 * time.Millisecond

// watch makes a long call of the library's: the end of ctx cancels it, and report, unless it is nil, hears how far it is,
// on this goroutine. C calls nothing of Go's: the one is a flag in C's memory, the other are two numbers there.
//
// If report panics, so does watch, but when the call has ended, and undo was called if it had succeeded.
func watch(ctx context.Context, op string, report func(done, total uint64),
	call func(cdf11.Progress) *cdf11.Error, undo func()) error {
	if err := ctx.Err(); err != nil {
		return cancelled(ctx, op)
	}
	if ctx.Done() == nil && report == nil {
		return of(op, call(cdf11.Progress{}))
	}
	progress, e := cdf11.NewProgress()
	if e != nil {
		return of(op, e)
	}
	flag := &flag{progress: progress}
	defer flag.free()
	defer context.AfterFunc(ctx, flag.cancel)()

	if report == nil {
		e = call(progress)
	} else {
		e = poll(progress, report, call, undo)
	}
	if e != nil && Status(e.Status) == Cancelled && ctx.Err() != nil {
		return cancelled(ctx, op)
	}
	return of(op, e)
}

// poll makes the call on another goroutine, and tells report on this one.
func poll(progress cdf11.Progress, report func(done, total uint64), call func(cdf11.Progress) *cdf11.Error,
	undo func()) (e *cdf11.Error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e = call(progress)
	}()
	reported := false
	defer func() {
		if !reported { // report has panicked
			progress.Cancel()
			<-done
			if e == nil {
				undo()
			}
		}
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-tick.C:
		}
		report(progress.Get())
	}
	reported = true
	return e
}

// flag is a progress that may be cancelled by somebody who does not know whether it is still there.
type flag struct {
	lock     sync.Mutex
	progress cdf11.Progress // none when freed
}

func (f *flag) cancel() {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.progress.Cancel()
}

func (f *flag) free() {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.progress.Free()
	f.progress = cdf11.Progress{}
}

func cancelled(ctx context.Context, op string) error {
	return &Error{Status: Cancelled, Message: context.Cause(ctx).Error(), Op: op, cause: causes{ctx.Err(), context.Cause(ctx)}}
}

// causes is why a context ended: Canceled or DeadlineExceeded, and what the one who ended it says.
type causes [2]error

func (c causes) Error() string   { return c[1].Error() }
func (c causes) Unwrap() []error { return c[:] }
