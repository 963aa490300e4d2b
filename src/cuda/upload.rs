//! Making an image on the device: the group's parts in stream order, then a kernel that makes the index of them.
//!
//! ```text
//! head ─► image            copied from memory that the resident keeps
//! 0 ─► starts, lanes       for the kernel adds to them, and says nothing of lanes without weights
//! codes ─► code            then zeros up to the signs
//! gaps, positions ─► signs parked where the signs will lie
//! df11_index               starts and lanes from gaps, positions, codes and table; the state word where they disagree
//! signs ─► signs           over what was parked, then zeros up to the end
//! ```
//!
//! # Host memory
//!
//! `cuMemcpyHtoDAsync` reads pinned memory when the stream gets there. Pageable memory it usually copies aside at once,
//! but a device that reaches pageable memory by itself need not. So nothing is taken for granted: whatever was copied
//! from stays until the stream has passed the copy, and a half of the staging memory is written again only when an
//! event says so.

use super::driver::{DevicePtr, Driver, OwnEvent, Stream};
use super::image::Head;
use super::policy::{self, IndexJob};
use super::resident::Shared;
use crate::error::{Error, Result};
use crate::format::{Member, Model};
use std::ffi::c_void;

/// Bytes of each half of the staging memory where a file is read and the caller gave none.
const HALF: usize = 1 << 20;

/// Host memory of the caller's through which an upload goes: pinned memory makes copies asynchronous.
#[derive(Debug, Clone, Copy)]
pub struct Staging {
    memory: *mut u8,
    bytes: usize,
}

impl Staging {
    /// The least that can be used, in bytes. Some MiB are sensible.
    pub const LEAST_BYTES: usize = 4096;

    /// `bytes` bytes at `memory`, with any alignment.
    ///
    /// # Safety
    ///
    /// They can be read and written by the upload and the device, and nobody else uses them, until the stream has
    /// passed the upload.
    pub unsafe fn new(memory: *mut c_void, bytes: usize) -> Staging {
        Staging { memory: memory.cast(), bytes }
    }
}

/// Host memory in two halves: one is filled while the other is copied from.
struct Ring {
    memory: *mut u8,
    half: usize,
    events: [OwnEvent; 2],
    /// Whether a half's event was recorded behind a copy from it.
    marked: [bool; 2],
    /// Whether a half was written at all.
    written: [bool; 2],
    /// Whether a copy may be in the stream with no event behind it.
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
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            let passed = !self.unmarked && (0..2).all(|half| !self.marked[half] || self.events[half].wait().is_ok());
            if !passed {
                // The driver may still read it, and does not say when it will have. This follows a failed call.
                std::mem::forget(own);
            }
        }
    }
}

/// One upload, in its context.
struct Upload<'a> {
    driver: &'static Driver,
    model: &'a Model,
    stream: Stream,
    ring: Option<Ring>,
}

/// Puts an upload into a stream. Returns the head's bytes, which must stay until the stream has passed it.
///
/// # Safety
///
/// As for `Device::upload`; the image's address and size were checked.
pub(super) unsafe fn upload(
    device: &Shared,
    model: &Model,
    group: usize,
    head: &Head,
    image: DevicePtr,
    stream: Stream,
    staging: Option<Staging>,
) -> Result<Vec<u8>> {
    if let Some(staging) = staging {
        if staging.memory.is_null() {
            return Err(Error::InvalidArgument("the staging memory is NULL".into()));
        }
        if staging.bytes < Staging::LEAST_BYTES {
            let needed = Staging::LEAST_BYTES as u64;
            return Err(Error::BufferTooSmall {
                what: "the staging memory".into(),
                needed,
                given: staging.bytes as u64,
            });
        }
    }
    let driver = device.driver;
    let bytes = head.bytes();
    let mut started = false;
    // SAFETY: the context lives as long as the device, and the stream is one, by the caller's promise.
    let result = driver.relaxed(|| unsafe {
        driver.within(device.context, || {
            device.check_stream(stream)?;
            driver.refuse_capture(stream, "an upload")?;
            let needs = staging.is_some() || !model.mapped();
            let ring = if needs { Some(Ring::new(driver, staging)?) } else { None };
            started = true;
            Upload { driver, model, stream, ring }.all(device, group, head, &bytes, image)
        })
    });
    if let Err(error) = result {
        if started {
            // It may be in use, and there will be no resident to keep it: some 20 KB, after a failed call.
            std::mem::forget(bytes);
        }
        return Err(error);
    }
    Ok(bytes)
}

impl Upload<'_> {
    /// # Safety
    ///
    /// As for `upload`, with the context current.
    unsafe fn all(&mut self, device: &Shared, group: usize, head: &Head, bytes: &[u8], image: u64) -> Result<()> {
        let layout = head.layout();
        let members = &self.model.groups()[group];
        let (gaps, positions) = (image + layout.parked_gaps(), image + layout.parked_positions());
        let position_count = members.member(Member::OutputPositions).len / 4;
        let code_end = layout.code + layout.code_bytes;
        let signs_end = layout.signs + layout.weights;
        // SAFETY: all of it lies inside the image, by the layout; sizes of members were checked when the model was
        // opened.
        unsafe {
            self.copy(image, bytes)?;
            self.zero(image + layout.starts, layout.code - layout.starts)?;
            self.member(group, Member::EncodedExponent, image + layout.code)?;
            self.zero(image + code_end, layout.signs - code_end)?;
            self.member(group, Member::Gaps, gaps)?;
            self.member(group, Member::OutputPositions, positions)?;
            if layout.blocks() > 0 {
                let job = IndexJob {
                    image_state: image + super::image::STATE_OFFSET,
                    table: image + layout.table,
                    starts: image + layout.starts,
                    lanes: image + layout.lanes,
                    code: image + layout.code,
                    gaps,
                    positions,
                    weights: layout.weights,
                    code_bytes: layout.code_bytes,
                    code_units: layout.code_units(),
                    tiles: layout.tiles,
                    blocks: layout.blocks(),
                    position_count,
                    table_bytes: layout.table_bytes,
                    reserved: 0,
                };
                // Each block copies the table first, so that it should have several blocks of code to walk.
                let most = device.info.multiprocessors as u64 * 4;
                let blocks = layout.blocks().div_ceil(layout.blocks().div_ceil(most)) as u32;
                let shared = policy::index_shared(layout.table_bytes);
                device.launch(device.kernels.index, blocks, policy::INDEX_THREADS, shared, &job, self.stream)?;
            }
            self.member(group, Member::SignMantissa, image + layout.signs)?;
            self.zero(image + signs_end, layout.image_bytes - signs_end)
        }
    }

    /// # Safety
    ///
    /// The device memory is there; the bytes stay until the stream has passed the copy.
    unsafe fn copy(&self, to: DevicePtr, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: by the caller's promise.
        let code =
            unsafe { (self.driver.table.copy_to_device)(to, bytes.as_ptr().cast(), bytes.len(), self.stream.raw()) };
        self.driver.check("cuMemcpyHtoDAsync", code)
    }

    /// # Safety
    ///
    /// The device memory is there.
    unsafe fn zero(&self, at: DevicePtr, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: by the caller's promise.
        let code = unsafe { (self.driver.table.fill)(at, 0, bytes as usize, self.stream.raw()) };
        self.driver.check("cuMemsetD8Async", code)
    }

    /// Copies a part of a group.
    ///
    /// # Safety
    ///
    /// The device memory is there; without a ring, the model stays until the stream has passed the copy.
    unsafe fn member(&mut self, group: usize, member: Member, to: DevicePtr) -> Result<()> {
        let span = self.model.groups()[group].member(member);
        let source = &self.model.sources()[span.file];
        let Some(mut ring) = self.ring.take() else {
            let Some(bytes) = source.slice(span.offset, span.len) else {
                return Err(Error::Internal("a file that is not in memory, and no memory to read it to".into()));
            };
            // SAFETY: by the caller's promise.
            return unsafe { self.copy(to, bytes) };
        };
        let mut pieces = || -> Result<()> {
            let mut done = 0;
            while done < span.len {
                let half = ring.next;
                let bytes = (span.len - done).min(ring.half as u64) as usize;
                if ring.marked[half] {
                    ring.events[half].wait()?;
                }
                // SAFETY: the ring's memory has two halves; nobody reads this one now, for its event has passed. It is
                // written once before a slice is made of it.
                let piece = unsafe {
                    let memory = ring.memory.add(half * ring.half);
                    if !ring.written[half] {
                        memory.write_bytes(0, ring.half);
                        ring.written[half] = true;
                    }
                    std::slice::from_raw_parts_mut(memory, bytes)
                };
                source.read_at(span.offset + done, piece)?;
                // SAFETY: by the caller's promise; the half stays until its event has passed.
                unsafe {
                    ring.unmarked = true;
                    self.copy(to + done, piece)?;
                    ring.events[half].record(self.stream)?;
                    ring.unmarked = false;
                }
                ring.marked[half] = true;
                ring.next = 1 - half;
                done += bytes as u64;
            }
            Ok(())
        };
        let result = pieces();
        self.ring = Some(ring);
        result
    }
}
