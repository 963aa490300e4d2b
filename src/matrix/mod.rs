//! Matrices of bf16 weights at 12 bits a weight, made for multiplying: on a CPU a product with one vector waits for memory, so
//! weights that are fewer bytes are multiplied with in less time. The sums are those of plain bf16 rows, bit for bit.
//!
//! # The idea
//!
//! The exponents of trained weights take few values: the fifteen most frequent of a matrix make up more than 99.9 % of it. So a
//! weight is stored as a sign/mantissa byte, as DF11 has it, and half a byte, the *code*: the number of its exponent among those
//! fifteen, or 15, and then the exponent itself is in a list of *escapes*. Two table look-ups in a register (`vpshufb`, `tbl`)
//! restore 16 to 64 exponents at a time, and nothing depends on what was decoded before.
//!
//! ```text
//! head        128 bytes: rows, columns, the fifteen exponents, sizes, a checksum
//! rows        one after the other, each whole cache lines:
//!
//!             | 64 sign/mantissa bytes | 64 sign/mantissa bytes | 64 bytes of codes         |   a unit: 128 columns
//!               block 0 of the unit      block 1                  low half: block 0, high: 1
//!
//!             a row whose last unit has one block only ends with 64 bytes, 32 bytes of codes, 32 unused ones
//! starts      for each row, and the end: the number of escapes before it, 32 bits
//! escapes     one byte each, in the order of their places in the row
//! ```
//!
//! Within a block bytes are in the order of `place`, which is that of the instructions `unpack` and `zip`.
//!
//! It is a format of memory: it may be written to a file or shared with other processes of the same library version, and a newer
//! version may refuse it. Models are stored as DF11.
//!
//! - `layout`: where the bytes are;
//! - `make`: a matrix from rows of bf16, wherever they come from;
//! - `kernel`: decoding and products, for each instruction set;
//! - `product`: rows and columns of x, in terms of the kernels;
//! - `naive`: the oracle.

mod kernel;
mod layout;
mod make;
#[doc(hidden)]
pub mod naive;
mod product;

#[doc(hidden)]
pub use kernel::Variant;
pub use layout::ALIGNMENT;
pub use make::{MatrixOptions, write};
#[doc(hidden)]
pub use make::{Rows, make};
pub(crate) use product::Vectors;

use crate::error::{Error, Result};
use half::bf16;
use layout::{HEAD_BYTES, Head, Sizes};

/// A matrix of bf16 weights, in memory of the caller's.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [u8],
    head: Head,
}

/// The order in which products are summed up. Sums of floating-point numbers depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// 32 sums in f32: sum `j` takes the products of columns `j`, `j + 32`, `j + 64` and so on, each by a fused multiply-add.
    /// Past the last column, up to a multiple of 32, weights and x count as zeros. In the end sum `j` takes sum `j + 16`, then
    /// `j + 8`, `j + 4`, `j + 2`, `j + 1`. The same on every processor.
    #[default]
    Lanes,
    /// That of ggml's `ggml_vec_dot_bf16` compiled for AVX2 and FMA: as `Lanes`, but columns from the last multiple of 32 on are
    /// multiplied in f32 and added in f64. For x of bf16.
    GgmlAvx2,
    /// That of ggml compiled for AVX-512 without BF16: as `GgmlAvx2`, but sums 0 to 15 and 16 to 31 are summed up apart, and
    /// then added in f64.
    GgmlAvx512,
    /// That of ggml compiled for AVX-512 with BF16: 32 sums by `vdpbf16ps`, each of which takes two neighbouring columns of every
    /// 64, first the odd one, then the even one, with subnormal numbers as zeros. Then as `GgmlAvx512`, with columns from the
    /// last multiple of 64 on in f64. For x of bf16.
    GgmlAvx512Bf16,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 4] = [Order::Lanes, Order::GgmlAvx2, Order::GgmlAvx512, Order::GgmlAvx512Bf16];

    /// Returns whether sums 0 to 15 and 16 to 31 are added up apart.
    fn apart(self) -> bool {
        matches!(self, Order::GgmlAvx512 | Order::GgmlAvx512Bf16)
    }
}

/// A vector, or several of the same length one after the other.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Input<'x> {
    /// Elements of f32.
    F32(&'x [f32]),
    /// Elements of bf16.
    Bf16(&'x [bf16]),
}

impl Input<'_> {
    fn len(self) -> usize {
        match self {
            Input::F32(x) => x.len(),
            Input::Bf16(x) => x.len(),
        }
    }

    fn get(self, i: usize) -> f32 {
        match self {
            Input::F32(x) => x[i],
            Input::Bf16(x) => x[i].to_f32(),
        }
    }
}

/// Returns the bytes that a matrix takes if every exponent is escaped: enough for any weights. Trained weights take some 60 %
/// of it.
///
/// # Errors
///
/// `InvalidArgument`, if there are no weights, or 2^48 and more.
pub fn bound(rows: u64, columns: u64) -> Result<u64> {
    Ok(Sizes::new(rows, columns)?.bytes(rows * columns))
}

impl<'a> Matrix<'a> {
    /// Takes bytes that [`write()`] has written, wherever they have been since, and checks that no call can be led outside them.
    /// Weights are not checked: other bytes are other weights.
    ///
    /// # Errors
    ///
    /// `Misaligned`, if the first byte is not aligned to [`ALIGNMENT`]; `InvalidFormat`, if the bytes are no matrix of this
    /// version, or are fewer than it takes.
    pub fn new(data: &'a [u8]) -> Result<Matrix<'a>> {
        if !(data.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
            return Err(Error::Misaligned { what: "the matrix".into(), to: ALIGNMENT });
        }
        let invalid = |reason: String| Error::invalid(crate::Place::default(), reason);
        let head = data.first_chunk::<HEAD_BYTES>().ok_or_else(|| invalid("these bytes are no matrix".into()))?;
        let head = Head::read(head, data.len() as u64).map_err(invalid)?;
        let matrix = Matrix { data, head };
        let starts = data[head.sizes.starts_at as usize..].chunks_exact(4).take(head.sizes.rows as usize + 1);
        let mut before = 0;
        for (row, start) in starts.enumerate() {
            let start = u32::from_le_bytes(std::array::from_fn(|i| start[i])) as u64;
            if start < before || start > head.escapes || row == 0 && start != 0 {
                return Err(invalid(format!("the escapes of row {row} of the matrix begin outside their list")));
            }
            before = start;
        }
        Ok(matrix)
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> u64 {
        self.head.sizes.rows
    }

    /// Returns the number of columns.
    pub fn columns(&self) -> u64 {
        self.head.sizes.columns
    }

    /// Returns the bytes of the whole matrix.
    pub fn data(&self) -> &'a [u8] {
        &self.data[..self.head.sizes.bytes(self.head.escapes) as usize]
    }

    /// Returns the number of weights whose exponents are stored in full.
    pub fn escapes(&self) -> u64 {
        self.head.escapes
    }

    /// Returns the bytes of a row.
    fn row_data(&self, row: u64) -> &'a [u8] {
        &self.data[self.head.sizes.row(row)]
    }

    /// Returns where the escapes of a row begin and end in the whole.
    fn escapes_of(&self, row: u64) -> (usize, usize) {
        let Head { sizes, escapes, .. } = self.head;
        let start = |row: u64| {
            let at = (sizes.starts_at + 4 * row) as usize;
            let start = u32::from_le_bytes(std::array::from_fn(|i| self.data[at + i])) as u64;
            (sizes.escapes_at + start.min(escapes)) as usize
        };
        let first = start(row);
        (first, start(row + 1).max(first))
    }
}

impl std::fmt::Debug for Matrix<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matrix")
            .field("rows", &self.rows())
            .field("columns", &self.columns())
            .field("escapes", &self.escapes())
            .finish_non_exhaustive()
    }
}
