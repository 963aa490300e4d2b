//! Decoding on the CPU.

use super::args::{In, destination};
use super::frame::call;
use super::model::{MODEL, df11_model, group_of, tensor_of};
use super::status::{df11_error, df11_status};
use crate::error::{Error, Result};
use crate::host::DecodeOptions;
use std::ffi::c_void;
use std::ptr;

/// Decodes `count` weights of a group on the CPU, from its weight `first` on (both in elements),
/// into `dst`: bf16 bits in the processor's byte order, 2 bytes each.
///
/// `dst` is a buffer that you provide, aligned to 2 bytes (64 is fastest), of `dst_bytes` bytes, at
/// least 2 * count. `threads` threads work, the calling one among them; 0 means 1. They end before
/// the call returns. Fewer work where there is too little to do. The call allocates 18 KiB once for
/// each group, and less than 1 MB for each thread while it runs. Calls from several threads may
/// overlap, on one group too.
///
/// Large buffers may be written faster in huge pages, which Linux gives on request (madvise() with
/// MADV_HUGEPAGE, before they are first written). On an AMD EPYC, 140 MB of weights were decoded 8 %
/// faster, and 28 % while other cores were busy; 23 MB were not.
///
/// A range may begin anywhere. Decoding of fewer than 32,768 weights begins at a gap that the file
/// records near there, so damage near it can give other weights without an error. Larger ranges
/// begin at a block, whose codes must end where those of the next one begin. DF11_OPEN_VERIFY finds
/// all that contradicts the tables.
///
/// The call has no options, so that it costs nothing, and takes no progress. To be able to stop in
/// between, decode several ranges: those of 2^24 weights take a core some 20 ms each, and are as
/// fast as the whole.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT (a range outside the group),
/// DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED; DF11_CORRUPT if the codes contradict the tables or a file
/// has become shorter; DF11_IO with DF11_OPEN_READ. After the last two the content of `dst` is
/// undefined.
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_decompress(
    model: *const df11_model,
    group: u64,
    first: u64,
    count: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    threads: u32,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, and `dst_bytes` bytes at `dst` are this call's. `weights` returns an
    // aligned address with room for `count` weights; for a range outside the group it may have less, and `decompress_raw`
    // refuses that before it writes.
    unsafe {
        call(error, || {
            let group = group_of(&In::new(model, MODEL).get()?.model, group)?;
            let dst = weights(group.element_count(), first, count, dst, dst_bytes)?;
            group.decompress_raw(first, count, dst, &with(threads))
        })
    }
}

/// Checks the destination of some of `n` weights, and returns where they go.
pub(super) fn weights(n: u64, first: u64, count: u64, dst: *mut c_void, dst_bytes: usize) -> Result<*mut u16> {
    let needed = count.saturating_mul(2);
    if needed > dst_bytes as u64 {
        // A range outside of them is the larger mistake; say that first.
        if first.checked_add(count).is_some_and(|end| end <= n) {
            return Err(Error::BufferTooSmall { what: "the destination".into(), needed, given: dst_bytes as u64 });
        }
    }
    let dst = place(dst, needed.min(dst_bytes as u64) as usize)?.cast::<u16>();
    if !dst.is_aligned() {
        return Err(Error::Misaligned { what: "the destination".into(), to: 2 });
    }
    Ok(dst)
}

/// Copies or decodes bytes of any tensor: `dst_bytes` bytes of its values, from their byte `offset`
/// on, to `dst`. For a tensor in a group both numbers must be even, and `dst` aligned to 2 bytes.
/// `threads` and all else are as for df11_model_decompress().
///
/// Errors: DF11_NOT_FOUND (no such tensor), DF11_INVALID_ARGUMENT (bytes outside the tensor, or half
/// a weight), DF11_MISALIGNED, DF11_CORRUPT, DF11_IO.
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_read_tensor(
    model: *const df11_model,
    tensor: u64,
    offset: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    threads: u32,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, and `dst_bytes` bytes at `dst` are this call's.
    unsafe {
        call(error, || {
            let tensor = tensor_of(&In::new(model, MODEL).get()?.model, tensor)?;
            tensor.read_raw(offset, place(dst, dst_bytes)?, dst_bytes, &with(threads))
        })
    }
}

fn with(threads: u32) -> DecodeOptions {
    DecodeOptions::new().threads(threads as usize)
}

/// Checks an address to write to. NULL is allowed only for 0 bytes.
fn place(dst: *mut c_void, dst_bytes: usize) -> Result<*mut u8> {
    if dst_bytes == 0 { Ok(ptr::dangling_mut::<u16>().cast()) } else { destination(dst) }
}
