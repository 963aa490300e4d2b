package df11

import (
	"runtime"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// DeviceOptions control how a device is opened. A nil *DeviceOptions and the zero value mean the defaults.
type DeviceOptions struct {
	// AllowDefaultStream accepts stream 0, the context's legacy stream. Otherwise it is refused, because it is not
	// ordered with the non-blocking streams that engines use.
	AllowDefaultStream bool
	// PTX makes the driver compile the kernels' PTX even if there is a binary for the device. It is for tests.
	PTX bool
	// EarlyStart lets decodes start before the kernel before them in the stream has ended (programmatic dependent
	// launch): they read the image at once, and wait for that kernel before they write anything. It has an effect on
	// devices of compute capability 9.0 and later with a driver of CUDA 12.3 or later. It requires of every decode that
	// the image was complete before the kernel before it began: put something other than a kernel between an upload and
	// the first decode, such as an event that you wait for. Otherwise a decode may give wrong weights.
	EarlyStart bool
	// Multiprocessors is the most multiprocessors whose room the kernels of a call take, so that the kernels of others
	// find room beside them; 0 means all. It limits how many blocks are launched; on which multiprocessors they run is
	// the device's choice.
	Multiprocessors uint32
	// LibCUDA is the path or name of the driver library. If it is empty, the environment variable DF11_LIBCUDA names
	// the library, or else it is the system's. The variable is ignored in programs that have more privileges than their
	// caller.
	LibCUDA string
}

// DeviceInfo describes a device.
type DeviceInfo struct {
	// Name is its name in the driver.
	Name string
	// Kernels names the kernels that run: a binary such as "sm_90", or "PTX" if the driver compiled them.
	Kernels string
	// LibCUDA is the name by which the driver was loaded, and DriverVersion its CUDA version: 12040 is 12.4.
	LibCUDA       string
	DriverVersion int
	// Ordinal is its number in the driver.
	Ordinal int
	// CapabilityMajor and CapabilityMinor are its compute capability.
	CapabilityMajor, CapabilityMinor int
	// Multiprocessors is the number of its multiprocessors, whatever the options say.
	Multiprocessors int
}

// Device is an open CUDA device with all kernels loaded. It is immutable, and any number of goroutines may use it at
// once.
//
// Device addresses and streams are numbers, as other packages provide them: a CUdeviceptr, and a CUstream or
// cudaStream_t. The library passes them on and keeps none of them, except the address of a resident's image.
type Device struct {
	handle
	c       *deviceHandle
	cleanup runtime.Cleanup
	info    DeviceInfo
}

// OpenDevice opens a CUDA device by its number, in its primary context, which is the one that the CUDA runtime uses. It
// loads the driver and all kernels; no later call loads anything. This call and all others except [OpenCurrentDevice]
// may be made from any thread, and leave the thread's current context as it was.
//
// The error is [ErrNoDriver] without a usable driver, [ErrInvalidArgument] for a number that no device has, and
// [ErrNoKernel] for a device that is too old.
func OpenDevice(ordinal int, o *DeviceOptions) (*Device, error) { return openDevice(ordinal, false, o) }

// OpenCurrentDevice opens the device of the context that is current on the calling thread, in that context. The context
// must stay alive until the device and all its residents are closed. Goroutines move between threads: call
// [runtime.LockOSThread] before you make the context current.
func OpenCurrentDevice(o *DeviceOptions) (*Device, error) { return openDevice(0, true, o) }

func openDevice(ordinal int, current bool, o *DeviceOptions) (*Device, error) {
	const op = "open device"
	if o == nil {
		o = &DeviceOptions{}
	}
	if int(int32(ordinal)) != ordinal {
		return nil, invalid(op, "there is no CUDA device %d", ordinal)
	}
	if err := noZero(op, "LibCUDA", o.LibCUDA); err != nil {
		return nil, err
	}
	var flags uint32
	if o.AllowDefaultStream {
		flags |= cdf11.AllowDefaultStream
	}
	if o.PTX {
		flags |= cdf11.DevicePTX
	}
	if o.EarlyStart {
		flags |= cdf11.DeviceEarlyStart
	}
	var libcuda []byte
	if o.LibCUDA != "" {
		libcuda = []byte(o.LibCUDA)
	}
	c, e := cdf11.OpenDevice(int32(ordinal), current, flags, o.Multiprocessors, libcuda)
	if e != nil {
		return nil, result(op, e)
	}
	info, e := c.Info()
	if e != nil {
		c.Free()
		return nil, result(op, e)
	}
	takeLog()
	d := &Device{c: &deviceHandle{Device: c}, info: DeviceInfo{
		Name:            info.Name,
		Kernels:         info.Kernels,
		LibCUDA:         info.LibCUDA,
		DriverVersion:   int(info.DriverVersion),
		Ordinal:         int(info.Ordinal),
		CapabilityMajor: int(info.CapabilityMajor),
		CapabilityMinor: int(info.CapabilityMinor),
		Multiprocessors: int(info.Multiprocessors),
	}}
	d.init()
	d.cleanup = runtime.AddCleanup(d, (*deviceHandle).abandon, d.c)
	return d, nil
}

// Info describes the device. It also works after Close.
func (d *Device) Info() DeviceInfo { return d.info }

// Close frees the device. It waits for running calls; later ones fail with [io/fs.ErrClosed]. Closing again does
// nothing, and Close never fails. Residents stay valid, and work that is in streams continues. If a resident became
// unreachable without a call of its Close, the stream must have executed its upload before the device is closed.
func (d *Device) Close() error {
	d.close(func() {
		d.cleanup.Stop()
		d.c.release()
	})
	runtime.KeepAlive(d)
	return nil
}

// Upload makes a group's image in device memory that you allocated: imageBytes bytes at image, at least
// [GroupInfo.ImageBytes], at a multiple of 256. Copies and kernels are put into stream, and later work in the stream
// may use the image. No device memory is allocated, and no host memory is pinned. Damage in the file is found on the
// device: see [Resident.Decompress].
//
// Until the stream has executed the upload, it reads the model's files and memory of the resident. This package keeps
// the files open, also if the model is closed, but the resident must not be closed before. Call [Resident.Uploaded]
// when the stream has executed the upload, to release them.
func (d *Device) Upload(m *Model, group int, image uintptr, imageBytes uint64, stream uintptr) (*Resident, error) {
	return d.upload("upload", m, group, true, func() (cdf11.Resident, *cdf11.Error) {
		return d.c.Upload(m.c.Model, uint64(group), image, imageBytes, stream)
	})
}

// UploadStaged is Upload through a host buffer: stagingBytes bytes at the address staging, at least 4096; a few MiB are
// a good size. The buffer should be pinned (cuMemHostAlloc), and must not be Go memory. The call waits for the stream
// whenever the whole buffer is in use. After it has returned, the model is no longer needed. Keep the buffer and the
// resident until the stream has executed the upload.
func (d *Device) UploadStaged(m *Model, group int, image uintptr, imageBytes uint64, stream, staging uintptr,
	stagingBytes uint64) (*Resident, error) {
	return d.upload("upload", m, group, false, func() (cdf11.Resident, *cdf11.Error) {
		return d.c.UploadStaged(m.c.Model, uint64(group), image, imageBytes, stream, staging, stagingBytes)
	})
}

// UploadRange makes the image of n of a group's weights in device memory, from weight first on: rows of a tensor, for
// devices that share the work of a layer. [Model.ImageRangeInfo] says how many bytes it takes. Decoding counts as for the
// whole group. The host walks the codes and makes the image's index, 0.02 bytes for each weight, which the resident keeps.
// If staging is not 0, copies go through that host buffer, as with [Device.UploadStaged]; all else is as for
// [Device.Upload].
func (d *Device) UploadRange(m *Model, group int, first, n uint64, image uintptr, imageBytes uint64, stream,
	staging uintptr, stagingBytes uint64) (*Resident, error) {
	return d.upload("upload", m, group, staging == 0, func() (cdf11.Resident, *cdf11.Error) {
		return d.c.UploadRange(m.c.Model, uint64(group), first, n, image, imageBytes, stream, staging, stagingBytes)
	})
}

// Bind makes a resident of an image that is in device memory, or will be before its decodes execute: a copy of what
// [Model.WriteImage] wrote, or an image that was moved. imageBytes and the alignment of image are as for
// [Device.Upload]. No CUDA call is made, and the model may be closed afterwards.
func (d *Device) Bind(m *Model, group int, image uintptr, imageBytes uint64) (*Resident, error) {
	const op = "bind"
	if err := d.begin(op, m, group); err != nil {
		return nil, err
	}
	defer d.leave()
	defer m.leave()
	c, e := d.c.Bind(m.c.Model, uint64(group), image, imageBytes)
	return d.resident(op, c, nil, false, e)
}

// BindImage is Bind without the model. head holds the image's first bytes in host memory, [ImageHeadBytesMax] of them
// or the whole image. They are treated as untrusted input.
func (d *Device) BindImage(head []byte, image uintptr, imageBytes uint64) (*Resident, error) {
	const op = "bind image"
	if !d.enter() {
		return nil, errClosed(op, "device")
	}
	defer d.leave()
	c, e := d.c.BindImage(head, image, imageBytes)
	return d.resident(op, c, nil, false, e)
}

func (d *Device) upload(op string, m *Model, group int, reads bool,
	call func() (cdf11.Resident, *cdf11.Error)) (*Resident, error) {
	if err := d.begin(op, m, group); err != nil {
		return nil, err
	}
	defer d.leave()
	defer m.leave()
	var model *modelHandle
	if reads {
		m.c.retain()
		model = m.c
	}
	c, e := call()
	return d.resident(op, c, model, true, e)
}

// begin begins a call of a device and a model.
func (d *Device) begin(op string, m *Model, group int) error {
	if _, err := m.begin(op, "group", group, 0); err != nil {
		return err
	}
	if !d.enter() {
		m.leave()
		return errClosed(op, "device")
	}
	return nil
}

// resident makes a Resident of a C resident, which is pending if an upload was put into a stream. After three errors,
// parts of an upload may be in the stream as well and read the model: the handle then waits for the end of the device.
func (d *Device) resident(op string, c cdf11.Resident, model *modelHandle, pending bool,
	e *cdf11.Error) (*Resident, error) {
	h := &residentHandle{Resident: c, device: d.c, model: model}
	h.pending.Store(pending)
	if e == nil {
		h.info, e = c.Info()
	}
	if e != nil {
		switch Status(e.Status) {
		case ErrCUDA, ErrIO, ErrCorrupt:
			h.abandon()
		default:
			h.release()
		}
		return nil, result(op, e)
	}
	count.residents.Add(1)
	count.residentBytes.Add(h.info.ImageBytes)
	if pending {
		count.uploads.Add(1)
		count.uploadBytes.Add(h.info.ImageBytes)
	}
	r := &Resident{c: h}
	r.init()
	r.cleanup = runtime.AddCleanup(r, (*residentHandle).abandon, h)
	return r, result(op, nil)
}
