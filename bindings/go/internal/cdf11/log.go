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

// LogSet has lines up to that level kept from now on.
func LogSet(level int32) { C.df11go_log_set(C.int32_t(level)) }

// LogWaiting says whether there are lines. It costs next to nothing: no call of C's.
func LogWaiting() bool {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&C.df11go_log_waiting))) != 0
}

// LogTake gives each line that is kept to emit, and returns how many were lost for lack of room.
func LogTake(emit func(level int32, text string)) (lost uint64) {
	buffer := make([]byte, C.DF11GO_LOG_BYTES)
	var without C.uint64_t
	n := C.df11go_log_take((*C.char)(unsafe.Pointer(&buffer[0])), &without)
	const head = C.sizeof_df11go_line
	for rest := buffer[:n]; len(rest) >= head; {
		var line C.df11go_line // lines have any length, so heads any alignment
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&line)), head), rest)
		emit(int32(line.level), string(rest[head:head+line.bytes]))
		rest = rest[head+line.bytes:]
	}
	return uint64(without)
}
