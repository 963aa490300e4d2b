//! Compresses a group in memory to memory.

use super::encode::{Histogram, Outline, Piece, STRETCH, Scratch, Sink};
use super::threads;
use crate::error::{Error, Result, grow};
use crate::format::{Group, MOST_TENSORS, Member};
use crate::huffman::encode::{Variant, count, exponent};
use crate::huffman::{BLOCK_BYTES, GAP_BYTES_PER_BLOCK, rows};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Options to encode.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// The threads to use, the calling one among them; 0 means 1. They live for the call only. The bytes do not depend on it.
    pub threads: usize,
    variant: Option<Variant>,
}

impl EncodeOptions {
    /// Returns the defaults.
    pub fn new() -> EncodeOptions {
        EncodeOptions::default()
    }

    /// Sets the threads to use, the calling one among them; 0 means 1. The bytes do not depend on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the encoder instead of the fastest that the processor has: for tests, which compare all of them.
    #[doc(hidden)]
    pub fn variant(mut self, variant: impl Into<Option<Variant>>) -> Self {
        self.variant = variant.into();
        self
    }
}

/// A compressed group: the bytes of its six members, as they stand in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// U8 \[rows, 256\].
    pub luts: Vec<u8>,
    /// U8.
    pub encoded_exponent: Vec<u8>,
    /// U8, one per weight.
    pub sign_mantissa: Vec<u8>,
    /// U8: little-endian u32.
    pub output_positions: Vec<u8>,
    /// U8: 5 bits per chunk.
    pub gaps: Vec<u8>,
    /// I64, little-endian: none for a single tensor.
    pub split_positions: Vec<u8>,
}

/// Bytes of each member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackedSizes {
    /// Of `luts`.
    pub luts: u64,
    /// Of `encoded_exponent`.
    pub encoded_exponent: u64,
    /// Of `sign_mantissa`.
    pub sign_mantissa: u64,
    /// Of `output_positions`.
    pub output_positions: u64,
    /// Of `gaps`.
    pub gaps: u64,
    /// Of `split_positions`.
    pub split_positions: u64,
}

impl PackedSizes {
    /// Returns the most bytes that a group of `weights` weights in `tensors` tensors takes, whatever the weights are. A group
    /// of trained weights takes about a third of it for `encoded_exponent`.
    ///
    /// No Huffman code is longer on average than one of 8 bits for all 241 symbols would be. Where codes are limited to 32
    /// bits the rarest exponents may cost more; what they are in a stream long enough for that is below 1 in 256.
    pub fn bound(weights: u64, tensors: u64) -> PackedSizes {
        let code = weights.saturating_add(weights / 256).saturating_add(8);
        let blocks = code.div_ceil(BLOCK_BYTES as u64);
        PackedSizes {
            luts: (rows::MAX_ROWS * rows::ROW) as u64,
            encoded_exponent: code,
            sign_mantissa: weights,
            output_positions: 4 * (blocks + 2),
            gaps: GAP_BYTES_PER_BLOCK as u64 * blocks,
            split_positions: 8 * tensors.saturating_sub(1),
        }
    }

    fn of(outline: &Outline) -> PackedSizes {
        PackedSizes {
            luts: outline.bytes(Member::Luts),
            encoded_exponent: outline.bytes(Member::EncodedExponent),
            sign_mantissa: outline.bytes(Member::SignMantissa),
            output_positions: outline.bytes(Member::OutputPositions),
            gaps: outline.bytes(Member::Gaps),
            split_positions: outline.bytes(Member::SplitPositions),
        }
    }

    /// Returns the sizes of the parts of an opened group.
    pub(crate) fn of_group(group: Group) -> PackedSizes {
        let bytes = |member| group.data().member(member).len;
        PackedSizes {
            luts: bytes(Member::Luts),
            encoded_exponent: bytes(Member::EncodedExponent),
            sign_mantissa: bytes(Member::SignMantissa),
            output_positions: bytes(Member::OutputPositions),
            gaps: bytes(Member::Gaps),
            split_positions: bytes(Member::SplitPositions),
        }
    }

    /// Returns the sizes in the order of [`Member`].
    pub(crate) fn each(&self) -> [u64; 6] {
        [self.luts, self.encoded_exponent, self.sign_mantissa, self.output_positions, self.gaps, self.split_positions]
    }

    /// Adds those of another group.
    pub fn add(&mut self, other: &PackedSizes) {
        self.luts += other.luts;
        self.encoded_exponent += other.encoded_exponent;
        self.sign_mantissa += other.sign_mantissa;
        self.output_positions += other.output_positions;
        self.gaps += other.gaps;
        self.split_positions += other.split_positions;
    }

    /// Returns their sum.
    pub fn total(&self) -> u64 {
        self.each().iter().sum()
    }
}

/// Compresses a group: the weights of its tensors one after the other, byte for byte as the reference compressor does.
///
/// # Errors
///
/// `InvalidArgument` if there is no weight, an exponent of 240 or more (infinity, NaN, a magnitude of 2^113 and more),
/// which the format cannot hold, or 2^32 weights or more; `OutOfMemory`.
pub fn compress(tensors: &[&[bf16]], options: &EncodeOptions) -> Result<Packed> {
    let tensors: Vec<&[u16]> = tensors.iter().map(|t| t.reinterpret_cast()).collect();
    let packing = Packing::new(&tensors, options)?;
    let buffer = |member| -> Result<Vec<u8>> {
        let mut buffer = Vec::new();
        grow(&mut buffer, packing.outline.bytes(member) as usize, 0, "a compressed group")?;
        Ok(buffer)
    };
    let mut packed = Packed {
        luts: buffer(Member::Luts)?,
        encoded_exponent: buffer(Member::EncodedExponent)?,
        sign_mantissa: buffer(Member::SignMantissa)?,
        output_positions: buffer(Member::OutputPositions)?,
        gaps: buffer(Member::Gaps)?,
        split_positions: buffer(Member::SplitPositions)?,
    };
    let Packed { luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions } = &mut packed;
    let members =
        [luts, encoded_exponent, sign_mantissa, output_positions, gaps, split_positions].map(|m| m.as_mut_ptr());
    // SAFETY: the buffers are ours, and as large as the outline says.
    unsafe { packing.run(members)? };
    Ok(packed)
}

/// Compresses a group into buffers of the caller, given as the address and the bytes of each member in the order of
/// [`Packed`]. `sizes` is set to what each takes, also where the memory is too small; with `None` nothing else is done.
///
/// # Errors
///
/// As [`compress`]; `BufferTooSmall` for a member's memory.
///
/// # Safety
///
/// As many bytes as given can be written at each address, by any thread, and nobody else uses them during the call. They overlap
/// neither each other nor the weights.
pub unsafe fn compress_raw(
    tensors: &[&[u16]],
    members: Option<[(*mut u8, u64); 6]>,
    sizes: &mut PackedSizes,
    options: &EncodeOptions,
) -> Result<()> {
    let packing = Packing::new(tensors, options)?;
    *sizes = PackedSizes::of(&packing.outline);
    let Some(members) = members else { return Ok(()) };
    let mut pairs = sizes.each().into_iter().zip(members.map(|(_, given)| given));
    if let Some((needed, given)) = pairs.find(|(needed, given)| needed > given) {
        return Err(Error::BufferTooSmall { what: "a member's memory".into(), needed, given });
    }
    // SAFETY: the bytes at each address can be written by any thread, and there are at least as many as its member has.
    unsafe { packing.run(members.map(|(at, _)| at)) }
}

/// A stretch of one tensor.
struct Part<'a> {
    weights: &'a [u16],
    /// The first weight's number in the group.
    first: u64,
    /// The bit at which its codes begin.
    start_bit: u64,
    histogram: Box<Histogram>,
}

/// A group that was counted.
struct Packing<'a> {
    parts: Vec<Part<'a>>,
    outline: Outline,
    threads: usize,
}

impl<'a> Packing<'a> {
    fn new(tensors: &[&'a [u16]], options: &EncodeOptions) -> Result<Packing<'a>> {
        let variant = options.variant.unwrap_or_else(Variant::best);
        if !variant.is_available() {
            return Err(Error::UnsupportedOption(format!("this processor cannot run the {} encoder", variant.name())));
        }
        if tensors.len() as u64 > MOST_TENSORS {
            let reason = format!("a group of {} tensors: {MOST_TENSORS} are the most", tensors.len());
            return Err(Error::InvalidArgument(reason));
        }
        let counts: Vec<u64> = tensors.iter().map(|t| t.len() as u64).collect();
        // They may overlap, so there may be more of them than memory.
        let weights = counts.iter().fold(0u64, |sum, &n| sum.saturating_add(n));
        if weights > u32::MAX as u64 {
            let reason =
                format!("a group of {weights} weights: positions are 32 bits wide, so 4294967295 are the most");
            return Err(Error::InvalidArgument(reason));
        }
        let mut first = 0;
        let mut parts: Vec<Part> = Vec::new();
        for weights in tensors.iter().flat_map(|t| t.chunks(STRETCH)) {
            parts.push(Part { weights, first, start_bit: 0, histogram: Box::new([0; 256]) });
            first += weights.len() as u64;
        }
        let Some(&last) = parts.last().and_then(|p| p.weights.last()) else {
            return Err(Error::InvalidArgument("a group without a weight".into()));
        };
        // Where there is less work than starting a thread is worth, fewer work.
        let threads = options.threads.clamp(1, weights.div_ceil(STRETCH as u64) as usize);
        each(threads, &mut parts, |_, part| {
            count(part.weights, &mut part.histogram, variant);
            Ok(())
        })?;
        let mut histogram = [0; 256];
        for part in &parts {
            histogram.iter_mut().zip(&*part.histogram).for_each(|(sum, n)| *sum += n);
        }
        let outline = Outline::new(&counts, &histogram, exponent(last), variant).ok_or_else(|| {
            let above = (rows::FIRST_POINTER as usize..256).find(|&e| histogram[e] > 0).unwrap_or_default();
            let count = histogram[rows::FIRST_POINTER as usize..].iter().sum::<u64>();
            Error::InvalidArgument(format!(
                "{count} of {weights} weights have an exponent that DF11 cannot hold, such as {above}: 240 and more are \
                 infinities, NaN and magnitudes of 2^113 and more"
            ))
        })?;
        if let Some(limit) = outline.limited() {
            log::warn!("{limit}");
        }
        let mut bit = 0;
        for part in &mut parts {
            part.start_bit = bit;
            bit += outline.bits_of(&part.histogram).unwrap_or(0);
        }
        Ok(Packing { parts, outline, threads })
    }

    /// # Safety
    ///
    /// As many bytes as the outline says can be written at each address.
    unsafe fn run(mut self, members: [*mut u8; 6]) -> Result<()> {
        let sink = Memory { members, bytes: PackedSizes::of(&self.outline).each() };
        let pieces: Mutex<Vec<Piece>> = Mutex::new(Vec::with_capacity(self.parts.len()));
        let outline = &self.outline;
        each(self.threads, &mut self.parts, |scratch, part| {
            let end_bit = part.start_bit + outline.bits_of(&part.histogram).unwrap_or(0);
            let piece = outline.encode(part.weights, part.first, (part.start_bit, end_bit), &sink, scratch)?;
            pieces.lock().unwrap_or_else(|p| p.into_inner()).push(piece);
            Ok(())
        })?;
        outline.finish(&pieces.into_inner().unwrap_or_else(|p| p.into_inner()), &sink)
    }
}

/// Runs `work` on each item, on that many threads.
fn each<T: Send>(
    threads: usize,
    items: &mut [T],
    work: impl Fn(&mut Scratch, &mut T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<&mut T>> = items.iter_mut().map(Mutex::new).collect();
    threads::run(threads, || {
        let mut scratch = Scratch::default();
        loop {
            let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
            work(&mut scratch, &mut slot.lock().unwrap_or_else(|p| p.into_inner()))?;
        }
    })
}

/// Members in memory.
struct Memory {
    members: [*mut u8; 6],
    bytes: [u64; 6],
}

// SAFETY: by the contract of `Sink` no byte is written twice.
unsafe impl Sync for Memory {}

impl Sink for Memory {
    fn write(&self, member: Member, offset: u64, bytes: &[u8]) -> Result<()> {
        let all = self.bytes[member as usize];
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > all) {
            return Err(Error::Internal(format!("bytes {offset} + {} of a member of {all}", bytes.len())));
        }
        // SAFETY: inside the member, by the check.
        unsafe {
            let to = self.members[member as usize].add(offset as usize);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }

    fn signs(&self, first: u64, count: usize) -> Option<*mut u8> {
        let inside =
            first.checked_add(count as u64).is_some_and(|end| end <= self.bytes[Member::SignMantissa as usize]);
        inside.then(|| self.members[Member::SignMantissa as usize].wrapping_add(first as usize))
    }
}
