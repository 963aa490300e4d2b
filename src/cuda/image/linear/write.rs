//! Linear images made on the host.
//!
//! A group is decoded a piece at a time: some rows of tiles of a tensor, or, where rows are very long, columns of one. It
//! takes three passes. The first counts pairs of exponents, from which tables and sizes follow; the second counts the
//! escapes of each tile, from which follows where each tile's begin; both are a plan's. The third writes. Threads take
//! pieces, and the bytes do not depend on them.

use super::super::HEADER_BYTES;
use super::super::copy::Target;
use super::super::shard::each;
use super::layout::{Counted, flat};
use super::*;
use crate::error::{Error, Result, grow, shorten};
use crate::format::{Group, Member, Run};
use crate::host::{DecodeOptions, run_threads};
use crate::huffman::fence;
use crate::progress::Progress;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

/// Weights of a piece: about as many as stay in a second-level cache.
const PIECE: u64 = 1 << 18;
/// Columns of a row that are decoded at once.
const MOST_COLUMNS: u64 = 1 << 16;
/// Weights that a matrix may be padded with, if they are more than its own: 24 KB.
const PADDING: u64 = 1 << 14;
/// The code of a weight that is an escape.
const ESCAPE: u8 = 255;
const COUNTS: &str = "the escapes of a linear image";

/// A group, counted: the size of its linear image is known, and it can be written.
///
/// It holds four bytes for 1,024 weights. Any number of threads may use it at once.
pub struct LinearPlan<'m> {
    group: Group<'m>,
    head: LinearHead,
    /// The starts of all tensors, one after the other.
    starts: Vec<u32>,
}

impl std::fmt::Debug for LinearPlan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinearPlan").field("group", &self.group).finish_non_exhaustive()
    }
}

/// Some tiles of a tensor.
#[derive(Debug, Clone)]
struct Piece {
    tensor: usize,
    /// Rows, from a row of tiles on.
    rows: Range<u64>,
    /// Columns, from a tile on: all of them, unless `rows` are one row of tiles.
    columns: Range<u64>,
    /// Columns of the tensor.
    stride: u64,
}

impl<'m> Group<'m> {
    /// Counts the group, so that its linear image can be written. It is decoded twice, a piece at a time, on `threads`
    /// threads (0 means 1) including the calling one; each allocates less than 4 MB.
    ///
    /// `shapes` are the rows and columns of each of the group's tensors, or (0, 0) for those whose shape the model is to
    /// say; an empty list leaves all to the model. A tensor of which the model says two dimensions or more has the last
    /// one as its columns. One whose shape the model does not know, or that would be mostly padding, is no matrix: it can
    /// be decoded, and not multiplied with.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for shapes that are not those of as many tensors, or of as many weights; those of
    /// [`Group::decompress`]; `OutOfMemory`; `Cancelled`.
    pub fn linear(self, shapes: &[(u64, u64)], threads: usize, progress: &Progress) -> Result<LinearPlan<'m>> {
        let shapes = check(self, shapes)?;
        let pieces = pieces(&shapes)?;
        progress.begin(4 * self.element_count());
        let mut counts = Vec::new();
        grow(&mut counts, shapes.len(), [0u64; 128], COUNTS)?;
        let counts = Mutex::new(counts);
        self.pieces(&pieces, threads, |piece, weights| {
            progress.check()?;
            let mut some = [0u32; 128];
            weights.iter().for_each(|&weight| some[pair(weight)] += 1);
            let all = &mut counts.lock().unwrap_or_else(|p| p.into_inner())[piece.tensor];
            all.iter_mut().zip(some).for_each(|(sum, n)| *sum += n as u64);
            progress.advance(2 * weights.len() as u64);
            Ok(())
        })?;
        let counts = counts.into_inner().unwrap_or_else(|p| p.into_inner());
        let counted = counts.iter().zip(self.runs()).zip(&shapes).map(|((counts, run), &(rows, columns))| {
            let table = table_of(counts);
            let listed: u64 = (1..128).filter(|&pair| !table.contains(&(pair as u8))).map(|pair| counts[pair]).sum();
            Counted { weights: run.element_count(), rows, columns, escapes: listed, table }
        });
        let head = LinearHead::new(counted.collect::<Vec<_>>().into_iter())
            .ok_or_else(|| Error::Internal("a group, but no linear image".into()))?;

        let mut starts: Vec<u32> = Vec::new();
        grow(&mut starts, offsets(&head).last().copied().unwrap_or(0), 0, COUNTS)?;
        let all = Mutex::new(starts);
        let offsets = offsets(&head);
        self.pieces(&pieces, threads, |piece, weights| {
            progress.check()?;
            let tensor = &head.tensors()[piece.tensor];
            let lut = lut(&tensor.table);
            let mut some = Vec::new();
            grow(&mut some, piece.tile_count(), 0u32, COUNTS)?;
            piece.each_tile(weights, |i, rows| {
                some[i] = rows.flatten().filter(|&&weight| lut[pair(weight)] == ESCAPE).count() as u32;
                Ok(())
            })?;
            let mut all = all.lock().unwrap_or_else(|p| p.into_inner());
            // One place later: it is summed up below.
            let from = offsets[piece.tensor] + 1 + piece.first_tile(tensor) as usize;
            all[from..from + some.len()].copy_from_slice(&some);
            progress.advance(2 * weights.len() as u64);
            Ok(())
        })?;
        let mut starts = all.into_inner().unwrap_or_else(|p| p.into_inner());
        for (range, tensor) in offsets.windows(2).zip(head.tensors()) {
            let mut sum = 0u64;
            for start in &mut starts[range[0]..range[1]] {
                sum += *start as u64;
                *start = sum as u32;
            }
            if sum != tensor.escape_count as u64 {
                return Err(changed(self));
            }
        }
        progress.finish();
        Ok(LinearPlan { group: self, head, starts })
    }

    /// Decodes pieces, each on one of several threads, and has `work` do something with the weights: whole rows of the
    /// piece, without padding.
    fn pieces(
        self,
        pieces: &[Piece],
        threads: usize,
        work: impl Fn(&Piece, &[u16]) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        run_threads(threads.clamp(1, pieces.len().max(1)), || {
            let mut buffer = Vec::new();
            each(&next, pieces.len(), |number| {
                let piece = &pieces[number];
                work(piece, piece.decode(self, &mut buffer)?)
            })
        })
    }
}

impl LinearPlan<'_> {
    /// Returns the head of the image.
    pub fn head(&self) -> &LinearHead {
        &self.head
    }

    /// Returns the group.
    pub fn group(&self) -> Group<'_> {
        self.group
    }

    /// Returns the least bytes of scratch memory with which a device makes the image
    /// ([`Device::make_linear`](crate::cuda::Device::make_linear)): room for 16 rows.
    pub fn scratch_bytes(&self) -> u64 {
        self.head.tensors().iter().map(|tensor| 2 * TILE_ROWS * tensor.columns).max().unwrap_or(0)
    }

    /// Returns the starts of a tensor's tiles.
    pub(in crate::cuda) fn starts(&self, tensor: usize) -> &[u32] {
        let offsets = offsets(&self.head);
        &self.starts[offsets[tensor]..offsets[tensor + 1]]
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

    /// As [`LinearPlan::write_image`], into memory that need not be initialised.
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
        let needed = self.head.image_bytes();
        if dst_bytes < needed {
            return Err(Error::BufferTooSmall { what: "the destination".into(), needed, given: dst_bytes });
        }
        // SAFETY: as the caller promises.
        let target = unsafe { Target::new(dst, needed) };
        let result = self.write(&target, threads, progress);
        let head = match &result {
            Ok(()) => &self.head.bytes()[..],
            Err(_) => &[0; HEADER_BYTES],
        };
        target.put(0, head);
        result
    }

    /// Writes everything but the head.
    fn write(&self, target: &Target, threads: usize, progress: &Progress) -> Result<()> {
        let shapes: Vec<_> = self.head.tensors().iter().map(|tensor| (tensor.rows, tensor.columns)).collect();
        for (i, tensor) in self.head.tensors().iter().enumerate() {
            for (start, at) in self.starts(i).iter().zip((tensor.starts..).step_by(4)) {
                target.put(at, &start.to_le_bytes());
            }
            target.zero(tensor.starts + 4 * (tensor.tile_count() + 1), tensor.escapes);
            let end = self.head.tensors().get(i + 1).map_or(self.head.image_bytes(), |next| next.tiles);
            target.zero(tensor.escapes + 4 * tensor.escape_count as u64, end);
        }
        progress.begin(2 * self.head.weights());
        self.group.pieces(&pieces(&shapes)?, threads, |piece, weights| {
            progress.check()?;
            let tensor = &self.head.tensors()[piece.tensor];
            let (lut, first) = (lut(&tensor.table), piece.first_tile(tensor));
            let starts = &self.starts(piece.tensor)[first as usize..];
            let (mut tile, mut list) = ([0; TILE_BYTES as usize], Vec::new());
            piece.each_tile(weights, |i, rows| {
                list.clear();
                pack(rows, &lut, &mut tile, &mut list)?;
                if list.len() as u64 != 4 * (starts[i + 1] - starts[i]) as u64 {
                    return Err(changed(self.group));
                }
                target.put_all(tensor.tiles + TILE_BYTES * (first + i as u64), &tile);
                target.put(tensor.escapes + 4 * starts[i] as u64, &list);
                Ok(())
            })?;
            fence();
            progress.advance(2 * weights.len() as u64);
            Ok(())
        })?;
        progress.finish();
        Ok(())
    }
}

/// Returns the number of starts before each tensor's, and of all.
fn offsets(head: &LinearHead) -> Vec<usize> {
    let mut offsets = vec![0];
    for tensor in head.tensors() {
        offsets.push(offsets[offsets.len() - 1] + tensor.tile_count() as usize + 1);
    }
    offsets
}

/// Returns the pair of exponents to which a weight's belongs.
fn pair(weight: u16) -> usize {
    (weight >> 8 & 127) as usize
}

/// Returns the table of a tensor: the seven most frequent pairs but 0, rising.
fn table_of(counts: &[u64; 128]) -> [u8; 8] {
    let mut pairs: Vec<u8> = (1..128).filter(|&pair| counts[pair as usize] > 0).collect();
    // A stable sort: of pairs that are equally frequent the smaller one comes first.
    pairs.sort_by_key(|&pair| std::cmp::Reverse(counts[pair as usize]));
    pairs.truncate(7);
    pairs.sort_unstable();
    std::array::from_fn(|i| pairs.get(i).copied().unwrap_or(0))
}

/// Returns the code of each pair.
fn lut(table: &[u8; 8]) -> [u8; 128] {
    let mut codes = [ESCAPE; 128];
    for (code, &pair) in table.iter().enumerate() {
        // The last entry of a value is its code: that of 0 is 7.
        codes[pair as usize] = code as u8;
    }
    codes
}

/// Makes a tile of up to 16 rows of up to 64 weights. Adds the bytes of its escapes to `list`.
fn pack(
    rows: &mut dyn Iterator<Item = &[u16]>,
    lut: &[u8; 128],
    tile: &mut [u8; TILE_BYTES as usize],
    list: &mut Vec<u8>,
) -> Result<()> {
    // Padding: code 7.
    tile[..1024].fill(0);
    tile[1024..].fill(0x77);
    for (row, weights) in rows.enumerate() {
        let (low, codes) = tile.split_at_mut(1024);
        let low = &mut low[64 * row..][..64];
        for (unit, eight) in weights.chunks(8).enumerate() {
            let mut word = 0x7777_7777u32;
            for (i, &weight) in eight.iter().enumerate() {
                let code = lut[pair(weight)];
                if code == ESCAPE {
                    let place = (TILE_COLUMNS as usize * row + 8 * unit + i) as u32;
                    grow_by(list, 4)?;
                    list.extend_from_slice(&(place << 16 | weight as u32).to_le_bytes());
                    continue;
                }
                low[8 * unit + i] = weight as u8;
                let sign = if i < 4 { 8 * i + 7 } else { 8 * (i - 4) + 3 };
                word = word & !(7 << (4 * i)) | (code as u32) << (4 * i) | (weight as u32 >> 15) << sign;
            }
            let (lane, half) = (row % 8 * 4 + unit / 2, row / 8 * 2 + unit % 2);
            codes[16 * lane + 4 * half..][..4].copy_from_slice(&word.to_le_bytes());
        }
    }
    Ok(())
}

/// Makes room in a list.
fn grow_by(list: &mut Vec<u8>, bytes: usize) -> Result<()> {
    list.try_reserve(bytes).map_err(|_| Error::OutOfMemory { bytes: bytes as u64, what: COUNTS })
}

/// Cuts tensors into pieces.
fn pieces(shapes: &[(u64, u64)]) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for (tensor, &(rows, stride)) in shapes.iter().enumerate() {
        // Whole rows of tiles, if they are not too long.
        let (tall, wide) = match stride <= MOST_COLUMNS {
            true => (PIECE.div_ceil(stride.max(1)).next_multiple_of(TILE_ROWS), stride.max(1)),
            false => (TILE_ROWS, MOST_COLUMNS),
        };
        for row in (0..rows).step_by(tall as usize) {
            for column in (0..stride).step_by(wide as usize) {
                let (rows, columns) = (row..rows.min(row + tall), column..stride.min(column + wide));
                let bytes = (size_of::<Piece>() * (pieces.len() + 1)) as u64;
                pieces.try_reserve(1).map_err(|_| Error::OutOfMemory { bytes, what: COUNTS })?;
                pieces.push(Piece { tensor, rows, columns, stride });
            }
        }
    }
    Ok(pieces)
}

impl Piece {
    /// Returns the columns.
    fn width(&self) -> usize {
        (self.columns.end - self.columns.start) as usize
    }

    /// Returns the number of tiles.
    fn tile_count(&self) -> usize {
        ((self.rows.end - self.rows.start).div_ceil(TILE_ROWS)) as usize * self.width().div_ceil(TILE_COLUMNS as usize)
    }

    /// Returns the number of its first tile. The others follow.
    fn first_tile(&self, tensor: &LinearTensor) -> u64 {
        self.rows.start / TILE_ROWS * tensor.ktiles as u64 + self.columns.start / TILE_COLUMNS
    }

    /// Decodes the weights, one row after the other. The last row of a tensor that is no matrix may be shorter.
    fn decode<'b>(&self, group: Group, buffer: &'b mut Vec<u16>) -> Result<&'b [u16]> {
        let run = group.runs().nth(self.tensor).ok_or_else(|| Error::Internal("a piece of no tensor".into()))?;
        let from = self.rows.start * self.stride + self.columns.start;
        let rows = self.rows.end - self.rows.start;
        let count = (rows * self.width() as u64).min(run.element_count() - from) as usize;
        grow(buffer, count, 0, "a piece of a group")?;
        let decode = |from: u64, to: &mut [u16]| {
            let first = run.group_offset() + from;
            // SAFETY: the list can be written, and is aligned.
            unsafe { group.decompress_raw(first, to.len() as u64, to.as_mut_ptr(), &DecodeOptions::new()) }
        };
        let weights = &mut buffer[..count];
        if self.width() as u64 == self.stride {
            decode(from, weights)?;
        } else {
            for (row, to) in weights.chunks_mut(self.width()).enumerate() {
                decode(from + row as u64 * self.stride, to)?;
            }
        }
        Ok(weights)
    }

    /// Calls `work` for each tile, with its number and those of its rows that have weights.
    fn each_tile(
        &self,
        weights: &[u16],
        mut work: impl FnMut(usize, &mut dyn Iterator<Item = &[u16]>) -> Result<()>,
    ) -> Result<()> {
        let (width, mut number) = (self.width(), 0);
        for tall in weights.chunks(TILE_ROWS as usize * width) {
            for column in (0..width).step_by(TILE_COLUMNS as usize) {
                let row = |row: &'_ [u16]| column.min(row.len())..(column + TILE_COLUMNS as usize).min(row.len());
                work(number, &mut tall.chunks(width).map(|weights| &weights[row(weights)]))?;
                number += 1;
            }
        }
        Ok(())
    }
}

/// The error of weights that are not those that were counted.
fn changed(group: Group) -> Error {
    let place = group.place(Member::EncodedExponent, 0);
    Error::corrupt(place, "the codes have changed since the model was opened")
}

/// Returns the rows and columns of each tensor, those given or by [`shape_of`].
fn check(group: Group, given: &[(u64, u64)]) -> Result<Vec<(u64, u64)>> {
    let tensors = group.runs().len();
    let invalid = |reason| Err(Error::InvalidArgument(reason));
    if !given.is_empty() && given.len() != tensors {
        let (name, count) = (shorten(group.name(), 80), given.len());
        return invalid(format!("{count} shapes for group '{name}' of {tensors} tensors"));
    }
    let mut shapes = Vec::with_capacity(tensors);
    for (i, run) in group.runs().enumerate() {
        let shape @ (rows, columns) = given.get(i).copied().unwrap_or((0, 0));
        if shape == (0, 0) {
            shapes.push(shape_of(run));
            continue;
        }
        if rows.checked_mul(columns) != Some(run.element_count()) || rows == 0 {
            let (name, count) = (shorten(run.tensor().name(), 80), run.element_count());
            return invalid(format!("tensor {i}, '{name}', has {count} weights: it is not {rows} x {columns}"));
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

/// Returns the rows and columns of a run of a tensor.
fn shape_of(run: Run) -> (u64, u64) {
    let (tensor, weights) = (run.tensor(), run.element_count());
    let columns = match tensor.shape() {
        [_, .., columns] if tensor.shape_known() && weights > 0 => *columns,
        _ => return flat(weights),
    };
    // A run of a tensor without weights has none; a run of rows that are not whole is no matrix.
    if columns == 0 || !weights.is_multiple_of(columns) || !run.tensor_offset().is_multiple_of(columns) {
        return flat(weights);
    }
    let rows = weights / columns;
    // Fewer than 2^32 weights take fewer than 2^39.
    let padded = rows.next_multiple_of(TILE_ROWS) * columns.next_multiple_of(TILE_COLUMNS);
    if padded - weights <= weights.max(PADDING) { (rows, columns) } else { flat(weights) }
}

#[cfg(test)]
mod tests {
    use super::super::oracle;
    use super::*;

    /// All 65,536 values, among them infinities and NaN, in tiles whose table is theirs.
    #[test]
    fn every_value_is_packed_and_comes_back() {
        let every: Vec<u16> = (0..=u16::MAX).map(|weight| weight.wrapping_mul(40_503)).collect();
        for table in [[1, 2, 3, 4, 5, 6, 7, 0], [3, 60, 61, 62, 126, 127, 0, 0], [0; 8]] {
            let lut = lut(&table);
            let escapes = every.iter().filter(|&&weight| lut[pair(weight)] == ESCAPE).count() as u64;
            let counted = Counted { weights: 1 << 16, rows: 64, columns: 1024, escapes, table };
            let head = LinearHead::new([counted].into_iter()).unwrap();
            let (mut image, tensor) = (vec![0; head.image_bytes() as usize], head.tensors()[0]);
            image[..head.head_bytes() as usize].copy_from_slice(&head.bytes());
            let piece = Piece { tensor: 0, rows: 0..64, columns: 0..1024, stride: 1024 };
            let (mut list, mut tile) = (Vec::new(), [0; TILE_BYTES as usize]);
            piece
                .each_tile(&every, |i, rows| {
                    pack(rows, &lut, &mut tile, &mut list)?;
                    image[tensor.tiles as usize + i * tile.len()..][..tile.len()].copy_from_slice(&tile);
                    let next = (list.len() / 4) as u32;
                    image[tensor.starts as usize + 4 * i + 4..][..4].copy_from_slice(&next.to_le_bytes());
                    Ok(())
                })
                .unwrap();
            image[tensor.escapes as usize..][..list.len()].copy_from_slice(&list);
            let decoded = oracle::decode(&image, 0, 1 << 16).unwrap();
            assert!(decoded.good && decoded.weights == every, "{table:?}");
        }
    }

    #[test]
    fn long_rows_are_cut_into_columns() {
        let pieces = pieces(&[(33, 200_000), (0, 0), (5000, 64)]).unwrap();
        let weights = |pieces: &[Piece]| pieces.iter().map(|p| (p.rows.end - p.rows.start) * p.width() as u64).sum();
        let [long, flat] = [0, 2].map(|i| pieces.iter().filter(|p| p.tensor == i).cloned().collect::<Vec<_>>());
        assert_eq!((long.len(), weights(&long)), (3 * 4, 33 * 200_000));
        assert_eq!((flat.len(), weights(&flat)), (2, 5000 * 64));
        let most: u64 = pieces.iter().map(|piece| weights(std::slice::from_ref(piece))).max().unwrap();
        assert!(most <= TILE_ROWS * MOST_COLUMNS);
        let tensor = LinearTensor { ktiles: 3125, ..LinearTensor::default() };
        assert_eq!(long.iter().map(|p| p.first_tile(&tensor)).take(5).collect::<Vec<_>>(), [0, 1024, 2048, 3072, 3125]);
    }
}
