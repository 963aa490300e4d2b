//! Images: groups as a CUDA device decodes them, in host memory. No CUDA call is made here.

use super::args::{Bytes, In, Info, Out, destination};
use super::frame::call;
use super::model::{MODEL, df11_model, group_of};
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use crate::cuda::LinearHead;
use crate::cuda::image::linear::{LINEAR_MAGIC, MOST_LINEAR_HEAD_BYTES};
use crate::cuda::image::{self, Head, ImageLayout, Slice};
use crate::error::{Error, Result};
use std::ffi::c_void;
use std::mem::offset_of;

/// The head of no image has more bytes.
pub const DF11_IMAGE_HEAD_BYTES_MAX: u64 = 65792;
const _: () = assert!(DF11_IMAGE_HEAD_BYTES_MAX == MOST_LINEAR_HEAD_BYTES);
const _: () = assert!(DF11_IMAGE_HEAD_BYTES_MAX >= image::MOST_HEAD_BYTES);

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
    /// Weights that it holds.
    pub element_count: u64,
    /// Tensors of which it holds weights; slices, if it has some.
    pub tensor_count: u64,
    /// The number of its first weight among those of the group. It holds this one and those that
    /// follow. 0 if it holds slices: their weights are numbered from 0.
    pub first_element: u64,
    /// The number of its first tensor among those of the group; 0 if it holds slices.
    pub first_tensor: u64,
    /// Weights of the whole group.
    pub group_element_count: u64,
    /// Tensors of the whole group.
    pub group_tensor_count: u64,
    /// Slices that it holds (df11_shard_write_image()); 0 for a range and for a whole group.
    pub slice_count: u64,
}

// SAFETY: repr(C), begins with its size, ten words.
unsafe impl Sizeable for df11_image_info {
    const NAME: &'static str = "df11_image_info";
    const FIRST: usize = 80;
}

const _: () = assert!(size_of::<df11_image_info>() == 80);

/// A slice: elements of one of a group's tensors. They are `run_count` runs of `run_elements`
/// elements each: the first run begins at element `first` of the tensor, every other one
/// `run_stride` elements after the one before. Rows are one run; columns are one run of each row.
/// df11_model_get_slices() makes slices of a tensor's dimensions.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_slice {
    /// The number of the tensor among those of its group: df11_group_info.first_tensor +
    /// this is its number in the model.
    pub tensor: u32,
    /// The tensor's elements before the first run. If the group has only a run of the tensor
    /// (df11_run_info), they count from there.
    pub first: u32,
    /// Elements of a run.
    pub run_elements: u32,
    /// Elements from the beginning of a run to that of the next: at least those of a run.
    pub run_stride: u32,
    /// The number of runs.
    pub run_count: u32,
}

// The library's own, so that lists of one are lists of the other.
const _: () = {
    assert!(
        size_of::<df11_slice>() == size_of::<Slice>() && offset_of!(df11_slice, tensor) == offset_of!(Slice, tensor)
    );
    assert!(offset_of!(df11_slice, first) == offset_of!(Slice, first));
    assert!(offset_of!(df11_slice, run_elements) == offset_of!(Slice, run_elements));
    assert!(offset_of!(df11_slice, run_stride) == offset_of!(Slice, run_stride));
    assert!(offset_of!(df11_slice, run_count) == offset_of!(Slice, run_count));
};

/// Writes the image of a group to host memory: df11_group_info.image_bytes bytes, which a CUDA
/// device can decode once they are in its memory, at an address that is a multiple of 256. An image
/// holds no address: it may be kept, sent and moved. Its bytes depend on the group alone. No CUDA
/// is needed. Every code is walked, so that what was written decodes.
///
/// `dst` is a buffer of `dst_bytes` bytes that you provide, with any alignment (64 is fastest),
/// pinned or not; nothing is read from it. One thread works: df11_model_write_image_part() is for
/// callers who have several, or who want to be able to stop between two parts. The call allocates
/// less than 100 KiB, and less than 1 MB with DF11_OPEN_READ.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL;
/// DF11_CORRUPT if the codes contradict the tables, the positions or the gaps at which blocks
/// begin; DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_IO with DF11_OPEN_READ;
/// DF11_OUT_OF_MEMORY. After an error that is the file's, the first 256 bytes are zeros: no image.
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
/// use the image. (A part that fails clears its share of the index, so that a decode that is
/// started all the same reports DF11_CORRUPT.)
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

/// Describes the image of `count` of a group's weights, from its weight `first` on (both in
/// elements), before df11_model_write_image_range() or df11_device_upload_range() makes it:
/// `image_bytes` is what it takes. The codes of one or two blocks are walked, to find the bits at
/// which it begins and ends. Of a whole group it is df11_group_info.image_bytes. After an error
/// `*out` is cleared except for its struct_size; if that is wrong, `*out` is left alone.
///
/// Errors: DF11_NOT_FOUND (no such group); DF11_INVALID_ARGUMENT for weights outside the group, and
/// for none; DF11_CORRUPT if the codes contradict the positions; DF11_UNSUPPORTED_FORMAT where
/// df11_group_info.image_bytes is 0; DF11_IO with DF11_OPEN_READ; DF11_OUT_OF_MEMORY.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_get_image_range_info(
    model: *const df11_model,
    group: u64,
    first: u64,
    count: u64,
    out: *mut df11_image_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || range_info(In::new(model, MODEL), group, first, count, Info::new(out))) }
}

fn range_info(model: In<df11_model>, group: u64, first: u64, count: u64, out: Info<df11_image_info>) -> Result<()> {
    let out = out.clear()?;
    let group = group_of(&model.get()?.model, group)?;
    out.set(&info_of(&group.image_range_layout(first, count)?))
}

/// Writes the image of `count` of a group's weights, from its weight `first` on (both in elements),
/// as df11_model_write_image() writes that of all: a range of rows of a tensor, a tensor or a few,
/// or any other. It is for devices that share the work of a layer, and hold a part of it each. Its
/// head says which weights and tensors it holds. Codes are those of the file, so that of these
/// parts together no more than a few bytes are held twice.
///
/// Decoding counts as for the whole group: df11_resident_decompress_range() takes the numbers of
/// the group's weights, and df11_resident_decompress_tensors() one destination for each tensor of
/// which there are weights, which receives those.
///
/// `dst` is as for df11_model_write_image(); df11_model_get_image_range_info() says how many bytes
/// are needed. `threads` threads work, the calling one among them; 0 means 1. They end before the
/// call returns. The codes of these weights are walked, and compared with the positions and gaps of
/// the blocks in which they begin.
///
/// Errors: as for df11_model_write_image() and df11_model_get_image_range_info().
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_write_image_range(
    model: *const df11_model,
    group: u64,
    first: u64,
    count: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    threads: u32,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, and `dst_bytes` bytes at `dst` are this call's.
    unsafe {
        call(error, || {
            let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
            group.write_image_range_raw(first, count, destination(dst)?, dst_bytes as u64, threads as usize)
        })
    }
}

/// Describes an image, of either kind, by its head: `head_bytes` of its first bytes in host memory,
/// as for df11_device_bind_image(). No CUDA call is made. After an error `*out` is cleared except
/// for its struct_size; if that is wrong, `*out` is left alone.
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
    let head = head.get()?;
    match head.starts_with(&LINEAR_MAGIC) {
        true => out.set(&info_of_linear(&LinearHead::parse(head)?)),
        false => out.set(&info_of(Head::parse(head)?.layout())),
    }
}

/// Describes the image of a layout.
pub(super) fn info_of(layout: &ImageLayout) -> df11_image_info {
    let extent = layout.extent;
    df11_image_info {
        struct_size: 0,
        image_bytes: layout.image_bytes,
        head_bytes: layout.head_bytes(),
        element_count: layout.weights,
        tensor_count: layout.tensors as u64,
        first_element: extent.first,
        first_tensor: extent.first_tensor.into(),
        group_element_count: extent.group_weights,
        group_tensor_count: extent.group_tensors.into(),
        slice_count: extent.slices.into(),
    }
}

/// Describes the linear image of a head, which holds a whole group.
pub(super) fn info_of_linear(head: &LinearHead) -> df11_image_info {
    let tensors = head.tensors().len() as u64;
    df11_image_info {
        struct_size: 0,
        image_bytes: head.image_bytes(),
        head_bytes: head.head_bytes(),
        element_count: head.weights(),
        tensor_count: tensors,
        first_element: 0,
        first_tensor: 0,
        group_element_count: head.weights(),
        group_tensor_count: tensors,
        slice_count: 0,
    }
}

/// Returns a slice that an image holds, by its head: slice `slice` of
/// df11_image_info.slice_count. `head` and `head_bytes` are as for df11_image_get_info(). After an
/// error `*out` is zeros.
///
/// Errors: as for df11_image_get_info(); DF11_NOT_FOUND if the image has no such slice; a linear
/// image has none.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_image_get_slice(
    head: *const c_void,
    head_bytes: usize,
    slice: u64,
    out: *mut df11_slice,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `head_bytes` bytes can be read at `head`, `out` is NULL or writable.
    unsafe { call(error, || image_slice(Bytes::new(head, head_bytes, HEAD), slice, Out::new(out))) }
}

fn image_slice(head: Bytes, slice: u64, out: Out<df11_slice>) -> Result<()> {
    let out = out.clear(c_slice(Slice::default()))?;
    let head = head.get()?;
    let slices = match head.starts_with(&LINEAR_MAGIC) {
        true => LinearHead::parse(head).map(|_| Vec::new())?,
        false => Head::parse(head)?.slices().to_vec(),
    };
    let found = usize::try_from(slice).ok().and_then(|slice| slices.get(slice));
    let found =
        found.ok_or_else(|| Error::NotFound(format!("there is no slice {slice}: the image has {}", slices.len())))?;
    out.set(c_slice(*found));
    Ok(())
}

pub(super) fn c_slice(slice: Slice) -> df11_slice {
    let Slice { tensor, first, run_elements, run_stride, run_count } = slice;
    df11_slice { tensor, first, run_elements, run_stride, run_count }
}
