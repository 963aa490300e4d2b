package df11

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// LevelTrace is the level of what the library says when it says everything.
const LevelTrace = slog.LevelDebug - 4

var logger struct {
	set    sync.Mutex // held while the logger changes
	now    atomic.Pointer[slog.Logger]
	taking sync.Mutex // held while lines are given to the logger, so that they stay in order
}

var logLevels = []struct {
	theirs int32
	ours   slog.Level
}{
	{cdf11.LogError, slog.LevelError}, {cdf11.LogWarn, slog.LevelWarn}, {cdf11.LogInfo, slog.LevelInfo},
	{cdf11.LogDebug, slog.LevelDebug}, {cdf11.LogTrace, LevelTrace},
}

// SetLogger sends the library's own log to a logger, for the whole process; nil ends it, and the library starts silent.
// What the logger is enabled for when it is set decides what the library says: each failed call is an error, what one
// should know although a call succeeded a warning (a config.json that was passed over, threads that could not be
// started), and so on.
//
// Nothing of Go's is called from inside the library. It keeps its lines, some 64 KiB of them, and they are given to the
// logger at the end of the call of this package that caused them, on its goroutine; when calls overlap, at the end of
// any of them. A handler may use this package, but must not close what may be in such a call. If somebody else in the
// process calls df11_log_set, that one gets the log instead.
func SetLogger(l *slog.Logger) {
	logger.set.Lock()
	defer logger.set.Unlock()
	level := int32(cdf11.LogOff)
	if l != nil {
		for _, pair := range logLevels {
			if l.Enabled(context.Background(), pair.ours) {
				level = max(level, pair.theirs)
			}
		}
	}
	if level == cdf11.LogOff {
		cdf11.LogSet(level)
	}
	takeLog() // what was said before is the old one's
	logger.now.Store(l)
	if level != cdf11.LogOff {
		cdf11.LogSet(level)
	}
}

// takeLog gives the library's lines to the logger, if there are any. If another goroutine is at it, that one does.
func takeLog() {
	for cdf11.LogWaiting() && logger.taking.TryLock() {
		giveLog()
	}
}

func giveLog() {
	defer logger.taking.Unlock() // also if the logger panics
	l, ctx := logger.now.Load(), context.Background()
	lost := cdf11.LogTake(func(level int32, text string) {
		if l != nil {
			l.LogAttrs(ctx, levelOf(level), text, slog.String("library", "libdf11"))
		}
	})
	if l != nil && lost > 0 {
		l.LogAttrs(ctx, slog.LevelWarn, "lines of the log were lost", slog.String("library", "libdf11"), slog.Uint64("lines", lost))
	}
}

func levelOf(theirs int32) slog.Level {
	for _, pair := range logLevels {
		if pair.theirs == theirs {
			return pair.ours
		}
	}
	return LevelTrace
}
