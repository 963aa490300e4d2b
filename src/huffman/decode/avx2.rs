//! Decoding with AVX2 and BMI2.

use super::{CodeTable, KEEP, MOST_LANES, Merge, MultiTable, Pending, Registers, Routines};
use std::arch::x86_64::*;

routines_with!(Avx2Merge, "bmi1,bmi2,avx2");

struct Avx2Merge<const STREAM: bool>;

impl<const STREAM: bool> Merge for Avx2Merge<STREAM> {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        for i in [0, 16] {
            // SAFETY: 16 bytes can be read from `exps - i` downwards and from `sm + i`, and 16 weights written at
            // `dst + i`, aligned to their size if STREAM.
            unsafe {
                let keep = _mm256_set1_epi16(KEEP);
                let reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let e = _mm_shuffle_epi8(_mm_loadu_si128(exps.sub(i + 15).cast()), reverse);
                let e = _mm256_slli_epi16::<7>(_mm256_cvtepu8_epi16(e));
                let s = _mm256_cvtepu8_epi16(_mm_loadu_si128(sm.add(i).cast()));
                let s = _mm256_and_si256(_mm256_or_si256(s, _mm256_slli_epi16::<8>(s)), keep);
                let (to, r) = (dst.add(i).cast(), _mm256_or_si256(s, e));
                if STREAM { _mm256_stream_si256(to, r) } else { _mm256_storeu_si256(to, r) }
            }
        }
    }
}
