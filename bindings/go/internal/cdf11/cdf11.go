// Package cdf11 contains every cgo call of the binding. It adds no safety: package df11 decides what is freed when, and
// writes all texts for people.
//
// No C function calls back into Go, and none keeps a Go pointer, except [OpenMemory]. The noescape and nocallback lines
// tell the compiler so, which then leaves errors and lists on the goroutine's stack.
//
// nocgo.go is the package for builds without cgo. It is generated from these files.
package cdf11

//go:generate go run ../stub

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"bytes"
	"unsafe"
)

// Handles, sizes and device addresses are passed without conversion, so size_t and uintptr must have 64 bits.
var _ [0]struct{} = [unsafe.Sizeof(uintptr(0)) - 8]struct{}{}
var _ [0]struct{} = [unsafe.Sizeof(C.size_t(0)) - 8]struct{}{}

// Built reports whether the package was built with cgo. Without it, every call fails.
const Built = true

// Error is a df11_error. nil means success.
type Error struct {
	Status, Native int32
	Message        string
}

// failed returns the error of a call, or nil.
func failed(status C.df11_status, e *C.df11_error) *Error {
	if status == C.DF11_OK {
		return nil
	}
	// Not C.GoString, which would move the e of every call to the heap.
	message := unsafe.Slice((*byte)(unsafe.Pointer(&e.message)), len(e.message))
	if end := bytes.IndexByte(message, 0); end >= 0 {
		message = message[:end]
	}
	return &Error{int32(status), int32(e.native_code), string(message)}
}

// Version is df11_version_string.
func Version() string { return C.GoString(C.df11_version_string()) }

// VersionNumber is df11_version_number.
func VersionNumber() uint32 { return uint32(C.df11_version_number()) }

// HeaderVersionNumber is the version of the header with which this was compiled.
const HeaderVersionNumber = C.DF11_VERSION_NUMBER

// StatusName is df11_status_name.
func StatusName(status int32) string { return C.GoString(C.df11_status_name(C.df11_status(status))) }

// text copies s to a C string that the caller frees; NULL for nil. s must not contain a zero byte.
func text(s []byte) *C.char {
	if s == nil {
		return nil
	}
	p := C.malloc(C.size_t(len(s)) + 1) // cgo's malloc never returns NULL
	to := unsafe.Slice((*byte)(p), len(s)+1)
	copy(to, s)
	to[len(s)] = 0
	return (*C.char)(p)
}

func free(p *C.char) { C.free(unsafe.Pointer(p)) }
