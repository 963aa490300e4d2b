//! zstd on the bf16 bytes as they are.

use crate::contest::Contestant;
use std::ffi::CStr;

fn check(code: usize) -> Result<usize, String> {
    // SAFETY: takes a number, returns a static text.
    unsafe {
        if zstd_sys::ZSTD_isError(code) == 0 {
            return Ok(code);
        }
        Err(CStr::from_ptr(zstd_sys::ZSTD_getErrorName(code)).to_string_lossy().into_owned())
    }
}

fn name(level: i32) -> String {
    format!("zstd -{level} on the whole")
}

/// Weights as zstd stores them, and its decompressor.
pub struct Zstd {
    level: i32,
    bytes: Vec<u8>,
    context: *mut zstd_sys::ZSTD_DCtx,
}

impl Zstd {
    /// Compresses.
    pub fn new(weights: &[u16], level: i32) -> Result<Zstd, String> {
        let mut encoder = Encoder::new(weights, level)?;
        encoder.compress()?;
        let bytes = encoder.stored().to_vec();
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
        name(self.level)
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.bytes.len())
    }

    fn work(&mut self, dst: &mut [u16]) -> Result<(), String> {
        decompress(self.context, &self.bytes, dst)
    }
}

/// `context` is one of zstd's that nobody else uses.
fn decompress(context: *mut zstd_sys::ZSTD_DCtx, bytes: &[u8], dst: &mut [u16]) -> Result<(), String> {
    let room = size_of_val(dst);
    // SAFETY: both pointers come with their sizes, and the context is the caller's alone.
    let n = check(unsafe {
        zstd_sys::ZSTD_decompressDCtx(context, dst.as_mut_ptr().cast(), room, bytes.as_ptr().cast(), bytes.len())
    })?;
    if n == room { Ok(()) } else { Err(format!("{n} bytes instead of {room}")) }
}

/// zstd's compressor, and memory for what it makes.
pub struct Encoder<'a> {
    weights: &'a [u16],
    level: i32,
    bytes: Vec<u8>,
    stored: usize,
    context: *mut zstd_sys::ZSTD_CCtx,
}

impl<'a> Encoder<'a> {
    /// Ready to compress.
    pub fn new(weights: &'a [u16], level: i32) -> Result<Self, String> {
        // SAFETY: takes a number.
        let bytes = vec![0x55; unsafe { zstd_sys::ZSTD_compressBound(size_of_val(weights)) }];
        // SAFETY: takes nothing.
        let context = unsafe { zstd_sys::ZSTD_createCCtx() };
        if context.is_null() {
            return Err("out of memory".into());
        }
        Ok(Encoder { weights, level, bytes, stored: 0, context })
    }

    fn compress(&mut self) -> Result<(), String> {
        // SAFETY: both pointers come with their sizes, and the context is ours alone.
        self.stored = check(unsafe {
            zstd_sys::ZSTD_compressCCtx(
                self.context,
                self.bytes.as_mut_ptr().cast(),
                self.bytes.len(),
                self.weights.as_ptr().cast(),
                size_of_val(self.weights),
                self.level,
            )
        })?;
        Ok(())
    }

    fn stored(&self) -> &[u8] {
        &self.bytes[..self.stored]
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        // SAFETY: created by `new` and used by nobody else.
        unsafe { zstd_sys::ZSTD_freeCCtx(self.context) };
    }
}

impl Contestant for Encoder<'_> {
    fn name(&self) -> String {
        name(self.level)
    }

    fn stored_bytes(&self) -> Option<usize> {
        Some(self.stored)
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        self.compress()
    }

    fn answer(&mut self, dst: &mut [u16]) -> Result<(), String> {
        // SAFETY: takes nothing. Freed below, whatever came of it.
        let context = unsafe { zstd_sys::ZSTD_createDCtx() };
        if context.is_null() {
            return Err("out of memory".into());
        }
        let result = decompress(context, self.stored(), dst);
        // SAFETY: created above.
        unsafe { zstd_sys::ZSTD_freeDCtx(context) };
        result
    }
}
