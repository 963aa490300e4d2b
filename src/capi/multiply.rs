//! Products with linear images: what `include/df11_experimental.h` declares.

use super::args::{In, List, Out};
use super::device::{DEVICE, df11_device, df11_devptr, df11_stream, stream_of};
use super::frame::call;
use super::resident::df11_resident;
use super::status::{df11_error, df11_status};
use super::structs::{self, Sizeable};
use super::tensor::{DF11_DTYPE_BF16, DF11_DTYPE_F32};
use crate::cuda::multiply::{self, Experts, Operand, Product};
use crate::error::{Error, Result};

/// The most matrices of a call of df11_linear().
pub const DF11_LINEAR_MATRICES_MAX: u32 = 8;
/// The most vectors of a call of df11_linear().
pub const DF11_LINEAR_VECTORS_MAX: u32 = 8;
const _: () = assert!(DF11_LINEAR_MATRICES_MAX as usize == multiply::MOST_MATRICES);
const _: () = assert!(DF11_LINEAR_VECTORS_MAX == multiply::MOST_VECTORS);

/// A matrix of df11_linear(), and where its results go.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_linear_matrix {
    /// A resident whose image is linear.
    pub resident: *const df11_resident,
    /// The number of its tensor in the image; with experts, that of expert 0.
    pub tensor: u64,
    /// With experts: expert e is tensor number tensor + e * tensor_step.
    pub tensor_step: u64,
    /// Rows: results for each vector.
    pub row_count: u64,
    /// Columns: the same for all matrices of a call.
    pub column_count: u64,
    /// Results: row r of vector v is element v * y_stride + r; of the chosen expert number i it is
    /// element i * y_step + v * y_stride + r.
    pub d_y: df11_devptr,
    /// Elements from one vector's results to the next one's: at least row_count. Means nothing for
    /// one vector.
    pub y_stride: u64,
    /// Elements from one chosen expert's results to the next one's. Means nothing without experts.
    pub y_step: u64,
}

const _: () = assert!(size_of::<df11_linear_matrix>() == 64);

/// What all matrices of df11_linear() share. Begin with DF11_LINEAR_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_linear_options {
    /// sizeof(df11_linear_options)
    pub struct_size: usize,
    /// The vectors, bf16: column k of vector v is element v * x_stride + k. A multiple of 16.
    pub d_x: df11_devptr,
    /// Elements from one vector to the next: a multiple of 8, at least column_count. Means nothing
    /// for one vector.
    pub x_stride: u64,
    /// Vectors: 1 to DF11_LINEAR_VECTORS_MAX.
    pub vector_count: u32,
    /// The type of the results: DF11_DTYPE_F32, or DF11_DTYPE_BF16 (rounded to the nearest, of two
    /// to the even one).
    pub y_dtype: u32,
    /// 0 for plain matrices. Else the address of chosen_count uint32_t in device memory, a multiple
    /// of 4: the numbers of the experts to multiply with.
    pub d_ids: df11_devptr,
    /// Experts that are chosen: at most 65,535. 0 does nothing.
    pub chosen_count: u64,
    /// Experts that there are: their numbers are below that.
    pub expert_count: u64,
    /// Elements from the vectors of one chosen expert to those of the next one, a multiple of 8; 0
    /// if all are multiplied with the same.
    pub x_step: u64,
    /// Device memory for the sums of split columns, a multiple of 16; 0 if none is needed.
    pub d_workspace: df11_devptr,
    /// Bytes of the workspace: at least those of df11_linear_get_workspace().
    pub workspace_bytes: usize,
    /// 0, or the address of a uint32_t in device memory, a multiple of 4, that you have set to 0.
    pub d_status: df11_devptr,
}

// SAFETY: repr(C), begins with its size, words and two halves of one, and zeros are a value.
unsafe impl Sizeable for df11_linear_options {
    const NAME: &'static str = "df11_linear_options";
    const FIRST: usize = 88;
}

const _: () = assert!(size_of::<df11_linear_options>() == 88);

/// Says whether a device multiplies matrices of that shape with that many vectors: DF11_OK, or
/// DF11_UNSUPPORTED_OPTION with the reason in `error`. Then decode and multiply as before. Matrices
/// have at least one row, at least 64 columns and less than 2^32 weights; more than two vectors take
/// a device of compute capability 8.0 and later, and its own kernels (or, where the driver compiles
/// them, 9.0).
///
/// Errors: DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_check_linear(
    device: *const df11_device,
    row_count: u64,
    column_count: u64,
    vector_count: u32,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `device` is NULL or open.
    unsafe {
        call(error, || {
            let device = &In::new(device, DEVICE).get()?.device;
            let refusal = multiply::refusal(device, row_count, column_count, vector_count);
            refusal.map_or(Ok(()), |reason| Err(Error::UnsupportedOption(reason)))
        })
    }
}

/// Writes to `*workspace_bytes` how much workspace df11_linear() needs for these matrices: 0 unless
/// there are so few rows that their columns are split over the device. It depends on the shapes,
/// vector_count, chosen_count and the device; of `options` no address is looked at. No CUDA call is
/// made. After an error it is 0.
///
/// Errors: as for df11_linear().
///
/// # Safety
///
/// The residents are not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_linear_get_workspace(
    matrices: *const df11_linear_matrix,
    matrix_count: usize,
    options: *const df11_linear_options,
    workspace_bytes: *mut u64,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the list has as many elements as the count says, with residents that are not freed; `options` is
    // NULL or a struct of its size, and the output is NULL or writable.
    unsafe {
        call(error, || {
            let out = Out::new(workspace_bytes).clear(0)?;
            let list = List::new(matrices, matrix_count, "matrices").get()?;
            let product = read(options)?;
            out.set(multiply::workspace_bytes(operands(list)?, list.len(), &product)?);
            Ok(())
        })
    }
}

/// Multiplies: for each matrix W of a list, each vector x and each row r, y becomes the sum over all
/// columns k of W(r, k) * x(k). The weights are read from linear images and never decoded to memory.
/// All matrices of a call have the same columns and the same vectors: query, key and value, or gate
/// and up. One launch does all of them; a second one follows where columns are split. Both lists are
/// in host memory and are read during the call only.
///
/// Nothing is allocated, on host or device, and nothing is waited for, loaded or locked. The call
/// may be captured in a graph, and made from any thread. `stream` belongs to the device's context,
/// and is not NULL (see DF11_DEVICE_ALLOW_DEFAULT_STREAM).
///
/// With one or two vectors the sums are made in a written order, so that every device, every launch
/// and every replay gives the same bits. All are fused multiply-adds in f32, rounded to the nearest.
/// Columns are cut in runs of 512. In a run, quarter t (0 to 3) takes the columns k with
/// (k / 16) % 4 = t, rising, from +0 on; S = (s0 + s1) + (s2 + s3). A weight whose exponent is none
/// of the image's usual ones counts as +0 there, and is added to S afterwards, in the order of
/// columns. y is the sum of the runs from the left. With three to eight vectors tensor cores make
/// the sums of 64 columns, in an order that is the hardware's; these are added in f32. The result
/// is within 2^-22 of the sum of all |W(r, k) * x(k)| where an mma.sync adds its products one by
/// one, which hardware need not do exactly.
///
/// x must be finite: a weight that counts as +0 would make NaN of infinity.
///
/// With experts (d_ids), the matrices of a list are the gate, the up, ... of expert 0, and the
/// device reads the numbers of the experts. All experts of a matrix have its shape. A number that
/// is not below expert_count gives zeros, and raises the status to DF11_INVALID_ARGUMENT.
///
/// The status is raised to DF11_CORRUPT if a kernel notices that an image contradicts itself. The
/// results are then undefined, or zeros. Nothing is read outside of images, vectors and numbers, and
/// nothing written outside of results, workspace and status, whatever an image says.
///
/// Errors, after which nothing was enqueued: DF11_UNSUPPORTED_OPTION if an image is not linear, if a
/// tensor is stored in another shape, or if df11_device_check_linear() says so;
/// DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL (the workspace), DF11_MISALIGNED,
/// DF11_DEFAULT_STREAM, DF11_WRONG_DEVICE (a stream or a matrix of another context), DF11_CUDA,
/// DF11_CAPTURING. If the driver refuses the second of two launches, the first one is in the stream;
/// the message says so.
///
/// # Safety
///
/// The residents are not freed, and `stream` is a stream. Images, vectors, numbers, workspace,
/// results and status word are device memory of its context until it has executed the work, and each
/// time that a graph which captured the call is launched. Meanwhile nobody writes what is read or
/// uses what is written. Results overlap neither each other nor anything else that is named.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_linear(
    matrices: *const df11_linear_matrix,
    matrix_count: usize,
    options: *const df11_linear_options,
    stream: df11_stream,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: as in df11_linear_get_workspace(); `stream` is a stream, and all memory is of its context until it
    // has executed the work.
    unsafe {
        call(error, || {
            let list = List::new(matrices, matrix_count, "matrices").get()?;
            let product = read(options)?;
            multiply::multiply(operands(list)?, list.len(), &product, stream_of(stream))
        })
    }
}

/// Reads the options.
///
/// # Safety
///
/// `at` is NULL or points to a struct as large as its `struct_size` says.
unsafe fn read(at: *const df11_linear_options) -> Result<Product> {
    // SAFETY: as the caller promises.
    let options = unsafe { structs::read_known(at)? };
    let options = options.ok_or_else(|| Error::InvalidArgument("the df11_linear_options is NULL".into()))?;
    // SAFETY: as the caller promises.
    unsafe { structs::refuse_unknown(at)? };
    let y_bf16 = match options.y_dtype {
        DF11_DTYPE_F32 => false,
        DF11_DTYPE_BF16 => true,
        other => return Err(Error::InvalidArgument(format!("y of type {other}: it is F32 or BF16"))),
    };
    let experts = (options.d_ids != 0).then_some(Experts {
        ids: options.d_ids,
        chosen: options.chosen_count,
        count: options.expert_count,
        x_step: options.x_step,
    });
    Ok(Product {
        x: options.d_x,
        x_stride: options.x_stride,
        batch: options.vector_count,
        y_bf16,
        experts,
        workspace: options.d_workspace,
        workspace_bytes: options.workspace_bytes as u64,
        status: options.d_status,
    })
}

/// Returns the matrices by their place in a list.
///
/// # Safety
///
/// Each resident is NULL or not freed.
unsafe fn operands<'a>(list: &'a [df11_linear_matrix]) -> Result<impl Fn(usize) -> Operand<'a>> {
    if let Some(i) = list.iter().position(|matrix| matrix.resident.is_null()) {
        return Err(Error::InvalidArgument(format!("matrices[{i}].resident is NULL")));
    }
    Ok(|i: usize| {
        let matrix = &list[i];
        Operand {
            // SAFETY: not NULL, and not freed as the caller promises.
            resident: unsafe { &(*matrix.resident).resident },
            tensor: matrix.tensor,
            step: matrix.tensor_step,
            rows: matrix.row_count,
            columns: matrix.column_count,
            y: matrix.d_y,
            y_stride: matrix.y_stride,
            y_step: matrix.y_step,
        }
    })
}
