//! bf16 to exponents and sign/mantissa bytes, as fast as the processor's vectors go: what a peer that codes exponents has
//! to do first. libdf11 has its own, and shares nothing with this one.

use crate::vectors::{Kind, STREAMING_BYTES};

/// A way to split.
#[derive(Debug, Clone, Copy)]
pub struct Split(Kind);

impl Split {
    /// Returns the fastest way for `weights` weights. Sign/mantissa bytes of many are streamed past the caches; exponents never are,
    /// because they are read next. Other threads see streamed stores after [`crate::merge::Merge::finish`].
    pub fn best(weights: usize) -> Split {
        Split(Kind::best(weights >= STREAMING_BYTES))
    }

    /// Returns the name that tables use.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Splits to slices of one length.
    pub fn run(self, src: &[u16], exponents: &mut [u8], sign_mantissa: &mut [u8]) {
        assert!(src.len() == exponents.len() && src.len() == sign_mantissa.len());
        match self.0 {
            Kind::Plain => plain(src, exponents, sign_mantissa),
            #[cfg(target_arch = "x86_64")]
            _ => {
                // Streaming stores need whole vectors of 64 bytes in their place.
                let head = sign_mantissa.as_ptr().align_offset(64).min(src.len());
                let tail = head + ((src.len() - head) & !63);
                plain(&src[..head], &mut exponents[..head], &mut sign_mantissa[..head]);
                let (w, e, s) = (&src[head..tail], &mut exponents[head..tail], &mut sign_mantissa[head..tail]);
                // SAFETY: `Kind::all` offers a kind only where the processor has what it needs; the body is aligned to 64
                // bytes and a multiple of 64 weights.
                unsafe {
                    match self.0 {
                        Kind::Avx2 { stream: false } => x86::avx2::<false>(w, e, s),
                        Kind::Avx2 { stream: true } => x86::avx2::<true>(w, e, s),
                        Kind::Avx512 { stream: false } => x86::avx512::<false>(w, e, s),
                        Kind::Avx512 { stream: true } => x86::avx512::<true>(w, e, s),
                        Kind::Plain => unreachable!("matched above"),
                    }
                }
                plain(&src[tail..], &mut exponents[tail..], &mut sign_mantissa[tail..]);
            }
        }
    }
}

fn plain(src: &[u16], exponents: &mut [u8], sign_mantissa: &mut [u8]) {
    for ((&w, e), s) in src.iter().zip(exponents).zip(sign_mantissa) {
        *e = (w >> 7) as u8;
        *s = (w >> 8 & 0x80 | w & 0x7f) as u8;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    // Packing words to bytes works within 128-bit lanes, so quarters of the results are put into order after it.

    /// # Safety
    ///
    /// The processor has AVX2; slices of one length, a multiple of 64; `sign_mantissa` is aligned to 64 bytes.
    #[target_feature(enable = "avx2")]
    pub unsafe fn avx2<const STREAM: bool>(src: &[u16], exponents: &mut [u8], sign_mantissa: &mut [u8]) {
        let (low, sign, mantissa) = (_mm256_set1_epi16(0xff), _mm256_set1_epi16(0x80), _mm256_set1_epi16(0x7f));
        let exponent = |w| _mm256_and_si256(_mm256_srli_epi16::<7>(w), low);
        let rest =
            |w| _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16::<8>(w), sign), _mm256_and_si256(w, mantissa));
        let pack = |a, b| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(a, b));
        for i in (0..src.len()).step_by(32) {
            // SAFETY: 32 more weights and bytes are there.
            unsafe {
                let a = _mm256_loadu_si256(src.as_ptr().add(i).cast());
                let b = _mm256_loadu_si256(src.as_ptr().add(i + 16).cast());
                _mm256_storeu_si256(exponents.as_mut_ptr().add(i).cast(), pack(exponent(a), exponent(b)));
                let (to, s) = (sign_mantissa.as_mut_ptr().add(i).cast(), pack(rest(a), rest(b)));
                if STREAM { _mm256_stream_si256(to, s) } else { _mm256_store_si256(to, s) }
            }
        }
    }

    /// # Safety
    ///
    /// The processor has AVX-512 F and BW; slices of one length, a multiple of 64; `sign_mantissa` is aligned to 64 bytes.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn avx512<const STREAM: bool>(src: &[u16], exponents: &mut [u8], sign_mantissa: &mut [u8]) {
        let (low, mantissa) = (_mm512_set1_epi16(0xff), _mm512_set1_epi16(0x7f));
        let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        let exponent = |w| _mm512_and_si512(_mm512_srli_epi16::<7>(w), low);
        // 0xca: a ? b : c. Behind the mantissa the high byte, moved down, has one bit: the sign.
        let rest = |w| _mm512_ternarylogic_epi64::<0xca>(mantissa, w, _mm512_srli_epi16::<8>(w));
        let pack = |a, b| _mm512_permutexvar_epi64(order, _mm512_packus_epi16(a, b));
        for i in (0..src.len()).step_by(64) {
            // SAFETY: 64 more weights and bytes are there.
            unsafe {
                let a = _mm512_loadu_si512(src.as_ptr().add(i).cast());
                let b = _mm512_loadu_si512(src.as_ptr().add(i + 32).cast());
                _mm512_storeu_si512(exponents.as_mut_ptr().add(i).cast(), pack(exponent(a), exponent(b)));
                let (to, s) = (sign_mantissa.as_mut_ptr().add(i).cast(), pack(rest(a), rest(b)));
                if STREAM { _mm512_stream_si512(to, s) } else { _mm512_store_si512(to, s) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_give_the_same() {
        // Every exponent with every sign and mantissa, to every alignment of bytes.
        let src: Vec<u16> = (0..=u16::MAX).collect();
        let exponents: Vec<u8> = src.iter().map(|w| (w >> 7) as u8).collect();
        let signs: Vec<u8> = src.iter().map(|w| (w >> 8 & 0x80 | w & 0x7f) as u8).collect();
        for stream in [false, true] {
            for split in Kind::all(stream).into_iter().map(Split) {
                for from in 0..70 {
                    let (mut e, mut s) = (vec![0; src.len()], vec![0; src.len()]);
                    split.run(&src[from..], &mut e[from..], &mut s[from..]);
                    assert!(e[from..] == exponents[from..] && s[from..] == signs[from..], "{split:?} from {from}");
                }
            }
        }
    }
}
