//! The fast encoder: bf16 weights → sign/mantissa bytes, code words, gaps and positions, one stretch at a time.
//!
//! # The idea
//!
//! Writing one code at a time costs some 25 instructions and waits for itself: where a code goes is known only when all
//! before it are placed. So eight or sixteen weights are made into one *step* first, side by side and without knowing
//! where it will go, and only the steps are placed one after the other.
//!
//! ```text
//! step      c = the codes of its weights joined, first bit on top
//!           m = a 1 at the last bit of every code, likewise; in its low six bits how many bits c has (at most 58).
//!               m = 0: too many bits, or a weight without a code: its weights are placed one by one
//! place     word = p / 64;  acc |= c >> (p % 64);  store_be64(code + 8·word, acc)
//!           gaps[word + 1] = leading_zeros(m << (63 - p % 64))
//!           if the step crosses into the next word: acc = c << (-p % 64)               a conditional move
//!           p += m & 63
//! batch     128 weights: make the steps of one batch and split off its sign/mantissa bytes, while those of the previous
//!           batch are placed; if p passed the border of a block, count the weights up to it (once per some 12,400 weights)
//! ```
//!
//! - **No branch in placing.** The open word is stored every time, and so is the gap of the next chunk. A chunk's gap
//!   is the first end of a code at or after its border: shifting the marks by 63 − p % 64 leaves those, and whatever an
//!   earlier step stored there (its length bits, shifted) is overwritten by the step that reaches the border.
//! - **Making and placing side by side.** Making waits for vector units, placing for its own last result. One after the
//!   other their times add up; in one loop, on different batches, the processor works at both at once.
//! - **Steps of sixteen** where codes are short enough that hardly any sixteen of them exceed 58 bits, else of eight.
//! - **Portable steps** come from a table of pairs of exponents, joined by shifts. So do all others where too many
//!   weights are outside the small tables below.
//! - **AVX-512 steps**: byte permutations look up lengths and codes of 63 exponents for 64 weights at once. Pairs are
//!   joined in 16 bits by a variable shift. After that the first of two fields is above the second, and a rotation of
//!   both halves brings them together: fours in 32 bits, eights in 64. Sixteen are two registers' eights, shifted and
//!   ORed. Codes and marks alike.
//! - **AVX2 steps**: byte shuffles look up fifteen exponents, which are nearly all that occur, for 32 weights at once.
//!   There is no variable shift of 16 bits, so pairs are joined by a multiplication by two to the power of a length,
//!   which is looked up too; the rest is variable shifts.
//!
//! # Stretches
//!
//! A group is encoded in any number of stretches, in any order, by any number of threads: the histograms of the
//! stretches give the bit at which each begins. [`Encoder::stretch`] leaves the bits before that in the first byte 0,
//! so the bytes that two stretches share are joined by OR. A chunk's gap and a block's position belong to the stretch
//! in which a code *ends* at or after its border; so the first of them, at bit 0, belong to no stretch and are 0.
//!
//! The weights need not be those of the histogram: they may be in a file that is changed meanwhile. A weight without a
//! code is an error, and buffers have room for 32 bits a weight.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod count;

pub use count::count;

use super::codebook::Codebook;
use super::{BLOCK_BITS, CHUNK_BYTES};
use crate::error::{self, boxed, grow};

/// Weights of a batch.
const BATCH: usize = 128;
/// The most steps of a batch.
const BATCH_STEPS: usize = BATCH / 8;
/// The most bits of a step: shifted to any place in a word, it reaches no further than into the next word.
const STEP_BITS: u64 = 58;
/// Bits of a chunk, the unit in which code words are placed.
const CHUNK_BITS: u64 = super::CHUNK_BITS as u64;

/// The length in a vector variant's table that stands for no code, or one of more than 15 bits: any sum with it is too
/// long for a step.
#[cfg(target_arch = "x86_64")]
const NO_LENGTH: u8 = 100;

/// Returns the exponent of a bf16.
#[inline(always)]
pub(crate) fn exponent(weight: u16) -> u8 {
    (weight >> 7) as u8
}

/// Returns the sign/mantissa byte of a bf16: its sign in bit 7, its mantissa below.
#[inline(always)]
pub(crate) fn sign_mantissa(weight: u16) -> u8 {
    (weight >> 8 & 0x80 | weight & 0x7f) as u8
}

/// A way to encode. All give the same bytes; the fastest that the processor has is taken unless the caller names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// No intrinsics: any processor.
    Portable,
    /// AVX2 and BMI2 (Intel since Haswell, AMD since Zen).
    Avx2,
    /// AVX-512 with byte permutations (VBMI) and variable 16-bit shifts (Intel since Ice Lake, AMD since Zen 4).
    Avx512,
}

impl Variant {
    /// Every variant of every architecture, slowest first.
    pub const ALL: [Variant; 3] = [Variant::Portable, Variant::Avx2, Variant::Avx512];

    /// Returns whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Variant::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("movbe")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512 => {
                Variant::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vbmi2")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Returns the fastest one that this processor can run.
    pub fn best() -> Variant {
        Self::ALL.into_iter().rev().find(|v| v.is_available()).unwrap_or(Variant::Portable)
    }

    /// Returns its name in lower case, as tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Portable => "portable",
            Variant::Avx2 => "avx2",
            Variant::Avx512 => "avx512",
        }
    }
}

/// Prefetches a cache line. Where the hardware does not prefetch far enough by itself this saves a third of the time.
#[inline(always)]
fn prefetch(at: *const u16) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: any address may be prefetched; it is not accessed.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Codes joined: `c` and `m` as at the top of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    c: u64,
    m: u64,
}

/// The steps of a batch.
#[repr(align(64))]
struct Steps {
    c: [u64; BATCH_STEPS],
    m: [u64; BATCH_STEPS],
}

impl Steps {
    #[inline(always)]
    fn get(&self, number: usize) -> Step {
        Step { c: self.c[number], m: self.m[number] }
    }
}

/// An encoder: the tables of one code.
pub struct Encoder {
    variant: Variant,
    /// Weights of a step: 8 or 16.
    per_step: usize,
    /// The step of each single exponent; m = 0 where it has no code.
    single: Box<[Step; 256]>,
    #[cfg(target_arch = "x86_64")]
    wide: avx512::WideTable,
    /// The table of the AVX2 variant, if its sixteen entries hold nearly all weights.
    #[cfg(target_arch = "x86_64")]
    narrow: Option<avx2::NarrowTable>,
    /// The step of each pair, by first exponent | second · 256; a length of 63 where one of the two has no code, or
    /// both are too long. Empty where the other tables suffice.
    pairs: Vec<Step>,
}

/// A pair that cannot be used: any sum with its length is over [`STEP_BITS`].
const NO_PAIR: Step = Step { c: 0, m: 63 };

/// The output of [`Encoder::stretch`]. It keeps its memory from stretch to stretch.
#[derive(Debug, Default)]
pub struct Stretch {
    /// Code words from byte `start_bit / 64 · 8` of the stream, zeros before the first code and after the last.
    code: Vec<u8>,
    /// Gaps of chunks from number `start_bit / 64`. The first is not this stretch's.
    gaps: Vec<u8>,
    /// For each block border after the start and not after the end: how many weights of the stretch start before it.
    positions: Vec<u32>,
    start_bit: u64,
    end_bit: u64,
}

impl Stretch {
    /// Makes room for a stretch of `weights` weights.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub fn reserve(&mut self, weights: usize) -> error::Result<()> {
        grow(&mut self.code, 8 * Self::words(weights), 0, "the codes of a stretch")?;
        grow(&mut self.gaps, Self::words(weights) + 1, 0, "the gaps of a stretch")
    }

    /// Returns the words for 32 bits a weight, the open word that begins before the start, and the one after the end.
    fn words(weights: usize) -> usize {
        weights / 2 + 3
    }

    fn holds(&self, weights: usize) -> bool {
        let words = Self::words(weights);
        self.code.len() >= 8 * words && self.gaps.len() > words
    }

    /// Returns the bit of the stream after the last code.
    pub fn end_bit(&self) -> u64 {
        self.end_bit
    }

    /// Returns the bytes that hold the codes, after their offset in the stream. The first and the last byte may have
    /// zeros where another stretch has bits.
    pub fn code(&self) -> (u64, &[u8]) {
        let (from, to) = (self.start_bit / 8, self.end_bit.div_ceil(8));
        let origin = self.start_bit / CHUNK_BITS * CHUNK_BYTES as u64;
        (from, &self.code[(from - origin) as usize..(to - origin) as usize])
    }

    /// Returns the gaps that this stretch knows, a byte each, after the number of the first one's chunk: of the chunks
    /// whose border is after the start and not after the end.
    pub fn gaps(&self) -> (u64, &[u8]) {
        let (from, to) = (self.start_bit / CHUNK_BITS, self.end_bit / CHUNK_BITS);
        (from + 1, &self.gaps[1..(to - from) as usize + 1])
    }

    /// Returns, for each block border after the start and not after the end, the first weight of the stretch that
    /// starts at or after it; the number of weights where that is the next stretch's first.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }
}

/// The error of a weight whose exponent has no code: it is not one of those that were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoCode {
    /// The weight's number in the stretch.
    pub weight: usize,
}

impl Encoder {
    /// Makes the tables for a code. `histogram` is that of the weights; it only decides which tables are used, and how
    /// many weights a step takes.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    ///
    /// # Panics
    ///
    /// If this processor lacks `variant`.
    pub fn new(book: &Codebook, histogram: &[u64; 256], variant: Variant) -> error::Result<Encoder> {
        assert!(variant.is_available(), "this processor cannot run the {} variant", variant.name());
        let mut single = boxed(Step { c: 0, m: 0 }, "the table of codes")?;
        for word in book.words() {
            single[word.symbol as usize] =
                Step { c: (word.bits as u64) << 32, m: 1 << (64 - word.len as u32) | word.len as u64 };
        }
        #[cfg(target_arch = "x86_64")]
        let wide = avx512::WideTable::new(book);
        #[cfg(target_arch = "x86_64")]
        let narrow = (variant == Variant::Avx2).then(|| avx2::NarrowTable::new(book, histogram)).flatten();
        let pairs = match variant {
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512 if wide.hold(histogram) => Vec::new(),
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 if narrow.is_some() => Vec::new(),
            _ => pairs(&single)?,
        };
        Ok(Encoder {
            variant,
            per_step: per_step(book, histogram),
            #[cfg(target_arch = "x86_64")]
            wide,
            #[cfg(target_arch = "x86_64")]
            narrow,
            single,
            pairs,
        })
    }

    /// Encodes weights (bf16 bits) whose codes begin at bit `start_bit` of the group's stream. Their sign/mantissa
    /// bytes go to `signs`, everything else to `out`.
    ///
    /// # Errors
    ///
    /// [`NoCode`] if a weight has no code; the contents of `signs` and `out` are then unspecified.
    ///
    /// # Panics
    ///
    /// If `signs` is not as long as `weights`, `out` has no room for them ([`Stretch::reserve`]), or there are 2^28
    /// weights or more.
    pub fn stretch(&self, weights: &[u16], start_bit: u64, signs: &mut [u8], out: &mut Stretch) -> Result<(), NoCode> {
        assert_eq!(weights.len(), signs.len());
        // SAFETY: `signs` has a byte for each weight.
        unsafe { self.stretch_raw(weights, start_bit, signs.as_mut_ptr(), out, false) }
    }

    /// As [`Self::stretch`], into memory that need not be initialised, past the caches if `streaming`.
    ///
    /// # Safety
    ///
    /// A byte for each weight must be writable at `signs`.
    pub unsafe fn stretch_raw(
        &self,
        weights: &[u16],
        start_bit: u64,
        signs: *mut u8,
        out: &mut Stretch,
        streaming: bool,
    ) -> Result<(), NoCode> {
        // Only a variant for x86-64 can write past the caches.
        #[cfg(not(target_arch = "x86_64"))]
        let _ = streaming;
        assert!(weights.len() < 1 << 28 && out.holds(weights.len()));
        out.positions.clear();
        out.start_bit = start_bit;
        // SAFETY: `out` has room for 32 bits a weight, as asserted, and `signs` for a byte a weight; `new` asserted
        // that the processor has what the variant needs.
        let placed = unsafe {
            match self.variant {
                #[cfg(target_arch = "x86_64")]
                Variant::Avx2 => avx2::batches(self, weights, signs, out),
                #[cfg(target_arch = "x86_64")]
                Variant::Avx512 if !self.pairs.is_empty() => avx2::batches(self, weights, signs, out),
                #[cfg(target_arch = "x86_64")]
                Variant::Avx512 => avx512::batches(self, weights, signs, out, streaming),
                _ if self.per_step == 8 => self.batches::<PairSteps<8>>(weights, signs, out),
                _ => self.batches::<PairSteps<16>>(weights, signs, out),
            }
        }?;
        out.end_bit = start_bit / CHUNK_BITS * CHUNK_BITS + placed;
        Ok(())
    }

    /// Encodes all batches of a stretch. Returns the bit after the last code, from the start of the first word.
    ///
    /// # Safety
    ///
    /// `signs` has room for a byte a weight, and `out` for 32 bits a weight and three words; the processor has what the
    /// step maker needs.
    #[inline(always)]
    unsafe fn batches<'a, M: StepMaker<'a>>(
        &'a self,
        weights: &[u16],
        signs: *mut u8,
        out: &mut Stretch,
    ) -> Result<u64, NoCode> {
        let origin = out.start_bit / CHUNK_BITS * CHUNK_BITS;
        let mut place =
            BitWriter { p: out.start_bit - origin, acc: 0, code: out.code.as_mut_ptr(), gaps: out.gaps.as_mut_ptr() };
        // The next block border, from the origin.
        let mut border = (out.start_bit / BLOCK_BITS as u64 + 1) * BLOCK_BITS as u64 - origin;
        let (batches, rest) = weights.as_chunks::<BATCH>();
        // SAFETY: batch `number` has BATCH bytes in `signs`, and each step takes no more bits than the codes of its
        // weights, for which `out` has room.
        unsafe {
            let mut maker = M::new(self);
            let mut steps = [
                Steps { c: [0; BATCH_STEPS], m: [0; BATCH_STEPS] },
                Steps { c: [0; BATCH_STEPS], m: [0; BATCH_STEPS] },
            ];
            let mut whole = match batches.first() {
                Some(first) => maker.make(first, signs, &mut steps[0]),
                None => true,
            };
            for (number, batch) in batches.iter().enumerate() {
                let before = place.p;
                let [ready, next] = &mut steps;
                let (ready, next) = if number % 2 == 0 { (ready, next) } else { (next, ready) };
                // The last batch is made twice, which is cheaper than a branch around it.
                let after = (number + 1).min(batches.len() - 1);
                let next_whole = maker.make(&batches[after], signs.add(BATCH * after), next);
                if whole {
                    for number in 0..BATCH / M::PER_STEP {
                        place.put(ready.get(number));
                    }
                } else {
                    self.place_batch(M::PER_STEP, &mut place, batch, ready)
                        .map_err(|NoCode { weight }| NoCode { weight: BATCH * number + weight })?;
                }
                whole = next_whole;
                if place.p >= border {
                    self.borders(&mut border, before, place.p, batch, BATCH * number, &mut out.positions);
                }
            }
            let first = BATCH * batches.len();
            if maker.has_missed() {
                let missed = |&w: &u16| self.single[exponent(w) as usize].m == 0;
                return Err(NoCode { weight: weights.iter().position(missed).unwrap_or(first) });
            }
            let before = place.p;
            for (i, &w) in rest.iter().enumerate() {
                place.one(self.single[exponent(w) as usize]).ok_or(NoCode { weight: first + i })?;
                *signs.add(first + i) = sign_mantissa(w);
            }
            self.borders(&mut border, before, place.p, rest, first, &mut out.positions);
            // The last step stored the open word, if there was a step and it did not close the word.
            place.code.add((place.p / CHUNK_BITS) as usize * 8).cast::<u64>().write_unaligned(place.acc.to_be());
        }
        Ok(place.p)
    }

    /// Places a batch in which some steps are too long: the weights of these one by one.
    ///
    /// # Safety
    ///
    /// As [`BitWriter::put`], for the codes of all weights.
    #[cold]
    #[inline(never)]
    unsafe fn place_batch(
        &self,
        per_step: usize,
        place: &mut BitWriter,
        batch: &[u16; BATCH],
        steps: &Steps,
    ) -> Result<(), NoCode> {
        for (number, weights) in batch.chunks(per_step).enumerate() {
            // SAFETY: there is room for the codes of all weights, and each is placed once.
            unsafe {
                if steps.m[number] != 0 {
                    place.put(steps.get(number));
                    continue;
                }
                // Eight of sixteen may fit; if even eight are too many, or one has no code, one by one.
                for (half, weights) in weights.chunks(8).enumerate() {
                    let codes = weights.iter().map(|&w| self.single[exponent(w) as usize]);
                    let joined = codes.clone().map(Joined::of).reduce(Joined::join).map(Joined::checked);
                    if let Some(step) = joined.filter(|step| step.m != 0 && codes.clone().all(|code| code.m != 0)) {
                        place.put(step);
                        continue;
                    }
                    for (i, code) in codes.enumerate() {
                        place.one(code).ok_or(NoCode { weight: per_step * number + 8 * half + i })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the first weights after the block borders that codes from bit `at` to `end` passed; `first` is the number
    /// of the first of those weights.
    #[cold]
    #[inline(never)]
    fn borders(&self, border: &mut u64, at: u64, end: u64, weights: &[u16], first: usize, positions: &mut Vec<u32>) {
        let (mut bit, mut weight) = (at, 0);
        while end >= *border {
            // Weights that are changed meanwhile may end before the border.
            while let Some(&w) = weights.get(weight).filter(|_| bit < *border) {
                bit += self.single[exponent(w) as usize].m & 63;
                weight += 1;
            }
            positions.push((first + weight) as u32);
            *border += BLOCK_BITS as u64;
        }
    }
}

/// Returns how many weights a step takes: sixteen if nearly all steps then keep to [`STEP_BITS`].
fn per_step(book: &Codebook, histogram: &[u64; 256]) -> usize {
    let weights = histogram.iter().sum::<u64>().max(1) as f64;
    let moment = |power: i32| {
        let of = |w: super::code::Code| (w.len as f64).powi(power) * histogram[w.symbol as usize] as f64;
        book.words().map(of).sum::<f64>() / weights
    };
    let (mean, variance) = (moment(1), moment(2) - moment(1).powi(2));
    if 16.0 * mean + 2.0 * (16.0 * variance).max(0.0).sqrt() <= STEP_BITS as f64 { 16 } else { 8 }
}

/// Makes the table of pairs.
fn pairs(single: &[Step; 256]) -> error::Result<Vec<Step>> {
    let mut pairs = Vec::new();
    grow(&mut pairs, 1 << 16, NO_PAIR, "the table of pairs")?;
    let used = || single.iter().enumerate().filter(|(_, s)| s.m != 0);
    for (a, first) in used() {
        for (b, second) in used() {
            let joined = first.m & 63;
            let bits = joined + (second.m & 63);
            if bits <= STEP_BITS {
                pairs[a | b << 8] =
                    Step { c: first.c | second.c >> joined, m: first.m & !63 | (second.m & !63) >> joined | bits };
            }
        }
    }
    Ok(pairs)
}

/// A writer of codes, with the place of the next one.
struct BitWriter {
    /// The bit, counted from the first word.
    p: u64,
    /// The open word, its bits on top.
    acc: u64,
    code: *mut u8,
    gaps: *mut u8,
}

impl BitWriter {
    /// Places a step.
    ///
    /// # Safety
    ///
    /// There is room for the step's bits and a word after them, and a gap for each of those words and one more.
    #[inline(always)]
    unsafe fn put(&mut self, step: Step) {
        let Step { c, m } = step;
        let (p, q) = (self.p, self.p + (m & 63));
        let word = (p / CHUNK_BITS) as usize;
        let acc = self.acc | c >> (p & 63);
        // SAFETY: there is room for this word and the gap of the next one.
        unsafe {
            self.code.add(8 * word).cast::<u64>().write_unaligned(acc.to_be());
            *self.gaps.add(word + 1) = (m << (!p & 63)).leading_zeros() as u8;
        }
        let over = c << (p.wrapping_neg() & 63);
        self.acc = if (p ^ q) >= CHUNK_BITS { over } else { acc };
        self.p = q;
    }

    /// Places one weight's code; `None` if it has none.
    ///
    /// # Safety
    ///
    /// As [`Self::put`].
    #[inline(always)]
    unsafe fn one(&mut self, step: Step) -> Option<()> {
        if step.m == 0 {
            return None;
        }
        // SAFETY: there is room for the step's bits and a word after them, and a gap for each of those words and one more.
        unsafe { self.put(step) };
        Some(())
    }
}

/// A way to make steps.
trait StepMaker<'a> {
    /// Weights of a step: 8 or 16.
    const PER_STEP: usize;

    /// Loads what is needed from the tables, once for a stretch.
    ///
    /// # Safety
    ///
    /// The processor has what the step maker needs.
    unsafe fn new(encoder: &'a Encoder) -> Self;

    /// Makes the steps of a batch, and writes its sign/mantissa bytes. Returns whether none of the steps is too long.
    ///
    /// # Safety
    ///
    /// `signs` has room for a byte a weight, and the processor has what the step maker needs.
    unsafe fn make(&mut self, weights: &[u16; BATCH], signs: *mut u8, steps: &mut Steps) -> bool;

    /// Returns whether a weight without a code was taken for one that has one, in a step that seemed good.
    fn has_missed(&self) -> bool {
        false
    }
}

/// Makes steps from the table of pairs.
struct PairSteps<'a, const PER_STEP: usize> {
    pairs: &'a [Step; 1 << 16],
}

impl<'a, const N: usize> StepMaker<'a> for PairSteps<'a, N> {
    const PER_STEP: usize = N;

    #[inline(always)]
    unsafe fn new(encoder: &'a Encoder) -> Self {
        let Some(pairs) = encoder.pairs.first_chunk() else { unreachable!("an encoder of this variant has pairs") };
        PairSteps { pairs }
    }

    #[inline(always)]
    unsafe fn make(&mut self, weights: &[u16; BATCH], signs: *mut u8, steps: &mut Steps) -> bool {
        for line in (0..BATCH).step_by(32) {
            prefetch(weights.as_ptr().wrapping_add(1024 + line));
        }
        let mut exponents = [0u8; BATCH];
        // SAFETY: `signs` has room for a byte a weight.
        unsafe {
            for (i, &w) in weights.iter().enumerate() {
                exponents[i] = exponent(w);
                *signs.add(i) = sign_mantissa(w);
            }
        }
        let mut whole = true;
        let (octets, _) = exponents.as_chunks::<8>();
        for number in 0..BATCH / N {
            let joined = if N == 8 {
                octet(self.pairs, &octets[number])
            } else {
                octet(self.pairs, &octets[2 * number]).join(octet(self.pairs, &octets[2 * number + 1]))
            };
            let step = joined.checked();
            (steps.c[number], steps.m[number]) = (step.c, step.m);
            whole &= step.m != 0;
        }
        whole
    }
}

/// A step in the making: its length is kept apart, because it may be too large.
#[derive(Clone, Copy)]
struct Joined {
    c: u64,
    /// Marks only.
    m: u64,
    bits: u64,
}

impl Joined {
    #[inline(always)]
    fn of(step: Step) -> Joined {
        Joined { c: step.c, m: step.m & !63, bits: step.m & 63 }
    }

    /// Joins both, one after the other. If they are too long for a step, only `bits` of the result is right.
    #[inline(always)]
    fn join(self, next: Joined) -> Joined {
        let at = self.bits & 63;
        Joined { c: self.c | next.c >> at, m: self.m | next.m >> at, bits: self.bits + next.bits }
    }

    #[inline(always)]
    fn checked(self) -> Step {
        Step { c: self.c, m: if self.bits <= STEP_BITS { self.m | self.bits } else { 0 } }
    }
}

/// Joins eight exponents, the first in the first byte.
#[inline(always)]
fn octet(pairs: &[Step; 1 << 16], exponents: &[u8; 8]) -> Joined {
    let e = u64::from_le_bytes(*exponents);
    let pair = |i: u32| Joined::of(pairs[(e >> (16 * i)) as u16 as usize]);
    pair(0).join(pair(1)).join(pair(2).join(pair(3)))
}
