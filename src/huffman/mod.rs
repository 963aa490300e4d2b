//! The coders: exponents to bits and back. This module knows codes and bit streams; it knows neither files nor tensors
//! nor threads.
//!
//! - [`code`]: a prefix code over exponents, as a checked table;
//! - [`rows`]: the look-up rows that a DF11 file stores, read into such a table, and written;
//! - [`codebook`]: the code that the reference compressor makes of a histogram;
//! - [`naive`]: the bit-by-bit decoder. It is the oracle of every test and is never made faster;
//! - [`table`]: the multi-symbol table of the fast decoder;
//! - [`decode`]: the fast decoder;
//! - [`encode`]: the fast encoder;
//! - [`marks`]: finds the bit of every n-th code;
//! - [`walk`]: compares every code with every recorded gap and position, for verification.
//!
//! A file of `decode` and `encode` is named after the instruction set that it is for.

pub mod code;
pub mod codebook;
pub mod decode;
pub mod encode;
pub mod marks;
pub mod naive;
pub mod rows;
pub mod table;
pub mod walk;

/// Bytes of code words that one *chunk* holds: the unit of `gaps`.
pub const CHUNK_BYTES: usize = 8;
/// Bits of a chunk.
pub const CHUNK_BITS: usize = CHUNK_BYTES * 8;
/// Chunks in a block (`threads_per_block` of the reference).
pub const CHUNKS_PER_BLOCK: usize = 512;
/// Bytes of code words that one *block* holds: the unit of `output_positions`.
pub const BLOCK_BYTES: usize = CHUNK_BYTES * CHUNKS_PER_BLOCK;
/// Bits of a block.
pub const BLOCK_BITS: usize = BLOCK_BYTES * 8;
/// Bytes of `gaps` for one block: 512 values of 5 bits.
pub const GAP_BYTES_PER_BLOCK: usize = CHUNKS_PER_BLOCK * 5 / 8;
/// The longest code word that the format allows, in bits.
pub const MAX_CODE_BITS: u32 = 32;

/// Returns 32 bits of `code` from bit `at`, first bit on top; zeros after the end.
#[inline]
pub(crate) fn window(code: &[u8], at: usize) -> u32 {
    let rest = &code[(at >> 3).min(code.len())..];
    let bytes = rest.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; 8];
        bytes[..rest.len()].copy_from_slice(rest);
        bytes
    });
    ((u64::from_be_bytes(bytes) << (at & 7)) >> 32) as u32
}

/// Returns the gap of a chunk, given the gaps from chunk 0 on as files pack them; `None` if these do not have it.
#[inline]
pub(crate) fn gap(gaps: &[u8], chunk: usize) -> Option<usize> {
    let bit = chunk * 5;
    let first = *gaps.get(bit / 8)? as usize;
    // The last gap may end with the last byte.
    let second = gaps.get(bit / 8 + 1).copied().unwrap_or(0) as usize;
    Some((first << 8 | second) >> (11 - bit % 8) & 31)
}

/// Orders what this thread has written past the caches before what it writes from now on. Such stores are ordered with
/// nothing else, and other threads must see them when a call returns. (Miri knows no such stores.)
pub(crate) fn fence() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instruction is part of x86-64's baseline.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

/// Joins an exponent and a sign/mantissa byte to the bits of a bf16 (FORMAT: sign in bit 7, seven mantissa bits below).
#[inline(always)]
pub(crate) fn join(exponent: u8, sign_mantissa: u8) -> u16 {
    let sm = sign_mantissa as u16;
    (sm << 8 | sm) & 0x807f | (exponent as u16) << 7
}
