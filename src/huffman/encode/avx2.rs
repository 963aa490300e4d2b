//! Encoding with AVX2: steps of the fifteen likeliest exponents by byte shuffles, their codes joined by multiplying and
//! by variable shifts; and the table of pairs with the instructions of newer processors.

use super::{BATCH, Encoder, NO_LENGTH, NoCode, PairSteps, STEP_BITS, StepMaker, Steps, Stretch};
use crate::huffman::codebook::Codebook;
use std::arch::x86_64::*;

/// Entries of a table that a byte shuffle looks up at once. The last one stands for all exponents that are not in it.
const ENTRIES: usize = 16;
/// Lengths and codes of up to 15 bits, right-aligned, of fifteen neighbouring exponents.
pub(super) struct NarrowTable {
    lengths: [u8; ENTRIES],
    low: [u8; ENTRIES],
    high: [u8; ENTRIES],
    /// Two to the power of the length: multiplying shifts.
    power_low: [u8; ENTRIES],
    power_high: [u8; ENTRIES],
    /// The exponent of the first entry.
    base: u8,
}

impl NarrowTable {
    /// Makes the table of the likeliest neighbours. `None` if too many weights are outside of it, so that the table of
    /// pairs is faster.
    pub fn new(book: &Codebook, histogram: &[u64; 256]) -> Option<NarrowTable> {
        let usable = |e: usize| (1..=15).contains(&book.word(e as u8).len);
        let inside =
            |base: usize| -> u64 { (base..base + ENTRIES - 1).filter(|&e| usable(e)).map(|e| histogram[e]).sum() };
        let base = (0..=256 - (ENTRIES - 1)).max_by_key(|&base| inside(base))?;
        let all = histogram.iter().sum::<u64>();
        if all - inside(base) > all / 256 {
            return None;
        }
        let mut tables = NarrowTable {
            lengths: [NO_LENGTH; ENTRIES],
            low: [0; ENTRIES],
            high: [0; ENTRIES],
            power_low: [0; ENTRIES],
            power_high: [0; ENTRIES],
            base: base as u8,
        };
        for i in (0..ENTRIES - 1).filter(|i| usable(base + i)) {
            let word = book.word((base + i) as u8);
            tables.lengths[i] = word.len;
            [tables.low[i], tables.high[i]] = ((word.bits >> (32 - word.len as u32)) as u16).to_le_bytes();
            [tables.power_low[i], tables.power_high[i]] = (1u16 << word.len).to_le_bytes();
        }
        Some(tables)
    }
}

/// Runs [`Encoder::batches`] with steps by AVX2, or from the table of pairs if that is what the encoder has.
///
/// # Safety
///
/// As [`Encoder::batches`], and the processor has the features.
#[target_feature(enable = "bmi1,bmi2,avx2,lzcnt,movbe")]
pub(super) unsafe fn batches(
    encoder: &Encoder,
    weights: &[u16],
    signs: *mut u8,
    out: &mut Stretch,
) -> Result<u64, NoCode> {
    // SAFETY: `signs` has room for a byte a weight, `out` for 32 bits a weight and three words, and the processor has AVX2.
    unsafe {
        match (encoder.per_step, &encoder.narrow) {
            (8, Some(_)) => encoder.batches::<Avx2Steps<8>>(weights, signs, out),
            (_, Some(_)) => encoder.batches::<Avx2Steps<16>>(weights, signs, out),
            (8, None) => encoder.batches::<PairSteps<8>>(weights, signs, out),
            (_, None) => encoder.batches::<PairSteps<16>>(weights, signs, out),
        }
    }
}

/// The table in registers, each part twice. N: weights of a step.
struct Avx2Steps<const N: usize> {
    lengths: __m256i,
    low: __m256i,
    high: __m256i,
    power_low: __m256i,
    power_high: __m256i,
    base: __m256i,
}

/// Four octets of codes in the making, each with `above` zeros before its first bit and `below` after its last.
#[derive(Clone, Copy)]
struct Four {
    c: __m256i,
    m: __m256i,
    above: __m256i,
    below: __m256i,
    /// Lengths of the halves, in 32 bits.
    l: __m256i,
}

impl<const N: usize> Avx2Steps<N> {
    /// Returns the places of 32 weights in the table, in the order of octets 0, 2, 1, 3; writes their sign/mantissa
    /// bytes.
    ///
    /// # Safety
    ///
    /// 32 weights can be read, and 32 bytes written at `signs`; the processor has AVX2.
    #[inline(always)]
    unsafe fn places(&self, weights: *const u16, signs: *mut u8) -> __m256i {
        // SAFETY: 32 weights can be read and 32 bytes written, with any alignment.
        unsafe {
            let load = |at: *const u16| _mm256_loadu_si256(at.cast());
            let (x, y) = (load(weights), load(weights.add(16)));
            _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(1024).cast());
            let byte = _mm256_set1_epi16(0xff);
            let bottom = _mm256_packus_epi16(_mm256_and_si256(x, byte), _mm256_and_si256(y, byte));
            let top = _mm256_packus_epi16(_mm256_srli_epi16::<8>(x), _mm256_srli_epi16::<8>(y));
            let sign = _mm256_set1_epi8(-128);
            let sm = _mm256_or_si256(_mm256_andnot_si256(sign, bottom), _mm256_and_si256(sign, top));
            _mm256_storeu_si256(signs.cast(), _mm256_permute4x64_epi64::<0xd8>(sm));
            // The exponent's last bit is the bottom's first: its sign.
            let last = _mm256_cmpgt_epi8(_mm256_setzero_si256(), bottom);
            let e = _mm256_sub_epi8(_mm256_add_epi8(top, top), last);
            _mm256_min_epu8(_mm256_sub_epi8(e, self.base), _mm256_set1_epi8(ENTRIES as i8 - 1))
        }
    }

    /// Joins the codes of twice 32 places to octets.
    ///
    /// # Safety
    ///
    /// The processor has AVX2.
    #[inline(always)]
    unsafe fn octets(&self, a: __m256i, b: __m256i) -> [Four; 2] {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe {
            // In each octet the last weight comes first now, so that the first one's code ends up on top. First weights
            // of all pairs go to one register, second ones to another.
            let apart =
                _mm256_broadcastsi128_si256(_mm_setr_epi8(6, 4, 2, 0, 14, 12, 10, 8, 7, 5, 3, 1, 15, 13, 11, 9));
            let (a, b) = (_mm256_shuffle_epi8(a, apart), _mm256_shuffle_epi8(b, apart));
            let (first, second) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
            let (first_low, first_high) = (_mm256_shuffle_epi8(self.low, first), _mm256_shuffle_epi8(self.high, first));
            let (second_low, second_high) =
                (_mm256_shuffle_epi8(self.low, second), _mm256_shuffle_epi8(self.high, second));
            let (power_low, power_high) =
                (_mm256_shuffle_epi8(self.power_low, second), _mm256_shuffle_epi8(self.power_high, second));
            let l =
                _mm256_add_epi8(_mm256_shuffle_epi8(self.lengths, first), _mm256_shuffle_epi8(self.lengths, second));
            // A pair that 16 bits do not hold makes its step too long.
            let l = _mm256_or_si256(l, _mm256_cmpgt_epi8(l, _mm256_set1_epi8(16)));
            let zero = _mm256_setzero_si256();
            [
                Self::four(
                    _mm256_unpacklo_epi8(first_low, first_high),
                    _mm256_unpacklo_epi8(second_low, second_high),
                    _mm256_unpacklo_epi8(power_low, power_high),
                    _mm256_unpacklo_epi8(l, zero),
                ),
                Self::four(
                    _mm256_unpackhi_epi8(first_low, first_high),
                    _mm256_unpackhi_epi8(second_low, second_high),
                    _mm256_unpackhi_epi8(power_low, power_high),
                    _mm256_unpackhi_epi8(l, zero),
                ),
            ]
        }
    }

    /// Joins octets from codes of first and second weights in 16 bits, right-aligned, two to the power of the second
    /// one's length, and lengths of pairs.
    ///
    /// # Safety
    ///
    /// The processor has AVX2.
    #[inline(always)]
    unsafe fn four(first: __m256i, second: __m256i, power: __m256i, l: __m256i) -> Four {
        // SAFETY: the processor has AVX2; no memory is accessed.
        unsafe {
            let c = _mm256_or_si256(_mm256_mullo_epi16(first, power), second);
            let m = _mm256_or_si256(power, _mm256_set1_epi16(1));
            // Fours, in 32 bits: the first pair is above the second.
            let half = _mm256_set1_epi32(0xffff);
            let second = _mm256_and_si256(l, half);
            let join =
                |v| _mm256_or_si256(_mm256_sllv_epi32(_mm256_srli_epi32::<16>(v), second), _mm256_and_si256(v, half));
            let (c, m) = (join(c), join(m));
            let l = _mm256_madd_epi16(l, _mm256_set1_epi16(1));
            // Eights, in 64: the first half stays where it is, and the second moves up to it.
            let free = _mm256_sub_epi32(_mm256_set1_epi32(32), l);
            let below = _mm256_and_si256(free, _mm256_set1_epi64x(0xffff_ffff));
            let above = _mm256_srli_epi64::<32>(free);
            Four { c: _mm256_sllv_epi32(c, below), m: _mm256_sllv_epi32(m, below), above, below, l }
        }
    }

    /// Writes four steps of an octet each, as [`Self::store`] does.
    ///
    /// # Safety
    ///
    /// As [`Self::store`].
    #[inline(always)]
    unsafe fn one(steps: &mut Steps, number: usize, x: Four) -> __m256i {
        // SAFETY: `steps` has four steps from `number`, and the processor has AVX2.
        unsafe { Self::store(steps, number, _mm256_sllv_epi64(x.c, x.above), _mm256_sllv_epi64(x.m, x.above), x.l) }
    }

    /// Writes four steps of two octets each, as [`Self::store`] does.
    ///
    /// # Safety
    ///
    /// As [`Self::store`].
    #[inline(always)]
    unsafe fn both(steps: &mut Steps, number: usize, x: Four, y: Four) -> __m256i {
        // SAFETY: `steps` has four steps from `number`, and the processor has AVX2.
        unsafe {
            let bits = _mm256_sub_epi64(_mm256_set1_epi64x(64), _mm256_add_epi64(x.above, x.below));
            let (xc, xm) = (_mm256_sllv_epi64(x.c, x.above), _mm256_sllv_epi64(x.m, x.above));
            let yc = _mm256_srlv_epi64(_mm256_sllv_epi64(y.c, y.above), bits);
            let ym = _mm256_srlv_epi64(_mm256_sllv_epi64(y.m, y.above), bits);
            Self::store(steps, number, _mm256_or_si256(xc, yc), _mm256_or_si256(xm, ym), _mm256_add_epi32(x.l, y.l))
        }
    }

    /// Writes four steps from number `number`, given their codes and marks to the left and the lengths of their halves.
    /// Returns which of them are too long.
    ///
    /// # Safety
    ///
    /// `steps` has four steps from `number`, and the processor has AVX2.
    #[inline(always)]
    unsafe fn store(steps: &mut Steps, number: usize, c: __m256i, m: __m256i, halves: __m256i) -> __m256i {
        // SAFETY: there are four steps from `number`.
        unsafe {
            let low = _mm256_set1_epi64x(0xffff_ffff);
            let l = _mm256_and_si256(_mm256_add_epi64(halves, _mm256_srli_epi64::<32>(halves)), low);
            let long = _mm256_cmpgt_epi64(l, _mm256_set1_epi64x(STEP_BITS as i64));
            let m = _mm256_andnot_si256(long, _mm256_or_si256(m, l));
            // Octets come in the order 0, 2, 1, 3.
            let in_order = |v| if N == 8 { _mm256_permute4x64_epi64::<0xd8>(v) } else { v };
            _mm256_storeu_si256(steps.c.as_mut_ptr().add(number).cast(), in_order(c));
            _mm256_storeu_si256(steps.m.as_mut_ptr().add(number).cast(), in_order(m));
            long
        }
    }
}

impl<const N: usize> StepMaker<'_> for Avx2Steps<N> {
    const PER_STEP: usize = N;

    #[inline(always)]
    unsafe fn new(encoder: &Encoder) -> Self {
        let Some(tables) = &encoder.narrow else {
            unreachable!("these steps are used only if there is a table for them")
        };
        // SAFETY: the arrays have 16 bytes each, and the processor has AVX2.
        unsafe {
            let twice = |table: &[u8; ENTRIES]| _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            Avx2Steps {
                lengths: twice(&tables.lengths),
                low: twice(&tables.low),
                high: twice(&tables.high),
                power_low: twice(&tables.power_low),
                power_high: twice(&tables.power_high),
                base: _mm256_set1_epi8(tables.base as i8),
            }
        }
    }

    #[inline(always)]
    unsafe fn make(&mut self, weights: &[u16; BATCH], signs: *mut u8, steps: &mut Steps) -> bool {
        let weights = weights.as_ptr();
        // SAFETY: a batch is four times 32 weights, `signs` has a byte for each, and `steps` has room for BATCH / N
        // steps.
        unsafe {
            let a = self.places(weights, signs);
            let b = self.places(weights.add(32), signs.add(32));
            let c = self.places(weights.add(64), signs.add(64));
            let d = self.places(weights.add(96), signs.add(96));
            let long = if N == 8 {
                let ([a, b], [c, d]) = (self.octets(a, b), self.octets(c, d));
                let first = _mm256_or_si256(Self::one(steps, 0, a), Self::one(steps, 4, b));
                _mm256_or_si256(first, _mm256_or_si256(Self::one(steps, 8, c), Self::one(steps, 12, d)))
            } else {
                // Even octets and odd ones, so that the two of a step meet.
                let evens = (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x20>(c, d));
                let odds = (_mm256_permute2x128_si256::<0x31>(a, b), _mm256_permute2x128_si256::<0x31>(c, d));
                let (first, second) = (self.octets(evens.0, evens.1), self.octets(odds.0, odds.1));
                _mm256_or_si256(Self::both(steps, 0, first[0], second[0]), Self::both(steps, 4, first[1], second[1]))
            };
            _mm256_testz_si256(long, long) != 0
        }
    }
}
