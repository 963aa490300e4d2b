//! The inner loop: look-ups and refills of R lanes, and between them the merging of what the burst before has staged.

use super::{LOOKUPS_PER_REFILL, UNIT};
use crate::huffman::code::CodeTable;
use crate::huffman::join;
use crate::huffman::table::{MultiTable, WINDOW};

/// Units that are merged in an iteration. On real models five lanes give 2.9 of them.
const UNITS_PER_ITERATION: usize = 3;
/// The bytes ahead of a merge at which sign/mantissa bytes are prefetched: a burst's worth. The lanes are many short
/// streams, too many for the hardware prefetcher.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 800;

/// Staged exponents that wait to be merged and written.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub dst: *mut u16,
    /// The first exponent; the others are below it.
    pub exps: *const u8,
    pub sm: *const u8,
    pub units: usize,
}

impl Pending {
    pub const NONE: Pending =
        Pending { dst: std::ptr::null_mut(), exps: std::ptr::null(), sm: std::ptr::null(), units: 0 };

    /// Merges and writes the next `units` units.
    ///
    /// # Safety
    ///
    /// As many are pending, the pointers are valid for them, and the processor can run M.
    #[inline(always)]
    pub unsafe fn merge<M: Merge>(&mut self, units: usize) {
        for i in 0..units {
            let at = UNIT * i;
            // SAFETY: unit `i` is pending, so the pointers are valid for it.
            unsafe { M::merge(self.dst.wrapping_add(at), self.exps.wrapping_sub(at), self.sm.wrapping_add(at)) };
        }
        self.dst = self.dst.wrapping_add(UNIT * units);
        self.exps = self.exps.wrapping_sub(UNIT * units);
        self.sm = self.sm.wrapping_add(UNIT * units);
        self.units -= units;
    }

    /// Prefetches the bytes that the merges of the next burst read.
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

/// A way to merge a unit of weights: `(s << 8 | s) & 0x807f | e << 7` on 16-bit lanes, which is [`join`].
pub(super) trait Merge {
    /// Joins 32 exponents, the first at `exps` and the others below it, with 32 sign/mantissa bytes, and writes them.
    ///
    /// # Safety
    ///
    /// The pointers are valid for that, and the processor has what the merge needs. `dst` is aligned to 64 bytes if the
    /// routines are streaming ones.
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8);
}

/// Without intrinsics.
pub(super) struct PortableMerge;

impl Merge for PortableMerge {
    #[inline(always)]
    unsafe fn merge(dst: *mut u16, exps: *const u8, sm: *const u8) {
        // By value, so that the compiler need not ask whether they overlap, and vectorises.
        // SAFETY: 32 bytes can be read from `exps` downwards and from `sm` upwards.
        let (exps, sm) = unsafe { (exps.sub(UNIT - 1).cast::<[u8; UNIT]>().read(), sm.cast::<[u8; UNIT]>().read()) };
        let merged: [u16; UNIT] = std::array::from_fn(|i| join(exps[UNIT - 1 - i], sm[i]));
        // SAFETY: 32 weights can be written at `dst`, which is aligned to a weight.
        unsafe { dst.cast::<[u16; UNIT]>().write(merged) };
    }
}

/// Joins n staged exponents, the first at `exps` and the others below it, with n sign/mantissa bytes.
///
/// # Safety
///
/// n bytes can be read from `exps` downwards and from `sm` upwards, and n weights can be written at `dst`.
#[inline(always)]
pub(super) unsafe fn merge_one_by_one(dst: *mut u16, exps: *const u8, sm: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: `i` is below n, for which all three pointers are valid.
        unsafe { *dst.add(i) = join(*exps.sub(i), *sm.add(i)) };
    }
}

/// The state that a burst keeps in registers for each of its lanes: the code's next bytes, the bits loaded from them
/// with a sentinel after them, and the place below the last staged exponent.
pub(super) struct Registers<const R: usize> {
    pub ip: [*const u8; R],
    pub bits: [u64; R],
    pub op: [*mut u8; R],
}

pub(super) type Burst<const R: usize> =
    unsafe fn(&mut Registers<R>, &mut [Pending], &MultiTable, &CodeTable, usize) -> bool;

/// Runs `iterations` of five look-ups and a refill on each of R lanes, and as many merges as there are units for.
/// Returns false if bits were met that begin no code.
///
/// # Safety
///
/// In each lane 11 · `iterations` + 8 bytes of code are ahead of `ip`, and 31 · `iterations` + 8 bytes of staging below
/// `op`, itself included; the pointers in `pending` are valid and not into those bytes. The processor has what M needs.
#[inline(always)]
pub(super) unsafe fn burst<M: Merge, const R: usize>(
    regs: &mut Registers<R>,
    pending: &mut [Pending],
    table: &MultiTable,
    codes: &CodeTable,
    iterations: usize,
) -> bool {
    let (mut ip, mut bits, mut op) = (regs.ip, regs.bits, regs.op);
    let entries = table.entries.as_ptr();
    let (mut ok, mut merging) = (true, 0);
    for _ in 0..iterations {
        let from = &mut pending[merging];
        if from.units >= UNITS_PER_ITERATION {
            from.prefetch();
            // SAFETY: as many units are pending.
            unsafe { from.merge::<M>(UNITS_PER_ITERATION) };
        } else if merging + 1 < pending.len() {
            merging += 1;
        }
        let mut last = [0u64; R];
        for _ in 0..LOOKUPS_PER_REFILL {
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
            // SAFETY: an iteration advances by at most 11 bytes, and 8 more may be read after them.
            unsafe { refill(&mut ip[l], &mut bits[l]) };
            if last[l] & 255 == 0 {
                let (symbol, len, found) = long_code(codes, (bits[l] >> 32) as u32);
                ok &= found;
                bits[l] <<= len;
                // SAFETY: the one exponent and the long code's bits are counted in what an iteration may take.
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

/// Steps over the whole bytes that were used up and loads again: at least 56 bits, with the sentinel after them.
///
/// # Safety
///
/// 8 bytes can be read after the used ones.
#[inline(always)]
pub(super) unsafe fn refill(ip: &mut *const u8, bits: &mut u64) {
    let used = bits.trailing_zeros();
    *ip = ip.wrapping_add((used >> 3) as usize);
    // SAFETY: the used bytes are passed, and 8 more can be read.
    *bits = (unsafe { be64(*ip) } | 1) << (used & 7);
}

/// # Safety
///
/// 8 bytes can be read at `p`.
#[inline(always)]
pub(super) unsafe fn be64(p: *const u8) -> u64 {
    // SAFETY: 8 bytes can be read at `p`, with any alignment.
    u64::from_be(unsafe { p.cast::<u64>().read_unaligned() })
}

/// Finds the code that a window begins with, where it is too long for the table. Bits that begin none advance by one
/// bit, so that a burst always ends; what it staged is never written out.
#[cold]
#[inline(never)]
fn long_code(codes: &CodeTable, window: u32) -> (u8, u32, bool) {
    codes.first(window).map_or((0, 1, false), |c| (c.symbol, c.len as u32, true))
}
