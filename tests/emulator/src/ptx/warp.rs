//! A warp: the registers of 32 lanes, and which of them run together.
//!
//! Lanes that run together are at the same instruction, the *group*. Where a branch divides them, the part that comes first
//! in the text runs on and the rest is parked; the group takes parked lanes in when it comes to their instruction. So the
//! lowest instruction always runs first, and lanes meet again where the paths do.

use super::ir::{CONST, Code, Lanes, NONE, Slot, Special, WIDE};
use crate::exec::{Geometry, ones};

/// Index part of a slot.
const INDEX: u16 = !(CONST | WIDE);

/// The barrier of a block at which a warp waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) barrier: usize,
    /// The barrier's generation when the warp came.
    pub(super) generation: u64,
}

pub(super) struct Warp {
    pub(super) index: u32,
    pub(super) r32: Vec<Lanes<u32>>,
    pub(super) r64: Vec<Lanes<u64>>,
    /// Predicates, a bit for every lane.
    pub(super) p: Vec<u32>,
    /// The lanes that have written to each register.
    pub(super) defined32: Vec<u32>,
    pub(super) defined64: Vec<u32>,
    pub(super) defined_p: Vec<u32>,
    pub(super) carry: u32,
    pub(super) defined_carry: u32,
    /// The group and its next instruction.
    pub(super) active: u32,
    pub(super) pc: u32,
    /// Lanes that there are, and those that have not exited.
    pub(super) born: u32,
    pub(super) live: u32,
    /// Lanes that have not waited yet for the kernel before, and must.
    pub(super) early: u32,
    /// Lanes that are parked, that wait in an operation of the warp, and at a block's barrier.
    pub(super) parked: u32,
    pub(super) waiting: u32,
    pub(super) at_barrier: u32,
    /// The lowest instruction of a parked lane.
    pub(super) limit: u32,
    /// The instruction of each lane outside the group.
    pub(super) lane_pc: [u32; 32],
    /// The mask that each waiting lane gave.
    pub(super) wait_mask: [u32; 32],
    pub(super) held: Option<Held>,
    /// Local memory, lane after lane, and a bit for every byte that was written.
    pub(super) local: Vec<u8>,
    pub(super) local_written: Vec<u8>,
}

impl Warp {
    pub(super) fn new(index: u32, code: &Code, local_bytes: u32) -> Warp {
        let local = 32 * local_bytes as usize;
        Warp {
            index,
            r32: vec![Lanes([0; 32]); code.count32],
            r64: vec![Lanes([0; 32]); code.count64],
            p: vec![0; code.count_pred],
            defined32: vec![0; code.count32],
            defined64: vec![0; code.count64],
            defined_p: vec![0; code.count_pred],
            carry: 0,
            defined_carry: 0,
            active: 0,
            pc: 0,
            born: 0,
            live: 0,
            early: 0,
            parked: 0,
            waiting: 0,
            at_barrier: 0,
            limit: u32::MAX,
            lane_pc: [0; 32],
            wait_mask: [0; 32],
            held: None,
            local: vec![0; local],
            local_written: vec![0; local.div_ceil(8)],
        }
    }

    /// Resets the warp to the kernel's first instruction, as a warp of that block. If `early`, its lanes must wait for the
    /// kernel before.
    pub(super) fn begin(&mut self, code: &Code, geometry: &Geometry, early: bool) {
        self.defined32.fill(0);
        self.defined64.fill(0);
        self.defined_p.fill(0);
        self.local_written.fill(0);
        (self.carry, self.defined_carry) = (0, 0);
        let lanes = (geometry.threads() - 32 * self.index).min(32);
        self.born = u32::MAX >> (32 - lanes);
        (self.live, self.active, self.pc) = (self.born, self.born, 0);
        self.early = if early { self.born } else { 0 };
        (self.parked, self.waiting, self.at_barrier, self.limit) = (0, 0, 0, u32::MAX);
        self.held = None;
        for &(special, slot) in &code.specials {
            let at = (slot & INDEX) as usize;
            for lane in 0..32 {
                let value = self.special(special, lane, geometry);
                if slot & WIDE == 0 {
                    self.r32[at].0[lane as usize] = value;
                } else {
                    self.r64[at].0[lane as usize] = value.into();
                }
            }
            let defined = if slot & WIDE == 0 { &mut self.defined32 } else { &mut self.defined64 };
            defined[at] = u32::MAX;
        }
    }

    fn special(&self, special: Special, lane: u32, geometry: &Geometry) -> u32 {
        match special {
            Special::Tid(axis) => geometry.thread(32 * self.index + lane)[axis as usize],
            Special::NTid(axis) => geometry.block[axis as usize],
            Special::CtaId(axis) => geometry.at[axis as usize],
            Special::NCtaId(axis) => geometry.grid[axis as usize],
            Special::LaneId => lane,
            Special::WarpId => self.index,
            Special::NWarpId => geometry.threads().div_ceil(32),
            Special::LaneMaskEq => 1 << lane,
            Special::LaneMaskLt => (1 << lane) - 1,
            Special::LaneMaskLe => (2u32 << lane).wrapping_sub(1),
            Special::LaneMaskGt => !(2u32 << lane).wrapping_sub(1),
            Special::LaneMaskGe => !((1 << lane) - 1),
            Special::Zero => 0,
            Special::One => 1,
            Special::DynamicShared => geometry.dynamic_shared,
            Special::TotalShared => geometry.total_shared,
        }
    }

    /// Returns a source of 32 (or 16) bits, and the lanes that have it.
    #[inline(always)]
    pub(super) fn get32<'a>(&'a self, code: &'a Code, slot: Slot) -> (&'a Lanes<u32>, u32) {
        let at = (slot & INDEX) as usize;
        if slot & CONST != 0 { (&code.pool32[at], u32::MAX) } else { (&self.r32[at], self.defined32[at]) }
    }

    /// Returns a source of 64 bits.
    #[inline(always)]
    pub(super) fn get64<'a>(&'a self, code: &'a Code, slot: Slot) -> (&'a Lanes<u64>, u32) {
        let at = (slot & INDEX) as usize;
        if slot & CONST != 0 { (&code.pool64[at], u32::MAX) } else { (&self.r64[at], self.defined64[at]) }
    }

    /// Returns a source of any width, as raw bits; zeros for no source at all.
    #[inline(always)]
    pub(super) fn get(&self, code: &Code, slot: Slot) -> ([u64; 32], u32) {
        let mut out = [0; 32];
        if slot == NONE {
            return (out, u32::MAX);
        }
        if slot & WIDE != 0 {
            let (lanes, defined) = self.get64(code, slot);
            return (lanes.0, defined);
        }
        let (lanes, defined) = self.get32(code, slot);
        for (out, &value) in out.iter_mut().zip(&lanes.0) {
            *out = value.into();
        }
        (out, defined)
    }

    /// Writes a register of 32 (or 16) bits in these lanes.
    #[inline(always)]
    pub(super) fn put32(&mut self, slot: Slot, exec: u32, value: &[u32; 32]) {
        let at = (slot & INDEX) as usize;
        let register = &mut self.r32[at].0;
        if exec == u32::MAX {
            *register = *value;
        } else {
            for lane in 0..32 {
                let mask = (exec >> lane & 1).wrapping_neg();
                register[lane] = value[lane] & mask | register[lane] & !mask;
            }
        }
        self.defined32[at] |= exec;
    }

    /// Writes a register of 64 bits in these lanes.
    #[inline(always)]
    pub(super) fn put64(&mut self, slot: Slot, exec: u32, value: &[u64; 32]) {
        let at = (slot & INDEX) as usize;
        let register = &mut self.r64[at].0;
        if exec == u32::MAX {
            *register = *value;
        } else {
            for lane in 0..32 {
                let mask = u64::from(exec >> lane & 1).wrapping_neg();
                register[lane] = value[lane] & mask | register[lane] & !mask;
            }
        }
        self.defined64[at] |= exec;
    }

    /// Writes a register of any width; the values fit it.
    #[inline(always)]
    pub(super) fn put(&mut self, slot: Slot, exec: u32, value: &[u64; 32]) {
        if slot & WIDE != 0 {
            return self.put64(slot, exec, value);
        }
        let mut narrow = [0; 32];
        for (narrow, &value) in narrow.iter_mut().zip(value) {
            *narrow = value as u32;
        }
        self.put32(slot, exec, &narrow);
    }

    /// Writes a predicate.
    #[inline(always)]
    pub(super) fn put_pred(&mut self, slot: Slot, exec: u32, value: u32) {
        if slot != NONE {
            let at = slot as usize;
            self.p[at] = self.p[at] & !exec | value & exec;
            self.defined_p[at] |= exec;
        }
    }

    /// Parks lanes before an instruction.
    pub(super) fn park(&mut self, lanes: u32, pc: u32) {
        for lane in ones(lanes) {
            self.lane_pc[lane] = pc;
        }
        self.parked |= lanes;
        self.limit = self.limit.min(pc);
    }

    /// Makes the parked lanes that come first the group, whose lanes must be elsewhere by now. False when none are parked.
    pub(super) fn regroup(&mut self) -> bool {
        let first = ones(self.parked).map(|lane| self.lane_pc[lane]).min();
        let Some(first) = first else {
            (self.active, self.limit) = (0, u32::MAX);
            return false;
        };
        self.active = self.at(self.parked, first);
        self.parked &= !self.active;
        self.pc = first;
        self.limit = ones(self.parked).map(|lane| self.lane_pc[lane]).min().unwrap_or(u32::MAX);
        true
    }

    /// Returns those of the lanes that are at that instruction.
    pub(super) fn at(&self, lanes: u32, pc: u32) -> u32 {
        ones(lanes).filter(|&lane| self.lane_pc[lane] == pc).fold(0, |mask, lane| mask | 1 << lane)
    }

    /// Lets the lanes at the barrier continue.
    pub(super) fn release(&mut self) {
        for lane in ones(self.at_barrier) {
            self.lane_pc[lane] += 1;
        }
        self.parked |= self.at_barrier;
        self.at_barrier = 0;
        self.held = None;
        self.regroup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_lanes_run_first_and_meet_again() {
        let code = Code {
            ins: Vec::new(),
            tables: Vec::new(),
            matrices: Vec::new(),
            count32: 1,
            count64: 0,
            count_pred: 1,
            pool32: Vec::new(),
            pool64: Vec::new(),
            specials: vec![(Special::Tid(1), 0)],
            names32: Vec::new(),
            names64: Vec::new(),
            names_pred: Vec::new(),
        };
        let mut warp = Warp::new(1, &code, 0);
        let (grid, at) = ([1; 3], [0; 3]);
        let geometry = Geometry { grid, block: [5, 8, 1], at, dynamic_shared: 0, total_shared: 0 };
        warp.begin(&code, &geometry, false);
        assert_eq!((warp.born, warp.active), (0xff, 0xff));
        assert_eq!(warp.r32[0].0[..8], [6, 6, 6, 7, 7, 7, 7, 7]);
        warp.park(0x0f, 9);
        warp.park(0xf0, 4);
        assert_eq!(warp.limit, 4);
        assert!(warp.regroup());
        assert_eq!((warp.active, warp.pc, warp.parked, warp.limit), (0xf0, 4, 0x0f, 9));
        warp.park(warp.active, 9);
        assert!(warp.regroup());
        assert_eq!((warp.active, warp.pc, warp.parked, warp.limit), (0xff, 9, 0, u32::MAX));
        warp.put_pred(0, 0x3, 0x5);
        assert_eq!((warp.p[0], warp.defined_p[0]), (1, 3));
        assert_eq!(ones(0x8000_0005).collect::<Vec<_>>(), [0, 2, 31]);
    }
}
