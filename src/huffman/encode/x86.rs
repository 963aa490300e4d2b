//! The x86-64 variants: the portable code compiled for newer processors, and steps by AVX-512.

use super::{BURST, Encoder, NoCode, Plain, STEP_BITS, Step, Stretch, Unit, count_plain};
use crate::huffman::codebook::Codebook;
use std::arch::x86_64::*;

/// Exponents that byte permutations look up at once: two registers of 64.
const SPAN: usize = 128;
/// The length that stands for no code, or one that 16 bits do not hold: whatever it is added to is too long for a step.
const NONE: u8 = 100;

/// Lengths and codes of up to 15 bits, right-aligned, of [`SPAN`] exponents from `base` on: the largest that occur,
/// which are the likeliest too. Zero, which pruned weights have, lies far below and has a place of its own.
#[repr(align(64))]
pub(super) struct Tables {
    lengths: [u8; SPAN],
    low: [u8; SPAN],
    high: [u8; SPAN],
    base: u8,
    zero: [u8; 3],
}

impl Tables {
    pub fn new(book: &Codebook) -> Tables {
        let base = book.words().map(|w| w.symbol).max().unwrap_or(0).saturating_sub(SPAN as u8 - 1);
        let entry = |exponent: Option<u8>| match exponent.map(|e| book.word(e)) {
            Some(word) if (1..=15).contains(&word.len) => {
                let bits = word.bits >> (32 - word.len as u32);
                [word.len, bits as u8, (bits >> 8) as u8]
            }
            _ => [NONE, 0, 0],
        };
        let mut tables = Tables { lengths: [NONE; SPAN], low: [0; SPAN], high: [0; SPAN], base, zero: entry(Some(0)) };
        for i in 0..SPAN {
            [tables.lengths[i], tables.low[i], tables.high[i]] = entry(base.checked_add(i as u8));
        }
        tables
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

/// [`Encoder::bursts`] of the portable unit with the instructions of newer processors.
///
/// # Safety
///
/// As that, and the processor has the features.
#[target_feature(enable = "bmi1,bmi2,avx2,lzcnt,movbe")]
pub(super) unsafe fn bursts_avx2(
    encoder: &Encoder,
    weights: &[u16],
    signs: *mut u8,
    out: &mut Stretch,
) -> Result<u64, NoCode> {
    // SAFETY: the same promise.
    unsafe { encoder.bursts::<Plain>(weights, signs, out, false) }
}

/// [`Encoder::bursts`] with steps by AVX-512.
///
/// # Safety
///
/// As that, and the processor has the features.
#[target_feature(enable = "bmi1,bmi2,avx2,lzcnt,movbe,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(super) unsafe fn bursts_avx512(
    encoder: &Encoder,
    weights: &[u16],
    signs: *mut u8,
    out: &mut Stretch,
    streaming: bool,
) -> Result<u64, NoCode> {
    // Streaming stores take whole aligned lines.
    let streaming = streaming && signs.addr().is_multiple_of(64);
    // SAFETY: the same promise.
    let placed = unsafe { encoder.bursts::<Avx512>(weights, signs, out, streaming) };
    if streaming {
        // They are not ordered with anything: others must see the bytes when this returns.
        _mm_sfence();
    }
    placed
}

struct Avx512;

/// # Safety
///
/// The processor has AVX-512, and 64 bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(at: *const u8) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_loadu_si512(at.cast()) }
}

impl Unit for Avx512 {
    const MULTIPLE: usize = 128;

    #[inline(always)]
    unsafe fn steps(
        encoder: &Encoder,
        weights: &[u16],
        signs: *mut u8,
        steps: &mut [Step; BURST / 8],
        streaming: bool,
    ) {
        // SAFETY: the same promise.
        unsafe {
            match (encoder.per_step, streaming) {
                (8, false) => steps_avx512::<8, false>(&encoder.wide, weights, signs, steps),
                (8, true) => steps_avx512::<8, true>(&encoder.wide, weights, signs, steps),
                (_, false) => steps_avx512::<16, false>(&encoder.wide, weights, signs, steps),
                (_, true) => steps_avx512::<16, true>(&encoder.wide, weights, signs, steps),
            }
        }
    }
}

/// Steps of N weights. Weights come in whole 128s.
///
/// # Safety
///
/// As [`Unit::steps`]; for streaming `signs` is aligned to 64 bytes.
#[target_feature(enable = "bmi1,bmi2,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
unsafe fn steps_avx512<const N: usize, const STREAM: bool>(
    tables: &Tables,
    weights: &[u16],
    signs: *mut u8,
    steps: &mut [Step; BURST / 8],
) {
    // SAFETY: the tables have 128 bytes each; of each 128 weights all are read and their sign bytes written, and their
    // 128 / N steps are in the burst's.
    unsafe {
        let even = load(EVEN.as_ptr());
        let odd = _mm512_add_epi8(even, _mm512_set1_epi8(1));
        let table = |t: &[u8; SPAN]| (load(t.as_ptr()), load(t.as_ptr().add(64)));
        let (lengths, low, high) = (table(&tables.lengths), table(&tables.low), table(&tables.high));
        let base = _mm512_set1_epi8(tables.base as i8);
        let zero = tables.zero.map(|b| _mm512_set1_epi8(b as i8));
        let none = _mm512_set1_epi8(NONE as i8);
        let (byte, half, word) = (_mm512_set1_epi16(0xff), _mm512_set1_epi32(0xffff), _mm512_set1_epi64(0xffff_ffff));
        // Steps in memory are c and m in turn.
        let (to_low, to_high) =
            (_mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4));

        // Octets of 64 weights: codes and marks right-aligned in 64 bits, and their lengths.
        let octets = |weights: *const u16, signs: *mut u8| {
            let (x, y) = (load(weights.cast()), load(weights.add(32).cast()));
            _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(1024).cast());
            _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(1024 + 32).cast());
            let (bottom, top) = (_mm512_permutex2var_epi8(x, even, y), _mm512_permutex2var_epi8(x, odd, y));
            // 0xca is a ? b : c
            let sm = _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi8(0x7f), bottom, top);
            if STREAM {
                _mm512_stream_si512(signs.cast(), sm)
            } else {
                _mm512_storeu_si512(signs.cast(), sm)
            }

            let e = _mm512_permutex2var_epi8(_mm512_srli_epi16::<7>(x), even, _mm512_srli_epi16::<7>(y));
            let is_zero = _mm512_testn_epi8_mask(e, e);
            let e = _mm512_sub_epi8(e, base);
            let far = _mm512_movepi8_mask(e);
            let look = |t: (__m512i, __m512i)| _mm512_permutex2var_epi8(t.0, e, t.1);
            let l = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(look(lengths), far, none), is_zero, zero[0]);
            let low = _mm512_mask_mov_epi8(look(low), is_zero, zero[1]);
            let high = _mm512_mask_mov_epi8(look(high), is_zero, zero[2]);

            // Pairs, in 16 bits. The even byte is the first weight's.
            let (first, second) = (_mm512_and_si512(l, byte), _mm512_srli_epi16::<8>(l));
            let c_first = _mm512_ternarylogic_epi64::<0xca>(byte, low, _mm512_slli_epi16::<8>(high));
            let c_second = _mm512_ternarylogic_epi64::<0xca>(byte, _mm512_srli_epi16::<8>(low), high);
            let c = _mm512_or_si512(_mm512_sllv_epi16(c_first, second), c_second);
            let one = _mm512_set1_epi16(1);
            let m = _mm512_or_si512(_mm512_sllv_epi16(one, second), one);
            let l = _mm512_add_epi16(first, second);
            // A pair that 16 bits do not hold makes its step too long.
            let long = _mm512_cmpgt_epi16_mask(l, _mm512_set1_epi16(16));
            let l = _mm512_mask_mov_epi16(l, long, _mm512_set1_epi16(NONE as i16));

            // Fours, in 32 bits; eights, in 64.
            let second = _mm512_srli_epi32::<16>(l);
            let join =
                |v| _mm512_or_si512(_mm512_sllv_epi32(_mm512_and_si512(v, half), second), _mm512_srli_epi32::<16>(v));
            let (c, m, l) = (join(c), join(m), _mm512_add_epi32(_mm512_and_si512(l, half), second));
            let second = _mm512_srli_epi64::<32>(l);
            let join =
                |v| _mm512_or_si512(_mm512_sllv_epi64(_mm512_and_si512(v, word), second), _mm512_srli_epi64::<32>(v));
            (join(c), join(m), _mm512_add_epi64(_mm512_and_si512(l, word), second))
        };
        // To the left, checked, and into memory.
        let store = |to: *mut Step, (c, m, l): (__m512i, __m512i, __m512i)| {
            let up = _mm512_sub_epi64(_mm512_set1_epi64(64), l);
            let c = _mm512_sllv_epi64(c, up);
            let good = _mm512_cmple_epu64_mask(l, _mm512_set1_epi64(STEP_BITS as i64));
            let m = _mm512_maskz_or_epi64(good, _mm512_sllv_epi64(m, up), l);
            _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi64(c, to_low, m));
            _mm512_storeu_si512(to.add(4).cast(), _mm512_permutex2var_epi64(c, to_high, m));
        };
        let to = steps.as_mut_ptr();
        for (number, weights) in weights.as_chunks::<128>().0.iter().enumerate() {
            let (weights, signs) = (weights.as_ptr(), signs.add(128 * number));
            let a = octets(weights, signs);
            let b = octets(weights.add(64), signs.add(64));
            if N == 8 {
                store(to.add(16 * number), a);
                store(to.add(16 * number + 8), b);
            } else {
                // Neighbouring octets: the even lanes of both, and the odd ones.
                let (evens, odds) =
                    (_mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1));
                let first = |x, y| _mm512_permutex2var_epi64(x, evens, y);
                let second = |x, y| _mm512_permutex2var_epi64(x, odds, y);
                let by = second(a.2, b.2);
                let join = |x, y| _mm512_or_si512(_mm512_sllv_epi64(first(x, y), by), second(x, y));
                let joined = (join(a.0, b.0), join(a.1, b.1), _mm512_add_epi64(first(a.2, b.2), by));
                store(to.add(8 * number), joined);
            }
        }
    }
}

/// Counts exponents: the eight likeliest of the first weights by comparison, 64 weights at a time, what is left one by one.
///
/// # Safety
///
/// The processor has the features. There are fewer than 2^32 weights.
#[target_feature(enable = "popcnt,bmi1,bmi2,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(super) unsafe fn count(weights: &[u16], counts: &mut [u64; 256]) {
    const LIKELY: usize = 8;
    let mut sample = [0; 256];
    count_plain(&weights[..weights.len().min(4096)], &mut sample);
    let mut order: [u8; 256] = std::array::from_fn(|e| e as u8);
    order.sort_unstable_by_key(|&e| std::cmp::Reverse(sample[e as usize]));
    let mut likely = [0u64; LIKELY];
    let mut rest = [0u8; 4096];
    let mut kept = 0;
    // SAFETY: each 64 weights are read where they are; `rest` is emptied while a register still fits behind what it has.
    unsafe {
        let values: [__m512i; LIKELY] = std::array::from_fn(|i| _mm512_set1_epi8(order[i] as i8));
        let even = load(EVEN.as_ptr());
        let (lines, tail) = weights.as_chunks::<64>();
        for line in lines {
            let at = line.as_ptr();
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(2048).cast());
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(2048 + 32).cast());
            let (x, y) = (load(at.cast()), load(at.add(32).cast()));
            let e = _mm512_permutex2var_epi8(_mm512_srli_epi16::<7>(x), even, _mm512_srli_epi16::<7>(y));
            let mut found = 0u64;
            for (value, n) in values.iter().zip(&mut likely) {
                let mask = _mm512_cmpeq_epi8_mask(e, *value);
                *n += mask.count_ones() as u64;
                found |= mask;
            }
            _mm512_storeu_si512(rest.as_mut_ptr().add(kept).cast(), _mm512_maskz_compress_epi8(!found, e));
            kept += (!found).count_ones() as usize;
            if kept > rest.len() - 64 {
                rest[..kept].iter().for_each(|&e| counts[e as usize] += 1);
                kept = 0;
            }
        }
        count_plain(tail, counts);
    }
    rest[..kept].iter().for_each(|&e| counts[e as usize] += 1);
    for (&e, n) in order.iter().zip(likely) {
        counts[e as usize] += n;
    }
}
