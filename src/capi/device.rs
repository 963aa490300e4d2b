//! CUDA devices.

use super::args::{In, Info, Out, Owned, Text};
use super::frame::{call, quietly};
use super::model::c_text;
use super::status::{df11_error, df11_status};
use super::structs::{self, Sizeable};
use crate::cuda::{Choice, Device, DeviceOptions, Stream};
use crate::error::Result;
use std::ffi::{CString, c_char, c_ulonglong};
use std::ptr;

/// An address in device memory: a CUdeviceptr, which is the same type, or a pointer of the CUDA
/// runtime as a number. 0 is no address.
pub type df11_devptr = c_ulonglong;

/// What a stream points to. cuda.h and cuda_runtime_api.h declare it by the same name.
pub struct CUstream_st {
    _private: [u8; 0],
}

/// Your stream: a CUstream or a cudaStream_t, which are the same type.
pub type df11_stream = *mut CUstream_st;

/// Returns the stream that a C caller names.
pub(super) fn stream_of(stream: df11_stream) -> Stream {
    Stream::from_raw(stream.cast())
}

/// Accept the NULL stream, which is the context's legacy stream. (A program that was compiled for
/// per-thread default streams passes CU_STREAM_PER_THREAD, 0x2. That one is always accepted, and so
/// is CU_STREAM_LEGACY, 0x1.) NULL is refused otherwise, because non-blocking streams, which engines
/// use, are not ordered with it.
pub const DF11_DEVICE_ALLOW_DEFAULT_STREAM: u32 = 1;
/// Let the driver compile the kernels' PTX even if there is a binary for the device: to test the
/// PTX.
pub const DF11_DEVICE_FORCE_PTX: u32 = 2;
/// Let decodes start before the kernel before them in the stream has ended (programmatic dependent
/// launch). They read the image at once, and wait for that kernel before they write anything. It
/// saves the time in which a launch begins: of some use for groups of few million weights. It has an
/// effect on devices of compute capability 9.0 and later with a driver of CUDA 12.3 or later;
/// elsewhere decodes start when they always do. They can be captured.
///
/// Requires: whenever a decode is put into a stream, the image was complete before the kernel before
/// it began. An upload ends with a kernel: put something else after it, such as an event that you
/// wait for, before the first decode. Otherwise a decode may read what is not written yet and give
/// wrong weights; nothing outside of destination and status is written, whatever it reads.
pub const DF11_DEVICE_EARLY_START: u32 = 4;

/// How to open a device. Begin with DF11_DEVICE_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_device_options {
    /// sizeof(df11_device_options)
    pub struct_size: usize,
    /// DF11_DEVICE_ALLOW_DEFAULT_STREAM, DF11_DEVICE_FORCE_PTX and DF11_DEVICE_EARLY_START joined
    /// by |
    pub flags: u32,
    /// The most multiprocessors whose room the kernels of a call take, so that yours find room
    /// beside them; 0 for all. It limits how many blocks a call launches; on which multiprocessors
    /// they run is the device's choice. Without it, kernels take the room of all multiprocessors of
    /// the device, or in a stream of a green context those of the green context. A batch has the
    /// limit of its first group's device.
    pub multiprocessors: u32,
    /// The path or name of the CUDA driver's library, ended by a zero byte. NULL means the library
    /// that the environment variable DF11_LIBCUDA names, or else the system's (libcuda.so.1). The
    /// variable is ignored in programs with more privileges than their caller (set-user-ID, file
    /// capabilities). The text is read during the call only.
    pub libcuda: *const c_char,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zero is a NULL text.
unsafe impl Sizeable for df11_device_options {
    const NAME: &'static str = "df11_device_options";
    const FIRST: usize = 24;
}

/// An open CUDA device, with all kernels loaded. It never changes: any number of threads may use it
/// at once.
pub struct df11_device {
    pub(super) device: Device,
    name: CString,
    kernels: CString,
    libcuda: CString,
}

/// What messages call a device.
pub(super) const DEVICE: &str = "the device";

/// A device. Begin with DF11_DEVICE_INFO_INIT. The texts belong to the device.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_device_info {
    /// sizeof(df11_device_info)
    pub struct_size: usize,
    /// Its name.
    pub name: *const c_char,
    /// The kernels that run: "sm_90" and the like for a binary, "PTX" if the driver compiled them.
    pub kernels: *const c_char,
    /// The name by which the driver was loaded.
    pub libcuda: *const c_char,
    /// Its number, as the driver counts.
    pub ordinal: i32,
    /// The driver's CUDA version: 12040 is 12.4.
    pub driver_version: i32,
    /// Its compute capability: the 9 of 9.0.
    pub capability_major: u32,
    /// The 0 of 9.0.
    pub capability_minor: u32,
    /// Its multiprocessors, whatever the options say.
    pub multiprocessor_count: u32,
    /// 0
    pub reserved: u32,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zeros are NULL texts.
unsafe impl Sizeable for df11_device_info {
    const NAME: &'static str = "df11_device_info";
    const FIRST: usize = 56;
}

const _: () = assert!(size_of::<df11_device_options>() == 24 && size_of::<df11_device_info>() == 56);

/// Opens a CUDA device by its number, in its primary context, which is the one that the CUDA runtime
/// uses. The context is retained until the device and all its residents are freed. The call leaves
/// the thread's current context as it was.
///
/// Everything that may block is done here: the driver's library is loaded, if it was not (it stays
/// loaded), and so is every kernel, so that no later call loads anything. The kernels are loaded
/// once in a process and stay loaded, because captured graphs may hold them. (With a driver that
/// has no cuLibraryLoadData() they are loaded for each device that is opened, and stay until the
/// context ends.) A device that is integrated (Tegra) always gets PTX, which the driver compiles. Do
/// not call this on a thread that captures. Streams that other threads capture are not disturbed,
/// but if one of them is of this context and not non-blocking, the device is not opened
/// (DF11_CAPTURING).
///
/// `options` may be NULL. On success `*out` is the device, to be given to df11_device_free();
/// otherwise it is NULL.
///
/// Errors: DF11_NO_DRIVER without a driver of CUDA 12.0 (525) or later, or without a device: the
/// message says what was tried; DF11_INVALID_ARGUMENT for a number that no device has;
/// DF11_NO_KERNEL for a device older than compute capability 7.5, or one for which the driver takes
/// none of the kernels; DF11_CAPTURING, DF11_CUDA, DF11_UNSUPPORTED_OPTION.
///
/// # Safety
///
/// df11_device_options.libcuda and DF11_LIBCUDA name a CUDA driver's library, or nothing that
/// exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_open(
    ordinal: i32,
    options: *const df11_device_options,
    out: *mut *mut df11_device,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described.
    unsafe { call(error, || open(Out::new(out), DeviceArgs::new(options), |options| Device::open(ordinal, options))) }
}

/// Opens the device of the context that is current on this thread, in that context, for engines with
/// contexts of their own. All else is as for df11_device_open(); without a current context the error
/// is DF11_INVALID_ARGUMENT.
///
/// A green context (see cuCtxFromGreenCtx()) needs a driver of CUDA 12.5. Streams of all green
/// contexts of that device are then accepted, and those of its primary context, as they are by a
/// device that df11_device_open() opened. NULL (if allowed) and CU_STREAM_LEGACY are the default
/// stream of the context that was current.
///
/// # Safety
///
/// The context lives until the device and all its residents are freed, and what
/// df11_device_open() requires.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_open_current(
    options: *const df11_device_options,
    out: *mut *mut df11_device,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: every pointer is NULL or as described, and the current context outlives the device.
    unsafe { call(error, || open(Out::new(out), DeviceArgs::new(options), |options| Device::open_current(options))) }
}

/// What df11_device_options says.
struct DeviceArgs<'a> {
    flags: u32,
    multiprocessors: u32,
    libcuda: Text<'a>,
    given: Result<()>,
}

impl DeviceArgs<'_> {
    /// # Safety
    ///
    /// `options` is NULL, or a struct of its struct_size whose text is as described, during `'a`.
    unsafe fn new(options: *const df11_device_options) -> Self {
        // SAFETY: C caller: `options` is NULL or a struct of its struct_size.
        let (known, unknown) = unsafe { (structs::read_known(options), structs::refuse_unknown(options)) };
        let (read, failed) = match known {
            Ok(read) => (read, None),
            Err(error) => (None, Some(error)),
        };
        let (flags, multiprocessors, libcuda) =
            read.map_or((0, 0, ptr::null()), |o| (o.flags, o.multiprocessors, o.libcuda));
        // SAFETY: C caller: the text is NULL or a C string.
        let libcuda = unsafe { Text::new(libcuda, "the path") };
        DeviceArgs { flags, multiprocessors, libcuda, given: failed.map_or(unknown, Err) }
    }

    fn options(self) -> Result<DeviceOptions> {
        self.given?;
        let flags = DF11_DEVICE_ALLOW_DEFAULT_STREAM | DF11_DEVICE_FORCE_PTX | DF11_DEVICE_EARLY_START;
        structs::check_flags::<df11_device_options>(self.flags, flags)?;
        let mut wanted = DeviceOptions::default();
        wanted.multiprocessors = self.multiprocessors;
        wanted.allow_default_stream = self.flags & DF11_DEVICE_ALLOW_DEFAULT_STREAM != 0;
        wanted.early_start = self.flags & DF11_DEVICE_EARLY_START != 0;
        if self.flags & DF11_DEVICE_FORCE_PTX != 0 {
            wanted.kernels = Choice::Ptx;
        }
        if !self.libcuda.is_null() {
            // SAFETY: C caller: the path names a CUDA driver's library or nothing ("Requires:" of df11_device_open).
            wanted = unsafe { wanted.libcuda(self.libcuda.path()?) };
        }
        Ok(wanted)
    }
}

fn open(
    out: Out<*mut df11_device>,
    args: DeviceArgs,
    device: impl FnOnce(&DeviceOptions) -> Result<Device>,
) -> Result<()> {
    let out = out.clear(ptr::null_mut())?;
    let device = device(&args.options()?)?;
    let info = device.info();
    let (name, kernels, libcuda) = (c_text(&info.name), c_text(&info.kernels), c_text(&info.libcuda));
    out.give(df11_device { device, name, kernels, libcuda });
    Ok(())
}

/// Frees a device, from any thread. NULL is allowed. Its residents may live on: the device is closed
/// with the last of them. Work that is running goes on, and graphs that captured decodes stay valid
/// as long as their context. Nothing is waited for, unless df11_device_open() was the only one to
/// hold the primary context: CUDA then ends that.
///
/// # Safety
///
/// No call uses `device` any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_free(device: *mut df11_device) {
    // SAFETY: C caller: `device` is NULL or is freed once, and nobody uses it any more.
    let device = unsafe { Owned::new(device) };
    quietly(|| device.free());
}

/// Describes a device. After an error `*out` is cleared except for its struct_size; if that is
/// wrong, `*out` is left alone.
///
/// Errors: DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_get_info(
    device: *const df11_device,
    out: *mut df11_device_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `device` is NULL or open, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || device_info(In::new(device, DEVICE), Info::new(out))) }
}

fn device_info(device: In<df11_device>, out: Info<df11_device_info>) -> Result<()> {
    let out = out.clear()?;
    let handle = device.get()?;
    let info = handle.device.info();
    out.set(&df11_device_info {
        struct_size: 0,
        name: handle.name.as_ptr(),
        kernels: handle.kernels.as_ptr(),
        libcuda: handle.libcuda.as_ptr(),
        ordinal: info.ordinal,
        driver_version: info.driver_version,
        capability_major: info.capability.0,
        capability_minor: info.capability.1,
        multiprocessor_count: info.multiprocessors,
        reserved: 0,
    })
}
