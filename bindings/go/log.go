package df11

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// LevelTrace is the level of the library's most detailed lines.
const LevelTrace = slog.LevelDebug - 4

var logger struct {
	set    sync.Mutex // held while the logger changes
	now    atomic.Pointer[slog.Logger]
	taking sync.Mutex // held while lines are passed to the logger, so that they stay in order
}

var logLevels = []struct {
	theirs int32
	ours   slog.Level
}{
	{cdf11.LogError, slog.LevelError}, {cdf11.LogWarn, slog.LevelWarn}, {cdf11.LogInfo, slog.LevelInfo},
	{cdf11.LogDebug, slog.LevelDebug}, {cdf11.LogTrace, LevelTrace},
}

// SetLogger sends the library's own log to a logger, for the whole process. nil ends the log; the library starts
// without one. The levels for which the logger is enabled when it is set decide which lines the library produces.
// Warnings are about successful calls that deserve attention, such as a config.json that was ignored, or threads that
// could not be started. An error that a call returns is a line at debug level.
//
// The library never calls Go. It keeps about 64 KiB of lines, which are passed to the logger at the end of the call of
// this package that caused them, on its goroutine; if calls overlap, at the end of any of them. A handler may use this
// package, but must not close an object that such a call may be using. If other code in the process calls df11_log_set,
// it receives the log instead.
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
	takeLog() // earlier lines belong to the old logger
	logger.now.Store(l)
	if level != cdf11.LogOff {
		cdf11.LogSet(level)
	}
}

// takeLog passes the library's lines to the logger, if there are any. If another goroutine is doing so, that one takes
// them.
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
