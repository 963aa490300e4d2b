//! Stretches between gaps, several side by side: how a range that begins inside a block finds its first weight, and how
//! one of few blocks keeps all lanes busy.
//!
//! A file says at which bit each chunk's first code begins, but not which weight that is. So stretches of chunks can be
//! counted side by side, and also decoded, if their exponents are staged: once all are, it is known how many each has.
//!
//! A stretch is only believed if it ends where the next begins. What was decoded up to there is then the same that one
//! lane would have found, whatever the gaps are.

use super::burst::{Pending, be64, merge_one_by_one, refill};
use super::{LOOKUPS_PER_REFILL, MOST_BYTES, MOST_LANES, Reached, Routines, Run, UNIT, Variant};
use crate::huffman::code::CodeTable;
use crate::huffman::table::{MultiTable, WINDOW};
use crate::huffman::{CHUNK_BITS, gap, window};
use std::mem::MaybeUninit;

/// Stretches side by side.
const STRETCHES: usize = MOST_LANES;
/// Chunks of a stretch that is decoded, at most.
const MOST_CHUNKS: usize = 64;
/// Bytes for the exponents of a stretch: each takes a bit or more, a stretch may begin with a gap of 0 and end after one of
/// 31, and stores of 8 bytes need slack.
const ROOM: usize = MOST_CHUNKS * CHUNK_BITS + 64;

/// The bits at which stretches that follow each other begin, and the one at which the last ends, in ascending order.
pub type Bounds = [usize; STRETCHES + 1];

/// Returns the bounds of stretches of about equally many chunks, from chunk `from` to chunk `to`, counted in bits of chunk
/// `from`; `None` if a gap is missing, or there are too few chunks. `gaps` are those from chunk 0 on.
pub fn bounds(gaps: &[u8], from: usize, to: usize) -> Option<Bounds> {
    let mut bounds = [0; STRETCHES + 1];
    for (i, bit) in bounds.iter_mut().enumerate() {
        let chunk = (to.checked_sub(from)?) * i / STRETCHES;
        *bit = chunk * CHUNK_BITS + gap(gaps, from + chunk)?;
    }
    (to >= from + STRETCHES).then_some(bounds)
}

/// Counts the codes of stretches of `code`; `None` if one does not end where the next begins.
///
/// # Panics
///
/// If this processor lacks `variant`.
pub fn count(
    table: &MultiTable,
    codes: &CodeTable,
    code: &[u8],
    bounds: &Bounds,
    variant: Variant,
) -> Option<[usize; STRETCHES]> {
    assert!(variant.is_available(), "this processor cannot run the {} variant", variant.name());
    let tops = [std::ptr::null_mut(); STRETCHES];
    // SAFETY: nothing is stored, and each processor that can run a variant other than the first two has BMI1 and BMI2.
    unsafe {
        match variant {
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 | Variant::Avx512 | Variant::Avx512Vbmi2 => {
                with_bmi2::<false>(table, codes, code, bounds, tops)
            }
            _ => walk::<false>(table, codes, code, bounds, tops),
        }
    }
}

/// A way to walk stretches and to stage their exponents.
pub(super) type Stage =
    unsafe fn(&MultiTable, &CodeTable, &[u8], &Bounds, [*mut u8; STRETCHES]) -> Option<[usize; STRETCHES]>;

/// As [`walk`], compiled with three-operand shifts.
///
/// # Safety
///
/// As [`walk`], and the processor has BMI1 and BMI2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2")]
pub(super) unsafe fn with_bmi2<const STORE: bool>(
    table: &MultiTable,
    codes: &CodeTable,
    code: &[u8],
    bounds: &Bounds,
    tops: [*mut u8; STRETCHES],
) -> Option<[usize; STRETCHES]> {
    // SAFETY: there is room below `tops` if STORE.
    unsafe { walk::<STORE>(table, codes, code, bounds, tops) }
}

/// Counts the codes of stretches, and if STORE, stages their exponents from `tops` downwards. Returns `None` if a stretch
/// does not end where the next begins, or has bits that begin no code.
///
/// # Safety
///
/// If STORE, as many bytes can be written from each of `tops` downwards as its stretch has bits, and 7 more.
#[inline(always)]
pub(super) unsafe fn walk<const STORE: bool>(
    table: &MultiTable,
    codes: &CodeTable,
    code: &[u8],
    bounds: &Bounds,
    tops: [*mut u8; STRETCHES],
) -> Option<[usize; STRETCHES]> {
    let mut at = [0; STRETCHES];
    at.copy_from_slice(&bounds[..STRETCHES]);
    let mut op = tops;
    loop {
        // As in a burst, nothing inside is tested against a border: no lane takes more than these bytes an iteration.
        let room = |l: usize| {
            let end = bounds[l + 1].min(8 * code.len().saturating_sub(8));
            end.saturating_sub(at[l]) / (8 * MOST_BYTES)
        };
        let iterations = (0..STRETCHES).map(room).min().unwrap_or(0);
        if iterations == 0 {
            break;
        }
        let (mut ip, mut bits) = ([code.as_ptr(); STRETCHES], [0; STRETCHES]);
        for l in 0..STRETCHES {
            ip[l] = code.as_ptr().wrapping_add(at[l] >> 3);
            // SAFETY: there is room for an iteration, and 8 more bytes can be read after it.
            bits[l] = (unsafe { be64(ip[l]) } | 1) << (at[l] & 7);
        }
        for _ in 0..iterations {
            let mut last = [0; STRETCHES];
            for _ in 0..LOOKUPS_PER_REFILL {
                for l in 0..STRETCHES {
                    let entry = table.entries[(bits[l] >> (64 - WINDOW)) as usize];
                    if STORE {
                        // SAFETY: the stretch has more bits than exponents were staged, and there are 7 more bytes.
                        unsafe { op[l].sub(7).cast::<u64>().write_unaligned(entry) };
                    }
                    bits[l] <<= entry & 63;
                    op[l] = op[l].wrapping_sub((entry >> 8 & 255) as usize);
                    last[l] = entry;
                }
            }
            for l in 0..STRETCHES {
                // SAFETY: an iteration advances by at most MOST_BYTES, and 8 more bytes can be read after them.
                unsafe { refill(&mut ip[l], &mut bits[l]) };
                if last[l] & 255 == 0 {
                    let long = codes.first((bits[l] >> 32) as u32)?;
                    bits[l] <<= long.len;
                    // SAFETY: the long code is counted in what an iteration may take.
                    unsafe {
                        if STORE {
                            op[l].write(long.symbol);
                        }
                        refill(&mut ip[l], &mut bits[l]);
                    }
                    op[l] = op[l].wrapping_sub(1);
                }
            }
        }
        for l in 0..STRETCHES {
            at[l] = (ip[l] as usize - code.as_ptr() as usize) * 8 + bits[l].trailing_zeros() as usize;
        }
    }
    let mut counts = [0; STRETCHES];
    for l in 0..STRETCHES {
        while at[l] < bounds[l + 1] {
            let bits = window(code, at[l]);
            let entry = table.entries[(bits >> (32 - WINDOW)) as usize];
            let used = (entry & 255) as usize;
            if used > 0 && at[l] + used <= bounds[l + 1] {
                if STORE {
                    // SAFETY: as above.
                    unsafe { op[l].sub(7).cast::<u64>().write_unaligned(entry) };
                }
                at[l] += used;
                op[l] = op[l].wrapping_sub((entry >> 8 & 255) as usize);
            } else {
                let code = codes.first(bits)?;
                if STORE {
                    // SAFETY: the stretch has this bit, which no exponent before was of.
                    unsafe { op[l].write(code.symbol) };
                }
                at[l] += code.len as usize;
                op[l] = op[l].wrapping_sub(1);
            }
        }
        if at[l] != bounds[l + 1] {
            return None;
        }
        counts[l] = tops[l].addr().wrapping_sub(op[l].addr());
    }
    Some(counts)
}

/// Decodes as much of a run as its gaps confirm.
///
/// # Safety
///
/// The run's pointers are valid for what it says, and the processor can run the routines.
pub(super) unsafe fn decode<const L: usize>(
    run: &Run,
    table: &MultiTable,
    codes: &CodeTable,
    routines: &Routines<L>,
) -> Reached {
    let mut reached = Reached { bit: run.start_bit, weights: 0 };
    let wanted = run.skip + run.count;
    let mut stages = MaybeUninit::<[[u8; ROOM]; STRETCHES]>::uninit();
    let base = stages.as_mut_ptr().cast::<u8>();
    let tops = std::array::from_fn(|l| base.wrapping_add(ROOM * (l + 1) - 1));
    // SAFETY: the run has these gaps and code bytes.
    let ((gaps, chunks), code) = unsafe { (run.walkable(), std::slice::from_raw_parts(run.code, run.code_bytes)) };
    while reached.weights < wanted {
        let from = reached.bit / CHUNK_BITS;
        let left = chunks.saturating_sub(from);
        let pieces = left.div_ceil(STRETCHES * MOST_CHUNKS).max(1);
        let Some(bounds) = bounds(gaps, from, from + left / pieces) else { break };
        let start = from * CHUNK_BITS;
        // A run may begin elsewhere than its gap says.
        if start + bounds[0] != reached.bit {
            break;
        }
        let Some(code) = code.get(start / 8..) else { break };
        // SAFETY: stretches have at most MOST_CHUNKS chunks and a gap, and for each of their bits there is a byte.
        let Some(counts) = (unsafe { (routines.stage)(table, codes, code, &bounds, tops) }) else { break };
        for (l, count) in counts.into_iter().enumerate() {
            let room = wanted - reached.weights;
            if count > room && run.end_bits != Run::ANY_END {
                return reached;
            }
            // SAFETY: so many exponents are staged below the top, and the run has room for them.
            unsafe { merge(run, &mut reached, tops[l], count.min(room), routines) };
            reached.bit = start + bounds[l + 1];
        }
    }
    reached
}

/// Merges staged exponents.
///
/// # Safety
///
/// `count` exponents are staged from `top` downwards, the run has as many weights after those that were reached, and the
/// processor can run the routines.
unsafe fn merge<const L: usize>(
    run: &Run,
    reached: &mut Reached,
    top: *const u8,
    count: usize,
    routines: &Routines<L>,
) {
    let dropped = run.skip.saturating_sub(reached.weights).min(count);
    reached.weights += count;
    let (exps, count) = (top.wrapping_sub(dropped), count - dropped);
    let done = reached.weights.saturating_sub(run.skip + count);
    let (dst, sm) = (run.dst.wrapping_add(done), run.sign_mantissa.wrapping_add(done));
    let head = if routines.streaming { dst.align_offset(64).min(count) } else { 0 };
    let units = (count - head) / UNIT;
    let tail = head + units * UNIT;
    // SAFETY: head, units and tail together are the `count` weights.
    unsafe {
        merge_one_by_one(dst, exps, sm, head);
        let at = |i: usize| (dst.wrapping_add(i), exps.wrapping_sub(i), sm.wrapping_add(i));
        let (d, e, s) = at(head);
        (routines.merge)(&mut Pending { dst: d, exps: e, sm: s, units });
        let (d, e, s) = at(tail);
        merge_one_by_one(d, e, s, count - tail);
    }
}
