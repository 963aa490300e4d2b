//! AVX2 and FMA: 16 weights in a register.

use super::portable::Portable;
use super::{Cursor, Kernel, Simd, Sums, kernel};
use crate::matrix::layout::BLOCK;
use std::arch::x86_64::*;

pub(super) struct Avx2;

kernel!(KERNEL, Avx2, "avx2,fma");

/// For each code the bits of its exponent that go with the sign (the upper seven), and those that go with the mantissa.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    upper: __m256i,
    lowest: __m256i,
}

/// Joins 64 codes with sign/mantissa bytes to weights.
#[inline(always)]
unsafe fn block(cursor: &mut Cursor, sm: *const u8, codes: [__m256i; 2], table: &Codes) -> [__m256i; 4] {
    // SAFETY: 64 sign/mantissa bytes can be read, and the processor has AVX2.
    unsafe {
        let top = _mm256_set1_epi8(-128);
        let mut upper = codes.map(|c| _mm256_shuffle_epi8(table.upper, c));
        let mut lowest = codes.map(|c| _mm256_shuffle_epi8(table.lowest, c));
        let escape = codes.map(|c| _mm256_movemask_epi8(_mm256_cmpeq_epi8(c, _mm256_set1_epi8(15))) as u32);
        if escape[0] | escape[1] != 0 {
            escapes(cursor, escape, &mut upper, &mut lowest);
        }
        let halves: [(__m256i, __m256i); 2] = std::array::from_fn(|i| {
            let sm = _mm256_loadu_si256(sm.add(32 * i).cast());
            let high = _mm256_or_si256(_mm256_and_si256(sm, top), upper[i]);
            let low = _mm256_or_si256(_mm256_andnot_si256(top, sm), lowest[i]);
            (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high))
        });
        [halves[0].0, halves[1].0, halves[0].1, halves[1].1]
    }
}

/// Puts the next escaped exponents in their places.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn escapes(cursor: &mut Cursor, places: [u32; 2], upper: &mut [__m256i; 2], lowest: &mut [__m256i; 2]) {
    for i in 0..2 {
        let (mut high, mut low) = ([0u8; 32], [0u8; 32]);
        // SAFETY: both are 32 bytes.
        unsafe {
            _mm256_storeu_si256(high.as_mut_ptr().cast(), upper[i]);
            _mm256_storeu_si256(low.as_mut_ptr().cast(), lowest[i]);
        }
        let mut left = places[i];
        while left != 0 && cursor.escape < cursor.end {
            // SAFETY: an escape is stored before the end.
            let exponent = unsafe { *cursor.escape };
            cursor.escape = cursor.escape.wrapping_add(1);
            let at = left.trailing_zeros() as usize;
            (high[at], low[at]) = (exponent >> 1, exponent << 7);
            left &= left - 1;
        }
        // SAFETY: both are 32 bytes.
        unsafe {
            upper[i] = _mm256_loadu_si256(high.as_ptr().cast());
            lowest[i] = _mm256_loadu_si256(low.as_ptr().cast());
        }
    }
}

/// Returns 16 bf16 as two times eight f32.
#[inline(always)]
unsafe fn floats(bits: __m256i) -> [__m256; 2] {
    // SAFETY: the processor has AVX2.
    unsafe {
        [_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits)]
            .map(|half| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half))))
    }
}

// SAFETY: the kernel's functions are compiled for AVX2 and FMA, and are called where the processor has both.
unsafe impl Simd for Avx2 {
    type Codes = Codes;
    type Block = [__m256i; 4];
    type Acc = [__m256; 4];

    #[inline(always)]
    unsafe fn codes(exponents: &[u8; 16]) -> Codes {
        // SAFETY: arrays of 16 bytes are read, and the processor has AVX2.
        let broadcast =
            |table: [u8; 16]| unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
        Codes { upper: broadcast(exponents.map(|e| e >> 1)), lowest: broadcast(exponents.map(|e| e << 7)) }
    }
    #[inline(always)]
    unsafe fn unit(cursor: &mut Cursor, codes: &Codes) -> [[__m256i; 4]; 2] {
        // SAFETY: 192 bytes can be read.
        unsafe {
            let unit = cursor.unit;
            let mask = _mm256_set1_epi8(15);
            let packed = [0, 32].map(|at| _mm256_loadu_si256(unit.add(2 * BLOCK + at).cast()));
            let first = block(cursor, unit, packed.map(|p| _mm256_and_si256(p, mask)), codes);
            let second = packed.map(|p| _mm256_and_si256(_mm256_srli_epi16::<4>(p), mask));
            [first, block(cursor, unit.add(BLOCK), second, codes)]
        }
    }
    #[inline(always)]
    unsafe fn half(cursor: &mut Cursor, codes: &Codes) -> [__m256i; 4] {
        // SAFETY: 96 bytes can be read.
        unsafe {
            let unit = cursor.unit;
            let mask = _mm256_set1_epi8(15);
            let packed = _mm256_loadu_si256(unit.add(BLOCK).cast());
            let both = [_mm256_and_si256(packed, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask)];
            block(cursor, unit, both, codes)
        }
    }
    #[inline(always)]
    unsafe fn load_block(from: *const u16) -> [__m256i; 4] {
        // SAFETY: 64 weights can be read.
        std::array::from_fn(|i| unsafe { _mm256_loadu_si256(from.add(16 * i).cast()) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> [__m256i; 4] {
        // SAFETY: 32 weights can be read.
        std::array::from_fn(|i| unsafe { _mm256_loadu_si256(from.add(16 * (i % 2)).cast()) })
    }
    #[inline(always)]
    unsafe fn store_block(block: [__m256i; 4], to: *mut u16) {
        // SAFETY: 64 weights can be written.
        (0..4).for_each(|i| unsafe { _mm256_storeu_si256(to.add(16 * i).cast(), block[i]) });
    }
    #[inline(always)]
    unsafe fn load(sums: &Sums) -> [__m256; 4] {
        // SAFETY: there are 32 sums.
        std::array::from_fn(|i| unsafe { _mm256_loadu_ps(sums.0.as_ptr().add(8 * i)) })
    }
    #[inline(always)]
    unsafe fn store(acc: [__m256; 4], sums: &mut Sums) {
        // SAFETY: there are 32 sums.
        (0..4).for_each(|i| unsafe { _mm256_storeu_ps(sums.0.as_mut_ptr().add(8 * i), acc[i]) });
    }
    #[inline(always)]
    unsafe fn lanes_f32(mut acc: [__m256; 4], block: [__m256i; 4], half: usize, x: *const f32) -> [__m256; 4] {
        for i in 0..2 {
            // SAFETY: 32 elements can be read.
            unsafe {
                let w = floats(block[2 * half + i]);
                for j in 0..2 {
                    let at = 2 * i + j;
                    acc[at] = _mm256_fmadd_ps(w[j], _mm256_loadu_ps(x.add(8 * at)), acc[at]);
                }
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn lanes_bf16(mut acc: [__m256; 4], block: [__m256i; 4], half: usize, x: *const u16) -> [__m256; 4] {
        for i in 0..2 {
            // SAFETY: 32 elements can be read.
            unsafe {
                let w = floats(block[2 * half + i]);
                for j in 0..2 {
                    let at = 2 * i + j;
                    let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.add(8 * at).cast()));
                    acc[at] = _mm256_fmadd_ps(w[j], _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)), acc[at]);
                }
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn pairs(acc: [__m256; 4], block: [__m256i; 4], x: *const u16) -> [__m256; 4] {
        let (mut sums, mut weights) = (Sums::ZERO, [0; BLOCK]);
        // SAFETY: what the caller gives is passed on.
        unsafe {
            Self::store(acc, &mut sums);
            Self::store_block(block, weights.as_mut_ptr());
            Self::load(&Portable::pairs(sums, weights, x))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: any address may be prefetched; it is not accessed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
}
