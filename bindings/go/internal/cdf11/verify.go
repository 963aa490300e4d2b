package cdf11

// #include <stdlib.h>
// #include "shim.h"
//
// #cgo nocallback df11go_verify
import "C"

import "unsafe"

// Kinds of findings.
const (
	FindingGood    = C.DF11_FINDING_GOOD
	FindingBad     = C.DF11_FINDING_BAD
	FindingHash    = C.DF11_FINDING_HASH
	FindingDiffers = C.DF11_FINDING_DIFFERS
	FindingNote    = C.DF11_FINDING_NOTE
)

// Finding is what a df11_finding_fn is told.
type Finding struct {
	Kind       uint32
	Name, Text string
}

// Report is a df11_verify_report.
type Report struct {
	GroupsGood, GroupsBad, Codes, HashesRight, HashesWrong, TensorsEqual, TensorsDifferent uint64
	Findings                                                                               []Finding
	FindingsLost                                                                           uint64
}

// Verify is df11_verify_model. No text has a zero byte; an empty original is none.
func Verify(model, original string, threads, flags uint32, config []byte, progress Progress) (Report, *Error) {
	cmodel, cconfig := C.CString(model), text(config)
	defer free(cmodel)
	defer free(cconfig)
	var coriginal *C.char
	if original != "" {
		coriginal = C.CString(original)
		defer free(coriginal)
	}
	var e C.df11_error
	var r C.df11_verify_report
	var f C.df11go_findings
	s := C.df11go_verify(cmodel, coriginal, C.uint32_t(threads), C.uint32_t(flags), cconfig, progress.p, &r, &f, &e)
	defer free(f.bytes)
	out := Report{
		GroupsGood:       uint64(r.groups_good),
		GroupsBad:        uint64(r.groups_bad),
		Codes:            uint64(r.code_count),
		HashesRight:      uint64(r.hashes_right),
		HashesWrong:      uint64(r.hashes_wrong),
		TensorsEqual:     uint64(r.tensors_equal),
		TensorsDifferent: uint64(r.tensors_different),
		FindingsLost:     uint64(f.lost),
	}
	const size = C.sizeof_df11go_finding
	for rest := unsafe.Slice((*byte)(unsafe.Pointer(f.bytes)), f.used); len(rest) >= size; {
		var head C.df11go_finding // texts have any length, so heads any alignment
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&head)), size), rest)
		rest = rest[size:]
		out.Findings = append(out.Findings, Finding{uint32(head.kind), string(rest[:head.name_bytes]),
			string(rest[head.name_bytes:][:head.text_bytes])})
		rest = rest[head.name_bytes+head.text_bytes:]
	}
	return out, failed(s, &e)
}
