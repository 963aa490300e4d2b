//! The x86-64 variants: the portable code compiled for newer processors, steps by AVX2 and by AVX-512.

mod avx2;
mod count;

use super::{BATCH, Encoder, NoCode, Plain, STEP_BITS, Steps, Stretch, Unit};
use crate::huffman::codebook::Codebook;
use crate::huffman::fence;
use avx2::Avx2;
pub(super) use avx2::Narrow;
pub(super) use count::{count_avx2, count_avx512};
use std::arch::x86_64::*;

/// Entries of a register of bytes, which a byte permutation looks up at once. The first stands for all exponents that are not
/// in the table.
const SPAN: usize = 64;
/// The length that stands for no code, or one that 16 bits do not hold: whatever it is added to is too long for a step.
const NONE: u8 = 100;

/// Lengths and codes of up to 15 bits, right-aligned, of the 63 largest exponents that occur, which are the likeliest too.
/// Zero, which pruned weights have, lies far below and has a place of its own.
#[repr(align(64))]
pub(super) struct Tables {
    lengths: [u8; SPAN],
    low: [u8; SPAN],
    high: [u8; SPAN],
    /// The exponent of the first entry: it and all below it have no code here.
    base: u8,
    zero: Option<[u8; 3]>,
}

impl Tables {
    pub fn new(book: &Codebook) -> Tables {
        let base = book.words().map(|w| w.symbol).max().unwrap_or(0).saturating_sub(SPAN as u8 - 1);
        let entry = |exponent: u8| match book.word(exponent) {
            word if (1..=15).contains(&word.len) => {
                let bits = word.bits >> (32 - word.len as u32);
                Some([word.len, bits as u8, (bits >> 8) as u8])
            }
            _ => None,
        };
        let mut tables = Tables { lengths: [NONE; SPAN], low: [0; SPAN], high: [0; SPAN], base, zero: entry(0) };
        for i in 1..SPAN {
            if let Some(found) = base.checked_add(i as u8).and_then(entry) {
                [tables.lengths[i], tables.low[i], tables.high[i]] = found;
            }
        }
        tables
    }

    /// Whether nearly all weights are in them, so that they are the fastest way.
    pub fn hold(&self, histogram: &[u64; 256]) -> bool {
        let outside =
            (0..=self.base as usize).filter(|&e| e > 0 || self.zero.is_none()).map(|e| histogram[e]).sum::<u64>();
        outside <= histogram.iter().sum::<u64>() / 128
    }

    /// Whether weights of exponent 0 need their place.
    pub fn has_zero(&self) -> bool {
        self.zero.is_some()
    }
}

/// Numbers of the even bytes of two registers.
const EVEN: [u8; 64] = {
    let mut even = [0; 64];
    let mut i = 0;
    while i < 64 {
        even[i] = 2 * i as u8;
        i += 1;
    }
    even
};

/// The same, in each octet from the last to the first.
const EVEN_BACKWARDS: [u8; 64] = {
    let mut even = [0; 64];
    let mut i = 0;
    while i < 64 {
        even[i] = EVEN[i ^ 7];
        i += 1;
    }
    even
};

/// [`Encoder::batches`] of the portable unit with the instructions of newer processors.
///
/// # Safety
///
/// As that, and the processor has the features.
#[target_feature(enable = "bmi1,bmi2,avx2,lzcnt,movbe")]
pub(super) unsafe fn batches_avx2(
    encoder: &Encoder,
    weights: &[u16],
    signs: *mut u8,
    out: &mut Stretch,
) -> Result<u64, NoCode> {
    // SAFETY: the same promise.
    unsafe {
        match (encoder.per_step, &encoder.narrow) {
            (8, Some(_)) => encoder.batches::<Avx2<8>>(weights, signs, out),
            (_, Some(_)) => encoder.batches::<Avx2<16>>(weights, signs, out),
            (8, None) => encoder.batches::<Plain<8>>(weights, signs, out),
            (_, None) => encoder.batches::<Plain<16>>(weights, signs, out),
        }
    }
}

/// [`Encoder::batches`] with steps by AVX-512.
///
/// # Safety
///
/// As that, and the processor has the features.
#[target_feature(enable = "bmi1,bmi2,avx2,lzcnt,movbe,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(super) unsafe fn batches_avx512(
    encoder: &Encoder,
    weights: &[u16],
    signs: *mut u8,
    out: &mut Stretch,
    streaming: bool,
) -> Result<u64, NoCode> {
    // Streaming stores take whole aligned lines.
    let streaming = streaming && signs.addr().is_multiple_of(64);
    // SAFETY: the same promise.
    let placed = unsafe {
        match (encoder.per_step, encoder.wide.has_zero(), streaming) {
            (8, false, false) => encoder.batches::<Avx512<8, false, false>>(weights, signs, out),
            (8, false, true) => encoder.batches::<Avx512<8, false, true>>(weights, signs, out),
            (8, true, false) => encoder.batches::<Avx512<8, true, false>>(weights, signs, out),
            (8, true, true) => encoder.batches::<Avx512<8, true, true>>(weights, signs, out),
            (_, false, false) => encoder.batches::<Avx512<16, false, false>>(weights, signs, out),
            (_, false, true) => encoder.batches::<Avx512<16, false, true>>(weights, signs, out),
            (_, true, false) => encoder.batches::<Avx512<16, true, false>>(weights, signs, out),
            (_, true, true) => encoder.batches::<Avx512<16, true, true>>(weights, signs, out),
        }
    };
    if streaming {
        fence();
    }
    placed
}

/// # Safety
///
/// The processor has AVX-512, and 64 bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(at: *const u8) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_loadu_si512(at.cast()) }
}

/// The tables in registers, and what to do with them: N weights a step, zeros looked for, stores of signs past the caches.
struct Avx512<const N: usize, const ZERO: bool, const STREAM: bool> {
    lengths: __m512i,
    low: __m512i,
    high: __m512i,
    zero: [__m512i; 3],
    base: __m512i,
    even: __m512i,
    odd: __m512i,
    backwards: __m512i,
    /// The largest entries looked up so far.
    largest: __m512i,
}

/// Codes and marks of eight octets in the making.
#[derive(Clone, Copy)]
struct Eight {
    c: __m512i,
    m: __m512i,
    /// Zeros before the first bit. Those behind the last are what is left of 64.
    above: __m512i,
    /// Bits.
    l: __m512i,
}

impl<const N: usize, const ZERO: bool, const STREAM: bool> Avx512<N, ZERO, STREAM> {
    /// The exponents of 64 weights, in each octet the last weight's first, so that the first one's code ends up on top.
    /// Writes their sign/mantissa bytes.
    ///
    /// # Safety
    ///
    /// 64 weights can be read, and 64 bytes written at `signs`, on a cache line if STREAM; the processor has AVX-512.
    #[inline(always)]
    unsafe fn split(&self, weights: *const u16, signs: *mut u8) -> __m512i {
        // SAFETY: by the caller's promise.
        unsafe {
            let (x, y) = (load(weights.cast()), load(weights.add(32).cast()));
            _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(2048).cast());
            _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(2048 + 32).cast());
            let (bottom, top) = (_mm512_permutex2var_epi8(x, self.even, y), _mm512_permutex2var_epi8(x, self.odd, y));
            // 0xca is a ? b : c
            let sm = _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi8(0x7f), bottom, top);
            if STREAM {
                _mm512_stream_si512(signs.cast(), sm)
            } else {
                _mm512_storeu_si512(signs.cast(), sm)
            }
            _mm512_permutex2var_epi8(_mm512_srli_epi16::<7>(x), self.backwards, _mm512_srli_epi16::<7>(y))
        }
    }

    /// The octets of 64 exponents.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512.
    #[inline(always)]
    unsafe fn octets(&mut self, e: __m512i) -> Eight {
        // SAFETY: by the caller's promise.
        unsafe {
            let is_zero = if ZERO { _mm512_testn_epi8_mask(e, e) } else { 0 };
            // What lies below the table, or is zero, falls on its first entry. What lies above it has no code, and was not
            // counted: the look-up would not see that.
            let e = _mm512_subs_epu8(e, self.base);
            self.largest = _mm512_max_epu8(self.largest, e);
            let look = |table, zero| {
                let found = _mm512_permutexvar_epi8(e, table);
                if ZERO { _mm512_mask_mov_epi8(found, is_zero, zero) } else { found }
            };
            let l = look(self.lengths, self.zero[0]);
            let low = look(self.low, self.zero[1]);
            let high = look(self.high, self.zero[2]);

            // Pairs, in 16 bits, right-aligned. The odd byte is the first weight's.
            let byte = _mm512_set1_epi16(0xff);
            let c_first = _mm512_ternarylogic_epi64::<0xca>(byte, _mm512_srli_epi16::<8>(low), high);
            let c_second = _mm512_ternarylogic_epi64::<0xca>(byte, low, _mm512_slli_epi16::<8>(high));
            let (second, one) = (_mm512_and_si512(l, byte), _mm512_set1_epi16(1));
            let c = _mm512_or_si512(_mm512_sllv_epi16(c_first, second), c_second);
            let m = _mm512_or_si512(_mm512_sllv_epi16(one, second), one);
            let l = _mm512_maddubs_epi16(l, _mm512_set1_epi8(1));
            // A pair that 16 bits do not hold makes its step too long.
            let long = _mm512_cmpgt_epi16_mask(l, _mm512_set1_epi16(16));
            let l = _mm512_mask_mov_epi16(l, long, _mm512_set1_epi16(NONE as i16));

            // Fours, in 32 bits: the second pair moves up to the first, which is above it.
            let free = _mm512_sub_epi16(_mm512_set1_epi16(16), l);
            let below = _mm512_and_si512(free, _mm512_set1_epi32(0xffff));
            let (c, m) = (_mm512_sllv_epi16(c, below), _mm512_sllv_epi16(m, below));
            let above = _mm512_srli_epi32::<16>(free);
            let l = _mm512_madd_epi16(l, one);
            // Eights, in 64: the first four moves down to the second and that up to it, zeros going round.
            let by = _mm512_mask_sub_epi32(above, 0xaaaa, _mm512_setzero_si512(), below);
            let first = _mm512_srli_epi64::<32>(l);
            Eight {
                c: _mm512_rolv_epi32(c, by),
                m: _mm512_rolv_epi32(m, by),
                above: _mm512_sub_epi64(_mm512_set1_epi64(32), first),
                l: _mm512_add_epi64(_mm512_and_si512(l, _mm512_set1_epi64(0xffff_ffff)), first),
            }
        }
    }

    /// Writes eight steps from `number` on, given their codes and marks to the left. Whether none is too long.
    ///
    /// # Safety
    ///
    /// There are so many steps, and the processor has AVX-512.
    #[inline(always)]
    unsafe fn store(steps: &mut Steps, number: usize, c: __m512i, m: __m512i, l: __m512i) -> bool {
        // SAFETY: by the caller's promise.
        unsafe {
            let good = _mm512_cmple_epu64_mask(l, _mm512_set1_epi64(STEP_BITS as i64));
            _mm512_storeu_si512(steps.c.as_mut_ptr().add(number).cast(), c);
            _mm512_storeu_si512(steps.m.as_mut_ptr().add(number).cast(), _mm512_maskz_or_epi64(good, m, l));
            good == 0xff
        }
    }
}

impl<const N: usize, const ZERO: bool, const STREAM: bool> Unit<'_> for Avx512<N, ZERO, STREAM> {
    const PER_STEP: usize = N;

    #[inline(always)]
    unsafe fn new(encoder: &Encoder) -> Self {
        // SAFETY: the tables have 64 bytes each; the processor has AVX-512 by the caller's promise.
        unsafe {
            let tables = &encoder.wide;
            let even = load(EVEN.as_ptr());
            Avx512 {
                lengths: load(tables.lengths.as_ptr()),
                low: load(tables.low.as_ptr()),
                high: load(tables.high.as_ptr()),
                zero: tables.zero.unwrap_or([NONE, 0, 0]).map(|b| _mm512_set1_epi8(b as i8)),
                base: _mm512_set1_epi8(tables.base as i8),
                even,
                odd: _mm512_add_epi8(even, _mm512_set1_epi8(1)),
                backwards: load(EVEN_BACKWARDS.as_ptr()),
                largest: _mm512_setzero_si512(),
            }
        }
    }

    #[inline(always)]
    fn has_missed(&self) -> bool {
        // SAFETY: whoever has made a unit has AVX-512.
        unsafe { _mm512_cmpge_epu8_mask(self.largest, _mm512_set1_epi8(SPAN as i8)) != 0 }
    }

    #[inline(always)]
    unsafe fn make(&mut self, weights: &[u16; BATCH], signs: *mut u8, steps: &mut Steps) -> bool {
        let weights = weights.as_ptr();
        // SAFETY: by the caller's promise; a batch is twice 64 weights, and its steps are BATCH / N.
        unsafe {
            let (a, b) = (self.split(weights, signs), self.split(weights.add(64), signs.add(64)));
            if N == 8 {
                let (x, y) = (self.octets(a), self.octets(b));
                let up = |x: Eight| (_mm512_sllv_epi64(x.c, x.above), _mm512_sllv_epi64(x.m, x.above), x.l);
                let ((xc, xm, xl), (yc, ym, yl)) = (up(x), up(y));
                return Self::store(steps, 0, xc, xm, xl) & Self::store(steps, 8, yc, ym, yl);
            }
            // Even octets and odd ones, so that the two of a step meet.
            let (evens, odds) =
                (_mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1));
            let x = self.octets(_mm512_permutex2var_epi64(a, evens, b));
            let y = self.octets(_mm512_permutex2var_epi64(a, odds, b));
            // Where both fit, the second one's zeros go round, none of its bits.
            let by = _mm512_sub_epi64(y.above, x.l);
            let c = _mm512_or_si512(_mm512_sllv_epi64(x.c, x.above), _mm512_rolv_epi64(y.c, by));
            let m = _mm512_or_si512(_mm512_sllv_epi64(x.m, x.above), _mm512_rolv_epi64(y.m, by));
            Self::store(steps, 0, c, m, _mm512_add_epi64(x.l, y.l))
        }
    }
}
