//! Counting exponents with AVX-512.

use super::adders::{self, LIKELY, Register};
use std::arch::x86_64::*;

impl Register for __m512i {
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn broadcast(table: [u8; 16]) -> Self {
        // SAFETY: the table has 16 bytes; the processor has AVX-512.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(weights: *const u16, base: Self) -> Self {
        // SAFETY: BYTES weights can be read, with any alignment.
        unsafe {
            let x = _mm512_srli_epi16::<7>(_mm512_loadu_si512(weights.cast()));
            let y = _mm512_slli_epi16::<1>(_mm512_loadu_si512(weights.add(32).cast()));
            // 0xca is a ? b : c
            _mm512_sub_epi8(_mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi16(0xff), x, y), base)
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [u8; 64]) {
        // SAFETY: the array has room for the register.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn are_likely(self) -> bool {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe { _mm512_test_epi8_mask(self, _mm512_set1_epi8(0xf0u8 as i8)) == 0 }
    }

    #[inline(always)]
    unsafe fn unlikely(self) -> u64 {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe { _mm512_cmpge_epu8_mask(self, _mm512_set1_epi8(LIKELY as i8)) }
    }

    #[inline(always)]
    unsafe fn without_unlikely(self) -> Self {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe { _mm512_adds_epu8(self, _mm512_set1_epi8((128 - LIKELY) as i8)) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: Self) -> Self {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe { _mm512_shuffle_epi8(table, self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe { _mm512_and_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe { _mm512_xor_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self, c: Self) -> (Self, Self) {
        // SAFETY: the processor has AVX-512. 0x96 is 1 where an odd number of the three is, 0xe8 where two are.
        unsafe { (_mm512_ternarylogic_epi64::<0x96>(self, b, c), _mm512_ternarylogic_epi64::<0xe8>(self, b, c)) }
    }

    #[inline(always)]
    unsafe fn bytes_with(self, bit: usize) -> u32 {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe { _mm512_test_epi8_mask(self, _mm512_set1_epi8((1u8 << bit) as i8)).count_ones() }
    }
}

/// Counts the exponents of weights.
///
/// # Safety
///
/// The processor has the features. There are fewer than 2^32 weights.
#[target_feature(enable = "popcnt,bmi1,bmi2,lzcnt,movbe,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(super) unsafe fn count(weights: &[u16], counts: &mut [u64; 256]) {
    // SAFETY: the processor has AVX-512, and there are fewer than 2^32 weights.
    unsafe { adders::count::<__m512i>(weights, counts) }
}
