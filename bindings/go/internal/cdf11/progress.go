package cdf11

// #include "shim.h"
//
// #cgo noescape df11_progress_get
// #cgo nocallback df11_progress_get
import "C"

// Progress is a df11_progress. The zero value is NULL.
type Progress struct{ p *C.df11_progress }

// NewProgress is df11_progress_new.
func NewProgress() (Progress, *Error) {
	var p Progress
	var e C.df11_error
	s := C.df11_progress_new(&p.p, &e)
	return p, failed(s, &e)
}

// Free is df11_progress_free.
func (p Progress) Free() { C.df11_progress_free(p.p) }

// Get is df11_progress_get.
func (p Progress) Get() (done, total uint64) {
	var d, t C.uint64_t
	C.df11_progress_get(p.p, &d, &t)
	return uint64(d), uint64(t)
}

// Cancel is df11_progress_cancel.
func (p Progress) Cancel() { C.df11_progress_cancel(p.p) }
