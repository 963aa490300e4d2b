//! What each operation on numbers gives, one lane at a time.

use super::ir::{Compare, Fold, Join};

/// Adds up to three numbers of which some are subtracted, and carries. A number is subtracted as its complement and one, which
/// is what makes the carry of `a - b` say that nothing was borrowed. Returns the sum and how often it carried.
pub(super) fn add(terms: [(u32, bool, bool); 3], carries: u32) -> (u32, u32) {
    let mut sum = u64::from(carries);
    for (value, negative, inverted) in terms {
        sum += u64::from(if negative || inverted { !value } else { value }) + u64::from(negative);
    }
    (sum as u32, (sum >> 32) as u32)
}

/// Compares two numbers of 32 or 64 bits. `lower` is the result for lower halves, where these are the upper ones.
pub(super) fn compare(compare: Compare, less: bool, equal: bool, lower: Option<bool>) -> bool {
    let greater = !less && !equal;
    match (compare, lower) {
        (Compare::Less, None) => less,
        (Compare::LessEqual, None) => !greater,
        (Compare::Greater, None) => greater,
        (Compare::GreaterEqual, None) => !less,
        (Compare::Equal, None) => equal,
        (Compare::NotEqual, None) => !equal,
        (Compare::Less | Compare::LessEqual, Some(lower)) => less || equal && lower,
        (Compare::Greater | Compare::GreaterEqual, Some(lower)) => greater || equal && lower,
        (Compare::Equal, Some(lower)) => equal && lower,
        (Compare::NotEqual, Some(lower)) => !equal || lower,
    }
}

pub(super) fn join(join: Join, a: bool, b: bool) -> bool {
    match join {
        Join::And => a && b,
        Join::Or => a || b,
        Join::Xor => a != b,
    }
}

/// Looks every bit up in a table of eight.
pub(super) fn logic(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let mut result = 0;
    for index in 0..8 {
        if table >> index & 1 == 1 {
            let pick = |bit: u32, value: u32| if index >> bit & 1 == 1 { value } else { !value };
            result |= pick(2, a) & pick(1, b) & pick(0, c);
        }
    }
    result
}

/// Picks four of eight bytes; a selector's highest bit asks for the byte's sign instead.
pub(super) fn permute(low: u32, selectors: u32, high: u32) -> u32 {
    let bytes = u64::from(low) | u64::from(high) << 32;
    (0..4).fold(0, |result, at| {
        let selector = selectors >> (4 * at) & 15;
        let byte = (bytes >> (8 * (selector & 7))) as u8;
        let byte = if selector & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 };
        result | u32::from(byte) << (8 * at)
    })
}

/// The way of a shift.
#[derive(Clone, Copy)]
pub(super) struct Funnel {
    pub(super) left: bool,
    pub(super) wide: bool,
    pub(super) signed: bool,
    pub(super) wrap: bool,
    pub(super) high: bool,
}

/// Shifts two registers as one, and returns one of them. Distances wrap, or stop at the width.
pub(super) fn shift(way: Funnel, low: u32, distance: u32, high: u32) -> u32 {
    let width = if way.wide { 64 } else { 32 };
    let distance = if way.wrap { distance % width } else { distance.min(width) };
    let both = u64::from(low) | u64::from(high) << 32;
    let shifted = match (way.left, way.signed) {
        (true, _) => u128::from(both) << distance,
        (false, false) => u128::from(both >> distance.min(63) >> (distance == 64) as u32),
        (false, true) => (both as i64 >> distance.min(63)) as u64 as u128,
    };
    if way.high { (shifted >> 32) as u32 } else { shifted as u32 }
}

/// Changes a number by another.
pub(super) fn fold(fold: Fold, signed: bool, a: u32, b: u32) -> u32 {
    let less = if signed { (a as i32) < (b as i32) } else { a < b };
    match fold {
        Fold::Add => a.wrapping_add(b),
        Fold::Min => {
            if less {
                a
            } else {
                b
            }
        }
        Fold::Max => {
            if less {
                b
            } else {
                a
            }
        }
        Fold::And => a & b,
        Fold::Or => a | b,
        Fold::Xor => a ^ b,
        Fold::Exchange => b,
    }
}

/// Returns whether a quotient takes more than a reciprocal and its corrections: where an operand is no normal number, or where
/// the quotient or what is left of `a` might not be one. Hardware has a rule of its own; code is right with either.
pub(super) fn division_is_hard(a: f32, b: f32) -> bool {
    let exponent = |value: f32| (value.to_bits() >> 23 & 0xff) as i32 - 127;
    let (a, b) = (exponent(a), exponent(b));
    !(-100..=126).contains(&a) || !(-125..=125).contains(&b) || !(-125..=125).contains(&(a - b))
}

/// Returns the 16 bits of a float that must fit them exactly.
pub(super) fn half(value: f64) -> Option<u16> {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    (0..0x7c00u16)
        .find(|&bits| {
            let (exponent, fraction) = (i32::from(bits >> 10), f64::from(bits & 0x3ff));
            let of = if exponent == 0 {
                fraction / 1024.0 * 2f64.powi(-14)
            } else {
                (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15)
            };
            of == magnitude
        })
        .map(|bits| sign | bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_say_that_nothing_was_borrowed() {
        let sub = |a, b| add([(a, false, false), (b, true, false), (0, false, false)], 0);
        assert_eq!(sub(5, 3), (2, 1));
        assert_eq!(sub(3, 5), (0u32.wrapping_sub(2), 0));
        assert_eq!(sub(3, 0), (3, 1));
        // The upper halves of 64 bits: 0x1_0000_0000 - 1.
        let (low, carry) = sub(0, 1);
        assert_eq!((low, add([(1, false, false), (0, false, true), (0, false, false)], carry).0), (u32::MAX, 0));
        assert_eq!(add([(u32::MAX, false, false), (u32::MAX, false, false), (2, false, false)], 0), (0, 2));
    }

    #[test]
    fn upper_halves_are_compared_after_lower_ones() {
        let pairs = [0u64, 1, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX, u64::MAX - 1, 1 << 63];
        for a in pairs {
            for b in pairs {
                for (name, want) in [
                    (Compare::Less, a < b),
                    (Compare::LessEqual, a <= b),
                    (Compare::Greater, a > b),
                    (Compare::GreaterEqual, a >= b),
                    (Compare::Equal, a == b),
                    (Compare::NotEqual, a != b),
                ] {
                    let (low_a, low_b, high_a, high_b) = (a as u32, b as u32, a >> 32, b >> 32);
                    let lower = compare(name, low_a < low_b, low_a == low_b, None);
                    assert_eq!(
                        compare(name, high_a < high_b, high_a == high_b, Some(lower)),
                        want,
                        "{a:x} {name:?} {b:x}"
                    );
                    assert_eq!(compare(name, a < b, a == b, None), want);
                }
            }
        }
    }

    #[test]
    fn shifts_have_their_ends() {
        let way = |left, wide, wrap, high| Funnel { left, wide, signed: false, wrap, high };
        let (low, high) = (0x8765_4321u32, 0xfedc_ba98u32);
        let both = u64::from(high) << 32 | u64::from(low);
        for distance in 0..70 {
            let stopped = distance.min(64);
            let right = both.checked_shr(stopped).unwrap_or(0);
            let left = both.checked_shl(stopped).unwrap_or(0);
            assert_eq!(shift(way(false, true, false, false), low, distance, high), right as u32);
            assert_eq!(shift(way(true, true, false, true), low, distance, high), (left >> 32) as u32);
            assert_eq!(shift(way(true, false, false, false), low, distance, 0), low.checked_shl(distance).unwrap_or(0));
            assert_eq!(shift(way(false, false, false, true), 0, distance, low), low.checked_shr(distance).unwrap_or(0));
            let turned = low.rotate_left(distance);
            assert_eq!(shift(way(true, false, true, true), low, distance, low), turned);
            assert_eq!(shift(way(false, false, true, false), low, distance, low), low.rotate_right(distance));
        }
        let signed = Funnel { signed: true, ..way(false, false, false, true) };
        assert_eq!(shift(signed, 0, 40, 0x8000_0000), 0xffff_ffff);
        assert_eq!(shift(signed, 0, 4, 0x8000_0000), 0xf800_0000);
    }

    #[test]
    fn bytes_bits_and_floats() {
        assert_eq!(permute(0x8070_6050, 0xf410, 0x4433_2211), 0x0011_6050);
        assert_eq!(permute(0x8070_6050, 0x000b, 0), 0x5050_50ff);
        let (a, b, c) = (0xf0f0_f0f0, 0xcccc_cccc, 0xaaaa_aaaa);
        assert_eq!(logic(0xc0, a, b, c), a & b);
        assert_eq!(logic(0xfc, a, b, c), a | b);
        assert_eq!(logic(0x3c, a, b, c), a ^ b);
        assert_eq!(logic(0x6a, a, b, c), a & b ^ c);
        assert_eq!(logic(0xf8, a, b, c), a | b & c);
        assert!(!division_is_hard(1.0, 3.0) && division_is_hard(0.0, 3.0) && division_is_hard(1e-38, 3.0));
        assert!(
            division_is_hard(1.0, f32::INFINITY) && division_is_hard(1e30, 1e-30) && !division_is_hard(-1e20, 1e-10)
        );
        assert_eq!(
            [half(15.0), half(-0.0), half(2f64.powi(-24)), half(0.1)],
            [Some(0x4b80), Some(0x8000), Some(1), None]
        );
    }
}
