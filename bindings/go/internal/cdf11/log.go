package cdf11

// #include "shim.h"
//
// #cgo noescape df11go_log_take
// #cgo nocallback df11go_log_take
import "C"

import (
	"sync/atomic"
	"unsafe"
)

// Levels of the log.
const (
	LogOff   = C.DF11_LOG_OFF
	LogError = C.DF11_LOG_ERROR
	LogWarn  = C.DF11_LOG_WARN
	LogInfo  = C.DF11_LOG_INFO
	LogDebug = C.DF11_LOG_DEBUG
	LogTrace = C.DF11_LOG_TRACE
)

// LogSet keeps lines up to that level from now on.
func LogSet(level int32) { C.df11go_log_set(C.int32_t(level)) }

// LogWaiting reports whether there are lines. It is an atomic load and no C call.
func LogWaiting() bool {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&C.df11go_log_waiting))) != 0
}

// LogTake passes each kept line to emit, and returns the number of lines that were lost for lack of space.
func LogTake(emit func(level int32, text string)) (lost uint64) {
	buffer := make([]byte, C.DF11GO_LOG_BYTES)
	var without C.uint64_t
	n := C.df11go_log_take((*C.char)(unsafe.Pointer(&buffer[0])), &without)
	const head = C.sizeof_df11go_line
	for rest := buffer[:n]; len(rest) >= head; {
		var line C.df11go_line // copied, because lines have any length and heads therefore any alignment
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&line)), head), rest)
		emit(int32(line.level), string(rest[head:head+line.bytes]))
		rest = rest[head+line.bytes:]
	}
	return uint64(without)
}
