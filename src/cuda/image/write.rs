//! Images made on the host: one walk over the codes, and copies of what the files hold.
//!
//! A group is cut into parts of whole blocks, and each part into batches. For each batch the codes are walked, which
//! gives the batch's share of the index, and copied; and so is the batch's share of the part's signs. Nothing is ever
//! read from the destination, which may be memory that is slow to read.

use super::copy::Target;
use super::range::Range;
use super::*;
use crate::error::{Error, Result, grow};
use crate::format::{Group, Member, position};
use crate::host::{BlockWalk, run_threads};
use crate::huffman::marks::{self, BYTES_AFTER, BlockRun, Marker, RUNS, Visitor};
use crate::huffman::{BLOCK_BITS, BLOCK_BYTES, GAP_BYTES_PER_BLOCK, fence};
use std::ops;
use std::sync::atomic::{AtomicUsize, Ordering};

const _: () = assert!(marks::WEIGHTS_PER_MARK == LANE_WEIGHTS);

/// Lanes that all weights of a block fill at most, if each takes a bit.
const BLOCK_LANES: u64 = (BLOCK_BITS as u64).div_ceil(LANE_WEIGHTS);
/// Blocks of a batch: sixteen of each of the runs that are walked side by side.
const BATCH_BLOCKS: usize = 16 * RUNS;
/// The same where files are read, and buffers are to be small.
const BATCH_BLOCKS_READ: usize = 2 * RUNS;

impl Group<'_> {
    /// Returns the layout of the group's image. Walks no codes, and allocates nothing.
    ///
    /// # Errors
    ///
    /// `UnsupportedFormat` for a group that no image can hold. No known compressor writes such groups.
    pub fn image_layout(self) -> Result<ImageLayout> {
        ImageLayout::of(self)
    }

    /// Writes the group's image into `dst`, of which the first `image_bytes` bytes are used, on `threads` threads
    /// (0 means 1) including the calling one. They live for the call only.
    ///
    /// Every code is walked: what is written decodes, and decodes to what the host decodes. The call allocates less
    /// than 100 KiB for each thread, and less than 1 MB where files are read instead of mapped.
    ///
    /// # Errors
    ///
    /// `BufferTooSmall`; `UnsupportedFormat` as for [`Group::image_layout`]; `Corrupt` if the codes contradict the
    /// positions, or the first gap of a block (other gaps are not read); `Io` where files are read. After an error the
    /// header is zeros, so that the image cannot be bound.
    pub fn write_image(self, dst: &mut [u8], threads: usize) -> Result<()> {
        // SAFETY: the slice can be written, by this call alone.
        unsafe { self.write_image_raw(dst.as_mut_ptr(), dst.len() as u64, threads) }
    }

    /// As [`Group::write_image`], into memory that need not be initialised.
    ///
    /// # Safety
    ///
    /// `dst_bytes` bytes at `dst` can be written by any thread, and nobody else uses them during the call.
    pub unsafe fn write_image_raw(self, dst: *mut u8, dst_bytes: u64, threads: usize) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { write_range(Range::whole(self), dst, dst_bytes, threads) }
    }

    /// Returns the layout of the image of `count` of the group's weights, from weight `first` on. The codes of one or two
    /// blocks are walked, to find the bits at which it begins and ends; all weights of a group are its image.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a range that leaves the group or has no weight; `UnsupportedFormat` as for
    /// [`Group::image_layout`]; `Corrupt` if the codes contradict the positions; `Io` where files are read; `OutOfMemory`.
    pub fn image_range_layout(self, first: u64, count: u64) -> Result<ImageLayout> {
        Range::new(self, first, count)?.layout()
    }

    /// Writes the image of `count` of the group's weights, from weight `first` on, as [`Group::write_image`] writes that of
    /// all. The image says which weights and tensors it holds. The codes of these weights are walked, and compared with the
    /// positions and gaps of the blocks in which they begin.
    ///
    /// # Errors
    ///
    /// As [`Group::image_range_layout`] and [`Group::write_image`].
    pub fn write_image_range(self, first: u64, count: u64, dst: &mut [u8], threads: usize) -> Result<()> {
        // SAFETY: the slice can be written, by this call alone.
        unsafe { self.write_image_range_raw(first, count, dst.as_mut_ptr(), dst.len() as u64, threads) }
    }

    /// As [`Group::write_image_range`], into memory that need not be initialised.
    ///
    /// # Safety
    ///
    /// As [`Group::write_image_raw`].
    pub unsafe fn write_image_range_raw(
        self,
        first: u64,
        count: u64,
        dst: *mut u8,
        dst_bytes: u64,
        threads: usize,
    ) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { write_range(Range::new(self, first, count)?, dst, dst_bytes, threads) }
    }

    /// Writes one of `parts` parts of an image, for callers with threads of their own: each part is written by one
    /// call, in any order or at the same time. Together they write the bytes that [`Group::write_image`] writes, which
    /// are the same for any number of parts. Part 0 writes the head.
    ///
    /// # Errors
    ///
    /// As [`Group::write_image`], and `InvalidArgument` for a part that is not below `parts`. **If any part fails, the
    /// bytes are no image**, whatever the others wrote: a part knows nothing of the others, and part 0 writes a head
    /// that can be bound. A part that fails writes zeros over its own share of the index, and part 0 over the header,
    /// so that a kernel that is launched anyway reports `DF11_CORRUPT`.
    ///
    /// # Safety
    ///
    /// `dst_bytes` bytes at `dst` can be written, and nobody else uses the bytes of this part during the call.
    pub unsafe fn write_image_part(self, dst: *mut u8, dst_bytes: u64, part: u64, parts: u64) -> Result<()> {
        if part >= parts {
            return Err(Error::InvalidArgument(format!("there is no part {part} of {parts} parts")));
        }
        // SAFETY: as the caller promises: a part writes to its own bytes only.
        let image = unsafe { ImageWriter::new(Range::whole(self), dst, dst_bytes, false)? };
        // Parts beyond the number of blocks are empty: a part smaller than one block would be.
        let most = image.blocks().max(1) as u64;
        let result = if part < most { image.part(part as usize, parts.min(most) as usize) } else { Ok(()) };
        if part == 0 {
            let head = if result.is_ok() { &image.head[..] } else { &[0; HEADER_BYTES] };
            image.target.put(0, head);
        }
        result
    }
}

/// Writes the image of a range.
///
/// # Safety
///
/// As [`Group::write_image_raw`].
unsafe fn write_range(range: Range, dst: *mut u8, dst_bytes: u64, threads: usize) -> Result<()> {
    // SAFETY: as the caller promises.
    let image = unsafe { ImageWriter::new(range, dst, dst_bytes, false)? };
    // More parts than threads, because threads do not always run equally fast.
    let parts = if threads > 1 { (4 * threads).min(image.blocks().max(1)) } else { 1 };
    let next = AtomicUsize::new(0);
    let result = run_threads(threads.clamp(1, parts), || {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return Ok(());
            }
            // After a failure the other threads take no more parts.
            image.part(part, parts).inspect_err(|_| next.store(parts, Ordering::Relaxed))?;
        }
    });
    let head = match &result {
        Ok(()) => &image.head[..],
        Err(_) => &[0; HEADER_BYTES],
    };
    image.target.put(0, head);
    result
}

/// Returns the head of a range's image, and its first bytes up to the codes: head and index.
///
/// # Errors
///
/// As [`Group::write_image_range`].
pub(crate) fn head_and_index(range: Range) -> Result<(Head, Vec<u8>)> {
    let head = range.head()?;
    let bytes = head.layout().code;
    let mut all: Vec<u8> = Vec::new();
    grow(&mut all, bytes as usize, 0, "the index of an image")?;
    // SAFETY: the list has room, and is not used before the writer is done.
    let image = unsafe { ImageWriter::new(range, all.as_mut_ptr(), bytes, true)? };
    image.part(0, 1)?;
    image.target.put(0, &image.head);
    Ok((head, all))
}

/// A writer of one image, shared by the threads that write its parts.
struct ImageWriter<'a> {
    range: Range<'a>,
    layout: ImageLayout,
    /// The head. Its tables are dropped before the codes are walked, which takes memory.
    head: Vec<u8>,
    /// The image, or its bytes before the codes.
    target: Target,
    /// The positions of the group's blocks, which also say where parts end.
    positions: &'a [u8],
}

impl<'a> ImageWriter<'a> {
    /// Makes the writer of a whole image, or of its head and index only.
    ///
    /// # Safety
    ///
    /// `dst_bytes` bytes at `dst` can be written by any thread as long as the writer lives, and nobody else uses them.
    unsafe fn new(range: Range<'a>, dst: *mut u8, dst_bytes: u64, index_only: bool) -> Result<Self> {
        let head = range.head()?;
        let layout = *head.layout();
        let needed = if index_only { layout.code } else { layout.image_bytes };
        if dst_bytes < needed {
            return Err(Error::BufferTooSmall { what: "the destination".into(), needed, given: dst_bytes });
        }
        let positions = range.group.positions();
        let head = head.bytes()?;
        // SAFETY: as the caller promises; no more than `dst_bytes` are needed.
        let target = unsafe { Target::new(dst, needed) };
        Ok(ImageWriter { range, layout, head, target, positions })
    }

    /// Returns whether codes and signs are written too.
    fn is_whole(&self) -> bool {
        self.target.bytes() == self.layout.image_bytes
    }

    /// Returns the number of blocks to walk.
    fn blocks(&self) -> usize {
        self.range.blocks.len()
    }

    /// Writes everything that belongs to a part, except the head.
    fn part(&self, part: usize, parts: usize) -> Result<()> {
        let layout = &self.layout;
        let share = |all: u64, part: usize| (all as u128 * part as u128 / parts as u128) as u64;
        let border = |part| self.range.blocks.start + share(self.blocks() as u64, part) as usize;
        let (from, to) = (border(part), border(part + 1));
        let signs = share(layout.weights, part)..share(layout.weights, part + 1);
        if part == 0 {
            self.target.zero(layout.starts + 4 * (layout.tiles + 1), layout.lanes);
            self.target.zero(layout.lanes + 2 * TILE_LANES * layout.tiles, layout.code);
        }
        if part + 1 == parts {
            let end = layout.code_bytes.div_ceil(UNIT_BYTES) as u32;
            self.target.put(layout.starts + 4 * layout.tiles, &end.to_le_bytes());
            let lanes = layout.weights.div_ceil(LANE_WEIGHTS);
            self.target.zero(layout.lanes + 2 * lanes, layout.lanes + 2 * TILE_LANES * layout.tiles);
            if self.is_whole() {
                self.target.zero(layout.code + layout.code_bytes, layout.signs);
                self.target.zero(layout.signs + layout.weights, layout.image_bytes);
            }
        }
        let mut writer = PartWriter::new(self, to).inspect_err(|_| self.spoil(from, to))?;
        let step = if self.range.group.model().mapped() { BATCH_BLOCKS } else { BATCH_BLOCKS_READ };
        for batch in (from..to).step_by(step) {
            let end = (batch + step).min(to);
            let code_end = if end == self.range.blocks.end { self.range.codes.end } else { (end * BLOCK_BYTES) as u64 };
            let done =
                |block: usize| signs.start + (signs.end - signs.start) * (block - from) as u64 / (to - from) as u64;
            writer.batch(batch..end, code_end, done(batch)..done(end)).inspect_err(|_| self.spoil(from, to))?;
        }
        fence();
        Ok(())
    }

    /// Returns the weight of the image with which a block begins; after the last block, the number of weights.
    fn weight(&self, block: usize) -> u64 {
        let weights = &self.range.weights;
        match block == self.range.blocks.end {
            true => self.range.count(),
            false => position(self.positions, block).clamp(weights.start, weights.end) - weights.start,
        }
    }

    /// Writes zeros over the index of a part.
    fn spoil(&self, from: usize, to: usize) {
        let layout = &self.layout;
        let (from, to) = (self.weight(from), self.weight(to).max(self.weight(from)));
        self.target.zero(layout.lanes + 2 * from.div_ceil(LANE_WEIGHTS), layout.lanes + 2 * to.div_ceil(LANE_WEIGHTS));
        self.target
            .zero(layout.starts + 4 * from.div_ceil(TILE_WEIGHTS), layout.starts + 4 * to.div_ceil(TILE_WEIGHTS));
    }
}

/// The writer of one part, with the buffers of its thread.
struct PartWriter<'a> {
    image: &'a ImageWriter<'a>,
    /// The first lane of the next part.
    lanes: u64,
    marker: Marker<'a>,
    code_buffer: Vec<u8>,
    gap_buffer: Vec<u8>,
    sign_buffer: Vec<u8>,
}

impl<'a> PartWriter<'a> {
    /// Makes the writer of a part that ends before the block `to`.
    fn new(image: &'a ImageWriter<'a>, to: usize) -> Result<Self> {
        Ok(PartWriter {
            image,
            lanes: image.weight(to).div_ceil(LANE_WEIGHTS),
            marker: Marker::new(image.range.group.data().codes())?,
            code_buffer: Vec::new(),
            gap_buffer: Vec::new(),
            sign_buffer: Vec::new(),
        })
    }

    /// Writes the index of `blocks`, the codes from their first byte to the byte `code_end`, and the signs and
    /// mantissas of `weights`, which count from the image's first.
    fn batch(&mut self, blocks: ops::Range<usize>, code_end: u64, weights: ops::Range<u64>) -> Result<()> {
        let PartWriter { image, lanes, marker, code_buffer, gap_buffer, .. } = self;
        let positions = image.positions;
        let ops::Range { start: from, end: to } = blocks;
        let (range, layout) = (&image.range, &image.layout);
        let (group, sources) = (range.group, range.group.model().sources());
        let (code, gaps) = (group.data().member(Member::EncodedExponent), group.data().member(Member::Gaps));
        let start = (from * BLOCK_BYTES) as u64;
        // A range ends at its last code, as a group does, so that no run walks further.
        let len = (((to - from) * BLOCK_BYTES + BYTES_AFTER) as u64).min(range.codes.end.saturating_sub(start));
        let codes = sources[code.file].bytes(code.offset + start, len, code_buffer)?;
        let gap_start = (from * GAP_BYTES_PER_BLOCK) as u64;
        let gap_len = (((to - from + 1) * GAP_BYTES_PER_BLOCK) as u64).min(gaps.len - gap_start);
        let gap_bytes = sources[gaps.file].bytes(gaps.offset + gap_start, gap_len, gap_buffer)?;

        // After the last weight there is nothing to walk.
        let (first, n) = (range.weights.start, range.weights.end);
        let last = (from..to).find(|&block| position(positions, block + 1) >= n);
        let end = last.map_or(to, |last| if position(positions, last) >= n { last } else { last + 1 });
        // Lanes before the range's first, so that no weight of its first block has a number below 0.
        let before = if first == 0 { 0 } else { BLOCK_LANES };
        let number = |weight: u64| (weight + before * LANE_WEIGHTS).saturating_sub(first);
        let gap = |block: usize| gap_bytes.get((block - from) * GAP_BYTES_PER_BLOCK).map(|&byte| (byte >> 3) as usize);
        let mut index = Index {
            image,
            positions,
            last,
            gap,
            before,
            first,
            lanes: *lanes,
            lane_starts: image.target.address(layout.lanes, layout.code - layout.lanes).cast(),
            tile_starts: image.target.address(layout.starts, layout.lanes - layout.starts).cast(),
        };
        let runs = std::array::from_fn(|lane| {
            let border = |lane: usize| from + (end - from) * lane / RUNS;
            let (first, after) = (border(lane), border(lane + 1));
            let code_end = ((after - from) * BLOCK_BYTES + BYTES_AFTER).min(codes.len());
            BlockRun {
                code: &codes[(first - from) * BLOCK_BYTES..code_end],
                block: first,
                blocks: after - first,
                gap: gap(first).unwrap_or(0),
                weight: number(position(positions, first)),
                end: (after == end && last.is_some()).then_some(number(n)),
            }
        });
        if (from == 0 && gap(0) != Some(0)) || !marker.walk(runs, &mut index) {
            // The slower walk finds the fault, from one block earlier: it may be the first gap or position.
            BlockWalk::new(group).range(from.saturating_sub(1), to)?;
            let place = group.place(Member::EncodedExponent, start);
            return Err(Error::corrupt(place, "the codes have changed since the model was opened"));
        }
        if image.is_whole() {
            // The codes are in a cache now. A range may begin inside its first block.
            let skipped = range.codes.start.saturating_sub(start);
            let copied = code_end.saturating_sub(start).min(codes.len() as u64);
            if copied > skipped {
                let at = layout.code + start + skipped - range.codes.start;
                image.target.put_all(at, &codes[skipped as usize..copied as usize]);
            }
            self.signs(weights)?;
        }
        Ok(())
    }

    /// Writes the signs and mantissas of some of the image's weights.
    fn signs(&mut self, weights: ops::Range<u64>) -> Result<()> {
        let PartWriter { image, sign_buffer, .. } = self;
        let (range, layout) = (&image.range, &image.layout);
        let (group, sources) = (range.group, range.group.model().sources());
        let signs = group.data().member(Member::SignMantissa);
        let count = weights.end - weights.start;
        if !group.model().mapped() && sign_buffer.capacity() == 0 {
            // The shares of batches differ by little; a buffer that grows would take twice as much for a moment.
            let bytes = count + 64;
            let out_of_memory = |_| Error::OutOfMemory { bytes, what: "a part of a file" };
            sign_buffer.try_reserve_exact(bytes as usize).map_err(out_of_memory)?;
        }
        let sign_offset = signs.offset + range.weights.start + weights.start;
        let sign_bytes = sources[signs.file].bytes(sign_offset, count, sign_buffer)?;
        image.target.put_all(layout.signs + weights.start, sign_bytes);
        Ok(())
    }
}

/// Writes what a walk finds, and compares it with what is recorded.
struct Index<'a, G> {
    image: &'a ImageWriter<'a>,
    positions: &'a [u8],
    /// The block in which the last weight begins, if it is one of the batch.
    last: Option<usize>,
    /// The recorded gap of a block's first chunk.
    gap: G,
    /// The walk's lanes before the image's first, and the group's weight with which that one begins.
    before: u64,
    first: u64,
    /// The first lane that is not this part's, and the sections of lanes and starts.
    lanes: u64,
    lane_starts: *mut u16,
    tile_starts: *mut u32,
}

impl<G: Fn(usize) -> Option<usize>> Visitor for Index<'_, G> {
    #[inline(always)]
    fn mark(&mut self, number: u64, bit: u64) {
        // A range may begin inside its first block.
        let Some(lane) = number.checked_sub(self.before) else { return };
        if lane >= self.lanes {
            // There are more codes than the positions say. The walk finds that out at the next border.
            return;
        }
        let bit = bit.wrapping_sub(8 * self.image.range.codes.start);
        // SAFETY: the image has this lane, and a start for its tile. The weights of this part begin with the first weight of
        // its first block, and lanes from `lanes` on are the next part's: no other part writes these entries.
        unsafe {
            self.lane_starts.add(lane as usize).write_unaligned(bit as u16);
            if lane.is_multiple_of(TILE_LANES) {
                self.tile_starts.add((lane / TILE_LANES) as usize).write_unaligned((bit / 128) as u32);
            }
        }
    }

    fn border(&mut self, block: usize, weight: u64, gap: usize) -> bool {
        weight + self.first == position(self.positions, block) + self.before * LANE_WEIGHTS
            && (self.gap)(block) == Some(gap)
    }

    fn end(&mut self, block: usize, bit: u64) -> bool {
        // The last code ends in the last byte.
        self.last == Some(block) && bit.div_ceil(8) == self.image.range.codes.end
    }
}
