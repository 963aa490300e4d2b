//! Whole groups on the CPU: any range of weights, any number of threads, files mapped or read.
//!
//! A call cuts the blocks of its range into runs of about equal length, a multiple of the lanes of all threads, and
//! every lane of every thread takes the next run when it has finished one ([`crate::huffman::decode`]). Nothing is
//! allocated but the list of runs (16 bytes each), the group's look-up table at its first use (16 KiB, kept with the
//! group) and, where files are read instead of mapped, each lane's buffers (together below 1 MB per thread).

mod check;
mod compress;
pub(crate) mod encode;
mod threads;
mod verify;

pub(crate) use check::unusable;
pub use check::{Finding, FindingKind, Verified, VerifyOptions, compare_models, verify_model};
pub use compress::{EncodeOptions, Packed, PackedSizes, compress, compress_raw};
pub(crate) use threads::{NAME as THREAD_NAME, panic_text, run as run_threads};
pub use verify::verify;
pub(crate) use verify::{BlockWalk, blocks_of, verify_all};

use crate::error::{Error, Result, shorten};
use crate::format::{Data, Group, Member, Model, Tensor};
use crate::huffman::decode::{self, Fault, Feed, MOST_LANES, Run, Variant};
use crate::huffman::{BLOCK_BITS, BLOCK_BYTES, GAP_BYTES_PER_BLOCK};
use half::bf16;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How to decode.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecodeOptions {
    /// Threads to use, the calling one among them; 0 means 1. They live for the call only. Fewer are used where there
    /// is less work than starting a thread is worth.
    pub threads: usize,
    /// The decoder to use; `None` takes the fastest that the processor has.
    pub variant: Option<Variant>,
}

/// Outputs from here on are written past the caches: they would not stay in them, and a store that fetches its line
/// first moves a third more memory.
const STREAMING_BYTES: usize = 4 << 20;
/// Blocks of a run at most: some 800,000 weights.
const RUN_BLOCKS: usize = 64;
/// Blocks of a run at most where files are read: the lanes' buffers stay below 1 MB even with one-bit codes.
const RUN_BLOCKS_READ: usize = 4;
/// Weights that are worth a thread.
const WEIGHTS_PER_THREAD: u64 = 1 << 18;

/// Decodes `dst.len()` weights of a group, from its weight `first` on, in elements.
///
/// # Errors
///
/// `InvalidArgument` if the range leaves the group, `NotFound` for its number; `Corrupt` if the bit stream contradicts
/// the tables or does not end where it should, `Io` where files are read. After an error `dst` holds anything.
///
/// A stream that was damaged in a way that keeps all of that true yields other weights: run [`verify()`] to know more, and
/// compare hashes to be sure; [`verify_model`] does both.
pub fn decompress(model: &Model, group: usize, first: u64, dst: &mut [bf16], options: &DecodeOptions) -> Result<()> {
    // SAFETY: bf16 is a transparent u16, and the slice is writable.
    unsafe { decompress_raw(model, group, first, dst.len() as u64, dst.as_mut_ptr().cast(), options) }
}

/// [`decompress`] into memory that need not be initialised.
///
/// # Safety
///
/// `count` weights can be written at `dst`, by any thread; if there are any, it is aligned to 2 bytes.
pub unsafe fn decompress_raw(
    model: &Model,
    group: usize,
    first: u64,
    count: u64,
    dst: *mut u16,
    options: &DecodeOptions,
) -> Result<()> {
    let Some(group) = model.groups().get(group) else {
        return Err(Error::NotFound(format!("there is no group {group}: the model has {}", model.groups().len())));
    };
    let n = group.element_count();
    if first.checked_add(count).is_none_or(|end| end > n) {
        let reason =
            format!("weights {first} + {count} are outside group '{}' of {n} weights", shorten(group.name(), 80));
        return Err(Error::InvalidArgument(reason));
    }
    let variant = options.variant.unwrap_or_else(Variant::best);
    if !variant.is_available() {
        return Err(Error::UnsupportedOption(format!("this processor cannot run the {} decoder", variant.name())));
    }
    if count == 0 {
        return Ok(());
    }
    let threads = (options.threads.max(1) as u64).min(count.div_ceil(WEIGHTS_PER_THREAD)) as usize;
    let job = Job::new(model, group, first, count, dst, threads)?;
    let streaming = count as usize * 2 >= STREAMING_BYTES;
    threads::run(threads, || {
        let mut feed = RangeFeed { job: &job, buffers: std::array::from_fn(|_| Buffers::default()) };
        let result = decode::decode(group.table(), group.codes(), &mut feed, variant, streaming);
        if result.is_err() {
            // The others need not go on.
            job.next.store(job.borders.len(), Ordering::Relaxed);
        }
        result
    })
}

/// Copies or decodes `dst.len()` bytes of a tensor, from its byte `offset` on, wherever they are.
///
/// # Errors
///
/// As [`decompress`] and [`Model::read_plain`]; `InvalidArgument` if a compressed tensor's bytes are cut inside a weight.
pub fn read_tensor(model: &Model, tensor: &Tensor, offset: u64, dst: &mut [u8], options: &DecodeOptions) -> Result<()> {
    // SAFETY: the slice is writable.
    unsafe { read_tensor_raw(model, tensor, offset, dst.as_mut_ptr(), dst.len(), options) }
}

/// [`read_tensor`] into memory that need not be initialised.
///
/// # Safety
///
/// `bytes` bytes can be written at `dst`, by any thread.
pub unsafe fn read_tensor_raw(
    model: &Model,
    tensor: &Tensor,
    offset: u64,
    dst: *mut u8,
    bytes: usize,
    options: &DecodeOptions,
) -> Result<()> {
    let invalid = |reason: &str| {
        let name = shorten(tensor.name(), 80);
        let reason = format!("bytes {offset} + {bytes} {reason} tensor '{name}' of {} bytes", tensor.bytes());
        Err(Error::InvalidArgument(reason))
    };
    if offset.checked_add(bytes as u64).is_none_or(|end| end > tensor.bytes()) {
        return invalid("are outside");
    }
    match tensor.data() {
        Data::Plain(_) => {
            if let Some(all) = model.plain(tensor) {
                let part = &all[offset as usize..][..bytes];
                // SAFETY: by the caller's promise; the caller's memory is not the file's.
                unsafe { dst.copy_from_nonoverlapping(part.as_ptr(), bytes) };
                return Ok(());
            }
            // SAFETY: by the caller's promise; zeros first, for a slice must be initialised before a file is read to it.
            let dst = unsafe {
                dst.write_bytes(0, bytes);
                std::slice::from_raw_parts_mut(dst, bytes)
            };
            model.read_plain(tensor, offset, dst)
        }
        Data::Packed { .. } if !offset.is_multiple_of(2) || !bytes.is_multiple_of(2) => invalid("cut a weight of"),
        Data::Packed { group, first } => {
            let dst = dst.cast::<u16>();
            if bytes > 0 && !dst.is_aligned() {
                return Err(Error::Misaligned { what: "the destination".into(), to: 2 });
            }
            // SAFETY: by the caller's promise, and the start is aligned.
            unsafe { decompress_raw(model, group, first + offset / 2, bytes as u64 / 2, dst, options) }
        }
    }
}

/// One call's work, shared by its threads.
struct Job<'a> {
    model: &'a Model,
    group: &'a Group,
    /// The range of weights wanted.
    first: u64,
    end: u64,
    dst: *mut u16,
    /// Where runs begin and end: a block, and the weight that starts there. Taken from the positions once, so that a
    /// file that changes while it is mapped cannot make two runs overlap.
    borders: Vec<(usize, u64)>,
    next: AtomicUsize,
}

// SAFETY: `dst` is written by all threads, each in runs of its own.
unsafe impl Sync for Job<'_> {}

impl<'a> Job<'a> {
    fn new(model: &'a Model, group: &'a Group, first: u64, count: u64, dst: *mut u16, threads: usize) -> Result<Self> {
        let (n, end) = (group.element_count(), first + count);
        let positions = group.positions(model.sources());
        let position = |k: usize| crate::format::position(positions, k);
        let blocks = group.block_count();
        // The last block that starts at or before the first weight, and the first that starts at or behind the end.
        let (mut low, mut high) = (0, blocks);
        while high - low > 1 {
            let mid = low + (high - low) / 2;
            if position(mid) <= first { low = mid } else { high = mid }
        }
        let from = low;
        let (mut low, mut high) = (from, blocks);
        while high - low > 1 {
            let mid = low + (high - low) / 2;
            if position(mid) < end { low = mid } else { high = mid }
        }
        let to = high;
        let most = if model.mapped() { RUN_BLOCKS } else { RUN_BLOCKS_READ };
        let span = to - from;
        let lanes = MOST_LANES * threads;
        let runs = (lanes * span.div_ceil(lanes * most)).min(span);
        let mut borders = Vec::with_capacity(runs + 1);
        for i in 0..=runs {
            let block = from + span * i / runs;
            let weight = if block == blocks { n } else { position(block) };
            let rises = borders.last().is_none_or(|&(_, before)| before <= weight);
            if !rises || weight > n || (i == 0 && weight > first) || (i == runs && weight < end) {
                let place = group.place(model.sources(), Member::OutputPositions, 4 * block as u64);
                return Err(Error::corrupt(place, "the positions have changed since the model was opened"));
            }
            borders.push((block, weight));
        }
        Ok(Job { model, group, first, end, dst, borders, next: AtomicUsize::new(0) })
    }

    /// The bit of its block at which a block's first code starts: the gap of its first chunk, the top 5 bits of a byte.
    fn gap(&self, block: usize) -> Result<usize> {
        let gaps = self.group.member(Member::Gaps);
        let mut byte = [0];
        let sources = self.model.sources();
        sources[gaps.file].read_at(gaps.offset + (block * GAP_BYTES_PER_BLOCK) as u64, &mut byte)?;
        let gap = (byte[0] >> 3) as usize;
        if block == 0 && gap != 0 {
            let place = self.group.place(sources, Member::Gaps, 0);
            return Err(Error::corrupt(place, format!("the first gap is {gap}, not 0")));
        }
        Ok(gap)
    }
}

/// A thread's way to its runs.
struct RangeFeed<'a> {
    job: &'a Job<'a>,
    buffers: [Buffers; MOST_LANES],
}

/// What a lane reads where files are not in memory.
#[derive(Default)]
struct Buffers {
    code: Vec<u8>,
    sign_mantissa: Vec<u8>,
}

// SAFETY: runs point into the model's files or this feed's buffers, which `next` changes for its own lane only; the
// destinations of two runs never overlap, for the borders rise and each number is given out once.
unsafe impl Feed for RangeFeed<'_> {
    type Error = Error;

    fn next(&mut self, lane: usize) -> Result<Option<Run>> {
        let job = self.job;
        let tag = job.next.fetch_add(1, Ordering::Relaxed);
        let (Some(&(block, from)), Some(&(next_block, to))) = (job.borders.get(tag), job.borders.get(tag + 1)) else {
            // Keep the counter from wrapping in a process that asks for ever.
            job.next.store(job.borders.len(), Ordering::Relaxed);
            return Ok(None);
        };
        let (first, end) = (job.first.max(from), job.end.min(to).max(job.first.max(from)));
        let (code, signs) = (job.group.member(Member::EncodedExponent), job.group.member(Member::SignMantissa));
        let start = (block * BLOCK_BYTES) as u64;
        // A mapped file may have changed its positions by now.
        let Some(whole) = code.len.checked_sub(start) else {
            let place = job.group.place(job.model.sources(), Member::OutputPositions, 4 * block as u64);
            return Err(Error::corrupt(place, "the positions have changed since the model was opened"));
        };
        let end_bits = if end < to {
            (0, usize::MAX)
        } else if to == job.group.element_count() {
            // The last code ends in the last byte; what is left of that is the start of the end-of-data code.
            (whole as usize * 8 - 7, whole as usize * 8)
        } else {
            let bit = (next_block - block) * BLOCK_BITS + job.gap(next_block)?;
            (bit, bit)
        };

        let sources = job.model.sources();
        let (code_source, sign_source) = (&sources[code.file], &sources[signs.file]);
        let buffers = &mut self.buffers[lane];
        let (code_at, sign_at) = (code.offset + start, signs.offset + first);
        let code = match code_source.slice(code_at, whole) {
            Some(bytes) => bytes,
            // A code that starts in the last block may end up to 31 bits behind it, and loads take 8 bytes.
            None => {
                let len = whole.min(((next_block - block) * BLOCK_BYTES) as u64 + 16);
                code_source.read_into(code_at, len, &mut buffers.code)?
            }
        };
        let sign_mantissa = match sign_source.slice(sign_at, end - first) {
            Some(bytes) => bytes,
            None => sign_source.read_into(sign_at, end - first, &mut buffers.sign_mantissa)?,
        };
        Ok(Some(Run {
            code: code.as_ptr(),
            code_bytes: code.len(),
            start_bit: job.gap(block)?,
            skip: (first - from) as usize,
            sign_mantissa: sign_mantissa.as_ptr(),
            dst: job.dst.wrapping_add((first - job.first) as usize),
            count: (end - first) as usize,
            end_bits,
            tag,
        }))
    }

    fn fault(&self, run: &Run, fault: Fault) -> Error {
        let job = self.job;
        let (block, from) = job.borders[run.tag];
        let (bit, reason) = match fault {
            Fault::NoCode { bit, weight } => {
                (bit, format!("weight {} has no code: no exponent's begins so", from + weight as u64))
            }
            Fault::Short { bit, weight } => (bit, format!("the codes end inside weight {}", from + weight as u64)),
            Fault::Changed => (0, "the codes change while they are decoded".into()),
            Fault::End { bit } => (
                bit,
                format!(
                    "the codes of weights {from} to {} do not end where the next begin",
                    job.borders[run.tag + 1].1
                ),
            ),
        };
        let byte = (block * BLOCK_BYTES + bit / 8) as u64;
        let place = job.group.place(job.model.sources(), Member::EncodedExponent, byte);
        Error::corrupt(place, reason)
    }
}
