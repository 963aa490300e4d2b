//! The fast decoder: several streams at once, several exponents per look-up, merge by SIMD.
//!
//! # The idea
//!
//! Reading one Huffman stream is a chain: the next code's place is known only when this one's length is. A processor
//! can overlap some five such chains, so a thread decodes that many *runs* (stretches of whole blocks) together, each
//! in a *lane*. A run starts where the file says that a block starts and then crosses all block borders in it without
//! stopping, because the stream itself restarts nowhere.
//!
//! ```text
//! look-up   e = table[bits >> 53]                up to six exponents and the bits that they took, from 11 bits
//!           store64(op - 7, e)                   all eight bytes; the next store overwrites the excess
//!           bits <<= e & 63;  op -= (e >> 8) & 255
//! refill    used = trailing_zeros(bits)          no bit counter: the lowest set bit is a sentinel after the data
//!           ip += used / 8
//!           bits = (load_be64(ip) | 1) << (used & 7)
//! iteration five times a look-up of each lane; then for each lane a refill, and a test whether its last look-up found a
//!           code longer than 11 bits; then three units of 32 weights of the previous burst are merged with their
//!           sign/mantissa bytes and written
//! burst     up to 40 iterations
//! ```
//!
//! - **Staged downwards.** Exponents grow downwards in memory: an entry's count and length are then in its low bytes,
//!   and the whole entry is stored and shifted by unmasked, seven instructions for 3.7 weights. The merge reverses them
//!   at no cost.
//! - **Look-up by look-up through the lanes, not lane by lane.** Instructions that wait for a look-up wait in the
//!   processor's scheduler, which holds about 100 of them (Skylake: 97). Lane by lane, two lanes' chains fill it.
//! - **Merging while decoding.** Decoding is bound by instructions, merging by memory. One after the other their times
//!   add up; together they take the longer of the two. So each lane has two staging buffers: while one fills, the other
//!   empties.
//! - **A long code stops its lane**: an entry of 0 shifts by 0 and counts 0, so the rest of that iteration repeats it
//!   without effect, and one test per five look-ups suffices.
//!
//! The order of the look-ups and the merging were measured against their absence; the figures are in
//! `tests/bench/README.md`.
//!
//! # Where gaps are known
//!
//! A feed may give its runs their gaps. Each chunk then offers a start, and runs are decoded one after the other, by more
//! lanes than there are blocks: `stretches` does so for ranges of few blocks, and `avx512vbmi2` for all, in vectors. Both
//! only take what the gaps confirm, and leave the rest of a run to the loop above.
//!
//! # What keeps it in bounds
//!
//! Nothing inside a burst is tested against a border. Before a burst, `Lane::room` allows only as many iterations as
//! fit even if each took the most input (5 · 11 + 32 bits and 7 spent ones, which is 11 whole bytes, and a load of 8)
//! and gave the most output (5 · 6 + 1 exponents). Near an end the bursts become shorter, and the last weights are
//! decoded one at a time by `finish`, which therefore knows the exact bit at which a run ended: it must be where the
//! file says that the next run begins. Each iteration gives at least one exponent, so no input makes it loop.

use super::code::CodeTable;
use super::table::{MOST_PER_LOOKUP, MultiTable};
use super::{CHUNK_BITS, MAX_CODE_BITS, fence};
use burst::{Burst, Merge, Pending, PortableMerge, Registers, be64, burst};
use lane::{Lane, Stages, finish, flush, locate};
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use stretches::Stage;

/// Defines `routines()`: functions that are compiled for processors with some features, which [`Variant::is_available`]
/// checks. BMI's three-operand shifts alone save some 10 % of the instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! routines_with {
    ($merge:ident, $features:literal) => {
        pub(super) fn routines<const STREAM: bool>() -> Routines<MOST_LANES> {
            /// # Safety
            ///
            /// As [`super::burst`], and the processor has the features.
            #[target_feature(enable = $features)]
            unsafe fn burst<const R: usize, const STREAM: bool>(
                regs: &mut Registers<R>,
                waiting: &mut [Pending],
                table: &MultiTable,
                codes: &CodeTable,
                iterations: usize,
            ) -> bool {
                // SAFETY: each lane has code and staging for the iterations, the pending pointers are valid and not into these,
                // and the processor has the features.
                unsafe { super::burst::<$merge<STREAM>, R>(regs, waiting, table, codes, iterations) }
            }
            /// # Safety
            ///
            /// As [`Pending::merge`], and the processor has the features.
            #[target_feature(enable = $features)]
            unsafe fn merge<const STREAM: bool>(pending: &mut Pending) {
                // SAFETY: all of its units are pending, its pointers are valid for them, and the processor has the features.
                unsafe { pending.merge::<$merge<STREAM>>(pending.units) }
            }
            Routines {
                burst_all: burst::<MOST_LANES, STREAM>,
                burst_one: burst::<1, STREAM>,
                merge: merge::<STREAM>,
                stage: super::stretches::with_bmi2::<true>,
                ahead: super::stretches::decode,
                streaming: STREAM,
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512vbmi2;
mod burst;
mod lane;
#[cfg(target_arch = "x86_64")]
mod sse2;
mod stretches;

pub use stretches::{bounds, count};

/// The most runs that one thread decodes at a time.
pub const MOST_LANES: usize = 5;
/// The same without BMI2: shifts by a register then need CL, and five lanes' state no longer fits the registers.
const FEWER_LANES: usize = 4;
/// Weights of a range for which stretches are faster than lanes: fewer are decoded soonest by one lane, and more have a
/// block for each lane.
const FEW_WEIGHTS: RangeInclusive<u64> = 700..=1 << 15;
/// Look-ups between two refills: 5 · 11 bits are at most the 56 that a refill guarantees.
const LOOKUPS_PER_REFILL: usize = 5;
/// Iterations of a burst. More would only make the staging buffers larger, fewer cost more between bursts.
const BURST: usize = 40;
/// The most exponents of an iteration: each look-up full, and a long code at its end.
const MOST_EXPONENTS: usize = LOOKUPS_PER_REFILL * MOST_PER_LOOKUP + 1;
/// The most whole bytes by which an iteration advances: 7 spent bits before, 55 in look-ups, 32 in a long code.
const MOST_BYTES: usize = 11;
/// Weights that are merged at a time: one cache line of bf16.
const UNIT: usize = 32;
/// Bytes of a staging buffer: a burst's exponents, the rest of the previous one (less than two units), slack for the
/// 8-byte stores. 21 cache lines, an odd number, so that the lanes' buffers fall into different cache sets.
const STAGE: usize = 1344;
const _: () =
    assert!(STAGE >= BURST * MOST_EXPONENTS + 2 * UNIT + 16 && STAGE.is_multiple_of(64) && (STAGE / 64) % 2 == 1);
/// The offset of the first staged exponent.
const TOP: usize = STAGE - 1;
/// The bits of a sign/mantissa byte, twice in 16 bits, that are those of a bf16.
#[cfg(target_arch = "x86_64")]
const KEEP: i16 = 0x807f_u16 as i16;

/// A way to decode. All give the same bits; the fastest that the processor has is taken unless the caller names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// No intrinsics: any processor. The compiler vectorises the merge with what the target has (NEON on AArch64).
    Portable,
    /// x86-64's baseline, with streaming stores.
    Sse2,
    /// AVX2 and BMI2 (Intel since 2013, AMD since 2015).
    Avx2,
    /// AVX-512 F and BW, with BMI2.
    Avx512,
    /// AVX-512 with VBMI and VBMI2 (Intel since Ice Lake, AMD since Zen 4). What its vectors do not take, because a code has
    /// too many prefixes or too few weights are left, [`Variant::Avx512`] decodes.
    Avx512Vbmi2,
}

impl Variant {
    /// Every variant of every architecture, slowest first.
    pub const ALL: [Variant; 5] =
        [Variant::Portable, Variant::Sse2, Variant::Avx2, Variant::Avx512, Variant::Avx512Vbmi2];

    /// Returns whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Variant::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Variant::Sse2 => true,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")
            }
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512 => {
                Variant::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
            }
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512Vbmi2 => {
                Variant::Avx512.is_available()
                    && is_x86_feature_detected!("popcnt")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vbmi2")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Returns the fastest one that this processor can run. The first generations with AVX-512 lower their clock for
    /// it, and AVX2 was faster there; later ones also have VBMI (Intel since Ice Lake, AMD since Zen 4), and nearly all of
    /// those VBMI2.
    pub fn best() -> Variant {
        #[cfg(target_arch = "x86_64")]
        let good = |v: Variant| v != Variant::Avx512 || is_x86_feature_detected!("avx512vbmi");
        #[cfg(not(target_arch = "x86_64"))]
        let good = |_| true;
        Self::ALL.into_iter().rev().find(|&v| v.is_available() && good(v)).unwrap_or(Variant::Portable)
    }

    /// Returns its name in lower case, as tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Portable => "portable",
            Variant::Sse2 => "sse2",
            Variant::Avx2 => "avx2",
            Variant::Avx512 => "avx512",
            Variant::Avx512Vbmi2 => "avx512vbmi2",
        }
    }
}

/// A stretch of the bit stream to decode, and where its weights go.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The code words' bytes.
    pub code: *const u8,
    /// The number of these bytes. Nothing after them is read.
    pub code_bytes: usize,
    /// The bit of `code` at which the first code starts.
    pub start_bit: usize,
    /// The gaps of the chunks of `code`, packed as files have them. They may be wrong.
    pub gaps: *const u8,
    /// The number of these gaps: one more than there are chunks in the run, or fewer. Only feeds that say so have any.
    pub gap_count: usize,
    /// Weights to decode and drop first.
    pub skip: usize,
    /// The sign/mantissa bytes of the weights after the dropped ones: `count` of them.
    pub sign_mantissa: *const u8,
    /// The destination of their bf16 bits: `count` of them, aligned to 2 bytes.
    pub dst: *mut u16,
    /// Weights to write.
    pub count: usize,
    /// The first and the last bit at which the code of the last weight may end, or [`Run::ANY_END`].
    pub end_bits: (usize, usize),
    /// The feed's own number for this run.
    pub tag: usize,
}

impl Run {
    /// The ends of a run whose last weight's code may end anywhere.
    pub const ANY_END: (usize, usize) = (0, usize::MAX);

    /// Returns its gaps, and how many of its chunks can be walked: each of them, and the one after, is whole, so that
    /// a code starts in it, and loads of 8 bytes that begin there stay in the code.
    ///
    /// # Safety
    ///
    /// The run has the gaps that it says.
    unsafe fn walkable(&self) -> (&[u8], usize) {
        // SAFETY: the caller promises.
        let gaps = unsafe { std::slice::from_raw_parts(self.gaps, (self.gap_count * 5).div_ceil(8)) };
        let whole = (8 * self.code_bytes).saturating_sub(64 + MAX_CODE_BITS as usize) / CHUNK_BITS;
        (gaps, self.gap_count.saturating_sub(1).min(whole))
    }
}

/// A fault in a bit stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No code begins at this bit of the run's code.
    NoCode {
        /// The bit.
        bit: usize,
        /// Weights of the run before it, dropped ones included.
        weight: usize,
    },
    /// The code ends inside a weight.
    Short {
        /// The bit at which that weight's code begins.
        bit: usize,
        /// Weights of the run before it, dropped ones included.
        weight: usize,
    },
    /// A burst met bits that begin no code, and they are no longer there: the code is being written to.
    Changed,
    /// The run ends at another bit than the one at which the next begins.
    End {
        /// The bit at which it ended.
        bit: usize,
    },
}

/// The source of the decoder's runs.
///
/// # Safety
///
/// Every run's pointers must be valid for what [`Run`] says (`dst` for writing, not overlapping any other run's) until
/// `next` is called again for the same lane, or the decoder returns.
pub unsafe trait Feed {
    /// The error that ends a decode.
    type Error;
    /// Returns the next run for a lane, a number below [`MOST_LANES`]; `None` when there is no more.
    fn next(&mut self, lane: usize) -> Result<Option<Run>, Self::Error>;
    /// Returns whether all runs have gaps. They are then decoded one after the other.
    fn has_gaps(&self) -> bool {
        false
    }
    /// Turns a run's fault into an error.
    fn fault(&self, run: &Run, fault: Fault) -> Self::Error;
}

/// Decodes all runs of a feed. `streaming` writes past the caches, which is faster where the output exceeds them.
///
/// # Panics
///
/// If this processor lacks `variant`.
pub fn decode<F: Feed>(
    table: &MultiTable,
    codes: &CodeTable,
    feed: &mut F,
    variant: Variant,
    streaming: bool,
) -> Result<(), F::Error> {
    assert!(variant.is_available(), "this processor cannot run the {} variant", variant.name());
    #[cfg(target_arch = "x86_64")]
    match (variant, streaming) {
        (Variant::Portable, _) => work_with(table, codes, feed, &Routines::of::<PortableMerge>(false)),
        (Variant::Sse2, false) => work_with(table, codes, feed, &sse2::routines::<false>()),
        (Variant::Sse2, true) => work_with(table, codes, feed, &sse2::routines::<true>()),
        (Variant::Avx2, false) => work_with(table, codes, feed, &avx2::routines::<false>()),
        (Variant::Avx2, true) => work_with(table, codes, feed, &avx2::routines::<true>()),
        (Variant::Avx512, false) => work_with(table, codes, feed, &avx512::routines::<false>()),
        (Variant::Avx512, true) => work_with(table, codes, feed, &avx512::routines::<true>()),
        (Variant::Avx512Vbmi2, false) => work_with(table, codes, feed, &avx512vbmi2::routines::<false>()),
        (Variant::Avx512Vbmi2, true) => work_with(table, codes, feed, &avx512vbmi2::routines::<true>()),
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = streaming;
        work_with(table, codes, feed, &Routines::of::<PortableMerge>(false))
    }
}

/// Decodes all runs of a feed in lanes; or one after the other, if they have gaps, each as far as those confirm what was
/// found, and the rest in a lane.
fn work_with<F: Feed, const L: usize>(
    table: &MultiTable,
    codes: &CodeTable,
    feed: &mut F,
    routines: &Routines<L>,
) -> Result<(), F::Error> {
    if !feed.has_gaps() {
        return work(table, codes, feed, routines);
    }
    while let Some(run) = feed.next(0)? {
        // SAFETY: the feed keeps the run's pointers valid, and the routines were chosen for this processor.
        let reached = unsafe { (routines.ahead)(&run, table, codes, routines) };
        let written = reached.weights.saturating_sub(run.skip);
        let rest = Run {
            start_bit: reached.bit,
            skip: run.skip.saturating_sub(reached.weights),
            sign_mantissa: run.sign_mantissa.wrapping_add(written),
            dst: run.dst.wrapping_add(written),
            count: run.count - written,
            ..run
        };
        work(table, codes, &mut Rest { feed, run, rest: Some(rest), before: reached.weights }, routines)?;
    }
    Ok(())
}

/// How far a run was decoded.
#[derive(Clone, Copy)]
struct Reached {
    /// The bit at which the next code begins; after the last weight of a run that may end anywhere, any bit.
    bit: usize,
    /// Weights before it, dropped ones included.
    weights: usize,
}

/// Feeds the rest of a run.
struct Rest<'a, F: Feed> {
    feed: &'a mut F,
    run: Run,
    rest: Option<Run>,
    /// Weights of the run before the rest.
    before: usize,
}

// SAFETY: the rest is a part of the run, and the feed's next run is asked for after it.
unsafe impl<F: Feed> Feed for Rest<'_, F> {
    type Error = F::Error;

    fn next(&mut self, _: usize) -> Result<Option<Run>, F::Error> {
        Ok(self.rest.take())
    }

    fn fault(&self, _: &Run, fault: Fault) -> F::Error {
        let fault = match fault {
            Fault::NoCode { bit, weight } => Fault::NoCode { bit, weight: weight + self.before },
            Fault::Short { bit, weight } => Fault::Short { bit, weight: weight + self.before },
            Fault::Changed | Fault::End { .. } => fault,
        };
        self.feed.fault(&self.run, fault)
    }
}

/// Returns whether a variant decodes a range of so many weights faster if it knows the gaps.
pub fn wants_gaps(table: &MultiTable, variant: Variant, weights: u64) -> bool {
    (variant == Variant::Avx512Vbmi2 && table.short.is_some()) || FEW_WEIGHTS.contains(&weights)
}

/// The functions of one variant, for L lanes.
struct Routines<const L: usize> {
    burst_all: Burst<L>,
    burst_one: Burst<1>,
    /// Merges all that is pending.
    merge: unsafe fn(&mut Pending),
    /// Stages the exponents of stretches.
    stage: Stage,
    /// Decodes as much of a run as its gaps confirm.
    ahead: unsafe fn(&Run, &MultiTable, &CodeTable, &Routines<L>) -> Reached,
    /// True if merges write past the caches: destinations are then aligned to a cache line.
    streaming: bool,
}

impl Routines<FEWER_LANES> {
    /// Returns routines of instructions that every processor of the architecture has.
    fn of<M: Merge>(streaming: bool) -> Self {
        /// # Safety
        ///
        /// As [`Pending::merge`].
        unsafe fn merge<M: Merge>(pending: &mut Pending) {
            // SAFETY: all of its units are pending, its pointers are valid for them, and the processor can run M.
            unsafe { pending.merge::<M>(pending.units) }
        }
        Routines {
            burst_all: burst::<M, _>,
            burst_one: burst::<M, 1>,
            merge: merge::<M>,
            stage: stretches::walk::<true>,
            ahead: stretches::decode,
            streaming,
        }
    }
}

/// Bursts until no lane has work and the feed has none left. Its stages are on the stack only while it runs.
#[inline(never)]
fn work<F: Feed, const L: usize>(
    table: &MultiTable,
    codes: &CodeTable,
    feed: &mut F,
    routines: &Routines<L>,
) -> Result<(), F::Error> {
    let mut stages = Stages(MaybeUninit::<[[[u8; STAGE]; 2]; L]>::uninit());
    let base = stages.0.as_mut_ptr().cast::<u8>();
    let mut lanes: [Lane; L] = std::array::from_fn(|i| Lane::idle(base.wrapping_add(2 * STAGE * i)));
    let mut pending = [Pending::NONE; L];
    let mut dry = false;
    let result = loop {
        if let Err(error) = fill_lanes(&mut lanes, feed, &mut dry) {
            break Err(error);
        }
        let mut busy = lanes.iter().enumerate().filter(|(_, lane)| lane.run.is_some()).map(|(i, _)| i);
        let Some(first) = busy.next() else { break Ok(()) };
        let alone = busy.next().is_none();
        let iterations = lanes.iter().filter_map(|lane| Some(lane.room(lane.run.as_ref()?))).min().unwrap_or(0);
        if iterations == 0 {
            if let Err((run, fault)) = finish_lanes(&mut lanes, &mut pending, table, codes, routines) {
                break Err(feed.fault(&run, fault));
            }
            continue;
        }
        let ok = if alone {
            // SAFETY: the lane has room for these iterations, and the routines were chosen for this processor.
            unsafe { burst_lanes([first], &mut lanes, routines.burst_one, &mut pending, table, codes, iterations) }
        } else {
            // A lane without work shadows a busy one and its exponents are dropped: no slower than if all had work.
            let source = std::array::from_fn(|i| if lanes[i].run.is_some() { i } else { first });
            // SAFETY: all busy lanes have room for these iterations; a shadow reads what the lane that it shadows
            // reads.
            unsafe { burst_lanes(source, &mut lanes, routines.burst_all, &mut pending, table, codes, iterations) }
        };
        if !ok && let Some((run, fault)) = locate_in(&lanes, codes) {
            break Err(feed.fault(&run, fault));
        }
        for (lane, pending) in lanes.iter_mut().zip(&mut pending) {
            if let Some(run) = lane.run {
                // SAFETY: what was pending is in the run, and so is what is staged: no more than the run has weights
                // left.
                unsafe {
                    (routines.merge)(pending);
                    *pending = flush(lane, &run, routines.streaming);
                }
            }
        }
    };
    if routines.streaming {
        fence();
    }
    result
}

/// Gives each idle lane a run, as long as the feed has some; `dry` says that it has none left.
fn fill_lanes<F: Feed>(lanes: &mut [Lane], feed: &mut F, dry: &mut bool) -> Result<(), F::Error> {
    for (i, lane) in lanes.iter_mut().enumerate() {
        while !*dry && lane.run.is_none() {
            match feed.next(i)? {
                Some(run) => lane.begin(run),
                None => *dry = true,
            }
        }
    }
    Ok(())
}

/// Finishes the lanes that have no room for an iteration, and leaves them idle.
fn finish_lanes<const L: usize>(
    lanes: &mut [Lane; L],
    pending: &mut [Pending; L],
    table: &MultiTable,
    codes: &CodeTable,
    routines: &Routines<L>,
) -> Result<(), (Run, Fault)> {
    for (lane, pending) in lanes.iter_mut().zip(pending) {
        if let Some(run) = lane.run
            && lane.room(&run) == 0
        {
            // SAFETY: the feed keeps the run's pointers valid, and what is pending belongs to the run.
            unsafe { finish(lane, &run, pending, table, codes, routines) }.map_err(|fault| (run, fault))?;
            lane.run = None;
        }
    }
    Ok(())
}

/// Finds the fault that a burst has met: the first of the runs that has one when they are walked again.
#[cold]
fn locate_in(lanes: &[Lane], codes: &CodeTable) -> Option<(Run, Fault)> {
    let mut runs = lanes.iter().filter_map(|lane| lane.run);
    let first = runs.clone().next();
    let found = runs.find_map(|run| Some((run, locate(&run, codes)?)));
    found.or(first.map(|run| (run, Fault::Changed)))
}

/// Loads R lanes, runs a burst, and takes their progress back. Slot i works on lane `source[i]`. With all lanes, a slot
/// whose own lane it is not only shadows it. Returns false if some lane met bits that begin no code.
///
/// # Safety
///
/// Each source has a run and room for `iterations`; the pointers in `pending` are valid; the processor can run `burst`.
#[inline(always)]
unsafe fn burst_lanes<const R: usize>(
    source: [usize; R],
    lanes: &mut [Lane],
    burst: Burst<R>,
    pending: &mut [Pending],
    table: &MultiTable,
    codes: &CodeTable,
    iterations: usize,
) -> bool {
    let mut regs = Registers { ip: [std::ptr::null(); R], bits: [0; R], op: [std::ptr::null_mut(); R] };
    let own = |slot: usize| if R == 1 { source[slot] } else { slot };
    for slot in 0..R {
        let lane = &lanes[source[slot]];
        let Some(run) = &lane.run else { return true };
        regs.ip[slot] = run.code.wrapping_add(lane.at >> 3);
        // SAFETY: the lane has room for an iteration, so at least 8 bytes of code are ahead.
        regs.bits[slot] = (unsafe { be64(regs.ip[slot]) } | 1) << (lane.at & 7);
        let staged = if own(slot) == source[slot] { lane.staged } else { 0 };
        regs.op[slot] = lanes[own(slot)].top().wrapping_sub(staged);
    }
    // SAFETY: each lane has room for the iterations, in its code and below its staged exponents.
    let ok = unsafe { burst(&mut regs, pending, table, codes, iterations) };
    for slot in (0..R).filter(|&slot| own(slot) == source[slot]) {
        let lane = &mut lanes[source[slot]];
        if let Some(run) = &lane.run {
            lane.at = (regs.ip[slot] as usize - run.code as usize) * 8 + regs.bits[slot].trailing_zeros() as usize;
        }
        lane.staged = lane.top() as usize - regs.op[slot] as usize;
    }
    ok
}
