//! A warp at work: the loop over its instructions, operations on numbers, and what moves lanes about.

use super::alu::{self, Funnel};
use super::block::Env;
use super::ir::{Ins, Join, Op, Special};
use super::warp::{Group, Wait, Warp};
use crate::exec::{Fault, FaultKind, Relation, Style, ones, round, to_integer, whole};

/// The reason why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Exited,
    /// At a barrier of the block, see [`Warp::held`].
    Held,
    /// It has run long enough for now.
    Turn,
}

type Done = Result<(), Box<Fault>>;

/// Runs a warp until it stops.
pub(super) fn run(warp: &mut Warp, env: &mut Env, turn: u64) -> Result<Stop, Box<Fault>> {
    let end = env.counts.warp_issues + turn;
    loop {
        let Some(&Group { lanes, pc }) = warp.groups.last() else { return stop(warp, env) };
        if env.counts.warp_issues >= end {
            return Ok(Stop::Turn);
        }
        let ins = env.ins(pc);
        let exec = lanes & env.test(warp, pc, ins.guard, lanes)?;
        env.counts.warp_issues += 1;
        env.counts.thread_instructions += u64::from(lanes.count_ones());
        env.counts.predicated_off += u64::from((lanes & !exec).count_ones());
        let before = env.counts.traffic();
        if exec == 0 {
            warp.advance(pc + 1);
        } else {
            match ins.op {
                Op::Load(_) | Op::Store(_) | Op::Atomic { .. } | Op::LoadConstant { .. } => {
                    env.access(warp, pc, ins, exec)?;
                    warp.advance(pc + 1);
                }
                Op::Shuffle(_) | Op::Vote(_) | Op::Reduce { .. } | Op::ToUniform | Op::Matrices => {
                    env.counts.collectives += 1;
                    env.collective(warp, pc, ins, exec)?;
                    warp.advance(pc + 1);
                }
                Op::Branch
                | Op::BranchDivergent
                | Op::BranchConvergent
                | Op::Meet { .. }
                | Op::Await { .. }
                | Op::Leave { .. }
                | Op::Forget { .. }
                | Op::WarpSync { .. }
                | Op::Call
                | Op::Return
                | Op::Exit
                | Op::BlockSync => control(warp, env, pc, ins, (lanes, exec))?,
                _ => {
                    number(warp, env, pc, ins, if ins.uniform { u32::MAX } else { exec })?;
                    warp.advance(pc + 1);
                }
            }
        }
        let after = env.counts.traffic();
        if let Some(profile) = &mut env.profile {
            let counts = &mut profile[pc as usize];
            counts.issues += 1;
            counts.threads += u64::from(lanes.count_ones());
            counts.sectors += after.0 - before.0;
            counts.wavefronts += after.1 - before.1;
        }
    }
}

/// Decides what follows when no group is left.
fn stop(warp: &mut Warp, env: &mut Env) -> Result<Stop, Box<Fault>> {
    if warp.live == 0 {
        return Ok(Stop::Exited);
    }
    if warp.waiting != 0 {
        let lane = warp.waiting.trailing_zeros() as usize;
        let (wait, pc) = warp.waits[lane];
        let missing = match wait {
            Wait::Meet { barrier } => warp.barriers[usize::from(barrier)][lane] & warp.live,
            Wait::Sync { mask } => mask,
            Wait::All => warp.live,
        };
        let what = format!(
            "waits for lanes {missing:#010x}, which cannot come: {:#010x} wait, {:#010x} are at the block's barrier",
            warp.waiting, warp.at_barrier
        );
        return Err(env.fault(warp, pc, warp.waiting, FaultKind::WarpMask, None, what));
    }
    env.arrive(warp)?;
    Ok(Stop::Held)
}

/// Runs an instruction that changes the group. `lanes` reached it, `exec` run it.
fn control(warp: &mut Warp, env: &mut Env, pc: u32, ins: &Ins, (lanes, exec): (u32, u32)) -> Done {
    match ins.op {
        Op::Branch | Op::BranchDivergent | Op::BranchConvergent => {
            let taken = if ins.op == Op::Branch {
                exec & env.test(warp, pc, ins.tests[0], exec)?
            } else {
                let together = env.one(warp, pc, &ins.src[0], exec)? & warp.live & !lanes == 0;
                if together == (ins.op == Op::BranchConvergent) { exec } else { 0 }
            };
            let other = lanes & !taken;
            if other == 0 {
                warp.advance(ins.target);
            } else if taken == 0 {
                warp.advance(pc + 1);
            } else {
                warp.groups.pop();
                warp.groups.push(Group { lanes: taken, pc: ins.target });
                warp.groups.push(Group { lanes: other, pc: pc + 1 });
            }
        }
        Op::Meet { barrier } => {
            warp.meet(barrier, exec);
            warp.advance(pc + 1);
        }
        Op::Await { barrier } => warp.wait(exec, Wait::Meet { barrier }, pc),
        Op::Leave { barrier } => {
            warp.advance(pc + 1);
            warp.leave(barrier, exec);
        }
        Op::Forget { barrier } => {
            for lane in ones(exec) {
                warp.barriers[usize::from(barrier)][lane] = 0;
            }
            warp.advance(pc + 1);
        }
        Op::WarpSync { all } => {
            env.counts.collectives += 1;
            let mask = if all { warp.live } else { env.one(warp, pc, &ins.src[0], exec)? };
            let gone = mask & !warp.live;
            if gone != 0 || exec & !mask != 0 {
                let what = format!(
                    "the mask {mask:#010x} names lanes {gone:#010x} that have exited, or not all of {exec:#010x} that run it"
                );
                return Err(env.fault(warp, pc, exec, FaultKind::WarpMask, None, what));
            }
            warp.wait(exec, if all { Wait::All } else { Wait::Sync { mask } }, pc);
        }
        Op::Call => warp.advance(ins.target),
        Op::Return => {
            let to = env.wide(warp, pc, &ins.src[0], exec)?;
            let first = to[exec.trailing_zeros() as usize];
            let known = first.is_multiple_of(16) && first / 16 < env.function.code.len() as u64;
            if !known || ones(lanes).any(|lane| to[lane] != first) || exec != lanes {
                let what = format!("a return to {first:#x}, or to several places");
                return Err(env.fault(warp, pc, exec, FaultKind::Trap, Some(first), what));
            }
            warp.advance((first / 16) as u32);
        }
        Op::Exit => warp.exit(exec),
        _ => {
            env.counts.collectives += 1;
            warp.part(exec);
            for lane in ones(exec) {
                warp.barrier_pc[lane] = pc;
            }
            warp.at_barrier |= exec;
        }
    }
    Ok(())
}

/// Runs an operation on registers and predicates. `exec` are the lanes whose results are kept.
fn number(warp: &mut Warp, env: &Env, pc: u32, ins: &Ins, exec: u32) -> Done {
    let lane_of = |of: &dyn Fn(usize) -> u32| -> [u32; 32] { std::array::from_fn(of) };
    let source = |warp: &Warp, at: usize| env.number(warp, pc, &ins.src[at], exec);
    let wide = |warp: &Warp, at: usize| env.wide(warp, pc, &ins.src[at], exec);
    let float = |warp: &Warp, at: usize| env.float(warp, pc, &ins.src[at], exec);
    let test = |warp: &Warp, at: usize| env.test(warp, pc, ins.tests[at], exec);
    let mask = |of: &dyn Fn(usize) -> bool| (0..32).fold(0u32, |mask, lane| mask | u32::from(of(lane)) << lane);
    let bit = |mask: u32, lane: usize| mask >> lane & 1;
    match ins.op {
        Op::Nop => {}
        Op::Mad => {
            let (a, b, c, carry) = (source(warp, 0)?, source(warp, 1)?, source(warp, 2)?, test(warp, 0)?);
            let of = |lane: usize| a[lane].wrapping_mul(b[lane]).wrapping_add(c[lane]).wrapping_add(bit(carry, lane));
            warp.put(ins.dst, exec, &lane_of(&of));
        }
        Op::MadWide { signed } | Op::MadHigh { signed } => {
            let (a, b, c, carry) = (source(warp, 0)?, source(warp, 1)?, wide(warp, 2)?, test(warp, 0)?);
            let sums: [u128; 32] = std::array::from_fn(|lane| {
                let product = if signed {
                    (i64::from(a[lane] as i32) * i64::from(b[lane] as i32)) as u64
                } else {
                    u64::from(a[lane]) * u64::from(b[lane])
                };
                u128::from(product) + u128::from(c[lane]) + u128::from(bit(carry, lane))
            });
            if matches!(ins.op, Op::MadWide { .. }) {
                warp.put_wide(ins.dst, exec, &sums.map(|sum| sum as u64));
                warp.put_bit(ins.bits[0], exec, mask(&|lane| sums[lane] >> 64 != 0));
            } else {
                warp.put(ins.dst, exec, &sums.map(|sum| (sum >> 32) as u32));
            }
        }
        Op::Add => {
            let raw = |at: usize| env.raw(warp, pc, &ins.src[at], exec);
            let terms = [raw(0)?, raw(1)?, raw(2)?];
            let carries = [test(warp, 0)?, test(warp, 1)?];
            let sums: [(u32, u32); 32] = std::array::from_fn(|lane| {
                let term = |at: usize| (terms[at][lane], ins.src[at].negative, ins.src[at].inverted);
                alu::add([term(0), term(1), term(2)], bit(carries[0], lane) + bit(carries[1], lane))
            });
            warp.put(ins.dst, exec, &sums.map(|sum| sum.0));
            warp.put_bit(ins.bits[0], exec, mask(&|lane| sums[lane].1 >= 1));
            warp.put_bit(ins.bits[1], exec, mask(&|lane| sums[lane].1 >= 2));
        }
        Op::Add64 => {
            let (a, b, c) = (wide(warp, 0)?, wide(warp, 1)?, wide(warp, 2)?);
            let sums = std::array::from_fn(|lane: usize| a[lane].wrapping_add(b[lane]).wrapping_add(c[lane]));
            warp.put_wide(ins.dst, exec, &sums);
        }
        Op::Compare { compare, wide: is_wide, signed, join, extended } => {
            let with = test(warp, 0)?;
            // Compilers compare what was never written where the other predicate decides.
            let exec_compared = match join {
                Join::And => exec & with,
                Join::Or => exec & !with,
                Join::Xor => exec,
            };
            let (mut a, mut b) = ([0i128; 32], [0i128; 32]);
            for (at, values) in [(0, &mut a), (1, &mut b)] {
                let source = |at: usize| env.number(warp, pc, &ins.src[at], exec_compared);
                let wide = |at: usize| env.wide(warp, pc, &ins.src[at], exec_compared);
                *values = match (is_wide, signed) {
                    (false, false) => source(at)?.map(i128::from),
                    (false, true) => source(at)?.map(|value| i128::from(value as i32)),
                    (true, false) => wide(at)?.map(i128::from),
                    (true, true) => wide(at)?.map(|value| i128::from(value as i64)),
                };
            }
            let lower = if extended { Some(env.test(warp, pc, ins.tests[1], exec_compared)?) } else { None };
            let results = mask(&|lane| {
                let lower = lower.map(|lower| bit(lower, lane) == 1);
                alu::compare(compare, a[lane] < b[lane], a[lane] == b[lane], lower)
            });
            for (bit_at, results) in [(1, !results), (0, results)] {
                let joined = mask(&|lane| alu::join(join, bit(results, lane) == 1, bit(with, lane) == 1));
                warp.put_bit(ins.bits[bit_at], exec, joined);
            }
        }
        Op::CompareFloat { relation, flush, join } => {
            let (a, b, with) = (float(warp, 0)?, float(warp, 1)?, test(warp, 0)?);
            let style = Style { flush, ..Style::PLAIN };
            let results =
                mask(&|lane| Relation::holds(relation.bits(), style.operand(a[lane]), style.operand(b[lane])));
            for (bit_at, results) in [(1, !results), (0, results)] {
                let joined = mask(&|lane| alu::join(join, bit(results, lane) == 1, bit(with, lane) == 1));
                warp.put_bit(ins.bits[bit_at], exec, joined);
            }
        }
        Op::Logic { table } => {
            let a = if ins.changes_one_bit() { env.number(warp, pc, &ins.src[0], 0)? } else { source(warp, 0)? };
            let (b, c) = (source(warp, 1)?, source(warp, 2)?);
            let out = lane_of(&|lane| alu::logic(table, a[lane], b[lane], c[lane]));
            warp.put(ins.dst, exec, &out);
            warp.put_bit(ins.bits[0], exec, mask(&|lane| out[lane] != 0));
        }
        Op::LogicBits { tables } => {
            let (a, b, c) = (test(warp, 0)?, test(warp, 1)?, test(warp, 2)?);
            for (bit, table) in ins.bits.into_iter().zip(tables) {
                warp.put_bit(bit, exec, alu::logic(table, a, b, c));
            }
        }
        Op::Permute => {
            let selectors = source(warp, 1)?;
            // A number of 16 bits leaves the upper half of its register to whatever was there. Only what gives bytes to the
            // lower half must have been written.
            let used = |at: u32| exec & mask(&|lane| [0, 4].iter().any(|by| selectors[lane] >> by >> 2 & 1 == at));
            let a = env.number(warp, pc, &ins.src[0], used(0))?;
            let c = env.number(warp, pc, &ins.src[2], used(1))?;
            warp.put(ins.dst, exec, &lane_of(&|lane| alu::permute(a[lane], selectors[lane], c[lane])));
        }
        Op::FromBits => {
            let (a, kept) = (source(warp, 0)?, source(warp, 1)?);
            // Predicates that nobody wrote may be saved with others, and are what they are.
            let of = |lane: usize| {
                let bits = (0..7).fold(0, |bits, at| bits | bit(warp.bits[at], lane) << at);
                bits & kept[lane] | a[lane] & !kept[lane]
            };
            let values = lane_of(&of);
            warp.put(ins.dst, exec, &values);
        }
        Op::ToBits => {
            let (a, kept) = (source(warp, 0)?, source(warp, 1)?);
            for at in 0..7 {
                let chosen = mask(&|lane| kept[lane] >> at & 1 == 1);
                warp.put_bit(at, exec & chosen, mask(&|lane| a[lane] >> at & 1 == 1));
            }
        }
        Op::Select => {
            let picked = test(warp, 0)?;
            let a = env.number(warp, pc, &ins.src[0], exec & picked)?;
            let b = env.number(warp, pc, &ins.src[1], exec & !picked)?;
            warp.put(ins.dst, exec, &lane_of(&|lane| if bit(picked, lane) == 1 { a[lane] } else { b[lane] }));
        }
        Op::SelectFloat => {
            let picked = test(warp, 0)?;
            let a = env.float(warp, pc, &ins.src[0], exec & picked)?;
            let b = env.float(warp, pc, &ins.src[1], exec & !picked)?;
            let of = |lane: usize| if bit(picked, lane) == 1 { a[lane] } else { b[lane] };
            warp.put(ins.dst, exec, &lane_of(&|lane| of(lane).to_bits()));
        }
        Op::Select64 => {
            let picked = test(warp, 0)?;
            let a = env.wide(warp, pc, &ins.src[0], exec & picked)?;
            let b = env.wide(warp, pc, &ins.src[1], exec & !picked)?;
            let of = |lane| if bit(picked, lane) == 1 { a[lane] } else { b[lane] };
            warp.put_wide(ins.dst, exec, &std::array::from_fn(of));
        }
        Op::Shift { left, wide, signed, wrap, high } => {
            let (a, b, c) = (source(warp, 0)?, source(warp, 1)?, source(warp, 2)?);
            let way = Funnel { left, wide, signed, wrap, high };
            warp.put(ins.dst, exec, &lane_of(&|lane| alu::shift(way, a[lane], b[lane], c[lane])));
        }
        Op::ShiftAdd { shift } => {
            let a = env.raw(warp, pc, &ins.src[0], exec)?;
            let b = env.raw(warp, pc, &ins.src[1], exec)?;
            let sums: [(u32, u32); 32] = std::array::from_fn(|lane| {
                let shifted = (a[lane] << shift, ins.src[0].negative, false);
                alu::add([shifted, (b[lane], ins.src[1].negative, false), (0, false, false)], 0)
            });
            warp.put(ins.dst, exec, &sums.map(|sum| sum.0));
            warp.put_bit(ins.bits[0], exec, mask(&|lane| sums[lane].1 != 0));
        }
        Op::ShiftAddHigh { shift, extend } => {
            let (a, b, c, carry) = (source(warp, 0)?, source(warp, 1)?, source(warp, 2)?, test(warp, 0)?);
            let sums: [u64; 32] = std::array::from_fn(|lane| {
                let upper = if extend { (a[lane] as i32 >> 31) as u32 } else { c[lane] };
                let both = u64::from(a[lane]) | u64::from(upper) << 32;
                u64::from((both << shift >> 32) as u32) + u64::from(b[lane]) + u64::from(bit(carry, lane))
            });
            warp.put(ins.dst, exec, &sums.map(|sum| sum as u32));
            warp.put_bit(ins.bits[0], exec, mask(&|lane| sums[lane] >> 32 != 0));
        }
        Op::MinMax { signed } | Op::AddMinMax { signed } => {
            let (mut a, mut b, least) = (source(warp, 0)?, source(warp, 1)?, test(warp, 0)?);
            if matches!(ins.op, Op::AddMinMax { .. }) {
                (a, b) = (lane_of(&|lane| a[lane].wrapping_add(b[lane])), source(warp, 2)?);
            }
            let of = |lane: usize| {
                let (a, b) = (a[lane], b[lane]);
                let less = if signed { (a as i32) < b as i32 } else { a < b };
                if less == (bit(least, lane) == 1) { a } else { b }
            };
            warp.put(ins.dst, exec, &lane_of(&of));
        }
        Op::MinMax64 { signed } => {
            let (a, b, least) = (wide(warp, 0)?, wide(warp, 1)?, test(warp, 0)?);
            let of = |lane: usize| {
                let (a, b) = (a[lane], b[lane]);
                let less = if signed { (a as i64) < b as i64 } else { a < b };
                if less == (bit(least, lane) == 1) { a } else { b }
            };
            warp.put_wide(ins.dst, exec, &std::array::from_fn(of));
        }
        Op::Move => {
            let a = source(warp, 0)?;
            warp.put(ins.dst, exec, &a);
        }
        Op::Move64 => {
            let a = wide(warp, 0)?;
            warp.put_wide(ins.dst, exec, &a);
        }
        Op::Special(special) => {
            let values = lane_of(&|lane| value_of(env, warp, special, lane));
            warp.put(ins.dst, exec, &values);
        }
        Op::Special64(special) => {
            let values = std::array::from_fn(|lane| value_of(env, warp, special, lane).into());
            warp.put_wide(ins.dst, exec, &values);
        }
        Op::CountOnes => {
            let a = source(warp, 0)?;
            warp.put(ins.dst, exec, &a.map(u32::count_ones));
        }
        Op::FindHighest { signed, shift } => {
            let a = source(warp, 0)?;
            let of = |value: u32| {
                let value = if signed && (value as i32) < 0 { !value } else { value };
                match value.checked_ilog2() {
                    None => u32::MAX,
                    Some(at) => {
                        if shift {
                            31 - at
                        } else {
                            at
                        }
                    }
                }
            };
            warp.put(ins.dst, exec, &a.map(of));
        }
        Op::Reverse => {
            let a = source(warp, 0)?;
            warp.put(ins.dst, exec, &a.map(u32::reverse_bits));
        }
        Op::FloatAdd(style) => {
            let (a, b) = (float(warp, 0)?, float(warp, 1)?);
            warp.put(ins.dst, exec, &lane_of(&|lane| style.add(a[lane], b[lane])));
        }
        Op::FloatMultiply(style) => {
            let (a, b) = (float(warp, 0)?, float(warp, 1)?);
            warp.put(ins.dst, exec, &lane_of(&|lane| style.multiply(a[lane], b[lane])));
        }
        Op::FloatFused(style) => {
            let (a, b, c) = (float(warp, 0)?, float(warp, 1)?, float(warp, 2)?);
            warp.put(ins.dst, exec, &lane_of(&|lane| style.fused(a[lane], b[lane], c[lane])));
        }
        Op::FloatExtreme { flush, nan } => {
            let (a, b, least) = (float(warp, 0)?, float(warp, 1)?, test(warp, 0)?);
            let style = Style { flush, ..Style::PLAIN };
            let of = |lane: usize| style.extreme(a[lane], b[lane], bit(least, lane) == 1, nan);
            warp.put(ins.dst, exec, &lane_of(&of));
        }
        Op::Function(function) => {
            let a = float(warp, 0)?;
            warp.put(ins.dst, exec, &a.map(|value| function.of_unit(value)));
        }
        Op::FloatWhole(style) => {
            let a = float(warp, 0)?;
            let of = |value: f32| style.result(whole(style.operand(value).into(), style.rounding) as f32);
            warp.put(ins.dst, exec, &a.map(of));
        }
        Op::Narrow { format, rounding, single } => {
            let (a, b) = (float(warp, 0)?, float(warp, 1)?);
            let style = Style { rounding, ..Style::PLAIN };
            let half = |value: f32| format.narrow(value.into(), style) as u32;
            let of = |lane: usize| if single { half(a[lane]) } else { half(a[lane]) << 16 | half(b[lane]) };
            warp.put(ins.dst, exec, &lane_of(&of));
        }
        Op::CheckDivision => {
            let (a, b) = (float(warp, 0)?, float(warp, 1)?);
            warp.put_bit(ins.bits[0], exec, mask(&|lane| alu::division_is_hard(a[lane], b[lane])));
        }
        Op::IntegerToFloat { bits, signed, rounding } => {
            let a = source(warp, 0)?;
            let of = |value: u32| {
                let left = value << (32 - bits);
                let value = if signed { f64::from(left as i32 >> (32 - bits)) } else { f64::from(left >> (32 - bits)) };
                round(value, rounding).to_bits()
            };
            warp.put(ins.dst, exec, &a.map(of));
        }
        Op::FloatToInteger { signed, rounding, flush } => {
            let a = float(warp, 0)?;
            let style = Style { flush, ..Style::PLAIN };
            let of = |value: f32| to_integer(style.operand(value).into(), 32, signed, rounding, false) as u32;
            warp.put(ins.dst, exec, &a.map(of));
        }
        _ => unreachable!("{:?} is no operation on numbers", ins.op),
    }
    Ok(())
}

fn value_of(env: &Env, warp: &Warp, special: Special, lane: usize) -> u32 {
    let lane = lane as u32;
    match special {
        Special::Thread(axis) => env.geometry.thread(32 * warp.index + lane)[usize::from(axis)],
        Special::Block(axis) => env.geometry.at[usize::from(axis)],
        Special::Lane => lane,
        Special::LanesBelow => (1 << lane) - 1,
        Special::LaneBit => 1 << lane,
        Special::Zero => 0,
    }
}
