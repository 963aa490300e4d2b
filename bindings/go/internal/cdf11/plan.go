package cdf11

// #include <stdlib.h>
// #include "shim.h"
//
// #cgo nocallback df11go_plan
import "C"

import "unsafe"

// Flags of a plan.
const (
	PlanSample     = C.DF11_PLAN_SAMPLE
	PlanIncomplete = C.DF11_PLAN_INCOMPLETE
	PlanAnyVersion = C.DF11_PLAN_ANY_VERSION
)

// Ways to split a model.
const (
	SplitLayers = C.DF11_SPLIT_LAYERS
	SplitRows   = C.DF11_SPLIT_ROWS
)

// PlanNone is a number that is not known, or tokens next to weights that do not fit.
const PlanNone = C.DF11_PLAN_NONE

// Planning is a df11_plan_options. No string may contain a zero byte. An empty preset means none, and so do nil
// texts.
type Planning struct {
	Flags, Slots                         uint32
	CacheNumberBytes                     uint64
	Preset                               string
	Patterns, Config, ShapesFrom, Shapes []byte
}

// Plan is a df11_plan.
type Plan struct{ p *C.df11_plan }

// NewPlan is df11_plan_model.
func NewPlan(path string, o *Planning, progress Progress) (Plan, *Error) {
	cpath, cpatterns := C.CString(path), text(o.Patterns)
	config, shapesFrom, shapes := text(o.Config), text(o.ShapesFrom), text(o.Shapes)
	defer free(cpath)
	defer free(cpatterns)
	defer free(config)
	defer free(shapesFrom)
	defer free(shapes)
	// In C memory, because Go memory must not hold pointers for C.
	how := (*C.df11go_planning)(C.calloc(1, C.sizeof_df11go_planning))
	defer C.free(unsafe.Pointer(how))
	how.flags, how.slots = C.uint32_t(o.Flags), C.uint32_t(o.Slots)
	how.cache_number_bytes, how.pattern_json = C.uint64_t(o.CacheNumberBytes), cpatterns
	how.config_json, how.shapes_from, how.shapes_json = config, shapesFrom, shapes
	if o.Preset != "" {
		how.preset = C.CString(o.Preset)
		defer free(how.preset)
	}
	var p Plan
	var e C.df11_error
	s := C.df11go_plan(cpath, how, progress.p, &p.p, &e)
	return p, failed(s, &e)
}

// Free is df11_plan_free.
func (p Plan) Free() { C.df11_plan_free(p.p) }

// PlanInfo is a df11_plan_info.
type PlanInfo struct {
	Exact                                                                    bool
	Groups, Elements, PackedBytes, ImageBytes, PlainBytes, OriginalBytes     uint64
	Files, WrittenBytes, LargestGroup, ScratchBytes, CacheBytes, CacheLayers uint64
	Left                                                                     uint64
	Preset, CacheUnknown                                                     string
}

// Info is df11_plan_get_info.
func (p Plan) Info() (PlanInfo, *Error) {
	var e C.df11_error
	i := C.df11_plan_info{struct_size: C.sizeof_df11_plan_info}
	if s := C.df11_plan_get_info(p.p, &i, &e); s != C.DF11_OK {
		return PlanInfo{}, failed(s, &e)
	}
	out := PlanInfo{
		Exact:         i.exact != 0,
		Groups:        uint64(i.group_count),
		Elements:      uint64(i.element_count),
		PackedBytes:   uint64(i.packed_bytes),
		ImageBytes:    uint64(i.image_bytes),
		PlainBytes:    uint64(i.plain_bytes),
		OriginalBytes: uint64(i.original_bytes),
		Files:         uint64(i.file_count),
		WrittenBytes:  uint64(i.written_bytes),
		LargestGroup:  uint64(i.largest_group_element_count),
		ScratchBytes:  uint64(i.scratch_bytes),
		CacheBytes:    uint64(i.cache_bytes_per_token),
		CacheLayers:   uint64(i.cached_layer_count),
		Left:          uint64(i.left_count),
	}
	if i.preset != nil {
		out.Preset = C.GoString(i.preset)
	}
	if i.cache_unknown != nil {
		out.CacheUnknown = C.GoString(i.cache_unknown)
	}
	return out, nil
}

// PlanGroup is a df11_plan_group_info.
type PlanGroup struct {
	Name                                       string
	Elements, Tensors, PackedBytes, ImageBytes uint64
	Extended                                   bool
}

// Group is df11_plan_get_group_info.
func (p Plan) Group(number uint64) (PlanGroup, *Error) {
	var e C.df11_error
	i := C.df11_plan_group_info{struct_size: C.sizeof_df11_plan_group_info}
	if s := C.df11_plan_get_group_info(p.p, C.uint64_t(number), &i, &e); s != C.DF11_OK {
		return PlanGroup{}, failed(s, &e)
	}
	return PlanGroup{
		Name:        C.GoString(i.name),
		Elements:    uint64(i.element_count),
		Tensors:     uint64(i.tensor_count),
		PackedBytes: uint64(i.packed_bytes),
		ImageBytes:  uint64(i.image_bytes),
		Extended:    i.extended != 0,
	}, nil
}

// PlanShare is a df11_plan_share_info.
type PlanShare struct {
	ImageBytes, PlainBytes, ScratchBytes, TotalBytes, CacheBytes, BF16Bytes uint64
}

// Share is df11_plan_get_share_info.
func (p Plan) Share(split, devices, device uint32) (PlanShare, *Error) {
	var e C.df11_error
	i := C.df11_plan_share_info{struct_size: C.sizeof_df11_plan_share_info}
	s := C.df11_plan_get_share_info(p.p, C.uint32_t(split), C.uint32_t(devices), C.uint32_t(device), &i, &e)
	return PlanShare{
		ImageBytes:   uint64(i.image_bytes),
		PlainBytes:   uint64(i.plain_bytes),
		ScratchBytes: uint64(i.scratch_bytes),
		TotalBytes:   uint64(i.total_bytes),
		CacheBytes:   uint64(i.cache_bytes_per_token),
		BF16Bytes:    uint64(i.bf16_bytes),
	}, failed(s, &e)
}

// Tokens is df11_plan_count_tokens.
func (p Plan) Tokens(split, devices uint32, memory uint64) (tokens, bf16 uint64, err *Error) {
	var e C.df11_error
	var compressed, plain C.uint64_t
	s := C.df11_plan_count_tokens(p.p, C.uint32_t(split), C.uint32_t(devices), C.uint64_t(memory), &compressed, &plain, &e)
	return uint64(compressed), uint64(plain), failed(s, &e)
}
