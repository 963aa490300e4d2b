//! Operations of a warp: `bar.warp.sync`, `shfl`, `vote`, `match`, `redux`.
//!
//! Each lane names the lanes that take part. It waits until all of them are there with the same mask; a mask that names a
//! lane which has exited, was never there, or not the lane itself is a fault.

use super::alu;
use super::block::Env;
use super::ir::{Ins, Op, Slot};
use super::warp::Warp;
use crate::exec::{Fault, FaultKind, Shuffle, mma, ones, shuffle};

impl Env<'_> {
    /// Brings a group to an operation of the warp. Returns true if it was done and the group continues, false if the lanes were
    /// parked or wait.
    pub(super) fn collective(&mut self, warp: &mut Warp, ins: &Ins, exec: u32) -> Result<bool, Box<Fault>> {
        let slot = mask_slot(ins);
        let (masks, defined) = warp.get32(self.code, slot);
        self.defined(warp, ins, exec, defined, slot)?;
        let masks = masks.0;
        if exec == warp.active && ones(exec).all(|lane| masks[lane] == exec) {
            self.perform(warp, ins, exec)?;
            warp.pc += 1;
            return Ok(true);
        }
        for lane in ones(exec) {
            let mask = masks[lane];
            let gone = mask & !warp.live;
            let what = if mask >> lane & 1 == 0 {
                format!("the mask {mask:#010x} does not name the lane {lane} that runs it")
            } else if gone != 0 {
                let never = gone & !warp.born;
                format!("the mask {mask:#010x} names lanes {gone:#010x} that have exited (never there: {never:#010x})")
            } else {
                continue;
            };
            return Err(self.fault(warp, ins, 1 << lane, FaultKind::WarpMask, None, what));
        }
        let pc = warp.pc;
        let rest = warp.active & !exec;
        for lane in ones(exec) {
            warp.lane_pc[lane] = pc;
            warp.wait_mask[lane] = masks[lane];
        }
        warp.waiting |= exec;
        warp.active = 0;
        warp.park(rest, pc + 1);
        for lane in ones(exec) {
            if warp.waiting >> lane & 1 == 1 {
                self.complete(warp, ins, masks[lane])?;
            }
        }
        Ok(false)
    }

    /// Does the operation of the lanes in `mask`, if all of them are there.
    fn complete(&mut self, warp: &mut Warp, ins: &Ins, mask: u32) -> Result<(), Box<Fault>> {
        let code = self.code;
        let there = |lane: usize| {
            let other = &code.ins[warp.lane_pc[lane] as usize];
            let same = other.line == ins.line && other.op == ins.op && warp.lane_pc[lane] == warp.pc;
            warp.wait_mask[lane] == mask && (same || ins.op == Op::WarpSync && other.op == Op::WarpSync)
        };
        if mask & !warp.waiting != 0 || !ones(mask).all(there) {
            return Ok(());
        }
        self.perform(warp, ins, mask)?;
        warp.waiting &= !mask;
        for lane in ones(mask) {
            let next = warp.lane_pc[lane] + 1;
            warp.park(1 << lane, next);
        }
        Ok(())
    }

    /// Multiplies matrices, which the whole warp must do together.
    #[inline(never)]
    pub(super) fn matrices(&mut self, warp: &mut Warp, ins: &Ins, exec: u32) -> Result<(), Box<Fault>> {
        if exec != u32::MAX {
            let what = format!("a product of matrices by lanes {exec:#010x}, not by the whole warp");
            return Err(self.fault(warp, ins, exec, FaultKind::WarpMask, None, what));
        }
        self.counts.collectives += 1;
        let slots = self.code.matrices[ins.imm as usize];
        let mut values = [[0; 32]; 14];
        for (values, &slot) in values.iter_mut().zip(&slots).skip(4) {
            let (lanes, defined) = warp.get32(self.code, slot);
            self.defined(warp, ins, exec, defined, slot)?;
            *values = lanes.0;
        }
        let part = |from: usize| -> [[u32; 32]; 4] { std::array::from_fn(|at| values[from + at]) };
        let d = mma(&part(4), &[values[8], values[9]], &part(10));
        for (slot, d) in slots.iter().zip(&d) {
            warp.put32(*slot, exec, d);
        }
        Ok(())
    }

    /// Returns the fault of a warp of which no lane can run and some wait for others.
    #[cold]
    pub(super) fn stuck(&self, warp: &Warp) -> Box<Fault> {
        let lane = warp.waiting.trailing_zeros() as usize;
        let ins = &self.code.ins[warp.lane_pc[lane] as usize];
        let mask = warp.wait_mask[lane];
        let exited = mask & !warp.live;
        let barrier = mask & warp.at_barrier;
        let others = mask & warp.waiting & !warp.at(warp.waiting, warp.lane_pc[lane]);
        let what = format!(
            "the mask {mask:#010x} can never be complete: lanes {exited:#010x} have exited, {barrier:#010x} are at a block's \
             barrier, {others:#010x} are in another operation of the warp"
        );
        self.fault(warp, ins, warp.waiting, FaultKind::WarpMask, None, what)
    }

    /// Performs the operation, for lanes that are all there.
    fn perform(&mut self, warp: &mut Warp, ins: &Ins, lanes: u32) -> Result<(), Box<Fault>> {
        let source = |slot: Slot| -> Result<[u64; 32], Box<Fault>> {
            let (values, defined) = warp.get(self.code, slot);
            self.defined(warp, ins, lanes, defined, slot)?;
            Ok(values)
        };
        match ins.op {
            Op::WarpSync => {
                if let Some(races) = &mut self.races {
                    races.warp_sync(warp.index as usize, lanes, warp.live);
                }
            }
            Op::Vote => {
                let p = ins.r[1] as usize;
                let missing = lanes & !warp.defined_p[p];
                if missing != 0 {
                    return Err(self.undefined_predicate(warp, ins, missing, ins.r[1]));
                }
                let ballot = lanes & if ins.not { !warp.p[p] } else { warp.p[p] };
                let yes = match ins.sub {
                    0 => {
                        warp.put32(ins.r[0], lanes, &[ballot; 32]);
                        return Ok(());
                    }
                    1 => ballot != 0,
                    2 => ballot == lanes,
                    _ => ballot == 0 || ballot == lanes,
                };
                warp.put_pred(ins.r[0], lanes, u32::from(yes).wrapping_neg());
            }
            Op::Match => {
                let values = source(ins.r[2])?;
                let mut out = [0; 32];
                let mut all = true;
                for lane in ones(lanes) {
                    let same = ones(lanes).filter(|&other| values[other] == values[lane]);
                    out[lane] = same.fold(0, |mask, other| mask | 1 << other);
                    all &= out[lane] == lanes;
                }
                if ins.sub == 1 {
                    out = if all { [lanes; 32] } else { [0; 32] };
                    warp.put_pred(ins.r[1], lanes, u32::from(all).wrapping_neg());
                }
                warp.put32(ins.r[0], lanes, &out);
            }
            Op::Redux => {
                let values = source(ins.r[1])?;
                let fold = |a, b| alu::atomic(ins.sub, a, b, 0, ins.ty);
                let result = ones(lanes).map(|lane| values[lane]).reduce(fold).unwrap_or(0);
                warp.put32(ins.r[0], lanes, &[result as u32; 32]);
            }
            _ => {
                let (values, b, c) = (source(ins.r[2])?, source(ins.r[3])?, source(ins.r[4])?);
                let mode = Shuffle::ALL[usize::from(ins.sub)];
                let (mut out, mut inside) = ([0; 32], 0);
                for lane in ones(lanes) {
                    let (from, is_inside) = shuffle(mode, lane as u32, b[lane] as u32, c[lane] as u32);
                    if lanes >> from & 1 == 0 {
                        let what = format!("takes the value of lane {from}, which is not in the mask {lanes:#010x}");
                        return Err(self.fault(warp, ins, 1 << lane, FaultKind::WarpMask, None, what));
                    }
                    out[lane] = values[from as usize] as u32;
                    inside |= u32::from(is_inside) << lane;
                }
                warp.put32(ins.r[0], lanes, &out);
                warp.put_pred(ins.r[1], lanes, inside);
            }
        }
        Ok(())
    }
}

/// Returns where an operation of the warp has its mask.
fn mask_slot(ins: &Ins) -> Slot {
    match ins.op {
        Op::WarpSync => ins.r[0],
        Op::Shfl => ins.r[5],
        Op::Match => ins.r[3],
        _ => ins.r[2],
    }
}
