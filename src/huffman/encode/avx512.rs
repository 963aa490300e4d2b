//! Encoding with AVX-512: steps by byte permutations.

use super::{BATCH, Encoder, NO_LENGTH, NoCode, STEP_BITS, StepMaker, Steps, Stretch};
use crate::huffman::codebook::Codebook;
use crate::huffman::fence;
use std::arch::x86_64::*;

/// Entries of a register of bytes, which a byte permutation looks up at once. The first stands for all exponents that
/// are not in the table.
const SPAN: usize = 64;

/// Lengths and codes of up to 15 bits, right-aligned, of the 63 largest exponents that occur, which are the likeliest
/// too. Zero, which pruned weights have, is far below and has a place of its own.
#[repr(align(64))]
pub(super) struct WideTable {
    lengths: [u8; SPAN],
    low: [u8; SPAN],
    high: [u8; SPAN],
    /// The exponent of the first entry: it and all below it have no code here.
    base: u8,
    zero: Option<[u8; 3]>,
}

impl WideTable {
    /// Makes the table of a code.
    pub fn new(book: &Codebook) -> WideTable {
        let base = book.words().map(|w| w.symbol).max().unwrap_or(0).saturating_sub(SPAN as u8 - 1);
        let entry = |exponent: u8| match book.word(exponent) {
            word if (1..=15).contains(&word.len) => {
                let bits = word.bits >> (32 - word.len as u32);
                Some([word.len, bits as u8, (bits >> 8) as u8])
            }
            _ => None,
        };
        let mut tables =
            WideTable { lengths: [NO_LENGTH; SPAN], low: [0; SPAN], high: [0; SPAN], base, zero: entry(0) };
        for i in 1..SPAN {
            if let Some(found) = base.checked_add(i as u8).and_then(entry) {
                [tables.lengths[i], tables.low[i], tables.high[i]] = found;
            }
        }
        tables
    }

    /// Returns whether nearly all weights are in the table, so that it is the fastest way.
    pub fn hold(&self, histogram: &[u64; 256]) -> bool {
        let outside =
            (0..=self.base as usize).filter(|&e| e > 0 || self.zero.is_none()).map(|e| histogram[e]).sum::<u64>();
        outside <= histogram.iter().sum::<u64>() / 128
    }

    /// Returns whether exponent 0 has a code in the table.
    pub fn has_zero(&self) -> bool {
        self.zero.is_some()
    }
}

/// The numbers of the even bytes of two registers.
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

/// Runs [`Encoder::batches`] with steps by AVX-512.
///
/// # Safety
///
/// As [`Encoder::batches`], and the processor has the features.
#[target_feature(enable = "bmi1,bmi2,avx2,lzcnt,movbe,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(super) unsafe fn batches(
    encoder: &Encoder,
    weights: &[u16],
    signs: *mut u8,
    out: &mut Stretch,
    streaming: bool,
) -> Result<u64, NoCode> {
    // Streaming stores take whole aligned lines.
    let streaming = streaming && signs.addr().is_multiple_of(64);
    // SAFETY: `signs` has room for a byte a weight, `out` for 32 bits a weight and three words, and the processor has AVX-512.
    let placed = unsafe {
        match (encoder.per_step, encoder.wide.has_zero(), streaming) {
            (8, false, false) => encoder.batches::<Avx512Steps<8, false, false>>(weights, signs, out),
            (8, false, true) => encoder.batches::<Avx512Steps<8, false, true>>(weights, signs, out),
            (8, true, false) => encoder.batches::<Avx512Steps<8, true, false>>(weights, signs, out),
            (8, true, true) => encoder.batches::<Avx512Steps<8, true, true>>(weights, signs, out),
            (_, false, false) => encoder.batches::<Avx512Steps<16, false, false>>(weights, signs, out),
            (_, false, true) => encoder.batches::<Avx512Steps<16, false, true>>(weights, signs, out),
            (_, true, false) => encoder.batches::<Avx512Steps<16, true, false>>(weights, signs, out),
            (_, true, true) => encoder.batches::<Avx512Steps<16, true, true>>(weights, signs, out),
        }
    };
    if streaming {
        fence();
    }
    placed
}

/// Loads a register.
///
/// # Safety
///
/// The processor has AVX-512, and 64 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(at: *const u8) -> __m512i {
    // SAFETY: 64 bytes can be read, with any alignment.
    unsafe { _mm512_loadu_si512(at.cast()) }
}

/// The table in registers. N: weights of a step. ZERO: exponent 0 has a code. STREAM: signs are stored past the caches.
struct Avx512Steps<const N: usize, const ZERO: bool, const STREAM: bool> {
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
    /// Zeros before the first bit. Those after the last are the rest of 64.
    above: __m512i,
    /// Bits of codes.
    l: __m512i,
}

impl<const N: usize, const ZERO: bool, const STREAM: bool> Avx512Steps<N, ZERO, STREAM> {
    /// Returns the exponents of 64 weights, in each octet the last weight's first, so that the first one's code ends up
    /// on top. Writes their sign/mantissa bytes.
    ///
    /// # Safety
    ///
    /// 64 weights can be read, and 64 bytes written at `signs`, on a cache line if STREAM; the processor has AVX-512.
    #[inline(always)]
    unsafe fn split(&self, weights: *const u16, signs: *mut u8) -> __m512i {
        // SAFETY: 64 weights can be read and 64 bytes written, on a cache line if STREAM.
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

    /// Joins the codes of 64 exponents to octets.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512.
    #[inline(always)]
    unsafe fn octets(&mut self, e: __m512i) -> Eight {
        // SAFETY: the processor has AVX-512; no memory is accessed.
        unsafe {
            let is_zero = if ZERO { _mm512_testn_epi8_mask(e, e) } else { 0 };
            // Exponents below the table, and zero, fall on its first entry. Those above it have no code and were not
            // counted; the look-up would not notice, so the largest is kept.
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
            let l = _mm512_mask_mov_epi16(l, long, _mm512_set1_epi16(NO_LENGTH as i16));

            // Fours, in 32 bits: the second pair moves up to the first, which is above it.
            let free = _mm512_sub_epi16(_mm512_set1_epi16(16), l);
            let below = _mm512_and_si512(free, _mm512_set1_epi32(0xffff));
            let (c, m) = (_mm512_sllv_epi16(c, below), _mm512_sllv_epi16(m, below));
            let above = _mm512_srli_epi32::<16>(free);
            let l = _mm512_madd_epi16(l, one);
            // Eights, in 64: the first four moves down to the second and that up to it; only zeros wrap around.
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

    /// Writes eight steps from number `number`, given their codes and marks to the left. Returns whether none is too
    /// long.
    ///
    /// # Safety
    ///
    /// `steps` has eight steps from `number`, and the processor has AVX-512.
    #[inline(always)]
    unsafe fn store(steps: &mut Steps, number: usize, c: __m512i, m: __m512i, l: __m512i) -> bool {
        // SAFETY: there are eight steps from `number`.
        unsafe {
            let good = _mm512_cmple_epu64_mask(l, _mm512_set1_epi64(STEP_BITS as i64));
            _mm512_storeu_si512(steps.c.as_mut_ptr().add(number).cast(), c);
            _mm512_storeu_si512(steps.m.as_mut_ptr().add(number).cast(), _mm512_maskz_or_epi64(good, m, l));
            good == 0xff
        }
    }
}

impl<const N: usize, const ZERO: bool, const STREAM: bool> StepMaker<'_> for Avx512Steps<N, ZERO, STREAM> {
    const PER_STEP: usize = N;

    #[inline(always)]
    unsafe fn new(encoder: &Encoder) -> Self {
        // SAFETY: the arrays have 64 bytes each, and the processor has AVX-512.
        unsafe {
            let tables = &encoder.wide;
            let even = load(EVEN.as_ptr());
            Avx512Steps {
                lengths: load(tables.lengths.as_ptr()),
                low: load(tables.low.as_ptr()),
                high: load(tables.high.as_ptr()),
                zero: tables.zero.unwrap_or([NO_LENGTH, 0, 0]).map(|b| _mm512_set1_epi8(b as i8)),
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
        // SAFETY: `new` was called, which requires AVX-512.
        unsafe { _mm512_cmpge_epu8_mask(self.largest, _mm512_set1_epi8(SPAN as i8)) != 0 }
    }

    #[inline(always)]
    unsafe fn make(&mut self, weights: &[u16; BATCH], signs: *mut u8, steps: &mut Steps) -> bool {
        let weights = weights.as_ptr();
        // SAFETY: a batch is twice 64 weights, `signs` has a byte for each, and `steps` has room for BATCH / N steps.
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
            // Where both fit, only zeros of the second one wrap around.
            let by = _mm512_sub_epi64(y.above, x.l);
            let c = _mm512_or_si512(_mm512_sllv_epi64(x.c, x.above), _mm512_rolv_epi64(y.c, by));
            let m = _mm512_or_si512(_mm512_sllv_epi64(x.m, x.above), _mm512_rolv_epi64(y.m, by));
            Self::store(steps, 0, c, m, _mm512_add_epi64(x.l, y.l))
        }
    }
}
