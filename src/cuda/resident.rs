//! Residents: groups' images in device memory that the caller owns, ready to be decoded.
//!
//! A [`Resident`] is immutable and keeps its device open. It owns no device memory, and dropping it touches none.

use super::device::Device;
use super::driver::DevicePtr;
use super::image::{ALIGNMENT, Head, ImageLayout, STATE_OFFSET, Slice, TILE_WEIGHTS};
use super::policy::DecodeJob;
use crate::error::{Error, Result};
use crate::format::Group;
use std::ops::Range;

/// A group's image on a device, ready to be decoded. Dropping it touches no device memory and waits for nothing:
/// running decodes continue.
///
/// Any number of threads may use it at once.
pub struct Resident {
    pub(super) device: Device,
    pub(super) layout: ImageLayout,
    /// The elements up to the end of each tensor, as decoding counts them.
    pub(super) ends: Box<[u64]>,
    slices: Box<[Slice]>,
    /// A job for the whole image, without what each call adds: destination, status and range.
    pub(super) template: DecodeJob,
    /// The bytes that an upload copied from. The driver may read them until the stream has executed the upload.
    _sources: Vec<u8>,
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resident")
            .field("device", &self.device)
            .field("image", &format_args!("{:#x}", self.image()))
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Takes an image that is in device memory, or will be when the stream of the first decode gets there. It makes no
    /// CUDA call, and the model is not needed afterwards.
    ///
    /// # Errors
    ///
    /// `UnsupportedFormat` ([`ImageLayout::of`]), `InvalidArgument`, `BufferTooSmall`, `Misaligned`.
    ///
    /// # Safety
    ///
    /// The `image_bytes` bytes at `image` must be memory of this device's context until the resident is dropped and its
    /// decodes have ended, and hold what [`Group::write_image`](crate::Group::write_image) writes for that group. (The
    /// bytes are not trusted: other bytes give other weights, and no access outside of image and destination.)
    pub unsafe fn bind(&self, group: Group, image: DevicePtr, image_bytes: u64) -> Result<Resident> {
        let layout = ImageLayout::of(group)?;
        check_image(&layout, image, image_bytes)?;
        Ok(Resident::new(self, image, layout, &group.data().cuts()[1..], &[], Vec::new()))
    }

    /// As [`Device::bind`], without the model. `head` holds the image's first bytes in host memory, at least
    /// [`ImageLayout::head_bytes`] of them; the whole image will do. They are treated as untrusted input.
    ///
    /// # Errors
    ///
    /// As [`Head::parse`]; `InvalidArgument`, `BufferTooSmall`, `Misaligned`.
    ///
    /// # Safety
    ///
    /// As [`Device::bind`], with the image that `head` is the beginning of.
    pub unsafe fn bind_image(&self, head: &[u8], image: DevicePtr, image_bytes: u64) -> Result<Resident> {
        let head = Head::parse(head)?;
        check_image(head.layout(), image, image_bytes)?;
        Ok(Resident::new(self, image, *head.layout(), head.ends(), head.slices(), Vec::new()))
    }
}

/// Checks the device memory of an image.
pub(super) fn check_image(layout: &ImageLayout, image: DevicePtr, image_bytes: u64) -> Result<()> {
    if image == 0 {
        return Err(Error::InvalidArgument("the image's address is 0".into()));
    }
    if !image.is_multiple_of(ALIGNMENT) {
        return Err(Error::Misaligned { what: "the image's address".into(), to: ALIGNMENT as usize });
    }
    if image_bytes < layout.image_bytes {
        return Err(Error::BufferTooSmall {
            what: "the image's memory".into(),
            needed: layout.image_bytes,
            given: image_bytes,
        });
    }
    if image.checked_add(layout.image_bytes).is_none() {
        return Err(Error::InvalidArgument("the image leaves the address space".into()));
    }
    Ok(())
}

impl Resident {
    /// `ends` count from the image's first weight.
    pub(super) fn new(
        device: &Device,
        image: DevicePtr,
        layout: ImageLayout,
        ends: &[u64],
        slices: &[Slice],
        sources: Vec<u8>,
    ) -> Resident {
        let template = DecodeJob {
            state: image + STATE_OFFSET,
            table: image + layout.table,
            starts: image + layout.starts,
            lanes: image + layout.lanes,
            code: image + layout.code,
            signs: image + layout.signs,
            // At most 2^32 weights have 2^30 units of code, and fewer tiles.
            code_units: layout.code_units() as u32,
            tiles: layout.tiles as u32,
            last_weights: (layout.weights - (layout.tiles.max(1) - 1) * TILE_WEIGHTS) as u32,
            table_bytes: layout.table_bytes,
            flags: layout.nibble_shape.filter(|_| device.0.kernels.has_nibbles).map_or(0, DecodeJob::nibble_flags),
            ..DecodeJob::default()
        };
        let ends = ends.iter().map(|end| layout.extent.first + end).collect();
        Resident { device: device.clone(), layout, ends, slices: slices.into(), template, _sources: sources }
    }

    /// Returns the device that the image is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the image's device address.
    pub fn image(&self) -> DevicePtr {
        self.template.state - STATE_OFFSET
    }

    /// Returns the offsets and sizes of the image's sections.
    pub fn layout(&self) -> &ImageLayout {
        &self.layout
    }

    /// Returns the elements that it holds, as decoding counts them: the numbers of the group's weights for a range and for
    /// a whole group, and from 0 where there are slices.
    pub fn elements(&self) -> Range<u64> {
        let first = self.layout.extent.first;
        first..first + self.layout.weights
    }

    /// Returns the end of each tensor, or slice, of which it holds elements, counted as [`Resident::elements`] are; the last
    /// is the end of all. A range's first tensor is number [`Extent::first_tensor`](super::ImageExtent) of the group.
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// Returns the slices of its group that it holds; none for a range and for a whole group.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }
}
