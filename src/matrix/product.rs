//! Decoding of rows and products with vectors, in terms of the kernels.

use super::kernel::{Cursor, Kernel, MOST_VECTORS, Steps, Sums, Variant};
use super::layout::{BLOCK, UNIT};
use super::{Input, Matrix, Order};
use crate::error::{Error, Result};
use half::bf16;
use std::ops::Range;

/// The most vectors of a product.
pub const MOST_COLUMNS_OF_X: usize = 64;
/// Units that are decoded at a time where several vectors are multiplied with them: 4 KiB of weights stay in the L1 cache.
const CHUNK: usize = 16;

impl Matrix<'_> {
    /// Decodes rows: `dst` has room for `rows.len()` times [`Matrix::columns`] weights. It starts no thread and allocates nothing,
    /// so any threads may decode rows of one matrix at the same time.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if the rows are not in the matrix, or `dst` has another length.
    pub fn decode_rows(&self, rows: Range<u64>, dst: &mut [bf16]) -> Result<()> {
        self.decode_rows_by(rows, dst, Variant::best())
    }

    /// Decodes as [`Matrix::decode_rows`] does, by a named variant.
    #[doc(hidden)]
    pub fn decode_rows_by(&self, rows: Range<u64>, dst: &mut [bf16], variant: Variant) -> Result<()> {
        self.check_rows(&rows)?;
        let columns = self.columns() as usize;
        let weights = (rows.end - rows.start) as usize * columns;
        if dst.len() != weights {
            let reason =
                format!("{} rows have {weights} weights, and the destination has {}", rows.end - rows.start, dst.len());
            return Err(Error::InvalidArgument(reason));
        }
        let kernel = variant.kernel();
        for (row, dst) in rows.zip(dst.chunks_exact_mut(columns)) {
            let mut cursor = self.cursor(row);
            let units = columns / UNIT;
            let (whole, rest) = dst.split_at_mut(units * UNIT);
            // SAFETY: the row has these units, `whole` their weights, and the processor can run the variant.
            unsafe { (kernel.decode)(&mut cursor, units, false, &self.head.exponents, whole.as_mut_ptr().cast()) };
            if !rest.is_empty() {
                let last = self.last_unit(kernel, &mut cursor, rest.len());
                for (to, &from) in rest.iter_mut().zip(&last) {
                    *to = bf16::from_bits(from);
                }
            }
        }
        Ok(())
    }

    /// Multiplies rows with one or several vectors. `x` has [`Matrix::columns`] elements of each vector, one vector after the
    /// other, 64 vectors at most. `y` has as many elements as there are rows, for each vector one run: the product of row r and
    /// vector v becomes `y[v * rows.len() + r - rows.start]`. It starts no thread and allocates nothing.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if lengths do not fit, or if the order is for x of bf16 and x is not.
    pub fn multiply(&self, rows: Range<u64>, x: Input<'_>, order: Order, y: &mut [f32]) -> Result<()> {
        self.multiply_by(rows, x, order, y, Variant::best())
    }

    /// Multiplies as [`Matrix::multiply`] does, by a named variant.
    #[doc(hidden)]
    pub fn multiply_by(
        &self,
        rows: Range<u64>,
        x: Input<'_>,
        order: Order,
        y: &mut [f32],
        variant: Variant,
    ) -> Result<()> {
        self.check_rows(&rows)?;
        let columns = self.columns() as usize;
        let count = (rows.end - rows.start) as usize;
        let vectors = x.len() / columns;
        if x.len() % columns != 0 || vectors == 0 || vectors > MOST_COLUMNS_OF_X {
            let reason = format!("x has {} elements: 1 to {MOST_COLUMNS_OF_X} times {columns} are needed", x.len());
            return Err(Error::InvalidArgument(reason));
        }
        if y.len() != vectors * count {
            let reason =
                format!("{vectors} products with {count} rows are {} numbers, and y has {}", vectors * count, y.len());
            return Err(Error::InvalidArgument(reason));
        }
        // SAFETY: both have been checked against what is read and written: x has `vectors` vectors of `columns` elements, and y has
        // `count` elements for each of them.
        unsafe { self.multiply_raw(rows, vectors, Vectors::of(x, columns), order, y.as_mut_ptr(), count, variant) }
    }

    /// Multiplies as [`Matrix::multiply`] does, with vectors and results at any distance from each other, in elements.
    ///
    /// # Safety
    ///
    /// `x` has [`Matrix::columns`] elements of each of the vectors, and `y` can take as many numbers as there are rows at each
    /// multiple of `y_stride`.
    #[allow(clippy::too_many_arguments, reason = "they are those of the C function")]
    pub(crate) unsafe fn multiply_raw(
        &self,
        rows: Range<u64>,
        vectors: usize,
        x: Vectors,
        order: Order,
        y: *mut f32,
        y_stride: usize,
        variant: Variant,
    ) -> Result<()> {
        self.check_rows(&rows)?;
        if order != Order::Lanes && !x.bf16 {
            return Err(Error::InvalidArgument("the orders of ggml are for x of bf16".into()));
        }
        let kernel = variant.kernel();
        let steps = match (order, x.bf16) {
            (Order::GgmlAvx512Bf16, _) => &kernel.pairs,
            (_, true) => &kernel.lanes_bf16,
            (_, false) => &kernel.lanes_f32,
        };
        let product = Product { matrix: self, kernel, steps, order, x };
        for row in rows.clone() {
            for first in (0..vectors).step_by(MOST_COLUMNS_OF_X) {
                let at = |v: usize| y.wrapping_add(v * y_stride + (row - rows.start) as usize);
                let some = first..vectors.min(first + MOST_COLUMNS_OF_X);
                // SAFETY: x has these vectors, and y a place for the product of each with this row.
                unsafe { product.row(row, some, |v, sum| at(v).write(sum)) };
            }
        }
        Ok(())
    }

    fn check_rows(&self, rows: &Range<u64>) -> Result<()> {
        if rows.start > rows.end || rows.end > self.rows() {
            let reason = format!("rows {} to {} are not in a matrix of {} rows", rows.start, rows.end, self.rows());
            return Err(Error::InvalidArgument(reason));
        }
        Ok(())
    }

    fn cursor(&self, row: u64) -> Cursor {
        let (first, end) = self.escapes_of(row);
        let at = |offset: usize| self.data[offset..].as_ptr();
        Cursor { unit: self.row_data(row).as_ptr(), escape: at(first), end: at(end) }
    }

    /// Decodes the last unit of a row, of which `columns` are weights. The others are zeros.
    fn last_unit(&self, kernel: &Kernel, cursor: &mut Cursor, columns: usize) -> [u16; UNIT] {
        let mut last = [0; UNIT];
        let whole = columns > BLOCK;
        // SAFETY: the cursor is at the last unit, which has two blocks if more columns than those of one are left, and the array
        // takes both; the kernel is for this processor.
        unsafe { (kernel.decode)(cursor, whole as usize, !whole, &self.head.exponents, last.as_mut_ptr()) };
        last[columns..].fill(0);
        last
    }
}

/// Vectors to multiply with: where they are, and of what.
#[derive(Clone, Copy)]
pub(crate) struct Vectors {
    /// The first element of the first vector.
    pub at: *const u8,
    /// Elements from one vector to the next.
    pub stride: usize,
    /// True for elements of bf16, false for f32.
    pub bf16: bool,
}

impl Vectors {
    /// Returns the vectors of a slice, each of that many elements.
    fn of(x: Input<'_>, columns: usize) -> Vectors {
        match x {
            Input::F32(x) => Vectors { at: x.as_ptr().cast(), stride: columns, bf16: false },
            Input::Bf16(x) => Vectors { at: x.as_ptr().cast(), stride: columns, bf16: true },
        }
    }

    fn bytes(&self) -> usize {
        if self.bf16 { 2 } else { 4 }
    }

    /// Returns where an element of a vector is.
    fn element(&self, vector: usize, at: usize) -> *const u8 {
        self.at.wrapping_add((vector * self.stride + at) * self.bytes())
    }
}

/// A product being made.
struct Product<'m> {
    matrix: &'m Matrix<'m>,
    kernel: &'static Kernel,
    steps: &'static Steps,
    order: Order,
    x: Vectors,
}

impl Product<'_> {
    /// Multiplies a row with at most [`MOST_COLUMNS_OF_X`] vectors.
    ///
    /// # Safety
    ///
    /// x has these vectors.
    unsafe fn row(&self, row: u64, vectors: Range<usize>, mut result: impl FnMut(usize, f32)) {
        let columns = self.matrix.columns() as usize;
        let exponents = &self.matrix.head.exponents;
        let mut cursor = self.matrix.cursor(row);
        let units = columns / UNIT;
        let mut sums = [Sums::ZERO; MOST_COLUMNS_OF_X];
        if vectors.len() == 1 {
            let x = self.x.element(vectors.start, 0);
            // SAFETY: the row has these units, and the vector as many elements as they have weights.
            unsafe { (self.steps.dot)(&mut cursor, units, exponents, x, &mut sums[0]) };
        } else {
            let mut weights = [0u16; CHUNK * UNIT];
            for first in (0..units).step_by(CHUNK) {
                let some = CHUNK.min(units - first);
                // SAFETY: the row has these units, and the array room for their weights.
                unsafe { (self.kernel.decode)(&mut cursor, some, false, exponents, weights.as_mut_ptr()) };
                // SAFETY: that many weights have been decoded, and each vector has as many elements from there on.
                unsafe { self.add(&weights[..some * UNIT], first * UNIT, vectors.clone(), &mut sums) };
            }
        }
        let left = columns - units * UNIT;
        let last = if left > 0 { self.matrix.last_unit(self.kernel, &mut cursor, left) } else { [0; UNIT] };
        for (v, sums) in vectors.zip(&mut sums) {
            // SAFETY: the vector has `left` elements from the last unit on.
            let sum = unsafe { self.end(&last, left, self.x.element(v, units * UNIT), sums) };
            result(v, sum);
        }
    }

    /// Adds the products of weights with vectors, from an element of each on.
    ///
    /// # Safety
    ///
    /// x has these elements.
    unsafe fn add(&self, weights: &[u16], from: usize, vectors: Range<usize>, sums: &mut [Sums]) {
        for (first, sums) in vectors.clone().step_by(MOST_VECTORS).zip(sums.chunks_mut(MOST_VECTORS)) {
            let some = MOST_VECTORS.min(vectors.end - first);
            let x: [*const u8; MOST_VECTORS] = std::array::from_fn(|i| self.x.element(first + i.min(some - 1), from));
            // SAFETY: the weights are whole steps, each vector has as many elements, and the kernel is for this processor.
            unsafe {
                (self.steps.add)(weights.as_ptr(), weights.len() / self.steps.step, &x[..some], &mut sums[..some])
            };
        }
    }

    /// Adds the products of the last unit, of which `left` are weights, and returns the sum of all sums.
    ///
    /// # Safety
    ///
    /// `left` elements can be read at `x`.
    unsafe fn end(&self, last: &[u16; UNIT], left: usize, x: *const u8, sums: &mut Sums) -> f32 {
        let step = self.steps.step;
        let whole = if self.order == Order::Lanes { left.next_multiple_of(step) } else { left / step * step };
        let mut padded = Padded([0; UNIT * 4]);
        // SAFETY: `left` elements can be read, and are no more than fit.
        unsafe { std::ptr::copy_nonoverlapping(x, padded.0.as_mut_ptr(), left * self.x.bytes()) };
        if whole > 0 {
            let x = [padded.0.as_ptr()];
            // SAFETY: the unit and the padded copy of x have as many elements, and the kernel is for this processor.
            unsafe { (self.steps.add)(last.as_ptr(), whole / step, &x, std::slice::from_mut(sums)) };
        }
        let sums = &sums.0;
        if self.order == Order::Lanes {
            return halved(sums);
        }
        let mut sum = match self.order {
            Order::GgmlAvx2 => halved(sums) as f64,
            _ => halved(&sums[..16]) as f64 + halved(&sums[16..]) as f64,
        };
        let float = |bits: u16| f32::from_bits((bits as u32) << 16);
        for i in whole..left {
            let x = u16::from_le_bytes([padded.0[2 * i], padded.0[2 * i + 1]]);
            sum += (float(last[i]) * float(x)) as f64;
        }
        sum as f32
    }
}

/// The elements of x that belong to the last unit of a row.
#[repr(align(64))]
struct Padded([u8; UNIT * 4]);

/// Adds up at most 32 sums: the second half to the first, until one is left.
fn halved(sums: &[f32]) -> f32 {
    let mut all = [0f32; 32];
    all[..sums.len()].copy_from_slice(sums);
    let mut n = sums.len();
    while n > 1 {
        n /= 2;
        for i in 0..n {
            all[i] += all[i + n];
        }
    }
    all[0]
}
