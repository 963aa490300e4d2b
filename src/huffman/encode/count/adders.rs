//! Counting exponents with vector registers of any size.
//!
//! The likely exponents are neighbours, and sixteen of them are nearly all that occur. A byte shuffle makes a byte with
//! a single bit of each weight's exponent, one byte for the lower eight of the sixteen and one for the upper. How often
//! each bit is set is added up by full adders that work on all bits of a register at once: two registers come in for
//! each one that goes on to the next level, where a bit counts twice as much. So a line of weights costs two additions
//! instead of sixteen comparisons. Other exponents are counted one by one.

use super::{count_plain, likely};
use crate::huffman::encode::prefetch;

/// Likely exponents.
pub(super) const LIKELY: usize = 16;
/// Lines of a block: each level below the fifth has then taken in what the level below it passes on.
const BLOCK: usize = 16;
/// Levels of adders. A bit of the last one counts 128.
const LEVELS: usize = 8;
/// The most blocks after which no level can be full: 255 lines would fill them.
const BLOCKS: usize = 15;

/// Makes a table: a byte with bit `i` set for each of eight values from `first`.
const fn one_hot(first: usize) -> [u8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 8 {
        table[first + i] = 1 << i;
        i += 1;
    }
    table
}

/// A register of bytes, or of bits. All methods require that the processor has it.
pub(super) trait Register: Copy {
    /// The bytes of a register.
    const BYTES: usize;

    /// Repeats a table of 16 bytes.
    unsafe fn broadcast(table: [u8; 16]) -> Self;
    /// Returns the exponents of BYTES weights, which can be read, in any order, less `base`.
    unsafe fn exponents(weights: *const u16, base: Self) -> Self;
    /// Writes the bytes.
    unsafe fn store(self, to: &mut [u8; 64]);
    /// Returns whether all bytes are below 16.
    unsafe fn are_likely(self) -> bool;
    /// Returns a bit for each byte that is not below 16.
    unsafe fn unlikely(self) -> u64;
    /// Replaces bytes that are not below 16 by bytes of 128 or more.
    unsafe fn without_unlikely(self) -> Self;
    /// Looks up each byte in a table; 0 for bytes of 128 or more.
    unsafe fn look_up(self, table: Self) -> Self;
    /// Returns the bits that are in both.
    unsafe fn and(self, other: Self) -> Self;
    /// Returns the bits that are in one of both.
    unsafe fn xor(self, other: Self) -> Self;
    /// Returns sum and carry of three bits.
    unsafe fn add(self, b: Self, c: Self) -> (Self, Self);
    /// Returns in how many bytes bit `bit` is set.
    unsafe fn bytes_with(self, bit: usize) -> u32;
}

/// Counters in registers of one kind.
struct Counter<'a, R> {
    counts: &'a mut [u64; 256],
    first: u8,
    base: R,
    tables: [R; 2],
}

impl<R: Register> Counter<'_, R> {
    /// Returns for each weight of a line a single bit in one of two registers, or none if it was counted.
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
        // SAFETY: a line is R::BYTES weights, which can be read; the processor has R.
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
        // SAFETY: the four lines can be read; the processor has R.
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
        // SAFETY: the processor has R; no memory is accessed.
        unsafe {
            let (lower, upper) = (levels[0][level].add(a[0], b[0]), levels[1][level].add(a[1], b[1]));
            (levels[0][level], levels[1][level]) = (lower.0, upper.0);
            [lower.1, upper.1]
        }
    }

    /// Adds a block of lines.
    ///
    /// # Safety
    ///
    /// As [`Self::line`], for all of them.
    #[inline(always)]
    unsafe fn block(&mut self, weights: *const u16, levels: &mut [[R; LEVELS]; 2]) {
        // SAFETY: all lines of the block can be read; the processor has R.
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
pub(super) unsafe fn count<R: Register>(weights: &[u16], counts: &mut [u64; 256]) {
    let Some(first) = likely::<LIKELY>(weights) else { return count_plain(weights, counts) };
    let line = R::BYTES;
    let rest = weights.len() / (BLOCK * line) * (BLOCK * line);
    // SAFETY: each block is a slice of BLOCK lines; the processor has R.
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
                    // The likely exponents reach to 255 at most.
                    counter.counts[(first as usize + 8 * half + bit) & 255] += bytes.sum::<u64>();
                }
            }
        }
    }
    count_plain(&weights[rest..], counts);
}
