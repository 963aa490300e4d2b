//! A lane: one of the runs that a thread decodes together, its two staging buffers, and how it ends.

use super::burst::{Pending, merge_one_by_one};
use super::{BURST, Fault, MOST_BYTES, MOST_EXPONENTS, Routines, Run, STAGE, TOP, UNIT};
use crate::huffman::code::CodeTable;
use crate::huffman::table::{MultiTable, WINDOW};
use crate::huffman::{join, window};
use std::mem::MaybeUninit;

/// Two staging buffers for each of L lanes. They are only used through pointers, because [`Pending`] points into them,
/// and nothing is read that was not written before.
#[repr(align(64))]
pub(super) struct Stages<const L: usize>(pub MaybeUninit<[[[u8; STAGE]; 2]; L]>);

/// A run being decoded.
pub(super) struct Lane {
    pub run: Option<Run>,
    /// The lane's two staging buffers, one after the other.
    stages: *mut u8,
    /// The buffer that is being filled, 0 or 1.
    filling: usize,
    /// The bit of the code at which the next code begins.
    pub at: usize,
    /// Exponents in the buffer that is being filled, from [`TOP`] downwards.
    pub staged: usize,
    /// Weights to drop before the next that is written.
    skip: usize,
    /// Weights that are written, or pending.
    done: usize,
}

impl Lane {
    pub fn idle(stages: *mut u8) -> Self {
        Lane { run: None, stages, filling: 0, at: 0, staged: 0, skip: 0, done: 0 }
    }

    pub fn begin(&mut self, run: Run) {
        (self.at, self.staged, self.skip, self.done) = (run.start_bit, 0, run.skip, 0);
        self.run = Some(run);
    }

    /// Returns the place of the first exponent in the buffer that is being filled.
    pub fn top(&self) -> *mut u8 {
        self.stages.wrapping_add(self.filling * STAGE + TOP)
    }

    /// Returns how many iterations can neither leave the code nor decode more than what is left.
    pub fn room(&self, run: &Run) -> usize {
        let left = self.skip + run.count - self.done - self.staged;
        let bytes = run.code_bytes.saturating_sub(self.at >> 3).saturating_sub(8);
        BURST.min(left / MOST_EXPONENTS).min(bytes / MOST_BYTES)
    }
}

/// Drops what is to be dropped, returns the whole units that are staged, and switches to the other buffer, which starts
/// with the rest of this one. What was pending from the other buffer must have been merged.
///
/// # Safety
///
/// The run's pointers are valid and no more is staged than the run has weights left.
pub(super) unsafe fn flush(lane: &mut Lane, run: &Run, streaming: bool) -> Pending {
    let dropped = lane.skip.min(lane.staged);
    lane.skip -= dropped;
    let have = lane.staged - dropped;
    let first = lane.top().wrapping_sub(dropped).cast_const();
    let (dst, sm) = (run.dst.wrapping_add(lane.done), run.sign_mantissa.wrapping_add(lane.done));
    // Streaming stores take whole cache lines: weights before the next line are written one by one.
    let head = if streaming { dst.align_offset(64) } else { 0 };
    let mut pending = Pending::NONE;
    let mut taken = 0;
    if have >= head + UNIT {
        // SAFETY: `have` exponents are staged from `first` downwards, and as many weights of the run are not yet
        // written.
        unsafe { merge_one_by_one(dst, first, sm, head) };
        let units = (have - head) / UNIT;
        pending =
            Pending { dst: dst.wrapping_add(head), exps: first.wrapping_sub(head), sm: sm.wrapping_add(head), units };
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
    pending
}

/// Decodes the rest of a run, look-up by look-up and at its end code by code, and checks where it ends.
///
/// # Safety
///
/// The run's pointers are valid, what is pending belongs to the run, and the processor can run the routines.
pub(super) unsafe fn finish<const L: usize>(
    lane: &mut Lane,
    run: &Run,
    pending: &mut Pending,
    table: &MultiTable,
    codes: &CodeTable,
    routines: &Routines<L>,
) -> Result<(), Fault> {
    let dropped = lane.skip.min(lane.staged);
    let staged = lane.staged - dropped;
    // SAFETY: all that is pending, and what is staged from the top downwards, is in the run.
    unsafe {
        (routines.merge)(pending);
        let first = lane.top().wrapping_sub(dropped);
        merge_one_by_one(run.dst.add(lane.done), first, run.sign_mantissa.add(lane.done), staged);
    }
    let decoded = run.skip - lane.skip + dropped + lane.done + staged;
    // SAFETY: the run has `code_bytes` bytes of code.
    let code = unsafe { std::slice::from_raw_parts(run.code, run.code_bytes) };
    let mut at = lane.at;
    let mut weight = decoded;
    let put = |weight: usize, symbol| {
        if let Some(i) = weight.checked_sub(run.skip) {
            // SAFETY: i is below the run's count.
            unsafe { *run.dst.add(i) = join(symbol, *run.sign_mantissa.add(i)) };
        }
    };
    while weight < run.skip + run.count {
        let entry = table.entries[(window(code, at) >> (32 - WINDOW)) as usize];
        let (end, count) = (at + (entry & 255) as usize, (entry >> 8 & 255) as usize);
        if count > 0 && weight + count <= run.skip + run.count && end <= code.len() * 8 {
            (0..count).for_each(|i| put(weight + i, (entry >> (56 - 8 * i)) as u8));
            (at, weight) = (end, weight + count);
        } else {
            put(weight, next_code(code, codes, &mut at, weight)?);
            weight += 1;
        }
    }
    if at < run.end_bits.0 || at > run.end_bits.1 { Err(Fault::End { bit: at }) } else { Ok(()) }
}

/// Walks a run again from its start to find its first fault, if it has one: after a burst it is only known that some
/// run does.
#[cold]
pub(super) fn locate(run: &Run, codes: &CodeTable) -> Option<Fault> {
    // SAFETY: the feed keeps the run's pointers valid while a lane has the run.
    let code = unsafe { std::slice::from_raw_parts(run.code, run.code_bytes) };
    let mut bit = run.start_bit;
    (0..run.skip + run.count).find_map(|weight| next_code(code, codes, &mut bit, weight).err())
}

/// Returns the symbol of the code at `bit`, and moves `bit` past it.
fn next_code(code: &[u8], codes: &CodeTable, bit: &mut usize, weight: usize) -> Result<u8, Fault> {
    let found = codes.first(window(code, *bit)).ok_or(Fault::NoCode { bit: *bit, weight })?;
    let end = *bit + found.len as usize;
    if end > code.len() * 8 {
        return Err(Fault::Short { bit: *bit, weight });
    }
    *bit = end;
    Ok(found.symbol)
}
