//! NEON, which every AArch64 processor has: eight weights in a register.

use super::{Cursor, Kernel, Simd, Sums, halves, kernel};
use crate::matrix::layout::{BLOCK, ESCAPE};
use std::arch::aarch64::*;

pub(super) struct Neon;

kernel!(KERNEL, Neon);

/// For each code the bits of its exponent that go with the sign (the upper seven), and those that go with the mantissa.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    upper: uint8x16_t,
    lowest: uint8x16_t,
}

/// Joins 64 codes with sign/mantissa bytes to weights.
#[inline(always)]
unsafe fn block(cursor: &mut Cursor, sm: *const u8, codes: [uint8x16_t; 4], table: &Codes) -> [uint16x8_t; 8] {
    // SAFETY: 64 sign/mantissa bytes can be read, and the processor has NEON.
    unsafe {
        let (mut upper, mut lowest) = ([vdupq_n_u8(0); 4], [vdupq_n_u8(0); 4]);
        for i in 0..4 {
            upper[i] = vqtbl1q_u8(table.upper, codes[i]);
            lowest[i] = vqtbl1q_u8(table.lowest, codes[i]);
        }
        let largest = vmaxq_u8(vmaxq_u8(codes[0], codes[1]), vmaxq_u8(codes[2], codes[3]));
        if vmaxvq_u8(largest) == ESCAPE {
            let with = escapes(*cursor, codes, upper, lowest);
            (cursor.escape, upper, lowest) = (with.escape, with.upper, with.lowest);
        }
        let top = vdupq_n_u8(0x80);
        let mut weights = [vdupq_n_u16(0); 8];
        for i in 0..4 {
            let sm = vld1q_u8(sm.add(16 * i));
            let (high, low) = (vbslq_u8(top, sm, upper[i]), vbslq_u8(top, lowest[i], sm));
            weights[i] = vreinterpretq_u16_u8(vzip1q_u8(low, high));
            weights[4 + i] = vreinterpretq_u16_u8(vzip2q_u8(low, high));
        }
        weights
    }
}

/// Exponents of which some were escaped, and the place of the next escape.
struct Escaped {
    escape: *const u8,
    upper: [uint8x16_t; 4],
    lowest: [uint8x16_t; 4],
}

/// Puts the next escaped exponents in their places. What it takes and returns is copied, so that all of it stays in registers
/// where there are no escapes.
#[cold]
#[inline(never)]
fn escapes(cursor: Cursor, codes: [uint8x16_t; 4], upper: [uint8x16_t; 4], lowest: [uint8x16_t; 4]) -> Escaped {
    let mut with = Escaped { escape: cursor.escape, upper, lowest };
    for i in 0..4 {
        let (mut code, mut high, mut low) = ([0u8; 16], [0u8; 16], [0u8; 16]);
        // SAFETY: all three are 16 bytes, and the processor has NEON.
        unsafe {
            vst1q_u8(code.as_mut_ptr(), codes[i]);
            vst1q_u8(high.as_mut_ptr(), upper[i]);
            vst1q_u8(low.as_mut_ptr(), lowest[i]);
        }
        for at in 0..16 {
            if code[at] == ESCAPE && with.escape < cursor.end {
                // SAFETY: an escape is stored before the end.
                let exponent = unsafe { *with.escape };
                with.escape = with.escape.wrapping_add(1);
                (high[at], low[at]) = (exponent >> 1, exponent << 7);
            }
        }
        // SAFETY: both are 16 bytes, and the processor has NEON.
        unsafe {
            with.upper[i] = vld1q_u8(high.as_ptr());
            with.lowest[i] = vld1q_u8(low.as_ptr());
        }
    }
    with
}

/// Returns the first four of eight bf16 as f32, and the last four.
#[inline(always)]
unsafe fn widened(bits: uint16x8_t) -> [float32x4_t; 2] {
    // SAFETY: the processor has NEON.
    unsafe {
        let (low, high) = (vshll_n_u16::<16>(vget_low_u16(bits)), vshll_high_n_u16::<16>(bits));
        [vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high)]
    }
}

/// Adds up 16 sums: the second half to the first, until one is left.
#[inline(always)]
unsafe fn halved(sums: [float32x4_t; 4]) -> f32 {
    // SAFETY: the processor has NEON.
    unsafe {
        let four = vaddq_f32(vaddq_f32(sums[0], sums[2]), vaddq_f32(sums[1], sums[3]));
        let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
    }
}

// SAFETY: every AArch64 processor that this is compiled for has NEON.
unsafe impl Simd for Neon {
    type Codes = Codes;
    type Block = [uint16x8_t; 8];
    type Acc = [float32x4_t; 8];

    #[inline(always)]
    unsafe fn codes(exponents: &[u8; 16]) -> Codes {
        let (upper, lowest) = halves(exponents);
        // SAFETY: arrays of 16 bytes are read.
        unsafe { Codes { upper: vld1q_u8(upper.as_ptr()), lowest: vld1q_u8(lowest.as_ptr()) } }
    }
    #[inline(always)]
    unsafe fn unit(cursor: &mut Cursor, codes: &Codes) -> [[uint16x8_t; 8]; 2] {
        // SAFETY: 192 bytes can be read.
        unsafe {
            let (unit, mask) = (cursor.unit, vdupq_n_u8(15));
            let (mut low, mut high) = ([mask; 4], [mask; 4]);
            for i in 0..4 {
                let packed = vld1q_u8(unit.add(2 * BLOCK + 16 * i));
                (low[i], high[i]) = (vandq_u8(packed, mask), vshrq_n_u8::<4>(packed));
            }
            let first = block(cursor, unit, low, codes);
            [first, block(cursor, unit.add(BLOCK), high, codes)]
        }
    }
    #[inline(always)]
    unsafe fn half(cursor: &mut Cursor, codes: &Codes) -> [uint16x8_t; 8] {
        // SAFETY: 96 bytes can be read.
        unsafe {
            let (unit, mask) = (cursor.unit, vdupq_n_u8(15));
            let (a, b) = (vld1q_u8(unit.add(BLOCK)), vld1q_u8(unit.add(BLOCK + 16)));
            let all = [vandq_u8(a, mask), vandq_u8(b, mask), vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)];
            block(cursor, unit, all, codes)
        }
    }
    #[inline(always)]
    unsafe fn load_block(from: *const u16) -> [uint16x8_t; 8] {
        // SAFETY: 64 weights can be read.
        unsafe {
            let mut block = [vdupq_n_u16(0); 8];
            for (i, weights) in block.iter_mut().enumerate() {
                *weights = vld1q_u16(from.add(8 * i));
            }
            block
        }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> [uint16x8_t; 8] {
        // SAFETY: 32 weights can be read.
        unsafe {
            let mut block = [vdupq_n_u16(0); 8];
            for i in 0..4 {
                block[i] = vld1q_u16(from.add(8 * i));
            }
            block
        }
    }
    #[inline(always)]
    unsafe fn store_block(block: [uint16x8_t; 8], to: *mut u16) {
        for (i, weights) in block.into_iter().enumerate() {
            // SAFETY: 64 weights can be written.
            unsafe { vst1q_u16(to.add(8 * i), weights) }
        }
    }
    #[inline(always)]
    unsafe fn stream_block(block: [uint16x8_t; 8], to: *mut u16) {
        // SAFETY: what the caller gives is passed on.
        unsafe { Self::store_block(block, to) }
    }
    #[inline(always)]
    unsafe fn load(sums: &Sums) -> [float32x4_t; 8] {
        // SAFETY: there are 32 sums.
        unsafe {
            let mut acc = [vdupq_n_f32(0.0); 8];
            for (i, lanes) in acc.iter_mut().enumerate() {
                *lanes = vld1q_f32(sums.0.as_ptr().add(4 * i));
            }
            acc
        }
    }
    #[inline(always)]
    unsafe fn store(acc: [float32x4_t; 8], sums: &mut Sums) {
        for (i, lanes) in acc.into_iter().enumerate() {
            // SAFETY: there are 32 sums.
            unsafe { vst1q_f32(sums.0.as_mut_ptr().add(4 * i), lanes) }
        }
    }
    #[inline(always)]
    unsafe fn load_parted(sums: &Sums) -> [float32x4_t; 8] {
        // SAFETY: what the caller gives is passed on.
        unsafe { Self::load(sums) }
    }
    #[inline(always)]
    unsafe fn store_parted(acc: [float32x4_t; 8], sums: &mut Sums) {
        // SAFETY: what the caller gives is passed on.
        unsafe { Self::store(acc, sums) }
    }
    #[inline(always)]
    unsafe fn total(acc: [float32x4_t; 8], apart: bool) -> f64 {
        let [a, b, c, d, e, f, g, h] = acc;
        // SAFETY: the processor has NEON.
        unsafe {
            if apart {
                return halved([a, b, c, d]) as f64 + halved([e, f, g, h]) as f64;
            }
            halved([vaddq_f32(a, e), vaddq_f32(b, f), vaddq_f32(c, g), vaddq_f32(d, h)]) as f64
        }
    }
    #[inline(always)]
    unsafe fn total_parted(acc: [float32x4_t; 8], apart: bool) -> f64 {
        // SAFETY: what the caller gives is passed on.
        unsafe { Self::total(acc, apart) }
    }
    #[inline(always)]
    unsafe fn lanes_f32(
        mut acc: [float32x4_t; 8],
        block: [uint16x8_t; 8],
        half: usize,
        x: *const f32,
    ) -> [float32x4_t; 8] {
        for i in 0..4 {
            // SAFETY: 32 elements can be read.
            unsafe {
                let w = widened(block[4 * half + i]);
                acc[2 * i] = vfmaq_f32(acc[2 * i], w[0], vld1q_f32(x.add(8 * i)));
                acc[2 * i + 1] = vfmaq_f32(acc[2 * i + 1], w[1], vld1q_f32(x.add(8 * i + 4)));
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn lanes_bf16(
        mut acc: [float32x4_t; 8],
        block: [uint16x8_t; 8],
        half: usize,
        x: *const u16,
    ) -> [float32x4_t; 8] {
        for i in 0..4 {
            // SAFETY: 32 elements can be read.
            unsafe {
                let (w, x) = (widened(block[4 * half + i]), widened(vld1q_u16(x.add(8 * i))));
                acc[2 * i] = vfmaq_f32(acc[2 * i], w[0], x[0]);
                acc[2 * i + 1] = vfmaq_f32(acc[2 * i + 1], w[1], x[1]);
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: any address may be fetched; it is not accessed.
        unsafe { std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
    }
}
