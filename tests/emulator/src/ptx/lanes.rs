//! Operations on registers, 32 lanes at a time. The common ones are loops that the compiler turns into vector instructions;
//! the rest goes lane by lane through `alu`.

use super::alu;
use super::block::Env;
use super::ir::{Ins, NONE, Op, Slot, Ty, WIDE, logic};
use super::warp::Warp;
use crate::exec::{Fault, FaultKind, Relation, Style, ones};

type Done = Result<(), Box<Fault>>;

/// Operations on registers.
#[inline(always)]
pub(super) fn number(warp: &mut Warp, env: &mut Env, ins: &Ins, exec: u32) -> Done {
    let code = env.code;
    // Sources of the type's width, from slot 1; the second of a shift and the last of a field have 32 bits always.
    macro_rules! one {
        ($get:ident, $put:ident, $out:ty, |$a:ident| $f:expr) => {{
            let (a, defined) = warp.$get(code, ins.r[1]);
            if exec & !defined != 0 {
                return env.undefined(warp, ins, exec);
            }
            let mut out: [$out; 32] = [0; 32];
            for lane in 0..32 {
                let $a = a.0[lane];
                out[lane] = $f;
            }
            warp.$put(ins.r[0], exec, &out);
            Ok(())
        }};
    }
    macro_rules! two {
        ($get_a:ident, $get_b:ident, $put:ident, $out:ty, |$a:ident, $b:ident| $f:expr) => {{
            let (a, defined_a) = warp.$get_a(code, ins.r[1]);
            let (b, defined_b) = warp.$get_b(code, ins.r[2]);
            if exec & !(defined_a & defined_b) != 0 {
                return env.undefined(warp, ins, exec);
            }
            let mut out: [$out; 32] = [0; 32];
            for lane in 0..32 {
                let ($a, $b) = (a.0[lane], b.0[lane]);
                out[lane] = $f;
            }
            warp.$put(ins.r[0], exec, &out);
            Ok(())
        }};
    }
    macro_rules! three {
        ($get_ab:ident, $get_c:ident, $put:ident, $out:ty, |$a:ident, $b:ident, $c:ident| $f:expr) => {{
            let (a, defined_a) = warp.$get_ab(code, ins.r[1]);
            let (b, defined_b) = warp.$get_ab(code, ins.r[2]);
            let (c, defined_c) = warp.$get_c(code, ins.r[3]);
            if exec & !(defined_a & defined_b & defined_c) != 0 {
                return env.undefined(warp, ins, exec);
            }
            let mut out: [$out; 32] = [0; 32];
            for lane in 0..32 {
                let ($a, $b, $c) = (a.0[lane], b.0[lane], c.0[lane]);
                out[lane] = $f;
            }
            warp.$put(ins.r[0], exec, &out);
            Ok(())
        }};
    }
    macro_rules! float {
        (|$($name:ident = $bits:ident),*| $f:expr) => {{
            $(let $name = f32::from_bits($bits);)*
            alu::float($f) as u32
        }};
    }
    macro_rules! both_widths {
        (|$a:ident, $b:ident| $f:expr) => {
            match ins.ty {
                Ty::U32 | Ty::S32 => two!(get32, get32, put32, u32, |$a, $b| $f),
                Ty::U64 | Ty::S64 => two!(get64, get64, put64, u64, |$a, $b| $f),
                _ => slow(warp, env, ins, exec),
            }
        };
    }
    match ins.op {
        Op::Mov => match ins.ty {
            Ty::U64 | Ty::S64 => one!(get64, put64, u64, |a| a),
            _ => one!(get32, put32, u32, |a| a),
        },
        Op::Add => both_widths!(|a, b| a.wrapping_add(b)),
        Op::Sub => both_widths!(|a, b| a.wrapping_sub(b)),
        Op::FAdd if ins.sub == 0 => two!(get32, get32, put32, u32, |a, b| float!(|x = a, y = b| x + y)),
        Op::FSub if ins.sub == 0 => two!(get32, get32, put32, u32, |a, b| float!(|x = a, y = b| x - y)),
        Op::FMul if ins.sub == 0 => two!(get32, get32, put32, u32, |a, b| float!(|x = a, y = b| x * y)),
        Op::FFma if ins.sub == 0 => {
            three!(get32, get32, put32, u32, |a, b, c| float!(|x = a, y = b, z = c| x.mul_add(y, z)))
        }
        Op::MulLo => both_widths!(|a, b| a.wrapping_mul(b)),
        Op::And => both_widths!(|a, b| a & b),
        Op::Or => both_widths!(|a, b| a | b),
        Op::Xor => both_widths!(|a, b| a ^ b),
        Op::Min | Op::Max => {
            let min = ins.op == Op::Min;
            match (ins.ty, min) {
                (Ty::U32, true) => two!(get32, get32, put32, u32, |a, b| a.min(b)),
                (Ty::U32, false) => two!(get32, get32, put32, u32, |a, b| a.max(b)),
                (Ty::S32, true) => two!(get32, get32, put32, u32, |a, b| (a as i32).min(b as i32) as u32),
                (Ty::S32, false) => two!(get32, get32, put32, u32, |a, b| (a as i32).max(b as i32) as u32),
                _ => slow(warp, env, ins, exec),
            }
        }
        Op::Not if ins.ty.bits() == 32 => one!(get32, put32, u32, |a| !a),
        Op::Neg if ins.ty.bits() == 32 => one!(get32, put32, u32, |a| a.wrapping_neg()),
        Op::MulWide if ins.ty == Ty::U32 => two!(get32, get32, put64, u64, |a, b| u64::from(a) * u64::from(b)),
        Op::MulWide if ins.ty == Ty::S32 => {
            two!(get32, get32, put64, u64, |a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64)
        }
        Op::MadLo if ins.ty.bits() == 32 => {
            three!(get32, get32, put32, u32, |a, b, c| a.wrapping_mul(b).wrapping_add(c))
        }
        Op::MadWide if ins.ty == Ty::U32 => {
            three!(get32, get64, put64, u64, |a, b, c| (u64::from(a) * u64::from(b)).wrapping_add(c))
        }
        Op::Shl => match ins.ty {
            Ty::U32 | Ty::S32 => two!(get32, get32, put32, u32, |a, b| if b < 32 { a << (b & 31) } else { 0 }),
            Ty::U64 | Ty::S64 => two!(get64, get32, put64, u64, |a, b| if b < 64 { a << (b & 63) } else { 0 }),
            _ => slow(warp, env, ins, exec),
        },
        Op::Shr => match ins.ty {
            Ty::U32 => two!(get32, get32, put32, u32, |a, b| if b < 32 { a >> (b & 31) } else { 0 }),
            Ty::S32 => two!(get32, get32, put32, u32, |a, b| (a as i32 >> b.min(31)) as u32),
            Ty::U64 => two!(get64, get32, put64, u64, |a, b| if b < 64 { a >> (b & 63) } else { 0 }),
            _ => slow(warp, env, ins, exec),
        },
        Op::ShfL if ins.sub == 0 => three!(get32, get32, put32, u32, |a, b, c| {
            (((u64::from(b) << 32 | u64::from(a)) << (c & 31)) >> 32) as u32
        }),
        Op::ShfL => three!(get32, get32, put32, u32, |a, b, c| {
            (((u64::from(b) << 32 | u64::from(a)) << c.min(32)) >> 32) as u32
        }),
        Op::ShfR if ins.sub == 0 => {
            three!(get32, get32, put32, u32, |a, b, c| ((u64::from(b) << 32 | u64::from(a)) >> (c & 31)) as u32)
        }
        Op::ShfR => {
            three!(get32, get32, put32, u32, |a, b, c| ((u64::from(b) << 32 | u64::from(a)) >> c.min(32)) as u32)
        }
        Op::Lop3 => {
            let table = ins.imm;
            three!(get32, get32, put32, u32, |a, b, c| alu::lop3(a, b, c, table))
        }
        Op::PrmtConst => {
            // Every nibble: where the byte is, and what spreads its sign.
            let selector = ins.imm as u32;
            two!(get32, get32, put32, u32, |a, b| {
                let mut word = 0;
                let mut at = 0;
                while at < 4 {
                    let nibble = selector >> (4 * at);
                    let from = if nibble & 4 == 0 { a } else { b };
                    let byte = from >> (8 * (nibble & 3)) & 0xff;
                    let sign = (byte >> 7).wrapping_mul(0xff);
                    word |= (if nibble & 8 == 0 { byte } else { sign }) << (8 * at);
                    at += 1;
                }
                word
            })
        }
        Op::Selp => {
            let p = warp.p[ins.r[3] as usize];
            let pick = if ins.not { !p } else { p };
            if exec & !warp.defined_p[ins.r[3] as usize] != 0 {
                return env.undefined(warp, ins, exec);
            }
            if ins.ty.bits() == 64 {
                let (a, defined_a) = warp.get64(code, ins.r[1]);
                let (b, defined_b) = warp.get64(code, ins.r[2]);
                if exec & (pick & !defined_a | !pick & !defined_b) != 0 {
                    return env.undefined(warp, ins, exec);
                }
                let mut out = [0; 32];
                for (lane, out) in out.iter_mut().enumerate() {
                    let mask = u64::from(pick >> lane & 1).wrapping_neg();
                    *out = a.0[lane] & mask | b.0[lane] & !mask;
                }
                warp.put64(ins.r[0], exec, &out);
            } else {
                let (a, defined_a) = warp.get32(code, ins.r[1]);
                let (b, defined_b) = warp.get32(code, ins.r[2]);
                if exec & (pick & !defined_a | !pick & !defined_b) != 0 {
                    return env.undefined(warp, ins, exec);
                }
                let mut out = [0; 32];
                for (lane, out) in out.iter_mut().enumerate() {
                    let mask = (pick >> lane & 1).wrapping_neg();
                    *out = a.0[lane] & mask | b.0[lane] & !mask;
                }
                warp.put32(ins.r[0], exec, &out);
            }
            Ok(())
        }
        Op::Setp | Op::Set | Op::FSetp => compare(warp, env, ins, exec),
        Op::Cvt if ins.sub == 0 => match (ins.to, ins.ty, ins.r[0] & WIDE != 0, ins.r[1] & WIDE != 0) {
            (Ty::U64 | Ty::S64, Ty::U32, true, false) => one!(get32, put64, u64, |a| a.into()),
            (Ty::U64 | Ty::S64, Ty::S32, true, false) => one!(get32, put64, u64, |a| a as i32 as i64 as u64),
            (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64, false, true) => one!(get64, put32, u32, |a| a as u32),
            (Ty::U32 | Ty::S32, Ty::U16, false, false) => one!(get32, put32, u32, |a| a & 0xffff),
            (Ty::U16, Ty::U32, false, false) => one!(get32, put32, u32, |a| a & 0xffff),
            _ => slow(warp, env, ins, exec),
        },
        Op::PredLogic => {
            let (a, b) = (ins.r[1] as usize, ins.r[2] as usize);
            let (value, defined) = match ins.sub {
                logic::NOT => (!warp.p[a], warp.defined_p[a]),
                sub => {
                    let (x, y) = (warp.p[a], warp.p[b]);
                    let value = match sub {
                        logic::AND => x & y,
                        logic::OR => x | y,
                        _ => x ^ y,
                    };
                    (value, warp.defined_p[a] & warp.defined_p[b])
                }
            };
            if exec & !defined != 0 {
                return env.undefined(warp, ins, exec);
            }
            warp.put_pred(ins.r[0], exec, value);
            Ok(())
        }
        _ => slow(warp, env, ins, exec),
    }
}

/// Runs `setp` and `set`.
#[inline(always)]
fn compare(warp: &mut Warp, env: &mut Env, ins: &Ins, exec: u32) -> Done {
    use super::ir::compare::*;
    let code = env.code;
    macro_rules! mask {
        ($get:ident, |$a:ident, $b:ident| $f:expr) => {{
            let (a, defined_a) = warp.$get(code, ins.r[2]);
            let (b, defined_b) = warp.$get(code, ins.r[3]);
            if exec & !(defined_a & defined_b) != 0 {
                return env.undefined(warp, ins, exec);
            }
            let mut mask = 0u32;
            for lane in 0..32 {
                let ($a, $b) = (a.0[lane], b.0[lane]);
                mask |= u32::from($f) << lane;
            }
            mask
        }};
    }
    // Six comparisons are three and their negations.
    let (kind, negate) = match ins.sub {
        _ if ins.op == Op::FSetp => (EQ, false),
        EQ => (EQ, false),
        NE => (EQ, true),
        LT => (LT, false),
        GE => (LT, true),
        GT => (GT, false),
        _ => (GT, true),
    };
    let mut mask = match (ins.ty, kind) {
        _ if ins.op == Op::FSetp => {
            let style = Style { flush: ins.imm == 1, ..Style::PLAIN };
            let float = |bits: u32| style.operand(f32::from_bits(bits));
            mask!(get32, |a, b| Relation::holds(ins.sub, float(a), float(b)))
        }
        (Ty::U32 | Ty::S32, EQ) => mask!(get32, |a, b| a == b),
        (Ty::U32, LT) => mask!(get32, |a, b| a < b),
        (Ty::U32, _) => mask!(get32, |a, b| a > b),
        (Ty::S32, LT) => mask!(get32, |a, b| (a as i32) < b as i32),
        (Ty::S32, _) => mask!(get32, |a, b| a as i32 > b as i32),
        (Ty::U64 | Ty::S64, EQ) => mask!(get64, |a, b| a == b),
        (Ty::U64, LT) => mask!(get64, |a, b| a < b),
        (Ty::U64, _) => mask!(get64, |a, b| a > b),
        (Ty::S64, LT) => mask!(get64, |a, b| (a as i64) < b as i64),
        (Ty::S64, _) => mask!(get64, |a, b| a as i64 > b as i64),
        (ty, _) => mask!(get32, |a, b| alu::compares(kind, a.into(), b.into(), ty)),
    };
    if negate {
        mask = !mask;
    }
    let mut other = !mask;
    if ins.mode != 0 {
        let c = ins.r[4] as usize;
        if exec & !warp.defined_p[c] != 0 {
            return env.undefined(warp, ins, exec);
        }
        let c = if ins.not { !warp.p[c] } else { warp.p[c] };
        let join = |x: u32| match ins.mode {
            logic::AND => x & c,
            logic::OR => x | c,
            _ => x ^ c,
        };
        (mask, other) = (join(mask), join(other));
    }
    if ins.op != Op::Set {
        warp.put_pred(ins.r[0], exec, mask);
        warp.put_pred(ins.r[1], exec, other);
    } else {
        let mut out = [0; 32];
        for (lane, out) in out.iter_mut().enumerate() {
            *out = (mask >> lane & 1).wrapping_neg();
        }
        warp.put32(ins.r[0], exec, &out);
    }
    Ok(())
}

/// Runs all rare instructions, one lane at a time.
#[inline(never)]
fn slow(warp: &mut Warp, env: &mut Env, ins: &Ins, exec: u32) -> Done {
    let code = env.code;
    match ins.op {
        Op::Nop => return Ok(()),
        Op::Fence => {
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            return Ok(());
        }
        Op::ActiveMask => {
            warp.put32(ins.r[0], exec, &[exec; 32]);
            return Ok(());
        }
        Op::Clock => {
            warp.put(ins.r[0], exec, &[env.counts.warp_issues; 32]);
            return Ok(());
        }
        Op::PredMov => {
            let (value, defined) = match ins.r[1] {
                NONE => (u32::from(ins.sub).wrapping_neg(), u32::MAX),
                slot => (warp.p[slot as usize] ^ u32::from(ins.not).wrapping_neg(), warp.defined_p[slot as usize]),
            };
            if exec & !defined != 0 {
                return env.undefined(warp, ins, exec);
            }
            warp.put_pred(ins.r[0], exec, value);
            return Ok(());
        }
        Op::Unpack => {
            let (whole, defined) = warp.get(code, ins.r[0]);
            env.defined(warp, ins, exec, defined, ins.r[0])?;
            let bits = ins.ty.bits();
            for at in 0..u32::from(ins.sub) {
                let slot = ins.r[1 + at as usize];
                if slot != NONE {
                    warp.put(slot, exec, &whole.map(|value| ins.ty.extend(value >> (bits * at))));
                }
            }
            return Ok(());
        }
        Op::Pack => {
            let mut whole = [0; 32];
            for at in 0..u32::from(ins.sub) {
                let slot = ins.r[1 + at as usize];
                let (part, defined) = warp.get(code, slot);
                env.defined(warp, ins, exec, defined, slot)?;
                for (whole, part) in whole.iter_mut().zip(part) {
                    *whole |= ins.ty.extend(part) << (ins.ty.bits() * at);
                }
            }
            warp.put(ins.r[0], exec, &whole);
            return Ok(());
        }
        Op::IsSpace => {
            let (address, defined) = warp.get(code, ins.r[1]);
            env.defined(warp, ins, exec, defined, ins.r[1])?;
            let mut mask = 0;
            for (lane, &address) in address.iter().enumerate() {
                mask |= u32::from(env.space_of(address) == ins.space) << lane;
            }
            warp.put_pred(ins.r[0], exec, mask);
            return Ok(());
        }
        _ => {}
    }
    let mut sources = [[0; 32]; 4];
    for at in 1..5 {
        let slot: Slot = ins.r[at];
        let (values, defined) = warp.get(code, slot);
        if slot != NONE {
            env.defined(warp, ins, exec, defined, slot)?;
        }
        sources[at - 1] = values;
    }
    let mut out = [0; 32];
    if ins.op == Op::Carry {
        if ins.sub & super::ir::carry::IN != 0 && exec & !warp.defined_carry != 0 {
            let what = "reads the carry before anything wrote it".into();
            let lanes = exec & !warp.defined_carry;
            return Err(env.fault(warp, ins, lanes, FaultKind::UninitialisedRegister, None, what));
        }
        for lane in ones(exec) {
            let abc = [sources[0][lane], sources[1][lane], sources[2][lane]];
            let (value, carry) = alu::with_carry(ins, abc, warp.carry >> lane & 1 == 1);
            out[lane] = value;
            if ins.sub & super::ir::carry::OUT != 0 {
                warp.carry = warp.carry & !(1 << lane) | u32::from(carry) << lane;
                warp.defined_carry |= 1 << lane;
            }
        }
    } else {
        for lane in ones(exec) {
            out[lane] = alu::scalar(ins, std::array::from_fn(|at| sources[at][lane]));
        }
    }
    warp.put(ins.r[0], exec, &out);
    Ok(())
}

#[cfg(test)]
mod tests;
