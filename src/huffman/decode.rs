//! The fast decoder: several streams at once, several exponents per look-up, merge by SIMD.
//!
//! # The idea
//!
//! Reading one Huffman stream is a chain: the next code's place is known only when this one's length is. A processor
//! has room for some five such chains side by side, so a thread decodes that many *runs* (stretches of whole blocks)
//! together. A run starts where the file says that a block starts and then goes through all block borders in it
//! without stopping, for the stream itself restarts nowhere.
//!
//! ```text
//! step      e = table[bits >> 53]                up to six exponents and the bits that they took, from 11 bits
//!           store64(op - 7, e)                   all eight bytes; what is too much is overwritten by the next
//!           bits <<= e & 63;  op -= (e >> 8) & 255
//! refill    used = trailing_zeros(bits)          no bit counter: the lowest set bit is a sentinel behind the data
//!           ip += used / 8
//!           bits = (load_be64(ip) | 1) << (used & 7)
//! iteration five times a step of each lane; then for each lane a refill, and a test whether its last step found a code
//!           longer than 11 bits; then three units of 32 weights of the burst before are merged with their
//!           sign/mantissa bytes and written
//! burst     up to 40 iterations
//! ```
//!
//! - **Staged downwards.** Exponents grow downwards in memory: an entry's count and length then sit in its low bytes and
//!   the whole entry is stored and shifted by unmasked, seven instructions for 3.7 weights. The merge turns them round
//!   again for nothing.
//! - **Step by step through the lanes, not lane by lane.** Instructions that wait for a look-up wait in the processor's
//!   scheduler, which holds about 100 of them (Skylake: 97). Lane by lane it is full of two lanes' chains.
//! - **Merging while decoding.** Decoding waits for instructions, merging for memory. One after the other they add up;
//!   side by side the longer one counts. So each lane has two staging buffers: while one fills, the other empties.
//! - **A long code leaves its lane where it is**: an entry of 0 shifts by 0 and counts 0, so the rest of that iteration
//!   repeats it harmlessly, and one test per five steps suffices.
//!
//! The order of the steps and the merging were measured against their absence; the figures are in `tests/bench/README.md`.
//!
//! # What keeps it in bounds
//!
//! Nothing inside a burst is tested against a border. Before it, `Lane::room` allows only so many iterations as fit
//! even if each took the most input (5 · 11 + 32 bits and 7 spent ones, that is 11 whole bytes, and a load of 8) and
//! gave the most output (5 · 6 + 1 exponents). Near an end the bursts grow shorter, and the last weights are decoded
//! one at a time by `finish`, which therefore knows the exact bit at which a run ended: it must be where the file says
//! that the next run begins. Each iteration gives at least one exponent, so no input makes it loop.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::code::CodeTable;
use super::table::{MOST, MultiTable, WINDOW};
use super::{fence, join, window};

/// The most runs that one thread decodes at a time.
pub const LANES: usize = 5;
/// The same without BMI2: shifts by a register then need CL, and five lanes' state no longer fits the registers.
const FEWER_LANES: usize = 4;
/// Look-ups between two refills: 5 · 11 bits are at most the 56 that a refill guarantees.
const STEPS: usize = 5;
/// Iterations of a burst. More would only make the staging buffers larger, fewer cost more between bursts.
const BURST: usize = 40;
/// The most exponents of an iteration: each look-up full, and a long code at its end.
const MOST_EXPONENTS: usize = STEPS * MOST + 1;
/// The most whole bytes by which an iteration moves on: 7 spent bits before, 55 in look-ups, 32 in a long code.
const MOST_BYTES: usize = 11;
/// Weights that are merged at a time: one cache line of bf16.
const UNIT: usize = 32;
/// Units that are merged in an iteration. On real models five lanes give 2.9 of them.
const UNITS_PER_ITERATION: usize = 3;
/// How far ahead of a merge its sign/mantissa bytes are asked for: a burst's worth. The lanes are many short streams, too
/// many for the processor to foresee.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 800;
/// A staging buffer: a burst's exponents, what was kept from before (less than two units), slack for the 8-byte stores.
/// 21 cache lines, an odd number, so that the lanes' buffers fall into different cache sets.
const STAGE: usize = 1344;
const _: () =
    assert!(STAGE >= BURST * MOST_EXPONENTS + 2 * UNIT + 16 && STAGE.is_multiple_of(64) && (STAGE / 64) % 2 == 1);
/// Where the first staged exponent lies.
const TOP: usize = STAGE - 1;

/// A way to decode. All give the same bits; the fastest that the processor has is taken unless the caller names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// No intrinsics: any processor. The compiler vectorises the merge with what the target has (NEON on AArch64).
    Portable,
    /// x86-64's baseline, with streaming stores.
    Sse2,
    /// AVX2 and BMI2 (Intel from 2013 on, AMD from 2015 on).
    Avx2,
    /// AVX-512 F and BW, with BMI2.
    Avx512,
}

impl Variant {
    /// Every variant of every architecture.
    pub const ALL: [Variant; 4] = [Variant::Portable, Variant::Sse2, Variant::Avx2, Variant::Avx512];

    /// Whether this processor can run it.
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
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest one that this processor can run. The first generations with AVX-512 lower their clock for it, and AVX2 was
    /// faster there; those that do not also have VBMI (Intel from Ice Lake on, AMD from Zen 4 on).
    pub fn best() -> Variant {
        #[cfg(target_arch = "x86_64")]
        let good = |v: Variant| v != Variant::Avx512 || is_x86_feature_detected!("avx512vbmi");
        #[cfg(not(target_arch = "x86_64"))]
        let good = |_| true;
        Self::ALL.into_iter().rev().find(|&v| v.is_available() && good(v)).unwrap_or(Variant::Portable)
    }

    /// Its name in lower case, as tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Portable => "portable",
            Variant::Sse2 => "sse2",
            Variant::Avx2 => "avx2",
            Variant::Avx512 => "avx512",
        }
    }
}

/// A stretch of the bit stream to decode, and where its weights go.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The code words' bytes.
    pub code: *const u8,
    /// How many there are. Nothing behind them is read.
    pub code_bytes: usize,
    /// The bit of `code` at which the first code starts.
    pub start_bit: usize,
    /// Weights to decode and drop first.
    pub skip: usize,
    /// The sign/mantissa bytes of the weights behind the dropped ones: `count` of them.
    pub sign_mantissa: *const u8,
    /// Where their bf16 bits go: `count` of them, aligned to 2 bytes.
    pub dst: *mut u16,
    /// Weights to write.
    pub count: usize,
    /// The first and the last bit at which the code of the last weight may end.
    pub end_bits: (usize, usize),
    /// The feed's own number for this run.
    pub tag: usize,
}

/// What is wrong with a bit stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No code begins at this bit of the run's code; so many weights came before it in the run.
    NoCode {
        /// The bit.
        bit: usize,
        /// Weights decoded before, dropped ones included.
        weight: usize,
    },
    /// The code ends inside a weight.
    Short {
        /// The bit at which that weight's code begins.
        bit: usize,
        /// Weights decoded before, dropped ones included.
        weight: usize,
    },
    /// A burst met bits that begin no code, and they are no longer there: someone writes to the code.
    Changed,
    /// The run ends at another bit than the one at which the next begins.
    End {
        /// Where it ended.
        bit: usize,
    },
}

/// Where the decoder gets its runs from.
///
/// # Safety
///
/// Every run's pointers must be valid for what [`Run`] says (`dst` for writing, not overlapping any other run's) until
/// `next` is called again for the same lane, or the decoder returns.
pub unsafe trait Feed {
    /// What ends a decode.
    type Error;
    /// The next run for a lane, a number below [`LANES`]; `None` when there is no more.
    fn next(&mut self, lane: usize) -> Result<Option<Run>, Self::Error>;
    /// Says what is wrong with a run.
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
        (Variant::Portable, _) => work(table, codes, feed, &Kernel::of::<Plain>(false)),
        (Variant::Sse2, false) => work(table, codes, feed, &Kernel::of::<x86::Sse2<false>>(false)),
        (Variant::Sse2, true) => work(table, codes, feed, &Kernel::of::<x86::Sse2<true>>(true)),
        (Variant::Avx2, false) => work(table, codes, feed, &x86::avx2::<false>()),
        (Variant::Avx2, true) => work(table, codes, feed, &x86::avx2::<true>()),
        (Variant::Avx512, false) => work(table, codes, feed, &x86::avx512::<false>()),
        (Variant::Avx512, true) => work(table, codes, feed, &x86::avx512::<true>()),
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = streaming;
        work(table, codes, feed, &Kernel::of::<Plain>(false))
    }
}

/// The functions of one variant, and how many lanes it works on.
struct Kernel<const L: usize> {
    burst_all: Burst<L>,
    burst_one: Burst<1>,
    merge: unsafe fn(&mut Piece),
    /// Whether it writes past the caches: destinations are then aligned to a cache line.
    streaming: bool,
}

impl Kernel<FEWER_LANES> {
    /// A kernel of instructions that every processor of the architecture has.
    fn of<U: Unit>(streaming: bool) -> Self {
        /// # Safety
        ///
        /// As [`Piece::merge`].
        unsafe fn merge<U: Unit>(piece: &mut Piece) {
            // SAFETY: the same promise.
            unsafe { piece.merge::<U>(piece.units) }
        }
        Kernel { burst_all: burst::<U, _>, burst_one: burst::<U, 1>, merge: merge::<U>, streaming }
    }
}

/// Bursts until no lane has work and the feed has none left.
fn work<F: Feed, const L: usize>(
    table: &MultiTable,
    codes: &CodeTable,
    feed: &mut F,
    kernel: &Kernel<L>,
) -> Result<(), F::Error> {
    let mut stages = Stages([[[0; STAGE]; 2]; L]);
    let base = stages.0.as_mut_ptr();
    let mut lanes: [Lane; L] = std::array::from_fn(|i| Lane::idle(base.wrapping_add(i).cast()));
    let mut pieces = [Piece::NONE; L];
    let mut dry = false;
    let result = loop {
        let mut failed = None;
        for (i, lane) in lanes.iter_mut().enumerate() {
            while failed.is_none() && !dry && lane.run.is_none() {
                match feed.next(i) {
                    Ok(Some(run)) => lane.begin(run),
                    Ok(None) => dry = true,
                    Err(error) => failed = Some(error),
                }
            }
        }
        if let Some(error) = failed {
            break Err(error);
        }
        let Some(busy) = lanes.iter().position(|lane| lane.run.is_some()) else { break Ok(()) };
        let alone = lanes.iter().filter(|lane| lane.run.is_some()).count() == 1;
        let iterations = lanes.iter().filter_map(|lane| Some(lane.room(lane.run.as_ref()?))).min().unwrap_or(0);
        if iterations == 0 {
            let mut fault = None;
            for (lane, piece) in lanes.iter_mut().zip(&mut pieces) {
                if let Some(run) = lane.run
                    && lane.room(&run) == 0
                    && fault.is_none()
                {
                    // SAFETY: the run's pointers are valid by the feed's promise.
                    fault = unsafe { finish(lane, &run, piece, codes, kernel) }.err().map(|fault| (run, fault));
                    lane.run = None;
                }
            }
            match fault {
                Some((run, fault)) => break Err(feed.fault(&run, fault)),
                None => continue,
            }
        }
        let ok = if alone {
            // SAFETY: the lane has room for so many iterations, and the kernel was chosen for this processor.
            unsafe { burst_lanes([busy], &mut lanes, kernel.burst_one, &mut pieces, table, codes, iterations) }
        } else {
            // A lane without work shadows a busy one and its exponents are dropped: no slower than if all had work.
            let source = std::array::from_fn(|i| if lanes[i].run.is_some() { i } else { busy });
            // SAFETY: as above; a shadow reads what the lane that it shadows reads.
            unsafe { burst_lanes(source, &mut lanes, kernel.burst_all, &mut pieces, table, codes, iterations) }
        };
        if !ok {
            let mut runs = lanes.iter().filter_map(|lane| lane.run);
            let first = runs.clone().next();
            let found = runs.find_map(|run| Some((run, locate(&run, codes)?)));
            if let Some((run, fault)) = found.or(first.map(|run| (run, Fault::Changed))) {
                break Err(feed.fault(&run, fault));
            }
        }
        for (lane, piece) in lanes.iter_mut().zip(&mut pieces) {
            if let Some(run) = lane.run {
                // SAFETY: what waited is in the run, and so is what is staged: no more than the run has weights left.
                unsafe {
                    (kernel.merge)(piece);
                    *piece = flush(lane, &run, kernel.streaming);
                }
            }
        }
    };
    if kernel.streaming {
        fence();
    }
    result
}

/// Two staging buffers for each of L lanes. They are only used through pointers, for pieces point into them.
#[repr(align(64))]
struct Stages<const L: usize>([[[u8; STAGE]; 2]; L]);

/// A run being decoded.
struct Lane {
    run: Option<Run>,
    /// Its two staging buffers, one behind the other.
    stages: *mut u8,
    /// The one that is being filled, 0 or 1.
    filling: usize,
    /// The bit of the code at which the next code begins.
    at: usize,
    /// Exponents that lie staged, from [`TOP`] downwards.
    staged: usize,
    /// Weights to drop before the next that is written.
    skip: usize,
    /// Weights that are written, or wait in a piece to be.
    done: usize,
}

impl Lane {
    fn idle(stages: *mut u8) -> Self {
        Lane { run: None, stages, filling: 0, at: 0, staged: 0, skip: 0, done: 0 }
    }

    fn begin(&mut self, run: Run) {
        (self.at, self.staged, self.skip, self.done) = (run.start_bit, 0, run.skip, 0);
        self.run = Some(run);
    }

    /// The place of the first exponent in the buffer that is being filled.
    fn top(&self) -> *mut u8 {
        self.stages.wrapping_add(self.filling * STAGE + TOP)
    }

    /// Iterations that can neither leave the code nor decode more than what is left.
    fn room(&self, run: &Run) -> usize {
        let left = self.skip + run.count - self.done - self.staged;
        let bytes = run.code_bytes.saturating_sub(self.at >> 3).saturating_sub(8);
        BURST.min(left / MOST_EXPONENTS).min(bytes / MOST_BYTES)
    }
}

/// Staged exponents that wait to be merged and written.
#[derive(Clone, Copy)]
struct Piece {
    dst: *mut u16,
    /// The first exponent; the others lie below it.
    exps: *const u8,
    sm: *const u8,
    units: usize,
}

impl Piece {
    const NONE: Piece = Piece { dst: std::ptr::null_mut(), exps: std::ptr::null(), sm: std::ptr::null(), units: 0 };

    /// Merges and writes the next `units` units.
    ///
    /// # Safety
    ///
    /// The piece has as many, its pointers are valid for them, and the processor can run U.
    #[inline(always)]
    unsafe fn merge<U: Unit>(&mut self, units: usize) {
        for i in 0..units {
            let at = UNIT * i;
            // SAFETY: by the caller's promise.
            unsafe { U::merge(self.dst.wrapping_add(at), self.exps.wrapping_sub(at), self.sm.wrapping_add(at)) };
        }
        self.dst = self.dst.wrapping_add(UNIT * units);
        self.exps = self.exps.wrapping_sub(UNIT * units);
        self.sm = self.sm.wrapping_add(UNIT * units);
        self.units -= units;
    }

    /// Asks for the bytes that the merges of the next burst read.
    #[inline(always)]
    fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for line in [AHEAD, AHEAD + 64] {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: any address may be prefetched; it is not accessed.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.sm.wrapping_add(line).cast()) };
        }
    }
}

/// How a unit of weights is merged: `(s << 8 | s) & 0x807f | e << 7` on 16-bit lanes, which is [`join`].
trait Unit {
    /// Joins 32 exponents, the first at `exps` and the others below it, with 32 sign/mantissa bytes, and writes them.
    ///
    /// # Safety
    ///
    /// The pointers are valid for that; `dst` is aligned to 64 bytes if the kernel is a streaming one.
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8);
}

/// Without intrinsics.
struct Plain;

impl Unit for Plain {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        // By value, so that the compiler need not ask whether they overlap, and vectorises.
        // SAFETY: by the caller's promise.
        let (exps, sm) = unsafe { (exps.sub(UNIT - 1).cast::<[u8; UNIT]>().read(), sm.cast::<[u8; UNIT]>().read()) };
        let merged: [u16; UNIT] = std::array::from_fn(|i| join(exps[UNIT - 1 - i], sm[i]));
        // SAFETY: by the caller's promise.
        unsafe { dst.cast::<[u16; UNIT]>().write(merged) };
    }
}

/// Joins n staged exponents, the first at `exps` and the others below it, with n sign/mantissa bytes.
///
/// # Safety
///
/// n exponents lie from `exps` downwards, n bytes from `sm` upwards, and n weights can be written at `dst`.
#[inline(always)]
unsafe fn merge_one_by_one(dst: *mut u16, exps: *const u8, sm: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: by the caller's promise.
        unsafe { *dst.add(i) = join(*exps.sub(i), *sm.add(i)) };
    }
}

/// What a burst keeps in registers for each of its lanes: the code's next bytes, the bits loaded from them with a
/// sentinel behind, and the place below the last staged exponent.
struct Registers<const R: usize> {
    ip: [*const u8; R],
    bits: [u64; R],
    op: [*mut u8; R],
}

type Burst<const R: usize> = unsafe fn(&mut Registers<R>, &mut [Piece], &MultiTable, &CodeTable, usize) -> bool;

/// Loads R lanes, runs a burst, and takes their progress back. Slot i works on lane `source[i]`. With all lanes, a slot
/// whose own lane it is not only shadows it. False if some lane met bits that begin no code.
///
/// # Safety
///
/// Each source has a run and room for `iterations`; the pieces are valid; the processor can run `burst`.
#[inline(always)]
unsafe fn burst_lanes<const R: usize>(
    source: [usize; R],
    lanes: &mut [Lane],
    burst: Burst<R>,
    pieces: &mut [Piece],
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
        // SAFETY: the lane has room for an iteration, so at least 8 bytes of code lie ahead.
        regs.bits[slot] = (unsafe { be64(regs.ip[slot]) } | 1) << (lane.at & 7);
        let staged = if own(slot) == source[slot] { lane.staged } else { 0 };
        regs.op[slot] = lanes[own(slot)].top().wrapping_sub(staged);
    }
    // SAFETY: by the caller's promise.
    let ok = unsafe { burst(&mut regs, pieces, table, codes, iterations) };
    for slot in (0..R).filter(|&slot| own(slot) == source[slot]) {
        let lane = &mut lanes[source[slot]];
        if let Some(run) = &lane.run {
            lane.at = (regs.ip[slot] as usize - run.code as usize) * 8 + regs.bits[slot].trailing_zeros() as usize;
        }
        lane.staged = lane.top() as usize - regs.op[slot] as usize;
    }
    ok
}

/// `iterations` of five look-ups and a refill on each of R lanes, and as many merges as there are units for. False if
/// bits were met that begin no code.
///
/// # Safety
///
/// In each lane 11 · `iterations` + 8 bytes of code lie ahead of `ip`, and 31 · `iterations` + 8 bytes of staging below
/// `op`, itself included; the pieces are valid and not in those bytes.
#[inline(always)]
unsafe fn burst<U: Unit, const R: usize>(
    regs: &mut Registers<R>,
    pieces: &mut [Piece],
    table: &MultiTable,
    codes: &CodeTable,
    iterations: usize,
) -> bool {
    let (mut ip, mut bits, mut op) = (regs.ip, regs.bits, regs.op);
    let entries = table.entries.as_ptr();
    let (mut ok, mut waiting) = (true, 0);
    for _ in 0..iterations {
        let piece = &mut pieces[waiting];
        if piece.units >= UNITS_PER_ITERATION {
            piece.prefetch();
            // SAFETY: the piece has as many units.
            unsafe { piece.merge::<U>(UNITS_PER_ITERATION) };
        } else if waiting + 1 < pieces.len() {
            waiting += 1;
        }
        let mut last = [0u64; R];
        for _ in 0..STEPS {
            for l in 0..R {
                // SAFETY: WINDOW bits index a table of 2^WINDOW entries; the store is within the staging buffer.
                let entry = unsafe {
                    let entry = *entries.add((bits[l] >> (64 - WINDOW)) as usize);
                    op[l].sub(7).cast::<u64>().write_unaligned(entry);
                    entry
                };
                bits[l] <<= entry & 63;
                op[l] = op[l].wrapping_sub((entry >> 8 & 255) as usize);
                last[l] = entry;
            }
        }
        for l in 0..R {
            // SAFETY: an iteration moves on by at most 11 bytes, and 8 more may be read behind them.
            unsafe { refill(&mut ip[l], &mut bits[l]) };
            if last[l] & 255 == 0 {
                let (symbol, len, found) = long_code(codes, (bits[l] >> 32) as u32);
                ok &= found;
                bits[l] <<= len;
                // SAFETY: as for the stores and the refill above.
                unsafe {
                    *op[l] = symbol;
                    refill(&mut ip[l], &mut bits[l]);
                }
                op[l] = op[l].wrapping_sub(1);
            }
        }
    }
    (regs.ip, regs.bits, regs.op) = (ip, bits, op);
    ok
}

/// Steps over the whole bytes that were used up and loads again: at least 56 bits, with the sentinel behind them.
///
/// # Safety
///
/// 8 bytes lie behind the used ones.
#[inline(always)]
unsafe fn refill(ip: &mut *const u8, bits: &mut u64) {
    let used = bits.trailing_zeros();
    *ip = ip.wrapping_add((used >> 3) as usize);
    // SAFETY: by the caller's promise.
    *bits = (unsafe { be64(*ip) } | 1) << (used & 7);
}

/// # Safety
///
/// 8 bytes can be read at `p`.
#[inline(always)]
unsafe fn be64(p: *const u8) -> u64 {
    // SAFETY: by the caller's promise.
    u64::from_be(unsafe { p.cast::<u64>().read_unaligned() })
}

/// The code that a window begins with, where it is too long for the table. Bits that begin none move on by one bit, so
/// that a burst always ends; what it staged is never written out.
#[cold]
#[inline(never)]
fn long_code(codes: &CodeTable, window: u32) -> (u8, u32, bool) {
    codes.first(window).map_or((0, 1, false), |c| (c.symbol, c.len as u32, true))
}

/// Drops what is to be dropped, makes a piece of the whole units that lie staged, and goes on filling the other buffer,
/// from what is left of this one. The piece that lay in the other buffer must have been merged.
///
/// # Safety
///
/// The run's pointers are valid and no more is staged than the run has weights left.
unsafe fn flush(lane: &mut Lane, run: &Run, streaming: bool) -> Piece {
    let dropped = lane.skip.min(lane.staged);
    lane.skip -= dropped;
    let have = lane.staged - dropped;
    let first = lane.top().wrapping_sub(dropped).cast_const();
    let (dst, sm) = (run.dst.wrapping_add(lane.done), run.sign_mantissa.wrapping_add(lane.done));
    // Streaming stores take whole cache lines: go one by one to the next line first.
    let head = if streaming { dst.align_offset(64) } else { 0 };
    let mut piece = Piece::NONE;
    let mut taken = 0;
    if have >= head + UNIT {
        // SAFETY: `have` exponents lie from `first` downwards, and as many weights of the run are not yet written.
        unsafe { merge_one_by_one(dst, first, sm, head) };
        let units = (have - head) / UNIT;
        piece = Piece { dst: dst.wrapping_add(head), exps: first.wrapping_sub(head), sm: sm.wrapping_add(head), units };
        taken = head + units * UNIT;
    }
    lane.done += taken;
    lane.staged = have - taken;
    lane.filling ^= 1;
    // SAFETY: less than two units are left below `first - taken`; both buffers have room for them below their tops.
    unsafe {
        let from = first.wrapping_sub(taken + lane.staged).wrapping_add(1);
        let to = lane.top().wrapping_sub(lane.staged).wrapping_add(1);
        std::ptr::copy_nonoverlapping(from, to, lane.staged);
    }
    piece
}

/// Decodes what is left of a run one code at a time and checks where it ends.
///
/// # Safety
///
/// The run's pointers are valid, and so is the piece.
unsafe fn finish<const L: usize>(
    lane: &mut Lane,
    run: &Run,
    piece: &mut Piece,
    codes: &CodeTable,
    kernel: &Kernel<L>,
) -> Result<(), Fault> {
    let dropped = lane.skip.min(lane.staged);
    let staged = lane.staged - dropped;
    // SAFETY: by the caller's promise; all of the piece, and what lies staged from the top downwards, is in the run.
    unsafe {
        (kernel.merge)(piece);
        let first = lane.top().wrapping_sub(dropped);
        merge_one_by_one(run.dst.add(lane.done), first, run.sign_mantissa.add(lane.done), staged);
    }
    let decoded = run.skip - lane.skip + dropped + lane.done + staged;
    // SAFETY: by the caller's promise.
    let code = unsafe { std::slice::from_raw_parts(run.code, run.code_bytes) };
    let mut at = lane.at;
    for weight in decoded..run.skip + run.count {
        let symbol = next_code(code, codes, &mut at, weight)?;
        if weight >= run.skip {
            let i = weight - run.skip;
            // SAFETY: i is below the run's count.
            unsafe { *run.dst.add(i) = join(symbol, *run.sign_mantissa.add(i)) };
        }
    }
    if at < run.end_bits.0 || at > run.end_bits.1 { Err(Fault::End { bit: at }) } else { Ok(()) }
}

/// Walks a run again from its start to find its first fault, if it has one: after a burst it is only known that some run
/// does.
#[cold]
fn locate(run: &Run, codes: &CodeTable) -> Option<Fault> {
    // SAFETY: the run's pointers are valid by the feed's promise.
    let code = unsafe { std::slice::from_raw_parts(run.code, run.code_bytes) };
    let mut bit = run.start_bit;
    (0..run.skip + run.count).find_map(|weight| next_code(code, codes, &mut bit, weight).err())
}

/// The symbol of the code at a bit, which moves on behind it.
fn next_code(code: &[u8], codes: &CodeTable, bit: &mut usize, weight: usize) -> Result<u8, Fault> {
    let found = codes.first(window(code, *bit)).ok_or(Fault::NoCode { bit: *bit, weight })?;
    let end = *bit + found.len as usize;
    if end > code.len() * 8 {
        return Err(Fault::Short { bit: *bit, weight });
    }
    *bit = end;
    Ok(found.symbol)
}
