//! A matrix from rows of bf16, wherever they come from.
//!
//! One pass: the exponents of a sample choose the fifteen that get codes, and then rows are encoded where they belong, in chunks,
//! by all threads. Only the escapes of a chunk must wait for those of the chunk before: how many there are is not known.

#[cfg(target_arch = "x86_64")]
use super::kernel::Variant;
use super::layout::{BLOCK, ESCAPE, Head, SLACK, Sizes, UNIT, UNIT_BYTES, place, weight_at};
use super::{ALIGNMENT, Matrix};
use crate::error::{Error, Result, shorten};
use crate::format::Tensor;
use crate::host::{DecodeOptions, run_threads};
use crate::progress::Progress;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype;
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Options to make a matrix.
///
/// ```
/// let options = df11::matrix::MatrixOptions::new().threads(8);
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct MatrixOptions {
    /// The threads to use, the calling one among them; 0 means 1. They live for the call only.
    pub threads: usize,
}

impl MatrixOptions {
    /// Returns the defaults.
    pub fn new() -> MatrixOptions {
        MatrixOptions::default()
    }

    /// Sets the threads to use, the calling one among them; 0 means 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}

/// Makes a matrix of rows of `columns` bf16 weights, one row after the other, in `dst`, whose first byte is aligned to
/// [`ALIGNMENT`]. [`super::bound`] bytes are always enough; [`Matrix::data`] then says how many were used. The bytes depend on the
/// weights alone. Every weight comes back with all its bits, infinities and NaNs too. Each thread allocates less than 3 MB,
/// and for rows of more than 2^18 weights 5 bytes more for each of them.
///
/// # Errors
///
/// `InvalidArgument` if the weights are not whole rows, or if there are none; `BufferTooSmall`, with the bytes that are needed;
/// `Misaligned`; `Cancelled`. After an error `dst` holds anything.
pub fn write<'d>(
    weights: &[bf16],
    columns: u64,
    dst: &'d mut [u8],
    options: &MatrixOptions,
    progress: &Progress,
) -> Result<Matrix<'d>> {
    if columns == 0 || !(weights.len() as u64).is_multiple_of(columns) {
        let reason = format!("{} weights are no whole rows of {columns}", weights.len());
        return Err(Error::InvalidArgument(reason));
    }
    make(&Plain { weights: weights.reinterpret_cast(), columns: columns as usize }, dst, options.threads, progress)
}

impl Tensor<'_> {
    /// Makes a matrix of some rows of this tensor, which is seen as rows of `columns` weights, one after the other: a tensor of
    /// experts (experts, rows, columns) has experts x rows of them. The tensor is decoded in pieces, by all threads, so
    /// that its weights are never all in memory. Bytes, `dst` and memory are as for [`write()`].
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the tensor is not of bf16, or has no such rows; those of [`write()`]; those of [`Tensor::read`].
    pub fn write_matrix<'d>(
        self,
        columns: u64,
        rows: Range<u64>,
        dst: &'d mut [u8],
        options: &MatrixOptions,
        progress: &Progress,
    ) -> Result<Matrix<'d>> {
        let name = || shorten(self.name(), 80);
        if self.dtype() != Dtype::BF16 {
            let reason = format!("tensor '{}' is of {}, and a matrix is made of BF16", name(), self.dtype());
            return Err(Error::InvalidArgument(reason));
        }
        let weights = self.bytes() / 2;
        if columns == 0 || !weights.is_multiple_of(columns) {
            let reason = format!("tensor '{}' of {weights} weights has no whole rows of {columns}", name());
            return Err(Error::InvalidArgument(reason));
        }
        if rows.start > rows.end || rows.end > weights / columns {
            let reason =
                format!("rows {} to {} are not in tensor '{}' of {}", rows.start, rows.end, name(), weights / columns);
            return Err(Error::InvalidArgument(reason));
        }
        make(&OfTensor { tensor: self, columns, rows }, dst, options.threads, progress)
    }
}

/// Rows of bf16 weights.
pub trait Rows: Sync {
    /// The number of rows.
    fn rows(&self) -> u64;
    /// The number of columns.
    fn columns(&self) -> u64;
    /// Returns the bits of whole rows, in `scratch` if they are nowhere yet.
    ///
    /// # Errors
    ///
    /// Those of reading or decoding them.
    fn get<'s>(&'s self, first: u64, count: u64, scratch: &'s mut Vec<u16>) -> Result<&'s [u16]>;
}

/// Rows in memory.
struct Plain<'w> {
    weights: &'w [u16],
    columns: usize,
}

impl Rows for Plain<'_> {
    fn rows(&self) -> u64 {
        (self.weights.len() / self.columns) as u64
    }
    fn columns(&self) -> u64 {
        self.columns as u64
    }
    fn get<'s>(&'s self, first: u64, count: u64, _: &'s mut Vec<u16>) -> Result<&'s [u16]> {
        let at = first as usize * self.columns;
        Ok(&self.weights[at..at + count as usize * self.columns])
    }
}

/// Rows of a model's tensor, plain or compressed.
struct OfTensor<'m> {
    tensor: Tensor<'m>,
    columns: u64,
    rows: Range<u64>,
}

impl Rows for OfTensor<'_> {
    fn rows(&self) -> u64 {
        self.rows.end - self.rows.start
    }
    fn columns(&self) -> u64 {
        self.columns
    }
    fn get<'s>(&'s self, first: u64, count: u64, scratch: &'s mut Vec<u16>) -> Result<&'s [u16]> {
        let weights = (count * self.columns) as usize;
        // What was there is written over, so that only growth costs anything.
        if scratch.len() < weights {
            scratch.resize(weights, 0);
        }
        let some = &mut scratch[..weights];
        let offset = 2 * (self.rows.start + first) * self.columns;
        // SAFETY: u16 has no padding and no forbidden values, and the slice is borrowed exclusively.
        let bytes = unsafe { std::slice::from_raw_parts_mut(some.as_mut_ptr().cast(), 2 * weights) };
        self.tensor.read(offset, bytes, &DecodeOptions::new())?;
        Ok(some)
    }
}

/// Weights of a chunk, or about.
const CHUNK_WEIGHTS: u64 = 1 << 18;
/// Pieces of the sample that chooses the codes, and weights of a piece, or about. A frequency of one in a thousand is then known
/// to a quarter of itself, and the fifteenth exponent of trained weights is rarer: what is chosen wrongly costs a few bytes.
const SAMPLES: u64 = 16;
const SAMPLE_WEIGHTS: u64 = 1024;

/// Makes a matrix as [`write()`] does, of rows wherever they come from. Errors are those, and those of the rows.
pub fn make<'d>(rows: &dyn Rows, dst: &'d mut [u8], threads: usize, progress: &Progress) -> Result<Matrix<'d>> {
    let sizes = Sizes::new(rows.rows(), rows.columns())?;
    if !(dst.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
        return Err(Error::Misaligned { what: "the matrix".into(), to: ALIGNMENT });
    }
    if (dst.len() as u64) < sizes.bytes(0) {
        return Err(too_small(&sizes, 0, dst.len()));
    }
    progress.check()?;
    progress.begin(2 * sizes.rows * sizes.columns);
    let exponents = frequent(&sample(rows)?);
    let mut codes = [ESCAPE; 256];
    (0..15).rev().for_each(|code| codes[exponents[code] as usize] = code as u8);
    let columns = sizes.columns as usize;
    let chunk_rows = (CHUNK_WEIGHTS / sizes.columns).max(1);
    let chunks = sizes.rows.div_ceil(chunk_rows);
    let (base, bytes) = (Destination(dst.as_mut_ptr()), dst.len() as u64);
    let (next, turn, changed) = (AtomicU64::new(0), Mutex::new(Turn { chunk: 0, escapes: 0 }), Condvar::new());
    let threads = (threads.max(1) as u64).min(chunks) as usize;
    let work = || {
        let base = &base;
        let encode = encoder();
        let (mut scratch, mut escapes) = (Vec::new(), Vec::new());
        let mut ends = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            if chunk >= chunks {
                return Ok(());
            }
            progress.check()?;
            let first = chunk * chunk_rows;
            let count = chunk_rows.min(sizes.rows - first);
            let weights = rows.get(first, count, &mut scratch)?;
            escapes.clear();
            ends.clear();
            for (row, weights) in (first..).zip(weights.chunks_exact(columns)) {
                let range = sizes.row(row);
                // SAFETY: the row's bytes are in `dst`, which holds all rows, and no other thread has this row.
                let to = unsafe { std::slice::from_raw_parts_mut(base.0.add(range.start), range.len()) };
                encode_row(weights, to, &codes, encode, &mut escapes);
                ends.push(escapes.len() as u64);
            }
            progress.advance(2 * count * sizes.columns);
            let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            while turn.chunk < chunk {
                progress.check()?;
                turn = changed.wait_timeout(turn, WAIT).unwrap_or_else(PoisonError::into_inner).0;
                if next.load(Ordering::Relaxed) >= FAILED {
                    return Ok(());
                }
            }
            let before = turn.escapes;
            turn.escapes += escapes.len() as u64;
            turn.chunk += 1;
            changed.notify_all();
            let fits = sizes.bytes(turn.escapes) <= bytes;
            drop(turn);
            if fits {
                // SAFETY: `dst` holds this many escapes and all starts; no other thread has these.
                unsafe {
                    let to = base.0.add((sizes.escapes_at + before) as usize);
                    std::ptr::copy_nonoverlapping(escapes.as_ptr(), to, escapes.len());
                    let starts = base.0.add(sizes.starts_at as usize + 4 * (first as usize + 1));
                    for (i, end) in ends.iter().enumerate() {
                        starts.add(4 * i).cast::<[u8; 4]>().write(((before + end) as u32).to_le_bytes());
                    }
                }
            }
        }
    };
    run_threads(threads, || {
        let mut unless_done = Stop { next: &next, changed: &changed, done: false };
        let result = work();
        unless_done.done = result.is_ok();
        result
    })?;
    let escapes = turn.into_inner().unwrap_or_else(PoisonError::into_inner).escapes;
    if escapes > u32::MAX as u64 {
        let reason =
            format!("{escapes} weights of the matrix have rare exponents, and 2^32 are too many: take fewer rows");
        return Err(Error::InvalidArgument(reason));
    }
    if sizes.bytes(escapes) > bytes {
        return Err(too_small(&sizes, escapes, dst.len()));
    }
    let starts = sizes.starts_at as usize;
    dst[starts..starts + 4].fill(0);
    dst[starts + 4 * (sizes.rows as usize + 1)..sizes.escapes_at as usize].fill(0);
    let end = (sizes.escapes_at + escapes) as usize;
    dst[end..sizes.bytes(escapes) as usize].fill(0);
    progress.finish();
    let head = Head { sizes, escapes, exponents };
    let written = head.write();
    dst[..written.len()].copy_from_slice(&written);
    Ok(Matrix { data: dst, head })
}

/// The chunk whose escapes are next, and how many there are before it.
struct Turn {
    chunk: u64,
    escapes: u64,
}

/// Stops the other threads, those that wait for this one too, when this one ends without being done: after an error or a panic.
struct Stop<'a> {
    next: &'a AtomicU64,
    changed: &'a Condvar,
    done: bool,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.next.store(FAILED, Ordering::Relaxed);
            self.changed.notify_all();
        }
    }
}

/// How long a thread waits for its turn before it looks whether the call is cancelled.
const WAIT: std::time::Duration = std::time::Duration::from_millis(20);
/// The number of the next chunk after an error, or a higher one: there is none.
const FAILED: u64 = u64::MAX / 2;

/// The memory that all threads write to, each to its own rows.
struct Destination(*mut u8);

// SAFETY: it is only used for parts that no two threads share.
unsafe impl Sync for Destination {}

fn too_small(sizes: &Sizes, escapes: u64, given: usize) -> Error {
    Error::BufferTooSmall { what: "the matrix".into(), needed: sizes.bytes(escapes), given: given as u64 }
}

/// Returns the fifteen most frequent exponents, the smallest first, and a zero.
fn frequent(counts: &[u64; 256]) -> [u8; 16] {
    let mut all: [u8; 256] = std::array::from_fn(|e| e as u8);
    all.sort_by_key(|&e| Reverse(counts[e as usize]));
    let chosen = &mut all[..15];
    chosen.sort_unstable();
    std::array::from_fn(|i| if i < 15 { chosen[i] } else { 0 })
}

/// Counts the exponents of rows from all over the matrix.
fn sample(rows: &dyn Rows) -> Result<[u64; 256]> {
    let mut counts = [0; 256];
    let mut scratch = Vec::new();
    let at_once = (SAMPLE_WEIGHTS / rows.columns()).clamp(1, rows.rows());
    let pieces = SAMPLES.min(rows.rows() / at_once);
    for i in 0..pieces {
        let first = i * (rows.rows() - at_once) / (pieces - 1).max(1);
        for weight in rows.get(first, at_once, &mut scratch)? {
            counts[(weight >> 7 & 255) as usize] += 1;
        }
    }
    Ok(counts)
}

/// Encodes whole units: as many bytes are written as they take, and escaped exponents are appended.
type EncodeUnits = unsafe fn(&[[u16; UNIT]], &[u8; 256], &mut [[u8; UNIT_BYTES]], &mut Vec<u8>);

/// Returns the fastest encoder of units that this processor can run.
fn encoder() -> EncodeUnits {
    #[cfg(target_arch = "x86_64")]
    if Variant::Avx512.is_available() && is_x86_feature_detected!("avx512vbmi") {
        return avx512::encode_units;
    }
    encode_units
}

/// Encodes without intrinsics. It is safe to call.
fn encode_units(weights: &[[u16; UNIT]], table: &[u8; 256], to: &mut [[u8; UNIT_BYTES]], escapes: &mut Vec<u8>) {
    for (weights, to) in weights.iter().zip(to) {
        let (mut codes, mut masks) = ([0u8; UNIT], [0u64; 2]);
        for (w, &bits) in weights.iter().enumerate() {
            let (block, at) = (w / BLOCK, place(w % BLOCK));
            to[block * BLOCK + at] = (bits >> 8 & 0x80) as u8 | (bits & 0x7f) as u8;
            codes[block * BLOCK + at] = table[(bits >> 7 & 255) as usize];
        }
        for at in 0..BLOCK {
            to[2 * BLOCK + at] = codes[at] | codes[BLOCK + at] << 4;
        }
        if codes.contains(&ESCAPE) {
            for (at, &code) in codes.iter().enumerate() {
                masks[at / BLOCK] |= ((code == ESCAPE) as u64) << (at % BLOCK);
            }
            append_escapes(weights, masks, escapes);
        }
    }
}

/// Appends the exponents of weights that are escaped: those at the places of the bits.
#[cold]
#[inline(never)]
fn append_escapes(weights: &[u16; UNIT], masks: [u64; 2], escapes: &mut Vec<u8>) {
    for (weights, mut left) in weights.as_chunks::<BLOCK>().0.iter().zip(masks) {
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            escapes.push((weights[weight_at(at)] >> 7) as u8);
            left &= left - 1;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::append_escapes;
    use crate::matrix::layout::{BLOCK, ESCAPE, UNIT, UNIT_BYTES};
    use std::arch::x86_64::*;

    /// Encodes with AVX-512: the 256 codes are in four registers.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 F, BW and VBMI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub unsafe fn encode_units(
        weights: &[[u16; UNIT]],
        table: &[u8; 256],
        to: &mut [[u8; UNIT_BYTES]],
        escapes: &mut Vec<u8>,
    ) {
        // SAFETY: 256 codes are read.
        let table = unsafe {
            let at = |i: usize| table.as_ptr().add(64 * i).cast();
            [_mm512_loadu_si512(at(0)), _mm512_loadu_si512(at(1)), _mm512_loadu_si512(at(2)), _mm512_loadu_si512(at(3))]
        };
        for (weights, to) in weights.iter().zip(to) {
            // SAFETY: each block has 64 weights, and `to` the bytes of two blocks and of their codes.
            unsafe {
                let to = to.as_mut_ptr();
                let (first, one) = encode_block(weights.as_ptr(), &table, to);
                let (second, two) = encode_block(weights.as_ptr().add(BLOCK), &table, to.add(BLOCK));
                // No code has more than four bits, so that none is moved to the other byte of a pair.
                let both = _mm512_or_si512(first, _mm512_slli_epi16::<4>(second));
                _mm512_storeu_si512(to.add(2 * BLOCK).cast(), both);
                if one | two != 0 {
                    append_escapes(weights, [one, two], escapes);
                }
            }
        }
    }

    /// Encodes a block: writes its sign/mantissa bytes, and returns its codes and where escapes are.
    ///
    /// # Safety
    ///
    /// 64 weights can be read, and as many bytes be written.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn encode_block(weights: *const u16, table: &[__m512i; 4], sm: *mut u8) -> (__m512i, u64) {
        // SAFETY: the caller's memory.
        let (a, b) = unsafe { (_mm512_loadu_si512(weights.cast()), _mm512_loadu_si512(weights.add(32).cast())) };
        // The bytes are packed so that `unpack` gives the weights back: in each 16, first eight of a, then eight of b.
        let low = _mm512_set1_epi16(0xff);
        let mantissa = _mm512_packus_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low));
        let sign = _mm512_packus_epi16(_mm512_srli_epi16::<8>(a), _mm512_srli_epi16::<8>(b));
        let (a, b) = (_mm512_srli_epi16::<7>(a), _mm512_srli_epi16::<7>(b));
        let e = _mm512_packus_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low));
        // 0x7f ? mantissa : sign.
        let joined = _mm512_ternarylogic_epi64::<0xca>(_mm512_set1_epi8(0x7f), mantissa, sign);
        // SAFETY: the caller's memory.
        unsafe { _mm512_storeu_si512(sm.cast(), joined) };
        let first = _mm512_permutex2var_epi8(table[0], e, table[1]);
        let second = _mm512_permutex2var_epi8(table[2], e, table[3]);
        let codes = _mm512_mask_mov_epi8(first, _mm512_movepi8_mask(e), second);
        (codes, _mm512_cmpeq_epi8_mask(codes, _mm512_set1_epi8(ESCAPE as i8)))
    }
}

/// Encodes a row, and appends its escaped exponents.
fn encode_row(weights: &[u16], to: &mut [u8], table: &[u8; 256], encode: EncodeUnits, escapes: &mut Vec<u8>) {
    let (units, rest) = weights.as_chunks::<UNIT>();
    let (whole, last) = to.split_at_mut(units.len() * UNIT_BYTES);
    // SAFETY: the encoder was chosen for this processor.
    unsafe { encode(units, table, whole.as_chunks_mut().0, escapes) };
    if rest.is_empty() {
        return;
    }
    // Places that no weight has are never escapes.
    let pad = (0..=255u16).find(|&e| table[e as usize] != ESCAPE).unwrap_or(0) << 7;
    let (mut padded, mut unit) = ([[pad; UNIT]], [[0; UNIT_BYTES]]);
    padded[0][..rest.len()].copy_from_slice(rest);
    // SAFETY: as above.
    unsafe { encode(&padded, table, &mut unit, escapes) };
    let [unit] = unit;
    if rest.len() > BLOCK {
        last.copy_from_slice(&unit);
        return;
    }
    last[..BLOCK].copy_from_slice(&unit[..BLOCK]);
    let codes = &unit[2 * BLOCK..];
    for at in 0..BLOCK / 2 {
        last[BLOCK + at] = codes[at] & 15 | codes[BLOCK / 2 + at] << 4;
    }
    last[BLOCK + BLOCK / 2..].fill(0);
}

const _: () = assert!(SLACK >= BLOCK);
