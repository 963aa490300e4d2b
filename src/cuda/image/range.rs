//! The part of a group's codes that an image of some of its weights takes.

use super::layout::{Extent, Head, ImageLayout, Sizes};
use super::{LANE_WEIGHTS, UNIT_BYTES};
use crate::error::{Error, Result, shorten};
use crate::format::{Group, Member, position};
use crate::host::blocks_of;
use crate::huffman::marks::{BYTES_AFTER, BlockRun, Marker, Visitor};
use crate::huffman::{BLOCK_BITS, BLOCK_BYTES, GAP_BYTES_PER_BLOCK};

/// Weights of a group that follow each other, and the codes that an image takes for them.
#[derive(Debug, Clone)]
pub(crate) struct Range<'a> {
    pub group: Group<'a>,
    /// The group's first weight that the image has, and the one after its last.
    pub weights: std::ops::Range<u64>,
    /// The blocks in which their codes begin.
    pub blocks: std::ops::Range<usize>,
    /// The bytes of the group's codes that the image takes. They begin with a unit.
    pub codes: std::ops::Range<u64>,
}

impl<'a> Range<'a> {
    /// Returns the range of a whole group.
    pub fn whole(group: Group<'a>) -> Range<'a> {
        let codes = 0..group.data().member(Member::EncodedExponent).len;
        Range { group, weights: 0..group.element_count(), blocks: 0..blocks_of(group), codes }
    }

    /// Returns the range of `count` weights from weight `first` on. Unless it begins and ends with the group, the codes of
    /// one or two blocks are walked, to find the bits at which it does.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a range that leaves the group or has no weight (in a group that has some); `Corrupt` where the
    /// codes contradict the positions; `Io` where files are read; `OutOfMemory`.
    pub fn new(group: Group<'a>, first: u64, count: u64) -> Result<Range<'a>> {
        let n = group.element_count();
        let name = || shorten(group.name(), 80);
        let Some(end) = first.checked_add(count).filter(|&end| end <= n) else {
            let reason = format!("weights {first} + {count} are outside group '{}' of {n} weights", name());
            return Err(Error::InvalidArgument(reason));
        };
        if count == n {
            return Ok(Range::whole(group));
        }
        if count == 0 {
            let reason = format!("a range of group '{}' without a weight: no image is made of it", name());
            return Err(Error::InvalidArgument(reason));
        }
        let (code_bytes, blocks) = (group.data().member(Member::EncodedExponent).len, blocks_of(group));
        let marker = Marker::new(group.data().codes())?;
        let (from, bit) = place_of(group, &marker, first)?;
        let to = match end == n {
            true => code_bytes,
            false => place_of(group, &marker, end)?.1.div_ceil(8),
        };
        let codes = bit / 8 / UNIT_BYTES * UNIT_BYTES..to;
        let blocks = from..block_of(group, blocks, end - 1) + 1;
        if codes.start >= codes.end || codes.end > code_bytes || blocks.end > blocks_of(group) {
            let place = group.place(Member::OutputPositions, 4 * from as u64);
            return Err(Error::corrupt(place, "the positions have changed since the model was opened"));
        }
        Ok(Range { group, weights: first..end, blocks, codes })
    }

    /// Returns the number of weights.
    pub fn count(&self) -> u64 {
        self.weights.end - self.weights.start
    }

    /// Returns the layout of its image.
    ///
    /// # Errors
    ///
    /// As [`ImageLayout::of`].
    pub fn layout(&self) -> Result<ImageLayout> {
        let whole = Sizes::of(self.group)?;
        let tensors = self.tensors();
        let extent = match self.count() == whole.weights {
            true => whole.extent,
            false => Extent { first: self.weights.start, first_tensor: tensors.start as u32, ..whole.extent },
        };
        let code_bytes = self.codes.end - self.codes.start;
        Sizes { weights: self.count(), code_bytes, tensors: tensors.len() as u32, extent, ..whole }.layout()
    }

    /// Makes the head of its image.
    ///
    /// # Errors
    ///
    /// As [`ImageLayout::of`].
    pub fn head(&self) -> Result<Head> {
        let cuts = &self.group.data().cuts()[1..][self.tensors()];
        let std::ops::Range { start, end } = self.weights;
        let ends = cuts.iter().map(|&cut| cut.min(end) - start).collect();
        Head::new(self.group, self.layout()?, ends, Vec::new())
    }

    /// Returns the numbers of the group's tensors that have weights in it, and of the empty ones between them; all for a
    /// whole group.
    fn tensors(&self) -> std::ops::Range<usize> {
        let ends = &self.group.data().cuts()[1..];
        let std::ops::Range { start, end } = self.weights;
        match self.count() == self.group.element_count() {
            true => 0..ends.len(),
            false => ends.partition_point(|&cut| cut <= start)..ends.partition_point(|&cut| cut < end) + 1,
        }
    }
}

/// Returns the last of the blocks that begins with weight `weight` or one before it.
fn block_of(group: Group, blocks: usize, weight: u64) -> usize {
    let positions = group.positions();
    let (mut low, mut high) = (0, blocks.max(1));
    while high - low > 1 {
        let mid = low + (high - low) / 2;
        if position(positions, mid) <= weight { low = mid } else { high = mid }
    }
    low
}

/// Returns the block in which the code of a weight begins, and the bit of the codes at which it does.
fn place_of(group: Group, marker: &Marker, weight: u64) -> Result<(usize, u64)> {
    let block = block_of(group, blocks_of(group), weight);
    let (code, gaps) = (group.data().member(Member::EncodedExponent), group.data().member(Member::Gaps));
    let sources = group.model().sources();
    let mut byte = [0];
    sources[gaps.file].read_at(gaps.offset + (block * GAP_BYTES_PER_BLOCK) as u64, &mut byte)?;
    let gap = (byte[0] >> 3) as usize;
    if block == 0 && gap != 0 {
        let reason = format!("the first gap is {gap}, not 0");
        return Err(Error::corrupt(group.place(Member::Gaps, 0), reason));
    }
    let ahead = weight.saturating_sub(position(group.positions(), block));
    if ahead == 0 {
        return Ok((block, (block * BLOCK_BITS + gap) as u64));
    }
    let start = (block * BLOCK_BYTES) as u64;
    let mut buffer = Vec::new();
    let bytes = (BLOCK_BYTES + BYTES_AFTER) as u64;
    let codes = sources[code.file].bytes(code.offset + start, bytes.min(code.len - start), &mut buffer)?;
    // The walk tells where every 104th weight begins, and counts so that the wanted one is among them.
    let wanted = ahead.div_ceil(LANE_WEIGHTS);
    let run = BlockRun { code: codes, block, blocks: 1, gap, weight: wanted * LANE_WEIGHTS - ahead, end: None };
    let mut found = Found { wanted, bit: None };
    // It may meet bits that are no code after the last weight of the group.
    marker.walk(std::array::from_fn(|i| if i == 0 { run } else { BlockRun { blocks: 0, ..run } }), &mut found);
    match found.bit {
        Some(bit) => Ok((block, bit)),
        None => {
            let reason = format!("block {block} has fewer weights by its codes than by the positions");
            Err(Error::corrupt(group.place(Member::EncodedExponent, start), reason))
        }
    }
}

/// Notes the bit of one mark.
struct Found {
    wanted: u64,
    bit: Option<u64>,
}

impl Visitor for Found {
    #[inline(always)]
    fn mark(&mut self, number: u64, bit: u64) {
        if number == self.wanted {
            self.bit = Some(bit);
        }
    }

    fn border(&mut self, _: usize, _: u64, _: usize) -> bool {
        true
    }

    fn end(&mut self, _: usize, _: u64) -> bool {
        true
    }
}
