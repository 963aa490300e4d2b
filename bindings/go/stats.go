package df11

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
)

// StatsSnapshot holds the counters of this package: what the process has done through it since it started. What other
// code in the process does through the C library is not counted. Each number is exact; two of them may be a moment
// apart.
type StatsSnapshot struct {
	// ModelsOpened counts models that were opened. ModelsOpen is the number that are open now, and ModelBytesOpen the
	// size of their tensors as they are stored.
	ModelsOpened, ModelsOpen, ModelBytesOpen uint64
	// HostDecodes counts successful calls that decoded or read on the CPU, and HostBytes the bytes that they wrote.
	HostDecodes, HostBytes uint64
	// ImagesWritten counts images that were written to memory, and ImageBytesWritten their bytes. An image that is
	// written in parts counts with its part 0.
	ImagesWritten, ImageBytesWritten uint64
	// Uploads counts uploads that were put into a stream, and UploadBytes the bytes of their images.
	Uploads, UploadBytes uint64
	// Residents is the number of residents that exist now, uploaded or bound, and ResidentBytes the size of their
	// images.
	Residents, ResidentBytes uint64
	// DeviceDecodes counts groups, ranges and tensors whose decoding was put into a stream, and DeviceBytes the bytes
	// that they write. Replays of a captured graph are not counted.
	DeviceDecodes, DeviceBytes uint64
	// ErrorsCaller, ErrorsFile, ErrorsDevice and ErrorsLibrary count failed calls by the range of their [Status].
	// ErrorsCaller includes cancelled calls. Looking up a name that a model does not have is not counted.
	ErrorsCaller, ErrorsFile, ErrorsDevice, ErrorsLibrary uint64
}

// count holds the counters of StatsSnapshot, with the same meaning.
var count struct {
	modelsOpened, modelsOpen, modelBytesOpen              atomic.Uint64
	hostDecodes, hostBytes                                atomic.Uint64
	imagesWritten, imageBytesWritten                      atomic.Uint64
	uploads, uploadBytes                                  atomic.Uint64
	residents, residentBytes                              atomic.Uint64
	deviceDecodes, deviceBytes                            atomic.Uint64
	errorsCaller, errorsFile, errorsDevice, errorsLibrary atomic.Uint64
}

// subtract lowers a gauge.
func subtract(gauge *atomic.Uint64, n uint64) { gauge.Add(-n) }

// Stats returns the counters. It takes no lock, so it may be called as often as you like.
func Stats() StatsSnapshot {
	c := &count
	return StatsSnapshot{
		ModelsOpened:      c.modelsOpened.Load(),
		ModelsOpen:        c.modelsOpen.Load(),
		ModelBytesOpen:    c.modelBytesOpen.Load(),
		HostDecodes:       c.hostDecodes.Load(),
		HostBytes:         c.hostBytes.Load(),
		ImagesWritten:     c.imagesWritten.Load(),
		ImageBytesWritten: c.imageBytesWritten.Load(),
		Uploads:           c.uploads.Load(),
		UploadBytes:       c.uploadBytes.Load(),
		Residents:         c.residents.Load(),
		ResidentBytes:     c.residentBytes.Load(),
		DeviceDecodes:     c.deviceDecodes.Load(),
		DeviceBytes:       c.deviceBytes.Load(),
		ErrorsCaller:      c.errorsCaller.Load(),
		ErrorsFile:        c.errorsFile.Load(),
		ErrorsDevice:      c.errorsDevice.Load(),
		ErrorsLibrary:     c.errorsLibrary.Load(),
	}
}

// metric describes one of the counters for Prometheus.
type metric struct {
	name, kind, help string
	value            func(*StatsSnapshot) uint64
}

var metrics = []metric{
	{"models_opened_total", "counter", "Models that were opened.",
		func(s *StatsSnapshot) uint64 { return s.ModelsOpened }},
	{"models_open", "gauge", "Models that are open.",
		func(s *StatsSnapshot) uint64 { return s.ModelsOpen }},
	{"model_open_bytes", "gauge", "Bytes of the tensors of open models, as they are stored.",
		func(s *StatsSnapshot) uint64 { return s.ModelBytesOpen }},
	{"host_decodes_total", "counter", "Calls that decoded or read on the CPU.",
		func(s *StatsSnapshot) uint64 { return s.HostDecodes }},
	{"host_decoded_bytes_total", "counter", "Bytes that were written by decoding or reading on the CPU.",
		func(s *StatsSnapshot) uint64 { return s.HostBytes }},
	{"images_written_total", "counter", "Device images that were written to host memory.",
		func(s *StatsSnapshot) uint64 { return s.ImagesWritten }},
	{"image_written_bytes_total", "counter", "Bytes of device images that were written to host memory.",
		func(s *StatsSnapshot) uint64 { return s.ImageBytesWritten }},
	{"uploads_total", "counter", "Uploads to a device that were put into a stream.",
		func(s *StatsSnapshot) uint64 { return s.Uploads }},
	{"upload_bytes_total", "counter", "Bytes of the images that were uploaded to a device.",
		func(s *StatsSnapshot) uint64 { return s.UploadBytes }},
	{"residents", "gauge", "Images that are on a device, ready to be decoded.",
		func(s *StatsSnapshot) uint64 { return s.Residents }},
	{"resident_bytes", "gauge", "Bytes of the images that are on a device.",
		func(s *StatsSnapshot) uint64 { return s.ResidentBytes }},
	{"device_decodes_total", "counter", "Groups, ranges and tensors whose decoding was put into a stream.",
		func(s *StatsSnapshot) uint64 { return s.DeviceDecodes }},
	{"device_decoded_bytes_total", "counter", "Bytes that decoding on a device writes.",
		func(s *StatsSnapshot) uint64 { return s.DeviceBytes }},
}

// WriteMetrics writes the counters in the text format of Prometheus (version 0.0.4). All names begin with df11_.
func WriteMetrics(w io.Writer) error {
	s := Stats()
	var b bytes.Buffer
	head := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP df11_%s %s\n# TYPE df11_%s %s\n", name, help, name, kind)
	}
	head("build_info", "gauge", "The version of libdf11 that is running; always 1.")
	fmt.Fprintf(&b, "df11_build_info{version=%q} 1\n", Version())
	for _, m := range metrics {
		head(m.name, m.kind, m.help)
		fmt.Fprintf(&b, "df11_%s %d\n", m.name, m.value(&s))
	}
	head("errors_total", "counter", "Failed calls, by whose fault it was.")
	for _, e := range []struct {
		by    string
		count uint64
	}{{"caller", s.ErrorsCaller}, {"file", s.ErrorsFile}, {"device", s.ErrorsDevice}, {"library", s.ErrorsLibrary}} {
		fmt.Fprintf(&b, "df11_errors_total{by=%q} %d\n", e.by, e.count)
	}
	_, err := w.Write(b.Bytes())
	return err
}
