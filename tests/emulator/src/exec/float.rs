//! Floats as both interpreters know them: rounding, subnormal numbers, the one NaN of a device, conversions, approximations,
//! and products of small matrices.
//!
//! Arithmetic, divisions, roots with a rounding, and conversions are those of IEEE 754. Three things the hardware does not
//! define, or defines by a bound only; here they are:
//!
//! - **Approximations** (`ex2`, `lg2`, `rcp`, `rsqrt`, `sqrt`, `sin`, `cos`, `tanh`) are the exact value rounded to 32 bits, as
//!   far as the host's functions of 64 bits are exact. That is within every bound that the PTX manual gives.
//! - **Products of matrices** (`mma`) begin with the element of C and add the products in the order of k, from the lowest. Each
//!   product is exact, each sum is rounded to the nearest 32 bits; subnormal numbers count. A tensor core adds several products at
//!   once, and cuts off what is far below the largest: its results differ from these in the last bits.
//! - **Flushed results** (`.ftz`) are those that are subnormal after they were rounded.

/// How a float is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    Zero,
    Up,
    Down,
}

/// The bits of the NaN that operations give, whatever their operands were.
pub(crate) const NAN: u32 = 0x7fff_ffff;

/// How an operation on floats of 32 bits treats its operands and its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) rounding: Rounding,
    /// Subnormal operands and results become zeros of the same sign.
    pub(crate) flush: bool,
    /// The result is brought between 0 and 1; NaN becomes 0.
    pub(crate) saturate: bool,
}

impl Style {
    pub(crate) const PLAIN: Style = Style { rounding: Rounding::Nearest, flush: false, saturate: false };

    /// Returns the style as a byte that is 0 for the plain one.
    pub(crate) fn bits(self) -> u8 {
        self.rounding as u8 | u8::from(self.flush) << 2 | u8::from(self.saturate) << 3
    }

    /// Returns the style of that byte.
    pub(crate) fn of(bits: u8) -> Style {
        let rounding = [Rounding::Nearest, Rounding::Zero, Rounding::Up, Rounding::Down][usize::from(bits & 3)];
        Style { rounding, flush: bits & 4 != 0, saturate: bits & 8 != 0 }
    }

    /// Returns an operand as the operation takes it.
    pub(crate) fn operand(self, value: f32) -> f32 {
        if self.flush { flushed(value) } else { value }
    }

    /// Returns the bits of a result that is rounded already.
    pub(crate) fn result(self, value: f32) -> u32 {
        let value = self.operand(value);
        if self.saturate {
            let positive = if value > 0.0 { value } else { 0.0 };
            return positive.min(1.0).to_bits();
        }
        if value.is_nan() { NAN } else { value.to_bits() }
    }

    pub(crate) fn add(self, a: f32, b: f32) -> u32 {
        let (a, b) = (self.operand(a), self.operand(b));
        self.result(match self.rounding {
            Rounding::Nearest => a + b,
            rounding => sum(a.into(), b.into(), rounding),
        })
    }

    pub(crate) fn multiply(self, a: f32, b: f32) -> u32 {
        let (a, b) = (self.operand(a), self.operand(b));
        // The product of two floats is exact in 64 bits.
        self.result(round(f64::from(a) * f64::from(b), self.rounding))
    }

    pub(crate) fn fused(self, a: f32, b: f32, c: f32) -> u32 {
        let (a, b, c) = (self.operand(a), self.operand(b), self.operand(c));
        self.result(match self.rounding {
            Rounding::Nearest => a.mul_add(b, c),
            rounding => sum(f64::from(a) * f64::from(b), c.into(), rounding),
        })
    }

    /// Divides, rounded to the nearest.
    pub(crate) fn divide(self, a: f32, b: f32) -> u32 {
        self.result(self.operand(a) / self.operand(b))
    }

    /// Returns the smaller of two, or the larger one. A NaN counts for nothing beside a number unless `nan` is set; -0 is below 0.
    pub(crate) fn extreme(self, a: f32, b: f32, smaller: bool, nan: bool) -> u32 {
        let (a, b) = (self.operand(a), self.operand(b));
        let below = a < b || a == b && a.is_sign_negative();
        self.result(match (a.is_nan(), b.is_nan()) {
            (true, _) | (_, true) if nan => f32::NAN,
            (true, _) => b,
            (_, true) => a,
            _ if below == smaller => a,
            _ => b,
        })
    }

    pub(crate) fn function(self, function: Function, value: f32) -> u32 {
        self.result(function.of(self.operand(value)))
    }
}

fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// Functions of one float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Reciprocal,
    Root,
    InverseRoot,
    /// 2 to the power of it.
    Power,
    /// The logarithm to the base of 2.
    Logarithm,
    Sine,
    Cosine,
    Tangent,
}

impl Function {
    pub(crate) const ALL: [Function; 8] = [
        Function::Reciprocal,
        Function::Root,
        Function::InverseRoot,
        Function::Power,
        Function::Logarithm,
        Function::Sine,
        Function::Cosine,
        Function::Tangent,
    ];

    /// Returns the value rounded to the nearest. `Tangent` is the hyperbolic one.
    fn of(self, value: f32) -> f32 {
        let wide = f64::from(value);
        let wide = match self {
            Function::Reciprocal => return 1.0 / value,
            Function::Root => return value.sqrt(),
            Function::InverseRoot => 1.0 / wide.sqrt(),
            Function::Power => wide.exp2(),
            Function::Logarithm => wide.log2(),
            Function::Sine => wide.sin(),
            Function::Cosine => wide.cos(),
            Function::Tangent => wide.tanh(),
        };
        wide as f32
    }

    /// Returns what the unit for functions gives: subnormal numbers are zeros on both sides, and angles are in turns.
    pub(crate) fn of_unit(self, value: f32) -> u32 {
        let flush = Style { flush: true, ..Style::PLAIN };
        match self {
            Function::Sine | Function::Cosine => {
                let angle = f64::from(flushed(value)) * std::f64::consts::TAU;
                flush.result((if self == Function::Sine { angle.sin() } else { angle.cos() }) as f32)
            }
            _ => flush.function(self, value),
        }
    }
}

/// Compares two floats: `less`, `equal` and `greater` say for which relations the result is true, `unordered` what it is if one
/// is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) less: bool,
    pub(crate) equal: bool,
    pub(crate) greater: bool,
    pub(crate) unordered: bool,
}

impl Relation {
    /// Returns the relation of that name, with or without the `u` of those that hold for NaN; `num` and `nan` ask for just that.
    pub(crate) fn named(name: &str) -> Option<Relation> {
        let (stem, unordered) = match name {
            "num" => return Some(Relation { less: true, equal: true, greater: true, unordered: false }),
            "nan" => return Some(Relation { less: false, equal: false, greater: false, unordered: true }),
            name => (name.strip_suffix('u').unwrap_or(name), name.ends_with('u')),
        };
        let (less, equal, greater) = match stem {
            "eq" => (false, true, false),
            "ne" => (true, false, true),
            "lt" => (true, false, false),
            "le" => (true, true, false),
            "gt" => (false, false, true),
            "ge" => (false, true, true),
            _ => return None,
        };
        Some(Relation { less, equal, greater, unordered })
    }

    /// Returns the relation as a byte.
    pub(crate) fn bits(self) -> u8 {
        [self.less, self.equal, self.greater, self.unordered]
            .into_iter()
            .rev()
            .fold(0, |bits, is| bits << 1 | u8::from(is))
    }

    /// Returns whether the relation of that byte holds.
    #[inline(always)]
    pub(crate) fn holds(bits: u8, a: f32, b: f32) -> bool {
        let at = match (a < b, a > b, a == b) {
            (true, _, _) => 0,
            (_, _, true) => 1,
            (_, true, _) => 2,
            _ => 3,
        };
        bits >> at & 1 == 1
    }
}

/// Rounds a number that is exact, or close enough that its error cannot change the result, to 32 bits.
pub(crate) fn round(value: f64, rounding: Rounding) -> f32 {
    let nearest = value as f32;
    let up = |float: f32| if f64::from(float) < value { float.next_up() } else { float };
    let down = |float: f32| if f64::from(float) > value { float.next_down() } else { float };
    match rounding {
        Rounding::Nearest => nearest,
        Rounding::Up => up(nearest),
        Rounding::Down => down(nearest),
        Rounding::Zero if value < 0.0 => up(nearest),
        Rounding::Zero => down(nearest),
    }
}

/// Adds two numbers of 64 bits that are a product of floats and a float, rounded once to 32 bits.
fn sum(a: f64, b: f64, rounding: Rounding) -> f32 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum as f32;
    }
    if sum == 0.0 {
        // A zero of two signs is negative where sums are rounded down.
        let signs = a.is_sign_negative() != b.is_sign_negative();
        return if signs && rounding == Rounding::Down { -0.0 } else { sum as f32 };
    }
    let of_b = sum - a;
    let error = (a - (sum - of_b)) + (b - of_b);
    round(to_odd(sum, error), rounding)
}

/// Returns `sum + error`, cut off towards zero, with its last bit set if anything was cut off: enough to round it once more.
fn to_odd(sum: f64, error: f64) -> f64 {
    if error == 0.0 {
        return sum;
    }
    let towards_zero = (error > 0.0) != (sum > 0.0);
    f64::from_bits((sum.to_bits() - u64::from(towards_zero)) | 1)
}

/// Rounds to a whole number.
pub(crate) fn whole(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Up => value.ceil(),
        Rounding::Down => value.floor(),
    }
}

/// Returns a float as a whole number of so many bits, the nearest one if it does not fit. NaN becomes 0, or with 64 bits on one side
/// the number of which only the highest bit is set.
pub(crate) fn to_integer(value: f64, bits: u32, signed: bool, rounding: Rounding, from_64: bool) -> u64 {
    if value.is_nan() {
        return if bits == 64 || from_64 { 1 << (bits - 1) } else { 0 };
    }
    let (least, most) =
        if signed { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
    (whole(value, rounding) as i128).clamp(least, most) as u64
}

/// Returns a whole number of at most 64 bits as one that can be rounded to any float.
pub(crate) fn from_integer(value: i128) -> f64 {
    let nearest = value as f64;
    to_odd(nearest, (value - nearest as i128) as f64)
}

/// Formats of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Half,
    Brain,
    Single,
    Double,
}

impl Format {
    pub(crate) const ALL: [Format; 4] = [Format::Half, Format::Brain, Format::Single, Format::Double];

    /// Returns the value of those bits.
    pub(crate) fn widen(self, bits: u64) -> f64 {
        match self {
            Format::Half => from_half(bits as u16),
            Format::Brain => f32::from_bits((bits as u32) << 16).into(),
            Format::Single => f32::from_bits(bits as u32).into(),
            Format::Double => f64::from_bits(bits),
        }
    }

    /// Returns the bits of a value that is exact. NaN becomes the one of the format.
    pub(crate) fn narrow(self, value: f64, style: Style) -> u64 {
        match self {
            Format::Half if value.is_nan() => 0x7fff,
            Format::Half => to_half(value, style.rounding).into(),
            Format::Brain if value.is_nan() => 0x7fff,
            Format::Brain => to_brain(value, style.rounding).into(),
            Format::Single => style.result(round(value, style.rounding)).into(),
            Format::Double if value.is_nan() => 0x7fff_ffff_ffff_ffff,
            Format::Double => value.to_bits(),
        }
    }
}

/// Returns the value of a float of 16 bits with 5 bits of exponent.
fn from_half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction != 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn to_half(value: f64, rounding: Rounding) -> u16 {
    let sign = u16::from(value.is_sign_negative()) << 15;
    if value.is_infinite() {
        return sign | 0x7c00;
    }
    let exponent = (((value.to_bits() >> 52 & 0x7ff) as i32) - 1023).max(-14);
    if exponent > 15 {
        return sign | beyond(value, rounding, 0x7bff);
    }
    let units = whole(value * 2f64.powi(10 - exponent), rounding).abs() as u16;
    let bits = ((exponent + 14) as u16) << 10;
    sign | if bits + units >= 0x7c00 { beyond(value, rounding, 0x7bff) } else { bits + units }
}

/// Returns infinity, or the largest number where a value beyond it is rounded towards zero.
fn beyond(value: f64, rounding: Rounding, largest: u16) -> u16 {
    let back = match rounding {
        Rounding::Nearest => false,
        Rounding::Zero => true,
        Rounding::Up => value < 0.0,
        Rounding::Down => value > 0.0,
    };
    if back { largest } else { largest + 1 }
}

fn to_brain(value: f64, rounding: Rounding) -> u16 {
    let bits = (value as f32).to_bits();
    let up = match rounding {
        Rounding::Nearest => bits & 0xffff > 0x8000 || bits & 0x1_ffff == 0x1_8000,
        Rounding::Zero => false,
        Rounding::Up => bits >> 31 == 0 && bits & 0xffff != 0,
        Rounding::Down => bits >> 31 == 1 && bits & 0xffff != 0,
    };
    (bits >> 16) as u16 + u16::from(up)
}

/// Multiplies A of 16 rows and 16 columns by B of 16 rows and 8 columns, both of bf16, and adds C, for the 32 lanes of a warp as
/// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32` has them in registers. The order of sums is stated above.
pub(crate) fn mma(a: &[[u32; 32]; 4], b: &[[u32; 32]; 2], c: &[[u32; 32]; 4]) -> [[u32; 32]; 4] {
    let brain = |word: u32, k: usize| f32::from_bits(if k.is_multiple_of(2) { word << 16 } else { word & 0xffff_0000 });
    // The lane of a group of four that has a k, and which of its registers.
    let place = |k: usize| (k % 8 / 2, k / 8);
    let mut d = *c;
    for (at, d) in d.iter_mut().enumerate() {
        for (lane, d) in d.iter_mut().enumerate() {
            let (group, column) = (lane / 4, 2 * (lane % 4) + at % 2);
            let sum = (0..16).fold(f32::from_bits(*d), |sum, k| {
                let (owner, half) = place(k);
                let left = brain(a[at / 2 + 2 * half][4 * group + owner], k);
                left.mul_add(brain(b[half][4 * column + owner], k), sum)
            });
            *d = Style::PLAIN.result(sum);
        }
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDINGS: [Rounding; 4] = [Rounding::Nearest, Rounding::Zero, Rounding::Up, Rounding::Down];

    fn style(rounding: Rounding) -> Style {
        Style { rounding, ..Style::PLAIN }
    }

    #[test]
    fn styles_are_bytes() {
        for bits in 0..16 {
            assert_eq!(Style::of(bits).bits(), bits);
        }
        assert_eq!(Style::PLAIN.bits(), 0);
    }

    #[test]
    fn sums_are_rounded_once_in_all_ways() {
        // 1 + 2^-60 and 1 - 2^-60: a sum of 64 bits alone would be 1.
        let (tiny, above, below) = (2f32.powi(-60), 1f32.next_up(), 1f32.next_down());
        let sums = |b: f32| ROUNDINGS.map(|rounding| f32::from_bits(style(rounding).add(1.0, b)));
        assert_eq!(sums(tiny), [1.0, 1.0, above, 1.0]);
        assert_eq!(sums(-tiny), [1.0, below, 1.0, below]);
        let negative = ROUNDINGS.map(|rounding| f32::from_bits(style(rounding).add(-1.0, -tiny)));
        assert_eq!(negative, [-1.0, -1.0, -1.0, -above]);
        // A product of 48 bits and what is far below it.
        let odd = 16_777_215f32;
        let fused = ROUNDINGS.map(|rounding| f32::from_bits(style(rounding).fused(odd, odd, tiny)));
        let down = 281_474_943_156_224f32;
        assert_eq!(fused, [down, down, down.next_up(), down]);
        // Zeros of two signs.
        assert_eq!(ROUNDINGS.map(|rounding| style(rounding).add(1.0, -1.0)), [0, 0, 0, 0x8000_0000]);
        assert_eq!(style(Rounding::Down).add(0.0, 0.0), 0);
        assert_eq!(style(Rounding::Up).add(-0.0, -0.0), 0x8000_0000);
        // Too large to be a float.
        let most = ROUNDINGS.map(|rounding| f32::from_bits(style(rounding).multiply(f32::MAX, 2.0)));
        assert_eq!(most, [f32::INFINITY, f32::MAX, f32::INFINITY, f32::MAX]);
        assert_eq!(style(Rounding::Zero).fused(f32::INFINITY, 1.0, f32::NEG_INFINITY), NAN);
    }

    #[test]
    fn subnormal_numbers_are_kept_or_flushed() {
        let flush = Style { flush: true, ..Style::PLAIN };
        let small = f32::from_bits(0x8000_0001);
        assert_eq!((flush.add(small, 0.0), flush.add(small, -0.0)), (0, 0x8000_0000));
        assert_eq!(
            (flush.multiply(f32::MIN_POSITIVE, -0.5), Style::PLAIN.multiply(small, 1.0)),
            (0x8000_0000, 0x8000_0001)
        );
        assert_eq!(flush.fused(small, 1e30, 1.0), 1f32.to_bits());
        let saturate = Style { saturate: true, ..Style::PLAIN };
        let saturated = [f32::NAN, -0.0, -1.0, 0.25, 3.0].map(|value| saturate.multiply(value, 1.0));
        assert_eq!(saturated, [0, 0, 0, 0.25f32.to_bits(), 1f32.to_bits()]);
    }

    #[test]
    fn extremes_and_relations_know_nan_and_zeros() {
        let plain = Style::PLAIN;
        let pick = |a: f32, b: f32| [plain.extreme(a, b, true, false), plain.extreme(a, b, false, false)];
        assert_eq!(pick(0.0, -0.0), [0x8000_0000, 0]);
        assert_eq!(pick(-0.0, 0.0), [0x8000_0000, 0]);
        assert_eq!(pick(f32::NAN, 2.0), [2f32.to_bits(); 2]);
        assert_eq!(pick(2.0, f32::NAN), [2f32.to_bits(); 2]);
        assert_eq!(pick(f32::NAN, f32::NAN), [NAN; 2]);
        assert_eq!(plain.extreme(1.0, f32::NAN, true, true), NAN);
        let names = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
        let of = |a: f32, b: f32| {
            let bits = names.map(|name| Relation::named(name).unwrap().bits());
            bits.map(|bits| Relation::holds(bits, a, b))
                .iter()
                .fold(String::new(), |text, &is| text + if is { "1" } else { "0" })
        };
        assert_eq!(of(1.0, 2.0), "01110001110010");
        assert_eq!(of(2.0, 1.0), "01001101001110");
        assert_eq!(of(0.0, -0.0), "10010110010110");
        assert_eq!(of(f32::NAN, 1.0), "00000011111101");
    }

    #[test]
    fn functions_have_their_special_values() {
        let inf = f32::INFINITY;
        let of = |function: Function, values: &[f32]| -> Vec<u32> {
            values.iter().map(|&value| Style::PLAIN.function(function, value)).collect()
        };
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(of(Function::Reciprocal, &[-0.0, inf, 4.0]), bits(&[-inf, 0.0, 0.25]));
        assert_eq!(of(Function::InverseRoot, &[-0.0, 0.0, inf, 4.0]), bits(&[-inf, inf, 0.0, 0.5]));
        assert_eq!(
            of(Function::Power, &[-inf, inf, -0.0, 10.0, -149.0]),
            bits(&[0.0, inf, 1.0, 1024.0, f32::from_bits(1)])
        );
        assert_eq!(of(Function::Logarithm, &[-0.0, 0.0, inf, 8.0]), bits(&[-inf, -inf, inf, 3.0]));
        assert_eq!(of(Function::Root, &[-0.0, 2.25, inf]), bits(&[-0.0, 1.5, inf]));
        assert_eq!(of(Function::Sine, &[-0.0]), bits(&[-0.0]));
        assert_eq!(of(Function::Cosine, &[0.0]), bits(&[1.0]));
        assert_eq!(of(Function::Tangent, &[-inf, 0.0]), bits(&[-1.0, 0.0]));
        for function in Function::ALL {
            assert_eq!(of(function, &[f32::NAN]), [NAN], "{function:?}");
        }
        for function in [Function::InverseRoot, Function::Root, Function::Logarithm] {
            assert_eq!(of(function, &[-1.0]), [NAN], "{function:?}");
        }
        // The unit: turns, and no subnormal numbers.
        assert_eq!(Function::Cosine.of_unit(0.5), (-1f32).to_bits());
        assert_eq!((Function::Power.of_unit(-130.0), Function::Reciprocal.of_unit(f32::MAX)), (0, 0));
        assert_eq!(Function::InverseRoot.of_unit(f32::from_bits(1)), inf.to_bits());
    }

    #[test]
    fn formats_round_to_even_and_keep_what_is_subnormal() {
        let brain = |value: f32, rounding| Format::Brain.narrow(value.into(), style(rounding));
        // Two ties and what is beside one.
        for (bits, want) in [
            (0x3f80_8000, 0x3f80),
            (0x3f81_8000, 0x3f82),
            (0x3f80_8001, 0x3f81),
            (0x7f7f_ffff, 0x7f80),
            (0x0000_8000, 0),
            (0x0001_8000, 2),
            (0x8000_8001, 0x8001),
            (0xff80_0000, 0xff80),
            (0xff80_0001, 0x7fff),
        ] {
            assert_eq!(brain(f32::from_bits(bits), Rounding::Nearest), want, "{bits:#x}");
        }
        assert_eq!(brain(f32::from_bits(0xbf80_ffff), Rounding::Zero), 0xbf80);
        for bits in 0..=u16::MAX {
            for format in [Format::Half, Format::Brain] {
                let value = format.widen(bits.into());
                let back = format.narrow(value, Style::PLAIN);
                assert_eq!(back, if value.is_nan() { 0x7fff } else { bits.into() }, "{format:?} {bits:#x}");
            }
        }
        let half = |value: f64| Format::Half.narrow(value, Style::PLAIN);
        assert_eq!([half(65_519.0), half(65_520.0), half(-1e9)], [0x7bff, 0x7c00, 0xfc00]);
        assert_eq!(
            [half(2f64.powi(-25)), half(2f64.powi(-25) * 1.001), half(2049.0), half(2051.0)],
            [0, 1, 0x6800, 0x6802]
        );
        assert_eq!(Format::Half.narrow(1e9, style(Rounding::Zero)), 0x7bff);
    }

    #[test]
    fn integers_become_floats_and_back() {
        // 2^24 + 1 and 2^62 + 2^38 + 1 are beside ties.
        assert_eq!(round(from_integer((1 << 24) + 1), Rounding::Nearest), 16_777_216.0);
        assert_eq!(round(from_integer((1 << 62) + (1 << 38) + 1), Rounding::Nearest), 2f32.powi(62).next_up());
        assert_eq!(round(from_integer((1 << 62) + (1 << 38)), Rounding::Nearest), 2f32.powi(62));
        assert_eq!(round(from_integer(-(1 << 24) - 1), Rounding::Down), -16_777_218.0);
        let to = |value: f64, bits: u32, signed: bool| to_integer(value, bits, signed, Rounding::Zero, false) as i64;
        assert_eq!([to(2.9, 32, true), to(-2.9, 32, true), to(-1.0, 32, false)], [2, -2, 0]);
        assert_eq!(
            [to(1e20, 32, true), to(1e20, 32, false), to(-1e20, 32, true)],
            [0x7fff_ffff, 0xffff_ffff, -0x8000_0000]
        );
        assert_eq!([to(f64::NAN, 32, true), to(f64::NAN, 64, true)], [0, i64::MIN]);
        let ways = ROUNDINGS.map(|rounding| to_integer(2.5, 32, true, rounding, false));
        assert_eq!(ways, [2, 2, 3, 2]);
    }

    #[test]
    fn matrices_are_multiplied_where_lanes_have_them() {
        // Row r of A is r + 1 at k = r, row k of B is powers of two by column, C is its place.
        let word = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits() & 0xffff_0000;
        let a_of = |row: usize, k: usize| if row == k { row as f32 + 1.0 } else { 0.0 };
        let b_of = |k: usize, column: usize| (k * 8 + column) as f32;
        let (mut a, mut b, mut c) = ([[0; 32]; 4], [[0; 32]; 2], [[0; 32]; 4]);
        for lane in 0..32 {
            let (group, part) = (lane / 4, lane % 4);
            for (at, a) in a.iter_mut().enumerate() {
                let (row, k) = (group + 8 * (at % 2), 2 * part + 8 * (at / 2));
                a[lane] = word(a_of(row, k), a_of(row, k + 1));
            }
            for (at, b) in b.iter_mut().enumerate() {
                let k = 2 * part + 8 * at;
                b[lane] = word(b_of(k, group), b_of(k + 1, group));
            }
            for (at, c) in c.iter_mut().enumerate() {
                let (row, column) = (group + 8 * (at / 2), 2 * part + at % 2);
                c[lane] = (1000.0 * row as f32 + column as f32).to_bits();
            }
        }
        let d = mma(&a, &b, &c);
        for (at, d) in d.iter().enumerate() {
            for (lane, d) in d.iter().enumerate() {
                let (row, column) = (lane / 4 + 8 * (at / 2), 2 * (lane % 4) + at % 2);
                let want = (row as f32 + 1.0) * b_of(row, column) + 1000.0 * row as f32 + column as f32;
                assert_eq!(f32::from_bits(*d), want, "row {row} column {column}");
            }
        }
        // Sums begin with C and go up in k: 2^24 + 1 - 2^24 is 0 so, and 1 in another order.
        let one = word(1.0, 1.0);
        let (mut b, c) = ([[0; 32]; 2], [[2f32.powi(24).to_bits(); 32]; 4]);
        for column in 0..8 {
            b[0][4 * column] = word(1.0, -(2f32.powi(24)));
        }
        assert_eq!(mma(&[[one; 32]; 4], &b, &c), [[0; 32]; 4]);
        let nan = mma(&[[0x7fc0_0000; 32]; 4], &b, &c);
        assert_eq!(nan, [[NAN; 32]; 4]);
    }
}
