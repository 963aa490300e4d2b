//! Every operation on numbers, at its edges: results worked out by hand from the PTX manual, never from the interpreter.

use crate::support;

use df11_emulator::memory::Memory;
use df11_emulator::ptx::{FaultKind, Launch, Module, Options};
use support::{HEAD, Setup, device, read};

/// Runs one instruction (or several) on one thread. Sources are `a b c e` of 32, `A B C E` of 64 and `ha hb hc he` of 16 bits,
/// all from `inputs`; the result is what is left in `d`, `D` or `hd`, or 1 for a true `p`. What is not written is 0.
fn eval(ins: &str, inputs: [u64; 4]) -> u64 {
    let mut load = String::new();
    for (at, name) in ["a", "b", "c", "e"].into_iter().enumerate() {
        let offset = 8 * at;
        load += &format!(".reg .b32 {name}; ld.param.u32 {name}, [k_1+{offset}];\n");
        load += &format!(".reg .b64 {}; ld.param.u64 {}, [k_1+{offset}];\n", name.to_uppercase(), name.to_uppercase());
        load += &format!(".reg .b16 h{name}; ld.param.u16 h{name}, [k_1+{offset}];\n");
    }
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 k_0, .param .align 8 .b8 k_1[32])
{{
.reg .b32 d; .reg .b64 D, X, out; .reg .b16 hd; .reg .pred p, q, r, s; .reg .b32 x;
{load}
mov.u32 d, 0; mov.u64 D, 0; mov.u16 hd, 0; setp.ne.u32 p, d, 0; setp.eq.u32 q, d, 0; setp.ne.u32 r, d, 0;
ld.param.u64 out, [k_0];
{ins}
selp.u32 x, 1, 0, p;
or.b32 d, d, x;
cvt.u64.u32 X, d; or.b64 D, D, X;
cvt.u64.u16 X, hd; or.b64 D, D, X;
st.global.u64 [out], D;
ret;
}}"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let memory = Memory::new();
    let out = device(&memory, &[0; 8]);
    let mut params = out.to_le_bytes().to_vec();
    params.extend(inputs.iter().flat_map(|input| input.to_le_bytes()));
    let function = module.function("k").unwrap();
    assert_eq!(function.parameters(), [(0, 8), (8, 32)]);
    let launch = Launch {
        function,
        grid: [1; 3],
        block: [1; 3],
        shared_bytes: 0,
        params: &params,
        memory: &memory,
        options: Options::default(),
    };
    launch.run().unwrap_or_else(|fault| panic!("{fault}\n{ins}"));
    u64::from_le_bytes(read(&memory, out, 8).try_into().unwrap())
}

/// `instruction => inputs => result` a line; numbers in decimal or hexadecimal.
fn table(text: &str) {
    let number = |word: &str| {
        let word = word.trim();
        match (word.strip_prefix("0x"), word.strip_prefix('-')) {
            (Some(hex), _) => u64::from_str_radix(hex, 16).unwrap_or_else(|_| panic!("{word}")),
            (_, Some(negative)) => negative.parse::<u64>().unwrap_or_else(|_| panic!("{word}")).wrapping_neg(),
            _ => word.parse().unwrap_or_else(|_| panic!("{word}")),
        }
    };
    let mut wrong = String::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    for line in lines {
        let parts: Vec<_> = line.split("=>").collect();
        let [ins, inputs, want] = parts[..] else { panic!("{line}") };
        let mut values = [0; 4];
        for (value, word) in values.iter_mut().zip(inputs.split_whitespace()) {
            *value = number(word);
        }
        let got = eval(ins.trim(), values);
        if got != number(want) {
            wrong += &format!("{line}: got {got:#x}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn sums_and_products() {
    table(
        "
        add.u32 d, a, b;      => 0xffffffff 2 => 1
        add.u32 d, a, -1;     => 5 => 4
        add.s64 D, A, B;      => 0xffffffffffffffff 2 => 1
        add.u16 hd, ha, hb;   => 0xffff 2 => 1
        add.sat.s32 d, a, b;  => 0x7fffffff 1 => 0x7fffffff
        add.sat.s32 d, a, b;  => 0x80000000 -1 => 0x80000000
        sub.sat.s32 d, a, b;  => 0x80000000 1 => 0x80000000
        sub.u32 d, a, b;      => 1 2 => 0xffffffff
        sub.s64 D, A, B;      => 1 2 => -1
        mul.lo.u32 d, a, b;   => 0x10001 0x10001 => 0x20001
        mul.lo.s64 D, A, B;   => -3 5 => -15
        mul.lo.u16 hd, ha, hb; => 0x101 0x101 => 0x201
        mul.hi.u32 d, a, b;   => 0xffffffff 0xffffffff => 0xfffffffe
        mul.hi.s32 d, a, b;   => -1 -1 => 0
        mul.hi.s32 d, a, b;   => 0x80000000 2 => 0xffffffff
        mul.hi.u64 D, A, B;   => -1 -1 => -2
        mul.hi.s64 D, A, B;   => -1 2 => -1
        mul.hi.u16 hd, ha, hb; => 0xffff 0xffff => 0xfffe
        mul.wide.u32 D, a, b; => 0xffffffff 0xffffffff => 0xfffffffe00000001
        mul.wide.s32 D, a, b; => -1 7 => -7
        mul.wide.u16 d, ha, hb; => 0xffff 0xffff => 0xfffe0001
        mul.wide.s16 d, ha, hb; => 0xffff 0xffff => 1
        mad.lo.s32 d, a, b, c; => 3 -4 5 => 0xfffffff9
        mad.lo.u64 D, A, B, C; => 3 4 5 => 17
        mad.hi.u32 d, a, b, c; => 0xffffffff 0xffffffff 3 => 1
        mad.wide.u32 D, a, b, C; => 0xffffffff 2 1 => 0x1ffffffff
        mad.wide.s32 D, a, b, C; => -2 3 1 => -5
        mad.wide.u16 d, ha, hb, c; => 0xffff 2 1 => 0x1ffff
        mul24.lo.u32 d, a, b; => 0xff000003 5 => 15
        mul24.lo.s32 d, a, b; => 0x00ffffff 5 => 0xfffffffb
        mul24.hi.u32 d, a, b; => 0x00ffffff 0x00ffffff => 0xfffffe00
        mad24.lo.u32 d, a, b, c; => 3 5 7 => 22
        sad.u32 d, a, b, c;   => 3 5 7 => 9
        sad.s32 d, a, b, c;   => -3 5 7 => 15
        dp4a.u32.u32 d, a, b, c; => 0x01020304 0x05060708 100 => 170
        dp4a.s32.s32 d, a, b, c; => 0xff000000 0x02000000 0 => 0xfffffffe
        dp2a.lo.u32.u32 d, a, b, c; => 0x00020003 0x07080504 1 => 23
        dp2a.hi.u32.u32 d, a, b, c; => 0x00020003 0x07080504 1 => 39
        ",
    );
}

/// IEEE 754 binary32, to the nearest, ties to even, with subnormal numbers.
#[test]
fn floats() {
    table(
        "
        add.rn.f32 d, a, b;  => 0x3f800000 0x40000000 => 0x40400000
        add.rn.f32 d, a, 0f3F800000;  => 0x3f800000 => 0x40000000
        add.rn.f32 d, a, 1.0; => 0x3f800000 => 0x40000000
        // 1 + 2^-24 is a tie, which goes to the even one; a bit more does not.
        add.rn.f32 d, a, b;  => 0x3f800000 0x33800000 => 0x3f800000
        add.rn.f32 d, a, b;  => 0x3f800001 0x33800000 => 0x3f800002
        add.rn.f32 d, a, b;  => 0x3f800000 0x33800001 => 0x3f800001
        // The smallest subnormal number, twice; and a difference that is subnormal.
        add.rn.f32 d, a, b;  => 1 1 => 2
        sub.rn.f32 d, a, b;  => 0x00800000 1 => 0x007fffff
        sub.rn.f32 d, a, b;  => 0x3f800000 0x3f800000 => 0
        add.rn.f32 d, a, b;  => 0x80000000 0x80000000 => 0x80000000
        add.rn.f32 d, a, b;  => 0x7f7fffff 0x7f7fffff => 0x7f800000
        sub.rn.f32 d, a, b;  => 0x7f800000 0x7f800000 => 0x7fffffff
        add.rn.f32 d, a, b;  => 0xffc12345 0x3f800000 => 0x7fffffff
        mul.rn.f32 d, a, b;  => 0x40400000 0xc0000000 => 0xc0c00000
        mul.rn.f32 d, a, b;  => 0x00800000 0x3f000000 => 0x00400000
        mul.rn.f32 d, a, b;  => 0x00000001 0x3f000000 => 0
        mul.rn.f32 d, a, b;  => 0x7f800000 0 => 0x7fffffff
        fma.rn.f32 d, a, b, c; => 0x40400000 0x40000000 0x3f800000 => 0x40e00000
        // (1 + 2^-23) squared, less 1 + 2^-22: rounded once it is 2^-46, rounded twice it would be 0.
        fma.rn.f32 d, a, b, c; => 0x3f800001 0x3f800001 0xbf800002 => 0x28800000
        fma.rn.f32 d, a, b, c; => 0x7f7fffff 0x40000000 0xff7fffff => 0x7f7fffff
        fma.rn.f32 d, a, b, c; => 0x7f800000 0x3f800000 0xff800000 => 0x7fffffff
        // Without a rounding: to the nearest.
        add.f32 d, a, b;     => 0x3f800001 0x33800000 => 0x3f800002
        sub.f32 d, a, b;     => 0x00800000 1 => 0x007fffff
        mul.f32 d, a, b;     => 0x40400000 0xc0000000 => 0xc0c00000
        // Towards zero, up and down: 1 + 2^-24, and what is too large.
        add.rz.f32 d, a, b;  => 0x3f800001 0x33800000 => 0x3f800001
        add.rp.f32 d, a, b;  => 0x3f800000 0x00000001 => 0x3f800001
        add.rm.f32 d, a, b;  => 0x3f800000 0x80000001 => 0x3f7fffff
        mul.rz.f32 d, a, b;  => 0x7f7fffff 0x40000000 => 0x7f7fffff
        fma.rm.f32 d, a, b, c; => 0x3f800000 0x3f800000 0x80000001 => 0x3f7fffff
        fma.rp.f32 d, a, b, c; => 0x3f800000 0x3f800000 0x80000001 => 0x3f800000
        fma.rz.f32 d, a, b, c; => 0xbf800000 0x3f800000 0x00000001 => 0xbf7fffff
        sub.rm.f32 d, a, b;  => 0x3f800000 0x3f800000 => 0x80000000
        // Subnormal operands and results that are zeros, and results between 0 and 1.
        add.ftz.f32 d, a, b; => 0x007fffff 0x007fffff => 0
        add.ftz.f32 d, a, b; => 0x80000001 0x80000001 => 0x80000000
        mul.ftz.f32 d, a, b; => 0x80800000 0x3f000000 => 0x80000000
        fma.rn.ftz.f32 d, a, b, c; => 0x00400000 0x7f000000 0x3f800000 => 0x3f800000
        fma.rn.sat.f32 d, a, b, c; => 0x40400000 0x40000000 0x3f800000 => 0x3f800000
        add.sat.f32 d, a, b; => 0xff800000 0x7f800000 => 0
        mul.sat.f32 d, a, b; => 0x3f000000 0x3f000000 => 0x3e800000
        ",
    );
}

#[test]
fn float_extremes_signs_and_quotients() {
    table(
        "
        min.f32 d, a, b;     => 0 0x80000000 => 0x80000000
        max.f32 d, a, b;     => 0x80000000 0 => 0
        min.f32 d, a, b;     => 0xbf800000 0x3f800000 => 0xbf800000
        max.f32 d, a, b;     => 0x7fc00000 0x3f800000 => 0x3f800000
        min.f32 d, a, b;     => 0x3f800000 0xffffffff => 0x3f800000
        min.f32 d, a, b;     => 0x7fc00000 0xffc00000 => 0x7fffffff
        max.NaN.f32 d, a, b; => 0x7fc00000 0x3f800000 => 0x7fffffff
        max.ftz.f32 d, a, b; => 1 0 => 0
        neg.f32 d, a;        => 0 => 0x80000000
        neg.ftz.f32 d, a;    => 1 => 0x80000000
        abs.f32 d, a;        => 0xff800000 => 0x7f800000
        abs.ftz.f32 d, a;    => 0x80000001 => 0
        // A third, and one that is subnormal.
        div.rn.f32 d, a, b;  => 0x3f800000 0x40400000 => 0x3eaaaaab
        div.rn.f32 d, a, b;  => 0x00800000 0x40000000 => 0x00400000
        div.rn.ftz.f32 d, a, b; => 0x00800000 0x40000000 => 0
        div.rn.f32 d, a, b;  => 0xbf800000 0 => 0xff800000
        div.rn.f32 d, a, b;  => 0 0 => 0x7fffffff
        div.full.f32 d, a, b; => 0x40c00000 0x40000000 => 0x40400000
        div.approx.f32 d, a, b; => 0x40c00000 0x40000000 => 0x40400000
        // Beyond 2^126 the reciprocal is 0.
        div.approx.f32 d, a, b; => 0x7e800000 0x7f000000 => 0
        div.approx.f32 d, a, b; => 0x7f800000 0x7f000000 => 0x7fffffff
        div.approx.f32 d, a, b; => 0x3f800000 0x7f800000 => 0
        rcp.rn.f32 d, a;     => 0x40400000 => 0x3eaaaaab
        sqrt.rn.f32 d, a;    => 0x40000000 => 0x3fb504f3
        sqrt.rn.f32 d, a;    => 0x80000000 => 0x80000000
        sqrt.rn.f32 d, a;    => 0xbf800000 => 0x7fffffff
        sqrt.approx.ftz.f32 d, a; => 1 => 0
        ",
    );
}

/// Values that are exact, and those that the manual's tables give.
#[test]
fn float_functions() {
    table(
        "
        rcp.approx.f32 d, a;       => 0x40800000 => 0x3e800000
        rcp.approx.ftz.f32 d, a;   => 0x80000001 => 0xff800000
        rcp.approx.ftz.f32 d, a;   => 0x7f7fffff => 0
        rcp.approx.f32 d, a;       => 0xff800000 => 0x80000000
        rsqrt.approx.f32 d, a;     => 0x40800000 => 0x3f000000
        rsqrt.approx.f32 d, a;     => 0x80000000 => 0xff800000
        rsqrt.approx.f32 d, a;     => 0xbf800000 => 0x7fffffff
        rsqrt.approx.ftz.f32 d, a; => 1 => 0x7f800000
        ex2.approx.f32 d, a;       => 0x41200000 => 0x44800000
        ex2.approx.f32 d, a;       => 0xc3150000 => 1
        ex2.approx.ftz.f32 d, a;   => 0xc3150000 => 0
        ex2.approx.ftz.f32 d, a;   => 0xff800000 => 0
        ex2.approx.ftz.f32 d, a;   => 0x7f800000 => 0x7f800000
        lg2.approx.f32 d, a;       => 0x41000000 => 0x40400000
        lg2.approx.f32 d, a;       => 1 => 0xc3150000
        lg2.approx.ftz.f32 d, a;   => 1 => 0xff800000
        lg2.approx.f32 d, a;       => 0xbf800000 => 0x7fffffff
        sin.approx.f32 d, a;       => 0x80000000 => 0x80000000
        sin.approx.f32 d, a;       => 0x7f800000 => 0x7fffffff
        cos.approx.ftz.f32 d, a;   => 1 => 0x3f800000
        // The sine and cosine of 1.
        sin.approx.f32 d, a;       => 0x3f800000 => 0x3f576aa4
        cos.approx.f32 d, a;       => 0x3f800000 => 0x3f0a5140
        tanh.approx.f32 d, a;      => 0xff800000 => 0xbf800000
        ",
    );
}

#[test]
fn float_comparisons() {
    table(
        "
        setp.lt.f32 p, a, b;      => 0xbf800000 0x3f800000 => 1
        setp.eq.f32 p, a, b;      => 0 0x80000000 => 1
        setp.eq.f32 p, a, b;      => 0x7fc00000 0x7fc00000 => 0
        setp.equ.f32 p, a, b;     => 0x7fc00000 0x3f800000 => 1
        setp.ne.f32 p, a, b;      => 0x7fc00000 0x3f800000 => 0
        setp.neu.f32 p, a, b;     => 0x7fc00000 0x3f800000 => 1
        setp.gtu.f32 p, a, b;     => 0x3f800000 0x40000000 => 0
        setp.geu.f32 p, a, 0f7F800000; => 0x7f800000 => 1
        setp.num.f32 p, a, b;     => 0x7f800000 0x3f800000 => 1
        setp.nan.f32 p, a, b;     => 0x3f800000 0xffc00000 => 1
        setp.gt.f32 p, a, b;      => 1 0 => 1
        setp.gt.ftz.f32 p, a, b;  => 1 0 => 0
        setp.le.f32 r|p, a, b;    => 0x7fc00000 0x3f800000 => 1
        setp.lt.and.f32 p, a, b, !q; => 0xbf800000 0x3f800000 => 0
        setp.lt.or.ftz.f32 p, a, b, q; => 0 0 => 1
        selp.f32 d, a, b, q;      => 5 6 => 5
        ",
    );
}

#[test]
fn float_conversions() {
    table(
        "
        // 2^24 + 1 and 2^24 + 3 are ties.
        cvt.rn.f32.u32 d, a;      => 0x01000001 => 0x4b800000
        cvt.rn.f32.u32 d, a;      => 0x01000003 => 0x4b800002
        cvt.rz.f32.u32 d, a;      => 0xffffffff => 0x4f7fffff
        cvt.rp.f32.u32 d, a;      => 0xffffffff => 0x4f800000
        cvt.rn.f32.s32 d, a;      => -1 => 0xbf800000
        cvt.rm.f32.s32 d, a;      => 0xfeffffff => 0xcb800001
        cvt.rn.f32.u64 d, A;      => 0x4000004000000001 => 0x5e800001
        cvt.rn.f32.u16 d, ha;     => 0xffff => 0x477fff00
        cvt.rn.f32.s8 d, a;       => 0x1ff => 0xbf800000
        cvt.rn.f16.s32 hd, a;     => 65520 => 0x7c00
        cvt.rn.f64.s64 D, A;      => -3 => 0xc008000000000000
        cvt.rzi.s32.f32 d, a;     => 0xc039999a => 0xfffffffe
        cvt.rni.s32.f32 d, a;     => 0x40200000 => 2
        cvt.rpi.u32.f32 d, a;     => 0x40200000 => 3
        cvt.rmi.s32.f32 d, a;     => 0xc0200000 => 0xfffffffd
        cvt.rzi.s32.f32 d, a;     => 0x7f800000 => 0x7fffffff
        cvt.rzi.u32.f32 d, a;     => 0xbf800000 => 0
        cvt.rzi.u32.f32 d, a;     => 0x7fc00000 => 0
        cvt.rzi.s64.f32 D, a;     => 0x7fc00000 => 0x8000000000000000
        cvt.rpi.s32.f32 d, a;     => 1 => 1
        cvt.rpi.ftz.s32.f32 d, a; => 1 => 0
        cvt.rni.f32.f32 d, a;     => 0xbf000000 => 0x80000000
        cvt.rzi.f32.f32 d, a;     => 0x40399999 => 0x40000000
        cvt.rpi.f32.f32 d, a;     => 0x3dcccccd => 0x3f800000
        cvt.sat.f32.f32 d, a;     => 0x40000000 => 0x3f800000
        cvt.f64.f32 D, a;         => 0x3fc00000 => 0x3ff8000000000000
        cvt.rn.f32.f64 d, A;      => 0x3ff0000010000000 => 0x3f800000
        cvt.rp.f32.f64 d, A;      => 0x3ff0000000000001 => 0x3f800001
        mul.f64 D, A, B;          => 0x3ff8000000000000 0x4000000000000000 => 0x4008000000000000
        add.rn.f64 D, A, B;       => 0x3ff8000000000000 0xbff8000000000000 => 0
        sub.f64 D, A, B;          => 0x7ff0000000000000 0x7ff0000000000000 => 0x7fffffffffffffff
        fma.rn.f64 D, A, B, C;    => 0x4000000000000000 0x4000000000000000 0x3ff0000000000000 => 0x4014000000000000
        // bf16: ties to even, subnormal numbers kept, the largest number beside infinity, NaN.
        cvt.rn.bf16.f32 hd, a;    => 0x3f808000 => 0x3f80
        cvt.rn.bf16.f32 hd, a;    => 0x3f818000 => 0x3f82
        cvt.rn.bf16.f32 hd, a;    => 0x3f808001 => 0x3f81
        cvt.rn.bf16.f32 hd, a;    => 0x80018000 => 0x8002
        cvt.rn.bf16.f32 hd, a;    => 0x7f7fffff => 0x7f80
        cvt.rn.bf16.f32 hd, a;    => 0xff800001 => 0x7fff
        cvt.rz.bf16.f32 hd, a;    => 0x3f80ffff => 0x3f80
        cvt.rn.bf16x2.f32 d, a, b; => 0x3f818000 0xbf800000 => 0x3f82bf80
        cvt.f32.bf16 d, ha;       => 0xffc1 => 0xffc10000
        cvt.rn.f16.f32 hd, a;     => 0x477fefff => 0x7bff
        cvt.rn.f16.f32 hd, a;     => 0x477ff000 => 0x7c00
        cvt.rn.f16.f32 hd, a;     => 0x33000000 => 0
        cvt.rn.f16.f32 hd, a;     => 0x33000001 => 1
        cvt.rn.f16x2.f32 d, a, b; => 0x3f800000 0xbf800000 => 0x3c00bc00
        cvt.f32.f16 d, ha;        => 0x8001 => 0xb3800000
        cvt.f32.f16 d, ha;        => 0xfe00 => 0x7fffffff
        cvt.f32.f16 d, ha;        => 0x3555 => 0x3eaaa000
        ",
    );
}

/// Row r of A is r + 1 at k = r and 0 elsewhere, B is 8 k + n, C is 1000 r + n, made by lanes as the manual draws them.
#[test]
fn matrices() {
    let body = "
        shr.u32 %r1, %t, 2; and.b32 %r2, %t, 3; shl.b32 %r3, %r2, 1;
        // A: register i has rows g + 8 (i & 1), columns 2 t + 8 (i >> 1) and the next.
        mov.b32 %r4, 0; mov.b32 %r5, 0; mov.b32 %r6, 0;
        add.u32 %r7, %r1, 1; cvt.rn.f32.u32 %r8, %r7; cvt.rn.bf16.f32 %h1, %r8;
        add.u32 %r7, %r1, 9; cvt.rn.f32.u32 %r8, %r7; cvt.rn.bf16.f32 %h2, %r8;
        mov.u16 %h3, 0; mov.b32 %r9, {%h1, %h3}; mov.b32 %r10, {%h3, %h1};
        setp.eq.u32 %p1, %r1, %r3; selp.b32 %r4, %r9, 0, %p1;
        add.u32 %r11, %r3, 1; setp.eq.u32 %p2, %r1, %r11; selp.b32 %r4, %r10, %r4, %p2;
        mov.b32 %r9, {%h2, %h3}; mov.b32 %r10, {%h3, %h2};
        selp.b32 %r5, %r9, 0, %p1; selp.b32 %r5, %r10, %r5, %p2;
        // B: register i has rows 2 t + 8 i and the next, column g.
        mad.lo.u32 %r12, %r3, 8, %r1; add.u32 %r13, %r12, 8;
        cvt.rn.f32.u32 %r14, %r12; cvt.rn.f32.u32 %r15, %r13; cvt.rn.bf16x2.f32 %r16, %r15, %r14;
        add.u32 %r12, %r12, 64; add.u32 %r13, %r13, 64;
        cvt.rn.f32.u32 %r14, %r12; cvt.rn.f32.u32 %r15, %r13; cvt.rn.bf16x2.f32 %r17, %r15, %r14;
        // C: register i has row g + 8 (i >> 1), column 2 t + (i & 1).
        mad.lo.u32 %r18, %r1, 1000, %r3; cvt.rn.f32.u32 %r19, %r18;
        add.u32 %r18, %r18, 1; cvt.rn.f32.u32 %r20, %r18;
        add.u32 %r18, %r18, 7999; cvt.rn.f32.u32 %r21, %r18;
        add.u32 %r18, %r18, 1; cvt.rn.f32.u32 %r22, %r18;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
            {%r23, %r24, %r25, %r26}, {%r4, %r6, %r6, %r5}, {%r16, %r17}, {%r19, %r20, %r21, %r22};
        mad.wide.u32 %d1, %t, 16, %out;
        st.global.v4.f32 [%d1], {%r23, %r24, %r25, %r26};";
    let ran = support::launch(&support::kernel(body), &Setup::default()).unwrap();
    for (at, word) in ran.out[..128].iter().enumerate() {
        let (lane, at) = (at as u32 / 4, at as u32 % 4);
        let (row, column) = (lane / 4 + 8 * (at / 2), 2 * (lane % 4) + at % 2);
        let want = (row + 1) * (8 * row + column) + 1000 * row + column;
        assert_eq!(f32::from_bits(*word), want as f32, "row {row}, column {column}");
    }
    let part = "setp.lt.u32 %p1, %t, 31; mov.b32 %r1, 0;
        @%p1 mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
            {%r2, %r3, %r4, %r5}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r1, %r1, %r1, %r1};";
    assert_eq!(support::fault(part, &Setup::default()).kind, FaultKind::WarpMask);
    let unwritten = part.replace("@%p1 ", "").replace("{%r1, %r1}", "{%r1, %r9}");
    assert_eq!(support::fault(&unwritten, &Setup::default()).kind, FaultKind::UninitialisedRegister);
}

#[test]
fn quotients_extremes_and_signs() {
    table(
        "
        div.s32 d, a, b;  => -7 2 => 0xfffffffd
        rem.s32 d, a, b;  => -7 2 => 0xffffffff
        rem.s32 d, a, b;  => 7 -2 => 1
        div.s32 d, a, b;  => 0x80000000 -1 => 0x80000000
        div.u32 d, a, b;  => 0xfffffff9 2 => 0x7ffffffc
        div.s64 D, A, B;  => -9 4 => -2
        rem.u64 D, A, B;  => 0xffffffffffffffff 10 => 5
        div.u16 hd, ha, hb; => 0xffff 0x10 => 0xfff
        div.s16 hd, ha, hb; => 0xfff0 3 => 0xfffb
        min.s32 d, a, b;  => -1 1 => 0xffffffff
        min.u32 d, a, b;  => -1 1 => 1
        max.s32 d, a, b;  => -1 1 => 1
        max.u32 d, a, b;  => -1 1 => 0xffffffff
        min.s64 D, A, B;  => -1 1 => -1
        max.u64 D, A, B;  => -1 1 => -1
        min.s16 hd, ha, hb; => 0x8000 1 => 0x8000
        max.u16 hd, ha, hb; => 0x8000 1 => 0x8000
        abs.s32 d, a;     => -5 => 5
        abs.s64 D, A;     => -5 => 5
        neg.s32 d, a;     => 5 => 0xfffffffb
        neg.s16 hd, ha;   => 5 => 0xfffb
        ",
    );
}

#[test]
fn logic_and_shifts() {
    table(
        "
        and.b32 d, a, b;  => 12 10 => 8
        or.b64 D, A, B;   => 12 10 => 14
        xor.b16 hd, ha, hb; => 12 10 => 6
        not.b32 d, a;     => 0xf => 0xfffffff0
        not.b16 hd, ha;   => 0xf => 0xfff0
        not.b64 D, A;     => 0 => -1
        cnot.b32 d, a;    => 0 => 1
        cnot.b32 d, a;    => 7 => 0
        shl.b32 d, a, b;  => 1 31 => 0x80000000
        shl.b32 d, a, b;  => 1 32 => 0
        shl.b32 d, a, b;  => 1 0xffffffff => 0
        shl.b64 D, A, b;  => 1 63 => 0x8000000000000000
        shl.b64 D, A, b;  => 1 64 => 0
        shl.b16 hd, ha, b; => 1 16 => 0
        shl.b16 hd, ha, b; => 0xffff 4 => 0xfff0
        shr.u32 d, a, b;  => 0x80000000 31 => 1
        shr.u32 d, a, b;  => 0x80000000 32 => 0
        shr.s32 d, a, b;  => 0x80000000 31 => 0xffffffff
        shr.s32 d, a, b;  => 0x80000000 40 => 0xffffffff
        shr.s32 d, a, b;  => 0x40000000 32 => 0
        shr.u64 D, A, b;  => -1 64 => 0
        shr.u64 D, A, b;  => -1 60 => 15
        shr.s64 D, A, b;  => -16 2 => -4
        shr.s64 D, A, b;  => -16 100 => -1
        shr.s16 hd, ha, b; => 0x8000 20 => 0xffff
        shr.u16 hd, ha, b; => 0x8000 15 => 1
        shf.l.wrap.b32 d, a, b, c;  => 0x80000001 0x1 4 => 0x18
        shf.l.wrap.b32 d, a, b, c;  => 0x80000001 0x1 32 => 1
        shf.l.clamp.b32 d, a, b, c; => 0x80000001 0x1 32 => 0x80000001
        shf.l.clamp.b32 d, a, b, c; => 0x80000001 0x1 99 => 0x80000001
        shf.r.wrap.b32 d, a, b, c;  => 0x80000001 0x1 4 => 0x18000000
        shf.r.wrap.b32 d, a, b, c;  => 0x80000001 0x1 32 => 0x80000001
        shf.r.clamp.b32 d, a, b, c; => 0x80000001 0x7 32 => 7
        shf.r.clamp.b32 d, a, b, c; => 0x80000001 0x7 33 => 7
        lop3.b32 d, a, b, c, 0xca;  => 0xff00ff00 0x12345678 0x9abcdef0 => 0x12bc56f0
        lop3.b32 d, a, b, c, 0x96;  => 0xff00ff00 0x12345678 0x9abcdef0 => 0x77887788
        lop3.b32 d, a, b, c, 0x80;  => 0xff00ff00 0x12345678 0x9abcdef0 => 0x12005600
        lop3.b32 d, a, b, c, 0x01;  => 0xff00ff00 0x12345678 0x9abcdef0 => 0x00430007
        lop3.b32 d, a, b, c, 0xf0;  => 0xff00ff00 0x12345678 0x9abcdef0 => 0xff00ff00
        lop3.b32 d, a, b, c, 0xcc;  => 0xff00ff00 0x12345678 0x9abcdef0 => 0x12345678
        lop3.b32 d, a, b, c, 0xaa;  => 0xff00ff00 0x12345678 0x9abcdef0 => 0x9abcdef0
        ",
    );
}

#[test]
fn bytes_and_fields() {
    table(
        "
        prmt.b32 d, a, b, 0x7531; => 0x33221100 0x77665544 => 0x77553311
        prmt.b32 d, a, b, 0x0123; => 0x33221100 0x77665544 => 0x00112233
        prmt.b32 d, a, b, c;      => 0x33221100 0x77665544 0x0123 => 0x00112233
        prmt.b32 d, a, b, 0xb8c9; => 0x80001180 0x77665584 => 0xffffff00
        prmt.b32 d, a, b, c;      => 0x80001180 0x77665584 0xb8c9 => 0xffffff00
        prmt.b32 d, a, b, c;      => 0x80001180 0x77665584 0xffff0001 => 0x80808011
        prmt.b32.f4e d, a, b, c;  => 0x33221100 0x77665544 5 => 0x44332211
        prmt.b32.b4e d, a, b, c;  => 0x33221100 0x77665544 0 => 0x55667700
        prmt.b32.rc8 d, a, b, c;  => 0x33221100 0x77665544 2 => 0x22222222
        prmt.b32.ecl d, a, b, c;  => 0x33221100 0x77665544 2 => 0x33222222
        prmt.b32.ecr d, a, b, c;  => 0x33221100 0x77665544 2 => 0x22221100
        prmt.b32.rc16 d, a, b, c; => 0x33221100 0x77665544 1 => 0x33223322
        bfe.u32 d, a, b, c; => 0xabcd1234 8 8 => 0x12
        bfe.u32 d, a, b, c; => 0xabcd1234 28 8 => 0xa
        bfe.u32 d, a, b, c; => 0xabcd1234 40 8 => 0
        bfe.u32 d, a, b, c; => 0xabcd1234 0 0 => 0
        bfe.u32 d, a, b, c; => 0xabcd1234 0 32 => 0xabcd1234
        bfe.s32 d, a, b, c; => 0x00008000 12 4 => 0xfffffff8
        bfe.s32 d, a, b, c; => 0xabcd1234 28 8 => 0xfffffffa
        bfe.s32 d, a, b, c; => 0xabcd1234 40 8 => 0xffffffff
        bfe.u64 D, A, b, c; => 0xabcd123400000000 32 16 => 0x1234
        bfe.s64 D, A, b, c; => 0x8000000000000000 60 200 => -8
        bfi.b32 d, a, b, c, e; => 0xff 0 4 8 => 0xff0
        bfi.b32 d, a, b, c, e; => 0 0xffffffff 4 8 => 0xfffff00f
        bfi.b32 d, a, b, c, e; => 0xff 0x1 28 8 => 0xf0000001
        bfi.b32 d, a, b, c, e; => 0xff 0x1 32 8 => 1
        bfi.b32 d, a, b, c, e; => 0xff 0x1 0 0 => 1
        bfi.b32 d, a, b, c, e; => 0xabcdef01 0x1 0 255 => 0xabcdef01
        bfi.b64 D, A, B, c, e; => 0xff 0 40 8 => 0xff0000000000
        bfind.u32 d, a; => 0x00010000 => 16
        bfind.u32 d, a; => 0 => 0xffffffff
        bfind.s32 d, a; => 0xfffffffe => 0
        bfind.s32 d, a; => -1 => 0xffffffff
        bfind.shiftamt.u32 d, a; => 0x00010000 => 15
        bfind.u64 d, A; => 0x8000000000000000 => 63
        popc.b32 d, a; => 0xf0f0 => 8
        popc.b64 d, A; => -1 => 64
        clz.b32 d, a; => 0 => 32
        clz.b32 d, a; => 0x00ffffff => 8
        clz.b64 d, A; => 1 => 63
        clz.b64 d, A; => 0 => 64
        brev.b32 d, a; => 1 => 0x80000000
        brev.b64 D, A; => 2 => 0x4000000000000000
        fns.b32 d, a, b, c; => 0xf0 0 1 => 4
        fns.b32 d, a, b, c; => 0xf0 5 2 => 6
        fns.b32 d, a, b, c; => 0xf0 7 -4 => 4
        fns.b32 d, a, b, c; => 0xf0 7 -5 => 0xffffffff
        fns.b32 d, a, b, c; => 0xf0 4 0 => 4
        fns.b32 d, a, b, c; => 0xf0 3 0 => 0xffffffff
        bmsk.clamp.b32 d, a, b; => 4 8 => 0xff0
        bmsk.clamp.b32 d, a, b; => 28 100 => 0xf0000000
        bmsk.clamp.b32 d, a, b; => 32 8 => 0
        bmsk.wrap.b32 d, a, b; => 36 8 => 0xff0
        szext.clamp.s32 d, a, b; => 0x80 8 => 0xffffff80
        szext.clamp.u32 d, a, b; => 0x1ff 8 => 0xff
        szext.clamp.u32 d, a, b; => 0x1ff 99 => 0x1ff
        szext.wrap.u32 d, a, b; => 0x1ff 33 => 1
        ",
    );
}

#[test]
fn carries() {
    table(
        "
        add.cc.u32 d, a, b; addc.u32 d, c, e;      => 0xffffffff 1 2 3 => 6
        add.cc.u32 d, a, b; addc.u32 d, c, e;      => 0xfffffffe 1 2 3 => 5
        add.cc.u32 d, a, b; addc.cc.u32 d, c, c; addc.u32 d, e, 0; => 0xffffffff 1 0xffffffff 4 => 5
        sub.cc.u32 d, a, b; subc.u32 d, c, e;      => 0 1 9 3 => 5
        sub.cc.u32 d, a, b; subc.u32 d, c, e;      => 1 1 9 3 => 6
        add.cc.u64 D, A, B; addc.u64 D, C, E;      => -1 1 2 3 => 6
        mad.lo.cc.u32 d, a, b, c; madc.hi.u32 d, a, b, e; => 0x80000000 2 0 5 => 6
        mad.lo.cc.u32 d, a, b, c; addc.u32 d, e, 0; => 0xffff 0x10001 1 5 => 6
        ",
    );
}

#[test]
fn comparisons_and_choices() {
    table(
        "
        setp.lt.s32 p, a, b;  => -1 1 => 1
        setp.lt.u32 p, a, b;  => -1 1 => 0
        setp.lo.u32 p, a, b;  => 1 -1 => 1
        setp.hs.u32 p, a, b;  => -1 1 => 1
        setp.ls.u32 p, a, b;  => 1 1 => 1
        setp.hi.u32 p, a, b;  => 1 1 => 0
        setp.le.s32 p, a, b;  => 1 1 => 1
        setp.gt.s32 p, a, b;  => 1 -1 => 1
        setp.ge.s64 p, A, B;  => -1 -1 => 1
        setp.gt.u64 p, A, B;  => -1 1 => 1
        setp.eq.b64 p, A, B;  => 0x100000001 1 => 0
        setp.ne.s16 p, ha, hb; => 0x1ffff 0xffff => 0
        setp.lt.s16 p, ha, hb; => 0x8000 1 => 1
        setp.lt.u16 p, ha, hb; => 0x8000 1 => 0
        setp.eq.and.u32 p, a, b, q; => 1 1 => 1
        setp.eq.and.u32 p, a, b, !q; => 1 1 => 0
        setp.ne.or.u32 p, a, b, q; => 1 1 => 1
        setp.eq.xor.u32 p, a, b, q; => 1 1 => 0
        setp.eq.u32 r|p, a, b; => 1 2 => 1
        setp.eq.u32 p|r, a, b; => 1 2 => 0
        setp.eq.and.u32 r|p, a, b, !q; => 1 2 => 0
        set.lt.u32.s32 d, a, b; => -1 1 => 0xffffffff
        set.lt.u32.u32 d, a, b; => -1 1 => 0
        selp.b32 d, a, b, q;  => 5 6 => 5
        selp.b32 d, a, b, p;  => 5 6 => 6
        selp.b64 D, A, B, q;  => -5 6 => -5
        selp.b16 hd, ha, hb, p; => 5 6 => 6
        slct.u32.s32 d, a, b, c; => 5 6 -1 => 6
        slct.u32.s32 d, a, b, c; => 5 6 0 => 5
        and.pred p, q, q;     => 0 => 1
        and.pred p, q, r;     => 0 => 0
        or.pred p, q, r;      => 0 => 1
        xor.pred p, q, q;     => 0 => 0
        not.pred p, r;        => 0 => 1
        mov.pred p, q;        => 0 => 1
        mov.pred p, 1;        => 0 => 1
        ",
    );
}

#[test]
fn moves_and_conversions() {
    table(
        "
        mov.u32 d, -1;          => 0 => 0xffffffff
        mov.u32 d, 0x10;        => 0 => 16
        mov.f32 d, 0f3F800000;  => 0 => 0x3f800000
        mov.f64 D, 0d3FF0000000000000; => 0 => 0x3ff0000000000000
        mov.b64 D, {a, b};      => 1 2 => 0x200000001
        mov.b64 {d, _}, A;      => 0x300000004 => 4
        mov.b64 {_, d}, A;      => 0x300000004 => 3
        mov.b32 d, {ha, hb};    => 1 2 => 0x20001
        mov.b32 {_, hd}, a;     => 0x30004 => 3
        mov.b64 {_, _, hd, _}, A; => 0x0004000300020001 => 3
        mov.b64 D, {ha, hb, hc, he}; => 1 2 3 4 => 0x0004000300020001
        cvt.u64.u32 D, a;       => 0x80000000 => 0x80000000
        cvt.s64.s32 D, a;       => 0x80000000 => 0xffffffff80000000
        cvt.u64.s32 D, a;       => 0x80000000 => 0xffffffff80000000
        cvt.s64.u32 D, a;       => 0x80000000 => 0x80000000
        cvt.u32.u64 d, A;       => 0x1234567890 => 0x34567890
        cvt.u32.u16 d, ha;      => 0xfffff => 0xffff
        cvt.s32.s16 d, ha;      => 0xffff => 0xffffffff
        cvt.u16.u32 hd, a;      => 0x12345 => 0x2345
        cvt.u32.u8 d, a;        => 0x1ff => 0xff
        cvt.s32.s8 d, a;        => 0x180 => 0xffffff80
        cvt.s32.s8 d, ha;       => 0x180 => 0xffffff80
        cvt.u8.u32 d, a;        => 0x1ff => 0xff
        cvt.s8.s32 d, a;        => 0x80 => 0xffffff80
        cvt.u8.u32 hd, a;       => 0x1ff => 0xff
        cvt.s8.s32 hd, a;       => 0x80 => 0xff80
        cvt.sat.u8.s32 d, a;    => -5 => 0
        cvt.sat.u8.s32 d, a;    => 300 => 255
        cvt.sat.s8.s32 d, a;    => 300 => 127
        cvt.sat.u32.s64 d, A;   => -1 => 0
        cvt.sat.s32.u32 d, a;   => 0xffffffff => 0x7fffffff
        ",
    );
}

#[test]
fn special_registers() {
    let body = "
        mov.u32 %r1, %tid.y; mov.u32 %r2, %ntid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %nctaid.y; mov.u32 %r5, %laneid;
        mov.u32 %r6, %lanemask_lt; mov.u32 %r7, %warpid; mov.u32 %r8, %ctaid.y; mov.u32 %r9, %lanemask_ge;
        mov.u32 %r10, %dynamic_smem_size; mov.u32 %r11, %lanemask_gt;
        setp.ne.u32 %p1, %t, 3; @%p1 bra L; setp.ne.u32 %p1, %r1, 5; @%p1 bra L; setp.ne.u32 %p1, %r3, 1; @%p1 bra L;
        setp.ne.u32 %p1, %r8, 2; @%p1 bra L;
        st.global.v4.u32 [%out], {%r2, %r3, %r4, %r5}; st.global.v4.u32 [%out+16], {%r6, %r7, %r8, %r9};
        st.global.v2.u32 [%out+32], {%r10, %r11};
        L:";
    let setup = Setup { grid: [2, 3, 1], block: [9, 8, 1], shared: 64, ..Default::default() };
    let ran = support::launch(&support::kernel(body), &setup).unwrap();
    // Thread 3 + 9 * 5 = 48: lane 16 of warp 1.
    assert_eq!(ran.out[..10], [9, 1, 3, 16, 0xffff, 1, 2, 0xffff_0000, 64, 0xfffe_0000]);
    assert_eq!(ran.counts.blocks, 6);
}
