//! The fast decoder: several streams at once, several exponents per look-up, merge by SIMD.
//!
//! # The idea
//!
//! Reading one Huffman stream is a chain: the next code's place is known only when this one's length is. A processor
//! has room for some five such chains side by side, so a thread decodes [`LANES`] *runs* (stretches of whole blocks)
//! together, one step of each in turn. A run starts where the file says that a block starts and then goes through all
//! block borders in it without stopping, for the stream itself restarts nowhere.
//!
//! ```text
//! step      e = table[bits >> 53]                up to six exponents and the bits that they took, from 11 bits
//!           store64(op - 7, e)                   all eight bytes; what is too much is overwritten by the next
//!           bits <<= e & 63;  op -= (e >> 8) & 255
//! refill    used = trailing_zeros(bits)          no bit counter: the lowest set bit is a sentinel behind the data
//!           ip += used / 8
//!           bits = (load_be64(ip) | 1) << (used & 7)
//! iteration for each lane: five steps, a refill, and one test whether the last step found a code longer than 11 bits
//! burst     up to 40 iterations; then each lane's exponents are merged with its sign/mantissa bytes
//! ```
//!
//! Exponents are staged *downwards*: the entry's count and length then sit in its low bytes and the whole entry is
//! stored and shifted by unmasked, seven instructions for 3.7 weights. The merge reverses them again for nothing.
//!
//! A long code leaves its lane where it is (an entry of 0 shifts by 0 and counts 0), so the rest of that iteration
//! repeats it harmlessly and one test per five steps suffices.
//!
//! # What keeps it in bounds
//!
//! Nothing inside a burst is tested against a border. Before it, `Lane::room` allows only so many iterations as fit
//! even if each took the most input (5 · 11 + 32 bits, that is 11 whole bytes, and a load of 8) and gave the most
//! output (5 · 6 + 1 exponents). Near an end the bursts grow shorter, and the last weights are decoded one at a time
//! by `finish`, which therefore knows the exact bit at which a run ended: it must be where the file says that the next
//! run begins. Each iteration gives at least one exponent, so no input makes it loop.
//!
//! # What else was tried
//!
//! Gathers, wider windows, more lanes and merging inside the loop were slower (figures in `tests/bench/README.md`).

use super::code::CodeTable;
use super::table::{MOST, MultiTable, WINDOW};
use super::{join, window};

/// Runs that one thread decodes at a time.
pub const LANES: usize = 6;
/// Look-ups between two refills: 5 · 11 bits are at most the 56 that a refill guarantees.
const STEPS: usize = 5;
/// Iterations of a burst. More would only make the staging buffers larger.
const BURST: usize = 40;
/// The most exponents of an iteration: each look-up full, and a long code at its end.
const MOST_EXPONENTS: usize = STEPS * MOST + 1;
/// The most whole bytes by which an iteration moves on: 7 spent bits before, 55 in look-ups, 32 in a long code.
const MOST_BYTES: usize = 11;
/// A vector's worth of weights: merges outside a run's ends are done in such units.
const UNIT: usize = 32;
/// A lane's staging buffer: a burst's exponents, what was kept from before (less than two units), slack for the
/// 8-byte stores. 21 cache lines, an odd number, so that the lanes' buffers fall into different cache sets.
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
            Variant::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2"),
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

    /// The fastest one that this processor can run.
    pub fn best() -> Variant {
        Self::ALL.into_iter().rev().find(|v| v.is_available()).unwrap_or(Variant::Portable)
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
    let kernel = Kernel::of(variant, streaming);
    let mut lanes: [Lane; LANES] = std::array::from_fn(|_| Lane::idle());
    let result = work(table, codes, feed, &kernel, &mut lanes);
    // Streaming stores are not ordered with anything: others must see the weights when this returns.
    #[cfg(target_arch = "x86_64")]
    if streaming {
        // SAFETY: part of x86-64's baseline.
        unsafe { std::arch::x86_64::_mm_sfence() };
    }
    result
}

/// Bursts until no lane has work and the feed has none left.
fn work<F: Feed>(
    table: &MultiTable,
    codes: &CodeTable,
    feed: &mut F,
    kernel: &Kernel,
    lanes: &mut [Lane; LANES],
) -> Result<(), F::Error> {
    let mut dry = false;
    loop {
        for (i, lane) in lanes.iter_mut().enumerate() {
            while !dry && lane.run.is_none() {
                match feed.next(i)? {
                    Some(run) => lane.begin(run),
                    None => dry = true,
                }
            }
        }
        let Some(busy) = lanes.iter().position(|lane| lane.run.is_some()) else { return Ok(()) };
        let alone = lanes.iter().filter(|lane| lane.run.is_some()).count() == 1;
        let iterations = lanes.iter().filter_map(|lane| Some(lane.room(lane.run.as_ref()?))).min().unwrap_or(0);
        if iterations == 0 {
            for lane in lanes.iter_mut() {
                if let Some(run) = lane.run
                    && lane.room(&run) == 0
                {
                    // SAFETY: the run's pointers are valid by the feed's promise.
                    unsafe { finish(lane, &run, codes, kernel) }.map_err(|fault| feed.fault(&run, fault))?;
                    lane.run = None;
                }
            }
            continue;
        }
        let ok = if alone {
            // SAFETY: the lane has room for so many iterations, and the kernel was chosen for this processor.
            unsafe { burst_lanes([busy], lanes, kernel.burst_one, table, codes, iterations) }
        } else {
            // A lane without work shadows a busy one and its exponents are dropped: no slower than six full lanes.
            let source = std::array::from_fn(|i| if lanes[i].run.is_some() { i } else { busy });
            // SAFETY: as above; a shadow reads what the lane that it shadows reads.
            unsafe { burst_lanes(source, lanes, kernel.burst_all, table, codes, iterations) }
        };
        for lane in lanes.iter_mut() {
            if let Some(run) = lane.run {
                if !ok && let Some(fault) = locate(&run, codes) {
                    return Err(feed.fault(&run, fault));
                }
                // SAFETY: no more is staged than the run has weights left, so all of it lies in the run.
                unsafe { flush(lane, &run, kernel) };
            }
        }
    }
}

/// A run being decoded, and the exponents of it that wait for their merge.
#[repr(align(64))]
struct Lane {
    stage: [u8; STAGE],
    run: Option<Run>,
    /// The bit of the code at which the next code begins.
    at: usize,
    /// Exponents that lie staged, from [`TOP`] downwards.
    staged: usize,
    /// Weights to drop before the next that is written.
    skip: usize,
    /// Weights written.
    done: usize,
}

impl Lane {
    fn idle() -> Self {
        Lane { stage: [0; STAGE], run: None, at: 0, staged: 0, skip: 0, done: 0 }
    }

    fn begin(&mut self, run: Run) {
        (self.at, self.staged, self.skip, self.done) = (run.start_bit, 0, run.skip, 0);
        self.run = Some(run);
    }

    /// Iterations that can neither leave the code nor decode more than what is left.
    fn room(&self, run: &Run) -> usize {
        let left = self.skip + run.count - self.done - self.staged;
        let bytes = run.code_bytes.saturating_sub(self.at >> 3).saturating_sub(8);
        BURST.min(left / MOST_EXPONENTS).min(bytes / MOST_BYTES)
    }

    /// Asks for what the next burst reads. The lanes are many short streams, too many for the hardware alone.
    #[inline(always)]
    fn prefetch(&self, run: &Run) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let sm = run.sign_mantissa.wrapping_add(self.done);
            let code = run.code.wrapping_add((self.at >> 3) + 256);
            let lines =
                (0..14).map(|line| sm.wrapping_add(64 * line)).chain((0..5).map(|line| code.wrapping_add(64 * line)));
            for line in lines {
                // SAFETY: any address may be prefetched; it is not accessed.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = run;
    }
}

/// What a burst keeps in registers for each of L lanes: the code's next bytes, the bits loaded from them with a
/// sentinel behind, and the place below the last staged exponent.
struct Registers<const L: usize> {
    ip: [*const u8; L],
    bits: [u64; L],
    op: [*mut u8; L],
}

type Burst<const L: usize> = unsafe fn(&mut Registers<L>, &MultiTable, &CodeTable, usize) -> bool;

/// Loads L lanes, runs a burst, and takes their progress back. Slot i works on lane `source[i]`. With all lanes, a slot
/// whose own lane it is not only shadows it. False if some lane met bits that begin no code.
///
/// # Safety
///
/// Each source has a run and room for `iterations`, and the processor can run `burst`.
#[inline(always)]
unsafe fn burst_lanes<const L: usize>(
    source: [usize; L],
    lanes: &mut [Lane; LANES],
    burst: Burst<L>,
    table: &MultiTable,
    codes: &CodeTable,
    iterations: usize,
) -> bool {
    let mut regs = Registers { ip: [std::ptr::null(); L], bits: [0; L], op: [std::ptr::null_mut(); L] };
    let own = |slot: usize| if L == 1 { source[slot] } else { slot };
    let mut tops = [std::ptr::null_mut::<u8>(); L];
    for slot in 0..L {
        let lane = &lanes[source[slot]];
        let Some(run) = &lane.run else { return true };
        lane.prefetch(run);
        regs.ip[slot] = run.code.wrapping_add(lane.at >> 3);
        // SAFETY: the lane has room for an iteration, so at least 8 bytes of code lie ahead.
        regs.bits[slot] = (unsafe { be64(regs.ip[slot]) } | 1) << (lane.at & 7);
        let staged = if own(slot) == source[slot] { lane.staged } else { 0 };
        tops[slot] = lanes[own(slot)].stage.as_mut_ptr().wrapping_add(TOP);
        regs.op[slot] = tops[slot].wrapping_sub(staged);
    }
    // SAFETY: by the caller's promise.
    let ok = unsafe { burst(&mut regs, table, codes, iterations) };
    for slot in (0..L).filter(|&slot| own(slot) == source[slot]) {
        let lane = &mut lanes[source[slot]];
        if let Some(run) = &lane.run {
            lane.at = (regs.ip[slot] as usize - run.code as usize) * 8 + regs.bits[slot].trailing_zeros() as usize;
        }
        lane.staged = tops[slot] as usize - regs.op[slot] as usize;
    }
    ok
}

/// `iterations` of five look-ups and a refill on each of L lanes. False if bits were met that begin no code.
///
/// # Safety
///
/// In each lane 11 · `iterations` + 8 bytes of code lie ahead of `ip`, and 31 · `iterations` + 8 bytes of staging below
/// `op`, itself included.
#[inline(always)]
unsafe fn burst<const L: usize>(
    regs: &mut Registers<L>,
    table: &MultiTable,
    codes: &CodeTable,
    iterations: usize,
) -> bool {
    let (mut ip, mut bits, mut op) = (regs.ip, regs.bits, regs.op);
    let entries = table.entries.as_ptr();
    let mut ok = true;
    for _ in 0..iterations {
        for l in 0..L {
            let mut entry = 0;
            for _ in 0..STEPS {
                // SAFETY: WINDOW bits index a table of 2^WINDOW entries; the store is within the staging buffer.
                unsafe {
                    entry = *entries.add((bits[l] >> (64 - WINDOW)) as usize);
                    op[l].sub(7).cast::<u64>().write_unaligned(entry);
                }
                bits[l] <<= entry & 63;
                op[l] = op[l].wrapping_sub((entry >> 8 & 255) as usize);
            }
            // SAFETY: an iteration moves on by at most 11 bytes, and 8 more may be read behind them.
            unsafe { refill(&mut ip[l], &mut bits[l]) };
            if entry & 255 == 0 {
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

/// Merges what lies staged, in whole units; the rest moves to the top and waits.
///
/// # Safety
///
/// The run's pointers are valid and no more is staged than the run has weights left.
unsafe fn flush(lane: &mut Lane, run: &Run, kernel: &Kernel) {
    let dropped = lane.skip.min(lane.staged);
    lane.skip -= dropped;
    let have = lane.staged - dropped;
    // SAFETY: `dropped` exponents from TOP downwards are staged, so one more is still in the buffer.
    let first = unsafe { lane.stage.as_mut_ptr().add(TOP - dropped) };
    let dst = run.dst.wrapping_add(lane.done);
    // Streaming stores take whole cache lines: go one by one to the next line first.
    let head = if kernel.aligned { dst.align_offset(64) } else { 0 };
    let merged = if have < head + UNIT {
        0
    } else {
        let units = (have - head) & !(UNIT - 1);
        let sm = run.sign_mantissa.wrapping_add(lane.done);
        // SAFETY: `have` exponents lie from `first` downwards, and as many weights of the run are not yet written.
        unsafe {
            merge_one_by_one(dst, first, sm, head);
            (kernel.merge)(dst.add(head), first.sub(head), sm.add(head), units);
        }
        head + units
    };
    lane.done += merged;
    lane.staged = have - merged;
    if dropped + merged > 0 {
        let top = TOP + 1;
        let rest = top - dropped - merged - lane.staged..top - dropped - merged;
        lane.stage.copy_within(rest, top - lane.staged);
    }
}

/// Decodes what is left of a run one code at a time and checks where it ends.
///
/// # Safety
///
/// The run's pointers are valid.
unsafe fn finish(lane: &mut Lane, run: &Run, codes: &CodeTable, kernel: &Kernel) -> Result<(), Fault> {
    // SAFETY: by the caller's promise; what the flush keeps is staged from TOP downwards.
    unsafe {
        flush(lane, run, kernel);
        let first = lane.stage.as_ptr().add(TOP);
        let dropped = lane.skip.min(lane.staged);
        let n = lane.staged - dropped;
        merge_one_by_one(run.dst.add(lane.done), first.sub(dropped), run.sign_mantissa.add(lane.done), n);
        lane.skip -= dropped;
        lane.done += n;
    }
    lane.staged = 0;
    // SAFETY: by the caller's promise.
    let code = unsafe { std::slice::from_raw_parts(run.code, run.code_bytes) };
    let mut at = lane.at;
    let decoded = run.skip - lane.skip + lane.done;
    for weight in decoded..run.skip + run.count {
        let found = codes.first(window(code, at)).ok_or(Fault::NoCode { bit: at, weight })?;
        if at + found.len as usize > code.len() * 8 {
            return Err(Fault::Short { bit: at, weight });
        }
        at += found.len as usize;
        if weight >= run.skip {
            let i = weight - run.skip;
            // SAFETY: i is below the run's count.
            unsafe { *run.dst.add(i) = join(found.symbol, *run.sign_mantissa.add(i)) };
        }
    }
    if at < run.end_bits.0 || at > run.end_bits.1 { Err(Fault::End { bit: at }) } else { Ok(()) }
}

/// Walks a run again from its start to find the first bits that begin no code.
#[cold]
fn locate(run: &Run, codes: &CodeTable) -> Option<Fault> {
    // SAFETY: the run's pointers are valid by the feed's promise.
    let code = unsafe { std::slice::from_raw_parts(run.code, run.code_bytes) };
    let mut bit = run.start_bit;
    for weight in 0..run.skip + run.count {
        match codes.first(window(code, bit)) {
            None => return Some(Fault::NoCode { bit, weight }),
            Some(found) => bit += found.len as usize,
        }
    }
    None
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

/// Joins n exponents with n sign/mantissa bytes; n is a multiple of 32 and `dst` aligned as the kernel asks.
type Merge = unsafe fn(dst: *mut u16, exps: *const u8, sm: *const u8, n: usize);

/// The functions of one variant.
struct Kernel {
    burst_all: Burst<LANES>,
    burst_one: Burst<1>,
    merge: Merge,
    /// Whether `merge` needs a destination aligned to 64 bytes.
    aligned: bool,
}

impl Kernel {
    fn of(variant: Variant, streaming: bool) -> Kernel {
        let portable =
            Kernel { burst_all: burst::<LANES>, burst_one: burst::<1>, merge: merge_one_by_one, aligned: false };
        #[cfg(target_arch = "x86_64")]
        {
            let (burst_all, burst_one): (Burst<LANES>, Burst<1>) = (x86::burst_bmi2, x86::burst_bmi2);
            let merge: [Merge; 2] = match variant {
                Variant::Portable => return portable,
                Variant::Sse2 => {
                    let merge: Merge = if streaming { x86::merge_sse2::<true> } else { x86::merge_sse2::<false> };
                    return Kernel { merge, aligned: streaming, ..portable };
                }
                Variant::Avx2 => [x86::merge_avx2::<false>, x86::merge_avx2::<true>],
                Variant::Avx512 => [x86::merge_avx512::<false>, x86::merge_avx512::<true>],
            };
            Kernel { burst_all, burst_one, merge: merge[streaming as usize], aligned: streaming }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (variant, streaming);
            portable
        }
    }
}

/// The x86-64 parts. In all merges: `(s << 8 | s) & 0x807f | e << 7` on 16-bit lanes, which is [`join`].
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CodeTable, MultiTable, Registers, UNIT};
    use std::arch::x86_64::*;

    const KEEP: i16 = 0x807f_u16 as i16;

    /// The burst with BMI's three-operand shifts and `tzcnt`: some 10 % fewer instructions.
    #[target_feature(enable = "bmi1,bmi2,lzcnt,movbe,avx2")]
    pub(super) unsafe fn burst_bmi2<const L: usize>(
        regs: &mut Registers<L>,
        table: &MultiTable,
        codes: &CodeTable,
        iterations: usize,
    ) -> bool {
        // SAFETY: the same promise.
        unsafe { super::burst(regs, table, codes, iterations) }
    }

    /// # Safety
    ///
    /// As [`super::Merge`]; with STREAM `dst` is aligned to 64 bytes.
    pub(super) unsafe fn merge_sse2<const STREAM: bool>(dst: *mut u16, exps: *const u8, sm: *const u8, n: usize) {
        for i in (0..n).step_by(16) {
            // SAFETY: 16 exponents lie from `exps - i` downwards, 16 bytes and 16 weights from `sm + i` and `dst + i` on.
            unsafe {
                let e = _mm_loadu_si128(exps.sub(i + 15).cast());
                // Reverse 16 bytes: the bytes in each 16-bit lane, then the lanes.
                let e = _mm_or_si128(_mm_slli_epi16::<8>(e), _mm_srli_epi16::<8>(e));
                let e = _mm_shufflehi_epi16::<0x1b>(_mm_shufflelo_epi16::<0x1b>(e));
                let e = _mm_shuffle_epi32::<0x4e>(e);
                let s = _mm_loadu_si128(sm.add(i).cast());
                let (zero, keep) = (_mm_setzero_si128(), _mm_set1_epi16(KEEP));
                let halves = [
                    (_mm_unpacklo_epi8(s, s), _mm_unpacklo_epi8(e, zero)),
                    (_mm_unpackhi_epi8(s, s), _mm_unpackhi_epi8(e, zero)),
                ];
                for (half, (s, e)) in halves.into_iter().enumerate() {
                    let r = _mm_or_si128(_mm_and_si128(s, keep), _mm_slli_epi16::<7>(e));
                    let to = dst.add(i + 8 * half).cast();
                    if STREAM { _mm_stream_si128(to, r) } else { _mm_storeu_si128(to, r) }
                }
            }
        }
    }

    /// # Safety
    ///
    /// As [`super::Merge`]; with STREAM `dst` is aligned to 64 bytes.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn merge_avx2<const STREAM: bool>(dst: *mut u16, exps: *const u8, sm: *const u8, n: usize) {
        let keep = _mm256_set1_epi16(KEEP);
        let reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for i in (0..n).step_by(16) {
            // SAFETY: 16 exponents lie from `exps - i` downwards, 16 bytes and 16 weights from `sm + i` and `dst + i` on.
            unsafe {
                let e = _mm_shuffle_epi8(_mm_loadu_si128(exps.sub(i + 15).cast()), reverse);
                let e = _mm256_slli_epi16::<7>(_mm256_cvtepu8_epi16(e));
                let s = _mm256_cvtepu8_epi16(_mm_loadu_si128(sm.add(i).cast()));
                let s = _mm256_and_si256(_mm256_or_si256(s, _mm256_slli_epi16::<8>(s)), keep);
                let (to, r) = (dst.add(i).cast(), _mm256_or_si256(s, e));
                if STREAM { _mm256_stream_si256(to, r) } else { _mm256_storeu_si256(to, r) }
            }
        }
    }

    /// # Safety
    ///
    /// As [`super::Merge`]; with STREAM `dst` is aligned to 64 bytes.
    #[target_feature(enable = "avx2,avx512f,avx512bw")]
    pub(super) unsafe fn merge_avx512<const STREAM: bool>(dst: *mut u16, exps: *const u8, sm: *const u8, n: usize) {
        let keep = _mm512_set1_epi16(KEEP);
        let reverse = _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        for i in (0..n).step_by(UNIT) {
            // SAFETY: 32 exponents lie from `exps - i` downwards, 32 bytes and 32 weights from `sm + i` and `dst + i` on.
            unsafe {
                // The halves change places as they are loaded, so one shuffle within them reverses all 32.
                let e = _mm256_set_m128i(
                    _mm_loadu_si128(exps.sub(i + 31).cast()),
                    _mm_loadu_si128(exps.sub(i + 15).cast()),
                );
                let e = _mm512_slli_epi16::<7>(_mm512_cvtepu8_epi16(_mm256_shuffle_epi8(e, reverse)));
                let s = _mm512_cvtepu8_epi16(_mm256_loadu_si256(sm.add(i).cast()));
                // 0xa8 is (a | b) & c
                let s = _mm512_ternarylogic_epi64::<0xa8>(s, _mm512_slli_epi16::<8>(s), keep);
                let (to, r) = (dst.add(i).cast(), _mm512_or_si512(s, e));
                if STREAM { _mm512_stream_si512(to, r) } else { _mm512_storeu_si512(to, r) }
            }
        }
    }
}
