//! Images on CUDA devices: made there, or taken where they lie.

use super::device::{clear, df11_device, df11_devptr, df11_stream, handle};
use super::model::{self, df11_model, group_of};
use super::status::{df11_error, df11_status, frame};
use super::structs::{self, Sizeable};
use crate::cuda::image::Head;
use crate::cuda::{Resident, Staging, Stream};
use crate::error::{Error, Result};
use std::ffi::c_void;
use std::ptr;

/// An image on a device, ready to be decoded. Immutable: any number of threads may use it at once. It owns no device
/// memory.
pub struct df11_resident {
    pub(super) resident: Resident,
}

/// Bytes that the head of no image exceeds.
pub const DF11_IMAGE_HEAD_BYTES_MAX: u64 = 41216;
const _: () = assert!(DF11_IMAGE_HEAD_BYTES_MAX == crate::cuda::image::MOST_HEAD_BYTES);

/// What an image is. Begin with DF11_IMAGE_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_image_info {
    /// sizeof(df11_image_info)
    pub struct_size: usize,
    /// Bytes of the whole image.
    pub image_bytes: u64,
    /// Bytes of its head: its first ones, which df11_device_bind_image() needs in host memory.
    pub head_bytes: u64,
    /// Weights of the group.
    pub element_count: u64,
    /// Tensors of the group.
    pub tensor_count: u64,
}

// SAFETY: repr(C), begins with its size, five words.
unsafe impl Sizeable for df11_image_info {
    const NAME: &'static str = "df11_image_info";
    const FIRST: usize = 40;
}

/// What a resident is. Begin with DF11_RESIDENT_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_resident_info {
    /// sizeof(df11_resident_info)
    pub struct_size: usize,
    /// Where the image lies.
    pub image: df11_devptr,
    /// Bytes of the whole image.
    pub image_bytes: u64,
    /// Weights of the group.
    pub element_count: u64,
    /// Tensors of the group.
    pub tensor_count: u64,
    /// For each tensor the weights of the group up to its end. Belongs to the resident.
    pub tensor_ends: *const u64,
}

// SAFETY: repr(C), begins with its size, six words, zero is a NULL pointer.
unsafe impl Sizeable for df11_resident_info {
    const NAME: &'static str = "df11_resident_info";
    const FIRST: usize = 48;
}

const _: () = assert!(size_of::<df11_image_info>() == 40 && size_of::<df11_resident_info>() == 48);

/// Makes a group's image in device memory of the caller's: `bytes` bytes at `d_image`, at least
/// df11_group_info.image_bytes, at a multiple of 256. Copies and kernels are put into `stream`; what is put there
/// behind them may use the image. The bytes are those of df11_model_write_image(). No device memory is allocated, and
/// no host memory pinned.
///
/// Host memory: the bytes are copied from where the file is mapped (or the memory of df11_model_open_memory() is), so
/// neither the model nor the resident may be freed before the stream has passed the upload. From pageable memory CUDA
/// copies at its own pace, and the call returns when it has read most of it; df11_device_upload_staged() goes through pinned
/// memory. With DF11_OPEN_READ the call allocates 2 MiB to read to, and waits until the stream has passed the last
/// copy.
///
/// The file's gaps and positions are held against its codes on the device. Where they disagree, decoding the image says
/// DF11_CORRUPT in d_status.
///
/// On success `*out` is the resident, to be given to df11_resident_free(); otherwise NULL.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED;
/// DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_DEFAULT_STREAM; DF11_WRONG_DEVICE for a stream of another
/// context; DF11_CAPTURING, for an upload cannot be captured; DF11_CUDA; DF11_IO and DF11_CORRUPT with DF11_OPEN_READ.
/// After the last three parts of the work may be in the stream: `d_image` and the model must stay until it has passed
/// them.
///
/// # Safety
///
/// The pointers are as described; the device memory stays until the resident is freed and its decodes are done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_upload(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    d_image: df11_devptr,
    bytes: usize,
    stream: df11_stream,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe { upload(device, model, group, d_image, bytes, stream, None, out, error) }
}

/// df11_device_upload() through `staging_bytes` bytes of host memory of the caller's, at least 4,096; some MiB are sensible.
/// It should be pinned (cuMemHostAlloc, cudaMallocHost). The file's bytes are copied to one half of it while the device
/// copies from the other, so the call waits for the stream whenever both are full: it must not wait for something that
/// the calling thread does later. `staging` and the resident must stay until the stream has passed the upload; the
/// model may be freed when this returns.
///
/// Errors: as for df11_device_upload(); DF11_BUFFER_TOO_SMALL and DF11_INVALID_ARGUMENT for the staging memory too.
///
/// # Safety
///
/// As for df11_device_upload(), and nobody else uses the staging memory until the stream has passed the upload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_upload_staged(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    d_image: df11_devptr,
    bytes: usize,
    stream: df11_stream,
    staging: *mut c_void,
    staging_bytes: usize,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        let staging = Some(Staging::new(staging, staging_bytes));
        upload(device, model, group, d_image, bytes, stream, staging, out, error)
    }
}

/// The parts that both uploads share.
///
/// # Safety
///
/// As for the exported functions.
#[allow(clippy::too_many_arguments, reason = "those of the exported functions")]
unsafe fn upload(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    d_image: df11_devptr,
    bytes: usize,
    stream: df11_stream,
    staging: Option<Staging>,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            clear(out, ptr::null_mut())?;
            let (device, model) = (&handle(device)?.device, &model::handle(model)?.model);
            let group = group_of(model, group)?;
            let stream = Stream::from_raw(stream.cast());
            let resident = device.upload(group, d_image, bytes as u64, stream, staging)?;
            put(out, resident);
            Ok(())
        })
    }
}

/// Takes an image that lies on the device, or will when the streams of its decodes get there: one that the caller
/// copied from what df11_model_write_image() wrote, or moved. `bytes` bytes at `d_image`, at least
/// df11_group_info.image_bytes, at a multiple of 256. No CUDA call is made; the model may be freed when this returns.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED;
/// DF11_UNSUPPORTED_FORMAT where image_bytes is 0.
///
/// # Safety
///
/// The pointers are as described; the device memory stays until the resident is freed and its decodes are done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_bind(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    d_image: df11_devptr,
    bytes: usize,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            clear(out, ptr::null_mut())?;
            let (device, model) = (&handle(device)?.device, &model::handle(model)?.model);
            let group = group_of(model, group)?;
            put(out, device.bind(group, d_image, bytes as u64)?);
            Ok(())
        })
    }
}

/// df11_device_bind() without the model: `head` are the image's first bytes in host memory, `head_bytes` of them, at least as many as its
/// head has (df11_image_info.head_bytes; DF11_IMAGE_HEAD_BYTES_MAX are enough for any, and so is a whole image). They are
/// read during the call only, and checked as hostile; a checksum finds damage. `bytes` are at least
/// df11_image_info.image_bytes, which df11_image_get_info() reads from the same head; the whole image, head and all, lies at
/// `d_image`.
///
/// Errors: DF11_INVALID_FORMAT if these are no bytes of an image, DF11_UNSUPPORTED_FORMAT for an image of another
/// version, DF11_CORRUPT for a damaged head or one that is cut short; DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
/// DF11_MISALIGNED.
///
/// # Safety
///
/// As for df11_device_bind(); `head_bytes` bytes can be read at `head`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_bind_image(
    device: *mut df11_device,
    head: *const c_void,
    head_bytes: usize,
    d_image: df11_devptr,
    bytes: usize,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            clear(out, ptr::null_mut())?;
            let device = &handle(device)?.device;
            put(out, device.bind_image(bytes_of(head, head_bytes)?, d_image, bytes as u64)?);
            Ok(())
        })
    }
}

/// Describes an image by its head: its first bytes in host memory, as for df11_device_bind_image(). No CUDA call is made.
/// After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
///
/// Errors: those of the head as for df11_device_bind_image(); DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described; `head_bytes` bytes can be read at `head`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_image_get_info(
    head: *const c_void,
    head_bytes: usize,
    out: *mut df11_image_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let head = Head::parse(bytes_of(head, head_bytes)?)?;
            let layout = head.layout();
            let value = df11_image_info {
                struct_size: 0,
                image_bytes: layout.image_bytes,
                head_bytes: layout.head_bytes(),
                element_count: layout.weights,
                tensor_count: layout.tensors as u64,
            };
            structs::write(out, &value);
            Ok(())
        })
    }
}

/// Describes a resident. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left
/// alone.
///
/// Errors: DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_get_info(
    resident: *const df11_resident,
    out: *mut df11_resident_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            structs::clear(out)?;
            let resident = resident_of(resident)?;
            let value = df11_resident_info {
                struct_size: 0,
                image: resident.image(),
                image_bytes: resident.layout().image_bytes,
                element_count: resident.layout().weights,
                tensor_count: resident.ends().len() as u64,
                tensor_ends: resident.ends().as_ptr(),
            };
            structs::write(out, &value);
            Ok(())
        })
    }
}

/// Frees a resident, from any thread; NULL is allowed. No device memory is touched or freed, nothing is waited for, and
/// decodes that are in streams or graphs go on. (A resident of an upload keeps host memory that the upload reads: see
/// there.)
///
/// # Safety
///
/// `resident` is NULL or a resident that was not freed, and no call is using it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_free(resident: *mut df11_resident) {
    if !resident.is_null() {
        // SAFETY: `put` made it by `Box::into_raw`.
        let resident = unsafe { Box::from_raw(resident) };
        let free = || {
            drop(resident);
            Ok(())
        };
        // SAFETY: no error is wanted.
        unsafe { frame(ptr::null_mut(), free) };
    }
}

/// # Safety
///
/// `out` can be written.
unsafe fn put(out: *mut *mut df11_resident, resident: Resident) {
    // SAFETY: by the caller's promise.
    unsafe { *out = Box::into_raw(Box::new(df11_resident { resident })) };
}

/// # Safety
///
/// `resident` is NULL or a resident.
pub(super) unsafe fn resident_of<'a>(resident: *const df11_resident) -> Result<&'a Resident> {
    // SAFETY: by the caller's promise.
    match unsafe { resident.as_ref() } {
        Some(handle) => Ok(&handle.resident),
        None => Err(Error::InvalidArgument("the resident is NULL".into())),
    }
}

/// # Safety
///
/// `bytes` bytes can be read at `at`, unless it is NULL.
unsafe fn bytes_of<'a>(at: *const c_void, bytes: usize) -> Result<&'a [u8]> {
    if at.is_null() {
        return Err(Error::InvalidArgument("the head is NULL".into()));
    }
    if bytes > isize::MAX as usize {
        return Err(Error::InvalidArgument(format!("the head has {bytes} bytes, which no memory has")));
    }
    // SAFETY: by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(at.cast(), bytes) })
}
