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
	FindingMissing = C.DF11_FINDING_MISSING
)

// Flags of a verification.
const (
	VerifyIncomplete = C.DF11_VERIFY_INCOMPLETE
	VerifyAllowPlain = C.DF11_VERIFY_ALLOW_PLAIN
)

// Reading has the fields of a df11_verify_options or a df11_repack_options that say how a model is read. No text may contain a
// zero byte. A nil text means none.
type Reading struct {
	Threads, Flags             uint32
	Config, ShapesFrom, Shapes []byte
}

// c copies it to C memory, because Go memory must not hold pointers for C. The caller frees it by freeReading.
func (r *Reading) c() *C.df11go_reading {
	how := (*C.df11go_reading)(C.calloc(1, C.sizeof_df11go_reading))
	how.threads, how.flags = C.uint32_t(r.Threads), C.uint32_t(r.Flags)
	how.config_json, how.shapes_from, how.shapes_json = text(r.Config), text(r.ShapesFrom), text(r.Shapes)
	return how
}

func freeReading(how *C.df11go_reading) {
	free(how.config_json)
	free(how.shapes_from)
	free(how.shapes_json)
	C.free(unsafe.Pointer(how))
}

// Finding holds the arguments of a df11_finding_fn.
type Finding struct {
	Kind       uint32
	Name, Text string
}

// Report is a df11_verify_report.
type Report struct {
	GroupsGood, GroupsBad, Codes, HashesRight, HashesWrong, TensorsEqual, TensorsDifferent, Missing uint64
	Findings                                                                                        []Finding
	FindingsLost                                                                                    uint64
}

// Verify is df11_verify_model. No string may contain a zero byte. An empty original means none.
func Verify(model, original string, o *Reading, progress Progress) (Report, *Error) {
	cmodel, how := C.CString(model), o.c()
	defer free(cmodel)
	defer freeReading(how)
	var coriginal *C.char
	if original != "" {
		coriginal = C.CString(original)
		defer free(coriginal)
	}
	var e C.df11_error
	var r C.df11_verify_report
	var f C.df11go_notes
	s := C.df11go_verify(cmodel, coriginal, how, progress.p, &r, &f, &e)
	out := Report{
		GroupsGood:       uint64(r.groups_good),
		GroupsBad:        uint64(r.groups_bad),
		Codes:            uint64(r.code_count),
		HashesRight:      uint64(r.hashes_right),
		HashesWrong:      uint64(r.hashes_wrong),
		TensorsEqual:     uint64(r.tensors_equal),
		TensorsDifferent: uint64(r.tensors_different),
		Missing:          uint64(r.missing_count),
		FindingsLost:     uint64(f.lost),
	}
	for _, found := range take(&f) {
		out.Findings = append(out.Findings, Finding{found.kind, found.texts[0], found.texts[1]})
	}
	return out, failed(s, &e)
}
