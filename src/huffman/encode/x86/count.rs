//! Counting exponents by AVX2 and AVX-512.
//!
//! The likely exponents are neighbours, and sixteen of them are nearly all there are. A byte shuffle makes a byte with a single
//! bit of each weight's exponent, one byte for the lower eight of the sixteen and one for the upper. How often each bit is
//! set is added up by full adders that work on all bits of a register at once: two registers come in for each one that
//! goes on to the next level, where a bit counts twice as much. So a line of weights costs two additions, not sixteen
//! comparisons. What is not likely is counted one by one.

use super::super::count::{count_plain, likely};
use super::super::prefetch;
use std::arch::x86_64::*;

/// Likely exponents.
const LIKELY: usize = 16;
/// Lines of a block: each level below the fifth then has taken in whatever it passes on.
const BLOCK: usize = 16;
/// Levels of adders. A bit of the last one counts 128.
const LEVELS: usize = 8;
/// Blocks after which no level is full: 255 lines would be.
const BLOCKS: usize = 15;

/// A byte with bit `i` set for each of eight values from `first` on.
const fn one_hot(first: usize) -> [u8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 8 {
        table[first + i] = 1 << i;
        i += 1;
    }
    table
}

/// A register of bytes, or of bits. All methods need the processor to have it.
trait Register: Copy {
    /// Its bytes.
    const BYTES: usize;

    unsafe fn broadcast(table: [u8; 16]) -> Self;
    /// Exponents of BYTES weights, in any order, less `base`.
    unsafe fn exponents(weights: *const u16, base: Self) -> Self;
    unsafe fn store(self, to: &mut [u8; 64]);
    /// Whether all bytes are below 16.
    unsafe fn are_likely(self) -> bool;
    /// A bit for each byte that is not.
    unsafe fn unlikely(self) -> u64;
    /// Bytes of 128 and more instead of those that are not.
    unsafe fn without_unlikely(self) -> Self;
    /// The byte of a table that each byte says, 0 for those of 128 and more.
    unsafe fn look_up(self, table: Self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// Sum and carry of three bits.
    unsafe fn add(self, b: Self, c: Self) -> (Self, Self);
    /// In how many bytes bit `bit` is set.
    unsafe fn bytes_with(self, bit: usize) -> u32;
}

impl Register for __m256i {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn broadcast(table: [u8; 16]) -> Self {
        // SAFETY: by the caller's promise; the table has 16 bytes.
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(weights: *const u16, base: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe {
            let x = _mm256_srli_epi16::<7>(_mm256_loadu_si256(weights.cast()));
            let y = _mm256_slli_epi16::<1>(_mm256_loadu_si256(weights.add(16).cast()));
            _mm256_sub_epi8(_mm256_blendv_epi8(x, y, _mm256_set1_epi16(0xff00u16 as i16)), base)
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [u8; 64]) {
        // SAFETY: by the caller's promise; there is room for it.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn are_likely(self) -> bool {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_testz_si256(self, _mm256_set1_epi8(0xf0u8 as i8)) != 0 }
    }

    #[inline(always)]
    unsafe fn unlikely(self) -> u64 {
        // SAFETY: by the caller's promise.
        unsafe {
            let near = _mm256_cmpeq_epi8(_mm256_min_epu8(self, _mm256_set1_epi8(LIKELY as i8 - 1)), self);
            !_mm256_movemask_epi8(near) as u32 as u64
        }
    }

    #[inline(always)]
    unsafe fn without_unlikely(self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_adds_epu8(self, _mm256_set1_epi8((128 - LIKELY) as i8)) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_shuffle_epi8(table, self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_and_si256(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_xor_si256(self, other) }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self, c: Self) -> (Self, Self) {
        // SAFETY: by the caller's promise.
        unsafe {
            let differ = _mm256_xor_si256(self, b);
            let carry = _mm256_or_si256(_mm256_and_si256(self, b), _mm256_and_si256(differ, c));
            (_mm256_xor_si256(differ, c), carry)
        }
    }

    #[inline(always)]
    unsafe fn bytes_with(self, bit: usize) -> u32 {
        // SAFETY: by the caller's promise.
        unsafe {
            let up = _mm256_sll_epi16(self, _mm_cvtsi32_si128(7 - bit as i32));
            _mm256_movemask_epi8(up).count_ones()
        }
    }
}

impl Register for __m512i {
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn broadcast(table: [u8; 16]) -> Self {
        // SAFETY: by the caller's promise; the table has 16 bytes.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(weights: *const u16, base: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe {
            let x = _mm512_srli_epi16::<7>(_mm512_loadu_si512(weights.cast()));
            let y = _mm512_slli_epi16::<1>(_mm512_loadu_si512(weights.add(32).cast()));
            // 0xca is a ? b : c
            _mm512_sub_epi8(_mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi16(0xff), x, y), base)
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [u8; 64]) {
        // SAFETY: by the caller's promise; there is room for it.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn are_likely(self) -> bool {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_test_epi8_mask(self, _mm512_set1_epi8(0xf0u8 as i8)) == 0 }
    }

    #[inline(always)]
    unsafe fn unlikely(self) -> u64 {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_cmpge_epu8_mask(self, _mm512_set1_epi8(LIKELY as i8)) }
    }

    #[inline(always)]
    unsafe fn without_unlikely(self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_adds_epu8(self, _mm512_set1_epi8((128 - LIKELY) as i8)) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_shuffle_epi8(table, self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_and_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_xor_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self, c: Self) -> (Self, Self) {
        // SAFETY: by the caller's promise. 0x96 is 1 where an odd number of the three is, 0xe8 where two are.
        unsafe { (_mm512_ternarylogic_epi64::<0x96>(self, b, c), _mm512_ternarylogic_epi64::<0xe8>(self, b, c)) }
    }

    #[inline(always)]
    unsafe fn bytes_with(self, bit: usize) -> u32 {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_test_epi8_mask(self, _mm512_set1_epi8((1u8 << bit) as i8)).count_ones() }
    }
}

/// Counting with registers of one kind.
struct Counter<'a, R> {
    counts: &'a mut [u64; 256],
    first: u8,
    base: R,
    tables: [R; 2],
}

impl<R: Register> Counter<'_, R> {
    /// For each weight of a line a single bit in one of two registers, or none if it was counted.
    ///
    /// # Safety
    ///
    /// R::BYTES weights can be read, and the processor has what R needs.
    #[inline(always)]
    unsafe fn line(&mut self, weights: *const u16) -> [R; 2] {
        prefetch(weights.wrapping_add(2048));
        if R::BYTES == 64 {
            prefetch(weights.wrapping_add(2048 + 32));
        }
        // SAFETY: by the caller's promise.
        unsafe {
            let mut near = R::exponents(weights, self.base);
            if !near.are_likely() {
                let mut bytes = [0; 64];
                near.store(&mut bytes);
                let mut unlikely = near.unlikely();
                while unlikely != 0 {
                    let near = bytes[unlikely.trailing_zeros() as usize];
                    self.counts[near.wrapping_add(self.first) as usize] += 1;
                    unlikely &= unlikely - 1;
                }
                near = near.without_unlikely();
            }
            [near.look_up(self.tables[0]), near.look_up(self.tables[1])]
        }
    }

    /// Adds four lines to the lowest two levels, and returns what they pass on.
    ///
    /// # Safety
    ///
    /// As [`Self::line`], for all of them.
    #[inline(always)]
    unsafe fn four(&mut self, weights: *const u16, levels: &mut [[R; LEVELS]; 2]) -> [R; 2] {
        // SAFETY: by the caller's promise.
        unsafe {
            let mut two = [[levels[0][0]; 2]; 2];
            for (i, two) in two.iter_mut().enumerate() {
                let a = self.line(weights.add(2 * i * R::BYTES));
                let b = self.line(weights.add((2 * i + 1) * R::BYTES));
                *two = Self::pass(levels, 0, a, b);
            }
            Self::pass(levels, 1, two[0], two[1])
        }
    }

    /// Adds two to a level, in both halves. Returns the carries.
    ///
    /// # Safety
    ///
    /// The processor has what R needs.
    #[inline(always)]
    unsafe fn pass(levels: &mut [[R; LEVELS]; 2], level: usize, a: [R; 2], b: [R; 2]) -> [R; 2] {
        // SAFETY: by the caller's promise.
        unsafe {
            let (lower, upper) = (levels[0][level].add(a[0], b[0]), levels[1][level].add(a[1], b[1]));
            (levels[0][level], levels[1][level]) = (lower.0, upper.0);
            [lower.1, upper.1]
        }
    }

    /// A block of lines.
    ///
    /// # Safety
    ///
    /// As [`Self::line`], for all of them.
    #[inline(always)]
    unsafe fn block(&mut self, weights: *const u16, levels: &mut [[R; LEVELS]; 2]) {
        // SAFETY: by the caller's promise.
        unsafe {
            let a = self.four(weights, levels);
            let b = self.four(weights.add(4 * R::BYTES), levels);
            let first = Self::pass(levels, 2, a, b);
            let a = self.four(weights.add(8 * R::BYTES), levels);
            let b = self.four(weights.add(12 * R::BYTES), levels);
            let second = Self::pass(levels, 2, a, b);
            let sixteen = Self::pass(levels, 3, first, second);
            for (levels, mut carry) in levels.iter_mut().zip(sixteen) {
                for level in &mut levels[4..] {
                    (*level, carry) = (level.xor(carry), level.and(carry));
                }
            }
        }
    }
}

/// Counts the exponents of weights.
///
/// # Safety
///
/// The processor has what R needs. There are fewer than 2^32 weights.
#[inline(always)]
unsafe fn count<R: Register>(weights: &[u16], counts: &mut [u64; 256]) {
    let Some(first) = likely::<LIKELY>(weights) else { return count_plain(weights, counts) };
    let line = R::BYTES;
    let rest = weights.len() / (BLOCK * line) * (BLOCK * line);
    // SAFETY: each block's weights are read where they are.
    unsafe {
        let zero = R::broadcast([0; 16]);
        let mut counter = Counter {
            counts,
            first,
            base: R::broadcast([first; 16]),
            tables: [R::broadcast(one_hot(0)), R::broadcast(one_hot(8))],
        };
        for weights in weights[..rest].chunks(BLOCKS * BLOCK * line) {
            let mut levels = [[zero; LEVELS]; 2];
            for block in weights.chunks_exact(BLOCK * line) {
                counter.block(block.as_ptr(), &mut levels);
            }
            for (half, levels) in levels.into_iter().enumerate() {
                for bit in 0..8 {
                    let bytes = levels.iter().enumerate().map(|(i, level)| (level.bytes_with(bit) as u64) << i);
                    // A run reaches to 255 at most.
                    counter.counts[(first as usize + 8 * half + bit) & 255] += bytes.sum::<u64>();
                }
            }
        }
    }
    count_plain(&weights[rest..], counts);
}

/// [`count`] by AVX-512.
///
/// # Safety
///
/// The processor has the features. There are fewer than 2^32 weights.
#[target_feature(enable = "popcnt,bmi1,bmi2,lzcnt,movbe,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
pub(in super::super) unsafe fn count_avx512(weights: &[u16], counts: &mut [u64; 256]) {
    // SAFETY: the same promise.
    unsafe { count::<__m512i>(weights, counts) }
}

/// [`count`] by AVX2.
///
/// # Safety
///
/// The processor has the features. There are fewer than 2^32 weights.
#[target_feature(enable = "popcnt,bmi1,bmi2,lzcnt,movbe,avx2")]
pub(in super::super) unsafe fn count_avx2(weights: &[u16], counts: &mut [u64; 256]) {
    // SAFETY: the same promise.
    unsafe { count::<__m256i>(weights, counts) }
}
