package df11

import (
	"bytes"
	"fmt"
	"io"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// StatsSnapshot is what the library has done in this process since it was loaded, for whoever called it. Each number is
// exact by itself; two of them may be a moment apart.
type StatsSnapshot struct {
	// ModelsOpened counts calls that gave a model. ModelsOpen are alive now, and ModelBytesOpen is the size of their files.
	ModelsOpened, ModelsOpen, ModelBytesOpen uint64
	// HostDecodes counts calls that decoded or read on the CPU and succeeded, HostBytes what they wrote.
	HostDecodes, HostBytes uint64
	// ImagesWritten counts images that were written to memory, ImageBytesWritten their bytes.
	ImagesWritten, ImageBytesWritten uint64
	// Uploads counts those that were put into a stream, UploadBytes the bytes of their images.
	Uploads, UploadBytes uint64
	// Residents are alive now, uploaded or bound; ResidentBytes is the size of their images.
	Residents, ResidentBytes uint64
	// DeviceDecodes counts groups, ranges and tensors whose decoding was put into a stream, DeviceBytes what they write.
	DeviceDecodes, DeviceBytes uint64
	// Calls that failed: by the caller's mistake (and cancelled ones), the file's, the device's, the library's.
	ErrorsCaller, ErrorsFile, ErrorsDevice, ErrorsLibrary uint64
}

// Stats asks the library what it has done. It takes no lock: ask as often as you like.
func Stats() StatsSnapshot {
	s, e := cdf11.GetStats()
	if e != nil {
		// The struct is ours and of the size that the library was compiled with: there is nothing to fail.
		panic(of("stats", e))
	}
	return StatsSnapshot(s)
}

// metric is one number of the statistics, as Prometheus is told of it.
type metric struct {
	name, kind, help string
	value            func(*StatsSnapshot) uint64
}

var metrics = []metric{
	{"models_opened_total", "counter", "Models that were opened.", func(s *StatsSnapshot) uint64 { return s.ModelsOpened }},
	{"models_open", "gauge", "Models that are open.", func(s *StatsSnapshot) uint64 { return s.ModelsOpen }},
	{"model_open_bytes", "gauge", "Bytes of the files of open models.", func(s *StatsSnapshot) uint64 { return s.ModelBytesOpen }},
	{"host_decodes_total", "counter", "Calls that decoded or read on the CPU.", func(s *StatsSnapshot) uint64 { return s.HostDecodes }},
	{"host_decoded_bytes_total", "counter", "Bytes that were written by decoding or reading on the CPU.", func(s *StatsSnapshot) uint64 { return s.HostBytes }},
	{"images_written_total", "counter", "Device images that were written to host memory.", func(s *StatsSnapshot) uint64 { return s.ImagesWritten }},
	{"image_written_bytes_total", "counter", "Bytes of device images that were written to host memory.", func(s *StatsSnapshot) uint64 { return s.ImageBytesWritten }},
	{"uploads_total", "counter", "Uploads to a device that were put into a stream.", func(s *StatsSnapshot) uint64 { return s.Uploads }},
	{"upload_bytes_total", "counter", "Bytes of the images that were uploaded to a device.", func(s *StatsSnapshot) uint64 { return s.UploadBytes }},
	{"residents", "gauge", "Images that are on a device, ready to be decoded.", func(s *StatsSnapshot) uint64 { return s.Residents }},
	{"resident_bytes", "gauge", "Bytes of the images that are on a device.", func(s *StatsSnapshot) uint64 { return s.ResidentBytes }},
	{"device_decodes_total", "counter", "Groups, ranges and tensors whose decoding was put into a stream.", func(s *StatsSnapshot) uint64 { return s.DeviceDecodes }},
	{"device_decoded_bytes_total", "counter", "Bytes that decoding on a device writes.", func(s *StatsSnapshot) uint64 { return s.DeviceBytes }},
}

// WriteMetrics writes the statistics in the text format of Prometheus (version 0.0.4), with names that begin with df11_.
// They are the library's, of the whole process.
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
	head("errors_total", "counter", "Calls that failed, by whose mistake it was.")
	for _, e := range []struct {
		by    string
		count uint64
	}{{"caller", s.ErrorsCaller}, {"file", s.ErrorsFile}, {"device", s.ErrorsDevice}, {"library", s.ErrorsLibrary}} {
		fmt.Fprintf(&b, "df11_errors_total{by=%q} %d\n", e.by, e.count)
	}
	_, err := w.Write(b.Bytes())
	return err
}
