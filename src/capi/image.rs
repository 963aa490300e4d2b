//! Images: groups as a CUDA device decodes them, in host memory. No CUDA call is made here.

use super::args::{Bytes, In, Info, destination};
use super::frame::call;
use super::model::{MODEL, df11_model, group_of};
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use crate::cuda::image::{self, Head};
use crate::error::Result;
use std::ffi::c_void;

/// The head of no image has more bytes.
pub const DF11_IMAGE_HEAD_BYTES_MAX: u64 = 41216;
const _: () = assert!(DF11_IMAGE_HEAD_BYTES_MAX == image::MOST_HEAD_BYTES);

/// An image. Begin with DF11_IMAGE_INFO_INIT.
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

const _: () = assert!(size_of::<df11_image_info>() == 40);

/// Writes the image of a group to host memory: df11_group_info.image_bytes bytes, which a CUDA
/// device can decode once they are in its memory, at an address that is a multiple of 256. An image
/// holds no address: it may be kept, sent and moved. Its bytes depend on the group alone. No CUDA is
/// needed. Every code is walked, so that what was written decodes.
///
/// `dst` is a buffer of `dst_bytes` bytes that you provide, with any alignment (64 is fastest),
/// pinned or not; nothing is read from it. One thread works: df11_model_write_image_part() is for
/// callers who have several, or who want to be able to stop between two parts. The call allocates
/// less than 100 KiB, and less than 1 MB with DF11_OPEN_READ.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL;
/// DF11_CORRUPT if the codes contradict the tables, the positions or the gaps at which blocks begin;
/// DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_IO with DF11_OPEN_READ; DF11_OUT_OF_MEMORY.
/// After an error that is the file's, the first 256 bytes are zeros: no image.
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_write_image(
    model: *const df11_model,
    group: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, and `dst_bytes` bytes at `dst` are this call's.
    unsafe {
        call(error, || {
            let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
            group.write_image_raw(destination(dst)?, dst_bytes as u64, 1)
        })
    }
}

/// Writes one of `part_count` parts of an image: `part` is 0, 1, … `part_count` - 1. It is for
/// callers with threads of their own, each of which takes a part. All parts go to the same `dst` of
/// `dst_bytes` bytes, in any order or at once, and no two write the same byte. The bytes are those
/// of df11_model_write_image(), for any number of parts. Part 0 writes the head.
///
/// If any part fails, there is no image, whatever the others wrote: look at every result before you
/// use the image. (A part that fails clears its share of the index, so that a decode that is started
/// all the same reports DF11_CORRUPT.)
///
/// Errors: as for df11_model_write_image(); DF11_INVALID_ARGUMENT for a part that is not below
/// `part_count`.
///
/// # Safety
///
/// Nobody but calls for other parts uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_write_image_part(
    model: *const df11_model,
    group: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    part: u32,
    part_count: u32,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, and `dst_bytes` bytes at `dst` are those of calls for other parts,
    // which write other bytes.
    unsafe {
        call(error, || {
            let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
            let (dst, dst_bytes) = (destination(dst)?, dst_bytes as u64);
            group.write_image_part(dst, dst_bytes, part.into(), part_count.into())
        })
    }
}

/// Describes an image by its head: `head_bytes` of its first bytes in host memory, as for
/// df11_device_bind_image(). No CUDA call is made. After an error `*out` is cleared except for its
/// struct_size; if that is wrong, `*out` is left alone.
///
/// Errors: DF11_INVALID_FORMAT if the bytes are no image's, DF11_UNSUPPORTED_FORMAT for an image of
/// another version, DF11_CORRUPT for a head that is damaged or cut short; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_image_get_info(
    head: *const c_void,
    head_bytes: usize,
    out: *mut df11_image_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `head_bytes` bytes can be read at `head`, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || image_info(Bytes::new(head, head_bytes, HEAD), Info::new(out))) }
}

/// What messages call the first bytes of an image.
pub(super) const HEAD: &str = "the head";

fn image_info(head: Bytes, out: Info<df11_image_info>) -> Result<()> {
    let out = out.clear()?;
    let head = Head::parse(head.get()?)?;
    let layout = head.layout();
    out.set(&df11_image_info {
        struct_size: 0,
        image_bytes: layout.image_bytes,
        head_bytes: layout.head_bytes(),
        element_count: layout.weights,
        tensor_count: layout.tensors as u64,
    })
}
