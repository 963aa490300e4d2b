//! Decoding on a CUDA stream: the hot path.

use super::args::{In, List};
use super::device::{df11_devptr, df11_stream, stream_of};
use super::frame::call;
use super::resident::{RESIDENT, df11_resident};
use super::status::{df11_error, df11_status};
use crate::cuda::Resident;
use crate::cuda::launch::decompress_batch_of;
use crate::error::{Error, Result};

/// Decodes all that an image holds, a whole group or a part, to `dst_bytes` bytes of device memory
/// at `d_dst`: at least 2 * df11_resident_info.element_count bytes, an address that is a multiple
/// of 2 (16 is fastest). Work is put into `stream`, and the call returns before it is done.
///
/// Nothing is allocated, on host or device, and nothing is waited for, loaded or locked. The call
/// may be captured in a graph. It may be made from any thread, whatever context is current there,
/// and that context stays current. `stream` belongs to the device's context, and is not NULL (see
/// DF11_DEVICE_ALLOW_DEFAULT_STREAM).
///
/// `d_status` is 0, or the address of a uint32_t in device memory, a multiple of 4, that you have
/// set to 0. It is raised to DF11_CORRUPT if the kernel notices that the image contradicts itself
/// (the file was damaged, or its gaps and positions are wrong), and otherwise left alone. The
/// content of the destination is then undefined. Nothing outside it is ever written. What is
/// compared is where each run of 104 weights ends: damage after which the codes fall into step
/// again before that, or end up to ten bits late (eleven on devices of compute capability 10.0 and
/// later), goes unnoticed. Of single changed bytes among the codes that is eight in ten. Verify a
/// model from elsewhere before you decode it here.
///
/// Errors, after which nothing was enqueued: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
/// DF11_MISALIGNED, DF11_DEFAULT_STREAM, DF11_WRONG_DEVICE (a stream of another context), DF11_CUDA
/// (the driver refused the launch; a failure of earlier work in the same context shows here too),
/// DF11_CAPTURING (the stream's capture was broken before).
///
/// # Safety
///
/// `stream` is a stream. Image, destination and status word are device memory of its context until
/// it has executed the work, and each time that a graph which captured the call is launched. Nobody
/// writes the image or uses the destination meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress(
    resident: *const df11_resident,
    d_dst: df11_devptr,
    dst_bytes: usize,
    d_status: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `resident` is NULL or not freed, `stream` is a stream, and image, destination and status word are
    // memory of its context until it has executed the work.
    unsafe {
        call(error, || {
            let resident = &In::new(resident, RESIDENT).get()?.resident;
            resident.decompress(d_dst, dst_bytes as u64, d_status, stream_of(stream))
        })
    }
}

/// Decodes `count` weights of a group, from its weight `first` on (both in elements), to
/// `dst_bytes` bytes of device memory at `d_dst`: exactly 2 * count bytes are written. All else is
/// as for df11_resident_decompress(). A count of 0 does nothing.
///
/// `first` is the number of the weight in its group, also if the image holds a range of the group
/// only: the call is the same for either. Only the weights of slices, which do not follow each
/// other in the group, are numbered from 0 in the order of the slices.
///
/// Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for weights that the image does
/// not hold: it holds element_count of them, from first_element on (df11_resident_info).
///
/// # Safety
///
/// What df11_resident_decompress() requires.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress_range(
    resident: *const df11_resident,
    first: u64,
    count: u64,
    d_dst: df11_devptr,
    dst_bytes: usize,
    d_status: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: as in df11_resident_decompress().
    unsafe {
        call(error, || {
            let resident = &In::new(resident, RESIDENT).get()?.resident;
            resident.decompress_range(first, count, d_dst, dst_bytes as u64, d_status, stream_of(stream))
        })
    }
}

/// Decodes each tensor of a group to a destination of its own: tensor i, in the order of their
/// weights, to `dst_bytes[i]` bytes of device memory at `d_dsts[i]`. `count` is the resident's
/// tensor_count. If the image holds a range of the group, destination i is for what it has of
/// tensor first_tensor + i; if it holds slices, destination i is for slice i. A destination of 0
/// leaves its tensor out. One launch does up to 32 tensors; destinations that follow each other
/// without a gap count as one. Both lists are in host memory and are read during the call only. All
/// else is as for df11_resident_decompress().
///
/// Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for another count. If a group
/// has more than 32 tensors and the driver refuses a launch that is not the first, the earlier ones
/// are in the stream; the message says so.
///
/// # Safety
///
/// What df11_resident_decompress() requires; no two destinations overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress_tensors(
    resident: *const df11_resident,
    d_dsts: *const df11_devptr,
    dst_bytes: *const usize,
    count: usize,
    d_status: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: as in df11_resident_decompress(), for each destination; they do not overlap. C caller: both lists have
    // `count` elements. A size_t has 64 bits (src/lib.rs).
    unsafe {
        call(error, || {
            let (dsts, sizes) = (List::new(d_dsts, count, "d_dsts"), List::new(dst_bytes.cast(), count, "dst_bytes"));
            let (dsts, sizes) = (dsts.get()?, sizes.get()?);
            let resident = &In::new(resident, RESIDENT).get()?.resident;
            resident.decompress_tensors(dsts, sizes, d_status, stream_of(stream))
        })
    }
}

/// Decodes `count` residents, all that each of them holds: resident i to `dst_bytes[i]` bytes of
/// device memory at `d_dsts[i]`. All lists are in host memory and are read during the call only.
/// The residents may come from several device handles, but belong to one context. One launch does
/// up to 32 groups. `d_statuses` is 0, or the address of `count` uint32_t in device memory, one for
/// each group. All else is as for df11_resident_decompress(). A count of 0 does nothing.
///
/// Errors: as for df11_resident_decompress(); DF11_WRONG_DEVICE for residents of several contexts.
/// If there are more than 32 groups and the driver refuses a launch that is not the first, the
/// earlier ones are in the stream; the message says so.
///
/// # Safety
///
/// What df11_resident_decompress() requires; no two destinations overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress_batch(
    residents: *const *const df11_resident,
    d_dsts: *const df11_devptr,
    dst_bytes: *const usize,
    count: usize,
    d_statuses: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: as in df11_resident_decompress_tensors(). C caller: each resident is NULL or not freed; an Option of a
    // reference is such a pointer.
    unsafe {
        call(error, || {
            let (dsts, sizes) = (List::new(d_dsts, count, "d_dsts"), List::new(dst_bytes.cast(), count, "dst_bytes"));
            let (dsts, sizes) = (dsts.get()?, sizes.get()?);
            let residents = List::<Option<&df11_resident>>::new(residents.cast(), count, "residents");
            decompress_batch_of(residents_of(residents.get()?)?, dsts, sizes, d_statuses, stream_of(stream))
        })
    }
}

/// Returns the residents by their place in a list that has no NULL.
fn residents_of<'a>(list: &'a [Option<&'a df11_resident>]) -> Result<impl Fn(usize) -> &'a Resident> {
    if let Some(i) = list.iter().position(Option::is_none) {
        return Err(Error::InvalidArgument(format!("residents[{i}] is NULL")));
    }
    Ok(|i: usize| &list[i].expect("looked at above").resident)
}
