//! Operations on registers, 32 lanes at a time. The common ones are loops that the compiler turns into vector instructions;
//! the rest goes lane by lane through `alu`.

use super::alu;
use super::block::Env;
use super::fault::{Fault, FaultKind};
use super::ir::{Ins, NONE, Op, Slot, Ty, WIDE, logic};
use super::warp::{Warp, ones};

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
        Op::Setp | Op::Set => compare(warp, env, ins, exec),
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

/// `setp` and `set`.
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
        EQ => (EQ, false),
        NE => (EQ, true),
        LT => (LT, false),
        GE => (LT, true),
        GT => (GT, false),
        _ => (GT, true),
    };
    let mut mask = match (ins.ty, kind) {
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
    if ins.op == Op::Setp {
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

/// Everything that is rare, one lane at a time.
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
mod tests {
    use super::super::Module;
    use super::super::warp::Geometry;
    use super::*;

    /// Every operation that has a fast form, in all types that it has.
    fn kernel() -> String {
        let mut text = String::from(".version 8.0\n.target sm_75\n.address_size 64\n.entry k() {\n.reg .b16 %h<4>; ");
        text += ".reg .b32 %r<5>; .reg .b64 %d<5>; .reg .pred %p<6>;\n";
        for (bits, name) in [(16, "h"), (32, "r"), (64, "d")] {
            for sign in ["u", "s"] {
                for op in ["add", "sub", "mul.lo", "mul.hi", "min", "max", "div", "rem"] {
                    text += &format!("{op}.{sign}{bits} %{name}0, %{name}1, %{name}2;\n");
                    text += &format!("{op}.{sign}{bits} %{name}0, %{name}1, 77;\n");
                }
                text += &format!("mad.lo.{sign}{bits} %{name}0, %{name}1, %{name}2, %{name}3;\n");
                text +=
                    &format!("shr.{sign}{bits} %{name}0, %{name}1, %r2;\nshr.{sign}{bits} %{name}0, %{name}1, 9;\n");
                for compare in ["eq", "ne", "lt", "le", "gt", "ge"] {
                    for join in ["", ".and", ".or", ".xor"] {
                        let c = if join.is_empty() { "" } else { ", !%p1" };
                        text += &format!("setp.{compare}{join}.{sign}{bits} %p2|%p3, %{name}1, %{name}2{c};\n");
                    }
                }
            }
            text += &format!("and.b{bits} %{name}0, %{name}1, %{name}2;\nor.b{bits} %{name}0, %{name}1, %{name}2;\n");
            text += &format!("xor.b{bits} %{name}0, %{name}1, %{name}2;\nnot.b{bits} %{name}0, %{name}1;\n");
            text += &format!("neg.s{bits} %{name}0, %{name}1;\nmov.b{bits} %{name}0, %{name}1;\n");
            text += &format!("shl.b{bits} %{name}0, %{name}1, %r2;\nshl.b{bits} %{name}0, %{name}1, 40;\n");
            text += &format!("selp.b{bits} %{name}0, %{name}1, %{name}2, %p1;\n");
            for to in ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"] {
                for from in
                    ["u16", "s16", "u32", "s32", "u64", "s64"].iter().filter(|ty| ty.ends_with(&bits.to_string()))
                {
                    for (register, width) in [("%h0", 16), ("%r0", 32), ("%d0", 64)] {
                        if width >= to[1..].parse().unwrap() {
                            text += &format!("cvt.{to}.{from} {register}, %{name}1;\n");
                        }
                    }
                }
            }
        }
        for (wide, name, out) in [("16", "h", "r"), ("32", "r", "d")] {
            for sign in ["u", "s"] {
                text += &format!("mul.wide.{sign}{wide} %{out}0, %{name}1, %{name}2;\n");
                text += &format!("mad.wide.{sign}{wide} %{out}0, %{name}1, %{name}2, %{out}3;\n");
            }
        }
        for shift in ["l.wrap", "l.clamp", "r.wrap", "r.clamp"] {
            text += &format!("shf.{shift}.b32 %r0, %r1, %r2, %r3;\nshf.{shift}.b32 %r0, %r1, %r2, 32;\n");
        }
        for table in 0..256 {
            text += &format!("lop3.b32 %r0, %r1, %r2, %r3, {table};\n");
        }
        for selector in [0, 0x0123, 0x3210, 0x7654, 0x5140, 0xfedc, 0xba98, 0x8c3f, 0x12345] {
            text += &format!("prmt.b32 %r0, %r1, %r2, {selector};\n");
        }
        text + "}"
    }

    /// Numbers of all sizes, and the edges of all types.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let value = *state >> 32 ^ *state << 29;
        match *state >> 60 {
            0..4 => value >> (*state >> 40 & 63),
            4 => [0, 1, 0x7f, 0x80, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000][value as usize & 7],
            5 => !([0, 1, 0x7f, 0x80, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000][value as usize & 7]),
            6 => 1 << (value & 63),
            _ => value,
        }
    }

    #[test]
    fn fast_forms_agree_with_the_plain_ones() {
        let module = Module::parse(&kernel()).unwrap();
        let function = &module.function("k").unwrap().inner;
        let code = &function.code;
        let geometry = || {
            let (grid, at) = ([1; 3], [0; 3]);
            Geometry { grid, block: [32, 1, 1], at, dynamic_shared: 0, total_shared: 0 }
        };
        let mut env = Env::new(function, geometry(), &[], &[], false);
        let mut warp = Warp::new(0, code, 0);
        let mut state = 1;
        let mut compared = 0;
        for round in 0..60 {
            for ins in code.ins.iter().filter(|ins| ins.op != Op::Exit) {
                warp.begin(code, &geometry());
                warp.defined32.fill(u32::MAX);
                warp.defined64.fill(u32::MAX);
                warp.defined_p.fill(u32::MAX);
                // The first four registers have 16 bits.
                for (at, register) in warp.r32.iter_mut().enumerate() {
                    let mask = if at < 4 { 0xffff } else { u64::MAX };
                    register.0.fill_with(|| (random(&mut state) & mask) as u32);
                }
                warp.r64.iter_mut().for_each(|register| register.0.fill_with(|| random(&mut state)));
                warp.p.iter_mut().for_each(|p| *p = random(&mut state) as u32);
                let exec = if round % 2 == 0 { u32::MAX } else { random(&mut state) as u32 };
                let sources: Vec<_> = (0..5).map(|at| warp.get(code, ins.r[at]).0).collect();
                let before = warp.p.clone();
                let old = if ins.op == Op::Setp { [0; 32] } else { warp.get(code, ins.r[0]).0 };
                super::number(&mut warp, &mut env, ins, exec).unwrap();
                let line = function.line(ins.line);
                let bit = |mask: u32, lane: usize| mask >> lane & 1 == 1;
                for lane in 0..32 {
                    let source = |at: usize| sources[at][lane];
                    if ins.op == Op::Setp {
                        let is = alu::compares(ins.sub, source(2), source(3), ins.ty);
                        let c = bit(before[1], lane) != ins.not;
                        for (slot, is) in [(ins.r[0], is), (ins.r[1], !is)] {
                            let want = match (bit(exec, lane), ins.mode) {
                                (false, _) => bit(before[slot as usize], lane),
                                (true, 0) => is,
                                (true, logic::AND) => is & c,
                                (true, logic::OR) => is | c,
                                (true, _) => is ^ c,
                            };
                            assert_eq!(bit(warp.p[slot as usize], lane), want, "{line} lane {lane} {exec:#x}");
                        }
                        continue;
                    }
                    let want = match ins.op {
                        _ if !bit(exec, lane) => old[lane],
                        Op::Selp => source(if bit(before[1], lane) { 1 } else { 2 }),
                        _ => alu::scalar(ins, [source(1), source(2), source(3), source(4)]),
                    };
                    let got = warp.get(code, ins.r[0]).0[lane];
                    assert_eq!(got, want, "{line} lane {lane}: {:#x} {:#x} {:#x}", source(1), source(2), source(3));
                    compared += 1;
                }
            }
        }
        assert!(compared > 1_000_000, "{compared}");
    }
}
