//! Linear images made on the device, from an image of Huffman codes of the same group: what is uploaded stays small.
//!
//! ```text
//! head, starts ─► image     copied from memory that the resident keeps: 4 bytes for 1,024 weights
//! for each piece, some rows of tiles of a tensor:
//!     df11_decode           from the source to the scratch memory
//!     df11_linear_make      tiles and escapes, from the scratch memory
//! 0 ─► what is between      the ends of sections
//! ```
//!
//! The plan has counted the escapes of every tile on the host, so that each tile's have a place, and the tiles can be made
//! in any order by one kernel. On the device it would take a kernel that counts, one that sums up, and a second decode of
//! every piece. If codes have changed since, a tile has more or fewer escapes than counted: the kernel notices, and raises
//! the image's state.

use super::device::{Device, Opened};
use super::driver::{DevicePtr, Stream};
use super::image::linear::{LinearPlan, LinearTensor, TILE_BYTES, TILE_ROWS};
use super::image::{HEADER_BYTES, STATE_OFFSET};
use super::policy::{self, LinearMakeJob};
use super::resident::{Resident, check_image};
use super::upload::{copy, zero};
use crate::error::{Error, Result};

impl Device {
    /// Makes a group's linear image on the device, in stream order, from a resident that holds the whole group: the bytes
    /// that [`LinearPlan::write_image`] writes. Work enqueued afterwards may use the image. `source` may be dropped then.
    ///
    /// The group is decoded a piece at a time to `scratch`, device memory of `scratch_bytes` bytes at a multiple of 16: at
    /// least 32 bytes for each column of the tensor that has most ([`LinearPlan::scratch_bytes`]); some MiB are sensible.
    /// If the source contradicts itself, or is not what was counted, decoding the new image reports `CORRUPT` in its status.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the source does not hold the whole group, or memories overlap; `BufferTooSmall`, `Misaligned`,
    /// `DefaultStream`, `WrongDevice`, `Capturing` (it cannot be captured), `Cuda`. After the last some of the work may be in
    /// the stream, so the memory must stay until the stream has executed it; it then holds no image.
    ///
    /// # Safety
    ///
    /// The `image_bytes` bytes at `image` must be memory of this device's context until the resident is dropped and its
    /// decodes have ended, and the scratch memory until the stream has executed the call's work; nobody else may use it
    /// until then. The resident and the source's memory must stay until then, too. `stream` must be a stream.
    // All of them are needed.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn make_linear(
        &self,
        plan: &LinearPlan,
        source: &Resident,
        image: DevicePtr,
        image_bytes: u64,
        scratch: DevicePtr,
        scratch_bytes: u64,
        stream: Stream,
    ) -> Result<Resident> {
        let (device, head) = (&*self.0, plan.head());
        device.check_null(stream)?;
        check_image(head.image_bytes(), image, image_bytes)?;
        check(device, plan, source, image, scratch, scratch_bytes)?;
        let mut bytes = head.bytes();
        let sections: u64 = head.tensors().iter().map(|tensor| tensor.escapes - tensor.starts).sum();
        let out_of_memory = |_| Error::OutOfMemory { bytes: sections, what: "the starts of a linear image" };
        bytes.try_reserve_exact(sections as usize).map_err(out_of_memory)?;
        for (i, tensor) in head.tensors().iter().enumerate() {
            bytes.extend(plan.starts(i).iter().flat_map(|start| start.to_le_bytes()));
            let section = (tensor.escapes - tensor.starts) as usize;
            bytes.resize(bytes.len() + section - 4 * plan.starts(i).len(), 0);
        }
        let mut started = false;
        let work = Work { device, plan, source, image, scratch, scratch_bytes, stream };
        // SAFETY: `stream` is a stream; the memory was checked, and stays until the stream has executed the work, as do the
        // bytes, which the resident keeps.
        let result = device.driver.relaxed(|| unsafe {
            device.with_stream(stream, |_| device.driver.refuse_capture(stream, "making an image"))?;
            started = true;
            work.all(&bytes)
        });
        if let Err(error) = result {
            if started {
                // The bytes may be in use, and no resident will keep them: after a failed call only.
                std::mem::forget(bytes);
            }
            return Err(error);
        }
        Ok(Resident::linear(self, image, head.clone(), bytes))
    }
}

/// Checks the source and the scratch memory.
fn check(
    device: &Opened,
    plan: &LinearPlan,
    source: &Resident,
    image: DevicePtr,
    scratch: DevicePtr,
    scratch_bytes: u64,
) -> Result<()> {
    let head = plan.head();
    let invalid = |reason: &str| Err(Error::InvalidArgument(reason.into()));
    let other = &*source.device.0;
    if other.context != device.context || other.driver.identity() != device.driver.identity() {
        return Err(Error::WrongDevice("the source is in another context than the device".into()));
    }
    if !source.is_whole() || source.ends() != head.ends() {
        return invalid("the source does not hold the whole group that was planned");
    }
    if scratch == 0 {
        return invalid("the address of the scratch memory is 0");
    }
    if !scratch.is_multiple_of(16) {
        return Err(Error::Misaligned { what: "the scratch memory".into(), to: 16 });
    }
    let needed = plan.scratch_bytes();
    if scratch_bytes < needed {
        return Err(Error::BufferTooSmall { what: "the scratch memory".into(), needed, given: scratch_bytes });
    }
    let Some(scratch_end) = scratch.checked_add(scratch_bytes) else {
        return invalid("the scratch memory leaves the address space");
    };
    let memories = [
        (image, image + head.image_bytes()),
        (scratch, scratch_end),
        (source.image(), source.image() + source.image_bytes()),
    ];
    let overlap = |a: (u64, u64), b: (u64, u64)| a.0 < b.1 && b.0 < a.1;
    if (0..3).any(|i| overlap(memories[i], memories[(i + 1) % 3])) {
        return invalid("the image, the scratch memory and the source's image overlap");
    }
    Ok(())
}

/// What a call has been given.
struct Work<'a> {
    device: &'a Opened,
    plan: &'a LinearPlan<'a>,
    source: &'a Resident,
    image: DevicePtr,
    scratch: DevicePtr,
    scratch_bytes: u64,
    stream: Stream,
}

impl Work<'_> {
    /// Enqueues all of it. `bytes` are those of the head, then of each tensor's starts.
    ///
    /// # Safety
    ///
    /// As for [`Device::make_linear`]; the bytes stay until the stream has executed the copies.
    unsafe fn all(&self, bytes: &[u8]) -> Result<()> {
        let (driver, head, stream) = (self.device.driver, self.plan.head(), self.stream);
        let (head_bytes, mut rest) = bytes.split_at(head.head_bytes() as usize);
        // SAFETY: head and sections are inside the image, whose memory is there.
        unsafe {
            self.device.with_stream(stream, |_| {
                copy(driver, self.image, head_bytes, stream)?;
                for tensor in head.tensors() {
                    let (starts, after) = rest.split_at((tensor.escapes - tensor.starts) as usize);
                    copy(driver, self.image + tensor.starts, starts, stream)?;
                    rest = after;
                }
                Ok(())
            })?;
            for (tensor, &end) in head.tensors().iter().zip(head.ends()) {
                self.tensor(tensor, end)?;
            }
            self.device.with_stream(stream, |_| {
                let ends = head.tensors().iter().skip(1).map(|next| next.tiles).chain([head.image_bytes()]);
                for (tensor, end) in head.tensors().iter().zip(ends) {
                    let from = tensor.escapes + 4 * tensor.escape_count as u64;
                    zero(driver, self.image + from, end - from, stream)?;
                }
                // The header's last word, which is zero. A decode that starts early waits for the kernel before it, and
                // reads the image before: so the last thing here is no kernel.
                zero(driver, self.image + HEADER_BYTES as u64 - 4, 4, stream)
            })
        }
    }

    /// Enqueues the pieces of a tensor, which ends with weight `end`.
    ///
    /// # Safety
    ///
    /// As for `all`; head and starts were copied.
    unsafe fn tensor(&self, tensor: &LinearTensor, end: u64) -> Result<()> {
        let (device, state) = (self.device, self.image + STATE_OFFSET);
        let columns = tensor.columns;
        let rows = self.scratch_bytes / 2 / columns.max(1) / TILE_ROWS * TILE_ROWS;
        let mut row = 0;
        while row < tensor.rows {
            let first = tensor.first + row * columns;
            let count = (end - first).min(rows * columns);
            let (first_tile, rows_here) = (row / TILE_ROWS * tensor.ktiles as u64, count.div_ceil(columns));
            let tiles = rows_here.div_ceil(TILE_ROWS) * tensor.ktiles as u64;
            let job = LinearMakeJob {
                source: self.scratch,
                state,
                tiles: self.image + tensor.tiles + TILE_BYTES * first_tile,
                starts: self.image + tensor.starts + 4 * first_tile,
                escapes: self.image + tensor.escapes,
                table: u64::from_le_bytes(tensor.table),
                count,
                // A group has fewer than 2^32 weights.
                columns: columns as u32,
                ktiles: tensor.ktiles,
                escape_count: tensor.escape_count,
                tile_count: tiles as u32,
            };
            // SAFETY: the scratch memory has room for these weights, of which the source has all; the kernel takes a
            // `LinearMakeJob`, and the job's addresses are the image's sections and the scratch memory.
            unsafe {
                self.source.decompress_range(first, count, self.scratch, 2 * count, state, self.stream)?;
                device.with_stream(self.stream, |room| {
                    let (warps, capacity) = (policy::LINEAR_WARPS, device.linear_capacity(room));
                    let blocks = tiles.div_ceil(room.tiles_per_block(std::iter::once(tiles), warps, capacity)) as u32;
                    let shared = policy::LINEAR_SHARED;
                    device.launch(device.kernels.linear_make, blocks, 32 * warps, shared, &job, self.stream, false)
                })?;
            }
            row += rows;
        }
        Ok(())
    }
}
