//! Residents: groups' images in device memory that the caller owns, ready to be decoded.
//!
//! A [`Resident`] is immutable and keeps its device open. It owns no device memory, and dropping it touches none.

use super::device::Device;
use super::driver::DevicePtr;
use super::image::linear::{LINEAR_MAGIC, LinearHead};
use super::image::{ALIGNMENT, Extent, Head, ImageLayout, STATE_OFFSET, Slice, TILE_WEIGHTS};
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
    image: DevicePtr,
    image_bytes: u64,
    weights: u64,
    extent: Extent,
    /// The elements up to the end of each tensor, as decoding counts them.
    pub(super) ends: Box<[u64]>,
    slices: Box<[Slice]>,
    pub(super) kind: Kind,
    /// The bytes that an upload copied from. The driver may read them until the stream has executed the upload.
    _sources: Vec<u8>,
}

/// The kind of an image, and what its decoding needs.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are of the large one, and a decode should not follow a pointer"
)]
pub(super) enum Kind {
    Huffman {
        layout: ImageLayout,
        /// A job for the whole image, without what each call adds: destination, status and range.
        template: DecodeJob,
    },
    Linear(LinearHead),
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resident")
            .field("device", &self.device)
            .field("image", &format_args!("{:#x}", self.image()))
            .field("layout", &self.layout())
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
        check_image(layout.image_bytes, image, image_bytes)?;
        Ok(Resident::huffman(self, image, layout, &group.data().cuts()[1..], &[], Vec::new()))
    }

    /// As [`Device::bind`], without the model, for images of both kinds. `head` holds the image's first bytes in host
    /// memory, at least [`ImageLayout::head_bytes`] or [`LinearHead::head_bytes`] of them; the whole image will do. They
    /// are treated as untrusted input.
    ///
    /// # Errors
    ///
    /// As [`Head::parse`] and [`LinearHead::parse`]; `InvalidArgument`, `BufferTooSmall`, `Misaligned`.
    ///
    /// # Safety
    ///
    /// As [`Device::bind`], with the image that `head` is the beginning of.
    pub unsafe fn bind_image(&self, head: &[u8], image: DevicePtr, image_bytes: u64) -> Result<Resident> {
        if head.starts_with(&LINEAR_MAGIC) {
            let head = LinearHead::parse(head)?;
            check_image(head.image_bytes(), image, image_bytes)?;
            return Ok(Resident::linear(self, image, head, Vec::new()));
        }
        let head = Head::parse(head)?;
        check_image(head.layout().image_bytes, image, image_bytes)?;
        Ok(Resident::huffman(self, image, *head.layout(), head.ends(), head.slices(), Vec::new()))
    }
}

/// Checks the device memory of an image.
pub(super) fn check_image(needed: u64, image: DevicePtr, image_bytes: u64) -> Result<()> {
    if image == 0 {
        return Err(Error::InvalidArgument("the image's address is 0".into()));
    }
    if !image.is_multiple_of(ALIGNMENT) {
        return Err(Error::Misaligned { what: "the image's address".into(), to: ALIGNMENT as usize });
    }
    if image_bytes < needed {
        return Err(Error::BufferTooSmall { what: "the image's memory".into(), needed, given: image_bytes });
    }
    if image.checked_add(needed).is_none() {
        return Err(Error::InvalidArgument("the image leaves the address space".into()));
    }
    Ok(())
}

impl Resident {
    /// Makes the resident of an image of Huffman codes. `ends` count from the image's first weight.
    pub(super) fn huffman(
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
        Resident {
            device: device.clone(),
            image,
            image_bytes: layout.image_bytes,
            weights: layout.weights,
            extent: layout.extent,
            ends,
            slices: slices.into(),
            kind: Kind::Huffman { layout, template },
            _sources: sources,
        }
    }

    /// Makes the resident of a linear image.
    pub(super) fn linear(device: &Device, image: DevicePtr, head: LinearHead, sources: Vec<u8>) -> Resident {
        Resident {
            device: device.clone(),
            image,
            image_bytes: head.image_bytes(),
            weights: head.weights(),
            extent: Extent::whole(head.weights(), head.tensors().len() as u32),
            ends: head.ends().into(),
            slices: Box::default(),
            kind: Kind::Linear(head),
            _sources: sources,
        }
    }

    /// Returns the device that the image is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the image's device address.
    pub fn image(&self) -> DevicePtr {
        self.image
    }

    /// Returns the bytes of the image.
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Returns the number of weights that it holds.
    pub fn element_count(&self) -> u64 {
        self.weights
    }

    /// Returns the part of its group that it holds.
    pub fn extent(&self) -> &Extent {
        &self.extent
    }

    /// Returns the offsets and sizes of the sections of an image of Huffman codes; `None` for a linear image.
    pub fn layout(&self) -> Option<&ImageLayout> {
        match &self.kind {
            Kind::Huffman { layout, .. } => Some(layout),
            Kind::Linear(_) => None,
        }
    }

    /// Returns the head of a linear image; `None` for an image of Huffman codes.
    pub fn linear_head(&self) -> Option<&LinearHead> {
        match &self.kind {
            Kind::Huffman { .. } => None,
            Kind::Linear(head) => Some(head),
        }
    }

    /// Returns whether it holds all of its group, one weight after the other.
    pub fn is_whole(&self) -> bool {
        self.extent.is_whole(self.weights, self.ends.len() as u32)
    }

    /// Returns the elements that it holds, as decoding counts them: the numbers of the group's weights for a range and for
    /// a whole group, and from 0 where there are slices.
    pub fn elements(&self) -> Range<u64> {
        self.extent.first..self.extent.first + self.weights
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
