//! AVX2 and FMA: 16 weights in a register.

use super::{Cursor, Kernel, Simd, Sums, halves, kernel};
use crate::matrix::layout::{BLOCK, ESCAPE};
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
        let mut upper = [_mm256_shuffle_epi8(table.upper, codes[0]), _mm256_shuffle_epi8(table.upper, codes[1])];
        let mut lowest = [_mm256_shuffle_epi8(table.lowest, codes[0]), _mm256_shuffle_epi8(table.lowest, codes[1])];
        let all = _mm256_set1_epi8(ESCAPE as i8);
        let escaped = [_mm256_cmpeq_epi8(codes[0], all), _mm256_cmpeq_epi8(codes[1], all)];
        if _mm256_movemask_epi8(_mm256_or_si256(escaped[0], escaped[1])) != 0 {
            let with = escapes(*cursor, escaped, upper, lowest);
            (cursor.escape, upper, lowest) = (with.escape, with.upper, with.lowest);
        }
        let first = join(_mm256_loadu_si256(sm.cast()), upper[0], lowest[0]);
        let second = join(_mm256_loadu_si256(sm.add(32).cast()), upper[1], lowest[1]);
        [first[0], second[0], first[1], second[1]]
    }
}

/// Joins 32 bytes of signs and mantissas with the two parts of their exponents.
#[inline(always)]
unsafe fn join(sm: __m256i, upper: __m256i, lowest: __m256i) -> [__m256i; 2] {
    // SAFETY: the processor has AVX2.
    unsafe {
        let top = _mm256_set1_epi8(-128);
        let high = _mm256_or_si256(_mm256_and_si256(sm, top), upper);
        let low = _mm256_or_si256(_mm256_andnot_si256(top, sm), lowest);
        [_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)]
    }
}

/// Exponents of which some were escaped, and the place of the next escape.
struct Escaped {
    escape: *const u8,
    upper: [__m256i; 2],
    lowest: [__m256i; 2],
}

/// Puts the next escaped exponents in their places. What it takes and returns is copied, so that all of it stays in registers
/// where there are no escapes.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn escapes(cursor: Cursor, escaped: [__m256i; 2], upper: [__m256i; 2], lowest: [__m256i; 2]) -> Escaped {
    let mut with = Escaped { escape: cursor.escape, upper, lowest };
    for i in 0..2 {
        let (mut high, mut low) = ([0u8; 32], [0u8; 32]);
        // SAFETY: both are 32 bytes.
        unsafe {
            _mm256_storeu_si256(high.as_mut_ptr().cast(), upper[i]);
            _mm256_storeu_si256(low.as_mut_ptr().cast(), lowest[i]);
        }
        let mut left = _mm256_movemask_epi8(escaped[i]) as u32;
        while left != 0 && with.escape < cursor.end {
            // SAFETY: an escape is stored before the end.
            let exponent = unsafe { *with.escape };
            with.escape = with.escape.wrapping_add(1);
            let at = left.trailing_zeros() as usize;
            (high[at], low[at]) = (exponent >> 1, exponent << 7);
            left &= left - 1;
        }
        // SAFETY: both are 32 bytes.
        unsafe {
            with.upper[i] = _mm256_loadu_si256(high.as_ptr().cast());
            with.lowest[i] = _mm256_loadu_si256(low.as_ptr().cast());
        }
    }
    with
}

/// Adds up eight sums: the upper half to the lower, until one is left.
#[inline(always)]
pub(super) unsafe fn halved(sums: __m256) -> f32 {
    // SAFETY: the processor has AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// Returns eight of 16 bf16 as f32: those of even places.
#[inline(always)]
unsafe fn even(bits: __m256i) -> __m256 {
    // SAFETY: the processor has AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)) }
}

/// Returns eight of 16 bf16 as f32: those of odd places.
#[inline(always)]
unsafe fn odd(bits: __m256i) -> __m256 {
    // SAFETY: the processor has AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// Returns eight bf16 as f32, in their order.
#[inline(always)]
unsafe fn widened(bits: __m128i) -> __m256 {
    // SAFETY: the processor has AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))) }
}

// SAFETY: the kernel's functions are compiled for AVX2 and FMA, and are called where the processor has both.
unsafe impl Simd for Avx2 {
    type Codes = Codes;
    type Block = [__m256i; 4];
    type Acc = [__m256; 4];

    #[inline(always)]
    unsafe fn codes(exponents: &[u8; 16]) -> Codes {
        let (upper, lowest) = halves(exponents);
        // SAFETY: arrays of 16 bytes are read, and the processor has AVX2.
        unsafe {
            Codes {
                upper: _mm256_broadcastsi128_si256(_mm_loadu_si128(upper.as_ptr().cast())),
                lowest: _mm256_broadcastsi128_si256(_mm_loadu_si128(lowest.as_ptr().cast())),
            }
        }
    }
    #[inline(always)]
    unsafe fn unit(cursor: &mut Cursor, codes: &Codes) -> [[__m256i; 4]; 2] {
        // SAFETY: 192 bytes can be read.
        unsafe {
            let unit = cursor.unit;
            let mask = _mm256_set1_epi8(15);
            let a = _mm256_loadu_si256(unit.add(2 * BLOCK).cast());
            let b = _mm256_loadu_si256(unit.add(2 * BLOCK + 32).cast());
            let first = [_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)];
            let first = block(cursor, unit, first, codes);
            let second =
                [_mm256_and_si256(_mm256_srli_epi16::<4>(a), mask), _mm256_and_si256(_mm256_srli_epi16::<4>(b), mask)];
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
        let from: *const __m256i = from.cast();
        // SAFETY: 64 weights can be read.
        unsafe {
            [
                _mm256_loadu_si256(from),
                _mm256_loadu_si256(from.add(1)),
                _mm256_loadu_si256(from.add(2)),
                _mm256_loadu_si256(from.add(3)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> [__m256i; 4] {
        let from: *const __m256i = from.cast();
        // SAFETY: 32 weights can be read.
        unsafe {
            let (a, b) = (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)));
            [a, b, a, b]
        }
    }
    #[inline(always)]
    unsafe fn store_block(block: [__m256i; 4], to: *mut u16) {
        for (i, weights) in block.into_iter().enumerate() {
            // SAFETY: 64 weights can be written.
            unsafe { _mm256_storeu_si256(to.add(16 * i).cast(), weights) }
        }
    }
    #[inline(always)]
    unsafe fn load(sums: &Sums) -> [__m256; 4] {
        let from = sums.0.as_ptr();
        // SAFETY: there are 32 sums.
        unsafe {
            [
                _mm256_loadu_ps(from),
                _mm256_loadu_ps(from.add(8)),
                _mm256_loadu_ps(from.add(16)),
                _mm256_loadu_ps(from.add(24)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store(acc: [__m256; 4], sums: &mut Sums) {
        for (i, lanes) in acc.into_iter().enumerate() {
            // SAFETY: there are 32 sums.
            unsafe { _mm256_storeu_ps(sums.0.as_mut_ptr().add(8 * i), lanes) }
        }
    }
    #[inline(always)]
    unsafe fn load_parted(sums: &Sums) -> [__m256; 4] {
        let mut parted = Sums::ZERO;
        for (i, &sum) in sums.0.iter().enumerate() {
            parted.0[i / 16 * 16 + i % 2 * 8 + i % 16 / 2] = sum;
        }
        // SAFETY: the processor has AVX2.
        unsafe { Self::load(&parted) }
    }
    #[inline(always)]
    unsafe fn store_parted(acc: [__m256; 4], sums: &mut Sums) {
        let mut parted = Sums::ZERO;
        // SAFETY: the processor has AVX2.
        unsafe { Self::store(acc, &mut parted) };
        for (i, sum) in sums.0.iter_mut().enumerate() {
            *sum = parted.0[i / 16 * 16 + i % 2 * 8 + i % 16 / 2];
        }
    }
    #[inline(always)]
    unsafe fn total(acc: [__m256; 4], apart: bool) -> f64 {
        // SAFETY: the processor has AVX2.
        unsafe {
            if apart {
                let (low, high) = (_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3]));
                return halved(low) as f64 + halved(high) as f64;
            }
            halved(_mm256_add_ps(_mm256_add_ps(acc[0], acc[2]), _mm256_add_ps(acc[1], acc[3]))) as f64
        }
    }
    #[inline(always)]
    unsafe fn total_parted(acc: [__m256; 4], apart: bool) -> f64 {
        // The last two sums are that of even columns and that of odd ones.
        // SAFETY: the processor has AVX2.
        unsafe {
            if apart {
                let (low, high) = (halved(acc[0]) + halved(acc[1]), halved(acc[2]) + halved(acc[3]));
                return low as f64 + high as f64;
            }
            (halved(_mm256_add_ps(acc[0], acc[2])) + halved(_mm256_add_ps(acc[1], acc[3]))) as f64
        }
    }
    #[inline(always)]
    unsafe fn stream_block(block: [__m256i; 4], to: *mut u16) {
        for (i, weights) in block.into_iter().enumerate() {
            // SAFETY: 64 weights can be written, and the address is aligned.
            unsafe { _mm256_stream_si256(to.add(16 * i).cast(), weights) }
        }
    }
    #[inline(always)]
    unsafe fn lanes_f32(mut acc: [__m256; 4], block: [__m256i; 4], half: usize, x: *const f32) -> [__m256; 4] {
        for i in 0..2 {
            // SAFETY: 32 elements can be read.
            unsafe {
                let w = block[2 * half + i];
                let (low, high) = (_mm256_castsi256_si128(w), _mm256_extracti128_si256::<1>(w));
                acc[2 * i] = _mm256_fmadd_ps(widened(low), _mm256_loadu_ps(x.add(16 * i)), acc[2 * i]);
                acc[2 * i + 1] = _mm256_fmadd_ps(widened(high), _mm256_loadu_ps(x.add(16 * i + 8)), acc[2 * i + 1]);
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn lanes_bf16(mut acc: [__m256; 4], block: [__m256i; 4], half: usize, x: *const u16) -> [__m256; 4] {
        for i in 0..2 {
            // SAFETY: 32 elements can be read.
            unsafe {
                let (w, x) = (block[2 * half + i], _mm256_loadu_si256(x.add(16 * i).cast()));
                acc[2 * i] = _mm256_fmadd_ps(even(w), even(x), acc[2 * i]);
                acc[2 * i + 1] = _mm256_fmadd_ps(odd(w), odd(x), acc[2 * i + 1]);
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: any address may be prefetched; it is not accessed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
}
