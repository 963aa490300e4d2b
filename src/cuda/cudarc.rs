//! The types of the crate cudarc as arguments, for Rust engines that own their contexts, streams and memory through it.
//! Present only with the feature `cudarc`.
//!
//! No call of the driver goes through cudarc here, except what its slices do when their addresses are asked for: where
//! a context has several streams they wait for and record events, so that work in different streams is ordered. Engines
//! that capture graphs, or want the bare launch, turn that off (`CudaContext::disable_event_tracking`) or pass
//! addresses to [`Resident::decompress`].

use super::{Device, DeviceOptions, Resident, Stream};
use crate::error::Result;
use cudarc::driver::{CudaContext, CudaStream, DevicePtrMut};
use half::bf16;

impl From<&CudaStream> for Stream {
    /// Takes the same stream, which must outlive the work that is enqueued in it.
    fn from(stream: &CudaStream) -> Stream {
        Stream::from_raw(stream.cu_stream().cast())
    }
}

impl Device {
    /// Opens the device of a cudarc context. Such a context is always the device's primary one, so it is retained once
    /// more, and stays alive as long as the device.
    ///
    /// cudarc finds the driver by itself. On a machine with one driver that is the one that is found here; if `options`
    /// name another, streams of the one are invalid in the other.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn of_cudarc(context: &CudaContext, options: &DeviceOptions) -> Result<Device> {
        Device::open(context.ordinal() as i32, options)
    }
}

impl Resident {
    /// Decodes as many weights as `dst` has elements, from weight `first`, into a cudarc slice, ordered in `stream`
    /// after the work that uses that slice.
    ///
    /// cudarc allocates slices of `bf16` only with its own feature `f16`, which an engine turns on for itself; without
    /// it, use a slice of `u16`: `slice.transmute_mut::<bf16>(count)`. This call does not report an image that
    /// contradicts itself; [`Resident::decompress_range`] takes a status for that.
    ///
    /// # Errors
    ///
    /// As [`Resident::decompress_range`]; `WrongDevice` for a stream of another context.
    ///
    /// # Safety
    ///
    /// The image must be memory of the stream's context until the stream has executed the decode, and complete when the
    /// stream gets there. `stream` and `dst` must be of the same driver as the resident, and `dst` of the stream's
    /// context.
    pub unsafe fn decompress_into(
        &self,
        first: u64,
        dst: &mut impl DevicePtrMut<bf16>,
        stream: &CudaStream,
    ) -> Result<()> {
        let count = dst.len() as u64;
        let (address, _ordered) = dst.device_ptr_mut(stream);
        // SAFETY: the slice has `count` weights and frees its memory in stream order; the caller keeps the image.
        unsafe { self.decompress_range(first, count, address, 2 * count, 0, stream.into()) }
    }
}
