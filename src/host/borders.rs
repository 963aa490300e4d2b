//! Where the runs of a range begin: at blocks, whose first weights a file records, and inside them.
//!
//! A file does not say which weight a chunk begins with, only at which bit. A range that begins inside a block would
//! therefore decode half a block, on average, to drop it. Counting the codes before it is some times faster, because
//! the gaps let several stretches of them be counted side by side. A stretch that does not end where the next begins
//! means that a gap is wrong: then the range begins at the block, and decoding finds out what is wrong, if anything is.
//!
//! Large ranges begin at the block all the same: that costs them little, and its codes must then end where the next
//! block's begin, so that damage in the block is found.

use crate::error::{Error, Result};
use crate::format::{Group, Member, position};
use crate::huffman::decode::{Variant, bounds, count};
use crate::huffman::{CHUNK_BYTES, CHUNKS_PER_BLOCK, GAP_BYTES_PER_BLOCK};

/// Weights before a range from which on they are counted instead of decoded.
const WORTH_COUNTING: u64 = 512;

/// Weights of a range from which on it begins at a block. Half a block is some 6,000 weights.
const LARGE: u64 = 1 << 15;

/// A place at which a code begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Border {
    /// The chunk of the group. Its gap says at which bit of it.
    pub chunk: usize,
    /// The weight of the group that this is the code of.
    pub weight: u64,
}

impl Border {
    /// Returns the first chunk of the eight that it is in, whose gaps begin with a byte.
    pub fn first_chunk(self) -> usize {
        self.chunk & !7
    }
}

/// Returns the borders of the runs of a range: runs for a multiple of `lanes` lanes, each of at most `most` blocks. The
/// first border is at or before the first weight, the last one at or after the end, and their weights ascend, so that a
/// file that changes while it is mapped cannot make two runs overlap.
pub(super) fn borders(
    group: Group,
    first: u64,
    count: u64,
    lanes: usize,
    most: usize,
    variant: Variant,
) -> Result<Vec<Border>> {
    let (n, end) = (group.element_count(), first + count);
    let (positions, blocks) = (group.positions(), group.block_count());
    let border = |block: usize| Border {
        chunk: block * CHUNKS_PER_BLOCK,
        weight: if block == blocks { n } else { position(positions, block) },
    };
    // The last block that starts at or before the first weight, and the first that starts at or after the end.
    let (mut low, mut high) = (0, blocks);
    while high - low > 1 {
        let mid = low + (high - low) / 2;
        if border(mid).weight <= first { low = mid } else { high = mid }
    }
    let from = low;
    let (mut low, mut high) = (from, blocks);
    while high - low > 1 {
        let mid = low + (high - low) / 2;
        if border(mid).weight < end { low = mid } else { high = mid }
    }
    let to = high;
    let span = to - from;
    let runs = (lanes * span.div_ceil(lanes * most)).min(span);
    let mut borders = Vec::with_capacity(runs + 1);
    let mut inside = Inside { group, variant, code: Vec::new(), gaps: Vec::new() };
    let start = if count < LARGE {
        inside.prefetch_signs(first, count);
        inside.seek(border(from), border(from + 1), first)?
    } else {
        border(from)
    };
    borders.push(start);
    borders.extend((1..runs).map(|i| border(from + span * i / runs)));
    borders.push(border(to));
    let ascend = borders.is_sorted_by_key(|border| border.weight);
    if !ascend || borders.iter().any(|b| b.weight > n) || start.weight > first || border(to).weight < end {
        let place = group.place(Member::OutputPositions, 4 * from as u64);
        return Err(Error::corrupt(place, "the positions have changed since the model was opened"));
    }
    Ok(borders)
}

/// Finds borders inside blocks.
struct Inside<'a> {
    group: Group<'a>,
    variant: Variant,
    /// Buffers for files that are read.
    code: Vec<u8>,
    gaps: Vec<u8>,
}

impl Inside<'_> {
    /// Returns a border a little before weight `first`, which is in the block between two borders; the first of them if
    /// that is near enough, or if the block's gaps are not true.
    fn seek(&mut self, block: Border, next: Border, first: u64) -> Result<Border> {
        let (skip, weights) = (first.saturating_sub(block.weight), next.weight.saturating_sub(block.weight));
        let chunks = self.chunks(next).saturating_sub(block.chunk) as u64;
        if skip < WORTH_COUNTING || weights < skip || chunks == 0 {
            return Ok(block);
        }
        // The codes from the start of the block to the chunk are counted, or those from there to its end. The group's last
        // block may end anywhere.
        let backwards = skip > weights / 2 && next.weight < self.group.element_count();
        let mut chunk = skip * chunks / weights;
        for _ in 0..2 {
            // Codes are not spread evenly, so the estimate may be too far.
            let distance = if backwards { chunks - chunk } else { chunk };
            chunk = chunk.saturating_sub(3 + distance / 48);
            let here = block.chunk + chunk as usize;
            let (from, to) = if backwards { (here, next.chunk) } else { (block.chunk, here) };
            let Some(counted) = self.count(from, to)? else { break };
            let weight = if backwards { next.weight.checked_sub(counted) } else { Some(block.weight + counted) };
            let Some(weight) = weight.filter(|&weight| weight >= block.weight) else { break };
            if weight <= first {
                return Ok(Border { chunk: here, weight });
            }
            chunk = chunk.saturating_sub((weight - first) * chunks / weights);
        }
        Ok(block)
    }

    /// Asks for the first signs and mantissas of a range, which are needed when its first weight is found.
    fn prefetch_signs(&self, first: u64, count: u64) {
        const MOST: u64 = 4096;
        let signs = self.group.data().member(Member::SignMantissa);
        if let Some(bytes) = self.group.model().sources()[signs.file].slice(signs.offset + first, count.min(MOST)) {
            prefetch(bytes);
        }
    }

    /// Returns the chunk of a border, or that of the last whole chunk of the group, if the border is after it.
    fn chunks(&self, border: Border) -> usize {
        border.chunk.min(self.group.data().member(Member::EncodedExponent).len as usize / CHUNK_BYTES)
    }

    /// Counts the codes that start from chunk `from` on and before chunk `to`; `None` if the gaps are not true.
    fn count(&mut self, from: usize, to: usize) -> Result<Option<u64>> {
        let data = self.group.data();
        let sources = self.group.model().sources();
        let (code, gaps) = (data.member(Member::EncodedExponent), data.member(Member::Gaps));
        let start = (from * CHUNK_BYTES) as u64;
        // Codes that start in the last chunk may end up to 31 bits after it, and loads take 8 bytes.
        let bytes = (((to - from) * CHUNK_BYTES) as u64 + 16).min(code.len.saturating_sub(start));
        let code = sources[code.file].bytes(code.offset + start, bytes, &mut self.code)?;
        let first_gap = (from / CHUNKS_PER_BLOCK * GAP_BYTES_PER_BLOCK) as u64;
        let bytes = (to / CHUNKS_PER_BLOCK + 1) * GAP_BYTES_PER_BLOCK;
        let bytes = (bytes as u64).min(gaps.len).saturating_sub(first_gap);
        let gaps = sources[gaps.file].bytes(gaps.offset + first_gap, bytes, &mut self.gaps)?;
        let block = from / CHUNKS_PER_BLOCK * CHUNKS_PER_BLOCK;
        prefetch(code);
        let Some(bounds) = bounds(gaps, from - block, to - block) else { return Ok(None) };
        if from == 0 && bounds[0] != 0 {
            return Ok(None);
        }
        let counts = count(data.table(), data.codes(), code, &bounds, self.variant);
        Ok(counts.map(|counts| counts.iter().sum::<usize>() as u64))
    }
}

/// Asks for all of some bytes at once, because the stretches are too short for the processor to foresee them.
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: any address may be prefetched; it is not accessed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
