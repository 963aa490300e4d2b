package df11

import (
	"context"
	"sync"
	"time"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// every is the interval at which a long call's progress is read.
const every = 50 * time.Millisecond

// watch makes a long call of the library. The end of ctx cancels it. report, unless it is nil, is called with the
// progress on this goroutine. C never calls Go: cancellation is a flag in C memory, and progress two numbers there.
//
// If report panics, so does watch, after the call has ended and undo was called.
func watch(ctx context.Context, op string, report func(done, total uint64),
	call func(cdf11.Progress) *cdf11.Error, undo func()) error {
	if err := ctx.Err(); err != nil {
		return cancelled(ctx, op)
	}
	if ctx.Done() == nil && report == nil {
		return result(op, call(cdf11.Progress{}))
	}
	progress, e := cdf11.NewProgress()
	if e != nil {
		return result(op, e)
	}
	flag := &flag{progress: progress}
	defer flag.free()
	defer context.AfterFunc(ctx, flag.cancel)()

	if report == nil {
		e = call(progress)
	} else {
		e = poll(progress, report, call, undo)
	}
	if e != nil && Status(e.Status) == ErrCancelled && ctx.Err() != nil {
		takeLog()
		return cancelled(ctx, op)
	}
	return result(op, e)
}

// poll makes the call on another goroutine, and calls report on this one.
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
			undo()
		}
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	report(0, 0)
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

// flag is a progress that may be cancelled at any time, also after it is freed.
type flag struct {
	lock     sync.Mutex
	progress cdf11.Progress // zero when freed
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
	cause := context.Cause(ctx)
	return failed(&Error{Status: ErrCancelled, Message: cause.Error(), Op: op, cause: causes{ctx.Err(), cause}})
}

// causes holds the reasons why a context ended: Canceled or DeadlineExceeded, and its cause.
type causes [2]error

func (c causes) Error() string   { return c[1].Error() }
func (c causes) Unwrap() []error { return c[:] }
