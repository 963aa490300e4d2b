//! Counting exponents with AVX2.

use super::adders::{self, LIKELY, Register};
use std::arch::x86_64::*;

impl Register for __m256i {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn broadcast(table: [u8; 16]) -> Self {
        // SAFETY: the table has 16 bytes; the processor has AVX2.
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(weights: *const u16, base: Self) -> Self {
        // SAFETY: BYTES weights can be read, with any alignment.
        unsafe {
            let x = _mm256_srli_epi16::<7>(_mm256_loadu_si256(weights.cast()));
            let y = _mm256_slli_epi16::<1>(_mm256_loadu_si256(weights.add(16).cast()));
            _mm256_sub_epi8(_mm256_blendv_epi8(x, y, _mm256_set1_epi16(0xff00u16 as i16)), base)
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [u8; 64]) {
        // SAFETY: the array has room for the register.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn are_likely(self) -> bool {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe { _mm256_testz_si256(self, _mm256_set1_epi8(0xf0u8 as i8)) != 0 }
    }

    #[inline(always)]
    unsafe fn unlikely(self) -> u64 {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe {
            let near = _mm256_cmpeq_epi8(_mm256_min_epu8(self, _mm256_set1_epi8(LIKELY as i8 - 1)), self);
            !_mm256_movemask_epi8(near) as u32 as u64
        }
    }

    #[inline(always)]
    unsafe fn without_unlikely(self) -> Self {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe { _mm256_adds_epu8(self, _mm256_set1_epi8((128 - LIKELY) as i8)) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: Self) -> Self {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe { _mm256_shuffle_epi8(table, self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe { _mm256_and_si256(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe { _mm256_xor_si256(self, other) }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self, c: Self) -> (Self, Self) {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe {
            let differ = _mm256_xor_si256(self, b);
            let carry = _mm256_or_si256(_mm256_and_si256(self, b), _mm256_and_si256(differ, c));
            (_mm256_xor_si256(differ, c), carry)
        }
    }

    #[inline(always)]
    unsafe fn bytes_with(self, bit: usize) -> u32 {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe {
            let up = _mm256_sll_epi16(self, _mm_cvtsi32_si128(7 - bit as i32));
            _mm256_movemask_epi8(up).count_ones()
        }
    }
}

/// Counts the exponents of weights.
///
/// # Safety
///
/// The processor has the features. There are fewer than 2^32 weights.
#[target_feature(enable = "popcnt,bmi1,bmi2,lzcnt,movbe,avx2")]
pub(super) unsafe fn count(weights: &[u16], counts: &mut [u64; 256]) {
    // SAFETY: the processor has AVX2, and there are fewer than 2^32 weights.
    unsafe { adders::count::<__m256i>(weights, counts) }
}
