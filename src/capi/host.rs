//! Decoding on the CPU.

use super::model::{df11_model, group_of, handle, tensor_of};
use super::status::{df11_error, df11_status, frame};
use crate::error::Error;
use crate::host::DecodeOptions;
use std::ffi::c_void;

/// Decodes `count` weights of a group on the CPU, from its weight `first` on (both in elements), into `dst`: bf16 bits in
/// the processor's byte order, 2 bytes each.
///
/// `dst` belongs to the caller, is aligned to 2 bytes (64 is fastest) and holds `dst_bytes` bytes, at least 2 * count.
/// `threads` threads work, the calling one among them, and are gone when the call returns; 0 means 1. Fewer work where
/// there is too little to do. Nothing is allocated but 16 KiB once for each group, and less than 1 MB per thread for the
/// time of the call. Calls from several threads may overlap, on one group too.
///
/// Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT (a range outside the group), DF11_BUFFER_TOO_SMALL,
/// DF11_MISALIGNED; DF11_CORRUPT if the codes contradict the tables or a file has become shorter; DF11_IO with
/// DF11_OPEN_READ. After the latter two `dst` holds anything.
///
/// # Safety
///
/// The pointers are as described, and nobody else uses `dst` during the call.
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
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let group = group_of(&handle(model)?.model, group)?;
            let needed = count.saturating_mul(2);
            if needed > dst_bytes as u64 {
                // A range outside the group is the larger mistake; say that first.
                let n = group.element_count();
                if first.checked_add(count).is_some_and(|end| end <= n) {
                    return Err(Error::BufferTooSmall {
                        what: "the destination".into(),
                        needed,
                        given: dst_bytes as u64,
                    });
                }
            }
            let dst = destination(dst, needed.min(dst_bytes as u64) as usize)?.cast::<u16>();
            if !dst.is_aligned() {
                return Err(Error::Misaligned { what: "the destination".into(), to: 2 });
            }
            let options = DecodeOptions::new().threads(threads as usize);
            group.decompress_raw(first, count, dst, &options)?;
            Ok(())
        })
    }
}

/// Copies or decodes bytes of any tensor: `dst_bytes` of its values, from their byte `offset` on. For a tensor in a group
/// both must be even and `dst` aligned to 2. `threads` and all else are as for df11_model_decompress().
///
/// Errors: DF11_NOT_FOUND (no such tensor), DF11_INVALID_ARGUMENT (bytes outside the tensor, or half a weight),
/// DF11_MISALIGNED, DF11_CORRUPT, DF11_IO.
///
/// # Safety
///
/// The pointers are as described, and nobody else uses `dst` during the call.
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
    // SAFETY: by the caller's promise.
    unsafe {
        frame(error, || {
            let tensor = tensor_of(&handle(model)?.model, tensor)?;
            let dst = destination(dst, dst_bytes)?;
            let options = DecodeOptions::new().threads(threads as usize);
            tensor.read_raw(offset, dst, dst_bytes, &options)?;
            Ok(())
        })
    }
}

/// A place to write to. Nothing can be written to NULL, but nothing may be.
fn destination(dst: *mut c_void, bytes: usize) -> Result<*mut u8, Error> {
    match dst {
        _ if bytes == 0 => Ok(std::ptr::dangling_mut::<u16>().cast()),
        dst if dst.is_null() => Err(Error::InvalidArgument("the destination is NULL".into())),
        dst => Ok(dst.cast()),
    }
}
