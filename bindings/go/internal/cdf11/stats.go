package cdf11

// #include "shim.h"
//
// #cgo noescape df11_stats_get
// #cgo nocallback df11_stats_get
import "C"

// Stats is a df11_stats.
type Stats struct {
	ModelsOpened, ModelsOpen, ModelBytesOpen              uint64
	HostDecodes, HostBytes                                uint64
	ImagesWritten, ImageBytesWritten                      uint64
	Uploads, UploadBytes                                  uint64
	Residents, ResidentBytes                              uint64
	DeviceDecodes, DeviceBytes                            uint64
	ErrorsCaller, ErrorsFile, ErrorsDevice, ErrorsLibrary uint64
}

// GetStats is df11_stats_get.
func GetStats() (Stats, *Error) {
	var e C.df11_error
	s := C.df11_stats{struct_size: C.sizeof_df11_stats}
	status := C.df11_stats_get(&s, &e)
	return Stats{
		ModelsOpened:      uint64(s.models_opened),
		ModelsOpen:        uint64(s.models_open),
		ModelBytesOpen:    uint64(s.model_bytes_open),
		HostDecodes:       uint64(s.host_decodes),
		HostBytes:         uint64(s.host_bytes),
		ImagesWritten:     uint64(s.images_written),
		ImageBytesWritten: uint64(s.image_bytes_written),
		Uploads:           uint64(s.uploads),
		UploadBytes:       uint64(s.upload_bytes),
		Residents:         uint64(s.residents),
		ResidentBytes:     uint64(s.resident_bytes),
		DeviceDecodes:     uint64(s.device_decodes),
		DeviceBytes:       uint64(s.device_bytes),
		ErrorsCaller:      uint64(s.errors_caller),
		ErrorsFile:        uint64(s.errors_file),
		ErrorsDevice:      uint64(s.errors_device),
		ErrorsLibrary:     uint64(s.errors_library),
	}, failed(status, &e)
}
