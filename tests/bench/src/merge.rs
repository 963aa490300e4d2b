//! Exponents and sign/mantissa bytes to bf16, as fast as the processor's vectors go. This is the peers' merge: libdf11
//! has its own, and shares nothing with this one.

use crate::vectors::{Kind, STREAMING_BYTES};

/// A way to merge.
#[derive(Debug, Clone, Copy)]
pub struct Merge(Kind);

impl Merge {
    /// Returns the fastest way for an output of `weights` weights.
    pub fn best(weights: usize) -> Merge {
        Merge(Kind::best(2 * weights >= STREAMING_BYTES))
    }

    /// Returns the name that tables use.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Merges slices of one length.
    pub fn run(self, dst: &mut [u16], exponents: &[u8], sign_mantissa: &[u8]) {
        assert!(dst.len() == exponents.len() && dst.len() == sign_mantissa.len());
        match self.0 {
            Kind::Plain => plain(dst, exponents, sign_mantissa),
            #[cfg(target_arch = "x86_64")]
            _ => {
                // Streaming stores need whole vectors of 64 bytes in their place.
                let head = dst.as_ptr().align_offset(64).min(dst.len());
                let body = (dst.len() - head) & !63;
                let (dst_head, dst_rest) = dst.split_at_mut(head);
                let (dst_body, dst_tail) = dst_rest.split_at_mut(body);
                plain(dst_head, &exponents[..head], &sign_mantissa[..head]);
                let (e, s) = (&exponents[head..head + body], &sign_mantissa[head..head + body]);
                // SAFETY: `Kind::all` offers a kind only where the processor has what it needs; the body is aligned to 64
                // bytes and a multiple of 64 weights.
                unsafe {
                    match self.0 {
                        Kind::Avx2 { stream: false } => x86::avx2::<false>(dst_body, e, s),
                        Kind::Avx2 { stream: true } => x86::avx2::<true>(dst_body, e, s),
                        Kind::Avx512 { stream: false } => x86::avx512::<false>(dst_body, e, s),
                        Kind::Avx512 { stream: true } => x86::avx512::<true>(dst_body, e, s),
                        Kind::Plain => unreachable!("matched above"),
                    }
                }
                plain(dst_tail, &exponents[head + body..], &sign_mantissa[head + body..]);
            }
        }
    }

    /// Makes streamed stores visible to other threads. Once, after the last.
    pub fn finish() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: part of x86-64's baseline.
        unsafe {
            std::arch::x86_64::_mm_sfence()
        };
    }
}

fn plain(dst: &mut [u16], exponents: &[u8], sign_mantissa: &[u8]) {
    for ((d, &e), &s) in dst.iter_mut().zip(exponents).zip(sign_mantissa) {
        let s = s as u16;
        *d = (s << 8 | s) & 0x807f | (e as u16) << 7;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    // Interleaving a byte with itself gives s<<8 | s, and zero with e gives e<<8, half of which is e<<7. Interleaving
    // works within 128-bit lanes, so quarters of the inputs are put into order first.

    /// # Safety
    ///
    /// The processor has AVX2; slices of one length, a multiple of 64; `dst` is aligned to 64 bytes.
    #[target_feature(enable = "avx2")]
    pub unsafe fn avx2<const STREAM: bool>(dst: &mut [u16], exponents: &[u8], sign_mantissa: &[u8]) {
        let (mask, zero) = (_mm256_set1_epi16(0x807fu16 as i16), _mm256_setzero_si256());
        for i in (0..dst.len()).step_by(32) {
            // SAFETY: 32 more bytes and weights are there, and 32 weights are 64 bytes.
            unsafe {
                let e = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_loadu_si256(exponents.as_ptr().add(i).cast()));
                let s =
                    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_loadu_si256(sign_mantissa.as_ptr().add(i).cast()));
                let low = _mm256_or_si256(
                    _mm256_and_si256(_mm256_unpacklo_epi8(s, s), mask),
                    _mm256_srli_epi16::<1>(_mm256_unpacklo_epi8(zero, e)),
                );
                let high = _mm256_or_si256(
                    _mm256_and_si256(_mm256_unpackhi_epi8(s, s), mask),
                    _mm256_srli_epi16::<1>(_mm256_unpackhi_epi8(zero, e)),
                );
                let to = dst.as_mut_ptr().add(i).cast::<__m256i>();
                if STREAM {
                    _mm256_stream_si256(to, low);
                    _mm256_stream_si256(to.add(1), high);
                } else {
                    _mm256_store_si256(to, low);
                    _mm256_store_si256(to.add(1), high);
                }
            }
        }
    }

    /// # Safety
    ///
    /// The processor has AVX-512 F and BW; slices of one length, a multiple of 64; `dst` is aligned to 64 bytes.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn avx512<const STREAM: bool>(dst: &mut [u16], exponents: &[u8], sign_mantissa: &[u8]) {
        let (mask, zero) = (_mm512_set1_epi16(0x807fu16 as i16), _mm512_setzero_si512());
        let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
        for i in (0..dst.len()).step_by(64) {
            // SAFETY: 64 more bytes and weights are there, and 64 weights are 128 bytes.
            unsafe {
                let e = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(exponents.as_ptr().add(i).cast()));
                let s = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(sign_mantissa.as_ptr().add(i).cast()));
                // 0xea: (a & b) | c
                let low = _mm512_ternarylogic_epi64::<0xea>(
                    _mm512_unpacklo_epi8(s, s),
                    mask,
                    _mm512_srli_epi16::<1>(_mm512_unpacklo_epi8(zero, e)),
                );
                let high = _mm512_ternarylogic_epi64::<0xea>(
                    _mm512_unpackhi_epi8(s, s),
                    mask,
                    _mm512_srli_epi16::<1>(_mm512_unpackhi_epi8(zero, e)),
                );
                let to = dst.as_mut_ptr().add(i).cast::<__m512i>();
                if STREAM {
                    _mm512_stream_si512(to, low);
                    _mm512_stream_si512(to.add(1), high);
                } else {
                    _mm512_store_si512(to, low);
                    _mm512_store_si512(to.add(1), high);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_give_the_same() {
        // Every exponent with every sign and mantissa, from every alignment of 16-bit words.
        let expected: Vec<u16> = (0..=u16::MAX).collect();
        let exponents: Vec<u8> = expected.iter().map(|w| (w >> 7) as u8).collect();
        let signs: Vec<u8> = expected.iter().map(|w| (w >> 8 & 0x80 | w & 0x7f) as u8).collect();
        for stream in [false, true] {
            for merge in Kind::all(stream).into_iter().map(Merge) {
                for from in 0..40 {
                    let mut dst = vec![0; expected.len()];
                    merge.run(&mut dst[from..], &exponents[from..], &signs[from..]);
                    assert!(dst[from..] == expected[from..], "{merge:?} from {from}");
                }
            }
        }
    }
}
