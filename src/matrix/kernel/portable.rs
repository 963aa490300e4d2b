//! Without intrinsics.

use super::{Cursor, Kernel, Simd, Sums, kernel};
use crate::huffman::join;
use crate::matrix::layout::{BLOCK, ESCAPE, place};

pub(super) struct Portable;

kernel!(KERNEL, Portable);

/// Decodes 64 weights, of which `code` gives the code at each place.
#[inline(always)]
unsafe fn block(cursor: &mut Cursor, sm: *const u8, exponents: &[u8; 16], code: impl Fn(usize) -> u8) -> [u16; BLOCK] {
    let codes: [u8; BLOCK] = std::array::from_fn(code);
    let mut found: [u8; BLOCK] = std::array::from_fn(|at| exponents[codes[at] as usize]);
    if codes.contains(&ESCAPE) {
        for (at, exponent) in found.iter_mut().enumerate() {
            if codes[at] == ESCAPE && cursor.escape < cursor.end {
                // SAFETY: an escape is stored before the end.
                *exponent = unsafe { *cursor.escape };
                cursor.escape = cursor.escape.wrapping_add(1);
            }
        }
    }
    // SAFETY: 64 sign/mantissa bytes can be read.
    std::array::from_fn(|w| join(found[place(w)], unsafe { *sm.add(place(w)) }))
}

// SAFETY: every processor can run it.
unsafe impl Simd for Portable {
    type Codes = [u8; 16];
    type Block = [u16; BLOCK];
    type Acc = Sums;

    #[inline(always)]
    unsafe fn codes(exponents: &[u8; 16]) -> [u8; 16] {
        *exponents
    }
    #[inline(always)]
    unsafe fn unit(cursor: &mut Cursor, codes: &[u8; 16]) -> [[u16; BLOCK]; 2] {
        // SAFETY: 192 bytes can be read.
        unsafe {
            let unit = cursor.unit;
            let code = |at: usize| *unit.add(2 * BLOCK + at);
            [block(cursor, unit, codes, |at| code(at) & 15), block(cursor, unit.add(BLOCK), codes, |at| code(at) >> 4)]
        }
    }
    #[inline(always)]
    unsafe fn half(cursor: &mut Cursor, codes: &[u8; 16]) -> [u16; BLOCK] {
        // SAFETY: 96 bytes can be read.
        unsafe {
            let unit = cursor.unit;
            block(cursor, unit, codes, |at| *unit.add(BLOCK + at % 32) >> (at / 32 * 4) & 15)
        }
    }
    #[inline(always)]
    unsafe fn load_block(from: *const u16) -> [u16; BLOCK] {
        // SAFETY: 64 weights can be read.
        unsafe { from.cast::<[u16; BLOCK]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> [u16; BLOCK] {
        let mut block = [0; BLOCK];
        // SAFETY: 32 weights can be read.
        unsafe { std::ptr::copy_nonoverlapping(from, block.as_mut_ptr(), BLOCK / 2) };
        block
    }
    #[inline(always)]
    unsafe fn store_block(block: [u16; BLOCK], to: *mut u16) {
        // SAFETY: 64 weights can be written.
        unsafe { to.cast::<[u16; BLOCK]>().write_unaligned(block) }
    }
    #[inline(always)]
    unsafe fn load(sums: &Sums) -> Sums {
        *sums
    }
    #[inline(always)]
    unsafe fn store(acc: Sums, sums: &mut Sums) {
        *sums = acc;
    }
    #[inline(always)]
    unsafe fn load_parted(sums: &Sums) -> Sums {
        *sums
    }
    #[inline(always)]
    unsafe fn store_parted(acc: Sums, sums: &mut Sums) {
        *sums = acc;
    }
    #[inline(always)]
    unsafe fn total(acc: Sums, apart: bool) -> f64 {
        acc.total(apart)
    }
    #[inline(always)]
    unsafe fn total_parted(acc: Sums, apart: bool) -> f64 {
        acc.total(apart)
    }
    #[inline(always)]
    unsafe fn stream_block(block: [u16; BLOCK], to: *mut u16) {
        // SAFETY: what the caller gives is passed on.
        unsafe { Self::store_block(block, to) }
    }
    #[inline(always)]
    unsafe fn lanes_f32(mut acc: Sums, block: [u16; BLOCK], half: usize, x: *const f32) -> Sums {
        for (i, sum) in acc.0.iter_mut().enumerate() {
            // SAFETY: 32 elements can be read.
            *sum = float(block[32 * half + i]).mul_add(unsafe { x.add(i).read_unaligned() }, *sum);
        }
        acc
    }
    #[inline(always)]
    unsafe fn lanes_bf16(mut acc: Sums, block: [u16; BLOCK], half: usize, x: *const u16) -> Sums {
        for (i, sum) in acc.0.iter_mut().enumerate() {
            // SAFETY: 32 elements can be read.
            *sum = float(block[32 * half + i]).mul_add(float(unsafe { x.add(i).read_unaligned() }), *sum);
        }
        acc
    }
    #[inline(always)]
    unsafe fn pairs(mut acc: Sums, block: [u16; BLOCK], x: *const u16) -> Sums {
        for (i, sum) in acc.0.iter_mut().enumerate() {
            for at in [2 * i + 1, 2 * i] {
                // SAFETY: 64 elements can be read.
                let x = flushed(float(unsafe { x.add(at).read_unaligned() }));
                *sum = flushed(flushed(float(block[at])).mul_add(x, *sum));
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

/// Multiplies 64 weights of another instruction set as [`Portable`] does.
///
/// # Safety
///
/// 64 elements can be read at `x`, and the processor can run S.
#[inline(always)]
pub(super) unsafe fn pairs_of<S: Simd>(acc: S::Acc, block: S::Block, x: *const u16) -> S::Acc {
    let (mut sums, mut weights) = (Sums::ZERO, [0; BLOCK]);
    // SAFETY: there is room for all sums and weights, and the caller's elements.
    unsafe {
        S::store(acc, &mut sums);
        S::store_block(block, weights.as_mut_ptr());
        S::load(&Portable::pairs(sums, weights, x))
    }
}

#[inline(always)]
fn float(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Returns zero, with its sign, for what is too small to be normal: `vdpbf16ps` knows no such numbers.
#[inline(always)]
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}
