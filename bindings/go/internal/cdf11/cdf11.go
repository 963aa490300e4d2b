// Package cdf11 holds every cgo call of the binding. It adds no safety: who frees what, and when, is the business of
// the package above, as is everything that a person reads.
//
// No function of C's calls back into Go, and none keeps a Go pointer, but for [OpenMemory]; the noescape and nocallback
// lines say so to the compiler, which then leaves errors and lists on the goroutine's stack.
package cdf11

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"bytes"
	"unsafe"
)

// Handles, sizes and device addresses are passed as they are: C's size_t, df11_devptr and Go's uintptr must be the
// same.
var _ [0]struct{} = [unsafe.Sizeof(uintptr(0)) - 8]struct{}{}
var _ [0]struct{} = [unsafe.Sizeof(C.size_t(0)) - 8]struct{}{}

// Error is a df11_error: nil stands for success.
type Error struct {
	Status, Native int32
	Message        string
}

// failed is the error of a call, or nil.
func failed(status C.df11_status, e *C.df11_error) *Error {
	if status == C.DF11_OK {
		return nil
	}
	// Not by C.GoString, for which every call's e would have to be on the heap.
	message := unsafe.Slice((*byte)(unsafe.Pointer(&e.message)), len(e.message))
	if end := bytes.IndexByte(message, 0); end >= 0 {
		message = message[:end]
	}
	return &Error{int32(status), int32(e.native_code), string(message)}
}

// Version is the library's.
func Version() string { return C.GoString(C.df11_version_string()) }

// VersionNumber is the library's, and HeaderVersionNumber that of the header this was compiled with.
func VersionNumber() uint32 { return uint32(C.df11_version_number()) }

// HeaderVersionNumber is the version of the header that this was compiled with.
const HeaderVersionNumber = C.DF11_VERSION_NUMBER

// StatusName is the name that the library gives to a status.
func StatusName(status int32) string { return C.GoString(C.df11_status_name(C.df11_status(status))) }

// text is a C text to be freed; NULL for nil. It must have no zero byte.
func text(s []byte) *C.char {
	if s == nil {
		return nil
	}
	p := C.malloc(C.size_t(len(s)) + 1) // cgo's malloc never gives NULL
	to := unsafe.Slice((*byte)(p), len(s)+1)
	copy(to, s)
	to[len(s)] = 0
	return (*C.char)(p)
}

func free(p *C.char) { C.free(unsafe.Pointer(p)) }
