//! A warp at work: the loop over its instructions, and what moves lanes about. Operations on registers are in `lanes`.

use super::block::Env;
use super::ir::{Ins, NONE, Op};
use super::lanes::number;
use super::warp::Warp;
use crate::exec::{Fault, FaultKind, ones};

/// The reason why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Exited,
    /// At a barrier of the block, see [`Warp::held`].
    Held,
    /// It has run long enough for now.
    Turn,
}

/// Runs a warp until it stops, on the best instructions that the host has.
pub(super) fn run(warp: &mut Warp, env: &mut Env, turn: u64) -> Result<Stop, Box<Fault>> {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        fn avx512(warp: &mut Warp, env: &mut Env, turn: u64) -> Result<Stop, Box<Fault>> {
            step(warp, env, turn)
        }
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        fn avx2(warp: &mut Warp, env: &mut Env, turn: u64) -> Result<Stop, Box<Fault>> {
            step(warp, env, turn)
        }
        let has_avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if has_avx2 && has_avx512 {
            // SAFETY: the host has every feature that the function asks for.
            return unsafe { avx512(warp, env, turn) };
        }
        if has_avx2 {
            // SAFETY: the host has every feature that `avx2` asks for.
            return unsafe { avx2(warp, env, turn) };
        }
    }
    step(warp, env, turn)
}

/// Runs the loop, the same for every kind of host.
#[inline(always)]
fn step(warp: &mut Warp, env: &mut Env, turn: u64) -> Result<Stop, Box<Fault>> {
    let code = env.code;
    let end = env.counts.warp_issues + turn;
    if warp.active == 0 {
        return stop(warp, env);
    }
    loop {
        if warp.pc >= warp.limit {
            // Others come first, or are here too.
            warp.park(warp.active, warp.pc);
            warp.regroup();
        }
        if env.counts.warp_issues >= end {
            return Ok(Stop::Turn);
        }
        let pc = warp.pc;
        let ins = &code.ins[pc as usize];
        let active = warp.active;
        env.counts.warp_issues += 1;
        env.counts.thread_instructions += u64::from(active.count_ones());
        if env.profile.is_some() {
            env.mark(pc as usize, active);
        }
        let mut exec = active;
        if ins.guard != NONE {
            let guard = ins.guard as usize;
            let missing = active & !warp.defined_p[guard];
            if missing != 0 {
                return Err(env.undefined_predicate(warp, ins, missing, ins.guard));
            }
            exec &= if ins.guard_not { !warp.p[guard] } else { warp.p[guard] };
            if ins.op != Op::Bra {
                env.counts.predicated_off += u64::from((active & !exec).count_ones());
                if exec == 0 {
                    warp.pc += 1;
                    continue;
                }
            }
        }
        match ins.op {
            Op::Bra => {
                let target = ins.imm as u32;
                let other = active & !exec;
                if other == 0 {
                    warp.pc = target;
                } else if exec == 0 {
                    warp.pc += 1;
                } else {
                    warp.park(exec, target);
                    warp.park(other, pc + 1);
                    warp.regroup();
                }
                continue;
            }
            Op::Brx | Op::Exit | Op::Trap | Op::Bar | Op::WarpSync | Op::Shfl | Op::Vote | Op::Match | Op::Redux => {
                if let Some(stop) = control(warp, env, ins, exec)? {
                    return Ok(stop);
                }
                continue;
            }
            Op::GridWait => warp.early &= !exec,
            Op::Ld => env.load(warp, ins, exec)?,
            Op::St => env.store(warp, ins, exec)?,
            Op::Atom => env.atomic(warp, ins, exec)?,
            Op::Mma => env.matrices(warp, ins, exec)?,
            _ => number(warp, env, ins, exec)?,
        }
        warp.pc += 1;
    }
}

/// Runs an instruction that changes the group. Returns None to continue.
#[inline(never)]
fn control(warp: &mut Warp, env: &mut Env, ins: &Ins, exec: u32) -> Result<Option<Stop>, Box<Fault>> {
    let next = warp.pc + 1;
    let rest = warp.active & !exec;
    match ins.op {
        Op::Exit => {
            env.not_early(warp, ins, exec, "ends")?;
            warp.live &= !exec;
            warp.active = rest;
            if rest != 0 {
                warp.pc = next;
                return Ok(None);
            }
        }
        Op::Trap => {
            return Err(env.fault(warp, ins, exec, FaultKind::Trap, None, "the kernel's own trap".into()));
        }
        Op::Brx => {
            let (index, defined) = warp.get(env.code, ins.r[0]);
            env.defined(warp, ins, exec, defined, ins.r[0])?;
            let table = &env.code.tables[ins.imm as usize];
            for lane in ones(exec) {
                let Some(&target) = table.get(index[lane] as usize) else {
                    let what = format!("branch index {} of {}", index[lane], table.len());
                    return Err(env.fault(warp, ins, 1 << lane, FaultKind::Trap, None, what));
                };
                warp.park(1 << lane, target);
            }
            warp.park(rest, next);
            warp.regroup();
            return Ok(None);
        }
        Op::Bar => {
            env.counts.collectives += 1;
            if !env.barrier(warp, ins, exec)? {
                return Ok(None);
            }
        }
        _ => {
            env.counts.collectives += 1;
            if env.collective(warp, ins, exec)? {
                return Ok(None);
            }
        }
    }
    if warp.regroup() {
        return Ok(None);
    }
    stop(warp, env).map(Some)
}

/// Decides what follows when the group is empty and nobody is parked.
#[inline(never)]
fn stop(warp: &mut Warp, env: &mut Env) -> Result<Stop, Box<Fault>> {
    if warp.live == 0 {
        return Ok(Stop::Exited);
    }
    if warp.waiting != 0 {
        return Err(env.stuck(warp));
    }
    env.arrive(warp)?;
    Ok(Stop::Held)
}
