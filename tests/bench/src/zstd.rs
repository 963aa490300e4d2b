//! zstd on the bf16 bytes as they are.

use crate::contest::Contestant;
use std::ffi::CStr;

/// Weights as zstd stores them, and its decompressor.
pub struct Zstd {
    level: i32,
    bytes: Vec<u8>,
    context: *mut zstd_sys::ZSTD_DCtx,
}

fn check(code: usize) -> Result<usize, String> {
    // SAFETY: takes a number, returns a static text.
    unsafe {
        if zstd_sys::ZSTD_isError(code) == 0 {
            return Ok(code);
        }
        Err(CStr::from_ptr(zstd_sys::ZSTD_getErrorName(code)).to_string_lossy().into_owned())
    }
}

impl Zstd {
    /// Compresses.
    pub fn new(weights: &[u16], level: i32) -> Result<Zstd, String> {
        let src = size_of_val(weights);
        // SAFETY: takes a number.
        let mut bytes = vec![0u8; unsafe { zstd_sys::ZSTD_compressBound(src) }];
        // SAFETY: both pointers come with their sizes.
        let n = check(unsafe {
            zstd_sys::ZSTD_compress(bytes.as_mut_ptr().cast(), bytes.len(), weights.as_ptr().cast(), src, level)
        })?;
        bytes.truncate(n);
        bytes.shrink_to_fit();
        // SAFETY: takes nothing.
        let context = unsafe { zstd_sys::ZSTD_createDCtx() };
        if context.is_null() { Err("out of memory".into()) } else { Ok(Zstd { level, bytes, context }) }
    }
}

impl Drop for Zstd {
    fn drop(&mut self) {
        // SAFETY: created by `new` and used by nobody else.
        unsafe { zstd_sys::ZSTD_freeDCtx(self.context) };
    }
}

impl Contestant for Zstd {
    fn name(&self) -> String {
        format!("zstd -{} on the whole", self.level)
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.bytes.len())
    }

    fn decode(&mut self, dst: &mut [u16]) -> Result<(), String> {
        let room = size_of_val(dst);
        // SAFETY: both pointers come with their sizes, and the context is ours alone.
        let n = check(unsafe {
            zstd_sys::ZSTD_decompressDCtx(
                self.context,
                dst.as_mut_ptr().cast(),
                room,
                self.bytes.as_ptr().cast(),
                self.bytes.len(),
            )
        })?;
        if n == room { Ok(()) } else { Err(format!("{n} bytes instead of {room}")) }
    }
}
