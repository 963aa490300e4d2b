//! Images: groups as a CUDA device decodes them, written to host memory. No CUDA call is made here.

use super::model::{df11_model, group_of, handle};
use super::status::{df11_error, df11_status, frame};
use crate::error::Error;
use std::ffi::c_void;

/// Writes the image of a group to `dst`: df11_group_info.image_bytes bytes, which a CUDA device can decode once they lie in
/// its memory, at an address that is a multiple of 256. An image holds no address: it may be kept, sent and moved. Its bytes
/// depend on the group alone. No CUDA is needed, and every code is walked, so what was written decodes.
///
/// `dst` is memory of the caller's, with any alignment (64 is fastest), pinned or not; nothing is read from it. One thread works:
/// df11_model_write_image_part() is for callers who have several. It allocates less than 100 KiB, and below 1 MB with DF11_OPEN_READ.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL; DF11_CORRUPT if the codes contradict
/// the tables, the positions or the gaps at which blocks begin; DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_IO
/// with DF11_OPEN_READ; DF11_OUT_OF_MEMORY. After an error that is the file's, the first 256 bytes are zeros: no image.
///
/// # Safety
///
/// The pointers are as described, and nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_write_image(
    model: *const df11_model,
    group: u64,
    dst: *mut c_void,
    bytes: usize,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let group = group_of(&handle(model)?.model, group)?;
            group.write_image_raw(destination(dst)?, bytes as u64, 1)?;
            Ok(())
        })
    }
}

/// Writes one of `parts` parts of an image: part 0, 1, … `parts` - 1. For callers with threads of their own, each of which
/// takes a part; all parts go to the same `dst`, in any order or at once, and no two write the same byte. The bytes are
/// those of df11_model_write_image(), for any number of parts. Part 0 writes the head.
///
/// If any part fails, there is no image, whatever the others wrote: look at every result before the image is used. (A part
/// that fails clears its share of the index, so that a decode that is started all the same reports DF11_CORRUPT.)
///
/// Errors: as for df11_model_write_image(); DF11_INVALID_ARGUMENT for a part that is not below `parts`.
///
/// # Safety
///
/// The pointers are as described, and nobody but calls for other parts uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_write_image_part(
    model: *const df11_model,
    group: u64,
    dst: *mut c_void,
    bytes: usize,
    part: u32,
    parts: u32,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let group = group_of(&handle(model)?.model, group)?;
            group.write_image_part(destination(dst)?, bytes as u64, part as u64, parts as u64)?;
            Ok(())
        })
    }
}

fn destination(dst: *mut c_void) -> Result<*mut u8, Error> {
    if dst.is_null() { Err(Error::InvalidArgument("the destination is NULL".into())) } else { Ok(dst.cast()) }
}
