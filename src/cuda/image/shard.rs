//! Images of slices: what one of several ranks holds of a group, encoded anew with the group's own table.
//!
//! Columns of a matrix do not follow each other in a group, so their codes cannot be copied. They are decoded a stretch at
//! a time and encoded again, which needs two passes: the first counts exponents, and from their sum follow the size of the
//! image and the bit at which each stretch begins; the second writes. Threads take stretches, and what two of them share,
//! a byte of codes, is joined at the end. The bytes do not depend on the threads.

use super::copy::Target;
use super::layout::{Extent, Head, ImageLayout, Sizes};
use super::slice::Slice;
use super::{HEADER_BYTES, LANE_WEIGHTS, TILE_LANES, TILE_WEIGHTS, UNIT_BYTES};
use crate::error::{Error, Result, boxed, grow, shorten};
use crate::format::{Group, MOST_TENSORS, Member};
use crate::host::{DecodeOptions, run_threads};
use crate::huffman::codebook::Codebook;
use crate::huffman::encode::{Encoder, Stretch, Variant, count, exponent};
use crate::huffman::fence;
use crate::progress::Progress;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Weights of a stretch: whole tiles, and together with their codes no more than a second-level cache holds.
const STRETCH: u64 = 78 * TILE_WEIGHTS;
/// Weights that are decoded at once, with those between them that are not wanted.
const SPAN: u64 = 1 << 18;
/// Weights between two runs up to which both are decoded at once: to begin a range anew costs as much as decoding so many.
const NEAR: u64 = 1 << 15;

/// Slices of a group, counted: the size of their image is known, and it can be written.
///
/// Any number of threads may use it at once.
pub struct Shard<'m> {
    group: Group<'m>,
    head: Head,
    /// The image's weights up to the end of each slice.
    ends: Vec<u64>,
    book: Codebook,
    histogram: Box<[u64; 256]>,
    /// The bit at which each stretch begins, then that at which the last one ends.
    bits: Vec<u64>,
}

impl std::fmt::Debug for Shard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("group", &self.group).field("layout", self.layout()).finish_non_exhaustive()
    }
}

impl<'m> Group<'m> {
    /// Counts slices of the group, so that their image can be written: the shard of one of several devices. Slices may
    /// have columns of matrices, rows, whole tensors, or any other elements at equal distances, in any order; slice `i` is the
    /// image's tensor `i`. All of the tensors are decoded, a piece at a time, on `threads` threads (0 means 1) including
    /// the calling one; each allocates less than 4 MB.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a slice that leaves its tensor, or overlaps itself, for more than 1,024 slices, and for no weights
    /// at all or 2^32 and more; `UnsupportedFormat` as for [`Group::image_layout`]; those of [`Group::decompress`];
    /// `OutOfMemory`; `Cancelled`.
    pub fn shard(self, slices: &[Slice], threads: usize, progress: &Progress) -> Result<Shard<'m>> {
        let ends = check(self, slices)?;
        let weights = ends.last().copied().unwrap_or(0);
        let sizes = Sizes::of(self)?;
        let book = Codebook::of_table(self.data().codes());
        let stretches = weights.div_ceil(STRETCH) as usize;
        let (next, all) = (AtomicUsize::new(0), Mutex::new(boxed(0u64, "counts of exponents")?));
        let mut sums = Vec::new();
        grow(&mut sums, stretches, 0, "the stretches of a shard")?;
        let sums = Mutex::new(sums);
        let source = Source { group: self, slices, ends: &ends };
        progress.begin(2 * weights);
        run_threads(threads.clamp(1, stretches), || {
            let (mut buffer, mut scratch, mut counts) = (Vec::new(), Vec::new(), boxed(0u64, "counts of exponents")?);
            each(&next, stretches, |number| {
                progress.check()?;
                let some = source.stretch(number, &mut buffer, &mut scratch)?;
                counts.fill(0);
                count(some, &mut counts, Variant::best());
                let bits = book.bits(&counts).ok_or_else(|| changed(self))?;
                sums.lock().unwrap_or_else(|p| p.into_inner())[number] = bits;
                let mut all = all.lock().unwrap_or_else(|p| p.into_inner());
                all.iter_mut().zip(counts.iter()).for_each(|(sum, n)| *sum += n);
                progress.advance(2 * some.len() as u64);
                Ok(())
            })
        })?;
        progress.finish();
        let mut bits = Vec::new();
        grow(&mut bits, stretches + 1, 0, "the stretches of a shard")?;
        for (i, sum) in sums.into_inner().unwrap_or_else(|p| p.into_inner()).into_iter().enumerate() {
            bits[i + 1] = bits[i] + sum;
        }
        let tensors = slices.len() as u32;
        let extent = Extent { slices: tensors, ..sizes.extent };
        let code_bytes = bits[stretches].div_ceil(8);
        let layout = Sizes { weights, code_bytes, tensors, extent, ..sizes }.layout()?;
        let head = Head::new(self, layout, ends.clone(), slices.to_vec())?;
        let histogram = all.into_inner().unwrap_or_else(|p| p.into_inner());
        Ok(Shard { group: self, head, ends, book, histogram, bits })
    }
}

impl Shard<'_> {
    /// Returns the layout of its image.
    pub fn layout(&self) -> &ImageLayout {
        self.head.layout()
    }

    /// Returns the slices.
    pub fn slices(&self) -> &[Slice] {
        self.head.slices()
    }

    /// Writes the image into `dst`, of which the first `image_bytes` bytes are used, on `threads` threads (0 means 1)
    /// including the calling one. They live for the call only, and each allocates less than 4 MB.
    ///
    /// # Errors
    ///
    /// `BufferTooSmall`; those of [`Group::decompress`]; `OutOfMemory`; `Cancelled`. After an error the header is zeros, so that
    /// the image cannot be bound.
    pub fn write_image(&self, dst: &mut [u8], threads: usize, progress: &Progress) -> Result<()> {
        // SAFETY: the slice can be written, by this call alone.
        unsafe { self.write_image_raw(dst.as_mut_ptr(), dst.len() as u64, threads, progress) }
    }

    /// As [`Shard::write_image`], into memory that need not be initialised.
    ///
    /// # Safety
    ///
    /// `dst_bytes` bytes at `dst` can be written by any thread, and nobody else uses them during the call.
    pub unsafe fn write_image_raw(
        &self,
        dst: *mut u8,
        dst_bytes: u64,
        threads: usize,
        progress: &Progress,
    ) -> Result<()> {
        let needed = self.layout().image_bytes;
        if dst_bytes < needed {
            return Err(Error::BufferTooSmall { what: "the destination".into(), needed, given: dst_bytes });
        }
        let head = self.head.bytes()?;
        // SAFETY: as the caller promises.
        let target = unsafe { Target::new(dst, needed) };
        let result = self.write(&target, threads, progress);
        let head = match &result {
            Ok(()) => &head[..],
            Err(_) => &[0; HEADER_BYTES],
        };
        target.put(0, head);
        result
    }

    /// Writes everything but the head.
    fn write(&self, target: &Target, threads: usize, progress: &Progress) -> Result<()> {
        let layout = self.layout();
        let encoder = Encoder::new(&self.book, &self.histogram, Variant::best())?;
        let stretches = self.bits.len() - 1;
        let mut edges = Vec::new();
        let bytes = (2 * stretches * size_of::<(u64, u8)>()) as u64;
        let out_of_memory = |_| Error::OutOfMemory { bytes, what: "the stretches of a shard" };
        edges.try_reserve_exact(2 * stretches).map_err(out_of_memory)?;
        let (next, edges) = (AtomicUsize::new(0), Mutex::new(edges));
        progress.begin(2 * layout.weights);
        run_threads(threads.clamp(1, stretches), || {
            let (mut buffer, mut scratch, mut stretch) = (Vec::new(), Vec::new(), Stretch::default());
            let source = Source { group: self.group, slices: self.slices(), ends: &self.ends };
            each(&next, stretches, |number| {
                progress.check()?;
                let some = source.stretch(number, &mut buffer, &mut scratch)?;
                self.write_stretch(number, some, &encoder, &mut stretch, target, &edges)?;
                progress.advance(2 * some.len() as u64);
                Ok(())
            })?;
            fence();
            Ok(())
        })?;
        // The bytes that two stretches, or more, have bits of.
        let mut edges = edges.into_inner().unwrap_or_else(|p| p.into_inner());
        edges.sort_unstable();
        for same in edges.chunk_by(|a, b| a.0 == b.0) {
            let byte = same.iter().fold(0, |byte, (_, bits)| byte | bits);
            target.put(layout.code + same[0].0, &[byte]);
        }
        let end = layout.code_bytes.div_ceil(UNIT_BYTES) as u32;
        target.put(layout.starts + 4 * layout.tiles, &end.to_le_bytes());
        target.zero(layout.starts + 4 * (layout.tiles + 1), layout.lanes);
        target.zero(layout.lanes + 2 * layout.weights.div_ceil(LANE_WEIGHTS), layout.code);
        target.zero(layout.code + layout.code_bytes, layout.signs);
        target.zero(layout.signs + layout.weights, layout.image_bytes);
        progress.finish();
        Ok(())
    }

    /// Writes the codes, the signs and mantissas and the index of a stretch, and notes the bytes of codes that it may share.
    fn write_stretch(
        &self,
        number: usize,
        weights: &[u16],
        encoder: &Encoder,
        stretch: &mut Stretch,
        target: &Target,
        edges: &Mutex<Vec<(u64, u8)>>,
    ) -> Result<()> {
        let layout = self.layout();
        let (start, end, first) = (self.bits[number], self.bits[number + 1], number as u64 * STRETCH);
        stretch.reserve(weights.len())?;
        let signs = target.address(layout.signs + first, weights.len() as u64);
        // SAFETY: the image has a byte for each of these weights, which no other thread has.
        let encoded = unsafe { encoder.stretch_raw(weights, start, signs, stretch, target.streams()) };
        if encoded.is_err() || stretch.end_bit() != end {
            return Err(changed(self.group));
        }
        let (mut at, mut code) = stretch.code();
        // There is room for two of each stretch.
        let share = |at: u64, byte: u8| edges.lock().unwrap_or_else(|p| p.into_inner()).push((at, byte));
        if let (true, Some((&byte, rest))) = (!start.is_multiple_of(8), code.split_first()) {
            share(at, byte);
            (at, code) = (at + 1, rest);
        }
        if let (true, Some((&byte, rest))) = (!end.is_multiple_of(8), code.split_last()) {
            share(at + rest.len() as u64, byte);
            code = rest;
        }
        target.put_all(layout.code + at, code);

        let lengths: [u8; 256] = std::array::from_fn(|e| self.book.word(e as u8).len);
        let (mut bit, lane) = (start, first / LANE_WEIGHTS);
        for (lane, weights) in (lane..).zip(weights.chunks(LANE_WEIGHTS as usize)) {
            target.put(layout.lanes + 2 * lane, &(bit as u16).to_le_bytes());
            if lane.is_multiple_of(TILE_LANES) {
                target.put(layout.starts + 4 * (lane / TILE_LANES), &((bit / 128) as u32).to_le_bytes());
            }
            bit += weights.iter().map(|&weight| lengths[exponent(weight) as usize] as u64).sum::<u64>();
        }
        Ok(())
    }
}

/// Runs `work` on numbers from a common supply, until there are none or one has failed.
pub(super) fn each(next: &AtomicUsize, count: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        // After a failure the other threads take no more.
        work(number).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
    }
}

/// The error of weights that are not those that were counted.
fn changed(group: Group) -> Error {
    let place = group.place(Member::EncodedExponent, 0);
    Error::corrupt(place, "the codes have changed since the model was opened")
}

/// Checks slices, and returns how many weights there are up to the end of each.
fn check(group: Group, slices: &[Slice]) -> Result<Vec<u64>> {
    let cuts = group.data().cuts();
    let invalid = |reason| Err(Error::InvalidArgument(reason));
    let name = || shorten(group.name(), 80);
    if slices.len() as u64 > MOST_TENSORS {
        return invalid(format!("{} slices of group '{}': {MOST_TENSORS} are the most", slices.len(), name()));
    }
    let (mut sum, mut ends) = (0u64, Vec::with_capacity(slices.len()));
    for (i, slice) in slices.iter().enumerate() {
        let tensor = slice.tensor as usize;
        let Some(cut) = cuts.get(tensor..).and_then(|cuts| cuts.first_chunk::<2>()) else {
            return invalid(format!("slice {i}: group '{}' has no tensor {tensor}: {}", name(), cuts.len() - 1));
        };
        let elements = cut[1] - cut[0];
        match slice.end() {
            Some(end) if end <= elements => {}
            Some(end) => {
                return invalid(format!(
                    "slice {i} ends with element {end} of tensor {tensor} of group '{}', which has {elements}",
                    name()
                ));
            }
            None => {
                let (run, stride) = (slice.run_elements, slice.run_stride);
                return invalid(format!("slice {i} has runs of {run} elements every {stride}: they overlap"));
            }
        }
        sum += slice.element_count();
        ends.push(sum);
    }
    if sum == 0 || sum > u32::MAX as u64 {
        return invalid(format!("slices of {sum} weights of group '{}': an image has 1 to 4294967295", name()));
    }
    Ok(ends)
}

/// The weights of slices, in the order of the image.
struct Source<'a> {
    group: Group<'a>,
    slices: &'a [Slice],
    ends: &'a [u64],
}

impl Source<'_> {
    /// Decodes the weights of a stretch.
    fn stretch<'b>(&self, number: usize, buffer: &'b mut Vec<u16>, scratch: &mut Vec<u16>) -> Result<&'b [u16]> {
        let from = number as u64 * STRETCH;
        let all = self.ends.last().copied().unwrap_or(0);
        let count = STRETCH.min(all - from) as usize;
        grow(buffer, count, 0, "a stretch of weights")?;
        let some = &mut buffer[..count];
        let mut done = 0;
        while done < count {
            let at = from + done as u64;
            let slice = self.ends.partition_point(|&end| end <= at);
            let before = if slice == 0 { 0 } else { self.ends[slice - 1] };
            let end = count.min((self.ends[slice] - from) as usize);
            self.slice(&self.slices[slice], at - before, &mut some[done..end], scratch)?;
            done = end;
        }
        Ok(some)
    }

    /// Decodes weights of a slice, from its weight `from` on.
    fn slice(&self, slice: &Slice, from: u64, out: &mut [u16], scratch: &mut Vec<u16>) -> Result<()> {
        let (run, stride) = (slice.run_elements as u64, slice.run_stride as u64);
        let origin = self.group.data().cuts()[slice.tensor as usize] + slice.first as u64;
        // Where a weight of the slice is in the group.
        let place = |at: u64| origin + at / run * stride + at % run;
        let mut done = 0;
        while done < out.len() {
            let at = from + done as u64;
            let (left, here) = ((out.len() - done) as u64, run - at % run);
            if left <= here || stride - run > NEAR || here + stride > SPAN {
                let some = &mut out[done..][..left.min(here) as usize];
                self.decode(place(at), some)?;
                done += some.len();
                continue;
            }
            // This run and those that follow, with what is between them.
            let some = left.min(here + (SPAN - here) / stride * run) as usize;
            let span = (place(at + some as u64 - 1) + 1 - place(at)) as usize;
            grow(scratch, SPAN as usize, 0, "a stretch of weights")?;
            let all = &mut scratch[..span];
            self.decode(place(at), all)?;
            let (mut to, mut source, mut wanted) = (&mut out[done..][..some], 0, here as usize);
            while !to.is_empty() {
                let (some, rest) = to.split_at_mut(wanted.min(to.len()));
                some.copy_from_slice(&all[source..][..some.len()]);
                source += wanted + (stride - run) as usize;
                (to, wanted) = (rest, run as usize);
            }
            done += some;
        }
        Ok(())
    }

    fn decode(&self, first: u64, to: &mut [u16]) -> Result<()> {
        // SAFETY: the list can be written, and is aligned.
        unsafe { self.group.decompress_raw(first, to.len() as u64, to.as_mut_ptr(), &DecodeOptions::new()) }
    }
}
