//! Residents: images on CUDA devices, made there or taken where they are.

use super::args::{Bytes, In, Info, Out, Owned};
use super::device::{DEVICE, df11_device, df11_devptr, df11_stream, stream_of};
use super::frame::{call, quietly};
use super::image::{HEAD, df11_slice};
use super::model::{MODEL, df11_model, group_of};
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use crate::cuda::{Resident, Staging};
use crate::error::Result;
use std::ffi::c_void;
use std::ptr;

/// An image on a device, ready to be decoded. It never changes: any number of threads may use it at
/// once. It owns no device memory.
pub struct df11_resident {
    pub(super) resident: Resident,
}

/// What messages call a resident.
pub(super) const RESIDENT: &str = "the resident";

/// A resident. Begin with DF11_RESIDENT_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_resident_info {
    /// sizeof(df11_resident_info)
    pub struct_size: usize,
    /// The address of the image in device memory.
    pub image: df11_devptr,
    /// Bytes of the whole image.
    pub image_bytes: u64,
    /// Weights that it holds.
    pub element_count: u64,
    /// Tensors of which it holds weights; slices, if it has some.
    pub tensor_count: u64,
    /// For each of them the number of the weight after its last one, counted as `first_element` is.
    /// They belong to the resident.
    pub tensor_ends: *const u64,
    /// The number of its first weight, as df11_resident_decompress_range() counts them: among those
    /// of the group, so 0 for a whole group. If it holds slices it is 0: their weights are numbered
    /// from 0.
    pub first_element: u64,
    /// The number of its first tensor among those of the group; 0 if it holds slices.
    pub first_tensor: u64,
    /// Weights of the whole group.
    pub group_element_count: u64,
    /// Tensors of the whole group.
    pub group_tensor_count: u64,
    /// Slices that it holds; 0 for a range and for a whole group.
    pub slice_count: u64,
    /// The slices; NULL if there are none. They belong to the resident.
    pub slices: *const df11_slice,
}

// SAFETY: repr(C), begins with its size, twelve words, zeros are NULL pointers.
unsafe impl Sizeable for df11_resident_info {
    const NAME: &'static str = "df11_resident_info";
    const FIRST: usize = 96;
}

const _: () = assert!(size_of::<df11_resident_info>() == 96);

/// Makes a group's image in device memory that you provide: `image_bytes` bytes at `d_image`, at
/// least df11_group_info.image_bytes, at a multiple of 256. Copies and kernels are put into
/// `stream`; work that you put there afterwards may use the image. The bytes are those of
/// df11_model_write_image(). No device memory is allocated, and no host memory is pinned.
///
/// Host memory: the bytes are copied from where the file is mapped (or from the memory of
/// df11_model_open_memory()), so that model and resident must not be freed before the stream has
/// executed the upload. From pageable memory CUDA copies at its own pace, and the call returns when
/// it has read most of it; df11_device_upload_staged() goes through pinned memory. With
/// DF11_OPEN_READ the call allocates 2 MiB to read to, and waits until the stream has executed the
/// last copy.
///
/// The file's gaps and positions are compared with its codes on the device. If they disagree,
/// decoding the image reports DF11_CORRUPT in d_status.
///
/// On success `*out` is the resident, to be given to df11_resident_free(); otherwise it is NULL.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
/// DF11_MISALIGNED; DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_DEFAULT_STREAM;
/// DF11_WRONG_DEVICE for a stream of another context; DF11_CAPTURING, because an upload cannot be
/// captured; DF11_CUDA; DF11_IO and DF11_CORRUPT with DF11_OPEN_READ. After the last three, parts
/// of the work may be in the stream: keep `d_image` and the model until it has executed them.
///
/// # Safety
///
/// The device memory stays until the resident is freed, its decodes are done and no captured graph
/// that uses it will be launched. Model and resident stay until the stream has executed the upload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_upload(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    d_image: df11_devptr,
    image_bytes: usize,
    stream: df11_stream,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the handles are NULL or open, `out` is NULL or writable, and the image, the model and the stream
    // are there until the stream has executed the upload.
    unsafe {
        call(error, || {
            make(Out::new(out), In::new(device, DEVICE), |device| {
                let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
                device.device.upload(group, d_image, image_bytes as u64, stream_of(stream), None)
            })
        })
    }
}

/// Uploads as df11_device_upload() does, through `staging_bytes` bytes of host memory that you
/// provide at `staging`: at least 4,096; some MiB are sensible. It should be pinned
/// (cuMemHostAlloc, cudaMallocHost). The file's bytes are copied to one half of it while the device
/// copies from the other, so that the call waits for the stream whenever both are full: the stream
/// must not wait for something that the calling thread does later. The model may be freed when this
/// returns.
///
/// Errors: as for df11_device_upload(); DF11_BUFFER_TOO_SMALL and DF11_INVALID_ARGUMENT for the
/// staging memory too.
///
/// # Safety
///
/// The device memory stays until the resident is freed, its decodes are done and no captured graph
/// that uses it will be launched. The resident and the staging memory stay, and nobody else uses
/// the latter, until the stream has executed the upload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_upload_staged(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    d_image: df11_devptr,
    image_bytes: usize,
    stream: df11_stream,
    staging: *mut c_void,
    staging_bytes: usize,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the handles are NULL or open, `out` is NULL or writable, and the image, the stream and the staging
    // memory, which is this call's, are there until the stream has executed the upload.
    unsafe {
        call(error, || {
            make(Out::new(out), In::new(device, DEVICE), |device| {
                let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
                let staging = Some(Staging::new(staging, staging_bytes));
                device.device.upload(group, d_image, image_bytes as u64, stream_of(stream), staging)
            })
        })
    }
}

/// Makes the image of `count` of a group's weights, from its weight `first` on (both in elements),
/// in device memory that you provide: `image_bytes` bytes at `d_image`, at least those that
/// df11_model_get_image_range_info() says, at a multiple of 256. The bytes are those of
/// df11_model_write_image_range(), which says what such an image is for. Copies are put into
/// `stream`; work that you put there afterwards may use the image.
///
/// The host walks the codes first, on the calling thread, and makes the index of the image, 0.02
/// bytes for each weight, which is copied with the head from memory that the resident keeps. The
/// rest is copied as by df11_device_upload(), or, if `staging` is not NULL, as by
/// df11_device_upload_staged(): then the model may be freed when this returns.
///
/// Errors: as for df11_device_upload() and df11_model_write_image_range(). `staging_bytes` counts
/// only if `staging` is not NULL.
///
/// # Safety
///
/// The device memory stays until the resident is freed, its decodes are done and no captured graph
/// that uses it will be launched. The resident and the model (or the staging memory, which nobody
/// else uses) stay until the stream has executed the upload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_upload_range(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    first: u64,
    count: u64,
    d_image: df11_devptr,
    image_bytes: usize,
    stream: df11_stream,
    staging: *mut c_void,
    staging_bytes: usize,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the handles are NULL or open, `out` is NULL or writable, and the image, the stream and the model
    // or the staging memory, which is this call's, are there until the stream has executed the upload.
    unsafe {
        call(error, || {
            make(Out::new(out), In::new(device, DEVICE), |device| {
                let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
                let staging = (!staging.is_null()).then(|| Staging::new(staging, staging_bytes));
                let (bytes, stream) = (image_bytes as u64, stream_of(stream));
                device.device.upload_range(group, first, count, d_image, bytes, stream, staging)
            })
        })
    }
}

/// Takes an image that is on the device, or that will be when the streams of its decodes get there:
/// one that you copied from what df11_model_write_image() wrote, or moved. It has `image_bytes`
/// bytes at `d_image`, at least df11_group_info.image_bytes, at a multiple of 256. No CUDA call is
/// made; the model may be freed when this returns. On success `*out` is the resident, to be given
/// to df11_resident_free(); otherwise it is NULL.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
/// DF11_MISALIGNED; DF11_UNSUPPORTED_FORMAT where image_bytes is 0.
///
/// # Safety
///
/// The device memory stays until the resident is freed, its decodes are done and no captured graph
/// that uses it will be launched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_bind(
    device: *mut df11_device,
    model: *const df11_model,
    group: u64,
    d_image: df11_devptr,
    image_bytes: usize,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the handles are NULL or open, `out` is NULL or writable, and the image outlives the resident.
    unsafe {
        call(error, || {
            make(Out::new(out), In::new(device, DEVICE), |device| {
                let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
                device.device.bind(group, d_image, image_bytes as u64)
            })
        })
    }
}

/// Takes an image as df11_device_bind() does, without the model, and linear images, too
/// (df11_model_plan_linear_image()). `head` are the image's first bytes in host memory,
/// `head_bytes` of them: at least as many as its head has (df11_image_info.head_bytes;
/// DF11_IMAGE_HEAD_BYTES_MAX are enough for any, and so is a whole image). They are read during the
/// call only, and checked as hostile; a checksum finds damage. The whole image, head and all, has
/// `image_bytes` bytes at `d_image`, at least df11_image_info.image_bytes, which
/// df11_image_get_info() reads from the same head.
///
/// Errors: DF11_INVALID_FORMAT if the bytes are no image's, DF11_UNSUPPORTED_FORMAT for an image of
/// another version, DF11_CORRUPT for a head that is damaged or cut short; DF11_INVALID_ARGUMENT,
/// DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED.
///
/// # Safety
///
/// The device memory stays until the resident is freed, its decodes are done and no captured graph
/// that uses it will be launched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_bind_image(
    device: *mut df11_device,
    head: *const c_void,
    head_bytes: usize,
    d_image: df11_devptr,
    image_bytes: usize,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `device` is NULL or open, `head_bytes` bytes can be read at `head`, `out` is NULL or writable, and
    // the image outlives the resident.
    unsafe {
        call(error, || {
            make(Out::new(out), In::new(device, DEVICE), |device| {
                let head = Bytes::new(head, head_bytes, HEAD);
                device.device.bind_image(head.get()?, d_image, image_bytes as u64)
            })
        })
    }
}

/// Makes a resident and gives it to the caller: what uploads and bindings share.
pub(super) fn make(
    out: Out<*mut df11_resident>,
    device: In<df11_device>,
    resident: impl FnOnce(&df11_device) -> Result<Resident>,
) -> Result<()> {
    let out = out.clear(ptr::null_mut())?;
    out.give(df11_resident { resident: resident(device.get()?)? });
    Ok(())
}

/// Describes a resident. After an error `*out` is cleared except for its struct_size; if that is
/// wrong, `*out` is left alone.
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
    // SAFETY: C caller: `resident` is NULL or not freed, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || resident_info(In::new(resident, RESIDENT), Info::new(out))) }
}

fn resident_info(resident: In<df11_resident>, out: Info<df11_resident_info>) -> Result<()> {
    let out = out.clear()?;
    let resident = &resident.get()?.resident;
    let (extent, slices) = (resident.extent(), resident.slices());
    out.set(&df11_resident_info {
        struct_size: 0,
        image: resident.image(),
        image_bytes: resident.image_bytes(),
        element_count: resident.element_count(),
        tensor_count: resident.ends().len() as u64,
        tensor_ends: resident.ends().as_ptr(),
        first_element: extent.first,
        first_tensor: extent.first_tensor.into(),
        group_element_count: extent.group_weights,
        group_tensor_count: extent.group_tensors.into(),
        slice_count: slices.len() as u64,
        slices: if slices.is_empty() { ptr::null() } else { slices.as_ptr().cast() },
    })
}

/// Frees a resident, from any thread. NULL is allowed. No device memory is touched or freed,
/// nothing is waited for, and decodes that are in streams or graphs go on.
///
/// # Safety
///
/// No call uses `resident` any more, and no stream still has to execute its upload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_free(resident: *mut df11_resident) {
    // SAFETY: C caller: `resident` is NULL or is freed once, and nobody uses it any more.
    let resident = unsafe { Owned::new(resident) };
    quietly(|| resident.free());
}
