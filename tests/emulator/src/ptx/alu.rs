//! What each operation on numbers gives, one lane at a time: the meaning of PTX, written to be read.
//!
//! The warps run the common operations 32 lanes at once (`lanes`); a test compares both. Everything here is total: lanes
//! that do not take part are computed too, on whatever their registers hold.

use super::ir::{Ins, Op, Ty, compare};
use crate::exec::{Format, Function, Style, from_integer, to_integer, whole};

/// Returns the result of an operation without memory, predicates or carry, from the raw contents of its source slots (1 to 4). The
/// result is what the register holds.
pub(super) fn scalar(ins: &Ins, [a, b, c, e]: [u64; 4]) -> u64 {
    let (ty, bits) = (ins.ty, ins.ty.bits());
    let x = |value: u64| ty.extend(value);
    let signed = ty.signed();
    let style = Style::of(ins.sub & 15);
    let result = match ins.op {
        Op::Mov => a,
        Op::Add => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::FAdd => style.add(f32_of(a), f32_of(b)).into(),
        Op::FSub => style.add(f32_of(a), -f32_of(b)).into(),
        Op::FMul => style.multiply(f32_of(a), f32_of(b)).into(),
        Op::FFma => style.fused(f32_of(a), f32_of(b), f32_of(c)).into(),
        Op::FDiv => style.divide(f32_of(a), f32_of(b)).into(),
        Op::FDivFast => divide_fast(style, f32_of(a), f32_of(b)).into(),
        Op::FMin | Op::FMax => style.extreme(f32_of(a), f32_of(b), ins.op == Op::FMin, ins.mode == 1).into(),
        // A sign is changed even of what is no number.
        Op::FNeg => style.operand(-f32_of(a)).to_bits().into(),
        Op::FAbs => style.operand(f32_of(a).abs()).to_bits().into(),
        Op::FFunction => style.function(Function::ALL[usize::from(ins.mode)], f32_of(a)).into(),
        Op::DAdd => double(f64::from_bits(a) + f64::from_bits(b)),
        Op::DSub => double(f64::from_bits(a) - f64::from_bits(b)),
        Op::DMul => double(f64::from_bits(a) * f64::from_bits(b)),
        Op::DFma => double(f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c))),
        Op::AddSat => saturate(i128::from(x(a) as i64) + i128::from(x(b) as i64), ty),
        Op::SubSat => saturate(i128::from(x(a) as i64) - i128::from(x(b) as i64), ty),
        Op::MulLo => a.wrapping_mul(b),
        Op::MulHi => mul_hi(a, b, ty),
        Op::MulWide => x(a).wrapping_mul(x(b)),
        Op::Mul24Lo => mul24(a, b, signed),
        Op::Mul24Hi => mul24(a, b, signed) >> 16,
        Op::MadLo => a.wrapping_mul(b).wrapping_add(c),
        Op::MadHi => mul_hi(a, b, ty).wrapping_add(c),
        Op::MadWide => x(a).wrapping_mul(x(b)).wrapping_add(c),
        Op::Mad24Lo => mul24(a, b, signed).wrapping_add(c),
        Op::Mad24Hi => (mul24(a, b, signed) >> 16).wrapping_add(c),
        Op::Sad => {
            let (p, q) = (x(a), x(b));
            let distance = if less(p, q, signed) { q.wrapping_sub(p) } else { p.wrapping_sub(q) };
            distance.wrapping_add(c)
        }
        // A division by zero has no defined result; the hardware gives all ones.
        Op::Div if x(b) == 0 => u64::MAX,
        Op::Rem if x(b) == 0 => a,
        Op::Div if signed => (x(a) as i64).wrapping_div(x(b) as i64) as u64,
        Op::Rem if signed => (x(a) as i64).wrapping_rem(x(b) as i64) as u64,
        Op::Div => x(a) / x(b),
        Op::Rem => x(a) % x(b),
        Op::Min => {
            if less(x(a), x(b), signed) {
                a
            } else {
                b
            }
        }
        Op::Max => {
            if less(x(a), x(b), signed) {
                b
            } else {
                a
            }
        }
        Op::Abs => (x(a) as i64).wrapping_abs() as u64,
        Op::Neg => a.wrapping_neg(),
        Op::Not => !a,
        Op::Cnot => (x(a) == 0) as u64,
        Op::And => a & b,
        Op::Or => a | b,
        Op::Xor => a ^ b,
        // Amounts of the type's bits and more count as the type's bits.
        Op::Shl if b as u32 >= bits => 0,
        Op::Shl => a << (b as u32),
        Op::Shr => {
            let amount = (b as u32).min(bits);
            if signed { ((x(a) as i64) >> amount.min(63)) as u64 } else { x(a).checked_shr(amount).unwrap_or(0) }
        }
        Op::ShfL => ((b << 32 | a & 0xffff_ffff) << funnel(c, ins.sub)) >> 32,
        Op::ShfR => (b << 32 | a & 0xffff_ffff) >> funnel(c, ins.sub),
        Op::Lop3 => lop3(a as u32, b as u32, c as u32, ins.imm).into(),
        Op::Prmt => prmt(a as u32, b as u32, selector(c as u32, ins.sub)).into(),
        Op::PrmtConst => prmt(a as u32, b as u32, ins.imm as u32).into(),
        Op::Bfe => bfe(a, b as u32, c as u32, ty),
        Op::Bfi => {
            let (position, length) = (c as u32 & 0xff, e as u32 & 0xff);
            let mask = low(length).checked_shl(position).unwrap_or(0);
            b & !mask | a.checked_shl(position).unwrap_or(0) & mask
        }
        Op::Bmsk => bmsk(a as u32, b as u32, ins.sub == 1).into(),
        Op::Szext => szext(a as u32, b as u32, ins.sub == 1, signed).into(),
        Op::Popc => u64::from(unsigned(a, bits).count_ones()),
        Op::Clz => u64::from(unsigned(a, bits).leading_zeros() - (64 - bits)),
        Op::Brev => a.reverse_bits() >> (64 - bits),
        Op::Bfind => bfind(a, ty, ins.sub == 1).into(),
        Op::Fns => fns(a as u32, b as u32, c as u32).into(),
        Op::Dp4a => dot(a as u32, [b as u8, (b >> 8) as u8, (b >> 16) as u8, (b >> 24) as u8], c as u32, ins).into(),
        Op::Dp2a => dp2a(a as u32, b as u32, c as u32, ins).into(),
        Op::Slct => {
            if c as i32 >= 0 {
                a
            } else {
                b
            }
        }
        Op::Cvt => return convert(ins, a),
        Op::CvtFromInt => {
            let value = if signed { i128::from(x(a) as i64) } else { i128::from(x(a)) };
            format_of(ins.imm).narrow(from_integer(value), style)
        }
        Op::CvtToInt => return float_to_int(ins, a, style),
        Op::CvtFloat => {
            let (from, to) = (format_of(ins.imm), format_of(ins.imm >> 8));
            if (from, to) == (Format::Brain, Format::Single) && !style.saturate {
                // It moves bits, also those of what is no number.
                return (a & 0xffff) << 16;
            }
            let value = from.widen(a);
            let value = if from == Format::Single { style.operand(value as f32).into() } else { value };
            to.narrow(if ins.mode == 1 { whole(value, style.rounding) } else { value }, style)
        }
        Op::CvtPair => {
            let part = |value: u64| format_of(ins.imm).narrow(f32_of(value).into(), style);
            part(a) << 16 | part(b)
        }
        other => unreachable!("{other:?} is no operation on numbers"),
    };
    ins.to.extend(result) & mask_of(ins.to)
}

#[inline(always)]
pub(super) fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn format_of(imm: u64) -> Format {
    Format::ALL[(imm & 0xff) as usize]
}

fn double(value: f64) -> u64 {
    Format::Double.narrow(value, Style::PLAIN)
}

/// Divides by the reciprocal's rule: it is 0 where it would be subnormal.
fn divide_fast(style: Style, a: f32, b: f32) -> u32 {
    if style.operand(b).abs() <= 2f32.powi(126) || !b.is_finite() {
        return style.divide(a, b);
    }
    style.multiply(a, 0f32.copysign(b))
}

fn float_to_int(ins: &Ins, a: u64, style: Style) -> u64 {
    let from = format_of(ins.imm);
    let value = from.widen(a);
    let value = if from == Format::Single { style.operand(value as f32).into() } else { value };
    let (bits, signed) = (ins.to.bits(), ins.to.signed());
    let result = to_integer(value, bits, signed, style.rounding, from == Format::Double);
    ins.to.extend(result) & low(ins.mode.into())
}

/// Returns the bits of a result. A device has one NaN, whatever the operands were.
#[inline(always)]
pub(super) fn float(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits().into() }
}

/// Returns the bits that a register of this type holds.
fn mask_of(ty: Ty) -> u64 {
    low(ty.bits())
}

/// Returns a mask of that many low bits.
fn low(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn unsigned(value: u64, bits: u32) -> u64 {
    value & low(bits)
}

/// Compares two extended values.
#[inline(always)]
pub(super) fn less(a: u64, b: u64, signed: bool) -> bool {
    if signed { (a as i64) < (b as i64) } else { a < b }
}

/// Compares two raw values.
#[inline(always)]
pub(super) fn compares(sub: u8, a: u64, b: u64, ty: Ty) -> bool {
    let (a, b) = (ty.extend(a), ty.extend(b));
    let signed = ty.signed();
    match sub {
        compare::EQ => a == b,
        compare::NE => a != b,
        compare::LT => less(a, b, signed),
        compare::LE => !less(b, a, signed),
        compare::GT => less(b, a, signed),
        _ => !less(a, b, signed),
    }
}

fn saturate(value: i128, ty: Ty) -> u64 {
    let (least, most) = range(ty);
    value.clamp(least, most) as u64
}

/// Returns the least and the greatest value of a type.
fn range(ty: Ty) -> (i128, i128) {
    let bits = ty.bits();
    if ty.signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn mul_hi(a: u64, b: u64, ty: Ty) -> u64 {
    let (a, b) = (ty.extend(a), ty.extend(b));
    if ty.signed() {
        ((i128::from(a as i64) * i128::from(b as i64)) >> ty.bits()) as u64
    } else {
        ((u128::from(a) * u128::from(b)) >> ty.bits()) as u64
    }
}

/// Returns all 48 bits of a product of 24 bits each.
fn mul24(a: u64, b: u64, signed: bool) -> u64 {
    let part = |value: u64| {
        let value = value as u32 & 0xff_ffff;
        if signed { i64::from((value << 8) as i32 >> 8) as u64 } else { value.into() }
    };
    part(a).wrapping_mul(part(b)) & 0xffff_ffff_ffff
}

/// Returns a funnel shift's amount.
fn funnel(amount: u64, clamp: u8) -> u32 {
    if clamp == 1 { (amount as u32).min(32) } else { amount as u32 & 31 }
}

/// Calculates any function of three bits, by its table.
#[inline(always)]
pub(super) fn lop3(a: u32, b: u32, c: u32, table: u64) -> u32 {
    // Each pair of the table's bits, by c; then the pairs by b, then by a.
    let leaf = |at: u32| {
        let (zero, one) = (spread(table, at), spread(table, at + 1));
        zero ^ c & (zero ^ one)
    };
    let node = |at: u32| leaf(at) ^ b & (leaf(at) ^ leaf(at + 2));
    node(0) ^ a & (node(0) ^ node(4))
}

#[inline(always)]
fn spread(table: u64, at: u32) -> u32 {
    ((table >> at & 1) as u32).wrapping_neg()
}

/// Picks four of eight bytes; bit 3 of a selector spreads the byte's sign instead.
fn prmt(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut result = 0;
    for at in 0..4 {
        let nibble = selector >> (4 * at) & 15;
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let byte = if nibble & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 };
        result |= u32::from(byte) << (8 * at);
    }
    result
}

/// Returns the selector that a mode of `prmt` makes of its two bits.
fn selector(c: u32, mode: u8) -> u32 {
    let table = match mode {
        0 => return c,
        1 => [0x3210, 0x4321, 0x5432, 0x6543],
        2 => [0x5670, 0x6701, 0x7012, 0x0123],
        3 => [0x0000, 0x1111, 0x2222, 0x3333],
        4 => [0x3210, 0x3211, 0x3222, 0x3333],
        5 => [0x0000, 0x1110, 0x2210, 0x3210],
        _ => [0x1010, 0x3232, 0x1010, 0x3232],
    };
    table[(c & 3) as usize]
}

fn bfe(a: u64, position: u32, length: u32, ty: Ty) -> u64 {
    let (position, length, bits) = (position & 0xff, length & 0xff, ty.bits());
    let value = unsigned(a, bits);
    if length == 0 {
        return 0;
    }
    // The sign is the field's last bit, or the value's last where the field reaches beyond it.
    let last = (position + length - 1).min(bits - 1);
    let sign = ty.signed() && value >> last & 1 == 1;
    let field = value.checked_shr(position).unwrap_or(0) & low(length);
    let taken = bits.saturating_sub(position).min(length);
    if sign { field | !low(taken) } else { field }
}

fn bfind(a: u64, ty: Ty, amount: bool) -> u32 {
    let bits = ty.bits();
    let mut value = unsigned(a, bits);
    if ty.signed() && value >> (bits - 1) == 1 {
        value = unsigned(!value, bits);
    }
    match value.checked_ilog2() {
        None => u32::MAX,
        Some(last) if amount => bits - 1 - last,
        Some(last) => last,
    }
}

/// Returns the position of the offset-th one bit from `base`, upwards or downwards.
fn fns(mask: u32, base: u32, offset: u32) -> u32 {
    let (base, offset) = (base as i64, offset as i32);
    if offset == 0 {
        return if base < 32 && mask >> base & 1 == 1 { base as u32 } else { u32::MAX };
    }
    let (mut at, step, mut left) = (base, offset.signum() as i64, offset.unsigned_abs());
    while (0..32).contains(&at) {
        left -= mask >> at & 1;
        if left == 0 {
            return at as u32;
        }
        at += step;
    }
    u32::MAX
}

/// Ones from `a`, `b` of them.
fn bmsk(a: u32, b: u32, clamp: bool) -> u32 {
    if clamp {
        let ones = low(b.min(32)) as u32;
        ones.checked_shl(a).unwrap_or(0)
    } else {
        (low(b & 31) as u32) << (a & 31)
    }
}

/// Returns the low `b` bits of `a`, extended.
fn szext(a: u32, b: u32, clamp: bool, signed: bool) -> u32 {
    let length = if clamp { b.min(32) } else { b & 31 };
    match length {
        0 => 0,
        _ if signed => ((a << (32 - length)) as i32 >> (32 - length)) as u32,
        _ => a & low(length) as u32,
    }
}

fn lane_of(value: u64, ty: Ty, bits: u32) -> i64 {
    let field = unsigned(value, bits);
    if ty.signed() { ((field << (64 - bits)) as i64) >> (64 - bits) } else { field as i64 }
}

fn dot(a: u32, b: [u8; 4], c: u32, ins: &Ins) -> u32 {
    let sum: i64 =
        (0..4).map(|at| lane_of(u64::from(a) >> (8 * at), ins.ty, 8) * lane_of(b[at as usize].into(), ins.to, 8)).sum();
    c.wrapping_add(sum as u32)
}

fn dp2a(a: u32, b: u32, c: u32, ins: &Ins) -> u32 {
    let b = b >> (16 * u32::from(ins.sub));
    let sum: i64 = (0..2)
        .map(|at| lane_of(u64::from(a) >> (16 * at), ins.ty, 16) * lane_of(u64::from(b) >> (8 * at), ins.to, 8))
        .sum();
    c.wrapping_add(sum as u32)
}

fn convert(ins: &Ins, a: u64) -> u64 {
    let value = ins.ty.extend(a);
    let value = if ins.sub == 1 {
        let wide = if ins.ty.signed() { i128::from(value as i64) } else { i128::from(value) };
        saturate(wide, ins.to)
    } else {
        value
    };
    ins.to.extend(value) & low(ins.mode.into())
}

/// Calculates with a carry: returns the result and the new carry.
pub(super) fn with_carry(ins: &Ins, [a, b, c]: [u64; 3], carry_in: bool) -> (u64, bool) {
    use super::ir::carry::*;
    let bits = ins.ty.bits();
    let carry = u128::from(ins.sub & IN != 0 && carry_in);
    let (x, y) = match ins.sub & (MUL_LO | MUL_HI) {
        0 => (unsigned(a, bits), unsigned(b, bits)),
        MUL_LO => (unsigned(a.wrapping_mul(b), bits), unsigned(c, bits)),
        _ => (unsigned(mul_hi(a, b, ins.ty), bits), unsigned(c, bits)),
    };
    let (x, y) = (u128::from(x), u128::from(y));
    if ins.sub & SUB != 0 {
        let result = x.wrapping_sub(y).wrapping_sub(carry);
        (unsigned(result as u64, bits), x < y + carry)
    } else {
        let result = x + y + carry;
        (unsigned(result as u64, bits), result >> bits != 0)
    }
}

/// Returns what an atomic operation (or one step of a reduction) leaves in memory.
pub(super) fn atomic(sub: u8, old: u64, b: u64, c: u64, ty: Ty) -> u64 {
    use super::ir::atom::*;
    let smaller = less(ty.extend(b), ty.extend(old), ty.signed());
    let new = match sub {
        ADD => old.wrapping_add(b),
        MIN => {
            if smaller {
                b
            } else {
                old
            }
        }
        MAX => {
            if smaller {
                old
            } else {
                b
            }
        }
        AND => old & b,
        OR => old | b,
        XOR => old ^ b,
        EXCH => b,
        CAS => {
            if ty.extend(old) == ty.extend(b) {
                c
            } else {
                old
            }
        }
        INC => {
            if ty.extend(old) >= ty.extend(b) {
                0
            } else {
                old.wrapping_add(1)
            }
        }
        DEC => {
            if old == 0 || ty.extend(old) > ty.extend(b) {
                b
            } else {
                old.wrapping_sub(1)
            }
        }
        other => unreachable!("there is no atomic {other}"),
    };
    unsigned(new, ty.bits())
}
