//! Opening CUDA devices.

use super::model::{c_text, path_of};
use super::status::{df11_error, df11_status, frame};
use super::structs::{self, Sizeable};
use crate::cuda::{Choice, Device, DeviceOptions};
use crate::error::{Error, Result};
use std::ffi::{CString, c_char, c_ulonglong};
use std::ptr;

/// An address in device memory: a CUdeviceptr, which is the same type, or a pointer of the CUDA runtime as a number. 0 is no
/// address.
pub type df11_devptr = c_ulonglong;

/// What a CUDA stream points to; cuda.h and cuda_runtime_api.h know it by the same name.
pub struct CUstream_st {
    _private: [u8; 0],
}

/// A stream of the caller's: a CUstream or cudaStream_t, which are the same type.
pub type df11_stream = *mut CUstream_st;

/// An open CUDA device, with all kernels loaded. Immutable: any number of threads may use it at once.
pub struct df11_device {
    pub(super) device: Device,
    name: CString,
    kernels: CString,
    libcuda: CString,
}

/// Accept the NULL stream, which is the context's legacy stream (a program that was compiled for per-thread default
/// streams passes CU_STREAM_PER_THREAD, 0x2, which is always accepted, as is CU_STREAM_LEGACY, 0x1). It is refused
/// otherwise, for non-blocking streams, which engines use, are not ordered with it.
pub const DF11_DEVICE_ALLOW_DEFAULT_STREAM: u32 = 1;
/// Have the driver compile the kernels' PTX even where there is a binary for the device: to test the former.
pub const DF11_DEVICE_FORCE_PTX: u32 = 2;

/// How to open a device. Begin with DF11_DEVICE_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_device_options {
    /// sizeof(df11_device_options)
    pub struct_size: usize,
    /// DF11_DEVICE_ALLOW_DEFAULT_STREAM and DF11_DEVICE_* joined by |
    pub flags: u32,
    /// 0
    pub reserved: u32,
    /// The path or name of the CUDA driver's library, ended by a zero byte; NULL for the one that the environment
    /// variable DF11_LIBCUDA names, or else the system's (libcuda.so.1). It is read during the call only.
    pub libcuda: *const c_char,
}

// SAFETY: repr(C), begins with its size, no padding (asserted below), zero is a NULL text.
unsafe impl Sizeable for df11_device_options {
    const NAME: &'static str = "df11_device_options";
    const FIRST: usize = 24;
}

/// What a device is. Begin with DF11_DEVICE_INFO_INIT. Texts belong to the device.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_device_info {
    /// sizeof(df11_device_info)
    pub struct_size: usize,
    /// Its name.
    pub name: *const c_char,
    /// Which kernels run: "sm_90" and the like for a binary, "PTX" where the driver compiled them.
    pub kernels: *const c_char,
    /// The name by which the driver was loaded.
    pub libcuda: *const c_char,
    /// Its number, as the driver counts.
    pub ordinal: i32,
    /// The driver's CUDA version: 12040 is 12.4.
    pub driver_version: i32,
    /// Its compute capability: 9 of 9.0
    pub capability_major: u32,
    /// 0 of 9.0
    pub capability_minor: u32,
    /// Its multiprocessors.
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

/// Opens a CUDA device by its number, in its primary context: the one that the CUDA runtime uses. The context is
/// retained until the device is freed and all its residents are. No other context stays current on the thread.
///
/// All that may block is done here: the driver's library is loaded, if it was not (it stays loaded), and every kernel
/// is, so that no later call loads anything. What was loaded stays until the context ends, for captured graphs may hold
/// it; a context is only loaded to once. It is no call for a thread that captures. Streams that other threads capture
/// are not disturbed, but if one of them is of this context and not non-blocking, the device is not opened
/// (DF11_CAPTURING).
///
/// `options` may be NULL. On success `*out` is the device, to be given to df11_device_free(); otherwise NULL.
///
/// Errors: DF11_NO_DRIVER without a driver of CUDA 12.0 (525) or later, or without a device: the message says what was
/// tried; DF11_INVALID_ARGUMENT for a number that no device has; DF11_NO_KERNEL for a device older than compute
/// capability 7.5, or one for which the driver takes none of our kernels; DF11_CAPTURING, DF11_CUDA,
/// DF11_UNSUPPORTED_OPTION.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_open(
    ordinal: i32,
    options: *const df11_device_options,
    out: *mut *mut df11_device,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe { open(options, out, error, |options| Device::open(ordinal, options)) }
}

/// Opens the device of the context that is current on this thread, in that context, for engines with contexts of their
/// own. It stays the caller's and must live until the device is freed and all its residents are. All else is as for
/// df11_device_open(); without a current context the error is DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described, and the context lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_open_current(
    options: *const df11_device_options,
    out: *mut *mut df11_device,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe { open(options, out, error, |options| Device::open_current(options)) }
}

/// The parts that both ways of opening share.
///
/// # Safety
///
/// As for the exported functions.
unsafe fn open(
    options: *const df11_device_options,
    out: *mut *mut df11_device,
    error: *mut df11_error,
    device: impl FnOnce(&DeviceOptions) -> Result<Device>,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            clear(out, ptr::null_mut())?;
            let mut wanted = DeviceOptions::default();
            if let Some(options) = structs::read(options)? {
                let unknown = options.flags & !(DF11_DEVICE_ALLOW_DEFAULT_STREAM | DF11_DEVICE_FORCE_PTX);
                if unknown != 0 || options.reserved != 0 {
                    let reason = format!(
                        "df11_device_options.flags has unknown bits: {unknown:#x}, or reserved is not 0: {}",
                        options.reserved
                    );
                    return Err(Error::UnsupportedOption(reason));
                }
                wanted.allow_default_stream = options.flags & DF11_DEVICE_ALLOW_DEFAULT_STREAM != 0;
                if options.flags & DF11_DEVICE_FORCE_PTX != 0 {
                    wanted.kernels = Choice::Ptx;
                }
                if !options.libcuda.is_null() {
                    // The options name a driver's library: the header says so.
                    wanted = wanted.libcuda(path_of(options.libcuda)?);
                }
            }
            let device = device(&wanted)?;
            let info = device.info();
            let (name, kernels, libcuda) = (c_text(&info.name), c_text(&info.kernels), c_text(&info.libcuda));
            *out = Box::into_raw(Box::new(df11_device { device, name, kernels, libcuda }));
            Ok(())
        })
    }
}

/// Frees a device, from any thread; NULL is allowed. Its residents may live on: the device is closed with the last of
/// them. Work that is running goes on, and graphs that captured decodes stay valid as long as their context. Nothing is
/// waited for, unless df11_device_open() was the only one to hold the primary context: CUDA then ends it.
///
/// # Safety
///
/// `device` is NULL or a device that was not freed, and no call is using it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_free(device: *mut df11_device) {
    if !device.is_null() {
        // SAFETY: `open` made it by `Box::into_raw`.
        let device = unsafe { Box::from_raw(device) };
        let free = || {
            drop(device);
            Ok(())
        };
        // SAFETY: no error is wanted.
        unsafe { frame(ptr::null_mut(), free) };
    }
}

/// Describes a device. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
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
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let handle = handle(device)?;
            let info = handle.device.info();
            let value = df11_device_info {
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
            };
            structs::write(out, &value);
            Ok(())
        })
    }
}

/// # Safety
///
/// `device` is NULL or an open device.
pub(super) unsafe fn handle<'a>(device: *const df11_device) -> Result<&'a df11_device> {
    // SAFETY: by the caller's promise.
    unsafe { device.as_ref() }.ok_or_else(|| Error::InvalidArgument("the device is NULL".into()))
}

/// Gives an output its value for errors.
///
/// # Safety
///
/// `out` is NULL or can be written.
pub(super) unsafe fn clear<T>(out: *mut T, value: T) -> Result<()> {
    if out.is_null() {
        return Err(Error::InvalidArgument("the output is NULL".into()));
    }
    // SAFETY: by the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}
