//! Walking every code of a group: the only way to know that its gaps and positions are true.

use super::threads;
use crate::error::{Error, Result};
use crate::format::{Group, Member, Model, Source, position};
use crate::huffman::walk::{Block, Mismatch, Walker};
use crate::huffman::{BLOCK_BYTES, CHUNK_BYTES, GAP_BYTES_PER_BLOCK};
use crate::progress::Progress;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blocks that a thread takes at a time: 64 KiB of codes.
const TAKE: usize = 16;

impl Group<'_> {
    /// Walks every code word of the group and compares each gap and position with where the codes really start, and the end
    /// with the stream's. `threads` threads work, the calling one among them; 0 means 1.
    ///
    /// # Errors
    ///
    /// `Corrupt`, naming the part and the byte; `Io`.
    pub fn verify(self, threads: usize) -> Result<()> {
        walk(self, threads, &Progress::new())
    }
}

impl Model {
    /// Does what [`Group::verify`] does for every group, one after the other, up to the first that is wrong.
    ///
    /// # Errors
    ///
    /// As [`Group::verify`]; `Cancelled` by `progress`.
    pub fn verify(&self, threads: usize, progress: &Progress) -> Result<()> {
        // Counts that a file claims may be anything; progress is for people.
        let bytes = |group: Group| group.element_count().saturating_mul(2);
        progress.begin(self.groups().map(bytes).fold(0, u64::saturating_add));
        let mut done = 0u64;
        for group in self.groups() {
            progress.check()?;
            walk(group, threads, progress)?;
            done = done.saturating_add(bytes(group));
            progress.reach(done);
        }
        progress.finish();
        Ok(())
    }
}

/// Does what [`Group::verify`] does, and counts two bytes of progress for each weight.
pub(super) fn walk(group: Group, threads: usize, progress: &Progress) -> Result<()> {
    let blocks = blocks_of(group);
    let next = AtomicUsize::new(0);
    threads::run(threads.clamp(1, blocks.div_ceil(TAKE).max(1)), || {
        let mut walk = BlockWalk::new(group);
        loop {
            let from = next.fetch_add(TAKE, Ordering::Relaxed);
            if from >= blocks {
                return Ok(());
            }
            progress.check()?;
            let to = (from + TAKE).min(blocks);
            walk.range(from, to)?;
            let position = |k: usize| position(walk.positions, k);
            progress.advance(2 * position(to).saturating_sub(position(from)));
        }
    })
}

/// Returns the number of blocks of a group that can be walked.
pub(crate) fn blocks_of(group: Group) -> usize {
    let code = group.data().member(Member::EncodedExponent);
    (code.len as usize).div_ceil(BLOCK_BYTES).min(group.block_count())
}

/// A thread's way through the blocks of a group.
pub(crate) struct BlockWalk<'a> {
    sources: &'a [Source],
    group: Group<'a>,
    positions: &'a [u8],
    walker: Walker<'a>,
    code_buffer: Vec<u8>,
    gap_buffer: Vec<u8>,
}

impl<'a> BlockWalk<'a> {
    /// Makes the tables, which takes some 10 µs.
    pub fn new(group: Group<'a>) -> Self {
        BlockWalk {
            sources: group.model().sources(),
            group,
            positions: group.positions(),
            walker: Walker::new(group.data().codes()),
            code_buffer: Vec::new(),
            gap_buffer: Vec::new(),
        }
    }

    /// Walks the codes that start in the blocks `from` to `to`, and compares the gap of the block after them.
    pub fn range(&mut self, from: usize, to: usize) -> Result<()> {
        let BlockWalk { sources, group, positions, walker, code_buffer, gap_buffer } = self;
        let (code, gaps) = (group.data().member(Member::EncodedExponent), group.data().member(Member::Gaps));
        let n = group.element_count();
        let corrupt = |member, offset: u64, reason: String| Error::corrupt(group.place(member, offset), reason);
        let start = (from * BLOCK_BYTES) as u64;
        let code_len = ((to - from) * BLOCK_BYTES) as u64 + 8;
        let code_bytes = sources[code.file].bytes(code.offset + start, code_len.min(code.len - start), code_buffer)?;
        // One block's gaps more than are walked: the first of them says where the next taker's codes start.
        let gap_start = (from * GAP_BYTES_PER_BLOCK) as u64;
        let gap_len = ((to - from + 1) * GAP_BYTES_PER_BLOCK) as u64;
        let gap_bytes =
            sources[gaps.file].bytes(gaps.offset + gap_start, gap_len.min(gaps.len - gap_start), gap_buffer)?;
        for block in from..to {
            let first = position(positions, block);
            // After the last weight there is nothing to walk.
            let Some(weights) = position(positions, block + 1).checked_sub(first).filter(|_| first < n) else {
                continue;
            };
            let local = block - from;
            let gap_at = |k: usize| (gap_start as usize + k) as u64;
            let first_gap = gap_bytes[local * GAP_BYTES_PER_BLOCK] >> 3;
            if block == 0 && first_gap != 0 {
                return Err(corrupt(Member::Gaps, 0, format!("the first gap is {first_gap}, not 0")));
            }
            let last = first + weights == n;
            let walked = walker.block(&Block {
                code: &code_bytes[local * BLOCK_BYTES..],
                gaps: &gap_bytes[local * GAP_BYTES_PER_BLOCK..][..GAP_BYTES_PER_BLOCK],
                weights: weights as usize,
                stream_bits: (code.len as usize - block * BLOCK_BYTES) * 8,
                last,
            });
            let in_code = |bit: usize| (block * BLOCK_BYTES + bit / 8) as u64;
            let carry = walked.map_err(|mismatch| match mismatch {
                Mismatch::NoCode { bit, weight } => corrupt(
                    Member::EncodedExponent,
                    in_code(bit),
                    format!("weight {} has no code: no exponent's begins so", first + weight as u64),
                ),
                Mismatch::Gap { chunk, recorded, found } => corrupt(
                    Member::Gaps,
                    gap_at(local * GAP_BYTES_PER_BLOCK + chunk * 5 / 8),
                    format!(
                        "the gap of block {block}, chunk {chunk} (byte {} of the codes) is {recorded}, \
                         and a code starts at bit {found}",
                        block * BLOCK_BYTES + chunk * CHUNK_BYTES
                    ),
                ),
                Mismatch::Count { found } => corrupt(
                    Member::OutputPositions,
                    4 * (block + 1) as u64,
                    format!("block {block} has {weights} weights by the positions and {found} by its codes"),
                ),
                Mismatch::End { bit } => corrupt(
                    Member::EncodedExponent,
                    in_code(bit).min(code.len - 1),
                    format!("the last weight's code ends at bit {bit} of block {block}, not in the last byte"),
                ),
            })?;
            // The next block starts from its own gap, so that must be where this one ended.
            if let Some(&byte) = gap_bytes.get((local + 1) * GAP_BYTES_PER_BLOCK).filter(|_| !last) {
                let recorded = (byte >> 3) as usize;
                if recorded != carry {
                    let reason =
                        format!("the first gap of block {} is {recorded}, and a code starts at bit {carry}", block + 1);
                    return Err(corrupt(Member::Gaps, gap_at((local + 1) * GAP_BYTES_PER_BLOCK), reason));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::OpenOptions;

    #[test]
    fn all_groups_are_counted_until_somebody_cancels() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/edge_patched/model");
        let model = Model::open(path, &OpenOptions::default()).unwrap();
        let bytes: u64 = model.groups().map(|g| 2 * g.element_count()).sum();
        let progress = Progress::new();
        model.verify(2, &progress).unwrap();
        assert_eq!((progress.done(), progress.total()), (bytes, bytes));

        // The callback is first told when the work begins.
        let progress = Progress::with_callback(|p| p.total() == 0);
        assert!(matches!(model.verify(2, &progress), Err(Error::Cancelled)));
        assert_eq!(progress.done(), 0);
    }
}
