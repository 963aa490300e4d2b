//! Decoding with AVX-512 F and BW, and BMI2.

use super::{CodeTable, KEEP, MOST_LANES, Merge, MultiTable, Pending, Registers, Routines};
use std::arch::x86_64::*;

routines_with!(Avx512Merge, "bmi1,bmi2,avx2,avx512f,avx512bw");

struct Avx512Merge<const STREAM: bool>;

impl<const STREAM: bool> Merge for Avx512Merge<STREAM> {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        // SAFETY: 32 bytes can be read from `exps` downwards and from `sm`, and 32 weights written at `dst`, on a cache
        // line if STREAM.
        unsafe {
            let keep = _mm512_set1_epi16(KEEP);
            let reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let reverse = _mm256_broadcastsi128_si256(reverse);
            // The halves change places as they are loaded, so one shuffle within them reverses all 32.
            let e = _mm256_set_m128i(_mm_loadu_si128(exps.sub(31).cast()), _mm_loadu_si128(exps.sub(15).cast()));
            let e = _mm512_slli_epi16::<7>(_mm512_cvtepu8_epi16(_mm256_shuffle_epi8(e, reverse)));
            let s = _mm512_cvtepu8_epi16(_mm256_loadu_si256(sm.cast()));
            // 0xa8 is (a | b) & c
            let s = _mm512_ternarylogic_epi64::<0xa8>(s, _mm512_slli_epi16::<8>(s), keep);
            let (to, r) = (dst.cast(), _mm512_or_si512(s, e));
            if STREAM { _mm512_stream_si512(to, r) } else { _mm512_storeu_si512(to, r) }
        }
    }
}
