//! The x86-64 units, and the kernels for those that not every x86-64 processor has.

use super::{CodeTable, Kernel, LANES, MultiTable, Piece, Registers, Unit};
use std::arch::x86_64::*;

const KEEP: i16 = 0x807f_u16 as i16;

pub(super) struct Sse2<const STREAM: bool>;
struct Avx2<const STREAM: bool>;
struct Avx512<const STREAM: bool>;

/// A kernel whose functions are compiled for processors with some features, which `Variant::is_available` has asked
/// for. BMI's three-operand shifts alone save some 10 % of the instructions.
macro_rules! kernel {
    ($name:ident, $unit:ident, $features:literal) => {
        pub(super) fn $name<const STREAM: bool>() -> Kernel<LANES> {
            /// # Safety
            ///
            /// As [`super::burst`], and the processor has the features.
            #[target_feature(enable = $features)]
            unsafe fn burst<const R: usize, const STREAM: bool>(
                regs: &mut Registers<R>,
                pieces: &mut [Piece],
                table: &MultiTable,
                codes: &CodeTable,
                iterations: usize,
            ) -> bool {
                // SAFETY: the same promise.
                unsafe { super::burst::<$unit<STREAM>, R>(regs, pieces, table, codes, iterations) }
            }
            /// # Safety
            ///
            /// As [`Piece::merge`], and the processor has the features.
            #[target_feature(enable = $features)]
            unsafe fn merge<const STREAM: bool>(piece: &mut Piece) {
                // SAFETY: the same promise.
                unsafe { piece.merge::<$unit<STREAM>>(piece.units) }
            }
            Kernel {
                burst_all: burst::<LANES, STREAM>,
                burst_one: burst::<1, STREAM>,
                merge: merge::<STREAM>,
                streaming: STREAM,
            }
        }
    };
}
kernel!(avx2, Avx2, "bmi1,bmi2,avx2");
kernel!(avx512, Avx512, "bmi1,bmi2,avx2,avx512f,avx512bw");

impl<const STREAM: bool> Unit for Sse2<STREAM> {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        for i in [0, 16] {
            // SAFETY: 16 exponents lie from `exps - i` downwards, 16 bytes and weights from `sm + i` and `dst + i` on.
            unsafe {
                let e = _mm_loadu_si128(exps.sub(i + 15).cast());
                // Turn 16 bytes round: the bytes of each 16-bit lane, then the lanes.
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

impl<const STREAM: bool> Unit for Avx2<STREAM> {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        for i in [0, 16] {
            // SAFETY: 16 exponents lie from `exps - i` downwards, 16 bytes and weights from `sm + i` and `dst + i` on.
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

impl<const STREAM: bool> Unit for Avx512<STREAM> {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        // SAFETY: 32 exponents lie from `exps` downwards, 32 bytes and weights from `sm` and `dst` on.
        unsafe {
            let keep = _mm512_set1_epi16(KEEP);
            let reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let reverse = _mm256_broadcastsi128_si256(reverse);
            // The halves change places as they are loaded, so one shuffle within them turns all 32 round.
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
