package cdf11

// #include <stdlib.h>
// #include "shim.h"
//
// #cgo noescape df11go_device_open
// #cgo nocallback df11go_device_open
// #cgo noescape df11go_decompress
// #cgo nocallback df11go_decompress
// #cgo noescape df11go_decompress_range
// #cgo nocallback df11go_decompress_range
// #cgo noescape df11go_decompress_tensors
// #cgo nocallback df11go_decompress_tensors
// #cgo noescape df11go_decompress_batch
// #cgo nocallback df11go_decompress_batch
import "C"

import "unsafe"

// Flags of OpenDevice.
const (
	AllowDefaultStream = C.DF11_DEVICE_ALLOW_DEFAULT_STREAM
	DevicePTX          = C.DF11_DEVICE_FORCE_PTX
	DeviceEarlyStart   = C.DF11_DEVICE_EARLY_START
)

// Device is a df11_device.
type Device struct{ p *C.df11_device }

// OpenDevice is df11_device_open, or df11_device_open_current. libcuda must not contain a zero byte; nil means the
// default.
func OpenDevice(ordinal int32, current bool, flags, multiprocessors uint32, libcuda []byte) (Device, *Error) {
	clib := text(libcuda)
	defer free(clib)
	var d Device
	var e C.df11_error
	var cur C.int
	if current {
		cur = 1
	}
	s := C.df11go_device_open(C.int32_t(ordinal), cur, C.uint32_t(flags), C.uint32_t(multiprocessors), clib, &d.p, &e)
	return d, failed(s, &e)
}

// Free is df11_device_free.
func (d Device) Free() { C.df11_device_free(d.p) }

// DeviceInfo is a df11_device_info.
type DeviceInfo struct {
	Name, Kernels, LibCUDA                            string
	Ordinal, DriverVersion                            int32
	CapabilityMajor, CapabilityMinor, Multiprocessors uint32
}

// Info is df11_device_get_info.
func (d Device) Info() (DeviceInfo, *Error) {
	var e C.df11_error
	info := C.df11_device_info{struct_size: C.sizeof_df11_device_info}
	if s := C.df11_device_get_info(d.p, &info, &e); s != C.DF11_OK {
		return DeviceInfo{}, failed(s, &e)
	}
	return DeviceInfo{
		Name:            C.GoString(info.name),
		Kernels:         C.GoString(info.kernels),
		LibCUDA:         C.GoString(info.libcuda),
		Ordinal:         int32(info.ordinal),
		DriverVersion:   int32(info.driver_version),
		CapabilityMajor: uint32(info.capability_major),
		CapabilityMinor: uint32(info.capability_minor),
		Multiprocessors: uint32(info.multiprocessor_count),
	}, nil
}

// Resident is a df11_resident.
type Resident struct{ p *C.df11_resident }

// Upload is df11_device_upload.
func (d Device) Upload(m Model, group uint64, image uintptr, imageBytes uint64, stream uintptr) (Resident, *Error) {
	var r Resident
	var e C.df11_error
	s := C.df11go_upload(d.p, m.p, C.uint64_t(group), C.uint64_t(image), C.size_t(imageBytes), C.uintptr_t(stream), &r.p, &e)
	return r, failed(s, &e)
}

// UploadStaged is df11_device_upload_staged. staging must not be Go memory.
func (d Device) UploadStaged(m Model, group uint64, image uintptr, imageBytes uint64, stream, staging uintptr,
	stagingBytes uint64) (Resident, *Error) {
	var r Resident
	var e C.df11_error
	s := C.df11go_upload_staged(d.p, m.p, C.uint64_t(group), C.uint64_t(image), C.size_t(imageBytes), C.uintptr_t(stream),
		C.uintptr_t(staging), C.size_t(stagingBytes), &r.p, &e)
	return r, failed(s, &e)
}

// UploadRange is df11_device_upload_range. staging must not be Go memory; 0 means none.
func (d Device) UploadRange(m Model, group, first, n uint64, image uintptr, imageBytes uint64, stream, staging uintptr,
	stagingBytes uint64) (Resident, *Error) {
	var r Resident
	var e C.df11_error
	s := C.df11go_upload_range(d.p, m.p, C.uint64_t(group), C.uint64_t(first), C.uint64_t(n), C.uint64_t(image),
		C.size_t(imageBytes), C.uintptr_t(stream), C.uintptr_t(staging), C.size_t(stagingBytes), &r.p, &e)
	return r, failed(s, &e)
}

// Bind is df11_device_bind.
func (d Device) Bind(m Model, group uint64, image uintptr, imageBytes uint64) (Resident, *Error) {
	var r Resident
	var e C.df11_error
	s := C.df11_device_bind(d.p, m.p, C.uint64_t(group), C.df11_devptr(image), C.size_t(imageBytes), &r.p, &e)
	return r, failed(s, &e)
}

// BindImage is df11_device_bind_image.
func (d Device) BindImage(head []byte, image uintptr, imageBytes uint64) (Resident, *Error) {
	var r Resident
	var e C.df11_error
	s := C.df11_device_bind_image(d.p, unsafe.Pointer(unsafe.SliceData(head)), C.size_t(len(head)), C.df11_devptr(image),
		C.size_t(imageBytes), &r.p, &e)
	return r, failed(s, &e)
}

// ImageInfo is a df11_image_info.
type ImageInfo struct {
	ImageBytes, HeadBytes, Elements, Tensors                       uint64
	FirstElement, FirstTensor, GroupElements, GroupTensors, Slices uint64
}

func imageInfo(info *C.df11_image_info) ImageInfo {
	return ImageInfo{
		ImageBytes:    uint64(info.image_bytes),
		HeadBytes:     uint64(info.head_bytes),
		Elements:      uint64(info.element_count),
		Tensors:       uint64(info.tensor_count),
		FirstElement:  uint64(info.first_element),
		FirstTensor:   uint64(info.first_tensor),
		GroupElements: uint64(info.group_element_count),
		GroupTensors:  uint64(info.group_tensor_count),
		Slices:        uint64(info.slice_count),
	}
}

// ImageHeadBytesMax is DF11_IMAGE_HEAD_BYTES_MAX.
const ImageHeadBytesMax = C.DF11_IMAGE_HEAD_BYTES_MAX

// GetImageInfo is df11_image_get_info.
func GetImageInfo(head []byte) (ImageInfo, *Error) {
	var e C.df11_error
	info := C.df11_image_info{struct_size: C.sizeof_df11_image_info}
	s := C.df11_image_get_info(unsafe.Pointer(unsafe.SliceData(head)), C.size_t(len(head)), &info, &e)
	return imageInfo(&info), failed(s, &e)
}

// Free is df11_resident_free.
func (r Resident) Free() { C.df11_resident_free(r.p) }

// ResidentInfo is a df11_resident_info.
type ResidentInfo struct {
	Image                uintptr
	ImageBytes, Elements uint64
	TensorEnds           []uint64

	FirstElement, FirstTensor, GroupElements, GroupTensors uint64

	Slices []Slice
}

// Info is df11_resident_get_info.
func (r Resident) Info() (ResidentInfo, *Error) {
	var e C.df11_error
	info := C.df11_resident_info{struct_size: C.sizeof_df11_resident_info}
	if s := C.df11_resident_get_info(r.p, &info, &e); s != C.DF11_OK {
		return ResidentInfo{}, failed(s, &e)
	}
	out := ResidentInfo{
		Image:      uintptr(info.image),
		ImageBytes: uint64(info.image_bytes),
		Elements:   uint64(info.element_count),

		FirstElement:  uint64(info.first_element),
		FirstTensor:   uint64(info.first_tensor),
		GroupElements: uint64(info.group_element_count),
		GroupTensors:  uint64(info.group_tensor_count),
	}
	out.Slices = append(out.Slices, unsafe.Slice((*Slice)(unsafe.Pointer(info.slices)), info.slice_count)...)
	out.TensorEnds = append(out.TensorEnds, unsafe.Slice((*uint64)(info.tensor_ends), info.tensor_count)...)
	return out, nil
}

// Decompress is df11_resident_decompress.
func (r Resident) Decompress(dst uintptr, dstBytes uint64, status, stream uintptr) *Error {
	var e C.df11_error
	s := C.df11go_decompress(r.p, C.uint64_t(dst), C.size_t(dstBytes), C.uint64_t(status), C.uintptr_t(stream), &e)
	return failed(s, &e)
}

// DecompressRange is df11_resident_decompress_range.
func (r Resident) DecompressRange(first, count uint64, dst uintptr, dstBytes uint64, status, stream uintptr) *Error {
	var e C.df11_error
	s := C.df11go_decompress_range(r.p, C.uint64_t(first), C.uint64_t(count), C.uint64_t(dst), C.size_t(dstBytes),
		C.uint64_t(status), C.uintptr_t(stream), &e)
	return failed(s, &e)
}

// DecompressTensors is df11_resident_decompress_tensors. Both lists must have the same length.
func (r Resident) DecompressTensors(dsts []uintptr, dstBytes []uint64, status, stream uintptr) *Error {
	var e C.df11_error
	s := C.df11go_decompress_tensors(r.p, (*C.df11_devptr)(unsafe.Pointer(unsafe.SliceData(dsts))),
		(*C.size_t)(unsafe.Pointer(unsafe.SliceData(dstBytes))), C.size_t(len(dsts)), C.uint64_t(status),
		C.uintptr_t(stream), &e)
	return failed(s, &e)
}

// DecompressBatch is df11_resident_decompress_batch. All lists must have the same length.
func DecompressBatch(residents []Resident, dsts []uintptr, dstBytes []uint64, statuses, stream uintptr) *Error {
	var e C.df11_error
	// A Resident consists of one C pointer.
	s := C.df11go_decompress_batch((**C.df11_resident)(unsafe.Pointer(unsafe.SliceData(residents))),
		(*C.df11_devptr)(unsafe.Pointer(unsafe.SliceData(dsts))), (*C.size_t)(unsafe.Pointer(unsafe.SliceData(dstBytes))),
		C.size_t(len(dsts)), C.uint64_t(statuses), C.uintptr_t(stream), &e)
	return failed(s, &e)
}
