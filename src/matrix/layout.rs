//! Where the bytes of a matrix are: sizes, the head, and the order of the weights in a row.

use crate::error::{Error, Result};
use std::ops::Range;

/// The alignment of a matrix's first byte: a cache line.
pub const ALIGNMENT: usize = 64;
/// Bytes of the head.
pub const HEAD_BYTES: usize = 128;
/// Columns of a block.
pub const BLOCK: usize = 64;
/// Columns of a unit: two blocks, whose codes share one cache line.
pub const UNIT: usize = 2 * BLOCK;
/// Bytes of a unit: a sign/mantissa byte for each weight, then half a byte each.
pub const UNIT_BYTES: usize = UNIT + UNIT / 2;
/// Bytes of a row's last unit, if it has one block only. A row is whole cache lines.
pub const HALF_UNIT_BYTES: usize = 128;
/// The code of an exponent that is stored in full.
pub const ESCAPE: u8 = 15;
/// Bytes after the last escaped exponent, so that any 64 of them can be loaded at once.
pub const SLACK: usize = 64;

/// A matrix has fewer weights.
const MOST_WEIGHTS: u64 = 1 << 48;

const MAGIC: [u8; 8] = *b"DF11MTRX";
const VERSION: u32 = 1;
const CHECKED_BYTES: usize = HEAD_BYTES - 8;

/// Returns where in its block the byte of a weight is stored. The instructions that join signs, exponents and mantissas to bf16
/// interleave halves of 16 bytes: with this order the weights come out in theirs.
pub const fn place(weight: usize) -> usize {
    weight % 32 / 8 * 16 + weight / 32 * 8 + weight % 8
}

/// Returns the weight of a place: the inverse of [`place`].
pub const fn weight_at(place: usize) -> usize {
    place % 16 / 8 * 32 + place / 16 * 8 + place % 8
}

/// The sizes of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub rows: u64,
    pub columns: u64,
    /// Bytes of one row.
    pub row_bytes: u64,
    /// The first byte of the table of escapes' starts.
    pub starts_at: u64,
    /// The first byte of the escaped exponents.
    pub escapes_at: u64,
}

impl Sizes {
    /// Returns the sizes for a number of rows and columns.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if there are no weights, or 2^48 and more.
    pub fn new(rows: u64, columns: u64) -> Result<Sizes> {
        let invalid = |reason: &str| Err(Error::InvalidArgument(format!("a matrix of {rows} x {columns}: {reason}")));
        match rows.checked_mul(columns) {
            Some(0) => return invalid("there are no weights"),
            // Short rows take up to 128 bytes each: no sum below overflows.
            Some(weights) if weights < MOST_WEIGHTS => {}
            _ => return invalid("2^48 weights and more are too many"),
        }
        let blocks = columns.div_ceil(BLOCK as u64);
        let row_bytes = blocks / 2 * UNIT_BYTES as u64 + blocks % 2 * HALF_UNIT_BYTES as u64;
        let line = ALIGNMENT as u64;
        let starts_at = HEAD_BYTES as u64 + rows * row_bytes;
        let escapes_at = starts_at + ((rows + 1) * 4).next_multiple_of(line);
        Ok(Sizes { rows, columns, row_bytes, starts_at, escapes_at })
    }

    /// Returns the bytes of the whole matrix, with that many escaped exponents.
    pub fn bytes(&self, escapes: u64) -> u64 {
        self.escapes_at + (escapes + SLACK as u64).next_multiple_of(ALIGNMENT as u64)
    }

    /// Returns the bytes of a row.
    pub fn row(&self, row: u64) -> Range<usize> {
        let at = HEAD_BYTES as u64 + row * self.row_bytes;
        at as usize..(at + self.row_bytes) as usize
    }
}

/// What the head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub sizes: Sizes,
    /// The number of escaped exponents.
    pub escapes: u64,
    /// The exponents of the codes 0 to 14. The last byte is 0.
    pub exponents: [u8; 16],
}

impl Head {
    pub fn write(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(HEAD_BYTES as u32).to_le_bytes());
        put(16, &self.sizes.rows.to_le_bytes());
        put(24, &self.sizes.columns.to_le_bytes());
        put(32, &self.escapes.to_le_bytes());
        put(40, &self.sizes.bytes(self.escapes).to_le_bytes());
        put(48, &self.exponents);
        let sum = checksum(&head[..CHECKED_BYTES]);
        head[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
        head
    }

    /// Reads and checks the head of a matrix of at most `bytes` bytes. The error is a sentence.
    pub fn read(head: &[u8; HEAD_BYTES], bytes: u64) -> std::result::Result<Head, String> {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        if head[..8] != MAGIC {
            return Err("these bytes are no matrix".into());
        }
        let version = u32::from_le_bytes(std::array::from_fn(|i| head[8 + i]));
        if version != VERSION {
            return Err(format!("the matrix is of version {version}, and this library knows {VERSION}"));
        }
        if u64_at(CHECKED_BYTES) != checksum(&head[..CHECKED_BYTES]) {
            return Err("the head of the matrix is damaged: its checksum differs".into());
        }
        let sizes = Sizes::new(u64_at(16), u64_at(24)).map_err(|e| e.to_string())?;
        let escapes = u64_at(32);
        if escapes > (sizes.rows * sizes.columns).min(u32::MAX as u64) {
            return Err(format!("the matrix says that it has {escapes} escaped exponents, and that is too many"));
        }
        let need = sizes.bytes(escapes);
        if u64_at(40) != need || need > bytes {
            return Err(format!("the matrix takes {need} bytes, and there are {bytes}"));
        }
        Ok(Head { sizes, escapes, exponents: std::array::from_fn(|i| if i < 15 { head[48 + i] } else { 0 }) })
    }
}

/// FNV-1a of 64 bits: enough against accidents, and against nothing else.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &b| (sum ^ b as u64).wrapping_mul(0x0000_0100_0000_01b3))
}
