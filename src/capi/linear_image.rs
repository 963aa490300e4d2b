//! Linear images: groups as a CUDA device multiplies with them.

use super::args::{In, Info, List, Out, Owned, destination};
use super::device::{DEVICE, df11_device, df11_devptr, df11_stream, stream_of};
use super::frame::{call, quietly};
use super::image::{df11_image_info, info_of_linear};
use super::model::{MODEL, df11_model, group_of};
use super::progress::df11_progress;
use super::resident::{RESIDENT, df11_resident, make};
use super::shard::watched;
use super::status::{df11_error, df11_status};
use crate::cuda::LinearPlan;
use crate::error::Result;
use std::ffi::c_void;
use std::ptr;

/// Rows and columns of a tensor of a group. Zeros leave them to the model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct df11_linear_shape {
    /// Rows: outputs.
    pub rows: u64,
    /// Columns: inputs.
    pub columns: u64,
}

const _: () = assert!(size_of::<df11_linear_shape>() == 16);

/// A group, counted, so that its linear image can be made. It never changes: any number of threads
/// may use it at once.
pub struct df11_linear_plan {
    plan: LinearPlan<'static>,
}

/// What messages call a plan of a linear image.
const PLAN: &str = "the plan of a linear image";

/// Counts a group, so that its linear image can be made. A *linear image* is an image of a second
/// kind: every weight has 12 bits of its own, in the order in which a device multiplies, so that it
/// need not be decoded first. It takes about 12.05 bits a weight, where other images take 10.84. It
/// decodes as those do: df11_device_bind_image() takes it, and then all df11_resident_decompress…()
/// functions do. It is a form of memory, for this version of the library: keep models as DF11.
///
/// `shapes` has the rows and columns of each of the group's tensors, `shape_count` of them; NULL
/// and 0 leave all to the model, which knows them from the config, from an original, or from
/// df11_open_options. Of a tensor with more than two dimensions the last one is the columns. One
/// whose shape is not known, or that would be mostly padding because its rows are short or few, can
/// be decoded, and not multiplied with.
///
/// The group is decoded twice, a piece at a time; there is no copy of the whole. `threads` threads
/// work, the calling one among them; 0 means 1. Each allocates less than 4 MB, and all end before
/// the call returns. The plan keeps 4 bytes for 1,024 weights. `progress` is NULL, or counts and
/// cancels the call.
///
/// On success `*out` is the plan, to be given to df11_linear_plan_free(); otherwise it is NULL.
///
/// Errors: DF11_NOT_FOUND (no such group); DF11_INVALID_ARGUMENT for shapes that are not those of
/// as many tensors, or of as many weights; those of df11_model_decompress(); DF11_OUT_OF_MEMORY,
/// DF11_CANCELLED.
///
/// # Safety
///
/// The model stays open until the plan is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_model_plan_linear_image(
    model: *const df11_model,
    group: u64,
    shapes: *const df11_linear_shape,
    shape_count: usize,
    threads: u32,
    progress: *mut df11_progress,
    out: *mut *mut df11_linear_plan,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `model` is NULL, or open until the plan is freed; `shape_count` shapes can be read, `progress` is
    // NULL or open, `out` is NULL or writable.
    unsafe {
        call(error, || {
            let out = Out::new(out).clear(ptr::null_mut())?;
            let shapes = List::new(shapes, shape_count, "the shapes").get()?;
            let shapes: Vec<_> = shapes.iter().map(|shape| (shape.rows, shape.columns)).collect();
            let group = group_of(&In::<'static>::new(model, MODEL).get()?.model, group)?;
            let progress = In::new(progress, "the progress");
            let plan = watched(progress, |progress| group.linear(&shapes, threads as usize, progress))?;
            out.give(df11_linear_plan { plan });
            Ok(())
        })
    }
}

/// Describes the linear image of a plan: `image_bytes` is what df11_linear_plan_write_image()
/// needs. After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is
/// left alone.
///
/// Errors: DF11_INVALID_ARGUMENT.
///
/// # Safety
///
/// The pointers are as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_linear_plan_get_image_info(
    plan: *const df11_linear_plan,
    out: *mut df11_image_info,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `plan` is NULL or not freed, `out` is NULL or a struct of its struct_size.
    unsafe { call(error, || image_info(In::new(plan, PLAN), Info::new(out))) }
}

fn image_info(plan: In<df11_linear_plan>, out: Info<df11_image_info>) -> Result<()> {
    let out = out.clear()?;
    out.set(&info_of_linear(plan.get()?.plan.head()))
}

/// Writes the linear image of a plan to `dst`, a buffer of `dst_bytes` bytes that you provide, with
/// any alignment, pinned or not; nothing is read from it. Copy it to a device, to an address that
/// is a multiple of 256, and give it to df11_device_bind_image(). The bytes depend on the group and
/// the shapes alone.
///
/// `threads` threads work, the calling one among them; 0 means 1. Each allocates less than 4 MB,
/// and all end before the call returns. `progress` is NULL, or counts and cancels the call.
///
/// Errors: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL; those of df11_model_decompress();
/// DF11_OUT_OF_MEMORY, DF11_CANCELLED. After an error that is not the buffer's the first 256 bytes
/// are zeros: no image.
///
/// # Safety
///
/// Nobody else uses `dst` during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_linear_plan_write_image(
    plan: *const df11_linear_plan,
    dst: *mut c_void,
    dst_bytes: usize,
    threads: u32,
    progress: *mut df11_progress,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: `plan` is NULL or not freed, `dst_bytes` bytes at `dst` are this call's, `progress` is NULL or open.
    unsafe {
        call(error, || {
            let plan = &In::new(plan, PLAN).get()?.plan;
            let (dst, progress) = (destination(dst)?, In::new(progress, "the progress"));
            watched(progress, |progress| plan.write_image_raw(dst, dst_bytes as u64, threads as usize, progress))
        })
    }
}

/// Makes the linear image of a plan in device memory that you provide, from a resident that holds
/// the whole group, such as one that df11_device_upload() made: `image_bytes` bytes at `d_image`,
/// at a multiple of 256. The bytes are those of df11_linear_plan_write_image(), but only 4 bytes
/// for 1,024 weights are copied from the host. Copies and kernels are put into `stream`; work that
/// you put there afterwards may use the image. No memory is allocated on the device.
///
/// The group is decoded a piece at a time to `d_scratch`, device memory of `scratch_bytes` bytes at
/// a multiple of 16: at least 32 for each column of the tensor that has most; some MiB are
/// sensible. If the source contradicts itself, or is no image of the group that was counted,
/// decoding the new image reports DF11_CORRUPT in d_status.
///
/// On success `*out` is the resident of the new image, to be given to df11_resident_free();
/// otherwise it is NULL. `source` and the plan may be freed then; the source's image must stay.
///
/// Errors: DF11_INVALID_ARGUMENT for a source that does not hold the whole group, and for memories
/// that overlap; DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED; DF11_DEFAULT_STREAM; DF11_WRONG_DEVICE for
/// a stream or a source of another context; DF11_CAPTURING, because the work cannot be captured;
/// DF11_OUT_OF_MEMORY; DF11_CUDA: then parts of the work may be in the stream, so keep all memory
/// until it has executed them.
///
/// # Safety
///
/// The device memory stays until the resident is freed, its decodes are done and no captured graph
/// that uses it will be launched. The resident, the scratch memory, which nobody else uses, and the
/// source's image stay until the stream has executed the work.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_device_make_linear_image(
    device: *mut df11_device,
    plan: *const df11_linear_plan,
    source: *const df11_resident,
    d_image: df11_devptr,
    image_bytes: usize,
    d_scratch: df11_devptr,
    scratch_bytes: usize,
    stream: df11_stream,
    out: *mut *mut df11_resident,
    error: *mut df11_error,
) -> df11_status {
    // SAFETY: C caller: the handles are NULL or open, `out` is NULL or writable, and the image, the scratch memory, which is
    // this call's, the source's image and the stream are there until the stream has executed the work.
    unsafe {
        call(error, || {
            make(Out::new(out), In::new(device, DEVICE), |device| {
                let (plan, source) = (&In::new(plan, PLAN).get()?.plan, &In::new(source, RESIDENT).get()?.resident);
                let (image_bytes, scratch_bytes, stream) =
                    (image_bytes as u64, scratch_bytes as u64, stream_of(stream));
                device.device.make_linear(plan, source, d_image, image_bytes, d_scratch, scratch_bytes, stream)
            })
        })
    }
}

/// Frees a plan of a linear image, from any thread. NULL is allowed. Images that were made with it
/// stay.
///
/// # Safety
///
/// No call uses `plan` any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn df11_linear_plan_free(plan: *mut df11_linear_plan) {
    // SAFETY: C caller: `plan` is NULL or is freed once, and nobody uses it any more.
    let plan = unsafe { Owned::new(plan) };
    quietly(|| plan.free());
}
