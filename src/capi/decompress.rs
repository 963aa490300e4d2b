//! Decoding on a CUDA stream: the hot path.

use super::device::{df11_devptr, df11_stream};
use super::resident::{df11_resident, resident_of};
use super::status::{df11_error, df11_status, frame};
use crate::cuda::Stream;
use crate::cuda::launch::decompress_batch_of;
use crate::error::{Error, Result};

/// Decodes a whole group on the device: `bytes` bytes at `d_dst`, at least 2 * element_count, an address that is a
/// multiple of 2 (16 is fastest). Work is put into `stream`, and the call returns before it is done.
///
/// Nothing is allocated, on host or device, and nothing is waited for, loaded or locked. The call may be captured in a
/// graph, and made from any thread, whatever context is current there, which stays so. `stream` belongs to the device's
/// context, and is not NULL (see DF11_DEVICE_ALLOW_DEFAULT_STREAM).
///
/// `d_status` is 0, or the address of a uint32_t in device memory, a multiple of 4, which the caller has set to 0: it
/// is raised to DF11_CORRUPT if the image contradicts itself (the file was damaged, or its gaps and positions lie), and
/// otherwise left alone. The destination then holds anything. Nothing outside it is ever written.
///
/// Errors, after which nothing was enqueued: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED,
/// DF11_DEFAULT_STREAM, DF11_WRONG_DEVICE (a stream of another context), DF11_CUDA (the driver refused the launch; a
/// failure of earlier work in the same context shows here too), DF11_CAPTURING (the stream's capture was broken
/// before).
///
/// # Safety
///
/// The handles are as described. Image, destination and status are memory of the stream's context until it has passed
/// the work; nobody writes the image or uses the destination meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress(
    resident: *const df11_resident,
    d_dst: df11_devptr,
    bytes: usize,
    d_status: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let resident = resident_of(resident)?;
            resident.decompress(d_dst, bytes as u64, d_status, Stream::from_raw(stream.cast()))
        })
    }
}

/// Decodes `count` weights of a group, from its weight `first` on (both in elements): exactly those 2 * count bytes are
/// written. All else is as for df11_resident_decompress(). A count of 0 is nothing to do.
///
/// Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for a range outside the group.
///
/// # Safety
///
/// As for df11_resident_decompress().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress_range(
    resident: *const df11_resident,
    first: u64,
    count: u64,
    d_dst: df11_devptr,
    bytes: usize,
    d_status: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let stream = Stream::from_raw(stream.cast());
            resident_of(resident)?.decompress_range(first, count, d_dst, bytes as u64, d_status, stream)
        })
    }
}

/// Decodes each tensor of a group to a destination of its own: tensor i, in the order of their weights, to `d_dsts[i]`,
/// which holds `bytes[i]` bytes. `count` is the group's tensor_count. A destination of 0 leaves its tensor out. One
/// launch does up to 32 tensors; destinations that follow each other without a gap count as one. Both lists are in host
/// memory and read during the call only. All else is as for df11_resident_decompress().
///
/// Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for another count. If a group has more than 32 tensors and
/// the driver refuses a launch that is not the first, the earlier ones are in the stream; the message says so.
///
/// # Safety
///
/// As for df11_resident_decompress(); no two destinations overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress_tensors(
    resident: *const df11_resident,
    d_dsts: *const df11_devptr,
    bytes: *const usize,
    count: usize,
    d_status: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let (dsts, bytes) = (list("d_dsts", d_dsts, count)?, list("bytes", bytes.cast::<u64>(), count)?);
            let resident = resident_of(resident)?;
            resident.decompress_tensors(dsts, bytes, d_status, Stream::from_raw(stream.cast()))
        })
    }
}

/// Decodes `count` whole groups: resident i to `d_dsts[i]`, which holds `bytes[i]` bytes. All lists are in host memory and read
/// during the call only; the residents may come from several device handles, but of one context. One launch does up to 32
/// groups. `d_statuses` is 0, or the address of `count` uint32_t in device memory, one for each group. All else is as for
/// df11_resident_decompress(). A count of 0 is nothing to do.
///
/// Errors: as for df11_resident_decompress(); DF11_WRONG_DEVICE for residents of several contexts. If there are more than 32
/// groups and the driver refuses a launch that is not the first, the earlier ones are in the stream; the message says
/// so.
///
/// # Safety
///
/// As for df11_resident_decompress(); no two destinations overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_resident_decompress_batch(
    residents: *const *const df11_resident,
    d_dsts: *const df11_devptr,
    bytes: *const usize,
    count: usize,
    d_statuses: df11_devptr,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let (dsts, bytes) = (list("d_dsts", d_dsts, count)?, list("bytes", bytes.cast::<u64>(), count)?);
            let residents = list("residents", residents, count)?;
            if let Some(i) = residents.iter().position(|resident| resident.is_null()) {
                return Err(Error::InvalidArgument(format!("residents[{i}] is NULL")));
            }
            let at = |i: usize| &(*residents[i]).resident;
            decompress_batch_of(at, dsts, bytes, d_statuses, Stream::from_raw(stream.cast()))
        })
    }
}

/// A list of the caller's. NULL is one of no elements.
///
/// # Safety
///
/// `at` is NULL, or so many elements can be read there.
unsafe fn list<'a, T>(name: &str, at: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(Error::InvalidArgument(format!("{name} is NULL")));
    }
    if !at.is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        return Err(Error::InvalidArgument(format!("{name} at {at:p} is no list of {count}")));
    }
    // SAFETY: by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(at, count) })
}
