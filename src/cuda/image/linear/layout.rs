//! The head of a linear image: sizes, and a record for each tensor. Everything follows from the tensors' shapes, tables
//! and numbers of escapes.
//!
//! # The header
//!
//! ```text
//!   0  magic "DF11LIN\0"        24 u64 weights            48 u32 rows of a tile      72 zeros
//!   8  u32 version, 1           32 u64 escapes            52 u32 columns of a tile  240 u64 checksum
//!  12  u32 head bytes           40 u32 tensors            56 u64 offset of records  248 u32 state
//!  16  u64 image bytes          44 u32 bytes of a tile    64 u64 tiles              252 u32 zero
//! ```
//!
//! # A record
//!
//! ```text
//!   0  u64 first weight         24 u64 offset of tiles    48 u32 escapes
//!   8  u64 rows                 32 u64 offset of starts   52 u32 tiles side by side
//!  16  u64 columns              40 u64 offset of escapes  56 u8[8] table
//! ```
//!
//! Checksum and state are those of other images: see [`Head`](super::super::Head).

use super::super::layout::checksum;
use super::super::{ALIGNMENT, HEADER_BYTES};
use super::*;
use crate::error::{Error, Place, Result};
use crate::format::MOST_TENSORS;
use std::ops::Range;

/// A tensor of a linear image. Offsets are from the image's first byte. In the image the fields are in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[non_exhaustive]
pub struct LinearTensor {
    /// The number of the group's weights before it.
    pub first: u64,
    /// Rows of the matrix; 0 for a tensor without weights.
    pub rows: u64,
    /// Columns of the matrix: 64 if the shape is not known, and then the last row may have fewer.
    pub columns: u64,
    /// The offset of its tiles.
    pub tiles: u64,
    /// The offset of the tiles' starts: a `u32` for each tile and one more, the escapes before it.
    pub starts: u64,
    /// The offset of its escapes.
    pub escapes: u64,
    /// The number of its escapes.
    pub escape_count: u32,
    /// Tiles side by side: those of 16 rows.
    pub ktiles: u32,
    /// The upper seven bits of the exponents that codes stand for.
    pub table: [u8; 8],
}

const _: () = assert!(size_of::<LinearTensor>() == RECORD_BYTES as usize);

impl LinearTensor {
    /// Returns the number of its tiles.
    pub fn tile_count(&self) -> u64 {
        self.rows.div_ceil(TILE_ROWS) * self.ktiles as u64
    }

    /// Returns its record.
    fn to_bytes(self) -> [u8; RECORD_BYTES as usize] {
        let mut bytes = [0; RECORD_BYTES as usize];
        let LinearTensor { first, rows, columns, tiles, starts, escapes, escape_count, ktiles, table } = self;
        for (to, value) in bytes.as_chunks_mut().0.iter_mut().zip([first, rows, columns, tiles, starts, escapes]) {
            *to = value.to_le_bytes();
        }
        bytes[48..52].copy_from_slice(&escape_count.to_le_bytes());
        bytes[52..56].copy_from_slice(&ktiles.to_le_bytes());
        bytes[56..].copy_from_slice(&table);
        bytes
    }
}

/// What the place of a tensor follows from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub weights: u64,
    pub rows: u64,
    pub columns: u64,
    pub escapes: u64,
    pub table: [u8; 8],
}

/// Returns the rows and columns of a tensor whose shape is not known, or is not that of a matrix.
pub(super) fn flat(weights: u64) -> (u64, u64) {
    if weights == 0 { (0, 0) } else { (weights.div_ceil(TILE_COLUMNS), TILE_COLUMNS) }
}

/// The head of a linear image: all that is needed to use it on a device, without the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearHead {
    weights: u64,
    tensors: Vec<LinearTensor>,
    ends: Vec<u64>,
    image_bytes: u64,
}

impl LinearHead {
    /// Makes the head of an image of such tensors; `None` if no group has them.
    pub(super) fn new(counted: impl ExactSizeIterator<Item = Counted>) -> Option<LinearHead> {
        if !(1..=MOST_TENSORS as usize).contains(&counted.len()) {
            return None;
        }
        let up = |bytes: u64| bytes.checked_next_multiple_of(ALIGNMENT);
        let mut at = up(HEADER_BYTES as u64 + RECORD_BYTES * counted.len() as u64)?;
        let (mut tensors, mut ends) = (Vec::with_capacity(counted.len()), Vec::with_capacity(counted.len()));
        let mut first = 0u64;
        for Counted { weights, rows, columns, escapes, table } in counted {
            let end = first.checked_add(weights).filter(|&end| end <= u32::MAX as u64)?;
            let is_matrix = weights > 0 && rows.checked_mul(columns) == Some(weights);
            let is_table = table.iter().all(|&pair| pair < 128) && table[7] == 0 && {
                let used = table.iter().position(|&pair| pair == 0).unwrap_or(0);
                table[..used].is_sorted_by(|a, b| a < b) && table[used..].iter().all(|&pair| pair == 0)
            };
            if !(is_matrix || (rows, columns) == flat(weights)) || !is_table || escapes > weights {
                return None;
            }
            // Less than 2^32 weights have at most 2^26 tiles of full columns, and each row of tiles one more.
            let ktiles = columns.div_ceil(TILE_COLUMNS);
            let count = rows.div_ceil(TILE_ROWS) * ktiles;
            let (tiles, starts) = (at, at.checked_add(TILE_BYTES * count)?);
            let escapes_at = up(starts.checked_add(4 * (count + 1))?)?;
            at = up(escapes_at.checked_add(4 * escapes)?)?;
            tensors.push(LinearTensor {
                first,
                rows,
                columns,
                tiles,
                starts,
                escapes: escapes_at,
                escape_count: escapes as u32,
                ktiles: ktiles as u32,
                table,
            });
            ends.push(end);
            first = end;
        }
        Some(LinearHead { weights: first, tensors, ends, image_bytes: at })
    }

    /// Reads a head from an image's first bytes, which must hold at least the whole head. They are treated as untrusted
    /// input: every number must follow from the few that are free.
    ///
    /// The state word is not checked.
    ///
    /// # Errors
    ///
    /// `InvalidFormat` if the bytes are not the beginning of a linear image, `UnsupportedFormat` for another version,
    /// `Corrupt` for a head that contradicts itself or its checksum.
    pub fn parse(bytes: &[u8]) -> Result<LinearHead> {
        let nowhere = Place::default;
        let corrupt =
            |reason: &str| Error::corrupt(nowhere(), format!("the head of the linear image is damaged: {reason}"));
        let short = |has: u64| {
            let given = bytes.len();
            corrupt(&format!("it is cut short: {given} bytes are given, and it has {has} or more"))
        };
        if !bytes.starts_with(&LINEAR_MAGIC) {
            return Err(Error::invalid(nowhere(), "not a linear image: it does not begin with DF11LIN"));
        }
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| short(HEADER_BYTES as u64))?;
        let version = u32_at(header, 8);
        if version != LINEAR_VERSION {
            let reason = format!("a linear image of version {version}: this library knows version {LINEAR_VERSION}");
            return Err(Error::unsupported(nowhere(), reason));
        }
        let (head_bytes, count) = (u32_at(header, 12) as u64, u32_at(header, 40) as u64);
        if count > MOST_TENSORS
            || head_bytes != (HEADER_BYTES as u64 + RECORD_BYTES * count).next_multiple_of(ALIGNMENT)
        {
            return Err(corrupt("no group has these sizes"));
        }
        let head = bytes.get(..head_bytes as usize).ok_or_else(|| short(head_bytes))?;
        if u64_at(header, 240) != checksum(head) {
            return Err(corrupt("its checksum differs"));
        }
        let records: &[[u8; RECORD_BYTES as usize]] = head[HEADER_BYTES..].as_chunks().0;
        let records = &records[..count as usize];
        let end = u64_at(header, 24);
        let firsts = records.iter().skip(1).map(|record| u64_at(record, 0)).chain([end]);
        let counted = records.iter().zip(firsts.collect::<Vec<_>>()).map(|(record, end)| Counted {
            // A number that is too large is refused.
            weights: end.checked_sub(u64_at(record, 0)).unwrap_or(u64::MAX),
            rows: u64_at(record, 8),
            columns: u64_at(record, 16),
            escapes: u32_at(record, 48) as u64,
            table: std::array::from_fn(|i| record[56 + i]),
        });
        let read = LinearHead::new(counted).ok_or_else(|| corrupt("no group has these sizes"))?;
        // One comparison for magic, version, constants, offsets and everything that must be zero.
        let mut want = read.bytes();
        want[STATE].copy_from_slice(&header[STATE]);
        if want != head {
            return Err(corrupt("its offsets do not follow from its sizes"));
        }
        Ok(read)
    }

    /// Returns the number of weights.
    pub fn weights(&self) -> u64 {
        self.weights
    }

    /// Returns the tensors.
    pub fn tensors(&self) -> &[LinearTensor] {
        &self.tensors
    }

    /// Returns the number of weights before the end of each tensor; the last is the number of all.
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// Returns the number of escapes.
    pub fn escapes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.escape_count as u64).sum()
    }

    /// Returns the bytes of the whole image.
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Returns the bytes of the head: the first of the image.
    pub fn head_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + RECORD_BYTES * self.tensors.len() as u64).next_multiple_of(ALIGNMENT)
    }

    /// Returns the head's bytes, [`LinearHead::head_bytes`] of them: the first of the image.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = vec![0; self.head_bytes() as usize];
        head[..8].copy_from_slice(&LINEAR_MAGIC);
        for (at, value) in [
            (8, LINEAR_VERSION),
            (12, self.head_bytes() as u32),
            (40, self.tensors.len() as u32),
            (44, TILE_BYTES as u32),
            (48, TILE_ROWS as u32),
            (52, TILE_COLUMNS as u32),
        ] {
            head[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let tiles = self.tensors.iter().map(LinearTensor::tile_count).sum();
        for (at, value) in
            [(16, self.image_bytes), (24, self.weights), (32, self.escapes()), (56, HEADER_BYTES as u64), (64, tiles)]
        {
            head[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (to, tensor) in head[HEADER_BYTES..].as_chunks_mut().0.iter_mut().zip(&self.tensors) {
            *to = tensor.to_bytes();
        }
        let sum = checksum(&head);
        head[240..248].copy_from_slice(&sum.to_le_bytes());
        head
    }
}

/// The state word.
const STATE: Range<usize> = 248..252;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT: Counted = Counted { weights: 65, rows: 2, columns: 64, escapes: 3, table: [60, 61, 0, 0, 0, 0, 0, 0] };

    #[test]
    fn sections_follow_one_another_and_impossible_tensors_have_no_head() {
        let matrix = Counted { weights: 17 * 65, rows: 17, columns: 65, ..FLAT };
        let empty = Counted { weights: 0, rows: 0, columns: 0, escapes: 0, table: [0; 8] };
        let head = LinearHead::new([FLAT, empty, matrix].into_iter()).unwrap();
        let [a, none, b] = head.tensors() else { panic!("three tensors") };
        assert_eq!((a.tiles, a.tile_count(), a.starts, a.escapes), (512, 1, 512 + 1536, 512 + 1536 + 256));
        assert_eq!((none.tiles, none.tile_count(), none.first), (a.escapes + 256, 0, 65));
        assert_eq!((b.tile_count(), b.ktiles, b.first), (4, 2, 65));
        assert_eq!(head.image_bytes(), b.escapes + 256);
        assert_eq!(LinearHead::parse(&head.bytes()).unwrap(), head);
        for wrong in [
            Counted { rows: 3, ..FLAT },
            Counted { columns: 63, ..FLAT },
            Counted { escapes: 66, ..FLAT },
            Counted { weights: 1 << 32, rows: 1 << 16, columns: 1 << 16, ..FLAT },
            Counted { rows: u64::MAX, columns: u64::MAX, ..FLAT },
            Counted { table: [61, 60, 0, 0, 0, 0, 0, 0], ..FLAT },
            Counted { table: [60, 0, 61, 0, 0, 0, 0, 0], ..FLAT },
            Counted { table: [60, 60, 0, 0, 0, 0, 0, 0], ..FLAT },
            Counted { table: [1, 2, 3, 4, 5, 6, 7, 8], ..FLAT },
            Counted { table: [128, 0, 0, 0, 0, 0, 0, 0], ..FLAT },
        ] {
            assert_eq!(LinearHead::new([wrong].into_iter()), None, "{wrong:?}");
        }
        assert_eq!(LinearHead::new([FLAT; 0].into_iter()), None);
        assert_eq!(LinearHead::new([FLAT; 1025].into_iter()), None);
        let most = LinearHead::new([FLAT; 1024].into_iter()).unwrap();
        assert_eq!(most.head_bytes(), MOST_LINEAR_HEAD_BYTES);
        // The shapes that are padded most: one column, and one row.
        for (rows, columns) in [(u32::MAX as u64, 1), (1, u32::MAX as u64)] {
            let padded = Counted { weights: u32::MAX as u64, rows, columns, ..FLAT };
            assert!(LinearHead::new([padded].into_iter()).unwrap().image_bytes() < 1 << 40);
        }
    }
}
