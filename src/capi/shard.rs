//! Shards: what each of several devices holds of a group, for tensor parallelism.

use super::args::{In, Info, List, Out, Owned, destination};
use super::frame::{call, quietly};
use super::image::{c_slice, df11_image_info, df11_slice, info_of};
use super::model::{MODEL, df11_model, group_of};
use super::progress::df11_progress;
use super::status::{df11_error, df11_status};
use crate::cuda::{Segment, Shard, Slice, SplitRule};
use crate::error::{Error, Result};
use crate::format::MOST_TENSORS;
use crate::progress::Progress;
use std::ffi::c_void;
use std::ptr;

/// Each rank gets as many units. Refused if the units do not divide by the ranks, as vLLM and
/// Megatron refuse it.
pub const DF11_SPLIT_EVEN: u32 = 0;
/// As DF11_SPLIT_EVEN; but where there are more ranks than units, each unit goes to as many ranks
/// as there are for one, as engines divide heads of keys and values. Refused if the ranks do not
/// divide by the units then.
pub const DF11_SPLIT_REPLICATE: u32 = 1;
/// The first ranks get one unit more than the last ones, or as many.
pub const DF11_SPLIT_SPREAD: u32 = 2;
/// Each rank gets as many units, rounded up, and the last ones what is left, or nothing, as engines
/// divide a vocabulary that they pad to a multiple of the ranks. The padding is not in the file.
pub const DF11_SPLIT_PAD: u32 = 3;

/// The `dimension` of df11_model_get_slices() that follows from the tensor's name.
pub const DF11_DIMENSION_BY_NAME: u32 = 4294967295;

/// Consecutive rows or columns of a tensor that ranks divide alike: all of a dimension, or those of
/// one of the matrices that a fused tensor joins.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_segment {
    /// Rows or columns.
    pub extent: u64,
    /// Rows or columns that stay together, such as those of a head. 0 means 1.
    pub unit: u64,
    /// DF11_SPLIT_*
    pub rule: u32,
    /// 0
    pub reserved: u32,
}

const _: () = assert!(size_of::<df11_segment>() == 24);

/// Slices of a group, counted, so that their image can be written. It never changes: any number of
/// threads may use it at once.
pub struct df11_shard {
    shard: Shard<'static>,
}

/// What messages call a shard.
const SHARD: &str = "the shard";

impl df11_segment {
    fn get(self) -> Result<Segment> {
        let rule = match self.rule {
            DF11_SPLIT_EVEN => SplitRule::Even,
            DF11_SPLIT_REPLICATE => SplitRule::Replicate,
            DF11_SPLIT_SPREAD => SplitRule::Spread,
            DF11_SPLIT_PAD => SplitRule::Pad,
            other => return Err(Error::InvalidArgument(format!("there is no rule of splitting {other}"))),
        };
        if self.reserved != 0 {
            return Err(Error::UnsupportedOption("df11_segment.reserved is not 0".into()));
        }
        Ok(Segment::new(self.extent).unit(self.unit.max(1)).rule(rule))
    }
}

/// Says which rows or columns of a segment a rank holds: `*count` of them from `*first` on. Ranks
/// are 0 to `world` - 1. `*count` is 0 only by DF11_SPLIT_SPREAD and DF11_SPLIT_PAD, for ranks that
/// get nothing. After an error both are 0.
///
/// Errors: DF11_INVALID_ARGUMENT for a rank that is none, an extent that is no whole units (unless
/// by DF11_SPLIT_PAD), and for what the rule refuses; DF11_UNSUPPORTED_OPTION.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_split_segment(
    segment: *const df11_segment,
    rank: u32,
    world: u32,
    first: *mut u64,
    count: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `segment` is NULL or readable, the outputs are NULL or writable.
    unsafe {
        call(error, || {
            let (first, count) = (Out::new(first).clear(0)?, Out::new(count).clear(0)?);
            let share = In::new(segment, "the segment").get()?.get()?.share(rank, world)?;
            first.set(share.start);
            count.set(share.end - share.start);
            Ok(())
        })
    }
}

/// Makes the slices that a rank holds of one of a group's tensors, for df11_model_make_shard().
/// `tensor` is its number among those of the group: the tensor's number in the model is
/// df11_group_info.first_tensor + this. `dimension` is the one that is divided: 0 for the rows of a
/// matrix, 1 for its columns. DF11_DIMENSION_BY_NAME takes the one by which tensor parallelism
/// divides a matrix of this name: rows of q_proj, k_proj, v_proj, gate_proj, up_proj, embeddings
/// and heads, columns of o_proj and down_proj, and their like (docs/shards.md).
///
/// `segments` are the parts of the dimension that are divided each for itself, `segment_count` of
/// them, one after the other, and together all of it: one for each matrix that a fused tensor joins
/// (gate and up; queries, keys and values). NULL and 0 mean one segment that is divided evenly. By
/// name, matrices that have heads or join several matrices need segments, because units must stay
/// together. `slices` receives `segment_count` slices, or one if there are no segments, in their
/// order. One of a share that is empty has no elements, and may be given to
/// df11_model_make_shard().
///
/// If the group holds only a run of the tensor (experts), the slices are of that run. The shape of
/// the tensor must be known (df11_tensor_info.shape_known): where no file says it, give it by
/// df11_open_options. After an error `slices` is zeros, if the numbers could be read.
///
/// Errors: DF11_NOT_FOUND (no such group or tensor, or a name that does not tell);
/// DF11_INVALID_ARGUMENT for a shape that is not known, a dimension that the tensor does not have,
/// more than 1,024 segments or some that are not all of it, what df11_split_segment() refuses, and
/// a run that is not whole in the dimension; DF11_UNSUPPORTED_OPTION.
///
/// # Safety
///
/// `slices` has room for as many slices as are written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_get_slices(
    model: *const df11_model,
    group: u64,
    tensor: u64,
    dimension: u32,
    segments: *const df11_segment,
    segment_count: usize,
    rank: u32,
    world: u32,
    slices: *mut df11_slice,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `segment_count` segments can be read, and there is room for as many
    // slices, or one.
    unsafe {
        call(error, || {
            if segment_count as u64 > MOST_TENSORS {
                let reason = format!("{segment_count} segments: an image holds {MOST_TENSORS} slices at most");
                return Err(Error::InvalidArgument(reason));
            }
            let outs: Vec<_> = (0..segment_count.max(1)).map(|i| Out::new(slices.wrapping_add(i))).collect();
            let outs: Vec<_> =
                outs.into_iter().map(|out| out.clear(c_slice(Slice::default()))).collect::<Result<_>>()?;
            let segments = List::new(segments, segment_count, "the segments").get()?;
            let segments: Vec<Segment> = segments.iter().map(|segment| segment.get()).collect::<Result<_>>()?;
            let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
            let dimension = (dimension != DF11_DIMENSION_BY_NAME).then_some(dimension as usize);
            let found =
                group.slices(usize::try_from(tensor).unwrap_or(usize::MAX), dimension, &segments, rank, world)?;
            outs.iter().zip(found).for_each(|(out, slice)| out.set(c_slice(slice)));
            Ok(())
        })
    }
}

/// Counts slices of a group, so that their image can be written: the part of one of several devices
/// that share the work of a layer. Slices may be columns, rows, whole tensors, or any other
/// elements at equal distances, in any order, at most 1,024; several may be of one tensor. The
/// image has them one after the other: slice i is its tensor i. Its codes are new, and made with
/// the group's own table, so that it takes as many bits a weight as the group. (A range of rows
/// alone needs no new codes: see df11_model_write_image_range().)
///
/// The weights of the slices, and those between near ones, are decoded a piece at a time; there is
/// no copy of the whole. `threads` threads work, the calling one among them; 0 means 1. Each
/// allocates less than 4 MB, and all end before the call returns. `progress` is NULL, or counts and
/// cancels the call.
///
/// On success `*out` is the shard, to be given to df11_shard_free(); otherwise it is NULL.
///
/// Errors: DF11_NOT_FOUND (no such group); DF11_INVALID_ARGUMENT for a slice that leaves its tensor
/// or overlaps itself, and for no weights at all, or 2^32 and more; DF11_UNSUPPORTED_FORMAT where
/// df11_group_info.image_bytes is 0; those of df11_model_decompress(); DF11_OUT_OF_MEMORY,
/// DF11_CANCELLED.
///
/// # Safety
///
/// The model stays open until the shard is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_make_shard(
    model: *const df11_model,
    group: u64,
    slices: *const df11_slice,
    slice_count: usize,
    threads: u32,
    progress: *mut df11_progress,
    out: *mut *mut df11_shard,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL, or open until the shard is freed; `slice_count` slices can be read, `progress` is
    // NULL or open, `out` is NULL or writable.
    unsafe {
        call(error, || {
            let out = Out::new(out).clear(ptr::null_mut())?;
            let slices = List::new(slices.cast::<Slice>(), slice_count, "the slices");
            let progress = In::new(progress, "the progress");
            let group = group_of(&In::<'static>::new(model, MODEL).get()?.model, group)?;
            let shard = watched(progress, |progress| group.shard(slices.get()?, threads as usize, progress))?;
            out.give(df11_shard { shard });
            Ok(())
        })
    }
}

/// Runs `work` with the caller's progress, or with none.
pub(super) fn watched<T>(progress: In<df11_progress>, work: impl FnOnce(&Progress) -> Result<T>) -> Result<T> {
    let none = Progress::new();
    let progress = progress.given().map_or(&none, |p| &p.progress);
    progress.reset();
    work(progress)
}

/// Describes the image of a shard: `image_bytes` is what df11_shard_write_image() needs. After an
/// error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left alone.
///
/// Errors: DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_shard_get_image_info(
    shard: *const df11_shard,
    out: *mut df11_image_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `shard` is NULL or not freed, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || image_info(In::new(shard, SHARD), Info::new(out))) }
}

fn image_info(shard: In<df11_shard>, out: Info<df11_image_info>) -> Result<()> {
    let out = out.clear()?;
    out.set(&info_of(shard.get()?.shard.layout()))
}

/// Writes the image of a shard to `dst`, a buffer of `dst_bytes` bytes that you provide, with any
/// alignment, pinned or not; nothing is read from it. Copy it to a device, and give it to
/// df11_device_bind_image(). The bytes depend on the group and the slices alone. The head says
/// which slices they are (df11_image_get_slice()). Decoding counts from the image's first weight:
/// df11_resident_decompress_range() numbers the weights of all slices from 0, and
/// df11_resident_decompress_tensors() has a destination for each slice.
///
/// `threads` threads work, the calling one among them; 0 means 1. Each allocates less than 4 MB,
/// and all end before the call returns. `progress` is NULL, or counts and cancels the call.
///
/// Errors: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL; those of df11_model_decompress();
/// DF11_OUT_OF_MEMORY, DF11_CANCELLED. After an error that is not the buffer's the first 256 bytes
/// are zeros: no image.
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_shard_write_image(
    shard: *const df11_shard,
    dst: *mut c_void,
    dst_bytes: usize,
    threads: u32,
    progress: *mut df11_progress,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `shard` is NULL or not freed, `dst_bytes` bytes at `dst` are this call's, `progress` is NULL or open.
    unsafe {
        call(error, || {
            let shard = &In::new(shard, SHARD).get()?.shard;
            let (dst, progress) = (destination(dst)?, In::new(progress, "the progress"));
            watched(progress, |progress| shard.write_image_raw(dst, dst_bytes as u64, threads as usize, progress))
        })
    }
}

/// Frees a shard, from any thread. NULL is allowed. Images that it has written stay.
///
/// # Safety
///
/// No call uses `shard` any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_shard_free(shard: *mut df11_shard) {
    // SAFETY: C caller: `shard` is NULL or is freed once, and nobody uses it any more.
    let shard = unsafe { Owned::new(shard) };
    quietly(|| shard.free());
}
