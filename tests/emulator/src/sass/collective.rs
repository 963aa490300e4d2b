//! What lanes of a group do together: shuffles, votes, reductions, and a lane's number for the warp.

use super::alu;
use super::block::Env;
use super::ir::{Ins, Op, Place, Vote, ZERO};
use super::warp::Warp;
use crate::exec::{Fault, FaultKind, mma, ones, shuffle};

impl Env<'_> {
    pub(super) fn collective(&self, warp: &mut Warp, pc: u32, ins: &Ins, exec: u32) -> Result<(), Box<Fault>> {
        let source = |warp: &Warp, at: usize| self.number(warp, pc, &ins.src[at], exec);
        match ins.op {
            Op::Shuffle(kind) => {
                let (values, b, c) = (source(warp, 0)?, source(warp, 1)?, source(warp, 2)?);
                let (mut out, mut inside) = ([0; 32], 0);
                for lane in ones(exec) {
                    let (from, is_inside) = shuffle(kind, lane as u32, b[lane], c[lane]);
                    if exec >> from & 1 == 0 {
                        let what = format!("takes the value of lane {from}; only lanes {exec:#010x} are here");
                        return Err(self.fault(warp, pc, 1 << lane, FaultKind::WarpMask, None, what));
                    }
                    out[lane] = values[from as usize];
                    inside |= u32::from(is_inside) << lane;
                }
                warp.put(ins.dst, exec, &out);
                warp.put_bit(ins.bits[0], exec, inside);
            }
            Op::Vote(kind) => {
                let ballot = exec & self.test(warp, pc, ins.tests[0], exec)?;
                let yes = match kind {
                    Vote::Any => ballot != 0,
                    Vote::All => ballot == exec,
                    Vote::Equal => ballot == 0 || ballot == exec,
                };
                let lanes = if ins.uniform { u32::MAX } else { exec };
                warp.put(ins.dst, lanes, &[ballot; 32]);
                warp.put_bit(ins.bits[0], lanes, u32::from(yes).wrapping_neg());
            }
            Op::Reduce { fold, signed } => {
                let values = source(warp, 0)?;
                let fold = |a, b| alu::fold(fold, signed, a, b);
                let result = ones(exec).map(|lane| values[lane]).reduce(fold).unwrap_or(0);
                warp.put(ins.dst, u32::MAX, &[result; 32]);
            }
            Op::Matrices => {
                if exec != u32::MAX {
                    let what = format!("a product of matrices by lanes {exec:#010x}, not by the whole warp");
                    return Err(self.fault(warp, pc, exec, FaultKind::WarpMask, None, what));
                }
                let register = |at: usize, index: u16| -> Result<[u32; 32], Box<Fault>> {
                    match ins.src[at].place {
                        Place::Slot(ZERO) => Ok([0; 32]),
                        Place::Slot(slot) => {
                            self.defined(warp, pc, slot + index, exec)?;
                            Ok(warp.registers[usize::from(slot + index)])
                        }
                        _ => unreachable!("decoded as registers"),
                    }
                };
                let four = |at: usize| -> Result<[[u32; 32]; 4], Box<Fault>> {
                    Ok([register(at, 0)?, register(at, 1)?, register(at, 2)?, register(at, 3)?])
                };
                let d = mma(&four(0)?, &[register(1, 0)?, register(1, 1)?], &four(2)?);
                for (slot, values) in (ins.dst..).zip(&d).filter(|_| ins.dst != ZERO) {
                    warp.put(slot, exec, values);
                }
            }
            _ => {
                let value = self.one(warp, pc, &ins.src[0], exec)?;
                warp.put(ins.dst, u32::MAX, &[value; 32]);
            }
        }
        Ok(())
    }
}
