//! The fast forms against the plain ones, on numbers of all sizes.

use super::super::{Module, Options};
use super::*;
use crate::exec::Geometry;

/// Returns a kernel with every operation that has a fast form, in all types that it has.
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
            text += &format!("shr.{sign}{bits} %{name}0, %{name}1, %r2;\nshr.{sign}{bits} %{name}0, %{name}1, 9;\n");
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
            for from in ["u16", "s16", "u32", "s32", "u64", "s64"].iter().filter(|ty| ty.ends_with(&bits.to_string())) {
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
    for op in ["add", "sub", "mul"] {
        text += &format!("{op}.rn.f32 %r0, %r1, %r2;\n{op}.rn.f32 %r0, %r1, 1.5;\n");
    }
    text += "fma.rn.f32 %r0, %r1, %r2, %r3;\n";
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
    let mut env = Env::new(function, geometry(), &[], &[], &Options::default());
    let mut warp = Warp::new(0, code, 0);
    let mut state = 1;
    let mut compared = 0;
    for round in 0..60 {
        for ins in code.ins.iter().filter(|ins| ins.op != Op::Exit) {
            warp.begin(code, &geometry(), false);
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
