//! A group put together from stretches that are encoded in any order, by any number of threads, to memory or to files.
//!
//! A *histogram* of each stretch comes first. From their sum an [`Outline`] tells the code, the size of every member and the bit at
//! which each stretch begins; then stretches are encoded independently ([`Outline::encode`]), and what they share with
//! their neighbours, a byte of codes and one of gaps at either end, comes back as a [`Piece`]. [`Outline::finish`] joins
//! the pieces. The bytes do not depend on how a group was cut.

use crate::error::{Error, Result, grow};
use crate::format::Member;
use crate::huffman::codebook::{Codebook, Limit};
use crate::huffman::encode::{Encoder, Stretch, Variant};
use crate::huffman::{BLOCK_BITS, BLOCK_BYTES, CHUNK_BYTES, GAP_BYTES_PER_BLOCK, rows};
use once_cell::sync::OnceCell;

/// Weights of a stretch at most: they, their sign/mantissa bytes and their codes fit a second-level cache.
pub(crate) const STRETCH: usize = 1 << 18;
const CHUNK_BITS: u64 = CHUNK_BYTES as u64 * 8;

/// The destination of a group's members.
pub(crate) trait Sink: Sync {
    /// Writes bytes of a member, from its byte `offset` on. Each byte is written once, by any thread.
    fn write(&self, member: Member, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Returns the address to which the sign/mantissa bytes of `count` weights from `first` on can be written directly, if
    /// there is one: valid for writing `count` bytes as long as the sink lives.
    fn signs(&self, _first: u64, _count: usize) -> Option<*mut u8> {
        None
    }
}

/// Counts of exponents.
pub(crate) type Histogram = [u64; 256];

/// The code, the sizes and the layout of a group, known before a weight is encoded.
pub(crate) struct Outline {
    /// Made at its first use: its tables are large, and many groups may be outlined before the first is encoded.
    encoder: OnceCell<Encoder>,
    histogram: Box<Histogram>,
    variant: Variant,
    book: Codebook,
    luts: Vec<u8>,
    /// The elements before each tensor but the first.
    splits: Vec<u64>,
    weights: u64,
    /// Bits of all codes, without the end of data's.
    bits: u64,
    /// The bit at which the last weight's code starts.
    last_start: u64,
}

/// A thread's memory.
#[derive(Default)]
pub(crate) struct Scratch {
    stretch: Stretch,
    signs: Vec<u8>,
    gaps: Vec<u8>,
}

/// The parts of a stretch that are joined with those of its neighbours.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Bytes of codes and of gaps that neighbours may have bits of, with their places.
    code: Vec<(u64, u8)>,
    gaps: Vec<(u64, u8)>,
    /// The first block whose first weight it knows, and the first weights of that and the next ones.
    first_block: u64,
    positions: Vec<u32>,
}

impl Outline {
    /// Makes the outline. `counts` holds the elements of each tensor, `last_exponent` is that of the last weight. Returns
    /// `None` if an exponent of 240 or more occurs, or if there is no weight at all.
    pub fn new(counts: &[u64], histogram: &Histogram, last_exponent: u8, variant: Variant) -> Option<Outline> {
        let book = Codebook::new(histogram)?;
        let bits = book.bits(histogram)?;
        let last = book.word(last_exponent).len as u64;
        let mut splits: Vec<u64> = Vec::with_capacity(counts.len());
        let mut sum = 0;
        for count in counts {
            sum += count;
            splits.push(sum);
        }
        splits.pop();
        Some(Outline {
            encoder: OnceCell::new(),
            histogram: Box::new(*histogram),
            variant,
            luts: rows::write(book.words()),
            splits,
            weights: sum,
            bits,
            last_start: bits - last,
            book,
        })
    }

    /// Returns the bits that the codes of a stretch take; `None` if a weight has no code.
    pub fn bits_of(&self, histogram: &Histogram) -> Option<u64> {
        self.book.bits(histogram)
    }

    /// Returns the reason why the code is not simply Huffman's, if it is not.
    pub fn limited(&self) -> Option<Limit> {
        self.book.limited()
    }

    fn code_bytes(&self) -> u64 {
        self.bits.div_ceil(8)
    }

    /// Returns the number of blocks in which a code starts, the end of data's among them: it is there only if it has bits to fill.
    fn blocks(&self) -> u64 {
        let last = if self.bits.is_multiple_of(8) { self.last_start } else { self.bits };
        last / BLOCK_BITS as u64 + 1
    }

    /// Returns the bytes of a member.
    pub fn bytes(&self, member: Member) -> u64 {
        match member {
            Member::Luts => self.luts.len() as u64,
            Member::EncodedExponent => self.code_bytes(),
            Member::SignMantissa => self.weights,
            Member::OutputPositions => 4 * (self.blocks() + 1),
            Member::Gaps => self.code_bytes().div_ceil(BLOCK_BYTES as u64) * GAP_BYTES_PER_BLOCK as u64,
            Member::SplitPositions => 8 * self.splits.len() as u64,
        }
    }

    /// Encodes the weights from `first` on, whose codes begin at `start_bit` and end at `end_bit`. At most [`STRETCH`].
    ///
    /// # Errors
    ///
    /// The sink's; `InvalidArgument` if these are not the weights that were counted; `OutOfMemory`.
    pub fn encode(
        &self,
        weights: &[u16],
        first: u64,
        bits: (u64, u64),
        sink: &dyn Sink,
        scratch: &mut Scratch,
    ) -> Result<Piece> {
        let changed = || Error::InvalidArgument("the weights have changed while they were being compressed".into());
        let (start_bit, end_bit) = bits;
        let Scratch { stretch, signs, gaps } = scratch;
        let encoder = self.encoder.get_or_try_init(|| Encoder::new(&self.book, &self.histogram, self.variant))?;
        stretch.reserve(weights.len())?;
        match sink.signs(first, weights.len()) {
            Some(direct) => {
                // SAFETY: the sink says that they can be written, and stretches do not overlap.
                let encoded = unsafe { encoder.stretch_raw(weights, start_bit, direct, stretch, true) };
                encoded.map_err(|_| changed())?;
            }
            None => {
                grow(signs, weights.len(), 0, "the signs of a stretch")?;
                let signs = &mut signs[..weights.len()];
                encoder.stretch(weights, start_bit, signs, stretch).map_err(|_| changed())?;
                sink.write(Member::SignMantissa, first, signs)?;
            }
        }
        if stretch.end_bit() != end_bit || end_bit > self.bits {
            return Err(changed());
        }
        let mut piece = Piece::default();
        let (at, code) = stretch.code();
        let shared = (!start_bit.is_multiple_of(8), !end_bit.is_multiple_of(8));
        write_between(Member::EncodedExponent, at, code, shared, sink, &mut piece.code)?;

        let (chunk, mut known) = stretch.gaps();
        if end_bit == self.bits && self.bits.is_multiple_of(8) && self.last_start < self.bits / CHUNK_BITS * CHUNK_BITS
        {
            // No code starts in the last chunk that the codes reach, not even the end of data's.
            known = &known[..known.len() - 1];
        }
        let (at, shared) = pack_gaps(chunk, known, gaps);
        write_between(Member::Gaps, at, gaps, shared, sink, &mut piece.gaps)?;

        piece.first_block = start_bit / BLOCK_BITS as u64 + 1;
        piece.positions.extend(stretch.positions().iter().map(|&p| (first + p as u64) as u32));
        Ok(piece)
    }

    /// Joins all pieces, and writes what is not in any: tables, positions, splits, the end of data.
    pub fn finish(&self, pieces: &[Piece], sink: &dyn Sink) -> Result<()> {
        sink.write(Member::Luts, 0, &self.luts)?;
        let splits: Vec<u8> = self.splits.iter().flat_map(|s| s.to_le_bytes()).collect();
        sink.write(Member::SplitPositions, 0, &splits)?;

        let mut positions = Vec::new();
        grow(&mut positions, self.blocks() as usize + 1, 0u32, "the positions of a group")?;
        for piece in pieces {
            for (block, &first) in (piece.first_block as usize..).zip(&piece.positions) {
                // A border on which the codes end has a block after it only if the end of data starts there.
                if let Some(position) = positions.get_mut(block) {
                    *position = first;
                }
            }
        }
        if let Some(last) = positions.last_mut() {
            *last = self.weights as u32;
        }
        let positions: Vec<u8> = positions.iter().flat_map(|p| p.to_le_bytes()).collect();
        sink.write(Member::OutputPositions, 0, &positions)?;

        let mut code: Vec<(u64, u8)> = pieces.iter().flat_map(|p| &p.code).copied().collect();
        let open = self.bits % 8;
        if open > 0 {
            // The end of data fills the last byte, and what it leaves is 0.
            code.push((self.bits / 8, ((self.book.end().bits >> 24) as u8) >> open));
        }
        write_joined(Member::EncodedExponent, code, sink)?;

        // The first chunk's gap is 0, and so are those after the last code.
        let mut gaps: Vec<(u64, u8)> = pieces.iter().flat_map(|p| &p.gaps).copied().collect();
        let all = self.bytes(Member::Gaps);
        let ends = !self.bits.is_multiple_of(8) || self.last_start >= self.bits / CHUNK_BITS * CHUNK_BITS;
        let chunks = self.bits / CHUNK_BITS + u64::from(ends);
        gaps.push((0, 0));
        write_joined(Member::Gaps, gaps, sink)?;
        let written = (5 * chunks.max(1)).div_ceil(8);
        sink.write(Member::Gaps, written, &vec![0; (all - written) as usize])
    }
}

/// Writes the bytes that belong to this stretch alone, and notes the first and the last where they are shared.
fn write_between(
    member: Member,
    at: u64,
    bytes: &[u8],
    shared: (bool, bool),
    sink: &dyn Sink,
    edges: &mut Vec<(u64, u8)>,
) -> Result<()> {
    let (mut at, mut bytes) = (at, bytes);
    if let (true, Some((&first, rest))) = (shared.0, bytes.split_first()) {
        edges.push((at, first));
        (at, bytes) = (at + 1, rest);
    }
    if let (true, Some((&last, rest))) = (shared.1, bytes.split_last()) {
        edges.push((at + rest.len() as u64, last));
        bytes = rest;
    }
    if bytes.is_empty() { Ok(()) } else { sink.write(member, at, bytes) }
}

/// Writes the bytes that stretches share.
fn write_joined(member: Member, mut edges: Vec<(u64, u8)>, sink: &dyn Sink) -> Result<()> {
    edges.sort_unstable();
    for same in edges.chunk_by(|a, b| a.0 == b.0) {
        let byte = same.iter().fold(0, |byte, (_, bits)| byte | bits);
        sink.write(member, same[0].0, &[byte])?;
    }
    Ok(())
}

/// Packs gaps of 5 bits, first bit on top, from the chunk `first` on. Returns the byte in which they begin, and whether the
/// first and the last byte are shared with other chunks.
fn pack_gaps(first: u64, gaps: &[u8], out: &mut Vec<u8>) -> (u64, (bool, bool)) {
    out.clear();
    let from = 5 * first;
    let to = from + 5 * gaps.len() as u64;
    // Eight chunks are five bytes. The first few, up to a multiple of eight, then whole eights, then the rest.
    let skip = (first % 8) as usize;
    let head = gaps.len().min((8 - skip) % 8);
    let pack = |gaps: &[u8], before: usize, out: &mut Vec<u8>| {
        let bits = gaps.iter().fold(0u64, |bits, &gap| bits << 5 | gap as u64) << (5 * (8 - before - gaps.len()));
        let (start, end) = (5 * before / 8, (5 * (before + gaps.len())).div_ceil(8));
        out.extend_from_slice(&bits.to_be_bytes()[3 + start..3 + end]);
    };
    if head > 0 {
        pack(&gaps[..head], skip, out);
    }
    let (eights, rest) = gaps[head..].as_chunks::<8>();
    let from_eights = out.len();
    // Eight bytes are stored for each five: the next five go over the other three, and the last three are cut off.
    out.resize(from_eights + 5 * eights.len() + 3, 0);
    for (i, eight) in eights.iter().enumerate() {
        // Fields of 5 bits in 8, then of 10 in 16, of 20 in 32, of 40 in 64.
        let x = u64::from_be_bytes(*eight);
        let x = (x & 0x001f_001f_001f_001f) | (x & 0x1f00_1f00_1f00_1f00) >> 3;
        let x = (x & 0x0000_03ff_0000_03ff) | (x & 0x03ff_0000_03ff_0000) >> 6;
        let x = (x & 0x000f_ffff) | (x & 0x000f_ffff_0000_0000) >> 12;
        let at = from_eights + 5 * i;
        out[at..at + 8].copy_from_slice(&(x << 24).to_be_bytes());
    }
    out.truncate(from_eights + 5 * eights.len());
    if !rest.is_empty() {
        pack(rest, 0, out);
    }
    (from / 8, (!from.is_multiple_of(8), !to.is_multiple_of(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit.
    fn naive(first: u64, gaps: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; (5 * (first as usize + gaps.len())).div_ceil(8)];
        for (i, &gap) in gaps.iter().enumerate() {
            for bit in 0..5 {
                let at = 5 * (first as usize + i) + bit;
                bytes[at / 8] |= (gap >> (4 - bit) & 1) << (7 - at % 8);
            }
        }
        bytes
    }

    #[test]
    fn gaps_are_packed_from_any_chunk_on() {
        let gaps: Vec<u8> = (0..40u32).map(|i| ((i * 7 + 3) % 32) as u8).collect();
        let mut out = Vec::new();
        for first in 0..17 {
            for count in 0..gaps.len() {
                let (at, shared) = pack_gaps(first, &gaps[..count], &mut out);
                let all = naive(first, &gaps[..count]);
                if count > 0 {
                    assert_eq!(out, all[at as usize..], "{first} {count}");
                    let end = 5 * (first as usize + count);
                    assert_eq!(shared, (!(5 * first).is_multiple_of(8), !end.is_multiple_of(8)));
                } else {
                    assert!(out.is_empty());
                }
            }
        }
    }
}
