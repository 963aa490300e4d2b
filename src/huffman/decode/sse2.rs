//! Merging with SSE2, which every x86-64 processor has.

use super::{FEWER_LANES, KEEP, Merge, Routines};
use std::arch::x86_64::*;

struct Sse2Merge<const STREAM: bool>;

pub(super) fn routines<const STREAM: bool>() -> Routines<FEWER_LANES> {
    Routines::of::<Sse2Merge<STREAM>>(STREAM)
}

impl<const STREAM: bool> Merge for Sse2Merge<STREAM> {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        for i in [0, 16] {
            // SAFETY: 16 bytes can be read from `exps - i` downwards and from `sm + i`, and 16 weights written at
            // `dst + i`, aligned to their size if STREAM.
            unsafe {
                let e = _mm_loadu_si128(exps.sub(i + 15).cast());
                // Reverse 16 bytes: the bytes of each 16-bit lane, then the lanes.
                let e = _mm_or_si128(_mm_slli_epi16::<8>(e), _mm_srli_epi16::<8>(e));
                let e = _mm_shufflehi_epi16::<0x1b>(_mm_shufflelo_epi16::<0x1b>(e));
                let e = _mm_shuffle_epi32::<0x4e>(e);
                let s = _mm_loadu_si128(sm.add(i).cast());
                let (zero, keep) = (_mm_setzero_si128(), _mm_set1_epi16(KEEP));
                let halves = [
                    (_mm_unpacklo_epi8(s, s), _mm_unpacklo_epi8(e, zero)),
                    (_mm_unpackhi_epi8(s, s), _mm_unpackhi_epi8(e, zero)),
                ];
                for (half, (s, e)) in halves.into_iter().enumerate() {
                    let r = _mm_or_si128(_mm_and_si128(s, keep), _mm_slli_epi16::<7>(e));
                    let to = dst.add(i + 8 * half).cast();
                    if STREAM { _mm_stream_si128(to, r) } else { _mm_storeu_si128(to, r) }
                }
            }
        }
    }
}
