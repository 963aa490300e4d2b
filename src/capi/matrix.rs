//! Matrices to multiply with.

use super::args::{Bytes, In, Info, List, Out, Owned, destination};
use super::frame::{call, quietly};
use super::model::{MODEL, df11_model, tensor_of};
use super::progress::df11_progress;
use super::status::{df11_error, df11_status};
use super::structs::Sizeable;
use super::tensor::{DF11_DTYPE_BF16, DF11_DTYPE_F32};
use crate::error::{Error, Result};
use crate::matrix::{self, Matrix, MatrixOptions, Order, Vectors};
use crate::progress::Progress;
use half::bf16;
use std::ffi::c_void;
use std::ptr;

/// The first byte of a matrix is at a multiple of this address.
pub const DF11_MATRIX_ALIGNMENT: u64 = 64;
const _: () = assert!(DF11_MATRIX_ALIGNMENT == matrix::ALIGNMENT as u64);

/// An order of sums, the same on every processor: 32 sums in f32, where sum j takes the products of
/// columns j, j + 32, j + 64 and so on, each by a fused multiply-add. Columns that are missing from
/// the last 32 count as zeros. In the end sum j takes sum j + 16, for each j below 16; then j + 8,
/// j + 4, j + 2 and j + 1 likewise; sum 0 is the result.
pub const DF11_ORDER_LANES: u32 = 0;
/// An order of sums, that of ggml's ggml_vec_dot_bf16() where it is compiled for AVX2 and FMA: as
/// DF11_ORDER_LANES, except that the columns after the last multiple of 32 are multiplied in f32 and
/// added in f64. For x of bf16.
pub const DF11_ORDER_GGML_AVX2: u32 = 1;
/// An order of sums, that of ggml_vec_dot_bf16() where it is compiled for AVX-512 without BF16: as
/// DF11_ORDER_GGML_AVX2, except that sums 0 to 15 and sums 16 to 31 are added up apart, and their
/// results in f64. For x of bf16.
pub const DF11_ORDER_GGML_AVX512: u32 = 2;
/// An order of sums, that of ggml_vec_dot_bf16() where it is compiled for AVX-512 with BF16: sum j
/// takes the products of columns 2j + 1 and 2j (in this order), 2j + 65 and 2j + 64 and so on, as
/// the instruction vdpbf16ps does it: by fused multiply-adds, with subnormal numbers as zeros. The
/// 32 sums are added up as in DF11_ORDER_GGML_AVX512; columns after the last multiple of 64 follow
/// in f64. For x of bf16.
pub const DF11_ORDER_GGML_AVX512_BF16: u32 = 3;

/// A matrix of bf16 weights at about 12 bits each, in memory that you provide. Products with it have
/// the bits of products with plain bf16 rows in the same order of sums, and take less time, because
/// they wait for fewer bytes. It never changes: any number of threads may use it at once.
pub struct df11_matrix {
    matrix: Matrix<'static>,
}

/// What messages call a matrix.
const MATRIX: &str = "the matrix";

/// A matrix. Begin with DF11_MATRIX_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_matrix_info {
    /// sizeof(df11_matrix_info)
    pub struct_size: usize,
    /// Its rows.
    pub row_count: u64,
    /// Its columns.
    pub column_count: u64,
    /// Bytes of the whole matrix.
    pub matrix_bytes: u64,
    /// Weights whose exponents are rare, and take a byte more.
    pub escape_count: u64,
}

// SAFETY: repr(C), begins with its size, five words.
unsafe impl Sizeable for df11_matrix_info {
    const NAME: &'static str = "df11_matrix_info";
    const FIRST: usize = 40;
}

const _: () = assert!(size_of::<df11_matrix_info>() == 40);

/// Says how many bytes a matrix takes at most: `*matrix_bytes` bytes, two and a half for each
/// weight. Matrices of trained weights take six tenths of that, which is known once they are made:
/// reserve address space for the bound (pages that are never written to take no memory), or make the
/// matrix in one buffer and copy it.
///
/// Errors: DF11_INVALID_ARGUMENT if there are no weights, or 2^48 and more.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_matrix_bound(
    row_count: u64,
    column_count: u64,
    matrix_bytes: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `matrix_bytes` is NULL or writable.
    unsafe {
        call(error, || {
            let out = Out::new(matrix_bytes).clear(0)?;
            out.set(matrix::bound(row_count, column_count)?);
            Ok(())
        })
    }
}

/// Makes a matrix of `row_count` rows of `column_count` bf16 weights, one row after the other at
/// `weights` (aligned to 2 bytes), and writes it to `dst`, a buffer of `dst_bytes` bytes that you
/// provide, aligned to DF11_MATRIX_ALIGNMENT. `*matrix_bytes` is how many it has used;
/// df11_matrix_bound() are always enough. Give these bytes to df11_matrix_bind(). They depend on the
/// weights alone; every weight comes back with all its bits, infinities and NaNs too.
///
/// The bytes hold no address: you may move them, keep them in a file or in shared memory, and bind
/// them in other processes, with a library of the same version: this is a format of memory, and not
/// one to exchange models in. `threads` threads work, the calling one among them; 0 means 1. They
/// end before the call returns. Each allocates less than 3 MB, and for rows of more than 2^18
/// weights 5 bytes more for each of them. `progress` is NULL, or counts and cancels the call.
///
/// Errors: DF11_INVALID_ARGUMENT (no weights, or 2^48 and more), DF11_MISALIGNED;
/// DF11_BUFFER_TOO_SMALL, and then `*matrix_bytes` is the number that is needed, or, if not even the
/// rows fit, the number without rare exponents; DF11_CANCELLED. After an error `dst` holds no
/// matrix.
///
/// # Safety
///
/// Nobody else uses `dst` during the call. `weights` and `dst` do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_matrix_write(
    weights: *const u16,
    row_count: u64,
    column_count: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    threads: u32,
    progress: *mut df11_progress,
    matrix_bytes: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: as many weights as there are can be read, `dst_bytes` bytes at `dst` are this call's,
    // `progress` is NULL or open, `matrix_bytes` is NULL or writable.
    unsafe {
        call(error, || {
            let count = row_count.saturating_mul(column_count).min(usize::MAX as u64) as usize;
            let weights = List::new(weights.cast::<bf16>(), count, "the weights");
            let (progress, dst) = (In::new(progress, "the progress"), buffer(dst, dst_bytes));
            written(
                Out::new(matrix_bytes),
                progress,
                || {
                    // What cannot be is refused before the rows are looked at.
                    matrix::bound(row_count, column_count)?;
                    Ok((weights.get()?, dst?))
                },
                |(weights, dst), progress| matrix::write(weights, column_count, dst, &with(threads), progress),
            )
        })
    }
}

/// Makes a matrix as df11_matrix_write() does, of a bf16 tensor of a model, plain or compressed: of
/// `row_count` rows from `first_row` on. The tensor is seen as rows of `column_count` weights, one
/// after the other: one of experts, rows and columns (df11_tensor_info.shape) has experts times rows
/// of them. It is decoded in pieces by all threads, so that its weights are never all in memory.
///
/// Errors: those of df11_matrix_write(); DF11_NOT_FOUND (no such tensor); DF11_INVALID_ARGUMENT for
/// a tensor that is not of bf16, is not whole rows of `column_count`, or has no such rows;
/// DF11_CORRUPT, DF11_IO. After an error `dst` holds no matrix.
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_write_matrix(
    model: *const df11_model,
    tensor: u64,
    column_count: u64,
    first_row: u64,
    row_count: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    threads: u32,
    progress: *mut df11_progress,
    matrix_bytes: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL or open, `dst_bytes` bytes at `dst` are this call's, `progress` is NULL or open,
    // `matrix_bytes` is NULL or writable.
    unsafe {
        call(error, || {
            let (model, progress) = (In::new(model, MODEL), In::new(progress, "the progress"));
            let dst = buffer(dst, dst_bytes);
            written(
                Out::new(matrix_bytes),
                progress,
                || Ok((tensor_of(&model.get()?.model, tensor)?, dst?)),
                |(tensor, dst), progress| {
                    let rows = first_row..first_row.saturating_add(row_count);
                    tensor.write_matrix(column_count, rows, dst, &with(threads), progress)
                },
            )
        })
    }
}

/// Makes a matrix of what `args` returns and says how many bytes it takes, or would take.
fn written<'a, A>(
    matrix_bytes: Out<u64>,
    progress: In<df11_progress>,
    args: impl FnOnce() -> Result<A>,
    write: impl FnOnce(A, &Progress) -> Result<Matrix<'a>>,
) -> Result<()> {
    let out = matrix_bytes.clear(0)?;
    let none = Progress::new();
    let progress = progress.given().map_or(&none, |p| &p.progress);
    let args = args()?;
    match write(args, progress) {
        Ok(matrix) => out.set(matrix.data().len() as u64),
        Err(error) => {
            if let Error::BufferTooSmall { needed, .. } = error {
                out.set(needed);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn with(threads: u32) -> MatrixOptions {
    MatrixOptions::new().threads(threads as usize)
}

/// Returns the memory of a matrix to be made.
///
/// # Safety
///
/// `dst` is NULL, or `dst_bytes` bytes there are the caller's alone.
unsafe fn buffer<'a>(dst: *mut c_void, dst_bytes: usize) -> Result<&'a mut [u8]> {
    let dst = destination(dst)?;
    if dst_bytes > isize::MAX as usize {
        return Err(Error::InvalidArgument(format!("a buffer of {dst_bytes} bytes is larger than any memory")));
    }
    // SAFETY: C caller: the bytes are this call's. They are only written to before they are read: see the shells.
    Ok(unsafe { std::slice::from_raw_parts_mut(dst, dst_bytes) })
}

/// Takes a matrix where it is: `data_bytes` bytes at `data`, aligned to DF11_MATRIX_ALIGNMENT, that
/// df11_matrix_write() or df11_model_write_matrix() has written, wherever they have been since. It
/// checks that no call can be led outside them. Weights are not checked: other bytes are other
/// weights. More bytes than the matrix has are allowed.
///
/// On success `*out` is the matrix, to be given to df11_matrix_free(); otherwise it is NULL.
///
/// Errors: DF11_MISALIGNED; DF11_INVALID_FORMAT if the bytes are no matrix of this library's
/// version, or fewer than it has; DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The bytes stay, and nobody changes them, until the matrix is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_matrix_bind(
    data: *const c_void,
    data_bytes: usize,
    out: *mut *mut df11_matrix,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `data_bytes` bytes at `data` stay as they are until the matrix is freed, `out` is NULL or writable.
    unsafe { call(error, || bind(Bytes::new(data, data_bytes, MATRIX), Out::new(out))) }
}

fn bind(data: Bytes<'static>, out: Out<*mut df11_matrix>) -> Result<()> {
    let out = out.clear(ptr::null_mut())?;
    out.give(df11_matrix { matrix: Matrix::new(data.get()?)? });
    Ok(())
}

/// Frees a matrix, and leaves its bytes alone. NULL is allowed.
///
/// # Safety
///
/// No call uses `matrix` any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_matrix_free(matrix: *mut df11_matrix) {
    // SAFETY: C caller: `matrix` is NULL, or freed this once.
    unsafe { quietly(|| Owned::new(matrix).free()) }
}

/// Describes a matrix. After an error `*out` is cleared except for its struct_size; if that is
/// wrong, `*out` is left alone.
///
/// Errors: DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_matrix_get_info(
    matrix: *const df11_matrix,
    out: *mut df11_matrix_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `matrix` is NULL or bound, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || matrix_info(In::new(matrix, MATRIX), Info::new(out))) }
}

fn matrix_info(matrix: In<df11_matrix>, out: Info<df11_matrix_info>) -> Result<()> {
    let out = out.clear()?;
    let matrix = &matrix.get()?.matrix;
    out.set(&df11_matrix_info {
        struct_size: 0,
        row_count: matrix.rows(),
        column_count: matrix.columns(),
        matrix_bytes: matrix.data().len() as u64,
        escape_count: matrix.escapes(),
    })
}

/// Decodes `count` weights from weight `first` on (both in elements), to `dst`: bf16 bits in the
/// processor's byte order, 2 bytes each. Row r begins at weight r * column_count. The calling thread
/// works, and nothing is allocated; calls from several threads may overlap. `dst` is a buffer that
/// you provide, aligned to 2 bytes (64, with rows of a multiple of 32 weights, is fastest), of
/// `dst_bytes` bytes, at least 2 * count.
///
/// Errors: DF11_INVALID_ARGUMENT (a range outside the matrix), DF11_BUFFER_TOO_SMALL,
/// DF11_MISALIGNED.
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_matrix_decompress(
    matrix: *const df11_matrix,
    first: u64,
    count: u64,
    dst: *mut c_void,
    dst_bytes: usize,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `matrix` is NULL or bound, and `dst_bytes` bytes at `dst` are this call's. `weights` returns an
    // aligned address with room for `count` weights; for a range outside the matrix it may have less, and
    // `decompress_raw` refuses that before it writes.
    unsafe {
        call(error, || {
            let matrix = &In::new(matrix, MATRIX).get()?.matrix;
            let dst = super::host::weights(matrix.rows() * matrix.columns(), first, count, dst, dst_bytes)?;
            matrix.decompress_raw(first, count, dst, matrix::Variant::best())
        })
    }
}

/// Multiplies `row_count` rows, from `first_row` on, with `vector_count` vectors x: for each vector
/// v and each row r, y[v * y_stride + r - first_row] becomes the sum over all columns k of weight
/// (r, k) times x[v * x_stride + k]. `x_dtype` is DF11_DTYPE_F32 or DF11_DTYPE_BF16; `y` is f32,
/// aligned to 4 bytes. Both strides are in elements, and mean nothing for one vector. The sums have
/// the order `order` (DF11_ORDER_*), so that they do not depend on the instructions that the
/// processor has, on the rows of a call or on the number of vectors: df11_matrix_decompress() and a
/// plain product in that order give the same bits. (NaNs may differ in their bits.)
///
/// The calling thread works, and nothing is allocated: call it from threads of your own, each with
/// rows of its own. One vector is the fast case: it waits for memory. Every further vector costs the
/// arithmetic only; beyond some 64, decode rows to a buffer that stays in the cache, and multiply
/// them with a kernel for matrices.
///
/// Errors: DF11_INVALID_ARGUMENT (rows outside the matrix, no such type or order, an order of ggml
/// with x of f32, `y_stride` below `row_count`), DF11_MISALIGNED.
///
/// # Safety
///
/// x has column_count elements at each multiple of its stride, y has `row_count`. `x` and `y` do not
/// overlap, and nobody else uses these elements of `y` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_matrix_multiply(
    matrix: *const df11_matrix,
    first_row: u64,
    row_count: u64,
    x: *const c_void,
    x_dtype: u32,
    x_stride: u64,
    vector_count: u64,
    order: u32,
    y: *mut f32,
    y_stride: u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `matrix` is NULL or bound, and the vectors at `x` and the results at `y` are there.
    unsafe {
        call(error, || {
            let matrix = &In::new(matrix, MATRIX).get()?.matrix;
            let order = order_of(order)?;
            let bf16 = match x_dtype {
                DF11_DTYPE_BF16 => true,
                DF11_DTYPE_F32 => false,
                _ => return Err(Error::InvalidArgument(format!("x of type {x_dtype}: it is F32 or BF16"))),
            };
            if vector_count > 1 && y_stride < row_count {
                let reason =
                    format!("a y_stride of {y_stride} is less than the {row_count} rows of a vector's results");
                return Err(Error::InvalidArgument(reason));
            }
            if x.is_null() || y.is_null() {
                return Err(Error::InvalidArgument("x or y is NULL".into()));
            }
            if !y.is_aligned() {
                return Err(Error::Misaligned { what: "y".into(), to: 4 });
            }
            let x = Vectors { at: x.cast(), stride: x_stride as usize, bf16 };
            let rows = first_row..first_row.saturating_add(row_count);
            matrix.multiply_raw(rows, vector_count as usize, x, order, y, y_stride as usize, matrix::Variant::best())
        })
    }
}

fn order_of(order: u32) -> Result<Order> {
    Ok(match order {
        DF11_ORDER_LANES => Order::Lanes,
        DF11_ORDER_GGML_AVX2 => Order::GgmlAvx2,
        DF11_ORDER_GGML_AVX512 => Order::GgmlAvx512,
        DF11_ORDER_GGML_AVX512_BF16 => Order::GgmlAvx512Bf16,
        _ => return Err(Error::InvalidArgument(format!("there is no order of sums {order}"))),
    })
}
