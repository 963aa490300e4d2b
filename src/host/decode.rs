//! Any range of a group's weights, decoded by any number of threads, from files in memory or read.
//!
//! A call cuts the blocks of its range into runs of about equal length, a multiple of the lanes of all threads, and every lane
//! of every thread takes the next run when it has finished one ([`crate::huffman::decode`]). The first run of a small
//! range begins inside a block, if the range does ([`super::borders`]). Nothing is allocated but the list of runs (16 bytes each), the group's
//! look-up table at its first use (18 KiB, kept with the group) and, where files are read, each lane's buffers (together
//! below 1 MB per thread).

use super::borders::{Border, borders};
use super::threads;
use crate::error::{Error, Result, shorten};
use crate::format::{Data, Group, Member, Tensor};
use crate::huffman::decode::{self, Fault, Feed, MOST_LANES, Run, Variant};
use crate::huffman::{CHUNK_BITS, CHUNK_BYTES, CHUNKS_PER_BLOCK, gap};
use half::bf16;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Options to decode.
///
/// ```
/// let options = df11::DecodeOptions::new().threads(8);
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// The threads to use, the calling one among them; 0 means 1. They live for the call only. Fewer are used where there
    /// is less work than starting a thread is worth.
    pub threads: usize,
    #[doc(hidden)]
    pub variant: Option<Variant>,
}

impl DecodeOptions {
    /// Returns the defaults.
    pub fn new() -> DecodeOptions {
        DecodeOptions::default()
    }

    /// Sets the threads to use, the calling one among them; 0 means 1.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the decoder instead of the fastest that the processor has: for tests, which compare all of them.
    #[doc(hidden)]
    pub fn variant(mut self, variant: impl Into<Option<Variant>>) -> Self {
        self.variant = variant.into();
        self
    }
}

/// Outputs from here on are written past the caches: they would not stay in them, and a store that fetches its line
/// first moves a third more memory.
const STREAMING_BYTES: usize = 4 << 20;
/// Blocks of a run at most: some 800,000 weights.
const RUN_BLOCKS: usize = 64;
/// Blocks of a run at most where files are read: the lanes' buffers stay below 1 MB even with one-bit codes.
const RUN_BLOCKS_READ: usize = 4;
/// Runs of a tensor for each thread from which on each decodes whole ones alone.
const RUNS_PER_THREAD: usize = 4;
/// Weights that are worth a thread.
const WEIGHTS_PER_THREAD: u64 = 1 << 18;

impl Group<'_> {
    /// Decodes `dst.len()` weights, from weight `first` of the group on.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the range leaves the group; `Corrupt` if the bit stream contradicts the tables or does not end
    /// where it should; `Io` where files are read. After an error `dst` holds anything.
    ///
    /// A stream that was damaged in a way that keeps all of that true yields other weights: [`Group::verify`] finds more, and
    /// only a hash finds all of it ([`verify_model`](super::verify_model) does both).
    pub fn decompress(self, first: u64, dst: &mut [bf16], options: &DecodeOptions) -> Result<()> {
        // SAFETY: bf16 is a transparent u16, and the slice is writable.
        unsafe { self.decompress_raw(first, dst.len() as u64, dst.as_mut_ptr().cast(), options) }
    }

    /// Decodes like [`Group::decompress`], into memory that need not be initialised.
    ///
    /// # Safety
    ///
    /// `count` weights can be written at `dst`, by any thread; if there are any, it is aligned to 2 bytes.
    pub unsafe fn decompress_raw(self, first: u64, count: u64, dst: *mut u16, options: &DecodeOptions) -> Result<()> {
        let n = self.element_count();
        if first.checked_add(count).is_none_or(|end| end > n) {
            let reason =
                format!("weights {first} + {count} are outside group '{}' of {n} weights", shorten(self.name(), 80));
            return Err(Error::InvalidArgument(reason));
        }
        let variant = options.variant.unwrap_or_else(Variant::best);
        if !variant.is_available() {
            let reason = format!("this processor cannot run the {} decoder", variant.name());
            return Err(Error::UnsupportedOption(reason));
        }
        if count == 0 {
            return Ok(());
        }
        let threads = (options.threads.max(1) as u64).min(count.div_ceil(WEIGHTS_PER_THREAD)) as usize;
        let decoding = Decoding::new(self, first, count, dst, threads, variant)?;
        let streaming = count as usize * 2 >= STREAMING_BYTES;
        threads::run(threads, || {
            let mut feed = RangeFeed { decoding: &decoding, buffers: std::array::from_fn(|_| Buffers::default()) };
            let data = self.data();
            let result = decode::decode(data.table(), data.codes(), &mut feed, variant, streaming);
            if result.is_err() {
                // The other threads may stop.
                decoding.next.store(decoding.borders.len(), Ordering::Relaxed);
            }
            result
        })
    }
}

impl Tensor<'_> {
    /// Copies or decodes `dst.len()` bytes of the tensor, from its byte `offset` on, wherever they are.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for bytes outside the tensor, and if a compressed tensor's bytes are cut inside a weight;
    /// `Misaligned` if `dst` is not aligned to 2 bytes and the tensor is in a group; all else as [`Group::decompress`].
    pub fn read(self, offset: u64, dst: &mut [u8], options: &DecodeOptions) -> Result<()> {
        // SAFETY: the slice is writable.
        unsafe { self.read_raw(offset, dst.as_mut_ptr(), dst.len(), options) }
    }

    /// Reads like [`Tensor::read`], into memory that need not be initialised.
    ///
    /// # Safety
    ///
    /// `bytes` bytes can be written at `dst`, by any thread.
    pub unsafe fn read_raw(self, offset: u64, dst: *mut u8, bytes: usize, options: &DecodeOptions) -> Result<()> {
        let invalid = |reason: &str| {
            let name = shorten(self.name(), 80);
            let reason = format!("bytes {offset} + {bytes} {reason} tensor '{name}' of {} bytes", self.bytes());
            Err(Error::InvalidArgument(reason))
        };
        if offset.checked_add(bytes as u64).is_none_or(|end| end > self.bytes()) {
            return invalid("are outside");
        }
        match self.values() {
            Data::Plain(_) => {
                if let Some(part) = self.data().and_then(|all| all.get(offset as usize..)?.get(..bytes)) {
                    // SAFETY: `dst` has room for `bytes` bytes, and is the caller's memory, so not the file's.
                    unsafe { dst.copy_from_nonoverlapping(part.as_ptr(), bytes) };
                    return Ok(());
                }
                // SAFETY: `dst` has room for `bytes` bytes. They are written once before a slice is made of them.
                let dst = unsafe {
                    dst.write_bytes(0, bytes);
                    std::slice::from_raw_parts_mut(dst, bytes)
                };
                self.read_plain(offset, dst)
            }
            Data::Packed { .. } if !offset.is_multiple_of(2) || !bytes.is_multiple_of(2) => invalid("cut a weight of"),
            Data::Packed { .. } => {
                let dst = dst.cast::<u16>();
                if bytes > 0 && !dst.is_aligned() {
                    return Err(Error::Misaligned { what: "the destination".into(), to: 2 });
                }
                // SAFETY: `dst` has room for `bytes` bytes, and is aligned.
                unsafe {
                    let (first, count) = (offset / 2, bytes as u64 / 2);
                    match self.run_count() {
                        1 => self.run(0).group().decompress_raw(self.group_offset() + first, count, dst, options),
                        _ => Elements { tensor: self, first, end: first + count, dst }.decode(options),
                    }
                }
            }
        }
    }
}

/// Elements of a tensor that is in several runs, to be decoded.
struct Elements<'a> {
    tensor: Tensor<'a>,
    first: u64,
    end: u64,
    dst: *mut u16,
}

// SAFETY: `dst` is written by all threads, each for runs of its own.
unsafe impl Sync for Elements<'_> {}

impl Elements<'_> {
    /// Decodes all of them.
    ///
    /// # Safety
    ///
    /// `dst` has room for them, and is aligned to 2 bytes.
    unsafe fn decode(&self, options: &DecodeOptions) -> Result<()> {
        let (from, to) = (self.run_of(self.first), self.run_of(self.end.saturating_sub(1)) + 1);
        let threads = options.threads.max(1);
        // Where each thread has several runs to itself, it decodes them alone: none then waits for the end of every run.
        if to - from < RUNS_PER_THREAD * threads {
            // SAFETY: as the caller promises.
            return (from..to).try_for_each(|run| unsafe { self.decode_run(run, options) });
        }
        let next = AtomicUsize::new(from);
        let alone = DecodeOptions { threads: 1, ..*options };
        threads::run(threads, || {
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= to {
                    return Ok(());
                }
                // SAFETY: as the caller promises; each number is given out once. The other threads may stop after an error.
                unsafe { self.decode_run(run, &alone) }.inspect_err(|_| next.store(to, Ordering::Relaxed))?;
            }
        })
    }

    /// Returns the number of the run that an element is in.
    fn run_of(&self, element: u64) -> usize {
        let (mut from, mut to) = (0, self.tensor.run_count());
        while to - from > 1 {
            let mid = from + (to - from) / 2;
            if self.tensor.run(mid).tensor_offset() <= element { from = mid } else { to = mid }
        }
        from
    }

    /// Decodes those of a run.
    ///
    /// # Safety
    ///
    /// As [`Elements::decode`].
    unsafe fn decode_run(&self, number: usize, options: &DecodeOptions) -> Result<()> {
        let run = self.tensor.run(number);
        let start = run.tensor_offset();
        let (from, to) = (self.first.max(start), self.end.min(start + run.element_count()));
        let count = to.saturating_sub(from);
        // SAFETY: runs are in the order of their elements and have each once, so `dst` has room for these, which no other
        // run is decoded to.
        unsafe {
            let dst = self.dst.wrapping_add((from - self.first) as usize);
            run.group().decompress_raw(run.group_offset() + (from - start), count, dst, options)
        }
    }
}

/// One call's work, shared by its threads.
struct Decoding<'a> {
    group: Group<'a>,
    /// The range of weights wanted.
    first: u64,
    end: u64,
    dst: *mut u16,
    /// The borders of runs.
    borders: Vec<Border>,
    /// True if runs have their gaps.
    gaps: bool,
    next: AtomicUsize,
}

// SAFETY: `dst` is written by all threads, each in runs of its own.
unsafe impl Sync for Decoding<'_> {}

impl<'a> Decoding<'a> {
    fn new(group: Group<'a>, first: u64, count: u64, dst: *mut u16, threads: usize, variant: Variant) -> Result<Self> {
        let most = if group.model().mapped() { RUN_BLOCKS } else { RUN_BLOCKS_READ };
        let gaps = decode::wants_gaps(group.data().table(), variant, count);
        // The same runs for every variant, so that all find the same faults.
        let lanes = MOST_LANES * threads;
        let borders = borders(group, first, count, lanes, most, variant)?;
        Ok(Decoding { group, first, end: first + count, dst, borders, gaps, next: AtomicUsize::new(0) })
    }

    /// Returns the bit of its chunk at which the first code starts: the chunk's gap.
    fn gap(&self, chunk: usize) -> Result<usize> {
        let gaps = self.group.data().member(Member::Gaps);
        // Eight gaps are five bytes.
        let at = (chunk / 8 * 5) as u64;
        let mut bytes = [0; 5];
        self.group.model().sources()[gaps.file].read_at(gaps.offset + at, &mut bytes)?;
        let gap = gap(&bytes, chunk % 8).unwrap_or(0);
        if chunk == 0 && gap != 0 {
            let place = self.group.place(Member::Gaps, 0);
            return Err(Error::corrupt(place, format!("the first gap is {gap}, not 0")));
        }
        Ok(gap)
    }
}

/// A thread's way to its runs.
struct RangeFeed<'a> {
    decoding: &'a Decoding<'a>,
    buffers: [Buffers; MOST_LANES],
}

/// The buffers of a lane where files are read.
#[derive(Default)]
struct Buffers {
    code: Vec<u8>,
    sign_mantissa: Vec<u8>,
    gaps: Vec<u8>,
}

// SAFETY: runs point into the model's files or this feed's buffers, which `next` changes for its own lane only; the
// destinations of two runs never overlap, because the borders rise and each number is given out once.
unsafe impl Feed for RangeFeed<'_> {
    type Error = Error;

    fn next(&mut self, lane: usize) -> Result<Option<Run>> {
        let decoding = self.decoding;
        let tag = decoding.next.fetch_add(1, Ordering::Relaxed);
        let (Some(&border), Some(&next)) = (decoding.borders.get(tag), decoding.borders.get(tag + 1)) else {
            // Keep the counter from wrapping in a process that asks for ever.
            decoding.next.store(decoding.borders.len(), Ordering::Relaxed);
            return Ok(None);
        };
        let (from, to) = (border.weight, next.weight);
        let (first, end) = (decoding.first.max(from), decoding.end.min(to).max(decoding.first.max(from)));
        let [code, signs, gaps] = {
            let data = decoding.group.data();
            [Member::EncodedExponent, Member::SignMantissa, Member::Gaps].map(|member| data.member(member))
        };
        let (chunk, chunks) = (border.first_chunk(), next.chunk - border.first_chunk());
        let start = (chunk * CHUNK_BYTES) as u64;
        // A mapped file may have changed its positions by now.
        let Some(whole) = code.len.checked_sub(start) else {
            let place = decoding.group.place(Member::OutputPositions, 4 * (chunk / CHUNKS_PER_BLOCK) as u64);
            return Err(Error::corrupt(place, "the positions have changed since the model was opened"));
        };
        let end_bits = if end < to {
            Run::ANY_END
        } else if to == decoding.group.element_count() {
            // The last code ends in the last byte; what is left of that is the start of the end-of-data code.
            (whole as usize * 8 - 7, whole as usize * 8)
        } else {
            let bit = chunks * CHUNK_BITS + decoding.gap(next.chunk)?;
            (bit, bit)
        };

        let sources = decoding.group.model().sources();
        let (code_source, sign_source, gap_source) = (&sources[code.file], &sources[signs.file], &sources[gaps.file]);
        let buffers = &mut self.buffers[lane];
        let (code_at, sign_at) = (code.offset + start, signs.offset + first);
        let code = match code_source.slice(code_at, whole) {
            Some(bytes) => bytes,
            // A code that starts in the last chunk may end up to 31 bits after it, and loads take 8 bytes.
            None => {
                let len = whole.min((chunks * CHUNK_BYTES) as u64 + 16);
                code_source.read_into(code_at, len, &mut buffers.code)?
            }
        };
        let sign_mantissa = match sign_source.slice(sign_at, end - first) {
            Some(bytes) => bytes,
            None => sign_source.read_into(sign_at, end - first, &mut buffers.sign_mantissa)?,
        };
        // A range may end long before its last run does: gaps far after it are left out.
        let wanted = (end - from) * chunks as u64 / (to - from).max(1);
        let known = (gaps.len / 5 * 8).saturating_sub(chunk as u64);
        let gap_count = if decoding.gaps { (wanted + wanted / 32 + 5).min(chunks as u64 + 1).min(known) } else { 0 };
        let (gaps_at, gap_bytes) = (gaps.offset + (chunk / 8 * 5) as u64, (gap_count * 5).div_ceil(8));
        let gaps = gap_source.bytes(gaps_at, gap_bytes, &mut buffers.gaps)?;
        Ok(Some(Run {
            code: code.as_ptr(),
            code_bytes: code.len(),
            start_bit: (border.chunk - chunk) * CHUNK_BITS + decoding.gap(border.chunk)?,
            gaps: gaps.as_ptr(),
            gap_count: gap_count as usize,
            skip: (first - from) as usize,
            sign_mantissa: sign_mantissa.as_ptr(),
            dst: decoding.dst.wrapping_add((first - decoding.first) as usize),
            count: (end - first) as usize,
            end_bits,
            tag,
        }))
    }

    fn has_gaps(&self) -> bool {
        self.decoding.gaps
    }

    fn fault(&self, run: &Run, fault: Fault) -> Error {
        let decoding = self.decoding;
        let border = decoding.borders[run.tag];
        let from = border.weight;
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
                    decoding.borders[run.tag + 1].weight
                ),
            ),
        };
        let byte = (border.first_chunk() * CHUNK_BYTES + bit / 8) as u64;
        let place = decoding.group.place(Member::EncodedExponent, byte);
        Error::corrupt(place, reason)
    }
}
