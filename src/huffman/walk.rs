//! One code after the other, with every recorded gap and position compared: what verification does.
//!
//! The decoders read only the gaps and positions at which they start. A GPU decoder starts at every chunk, so a file is
//! good only if each of them is true, and this is where that is established.

use super::code::CodeTable;
use super::table::{WINDOW, first_symbols};
use super::{BLOCK_BITS, CHUNK_BYTES, CHUNKS_PER_BLOCK, window};

const CHUNK_BITS: usize = CHUNK_BYTES * 8;

/// A block's part of a group, to be walked.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Code bytes from the block's first on, at least 4 beyond its end where the stream has them.
    pub code: &'a [u8],
    /// Its 320 bytes of gaps.
    pub gaps: &'a [u8],
    /// Weights that start in it, by the recorded positions.
    pub weights: usize,
    /// The bit behind the whole stream's last byte, counted from this block's start.
    pub stream_bits: usize,
    /// Whether the group's last weight starts in it.
    pub last: bool,
}

/// What does not agree.
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
    /// Another number of weights starts in the block than the positions say.
    Count {
        /// The true one.
        found: usize,
    },
    /// The last code ends behind the stream's end, or a whole byte and more before it.
    End {
        /// Where it ends, counted from the block's start.
        bit: usize,
    },
}

/// Walks blocks with one code table.
pub struct Walker<'a> {
    codes: &'a CodeTable,
    first: [(u8, u8); 1 << WINDOW],
}

impl<'a> Walker<'a> {
    /// A walker for one group's code.
    pub fn new(codes: &'a CodeTable) -> Self {
        Walker { first: first_symbols(codes), codes }
    }

    /// The length of the code that a window begins with.
    #[inline]
    fn length(&self, window: u32) -> Option<usize> {
        match self.first[(window >> (32 - WINDOW)) as usize].1 {
            0 => self.codes.first(window).map(|c| c.len as usize),
            len => Some(len as usize),
        }
    }

    /// Walks the codes that start in a block, from its first gap on. Returns the bit of the next block's first code,
    /// counted from that block's start (for a last block: from the last code's end, which has no meaning there).
    pub fn block(&self, block: &Block) -> Result<usize, Mismatch> {
        let gap = |chunk: usize| {
            let bit = chunk * 5;
            let two = (block.gaps[bit / 8] as usize) << 8 | *block.gaps.get(bit / 8 + 1).unwrap_or(&0) as usize;
            two >> (11 - bit % 8) & 31
        };
        let mut at = gap(0);
        let mut chunk = None;
        let mut weight = 0;
        while at < BLOCK_BITS && !(block.last && weight == block.weights) {
            let here = at / CHUNK_BITS;
            if chunk != Some(here) {
                // The chunk's first code. Behind the last weight gaps mean nothing, and the loop does not get there.
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
