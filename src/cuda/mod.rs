//! Groups on a CUDA device: images of them, and kernels that decode those into the caller's memory on the caller's
//! stream.
//!
//! - [`image`]: a group's bytes as a device wants them. No CUDA call is made there: sizes, heads and whole images are
//!   made and read on any machine;
//! - [`driver`]: the CUDA driver, loaded at run time;
//! - [`policy`]: what host and kernels agree on;
//! - [`kernels`]: the kernels, chosen and loaded;
//! - [`device`]: an open device: a context with the kernels loaded in it;
//! - [`resident`]: images in device memory;
//! - [`upload`]: images made on the device, from the file's parts;
//! - [`launch`]: decoding, the hot path;
//! - `cudarc` (with the feature of that name): the same with the types of the crate cudarc.
//!
//! ```no_run
//! use df11::cuda::{Device, DeviceOptions, Stream};
//! # fn main() -> Result<(), df11::Error> {
//! # let (model, image, dst) = (df11::Model::open("", &Default::default())?, 0, 0);
//! # let stream = Stream::from_raw(std::ptr::null_mut());
//! let device = Device::open(0, &DeviceOptions::default())?;
//! let group = model.find_group("model.layers.0").expect("a model with layers");
//! let bytes = group.image_layout()?.image_bytes;
//! // `image` and `dst` are device memory of the caller's, `stream` is a stream of its.
//! // SAFETY: they live until the stream has passed the decode.
//! unsafe {
//!     let resident = device.upload(group, image, bytes, stream, None)?;
//!     resident.decompress(dst, 2 * group.element_count(), 0, stream)?;
//! }
//! # Ok(()) }
//! ```
//!
//! The library owns no device memory, no stream and no context. It never synchronises but where the documentation of a
//! call says so, and none of those is on the way of a decode.

#[cfg(feature = "cudarc")]
mod cudarc;
pub(crate) mod device;
pub(crate) mod driver;
pub(crate) mod image;
pub(crate) mod kernels;
pub(crate) mod launch;
pub(crate) mod policy;
pub(crate) mod resident;
pub(crate) mod upload;

pub use device::{Device, DeviceInfo, DeviceOptions};
pub use driver::{DevicePtr, Stream};
pub use image::{Head as ImageHead, Layout as ImageLayout};
pub use kernels::Choice;
pub use launch::decompress_batch;
pub use resident::Resident;
pub use upload::Staging;
