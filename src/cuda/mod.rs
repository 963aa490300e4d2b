//! Decoding on a CUDA device: images of groups, and kernels that decode them into your memory on your stream.
//!
//! - `image`: a group's bytes as a device decodes them. It makes no CUDA call: sizes, heads and whole images are made
//!   and read on any machine;
//! - `split`: which slices of a tensor each of several ranks holds;
//! - `driver`: the CUDA driver, loaded at run time;
//! - `policy`: the constants and structs that host and kernels agree on;
//! - `kernels`: the kernels, chosen and loaded;
//! - `device`: an open device: a context with the kernels loaded in it;
//! - `resident`: images in device memory;
//! - `upload`: images made on the device, from the file's parts;
//! - `transcode`: linear images made on the device, from other images;
//! - `launch`: decoding, the hot path;
//! - `multiply`: products with matrices of linear images;
//! - `cudarc` (with the feature of that name): the same calls with the types of the crate cudarc.
//!
//! ```no_run
//! use df11::cuda::{Device, DeviceOptions, Stream};
//! # fn main() -> Result<(), df11::Error> {
//! # let (model, image, dst) = (df11::Model::open("", &Default::default())?, 0, 0);
//! # let stream = Stream::from_raw(std::ptr::null_mut());
//! let device = Device::open(0, &DeviceOptions::default())?;
//! let group = model.find_group("model.layers.0").expect("a model with layers");
//! let bytes = group.image_layout()?.image_bytes;
//! // SAFETY: `image` and `dst` are device memory that stays until `stream` has executed the decode.
//! unsafe {
//!     let resident = device.upload(group, image, bytes, stream, None)?;
//!     resident.decompress(dst, 2 * group.element_count(), 0, stream)?;
//! }
//! # Ok(()) }
//! ```
//!
//! The library owns no device memory, no stream and no context. It synchronises only where the documentation of a call
//! says so, and no such call is needed to decode.

#[cfg(feature = "cudarc")]
mod cudarc;
pub(crate) mod device;
pub(crate) mod driver;
pub(crate) mod image;
pub(crate) mod kernels;
pub(crate) mod launch;
pub(crate) mod multiply;
pub(crate) mod policy;
pub(crate) mod resident;
pub(crate) mod split;
mod transcode;
pub(crate) mod upload;

pub use device::{Device, DeviceInfo, DeviceOptions};
pub use driver::{DevicePtr, Stream};
pub use image::linear::{LinearHead, LinearPlan, LinearTensor};
pub use image::{Extent as ImageExtent, Head as ImageHead, ImageLayout, Shard, Slice};
pub use kernels::Choice;
pub use launch::decompress_batch;
pub use resident::Resident;
pub use split::{Segment, SplitRule};
pub use upload::Staging;
