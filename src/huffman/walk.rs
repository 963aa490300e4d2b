//! Verification: walks every code and compares every recorded gap and position.
//!
//! The decoders read only the gaps and positions at which they start. A GPU decoder starts at every chunk, so a file is
//! good only if each of them is true. That is established here.
//!
//! # Two ways
//!
//! *Step by step* goes from code to code through a block and compares the gap of each chunk that it enters. It knows
//! what is wrong and where, but each code waits for the look-up of the one before.
//!
//! *By chunks* starts each chunk at its recorded gap instead and checks that its codes end at the gap of the next. If
//! that holds for every chunk of a block, the codes are the same that going step by step finds, by induction from the
//! first; and chunks do not wait for each other, so several are walked side by side, several codes a look-up. It can
//! only confirm a block. A block that it does not confirm is walked again, step by step.

use super::code::CodeTable;
use super::table::{WINDOW, first_symbols, whole_codes};
use super::{BLOCK_BITS, BLOCK_BYTES, CHUNK_BITS, CHUNK_BYTES, CHUNKS_PER_BLOCK, GAP_BYTES_PER_BLOCK, gap, window};

/// Chunks that are walked side by side.
const CHUNKS_AT_ONCE: usize = 4;
/// Look-ups in every chunk before each is finished by itself: in real models most chunks are then within a window of
/// their ends.
const LOOKUPS_PER_CHUNK: usize = 6;
/// The last bit of a chunk at which a window that begins there ends with the chunk.
const LAST_WHOLE: u32 = CHUNK_BITS as u32 - WINDOW;

/// One block of a group.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Code bytes from the block's first, at least 4 beyond its end where the stream has them.
    pub code: &'a [u8],
    /// The block's 320 bytes of gaps.
    pub gaps: &'a [u8],
    /// Weights that start in it, by the recorded positions.
    pub weights: usize,
    /// The bit after the whole stream's last byte, counted from this block's start.
    pub stream_bits: usize,
    /// True if the group's last weight starts in it.
    pub last: bool,
}

/// A fault in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// No code begins at this bit of the block.
    NoCode {
        /// The bit.
        bit: usize,
        /// Weights of the block before it.
        weight: usize,
    },
    /// A chunk's first code starts elsewhere than its gap says.
    Gap {
        /// The chunk of the block.
        chunk: usize,
        /// The recorded bit offset.
        recorded: usize,
        /// The true one.
        found: usize,
    },
    /// The number of weights that start in the block differs from the positions.
    Count {
        /// The true one.
        found: usize,
    },
    /// The last code ends after the stream's end, or at least a whole byte before it.
    End {
        /// The bit at which it ends, counted from the block's start.
        bit: usize,
    },
}

/// Walks blocks with one code table.
pub struct Walker<'a> {
    codes: &'a CodeTable,
    first: Box<[(u8, u8); 1 << WINDOW]>,
    /// The whole codes that each window begins with:
    ///
    /// ```text
    /// bits 27..16   bit i is set if a code starts at bit i of the window; the place after the last whole code counts
    /// bits 15..8    how many whole codes
    /// bits 7..0     how many bits they take: 0 if the first code is longer than the window, or none begins so
    /// ```
    many: Box<[u32; 1 << WINDOW]>,
}

impl<'a> Walker<'a> {
    /// Makes a walker for one group's code.
    pub fn new(codes: &'a CodeTable) -> Self {
        let first = first_symbols(codes);
        let mut many = Box::new([0; 1 << WINDOW]);
        for (window, entry) in many.iter_mut().enumerate() {
            let (mut used, mut count, mut starts) = (0, 0, 1);
            for (_, end) in whole_codes(&first, window) {
                used = end;
                count += 1;
                starts |= 1 << end;
            }
            *entry = starts << 16 | count << 8 | used;
        }
        Walker { first, many, codes }
    }

    /// Walks the codes that start in a block, from its first gap. Returns the bit of the next block's first code,
    /// counted from that block's start (for a last block: the last code's end, which has no meaning there).
    pub fn block(&self, block: &Block) -> Result<usize, Mismatch> {
        self.by_chunks(block).map_or_else(|| self.step_by_step(block), Ok)
    }

    /// Returns what [`Self::step_by_step`] returns, if this block is not the last, 8 bytes of codes follow it, and
    /// nothing is wrong; `None` otherwise.
    pub fn by_chunks(&self, block: &Block) -> Option<usize> {
        if block.last || block.stream_bits < BLOCK_BITS + CHUNK_BITS {
            return None;
        }
        let code = block.code.get(..BLOCK_BYTES + CHUNK_BYTES)?;
        let gaps = all_gaps(block.gaps.first_chunk()?);
        let mut weights = 0;
        let mut carry = gaps[0] as u32;
        for (gaps, code) in gaps
            .chunks_exact(CHUNKS_AT_ONCE)
            .zip(code.windows((CHUNKS_AT_ONCE + 1) * CHUNK_BYTES).step_by(CHUNKS_AT_ONCE * CHUNK_BYTES))
        {
            let word = |i: usize| u64::from_be_bytes(std::array::from_fn(|k| code[i * CHUNK_BYTES + k]));
            let words: [u64; CHUNKS_AT_ONCE + 1] = std::array::from_fn(word);
            // The bits of each chunk from where its walk is, and what it has walked: codes above, bits in the lowest
            // byte, of both at most the 64 of a chunk.
            let mut bits: [u64; CHUNKS_AT_ONCE] = std::array::from_fn(|l| words[l] << gaps[l]);
            let mut walked: [u32; CHUNKS_AT_ONCE] = std::array::from_fn(|l| gaps[l] as u32);
            for _ in 0..LOOKUPS_PER_CHUNK {
                for l in 0..CHUNKS_AT_ONCE {
                    // Too near the chunk's end a walk stops.
                    let entry = self.many[(bits[l] >> (64 - WINDOW)) as usize];
                    let entry = if walked[l] & 255 <= LAST_WHOLE { entry & 0xffff } else { 0 };
                    bits[l] <<= entry & 63;
                    walked[l] += entry;
                }
            }
            for l in 0..CHUNKS_AT_ONCE {
                if gaps[l] as u32 != carry {
                    return None;
                }
                let (count, end) = self.finish(words[l], words[l + 1], walked[l] & 255)?;
                weights += (walked[l] >> 8) + count;
                carry = end;
            }
        }
        (weights as usize == block.weights).then_some(carry as usize)
    }

    /// Walks the codes that start in a chunk from its bit `at`. Returns how many there are, and the bit of the next
    /// chunk at which the last one ends.
    #[inline(always)]
    fn finish(&self, word: u64, next: u64, mut at: u32) -> Option<(u32, u32)> {
        let all = (word as u128) << 64 | next as u128;
        let mut count = 0;
        loop {
            // The bits of the chunk that are left.
            let left = (CHUNK_BITS as u32).checked_sub(at)?;
            let window = (all << at >> 96) as u32;
            let entry = self.many[(window >> (32 - WINDOW)) as usize];
            let starts = entry as u64 >> 16;
            let after = starts >> left.min(CHUNK_BITS as u32 - 1);
            if after != 0 {
                count += (starts & ((1 << left) - 1)).count_ones();
                return Some((count, after.trailing_zeros()));
            }
            let (used, codes) = match entry & 255 {
                0 => (self.codes.first(window)?.len as u32, 1),
                used => (used, entry >> 8 & 255),
            };
            at += used;
            count += codes;
            // A long code leaves the chunk by up to 31 bits.
            if at >= CHUNK_BITS as u32 {
                return Some((count, at - CHUNK_BITS as u32));
            }
        }
    }

    /// Returns the length of the code that a window begins with.
    #[inline]
    fn length(&self, window: u32) -> Option<usize> {
        match self.first[(window >> (32 - WINDOW)) as usize].1 {
            0 => self.codes.first(window).map(|c| c.len as usize),
            len => Some(len as usize),
        }
    }

    /// As [`Self::block`], one code at a time. It finds what is wrong, and tests compare the other way with it: it is
    /// never made faster.
    pub fn step_by_step(&self, block: &Block) -> Result<usize, Mismatch> {
        let gap = |chunk: usize| gap(block.gaps, chunk).unwrap_or(0);
        let mut at = gap(0);
        let mut chunk = None;
        let mut weight = 0;
        while at < BLOCK_BITS && !(block.last && weight == block.weights) {
            let here = at / CHUNK_BITS;
            if chunk != Some(here) {
                // The chunk's first code. After the last weight gaps mean nothing, and the loop does not get there.
                chunk = Some(here);
                let (recorded, found) = (gap(here), at % CHUNK_BITS);
                if recorded != found {
                    return Err(Mismatch::Gap { chunk: here, recorded, found });
                }
            }
            if at >= block.stream_bits {
                return Err(Mismatch::Count { found: weight });
            }
            at += self.length(window(block.code, at)).ok_or(Mismatch::NoCode { bit: at, weight })?;
            weight += 1;
        }
        debug_assert!(chunk.is_none_or(|c| c < CHUNKS_PER_BLOCK));
        if weight != block.weights {
            return Err(Mismatch::Count { found: weight });
        }
        if at > block.stream_bits || (block.last && at + 8 <= block.stream_bits) {
            return Err(Mismatch::End { bit: at });
        }
        Ok(at.saturating_sub(BLOCK_BITS))
    }
}

/// Unpacks the gaps of a block's chunks.
fn all_gaps(packed: &[u8; GAP_BYTES_PER_BLOCK]) -> [u8; CHUNKS_PER_BLOCK] {
    let mut gaps = [0; CHUNKS_PER_BLOCK];
    for (five, eight) in packed.chunks_exact(5).zip(gaps.chunks_exact_mut(8)) {
        let bits = five.iter().fold(0, |bits, &byte| bits << 8 | byte as u64);
        for (i, gap) in eight.iter_mut().enumerate() {
            *gap = (bits >> (35 - 5 * i) & 31) as u8;
        }
    }
    gaps
}
