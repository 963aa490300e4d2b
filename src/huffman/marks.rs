//! The bit at which every n-th weight's code begins, found by walking the codes once.
//!
//! Blocks are walked, as gaps and positions say where each begins and how many weights it has. What is found must agree with
//! both; what exactly is wrong where it does not, [`super::walk`] can say.

use super::code::CodeTable;
use super::table::{WINDOW, first_symbols};
use super::{BLOCK_BITS, window};

/// Weights from one mark to the next.
pub const EVERY: usize = 104;
/// The most marks in a block: one-bit codes.
pub const MOST_MARKS: usize = BLOCK_BITS / EVERY + 1;

/// A block's part of a group.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Code bytes from the block's first on, at least 16 beyond its end where the stream has them.
    pub code: &'a [u8],
    /// The bit at which its first code begins.
    pub start: usize,
    /// Weights that start in it, by the recorded positions.
    pub weights: usize,
    /// Weights of it before the first that gets a mark.
    pub skip: usize,
    /// The bit behind the whole stream's last byte, counted from this block's start.
    pub stream_bits: usize,
    /// Whether the group's last weight starts in it.
    pub last: bool,
}

/// Marks of a block: the bits of its weights `skip`, `skip + 104` and so on.
pub type Marks = [u16; MOST_MARKS];

/// Walks blocks with one code table.
pub struct Marker<'a> {
    codes: &'a CodeTable,
    first: [(u8, u8); 1 << WINDOW],
}

impl<'a> Marker<'a> {
    /// A marker for one group's code.
    pub fn new(codes: &'a CodeTable) -> Self {
        Marker { codes, first: first_symbols(codes) }
    }

    /// Walks the codes that start in a block. Returns the bit of the next block's first code, counted from that block's
    /// start (for a last block that has no meaning); nothing if the codes do not agree with what is recorded.
    pub fn block(&self, block: &Block, marks: &mut Marks) -> Option<usize> {
        let (mut at, mut weight, mut next, mut mark) = (block.start, 0, block.skip, 0);
        while at < BLOCK_BITS && !(block.last && weight == block.weights) {
            if at >= block.stream_bits {
                return None;
            }
            if weight == next {
                *marks.get_mut(mark)? = at as u16;
                mark += 1;
                next += EVERY;
            }
            at += self.length(window(block.code, at))?;
            weight += 1;
        }
        let ends = at <= block.stream_bits && (!block.last || at + 8 > block.stream_bits);
        (weight == block.weights && ends).then(|| at.saturating_sub(BLOCK_BITS))
    }

    /// The length of the code that a window begins with.
    #[inline]
    fn length(&self, window: u32) -> Option<usize> {
        match self.first[(window >> (32 - WINDOW)) as usize].1 {
            0 => self.codes.first(window).map(|c| c.len as usize),
            len => Some(len as usize),
        }
    }
}
