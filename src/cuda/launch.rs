//! The hot path: decoding into memory of the caller's, on the caller's stream. Nothing here allocates, on host or
//! device, waits, locks, loads, or makes an event; every call is legal while the stream is being captured.
//!
//! A call checks its arguments, then makes the device's context current, asks the stream for its context, launches, and
//! makes the thread's own context current again: four calls of the driver for any number of tensors or groups up to 32,
//! and one more for each 32 further. What a launch is told lies on the stack and is copied by the driver.
//!
//! # Errors
//!
//! Everything that can be checked is checked before the first launch, so that an error means that nothing was enqueued,
//! with two exceptions that both need a failing driver: where a call takes several launches, one of the later ones may
//! fail, and the message says how many were made; and the thread's context may be impossible to restore after all was
//! launched.

use super::device::Opened;
use super::driver::{DevicePtr, Stream};
use super::image::TILE_WEIGHTS;
use super::policy::{self, DecodeJob, DecodeJobs, MOST_JOBS};
use super::resident::Resident;
use crate::error::{Error, Result};

/// A run of weights and where it goes, checked.
#[derive(Clone, Copy)]
struct Request<'a> {
    resident: &'a Resident,
    first: u64,
    count: u64,
    dst: DevicePtr,
    status: DevicePtr,
}

impl Request<'_> {
    /// Tiles that its weights lie in.
    fn tiles(&self) -> u64 {
        (self.first + self.count - 1) / TILE_WEIGHTS - self.first / TILE_WEIGHTS + 1
    }

    fn job(&self) -> DecodeJob {
        let &Request { first, count, dst, status, .. } = self;
        DecodeJob { dst, status, first, count, ..self.resident.template }
    }
}

impl Resident {
    /// Decodes the whole group to `dst`, which holds `bytes` bytes.
    ///
    /// Stream-ordered: it returns before the work is done. `status` is the address of a `u32` on the device (a multiple
    /// of 4), or 0: it is raised to 103 (`CORRUPT`) if the image contradicts itself, and never lowered, so it must have
    /// been set to 0 before. `dst` is a multiple of 2; a multiple of 16 is fastest.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, `BufferTooSmall`, `Misaligned`, `DefaultStream`, `WrongDevice`, `Cuda`: then nothing was
    /// enqueued (see [`super::launch`] for the exceptions).
    ///
    /// # Safety
    ///
    /// `stream` is a stream; destination, status and image are memory of its context until it has passed the decode,
    /// and nobody else writes the image or uses the destination meanwhile.
    pub unsafe fn decompress(&self, dst: DevicePtr, bytes: u64, status: DevicePtr, stream: Stream) -> Result<()> {
        // SAFETY: by the caller's promise.
        unsafe { self.decompress_range(0, self.layout.weights, dst, bytes, status, stream) }
    }

    /// Decodes `count` weights from weight `first` on. No other weight's bytes are written, whatever the alignment.
    ///
    /// # Errors
    ///
    /// As [`Resident::decompress`]; `InvalidArgument` for a range that leaves the group.
    ///
    /// # Safety
    ///
    /// As [`Resident::decompress`].
    pub unsafe fn decompress_range(
        &self,
        first: u64,
        count: u64,
        dst: DevicePtr,
        bytes: u64,
        status: DevicePtr,
        stream: Stream,
    ) -> Result<()> {
        let shared = &*self.device.0;
        shared.check_null(stream)?;
        let weights = self.layout.weights;
        if first.checked_add(count).is_none_or(|end| end > weights) {
            let reason = format!("weights {first} + {count} are outside the group's {weights}");
            return Err(Error::InvalidArgument(reason));
        }
        self.check(count, dst, bytes, status)?;
        let request = Request { resident: self, first, count, dst, status };
        // SAFETY: by the caller's promise; the request was checked.
        unsafe { enqueue(shared, std::iter::once(request).filter(|request| request.count > 0), stream) }
    }

    /// Decodes each tensor of the group to a destination of its own: `dsts[i]` holds `bytes[i]` bytes and receives
    /// tensor `i`, in the order of the group. A destination of 0 leaves its tensor out. Destinations that follow each
    /// other without a gap are decoded as one run.
    ///
    /// # Errors
    ///
    /// As [`Resident::decompress`]; `InvalidArgument` if there are not as many destinations and sizes as tensors.
    ///
    /// # Safety
    ///
    /// As [`Resident::decompress`]; no two destinations overlap.
    pub unsafe fn decompress_tensors(
        &self,
        dsts: &[DevicePtr],
        bytes: &[u64],
        status: DevicePtr,
        stream: Stream,
    ) -> Result<()> {
        let shared = &*self.device.0;
        shared.check_null(stream)?;
        let tensors = self.ends.len();
        if dsts.len() != tensors || bytes.len() != tensors {
            let reason = format!("{} destinations and {} sizes for {tensors} tensors", dsts.len(), bytes.len());
            return Err(Error::InvalidArgument(reason));
        }
        let range = |i: usize| (if i == 0 { 0 } else { self.ends[i - 1] }, self.ends[i]);
        for (i, (&dst, &bytes)) in dsts.iter().zip(bytes).enumerate() {
            let (from, to) = range(i);
            if dst != 0 {
                self.check(to - from, dst, bytes, status).map_err(|error| of_one(error, "tensor", i))?;
            }
        }
        let mut next = 0;
        let requests = std::iter::from_fn(|| {
            while next < tensors && (dsts[next] == 0 || range(next).0 == range(next).1) {
                next += 1;
            }
            let start = next;
            let (first, mut end) = (start < tensors).then(|| range(start))?;
            next += 1;
            while next < tensors && dsts[next] == dsts[start] + 2 * (end - first) {
                end = range(next).1;
                next += 1;
            }
            Some(Request { resident: self, first, count: end - first, dst: dsts[start], status })
        });
        // SAFETY: by the caller's promise; the requests were checked.
        unsafe { enqueue(shared, requests, stream) }
    }

    /// What can be checked of a destination for `count` weights.
    #[inline]
    fn check(&self, count: u64, dst: DevicePtr, bytes: u64, status: DevicePtr) -> Result<()> {
        if !status.is_multiple_of(4) {
            return Err(Error::Misaligned { what: "the status".into(), to: 4 });
        }
        if count == 0 {
            return Ok(());
        }
        if dst == 0 {
            return Err(Error::InvalidArgument("the destination's address is 0".into()));
        }
        if !dst.is_multiple_of(2) {
            return Err(Error::Misaligned { what: "the destination".into(), to: 2 });
        }
        // No group has more than 2^32 weights, so this does not overflow.
        let needed = 2 * count;
        if bytes < needed {
            return Err(Error::BufferTooSmall { what: "the destination".into(), needed, given: bytes });
        }
        let Some(end) = dst.checked_add(needed) else {
            return Err(Error::InvalidArgument("the destination leaves the address space".into()));
        };
        let (image, image_end) = (self.image(), self.image() + self.layout.image_bytes);
        if dst < image_end && image < end {
            return Err(Error::InvalidArgument("the destination overlaps the image".into()));
        }
        let within = |from: u64, to: u64| status != 0 && status < to && from < status.saturating_add(4);
        if within(dst, end) || within(image, image_end) {
            return Err(Error::InvalidArgument("the status lies in the destination or in the image".into()));
        }
        Ok(())
    }
}

/// Decodes several whole groups: resident `i` to `dsts[i]`, which holds `bytes[i]` bytes. `statuses` is the address of
/// as many `u32` on the device, one for each group, or 0. One launch does up to 32 groups.
///
/// # Errors
///
/// As [`Resident::decompress`]; `InvalidArgument` if the numbers of residents, destinations and sizes differ;
/// `WrongDevice` if the residents are not all of one context.
///
/// # Safety
///
/// As [`Resident::decompress`]; no two destinations overlap.
pub unsafe fn decompress_batch(
    residents: &[&Resident],
    dsts: &[DevicePtr],
    bytes: &[u64],
    statuses: DevicePtr,
    stream: Stream,
) -> Result<()> {
    if dsts.len() != residents.len() || bytes.len() != residents.len() {
        let (dsts, bytes) = (dsts.len(), bytes.len());
        let reason = format!("{dsts} destinations and {bytes} sizes for {} groups", residents.len());
        return Err(Error::InvalidArgument(reason));
    }
    // SAFETY: by the caller's promise.
    unsafe { decompress_batch_of(|i| residents[i], dsts, bytes, statuses, stream) }
}

/// [`decompress_batch`] of residents that a function knows, for callers whose list is of another kind.
///
/// # Safety
///
/// As [`decompress_batch`].
pub(crate) unsafe fn decompress_batch_of<'a>(
    resident: impl Fn(usize) -> &'a Resident,
    dsts: &[DevicePtr],
    bytes: &[u64],
    statuses: DevicePtr,
    stream: Stream,
) -> Result<()> {
    let count = dsts.len();
    if count == 0 {
        return Ok(());
    }
    let shared = &*resident(0).device.0;
    shared.check_null(stream)?;
    if statuses.checked_add(4 * count as u64).is_none() {
        return Err(Error::InvalidArgument("the statuses leave the address space".into()));
    }
    let request = |i: usize| Request {
        resident: resident(i),
        first: 0,
        count: resident(i).layout.weights,
        dst: dsts[i],
        status: if statuses == 0 { 0 } else { statuses + 4 * i as u64 },
    };
    for (i, bytes) in bytes.iter().enumerate() {
        let Request { resident, count, dst, status, .. } = request(i);
        let other = &*resident.device.0;
        if other.context != shared.context || other.driver.identity() != shared.driver.identity() {
            let reason = format!("the groups lie in several contexts: group {i} of the list in another than group 0");
            return Err(Error::WrongDevice(reason));
        }
        other.check_null(stream)?;
        resident.check(count, dst, *bytes, status).map_err(|error| of_one(error, "group", i))?;
    }
    let requests = (0..count).map(request).filter(|request| request.count > 0);
    // SAFETY: by the caller's promise; the requests were checked.
    unsafe { enqueue(shared, requests, stream) }
}

/// Says which entry of a list an error is of.
#[cold]
fn of_one(error: Error, kind: &str, number: usize) -> Error {
    match error {
        Error::BufferTooSmall { what, needed, given } => {
            Error::BufferTooSmall { what: format!("{what} of {kind} {number}").into(), needed, given }
        }
        Error::Misaligned { what, to } => Error::Misaligned { what: format!("{what} of {kind} {number}").into(), to },
        Error::InvalidArgument(reason) => Error::InvalidArgument(format!("{kind} {number}: {reason}")),
        other => other,
    }
}

/// Launches requests that were checked, 32 at a time.
///
/// # Safety
///
/// As for the functions above.
unsafe fn enqueue<'a>(shared: &Opened, requests: impl Iterator<Item = Request<'a>>, stream: Stream) -> Result<()> {
    let mut requests = requests.peekable();
    if requests.peek().is_none() {
        return Ok(());
    }
    // SAFETY: the residents keep the device open, and so its context alive; the rest is the caller's promise.
    unsafe {
        shared.driver.within(shared.context, || {
            shared.check_stream(stream)?;
            let mut launches = 0;
            while let Some(first) = requests.next() {
                let result = if requests.peek().is_none() && launches == 0 {
                    one(shared, &first, stream)
                } else {
                    many(shared, first, &mut requests, stream)
                };
                result.map_err(|error| if launches == 0 { error } else { partly(error, launches) })?;
                launches += 1;
            }
            Ok(())
        })
    }
}

/// Says that some of a call's launches were made.
#[cold]
fn partly(error: Error, launches: u32) -> Error {
    match error {
        Error::Cuda { call, code, text } => {
            Error::Cuda { call, code, text: format!("{text}; {launches} launches of this call are in the stream") }
        }
        other => other,
    }
}

/// # Safety
///
/// As for `enqueue`, with the context current.
unsafe fn one(shared: &Opened, request: &Request<'_>, stream: Stream) -> Result<()> {
    let mut job = request.job();
    let warps = policy::warps(shared.capability, job.table_bytes, shared.most_shared);
    let tiles = request.tiles();
    let each = policy::tiles_per_block(std::iter::once(tiles), warps, shared.capacity(job.table_bytes));
    job.blocks = tiles.div_ceil(each) as u32;
    let bytes = policy::decode_shared(job.table_bytes, warps);
    // SAFETY: the job is what the kernel expects of the image's layout.
    unsafe { shared.launch(shared.kernels.decode, job.blocks, 32 * warps, bytes, &job, stream) }
}

/// # Safety
///
/// As for `enqueue`, with the context current.
unsafe fn many<'a>(
    shared: &Opened,
    first: Request<'a>,
    more: &mut impl Iterator<Item = Request<'a>>,
    stream: Stream,
) -> Result<()> {
    let mut jobs = DecodeJobs { count: 0, reserved: 0, job: [DecodeJob::default(); MOST_JOBS] };
    let mut table_bytes = 0;
    for (job, request) in jobs.job.iter_mut().zip(std::iter::once(first).chain(more)) {
        *job = request.job();
        // For a moment; blocks can be told apart only when all tiles are known.
        job.blocks = request.tiles() as u32;
        table_bytes = table_bytes.max(job.table_bytes);
        jobs.count += 1;
    }
    let warps = policy::warps(shared.capability, table_bytes, shared.most_shared);
    let used = &mut jobs.job[..jobs.count as usize];
    let each = policy::tiles_per_block(used.iter().map(|job| job.blocks as u64), warps, shared.capacity(table_bytes));
    let mut blocks = 0;
    for job in used {
        job.first_block = blocks;
        job.blocks = (job.blocks as u64).div_ceil(each) as u32;
        blocks += job.blocks;
    }
    let bytes = policy::decode_shared(table_bytes, warps);
    // SAFETY: the jobs are what the kernel expects of the images' layouts.
    unsafe { shared.launch(shared.kernels.decode_many, blocks, 32 * warps, bytes, &jobs, stream) }
}
