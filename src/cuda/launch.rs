//! The hot path: decoding into memory that the caller owns, on the caller's stream. Nothing here allocates, on host or
//! device, waits, locks, loads, or creates an event; every call is legal while the stream is being captured.
//!
//! A call checks its arguments, then makes the device's context current, asks the stream for its context, launches, and
//! makes the thread's own context current again: four calls of the driver for up to 32 tensors or groups, and one more
//! for each 32 further. For a stream of a green context the driver is also asked for the context's number, and the first time
//! for its multiprocessors. The parameters of a launch are on the stack, and the driver copies them.
//!
//! # Errors
//!
//! Everything that can be checked is checked before the first launch, so that an error means that nothing was enqueued,
//! with two exceptions that both need a failing driver: where a call takes several launches, a later one may fail, and
//! the message says how many were made; and restoring the thread's context may fail after everything was launched.

use super::device::{Opened, Room};
use super::driver::{DevicePtr, Stream};
use super::image::linear::{LinearHead, LinearTensor, TILE_COLUMNS, TILE_ROWS};
use super::image::{STATE_OFFSET, TILE_WEIGHTS};
use super::policy::{self, DecodeJob, DecodeJobs, Form, LinearDecodeJob, LinearDecodeJobs, MOST_JOBS};
use super::resident::{Kind, Resident};
use crate::error::{Error, Result};

/// A checked range of weights, and its destination.
#[derive(Clone, Copy)]
struct Request<'a> {
    resident: &'a Resident,
    /// The first weight, counted from the image's first.
    first: u64,
    count: u64,
    dst: DevicePtr,
    status: DevicePtr,
}

impl<'a> Request<'a> {
    /// Returns the number of tiles of Huffman codes that its weights are in.
    fn tiles(&self) -> u64 {
        (self.first + self.count - 1) / TILE_WEIGHTS - self.first / TILE_WEIGHTS + 1
    }

    /// Returns the job that a kernel is given for it, if the image is one of Huffman codes with this template.
    fn job(&self, template: &DecodeJob) -> DecodeJob {
        let &Request { first, count, dst, status, .. } = self;
        DecodeJob {
            dst,
            status,
            first,
            count,
            end_tile: ((first + count - 1) / TILE_WEIGHTS + 1) as u32,
            whole_tile: first.div_ceil(TILE_WEIGHTS) as u32,
            whole_end: ((first + count) / TILE_WEIGHTS) as u32,
            ..*template
        }
    }

    /// Returns the jobs that a kernel is given for it if the image is linear: one for each tensor, without blocks.
    fn linear_jobs(self, head: &'a LinearHead) -> impl Iterator<Item = LinearDecodeJob> + 'a {
        let (from, to) = (self.first, self.first + self.count);
        let tensors = head.ends().partition_point(|&end| end <= from)..head.tensors().len();
        let tensors = head.tensors()[tensors.clone()].iter().zip(&head.ends()[tensors]);
        let jobs = tensors.take_while(move |(tensor, _)| tensor.first < to);
        jobs.filter(|(tensor, end)| tensor.first < **end).map(move |(tensor, &end)| {
            let &LinearTensor { first, columns, tiles, starts, escapes, escape_count, ktiles, table, .. } = tensor;
            let (dst, from, to) =
                (self.dst + 2 * first.saturating_sub(from), from.max(first) - first, to.min(end) - first);
            // The tile of a weight; of all that the range is in, whole rows of tiles where it is in several.
            let row_of = |weight: u64| weight / columns / TILE_ROWS;
            let tile_of = |weight: u64| row_of(weight) * ktiles as u64 + weight % columns / TILE_COLUMNS;
            let one_row = from / columns == (to - 1) / columns;
            let (from_tile, end_tile) = match one_row {
                true => (tile_of(from), tile_of(to - 1) + 1),
                false => (row_of(from) * ktiles as u64, (row_of(to - 1) + 1) * ktiles as u64),
            };
            let image = self.resident.image();
            LinearDecodeJob {
                dst,
                status: self.status,
                state: image + STATE_OFFSET,
                tiles: image + tiles,
                starts: image + starts,
                escapes: image + escapes,
                table: u64::from_le_bytes(table),
                // A group has fewer than 2^32 weights.
                first: from as u32,
                end: to as u32,
                columns: columns as u32,
                ktiles,
                from_tile: from_tile as u32,
                end_tile: end_tile as u32,
                escape_count,
                ..LinearDecodeJob::default()
            }
        })
    }
}

impl Resident {
    /// Decodes all that the image holds to `dst`, which has `dst_bytes` bytes.
    ///
    /// The work is stream-ordered: the call returns before it is done. `status` is the device address of a `u32` (a
    /// multiple of 4), or 0 for none. It is raised to 103 (`CORRUPT`) if the image contradicts itself, and never
    /// lowered, so set it to 0 before. `dst` is a multiple of 2; a multiple of 16 is fastest.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, `BufferTooSmall`, `Misaligned`, `DefaultStream`, `WrongDevice`, `Cuda`: then nothing was
    /// enqueued, with two exceptions that both need a failing driver: where a call takes several launches, a later one may
    /// fail, and the message says how many were made; and restoring the thread's own context may fail after the launches.
    ///
    /// # Safety
    ///
    /// `stream` must be a stream. Destination, status and image must be memory of its context until it has executed the
    /// decode, and nobody else may write the image or use the destination meanwhile.
    pub unsafe fn decompress(&self, dst: DevicePtr, dst_bytes: u64, status: DevicePtr, stream: Stream) -> Result<()> {
        // SAFETY: the caller gave a stream, and memory of its context for the destination, the status and the image; nobody else
        // writes the image or uses the destination until the stream has executed the decode.
        unsafe { self.decompress_range(self.extent().first, self.element_count(), dst, dst_bytes, status, stream) }
    }

    /// Decodes `count` weights from weight `first` of the group, whether the image holds all of it or a range: the numbers are
    /// the same. Only in an image of slices, which has weights from here and there, they count from the image's first one.
    /// No other weight's bytes are written, whatever the alignment.
    ///
    /// # Errors
    ///
    /// As [`Resident::decompress`]; `InvalidArgument` for weights that the image does not hold ([`Resident::elements`]).
    ///
    /// # Safety
    ///
    /// As [`Resident::decompress`].
    pub unsafe fn decompress_range(
        &self,
        first: u64,
        count: u64,
        dst: DevicePtr,
        dst_bytes: u64,
        status: DevicePtr,
        stream: Stream,
    ) -> Result<()> {
        let device = &*self.device.0;
        device.check_null(stream)?;
        let held = self.elements();
        if first < held.start || first.checked_add(count).is_none_or(|end| end > held.end) {
            return Err(self.outside(first, count));
        }
        self.check(count, dst, dst_bytes, status)?;
        let first = first - held.start;
        let request = Request { resident: self, first, count, dst, status };
        // SAFETY: the request was checked; the memory and the stream are what the caller must provide.
        unsafe { enqueue(device, std::iter::once(request).filter(|request| request.count > 0), stream) }
    }

    /// Decodes each tensor or slice of the image to its own destination: `dsts[i]` has `dst_bytes[i]` bytes and receives
    /// what the image holds of its tensor `i` ([`Resident::ends`]), in the order of the image. A destination of 0 leaves its tensor out. Destinations that follow each other
    /// without a gap are decoded as one range.
    ///
    /// # Errors
    ///
    /// As [`Resident::decompress`]; `InvalidArgument` if the numbers of destinations, sizes and tensors differ.
    ///
    /// # Safety
    ///
    /// As [`Resident::decompress`]; no two destinations may overlap.
    pub unsafe fn decompress_tensors(
        &self,
        dsts: &[DevicePtr],
        dst_bytes: &[u64],
        status: DevicePtr,
        stream: Stream,
    ) -> Result<()> {
        let device = &*self.device.0;
        device.check_null(stream)?;
        let tensors = self.ends.len();
        if dsts.len() != tensors || dst_bytes.len() != tensors {
            let reason = format!("{} destinations and {} sizes for {tensors} tensors", dsts.len(), dst_bytes.len());
            return Err(Error::InvalidArgument(reason));
        }
        let before = self.extent().first;
        let range = |i: usize| (if i == 0 { 0 } else { self.ends[i - 1] - before }, self.ends[i] - before);
        for (i, (&dst, &dst_bytes)) in dsts.iter().zip(dst_bytes).enumerate() {
            let (from, to) = range(i);
            if dst != 0 {
                self.check(to - from, dst, dst_bytes, status).map_err(|error| of_one(error, "tensor", i))?;
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
        // SAFETY: the requests were checked; the memory and the stream are what the caller must provide.
        unsafe { enqueue(device, requests, stream) }
    }

    /// Returns the error for weights that the image does not hold.
    #[cold]
    fn outside(&self, first: u64, count: u64) -> Error {
        let (held, extent) = (self.elements(), self.extent());
        let holds = match (self.is_whole(), extent.slices) {
            (true, _) => format!("group's {}", held.end),
            (false, 0) => {
                let all = extent.group_weights;
                format!("image's: it holds weights {} to {} of a group of {all}", held.start, held.end - 1)
            }
            (false, slices) => format!("image's {} of {slices} slices, which count from 0", held.end),
        };
        Error::InvalidArgument(format!("weights {first} + {count} are outside the {holds}"))
    }

    /// Checks the destination of `count` weights, and the status.
    #[inline]
    fn check(&self, count: u64, dst: DevicePtr, dst_bytes: u64, status: DevicePtr) -> Result<()> {
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
        if dst_bytes < needed {
            return Err(Error::BufferTooSmall { what: "the destination".into(), needed, given: dst_bytes });
        }
        let Some(end) = dst.checked_add(needed) else {
            return Err(Error::InvalidArgument("the destination leaves the address space".into()));
        };
        let (image, image_end) = (self.image(), self.image() + self.image_bytes());
        if dst < image_end && image < end {
            return Err(Error::InvalidArgument("the destination overlaps the image".into()));
        }
        let within = |from: u64, to: u64| status != 0 && status < to && from < status.saturating_add(4);
        if within(dst, end) || within(image, image_end) {
            return Err(Error::InvalidArgument("the status is in the destination or in the image".into()));
        }
        Ok(())
    }
}

/// Decodes several whole groups: resident `i` to `dsts[i]`, which has `dst_bytes[i]` bytes. `statuses` is the device
/// address of as many `u32`, one for each group, or 0 for none. One launch decodes up to 32 groups.
///
/// # Errors
///
/// As [`Resident::decompress`]; `InvalidArgument` if the numbers of residents, destinations and sizes differ;
/// `WrongDevice` if the residents are not all of one context.
///
/// # Safety
///
/// As [`Resident::decompress`]; no two destinations may overlap.
pub unsafe fn decompress_batch(
    residents: &[&Resident],
    dsts: &[DevicePtr],
    dst_bytes: &[u64],
    statuses: DevicePtr,
    stream: Stream,
) -> Result<()> {
    if dsts.len() != residents.len() || dst_bytes.len() != residents.len() {
        let (dsts, sizes) = (dsts.len(), dst_bytes.len());
        let reason = format!("{dsts} destinations and {sizes} sizes for {} groups", residents.len());
        return Err(Error::InvalidArgument(reason));
    }
    // SAFETY: the caller gave a stream, and memory of its context for the destinations, the statuses and the images, which nobody
    // else writes or uses until the stream has executed the decode; no two destinations overlap, and the lists are equally long.
    unsafe { decompress_batch_of(|i| residents[i], dsts, dst_bytes, statuses, stream) }
}

/// As [`decompress_batch`], with a function in place of the list of residents. `dsts` and `dst_bytes` are equally long.
///
/// # Safety
///
/// As [`decompress_batch`].
pub(crate) unsafe fn decompress_batch_of<'a>(
    resident: impl Fn(usize) -> &'a Resident,
    dsts: &[DevicePtr],
    dst_bytes: &[u64],
    statuses: DevicePtr,
    stream: Stream,
) -> Result<()> {
    let count = dsts.len();
    if count == 0 {
        return Ok(());
    }
    let device = &*resident(0).device.0;
    device.check_null(stream)?;
    if statuses.checked_add(4 * count as u64).is_none() {
        return Err(Error::InvalidArgument("the statuses leave the address space".into()));
    }
    let request = |i: usize| Request {
        resident: resident(i),
        first: 0,
        count: resident(i).element_count(),
        dst: dsts[i],
        status: if statuses == 0 { 0 } else { statuses + 4 * i as u64 },
    };
    for (i, dst_bytes) in dst_bytes.iter().enumerate() {
        let Request { resident, count, dst, status, .. } = request(i);
        let other = &*resident.device.0;
        if other.context != device.context || other.driver.identity() != device.driver.identity() {
            let reason =
                format!("the groups are in several contexts: group {i} of the list is in another than group 0");
            return Err(Error::WrongDevice(reason));
        }
        other.check_null(stream)?;
        resident.check(count, dst, *dst_bytes, status).map_err(|error| of_one(error, "group", i))?;
    }
    let requests = (0..count).map(request).filter(|request| request.count > 0);
    // SAFETY: the requests were checked; the memory and the stream are what the caller must provide.
    unsafe { enqueue(device, requests, stream) }
}

/// Adds to an error which entry of a list it concerns.
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

/// Launches checked requests: 32 at a time of those that follow each other and have images of one kind.
///
/// # Safety
///
/// `stream` is a stream; destinations, statuses and images are memory of its context until it has executed the work.
unsafe fn enqueue<'a>(device: &Opened, requests: impl Iterator<Item = Request<'a>>, stream: Stream) -> Result<()> {
    let mut requests = requests.peekable();
    if requests.peek().is_none() {
        return Ok(());
    }
    // SAFETY: the residents keep the device open, and so its context alive, which is current for the launches.
    unsafe {
        device.with_stream(stream, |room| {
            let mut launches = 0;
            while let Some(first) = requests.next() {
                let told = |error, launches| if launches == 0 { error } else { partly(error, launches) };
                if let Kind::Linear(head) = &first.resident.kind {
                    let more = std::iter::from_fn(|| {
                        let Kind::Linear(head) = &requests.peek()?.resident.kind else { return None };
                        requests.next().map(|request| (request, head))
                    });
                    let all = std::iter::once((first, head)).chain(more);
                    let mut jobs = all.flat_map(|(request, head)| request.linear_jobs(head)).peekable();
                    while jobs.peek().is_some() {
                        launch_linear(device, &mut jobs, room, stream).map_err(|error| told(error, launches))?;
                        launches += 1;
                    }
                    continue;
                }
                let result = if requests.peek().is_none() && launches == 0 {
                    launch_one(device, &first, room, stream)
                } else {
                    launch_many(device, first, &mut requests, room, stream)
                };
                result.map_err(|error| told(error, launches))?;
                launches += 1;
            }
            Ok(())
        })
    }
}

/// Adds to an error how many of a call's launches were made.
#[cold]
pub(super) fn partly(error: Error, launches: u32) -> Error {
    match error {
        Error::Cuda { call, code, text } => {
            Error::Cuda { call, code, text: format!("{text}; {launches} launches of this call are in the stream") }
        }
        other => other,
    }
}

/// Launches one request of an image of Huffman codes.
///
/// # Safety
///
/// As for [`enqueue`], with the context current.
unsafe fn launch_one(device: &Opened, request: &Request<'_>, room: Room, stream: Stream) -> Result<()> {
    let Kind::Huffman { template, .. } = &request.resident.kind else { return Ok(()) };
    let mut job = request.job(template);
    let form = job.form();
    let warps = policy::warps(device.capability, form, device.most_shared);
    let tiles = request.tiles();
    let each = room.tiles_per_block(std::iter::once(tiles), warps, device.capacity(form, room));
    job.blocks = tiles.div_ceil(each) as u32;
    job.flags |= flags(device);
    let shared = form.decode_shared(warps);
    // SAFETY: the decode kernel takes a `DecodeJob`, and the job's addresses are the image's sections.
    unsafe { device.launch(device.kernels.decode, job.blocks, 32 * warps, shared, &job, stream, device.is_early) }
}

/// Returns the flags of a device's jobs.
fn flags(device: &Opened) -> u32 {
    if device.is_early { policy::JOB_EARLY } else { 0 }
}

/// Launches up to 32 requests of images of Huffman codes: fewer if the room is limited to fewer blocks, because each request has blocks of its own.
///
/// # Safety
///
/// As for [`enqueue`], with the context current.
unsafe fn launch_many<'a>(
    device: &Opened,
    first: Request<'a>,
    more: &mut std::iter::Peekable<impl Iterator<Item = Request<'a>>>,
    room: Room,
    stream: Stream,
) -> Result<()> {
    let mut jobs = DecodeJobs { count: 0, reserved: 0, job: [DecodeJob::default(); MOST_JOBS] };
    let mut all = Form::Nibbles;
    let most = if room.is_limited { device.capacity(Form::Large, room) as usize } else { MOST_JOBS };
    let more = std::iter::from_fn(|| more.next_if(|next| matches!(next.resident.kind, Kind::Huffman { .. })));
    for (job, request) in jobs.job.iter_mut().take(most).zip(std::iter::once(first).chain(more)) {
        let Kind::Huffman { template, .. } = &request.resident.kind else { break };
        *job = request.job(template);
        // Tiles for now: blocks can be assigned only when all tiles are known.
        job.blocks = request.tiles() as u32;
        all = all.max(job.form());
        jobs.count += 1;
    }
    let warps = policy::warps(device.capability, all, device.most_shared);
    let used = &mut jobs.job[..jobs.count as usize];
    let capacity = device.capacity(all, room);
    let each = room.tiles_per_block(used.iter().map(|job| job.blocks as u64), warps, capacity);
    let mut blocks = 0;
    for job in used {
        job.first_block = blocks;
        job.blocks = (job.blocks as u64).div_ceil(each) as u32;
        job.flags |= flags(device);
        blocks += job.blocks;
    }
    // With few warps a table of nibbles takes more than a small one.
    let shared = all.decode_shared(warps).max(Form::Nibbles.decode_shared(warps));
    // SAFETY: the kernel takes `DecodeJobs`, and the jobs' addresses are the images' sections.
    unsafe { device.launch(device.kernels.decode_many, blocks, 32 * warps, shared, &jobs, stream, device.is_early) }
}

/// Launches up to 32 jobs of linear images: fewer if the room is limited to fewer blocks.
///
/// # Safety
///
/// As for [`enqueue`], with the context current.
unsafe fn launch_linear(
    device: &Opened,
    all: &mut impl Iterator<Item = LinearDecodeJob>,
    room: Room,
    stream: Stream,
) -> Result<()> {
    let mut jobs = LinearDecodeJobs { count: 0, reserved: 0, job: [LinearDecodeJob::default(); MOST_JOBS] };
    let capacity = device.linear_capacity(room);
    let most = if room.is_limited { capacity as usize } else { MOST_JOBS };
    for (job, next) in jobs.job.iter_mut().take(most).zip(all) {
        *job = next;
        jobs.count += 1;
    }
    let (warps, used) = (policy::LINEAR_WARPS, &mut jobs.job[..jobs.count as usize]);
    let tiles = |job: &LinearDecodeJob| (job.end_tile - job.from_tile) as u64;
    let each = room.tiles_per_block(used.iter().map(tiles), warps, capacity);
    let mut blocks = 0;
    for job in used {
        job.first_block = blocks;
        job.blocks = tiles(job).div_ceil(each) as u32;
        job.flags = flags(device);
        blocks += job.blocks;
    }
    // SAFETY: the kernel takes `LinearDecodeJobs`, and the jobs' addresses are the images' sections.
    unsafe { device.launch(device.kernels.linear_decode, blocks, 32 * warps, 0, &jobs, stream, device.is_early) }
}
