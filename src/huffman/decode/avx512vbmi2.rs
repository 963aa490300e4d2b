//! Decoding with AVX-512 VBMI2: 32 lanes in vectors, and the code's table in registers.
//!
//! # The idea
//!
//! `vpermi2b` looks up 64 bytes at once in a table of 128, and both are in registers. So a window of 7 bits tells, for
//! the eight lanes of a vector in one instruction, how many of these bits are whole codes. Which exponents they are need
//! not be known to go on; the windows are recorded and looked up later, 64 in one instruction.
//!
//! So many lanes come from the gaps: each lane has a stretch of 16 chunks or fewer, and a *batch* is the 32 stretches that
//! follow each other. Where a stretch's weights go is known once those before it are counted, so a batch is done in turn:
//!
//! ```text
//! code    |····stretch 0····|····stretch 1····|·· … ··|···stretch 31····|  next batch
//!          ^ gap             ^ gap                     ^ gap             ^ gap
//! walk     lane 0 ──windows─►│lane 1 ──windows─►       lane 31 ─windows─►│      4 vectors of 8 lanes
//!                            └ each lane must end at the bit where the next began
//! expand   windows of lane 0, 1, … 31, in this order ──exponents─► stage, one stream
//! merge    stage + signs and mantissas ──weights─► dst, during the next batch's walk
//! ```
//!
//! *Walk* ([`walk`]):
//!
//! ```text
//! load      bits = rotate_left(load_be64(code + pos / 8), pos % 8 + 7)     the next 7 bits are the lowest now
//! step      used = vpermi2b(bits)                                         of 7 bits; 0 if the first code is longer
//!           record = record >> 8 | bits << 56;  bits = rotate_left(bits, used)
//! round     load, 8 steps (56 of the 57 bits that a load has at least), store record, pos += what all steps used
//! ```
//!
//! - **A long code stops its lane**, as in the other decoders: `used` is 0 until the round ends. The window that it begins
//!   with is its *prefix*. The next round begins after the prefix, and its first step looks the next bits up in a second
//!   table. Nearly all groups of published models have one prefix, some two; with up to four, the number of the prefix is
//!   a part of the index. Codes of more than 14 bits or so, one in 25,000, are found by the slow table.
//! - **Four vectors take turns**, because a step of one takes 9 cycles, most of which wait.
//! - **Merging during the walk**, as in the other decoders: the walk computes, the merge moves memory.
//!
//! *Expand* ([`windows`]): 64 windows are looked up in three tables, for their first, second and third exponents. The three
//! registers are interleaved, and bytes without an exponent are squeezed out (`vpcompressb`). So that 0 can stand for "no
//! exponent", and exponent 0 be one, tables hold complements.
//!
//! # What is believed
//!
//! A lane is right if it began where a code does and only whole codes were taken. The first one begins where the run has
//! got to, and any other where the one before it ended: that is compared, after the walk. So what a batch confirms is what
//! one lane would have found, whatever the gaps say. What is not confirmed, and what remains after the last whole chunk,
//! is left to the other decoder, which also finds out what is wrong.
//!
//! # What keeps it in bounds
//!
//! Lanes are not stopped at their ends, because they end at different rounds; a lane's place is held below the last 8
//! bytes of the code instead. Rounds are counted, and before a lane's windows are expanded, the stage must have room for
//! three exponents of each. As many weights as the run has left are taken, at most.

mod walk;
mod windows;

use super::burst::be64;
use super::{MOST_LANES, Reached, Routines, Run, avx512, stretches};
use crate::huffman::code::CodeTable;
use crate::huffman::table::{MOST_PER_SHORT, MultiTable, SHORT_WINDOW, SHORT_WINDOWS, ShortTable};
use crate::huffman::{CHUNK_BITS, gap, join};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Vectors of lanes.
const VECTORS: usize = 4;
/// Lanes of a vector, each of 64 bits.
const WIDTH: usize = 8;
const LANES: usize = VECTORS * WIDTH;
/// Windows of a round.
const STEPS: usize = 8;
/// Rounds of a batch at most. Lanes of 16 chunks of real models take 21 on average.
const ROUNDS: usize = 32;
/// Chunks of a lane at most.
const MOST_CHUNKS: usize = 16;
/// Bytes of staged exponents. A batch of real models has 12,400.
const STAGE: usize = 27 << 9;
/// Codes of a batch that the tables do not have, at most.
const MOST_RARE: usize = 32;
/// Weights that are merged at a time: two cache lines of bf16.
const UNIT: usize = 64;
/// The bytes ahead of a merge at which sign/mantissa bytes are prefetched.
const AHEAD: usize = 4096;
/// Weights of a run below which a batch is not worth it.
const WORTH: usize = 1000;
const _: () = assert!(ROUNDS.is_multiple_of(8) && STEPS == size_of::<u64>());

/// Returns the routines of AVX-512, but for runs whose gaps are known.
pub(super) fn routines<const STREAM: bool>() -> Routines<MOST_LANES> {
    Routines { ahead: ahead::<STREAM>, ..avx512::routines::<STREAM>() }
}

/// Decodes as much of a run as its gaps confirm.
///
/// # Safety
///
/// The run's pointers are valid for what it says, and the processor has the features.
unsafe fn ahead<const STREAM: bool>(
    run: &Run,
    table: &MultiTable,
    codes: &CodeTable,
    routines: &Routines<MOST_LANES>,
) -> Reached {
    // SAFETY: the caller promises the same.
    unsafe {
        match &table.short {
            None => stretches::decode(run, table, codes, routines),
            Some(_) if run.skip + run.count < WORTH => Reached { bit: run.start_bit, weights: 0 },
            Some(short) if short.prefix_bits == 0 => batches::<STREAM, false>(run, short, codes),
            Some(short) => batches::<STREAM, true>(run, short, codes),
        }
    }
}

/// The memory of a batch. It is only used through pointers, and nothing is read that was not written before.
#[repr(C, align(64))]
struct Scratch {
    /// What each round of each vector has recorded: a byte for each window of each lane, the first one lowest.
    rounds: [[[u64; WIDTH]; ROUNDS]; VECTORS],
    /// The same for the lanes of one vector, lane by lane.
    rows: [[u8; ROUNDS * STEPS]; WIDTH],
    /// Exponents as complements.
    stage: [u8; STAGE],
}

/// The lanes of a batch.
struct Batch {
    /// The bits at which the lanes begin, and the one at which the last should end.
    starts: [u64; LANES + 1],
    /// The rounds after which a lane was not beyond its end.
    whole: [u64; LANES],
    /// The bit where it was then.
    at: [u64; LANES],
    /// The rounds that were walked.
    rounds: usize,
    /// The codes that the tables do not have, in the order of rounds.
    rare: [Rare; MOST_RARE],
    rares: usize,
    /// The lanes that have some, each a bit.
    lanes_with_rare: u32,
}

/// A code that the tables do not have.
#[derive(Clone, Copy)]
struct Rare {
    lane: u32,
    /// The number of its second window in the lane.
    window: u32,
    len: u8,
    symbol: u8,
}

/// Staged exponents that wait to be merged and written.
#[derive(Clone, Copy)]
struct Pending {
    dst: *mut u16,
    /// The first exponent's complement; the others are above it.
    exps: *const u8,
    sm: *const u8,
    units: usize,
    order: Order,
}

/// The order of bytes that interleaves two registers: the first 64, and the last.
#[derive(Clone, Copy)]
struct Order(__m512i, __m512i);

/// Returns the order that interleaves two registers, from byte `from` of each on.
const fn interleaved(from: u8) -> [u8; 64] {
    let mut order = [0; 64];
    let mut i = 0;
    while i < 64 {
        order[i] = from + (i / 2) as u8 + 64 * (i % 2) as u8;
        i += 1;
    }
    order
}
const FIRST_HALF: [u8; 64] = interleaved(0);
const SECOND_HALF: [u8; 64] = interleaved(32);

/// Loads a register.
///
/// # Safety
///
/// The processor has AVX-512, and 64 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(at: *const u8) -> __m512i {
    // SAFETY: 64 bytes can be read, with any alignment.
    unsafe { _mm512_loadu_si512(at.cast()) }
}

/// Loads a table.
#[inline]
#[target_feature(enable = "avx512f")]
fn pair(table: &[u8; SHORT_WINDOWS]) -> [__m512i; 2] {
    // SAFETY: a table has 128 bytes.
    unsafe { [load(table.as_ptr()), load(table.as_ptr().add(64))] }
}

/// Looks up each byte's low 7 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
fn look(table: [__m512i; 2], index: __m512i) -> __m512i {
    _mm512_permutex2var_epi8(table[0], index, table[1])
}

impl Pending {
    /// Merges and writes the next unit: [`join`] of 64 exponents.
    ///
    /// # Safety
    ///
    /// A unit is pending, `dst` is on a cache line, and the processor has the features.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn merge<const STREAM: bool>(&mut self) {
        // SAFETY: the pointers are valid for the unit. Any address may be prefetched.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(self.sm.wrapping_add(AHEAD).cast());
            let (e, s, top) = (load(self.exps), load(self.sm), _mm512_set1_epi8(-128));
            // 0xc5 is a ? b : !c, and 0x3a is a ? !b : c
            let high = _mm512_ternarylogic_epi64::<0xc5>(top, s, _mm512_srli_epi16::<1>(e));
            let low = _mm512_ternarylogic_epi64::<0x3a>(top, _mm512_slli_epi16::<7>(e), s);
            let first = _mm512_permutex2var_epi8(low, self.order.0, high);
            let second = _mm512_permutex2var_epi8(low, self.order.1, high);
            let to = self.dst.cast::<__m512i>();
            if STREAM {
                _mm512_stream_si512(to, first);
                _mm512_stream_si512(to.add(1), second);
            } else {
                _mm512_store_si512(to, first);
                _mm512_store_si512(to.add(1), second);
            }
        }
        self.pass(UNIT);
        self.units -= 1;
    }

    /// Merges and writes all units.
    ///
    /// # Safety
    ///
    /// As [`Pending::merge`], and all units are pending.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn merge_all<const STREAM: bool>(&mut self) {
        while self.units > 0 {
            // SAFETY: a unit is pending.
            unsafe { self.merge::<STREAM>() };
        }
    }

    /// Merges and writes n weights one by one.
    ///
    /// # Safety
    ///
    /// The pointers are valid for n weights.
    unsafe fn merge_one_by_one(&mut self, n: usize) {
        for i in 0..n {
            // SAFETY: `i` is below n.
            unsafe { *self.dst.add(i) = join(!*self.exps.add(i), *self.sm.add(i)) };
        }
        self.pass(n);
    }

    /// Steps over n weights.
    #[inline(always)]
    fn pass(&mut self, n: usize) {
        self.dst = self.dst.wrapping_add(n);
        self.exps = self.exps.wrapping_add(n);
        self.sm = self.sm.wrapping_add(n);
    }
}

/// Decodes batch after batch of a run, as far as its gaps confirm them. MANY: the code has several prefixes.
///
/// # Safety
///
/// As [`ahead`].
#[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt,avx2,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
unsafe fn batches<const STREAM: bool, const MANY: bool>(run: &Run, short: &ShortTable, codes: &CodeTable) -> Reached {
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let scratch = scratch.as_mut_ptr();
    // SAFETY: the field is inside the scratch memory.
    let stage = unsafe { &raw mut (*scratch).stage }.cast::<u8>();
    let none = Rare { lane: 0, window: 0, len: 0, symbol: 0 };
    let mut batch = Batch {
        starts: [0; LANES + 1],
        whole: [0; LANES],
        at: [0; LANES],
        rounds: 0,
        rare: [none; MOST_RARE],
        rares: 0,
        lanes_with_rare: 0,
    };
    // SAFETY: both orders have 64 bytes.
    let order = unsafe { Order(load(FIRST_HALF.as_ptr()), load(SECOND_HALF.as_ptr())) };
    let mut pending = Pending { dst: run.dst, exps: stage, sm: run.sign_mantissa, units: 0, order };
    // SAFETY: the run has the gaps that it says.
    let (gaps, chunks) = unsafe { run.walkable() };

    let (mut reached, wanted) = (Reached { bit: run.start_bit, weights: 0 }, run.skip + run.count);
    let most = most_chunks(short);
    let mut chunks_per_lane = most;
    // Staged exponents after the units that are pending.
    let mut rest = 0;
    while reached.weights < wanted && chunks_per_lane > 0 {
        let first = reached.bit / CHUNK_BITS;
        let left = chunks.saturating_sub(first);
        let here = left.div_ceil(left.div_ceil(LANES * chunks_per_lane).max(1));
        if here < LANES {
            break;
        }
        for (i, start) in batch.starts.iter_mut().enumerate() {
            let chunk = first + here * i / LANES;
            *start = (chunk * CHUNK_BITS + gap(gaps, chunk).unwrap_or(0)) as u64;
        }
        // A run may begin elsewhere than its gap says.
        if batch.starts[0] != reached.bit as u64 {
            break;
        }
        // SAFETY: the lanes begin at chunks that can be walked, and the units are pending, above the rest of the stage.
        let walked = unsafe { walk::walk::<STREAM, MANY>(run, short, codes, scratch, &mut batch, &mut pending) };
        // SAFETY: the units and the rest are staged, and less than a unit is left.
        unsafe {
            pending.merge_all::<STREAM>();
            std::ptr::copy(pending.exps, stage, rest);
        }
        pending.exps = stage;
        if !walked {
            break;
        }
        let room = wanted - reached.weights;
        // SAFETY: the batch was walked, and `rest` exponents are staged, less than a unit.
        let (lanes, count) = unsafe { windows::expand(short, scratch, &batch, rest, room) };
        let count = if count > room && run.end_bits == Run::ANY_END { room } else { count };
        if count > room {
            break;
        }
        reached = Reached { bit: batch.starts[lanes] as usize, weights: reached.weights + count };
        // Where codes are short, as those of zeros are, lanes may need more rounds than there are.
        chunks_per_lane = if lanes < LANES / 2 { chunks_per_lane / 2 } else { most.min(2 * chunks_per_lane) };

        let dropped = count.min((run.skip + count).saturating_sub(reached.weights));
        let have = rest + count - dropped;
        pending.exps = pending.exps.wrapping_add(dropped);
        // Stores take whole cache lines: weights before the next line are written one by one.
        let head = pending.dst.align_offset(64).min(have);
        // SAFETY: so many weights are staged, and the run has them.
        unsafe { pending.merge_one_by_one(head) };
        (pending.units, rest) = ((have - head) / UNIT, (have - head) % UNIT);
    }
    // SAFETY: the units and the rest are staged, and the run has as many weights.
    unsafe {
        pending.merge_all::<STREAM>();
        pending.merge_one_by_one(rest);
    }
    reached
}

/// Returns how many chunks of a code a lane can have, so that rounds and stage suffice if codes are as likely as they are
/// short.
fn most_chunks(short: &ShortTable) -> usize {
    let by_rounds = (ROUNDS - 8) * STEPS * short.all_used / (SHORT_WINDOWS * CHUNK_BITS);
    let by_stage = (STAGE - 1024) * short.all_used / (short.all_codes * CHUNK_BITS * LANES);
    by_rounds.min(by_stage).clamp(1, MOST_CHUNKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::huffman::code::Code;
    use crate::huffman::decode::Variant;

    /// Codes that count upwards from 0, short ones first.
    fn canonical(lengths: &[u8]) -> Vec<Code> {
        let mut next = 0u64;
        let code = |(i, &len): (usize, &u8)| {
            let bits = next as u32;
            next += 1 << (32 - len);
            Code { bits, len, symbol: 100 + i as u8 }
        };
        lengths.iter().enumerate().map(code).collect()
    }

    /// A stream of codes, and its gaps.
    struct Stream {
        code: Vec<u8>,
        gaps: Vec<u8>,
        chunks: usize,
        exponents: Vec<u8>,
    }

    /// Writes `weights` codes: mostly those of up to 7 bits, and one in `rarity` any.
    fn stream(codes: &[Code], weights: usize, rarity: u64) -> Stream {
        let mut random = 1u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % n
        };
        let short = codes.iter().filter(|c| c.len <= 7).count();
        let (mut bits, mut starts, mut exponents) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..weights {
            let among = if below(rarity) == 0 { codes.len() } else { short };
            let code = codes[below(among as u64) as usize];
            starts.push(bits.len());
            exponents.push(code.symbol);
            bits.extend((0..code.len).map(|i| code.bits >> (31 - i) & 1 != 0));
        }
        let pack = |bits: &[bool]| -> Vec<u8> {
            let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (i, &bit)| byte | (bit as u8) << (7 - i));
            bits.chunks(8).map(byte).collect()
        };
        let chunks = bits.len() / CHUNK_BITS;
        let first = |chunk: usize| starts[starts.partition_point(|&s| s < chunk * CHUNK_BITS)] - chunk * CHUNK_BITS;
        let gap_bits: Vec<bool> =
            (0..chunks).flat_map(|c| (0..5).map(move |i| (c, i))).map(|(c, i)| first(c) >> (4 - i) & 1 != 0).collect();
        Stream { code: pack(&bits), gaps: pack(&gap_bits), chunks, exponents }
    }

    /// Decodes a stream by vectors alone. Returns how many weights were confirmed; they are right.
    fn confirmed(codes: &[Code], stream: &Stream) -> usize {
        let codes = CodeTable::new(codes.to_vec()).unwrap();
        let table = MultiTable::new(&codes);
        let n = stream.exponents.len();
        let sign_mantissa: Vec<u8> = (0..n).map(|i| (i * 7) as u8).collect();
        let mut dst = vec![0u16; n];
        let run = Run {
            code: stream.code.as_ptr(),
            code_bytes: stream.code.len(),
            start_bit: 0,
            gaps: stream.gaps.as_ptr(),
            gap_count: stream.chunks,
            skip: 0,
            sign_mantissa: sign_mantissa.as_ptr(),
            dst: dst.as_mut_ptr(),
            count: n,
            end_bits: Run::ANY_END,
            tag: 0,
        };
        assert!(table.short.is_some());
        // SAFETY: all buffers have what the run says, and the caller has asked whether the processor has the features.
        let reached = unsafe { ahead::<false>(&run, &table, &codes, &routines::<false>()) };
        let want = stream.exponents.iter().zip(&sign_mantissa).map(|(&e, &s)| join(e, s));
        assert!(want.take(reached.weights).eq(dst[..reached.weights].iter().copied()));
        reached.weights
    }

    /// What is not confirmed is decoded all the same, so only this test sees it.
    #[test]
    fn all_but_the_last_chunks_are_confirmed() {
        if !Variant::Avx512Vbmi2.is_available() {
            return;
        }
        let one: &[u8] = &[2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 16, 20, 24];
        let four: &[u8] = &[2, 2, 2, 3, 4, 5, 8, 8, 8, 9, 9, 10, 10, 12, 12, 13, 16, 20, 24];
        for (lengths, prefix_bits) in [(one, 0), (four, 2)] {
            let codes = canonical(lengths);
            let table = MultiTable::new(&CodeTable::new(codes.clone()).unwrap());
            assert_eq!(table.short.unwrap().prefix_bits, prefix_bits);
            for rarity in [200, 2_000, 1_000_000] {
                let stream = stream(&codes, 200_000, rarity);
                let left = 200_000 - confirmed(&codes, &stream);
                assert!(left < 100, "{lengths:?}, 1 in {rarity}: {left} are left");
            }
        }
    }

    #[test]
    fn a_wrong_gap_is_not_believed() {
        if !Variant::Avx512Vbmi2.is_available() {
            return;
        }
        let codes = canonical(&[2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 16, 20, 24]);
        let good = stream(&codes, 100_000, 100);
        for eight in (0..good.gaps.len() - 5).step_by(5 * 97) {
            // Eight gaps, of which most were another value.
            let mut bad = stream(&codes, 100_000, 100);
            bad.gaps[eight..eight + 5].iter_mut().for_each(|byte| *byte ^= 0xb6);
            confirmed(&codes, &bad);
        }
    }
}
