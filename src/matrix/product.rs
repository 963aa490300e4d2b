//! Decoding of rows and products with vectors, in terms of the kernels.

use super::kernel::{Cursor, Kernel, MOST_VECTORS, Steps, Sums, Variant};
use super::layout::{BLOCK, ESCAPE, UNIT, UNIT_BYTES};
use super::{Input, Matrix, Order};
use crate::error::{Error, Result};
use half::bf16;
use std::ops::Range;

/// The most vectors that a row is multiplied with while it is in the cache.
const MOST_AT_ONCE: usize = 64;
/// Outputs from here on are written past the caches: they would not stay in them, and a store that fetches its line first moves
/// more memory.
const STREAMING_BYTES: usize = 4 << 20;
/// Units that are decoded at a time where several vectors are multiplied with them: 4 KiB of weights stay in the L1 cache.
const CHUNK: usize = 16;

impl Matrix<'_> {
    /// Decodes `dst.len()` weights, from weight `first` of the matrix on: rows are one after the other, so that row r begins at
    /// weight r · [`Matrix::columns`]. Ranges that begin inside a row first count what is before. It starts no thread and
    /// allocates nothing, so any threads may decode one matrix at the same time.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if the range leaves the matrix.
    pub fn decompress(&self, first: u64, dst: &mut [bf16]) -> Result<()> {
        // SAFETY: bf16 is a transparent u16, and the slice is writable.
        unsafe { self.decompress_raw(first, dst.len() as u64, dst.as_mut_ptr().cast(), Variant::best()) }
    }

    /// Decodes like [`Matrix::decompress`], by a named variant, into memory that need not be initialised.
    ///
    /// # Safety
    ///
    /// `count` weights can be written at `dst`.
    #[doc(hidden)]
    pub unsafe fn decompress_raw(&self, first: u64, count: u64, dst: *mut u16, variant: Variant) -> Result<()> {
        let (columns, weights) = (self.columns(), self.rows() * self.columns());
        if first.checked_add(count).is_none_or(|end| end > weights) {
            let reason = format!("weights {first} + {count} are outside the matrix of {weights}");
            return Err(Error::InvalidArgument(reason));
        }
        let kernel = variant.kernel();
        let streaming = count as usize * 2 >= STREAMING_BYTES;
        let mut at = first;
        while at < first + count {
            let (row, from) = (at / columns, at % columns);
            let some = (columns - from).min(first + count - at);
            // SAFETY: these weights of the row go where they belong in `dst`.
            unsafe {
                let dst = dst.add((at - first) as usize);
                self.decode_part(kernel, row, from as usize..(from + some) as usize, dst, streaming);
            }
            at += some;
        }
        #[cfg(target_arch = "x86_64")]
        if streaming {
            // What was streamed is there before anything that the caller tells other threads.
            // SAFETY: every x86-64 processor has the instruction.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
        Ok(())
    }

    /// Decodes some columns of a row.
    ///
    /// # Safety
    ///
    /// They are in the matrix, as many weights can be written at `dst`, and the processor can run the kernel.
    unsafe fn decode_part(&self, kernel: &Kernel, row: u64, part: Range<usize>, dst: *mut u16, streaming: bool) {
        let columns = self.columns() as usize;
        let mut cursor = self.cursor(row);
        if part.start >= UNIT {
            self.skip(&mut cursor, row, part.start / UNIT);
        }
        let mut at = part.start;
        while at < part.end {
            // SAFETY: part.start <= at < part.end, and `dst` has room for the weights from there on.
            let to = unsafe { dst.add(at - part.start) };
            let units = (part.end - at) / UNIT;
            if at.is_multiple_of(UNIT) && units > 0 {
                let decode = if streaming && to.addr().is_multiple_of(64) { kernel.stream } else { kernel.decode };
                // SAFETY: the row has these units, and `to` room for their weights.
                unsafe { decode(&mut cursor, units, false, &self.head.exponents, to) };
                at += units * UNIT;
                continue;
            }
            let unit = at - at % UNIT;
            let decoded = self.unit(kernel, &mut cursor, (columns - unit).min(UNIT));
            let some = part.end.min(unit + UNIT) - at;
            // SAFETY: `some` weights of the unit are wanted, and `to` has room for them.
            unsafe { std::ptr::copy_nonoverlapping(decoded[at - unit..].as_ptr(), to, some) };
            at += some;
        }
    }

    /// Moves a cursor past units of its row, and their escapes, which are counted.
    fn skip(&self, cursor: &mut Cursor, row: u64, units: usize) {
        let skipped = &self.row_data(row)[..units * UNIT_BYTES];
        let escapes: usize = skipped
            .chunks_exact(UNIT_BYTES)
            .map(|unit| {
                let codes = unit[2 * BLOCK..].iter();
                let found =
                    codes.map(|&c| (c & 15 == ESCAPE) as u8 + (c >> 4 == ESCAPE) as u8).fold(0, u8::wrapping_add);
                found as usize
            })
            .sum();
        let left = cursor.end.addr() - cursor.escape.addr();
        cursor.unit = cursor.unit.wrapping_add(skipped.len());
        cursor.escape = cursor.escape.wrapping_add(escapes.min(left));
    }

    /// Multiplies rows with one or several vectors. `x` has [`Matrix::columns`] elements of each vector, one vector after the
    /// other. `y` has as many elements as there are rows, for each vector one run: the product of row r and
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
        if !x.len().is_multiple_of(columns) || vectors == 0 {
            let reason = format!("x has {} elements: {columns} are needed, or a multiple of them", x.len());
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
            let at = |v: usize| y.wrapping_add(v * y_stride + (row - rows.start) as usize);
            if vectors == 1 {
                // SAFETY: x has this vector, and y a place for its product with this row.
                unsafe { at(0).write(product.dot(row)) };
                continue;
            }
            for first in (0..vectors).step_by(MOST_AT_ONCE) {
                let some = first..vectors.min(first + MOST_AT_ONCE);
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

    /// Decodes the unit at the cursor, of which `columns` are weights. The others are zeros.
    fn unit(&self, kernel: &Kernel, cursor: &mut Cursor, columns: usize) -> [u16; UNIT] {
        let mut unit = [0; UNIT];
        let whole = columns > BLOCK;
        // SAFETY: the cursor is at a unit, which has two blocks if it has more columns than those of one, and the array takes
        // both; the kernel is for this processor.
        unsafe { (kernel.decode)(cursor, whole as usize, !whole, &self.head.exponents, unit.as_mut_ptr()) };
        unit[columns..].fill(0);
        unit
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
    /// Multiplies a row with the first vector.
    ///
    /// # Safety
    ///
    /// x has a vector.
    unsafe fn dot(&self, row: u64) -> f32 {
        let columns = self.matrix.columns() as usize;
        let (mut cursor, units) = (self.matrix.cursor(row), columns / UNIT);
        let left = columns - units * UNIT;
        let mut sums = Sums::ZERO;
        let kept = (left > 0).then_some(&mut sums);
        // SAFETY: the row has these units, and the vector as many elements as they have weights.
        let total = unsafe {
            (self.steps.dot)(&mut cursor, units, &self.matrix.head.exponents, self.x.at, self.order.apart(), kept)
        };
        if left == 0 {
            return total as f32;
        }
        let last = self.matrix.unit(self.kernel, &mut cursor, left);
        // SAFETY: the vector has the other elements of the row, too.
        unsafe { self.end(&last, left, self.x.element(0, units * UNIT), &mut sums) }
    }

    /// Multiplies a row with at most [`MOST_AT_ONCE`] vectors.
    ///
    /// # Safety
    ///
    /// x has these vectors.
    unsafe fn row(&self, row: u64, vectors: Range<usize>, mut result: impl FnMut(usize, f32)) {
        let columns = self.matrix.columns() as usize;
        let exponents = &self.matrix.head.exponents;
        let (mut cursor, units) = (self.matrix.cursor(row), columns / UNIT);
        let mut sums = [Sums::ZERO; MOST_AT_ONCE];
        let mut weights = [0u16; CHUNK * UNIT];
        for first in (0..units).step_by(CHUNK) {
            let some = CHUNK.min(units - first);
            // SAFETY: the row has these units, and the array room for their weights.
            unsafe { (self.kernel.decode)(&mut cursor, some, false, exponents, weights.as_mut_ptr()) };
            // SAFETY: that many weights have been decoded, and each vector has as many elements from there on.
            unsafe { self.add(&weights[..some * UNIT], first * UNIT, vectors.clone(), &mut sums) };
        }
        let left = columns - units * UNIT;
        let last = if left > 0 { self.matrix.unit(self.kernel, &mut cursor, left) } else { [0; UNIT] };
        for (v, sums) in vectors.zip(&mut sums) {
            if left == 0 {
                result(v, sums.total(self.order.apart()) as f32);
                continue;
            }
            // SAFETY: the vector has `left` elements from the last unit on.
            result(v, unsafe { self.end(&last, left, self.x.element(v, units * UNIT), sums) });
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
        let mut sum = sums.total(self.order.apart());
        let float = |bits: u16| f32::from_bits((bits as u32) << 16);
        // Only orders for x of bf16 come here.
        let x = padded.0.as_chunks::<2>().0.iter().map(|&x| u16::from_le_bytes(x));
        for (&w, x) in last.iter().zip(x).take(left).skip(whole) {
            sum += (float(w) * float(x)) as f64;
        }
        sum as f32
    }
}

/// The elements of x that belong to the last unit of a row.
#[repr(align(64))]
struct Padded([u8; UNIT * 4]);
