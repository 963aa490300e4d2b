package df11

import (
	"runtime"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// DeviceOptions say how to open a device. A nil *DeviceOptions, and the zero one, are all defaults.
type DeviceOptions struct {
	// AllowDefaultStream accepts 0 as a stream: the context's legacy stream. It is refused otherwise, for non-blocking
	// streams, which engines use, are not ordered with it.
	AllowDefaultStream bool
	// PTX has the driver compile the kernels even where there is a binary for the device: to test the former.
	PTX bool
	// LibCUDA is the path or name of the driver's library; empty for the one that the environment variable DF11_LIBCUDA
	// names, or else the system's.
	LibCUDA string
}

// DeviceInfo is what a device is.
type DeviceInfo struct {
	// Name is what the driver calls it.
	Name string
	// Kernels says which run: "sm_90" and the like for a binary, "PTX" where the driver compiled them.
	Kernels string
	// LibCUDA is the name by which the driver was loaded, DriverVersion its CUDA version: 12040 is 12.4.
	LibCUDA       string
	DriverVersion int
	// Ordinal is its number, as the driver counts.
	Ordinal int
	// CapabilityMajor and CapabilityMinor are its compute capability.
	CapabilityMajor, CapabilityMinor int
	// Multiprocessors is how many it has.
	Multiprocessors int
}

// Device is an open CUDA device with all kernels loaded. It never changes: any number of goroutines may use it at once.
//
// Device addresses and streams are numbers, as other packages give them: a CUdeviceptr, and a CUstream or cudaStream_t.
// The library passes them on and keeps none of them, but for a resident's image.
type Device struct {
	handle
	c       *deviceHandle
	cleanup runtime.Cleanup
	info    DeviceInfo
}

// OpenDevice opens a CUDA device by its number, in its primary context: the one that the CUDA runtime uses. The driver
// is loaded at run time, and so are all kernels, here: no later call loads anything. Which thread calls does not
// matter, here and in all else but [OpenCurrentDevice], and no context stays current on one.
//
// The error is [NoDriver] without a usable driver, [InvalidArgument] for a number that no device has, [NoKernel] for a
// device that is too old.
func OpenDevice(ordinal int, o *DeviceOptions) (*Device, error) { return openDevice(ordinal, false, o) }

// OpenCurrentDevice opens the device of the context that is current on the calling thread, in that context, which must
// live until the device is closed and all its residents are. As goroutines move between threads, the caller has locked
// his to its thread ([runtime.LockOSThread]) before he made the context current there.
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
	var libcuda []byte
	if o.LibCUDA != "" {
		libcuda = []byte(o.LibCUDA)
	}
	c, e := cdf11.OpenDevice(int32(ordinal), current, flags, libcuda)
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

// Info describes the device, also when it is closed.
func (d *Device) Info() DeviceInfo { return d.info }

// Close frees the device. Calls that run are waited for, later ones fail with [io/fs.ErrClosed]; closing again does
// nothing. It never fails. Residents live on, and so does work that is in streams; but streams must have passed the
// uploads whose residents nobody has closed and nobody has any more.
func (d *Device) Close() error {
	d.close(func() {
		d.cleanup.Stop()
		d.c.release()
	})
	runtime.KeepAlive(d)
	return nil
}

// Upload puts a group's image together in device memory of the caller's, bytes of it from image on: at least
// [GroupInfo.ImageBytes], at a multiple of 256. Copies and kernels are put into stream, and what is put there behind
// them may use the image. No device memory is allocated, and no host memory pinned. Damage in the file is found on the
// device: see [Resident.Decompress].
//
// Until the stream has passed it, the upload reads the model's files and memory of the resident's. This package keeps
// the files for it, also if the model is closed; the resident must not be closed before. Say [Resident.Uploaded] when
// the stream has passed it, and they are let go.
func (d *Device) Upload(m *Model, group int, image uintptr, bytes uint64, stream uintptr) (*Resident, error) {
	return d.upload("upload", m, group, true, func() (cdf11.Resident, *cdf11.Error) {
		return d.c.Upload(m.c.Model, uint64(group), image, bytes, stream)
	})
}

// UploadStaged is Upload through host memory of the caller's, stagingBytes from the address staging on: at least 4096,
// some MiB are sensible. It should be pinned (cuMemHostAlloc), and must not be Go's. The call waits for the stream
// whenever all of it is in use. When it returns, the model is not needed any more; the memory and the resident are,
// until the stream has passed it.
func (d *Device) UploadStaged(m *Model, group int, image uintptr, bytes uint64, stream, staging uintptr,
	stagingBytes uint64) (*Resident, error) {
	return d.upload("upload", m, group, false, func() (cdf11.Resident, *cdf11.Error) {
		return d.c.UploadStaged(m.c.Model, uint64(group), image, bytes, stream, staging, stagingBytes)
	})
}

// UploadAlloc is Upload into device memory that the library allocates for it, which may wait for the device. The
// memory, at the address that is returned, is the caller's: [Device.FreeMemory] frees it, Close of the resident does
// not.
func (d *Device) UploadAlloc(m *Model, group int, stream uintptr) (r *Resident, image uintptr, err error) {
	r, err = d.upload("upload", m, group, true, func() (c cdf11.Resident, e *cdf11.Error) {
		c, image, e = d.c.UploadAlloc(m.c.Model, uint64(group), stream)
		return c, e
	})
	return r, image, err
}

// FreeMemory frees device memory that [Device.UploadAlloc] allocated; 0 is nothing. It waits until the device has done
// all its work.
func (d *Device) FreeMemory(image uintptr) error {
	const op = "free memory"
	if !d.enter() {
		return errClosed(op, "device")
	}
	defer d.leave()
	return result(op, d.c.FreeMemory(image))
}

// Bind takes an image that lies on the device, or will when the streams of its decodes get there: one that the caller
// copied from what [Model.WriteImage] wrote, or moved. bytes and the alignment of image are as for [Device.Upload]. No
// CUDA call is made, and the model may be closed afterwards.
func (d *Device) Bind(m *Model, group int, image uintptr, bytes uint64) (*Resident, error) {
	const op = "bind"
	if err := d.begin(op, m, group); err != nil {
		return nil, err
	}
	defer d.leave()
	defer m.leave()
	c, e := d.c.Bind(m.c.Model, uint64(group), image, bytes)
	return d.resident(op, c, nil, false, e)
}

// BindImage is Bind without the model: head are the image's first bytes in host memory, [ImageHeadBytesMax] of them or
// a whole image. They are checked as hostile.
func (d *Device) BindImage(head []byte, image uintptr, bytes uint64) (*Resident, error) {
	const op = "bind image"
	if !d.enter() {
		return nil, errClosed(op, "device")
	}
	defer d.leave()
	c, e := d.c.BindImage(head, image, bytes)
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

// resident makes a Resident of what C has given, which is pending if an upload was put into a stream. After three errors
// parts of an upload may be there, too, and read the model: what is pending then waits for the end of the device.
func (d *Device) resident(op string, c cdf11.Resident, model *modelHandle, pending bool, e *cdf11.Error) (*Resident, error) {
	h := &residentHandle{Resident: c, device: d.c, model: model}
	h.pending.Store(pending)
	if e != nil {
		switch Status(e.Status) {
		case CUDA, IO, Corrupt:
			h.abandon()
		default:
			h.release()
		}
		return nil, result(op, e)
	}
	r := &Resident{c: h}
	r.init()
	r.cleanup = runtime.AddCleanup(r, (*residentHandle).abandon, h)
	return r, result(op, nil)
}
