//! Images made on the device: the group's parts are copied in stream order, then a kernel makes the index from them.
//!
//! ```text
//! head ─► image            copied from memory that the resident keeps
//! 0 ─► starts, lanes       because the kernel adds to them, and writes nothing for lanes without weights
//! codes ─► code            then zeros up to the signs
//! gaps, positions ─► signs parked where the signs will be stored
//! df11_index               starts and lanes from gaps, positions, codes and table; the state word where they disagree
//! signs ─► signs           over what was parked, then zeros up to the end
//! ```
//!
//! A range of a group begins inside a block, which that kernel does not know. Its index is made on the host, and copied
//! with the head from memory that the resident keeps.
//!
//! # Host memory
//!
//! `cuMemcpyHtoDAsync` reads pinned memory when the stream gets there. Pageable memory it usually copies aside at once,
//! but a device that can access pageable memory by itself need not. So nothing is assumed: the source of a copy stays
//! until the stream has executed the copy, and half of the staging memory is written again only when an event says so.

use super::device::{Device, Opened, Room};
use super::driver::{DevicePtr, Driver, OwnEvent, Stream};
use super::image::range::Range;
use super::image::write::head_and_index;
use super::image::{Head, STATE_OFFSET};
use super::policy::{self, IndexJob};
use super::resident::{Resident, check_image};
use crate::error::{Error, Result};
use crate::format::{Group, Member};
use std::ffi::c_void;

/// Bytes of each half of the staging memory where a file is read and the caller gave none.
const HALF: usize = 1 << 20;

/// Host memory that you provide for an upload to go through. Pinned memory makes copies asynchronous.
#[derive(Debug, Clone, Copy)]
pub struct Staging {
    memory: *mut u8,
    bytes: usize,
}

impl Staging {
    /// The least size that can be used, in bytes. A few MiB are sensible.
    pub const LEAST_BYTES: usize = 4096;

    /// Takes `bytes` bytes at `memory`, with any alignment.
    ///
    /// # Safety
    ///
    /// The upload and the device can read and write them, and nobody else uses them, until the stream has executed the
    /// upload.
    pub unsafe fn new(memory: *mut c_void, bytes: usize) -> Staging {
        Staging { memory: memory.cast(), bytes }
    }

    /// Checks that it can be used.
    fn check(self) -> Result<()> {
        if self.memory.is_null() {
            return Err(Error::InvalidArgument("the staging memory is NULL".into()));
        }
        if self.bytes < Self::LEAST_BYTES {
            let (needed, given) = (Self::LEAST_BYTES as u64, self.bytes as u64);
            return Err(Error::BufferTooSmall { what: "the staging memory".into(), needed, given });
        }
        Ok(())
    }
}

impl Device {
    /// Makes a group's image on the device, in stream order: copies the group's parts there, and a kernel makes the
    /// index from the file's gaps and positions. Work enqueued after the upload may use the image.
    ///
    /// Without `staging`, a file that is mapped or in memory is copied from there: the model and the resident must stay
    /// until the stream has executed the upload. With `staging`, the file's bytes go through that memory, half by half;
    /// it should be pinned, and must stay until the stream has executed the upload, but the model need not. A file that
    /// is read piece by piece needs memory to be read into: without `staging`, 2 MiB are allocated for the call, and
    /// the call waits for the stream until the last copy is done.
    ///
    /// The device compares gaps and positions with the codes. If they contradict each other, decoding reports `CORRUPT`
    /// in its status.
    ///
    /// # Errors
    ///
    /// As [`Device::bind`]; `DefaultStream`, `WrongDevice`, `Capturing` (an upload cannot be captured), `Cuda`, `Io`,
    /// `Corrupt` if a file has become shorter. After the latter four some of the work may be in the stream, so the
    /// memory must stay until the stream has executed it; it then holds no image.
    ///
    /// # Safety
    ///
    /// The `image_bytes` bytes at `image` must be memory of this device's context until the resident is dropped and its
    /// decodes have ended. `stream` must be a stream, and the memory named above must stay as long as said there.
    pub unsafe fn upload(
        &self,
        group: Group,
        image: DevicePtr,
        image_bytes: u64,
        stream: Stream,
        staging: Option<Staging>,
    ) -> Result<Resident> {
        let head = Head::of(group)?;
        check_image(head.layout().image_bytes, image, image_bytes)?;
        self.0.check_null(stream)?;
        let bytes = head.bytes()?;
        // SAFETY: the image fits the memory, which the caller keeps with the stream and the staging memory; the
        // resident keeps the head's bytes.
        let bytes = unsafe { enqueue(&self.0, &Range::whole(group), &head, bytes, image, stream, staging)? };
        Ok(Resident::huffman(self, image, *head.layout(), head.ends(), &[], bytes))
    }

    /// Makes the image of `count` of a group's weights on the device, from weight `first` on, in stream order: as
    /// [`Device::upload`], except that the host walks the codes and makes the index, 0.02 bytes a weight, which the
    /// resident keeps. So contradictions between codes and positions are this call's errors.
    ///
    /// # Errors
    ///
    /// As [`Device::upload`] and [`Group::write_image_range`](crate::Group::write_image_range).
    ///
    /// # Safety
    ///
    /// As [`Device::upload`]. The resident must stay until the stream has executed the upload.
    // All of them are what `upload` takes, and the range.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn upload_range(
        &self,
        group: Group,
        first: u64,
        count: u64,
        image: DevicePtr,
        image_bytes: u64,
        stream: Stream,
        staging: Option<Staging>,
    ) -> Result<Resident> {
        let range = Range::new(group, first, count)?;
        check_image(range.layout()?.image_bytes, image, image_bytes)?;
        self.0.check_null(stream)?;
        let (head, bytes) = head_and_index(range.clone())?;
        // SAFETY: as in `upload`; the resident keeps the bytes of head and index.
        let bytes = unsafe { enqueue(&self.0, &range, &head, bytes, image, stream, staging)? };
        Ok(Resident::huffman(self, image, *head.layout(), head.ends(), &[], bytes))
    }
}

/// Host memory in two halves: one is filled while the other is copied from.
struct Ring {
    memory: *mut u8,
    half: usize,
    events: [OwnEvent; 2],
    /// True for a half whose event was recorded after a copy from it.
    marked: [bool; 2],
    /// True for a half that has been written.
    written: [bool; 2],
    /// True while a copy may be in the stream with no event after it.
    unmarked: bool,
    next: usize,
    own: Option<Vec<u8>>,
}

impl Ring {
    fn new(driver: &'static Driver, staging: Option<Staging>) -> Result<Ring> {
        let (memory, bytes, own) = match staging {
            Some(staging) => (staging.memory, staging.bytes, None),
            None => {
                let mut own: Vec<u8> = Vec::new();
                own.try_reserve_exact(2 * HALF)
                    .map_err(|_| Error::OutOfMemory { bytes: 2 * HALF as u64, what: "reading a file" })?;
                (own.as_mut_ptr(), 2 * HALF, Some(own))
            }
        };
        let events = [driver.event()?, driver.event()?];
        let (marked, written) = ([false; 2], [false; 2]);
        Ok(Ring { memory, half: bytes / 2, events, marked, written, unmarked: false, next: 0, own })
    }

    /// Waits until the next half is no longer copied from, and returns up to `most` bytes of it.
    fn free_half(&mut self, most: u64) -> Result<&mut [u8]> {
        let half = self.next;
        if self.marked[half] {
            self.events[half].wait()?;
        }
        // SAFETY: the memory has two halves of this size. Nothing reads this one now, because its event has passed. It
        // is written once before a slice is made of it.
        Ok(unsafe {
            let memory = self.memory.add(half * self.half);
            if !self.written[half] {
                memory.write_bytes(0, self.half);
                self.written[half] = true;
            }
            std::slice::from_raw_parts_mut(memory, most.min(self.half as u64) as usize)
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            let passed = !self.unmarked && (0..2).all(|half| !self.marked[half] || self.events[half].wait().is_ok());
            if !passed {
                // The driver may still read it, and cannot say when it will have done so. A call has failed before.
                std::mem::forget(own);
            }
        }
    }
}

/// One upload, in its context.
struct Upload<'a> {
    driver: &'static Driver,
    range: &'a Range<'a>,
    stream: Stream,
    room: Room,
    ring: Option<Ring>,
}

/// Enqueues an upload. `bytes` are the head's, or head and index; they are returned, and must stay until the stream has
/// executed it.
///
/// # Safety
///
/// As for [`Device::upload`]; the image's address and size were checked.
unsafe fn enqueue(
    device: &Opened,
    range: &Range,
    head: &Head,
    bytes: Vec<u8>,
    image: DevicePtr,
    stream: Stream,
    staging: Option<Staging>,
) -> Result<Vec<u8>> {
    staging.map_or(Ok(()), Staging::check)?;
    let driver = device.driver;
    let mut started = false;
    // SAFETY: `stream` is a stream; `all` is called with its context current.
    let result = driver.relaxed(|| unsafe {
        device.with_stream(stream, |room| {
            driver.refuse_capture(stream, "an upload")?;
            let needs = staging.is_some() || !range.group.model().mapped();
            let ring = if needs { Some(Ring::new(driver, staging)?) } else { None };
            started = true;
            Upload { driver, range, stream, room, ring }.all(device, head, &bytes, image)
        })
    });
    if let Err(error) = result {
        if started {
            // The bytes may be in use, and no resident will keep them: some 20 KB, after a failed call.
            std::mem::forget(bytes);
        }
        return Err(error);
    }
    Ok(bytes)
}

impl Upload<'_> {
    /// # Safety
    ///
    /// As for [`enqueue`], with the context current; `bytes` stays until the stream has executed the upload.
    unsafe fn all(&mut self, device: &Opened, head: &Head, bytes: &[u8], image: u64) -> Result<()> {
        let layout = head.layout();
        let (gaps, positions) = (image + layout.parked_gaps(), image + layout.parked_positions());
        let code_end = layout.code + layout.code_bytes;
        let signs_end = layout.signs + layout.weights;
        let has_index = bytes.len() as u64 == layout.code;
        let Range { weights, codes, .. } = self.range.clone();
        // SAFETY: the layout puts every address and size inside the image; the sizes of members were checked when the
        // model was opened.
        unsafe {
            copy(self.driver, image, bytes, self.stream)?;
            if !has_index {
                zero(self.driver, image + layout.starts, layout.code - layout.starts, self.stream)?;
            }
            self.member(Member::EncodedExponent, codes, image + layout.code)?;
            zero(self.driver, image + code_end, layout.signs - code_end, self.stream)?;
            if !has_index {
                self.whole(Member::Gaps, gaps)?;
                self.whole(Member::OutputPositions, positions)?;
                if layout.blocks() > 0 {
                    self.index(device, head, image)?;
                }
            }
            self.member(Member::SignMantissa, weights, image + layout.signs)?;
            zero(self.driver, image + signs_end, layout.image_bytes - signs_end, self.stream)
        }
    }

    /// Launches the kernel that makes the index.
    ///
    /// # Safety
    ///
    /// The context is current, and the image's memory is there. Work that writes table, codes, gaps and positions, and
    /// zeros to starts and lanes, is in the stream.
    unsafe fn index(&self, device: &Opened, head: &Head, image: u64) -> Result<()> {
        let layout = head.layout();
        let job = IndexJob {
            image_state: image + STATE_OFFSET,
            table: image + layout.table,
            starts: image + layout.starts,
            lanes: image + layout.lanes,
            code: image + layout.code,
            gaps: image + layout.parked_gaps(),
            positions: image + layout.parked_positions(),
            weights: layout.weights,
            code_bytes: layout.code_bytes,
            code_units: layout.code_units(),
            tiles: layout.tiles,
            blocks: layout.blocks(),
            position_count: self.range.group.data().member(Member::OutputPositions).len / 4,
            table_bytes: layout.table_bytes,
            reserved: 0,
        };
        // Each block copies the table first, so it should have several blocks of code to walk.
        let most = u64::from(self.room.multiprocessors) * 4;
        let blocks = layout.blocks().div_ceil(layout.blocks().div_ceil(most)) as u32;
        let shared = policy::index_shared(layout.table_bytes);
        // SAFETY: the index kernel takes an `IndexJob`, and the job's addresses are the image's sections.
        unsafe { device.launch(device.kernels.index, blocks, policy::INDEX_THREADS, shared, &job, self.stream, false) }
    }

    /// Copies a member of a group.
    ///
    /// # Safety
    ///
    /// As [`Upload::member`].
    unsafe fn whole(&mut self, member: Member, to: DevicePtr) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.member(member, 0..self.range.group.data().member(member).len, to) }
    }

    /// Copies bytes of a member of a group.
    ///
    /// # Safety
    ///
    /// The device memory is there; without a ring, the model stays until the stream has executed the copy.
    unsafe fn member(&mut self, member: Member, bytes: std::ops::Range<u64>, to: DevicePtr) -> Result<()> {
        let span = self.range.group.data().member(member);
        let source = &self.range.group.model().sources()[span.file];
        let (offset, len) = (span.offset + bytes.start, bytes.end - bytes.start);
        let Some(mut ring) = self.ring.take() else {
            let Some(bytes) = source.slice(offset, len) else {
                return Err(Error::Internal("a file that is not in memory, and no memory to read it to".into()));
            };
            // SAFETY: the destination has room for the part, and the model keeps the bytes.
            return unsafe { copy(self.driver, to, bytes, self.stream) };
        };
        let mut copy_all = || -> Result<()> {
            let mut done = 0;
            while done < len {
                let half = ring.next;
                let bytes = ring.free_half(len - done)?;
                source.read_at(offset + done, bytes)?;
                let copied = bytes.len() as u64;
                let bytes = &raw const *bytes;
                ring.unmarked = true;
                // SAFETY: the destination has room for the part. The half is not written before its event has passed,
                // and the stream is one of the current context.
                unsafe {
                    copy(self.driver, to + done, &*bytes, self.stream)?;
                    ring.events[half].record(self.stream)?;
                }
                ring.unmarked = false;
                ring.marked[half] = true;
                ring.next = 1 - half;
                done += copied;
            }
            Ok(())
        };
        let result = copy_all();
        self.ring = Some(ring);
        result
    }
}

/// Copies host memory to device memory.
///
/// # Safety
///
/// `stream` is one of the current context, and the device memory is there; the bytes stay until the stream has executed
/// the copy.
pub(super) unsafe fn copy(driver: &Driver, to: DevicePtr, bytes: &[u8], stream: Stream) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    // SAFETY: the destination holds as many bytes as the slice, which stays long enough.
    let code = unsafe { (driver.api.copy_to_device)(to, bytes.as_ptr().cast(), bytes.len(), stream.raw()) };
    driver.check("cuMemcpyHtoDAsync", code)
}

/// Writes zeros to device memory.
///
/// # Safety
///
/// `stream` is one of the current context, and the device memory is there.
pub(super) unsafe fn zero(driver: &Driver, at: DevicePtr, bytes: u64, stream: Stream) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: there are `bytes` bytes of device memory at the address.
    let code = unsafe { (driver.api.fill)(at, 0, bytes as usize, stream.raw()) };
    driver.check("cuMemsetD8Async", code)
}
