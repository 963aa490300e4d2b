//! What `nvdisasm` prints, as a tree: kernels, labels, instructions with their operands. No instruction is known here.

use super::ParseError;
use std::collections::{BTreeMap, HashMap};

/// A register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// `R`: one for each lane.
    Lanes,
    /// `UR`: one for the warp.
    Uniform,
}

/// A register as it is named; `None` is the one that is always zero.
pub(super) type Named = (File, Option<u16>);

/// What stands before or around a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) negative: bool,
    pub(super) inverted: bool,
    pub(super) absolute: bool,
}

/// An address in brackets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address<'a> {
    /// The register of the lanes, and what follows its name: `64`, `U32`, `X8`.
    pub(super) base: Option<(Option<u16>, &'a str)>,
    pub(super) uniform: Option<Option<u16>>,
    pub(super) offset: i64,
    /// The register that has the memory's descriptor.
    pub(super) descriptor: Option<u16>,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand<'a> {
    /// A register; whether `.64` follows.
    Register(Named, Sign, bool),
    /// A predicate of lanes or of the warp, `None` being the one that is always true; whether it is negated.
    Predicate(File, Option<u8>, bool),
    /// `B0` and so on.
    Barrier(u8),
    Integer(i64),
    Float(f64),
    /// A constant: bank, index register, offset.
    Constant(u8, Option<Named>, u32, Sign),
    Address(Address<'a>),
    Label(&'a str),
    /// `SR_TID.X` and so on.
    Special(&'a str),
}

/// An instruction.
pub(super) struct Text<'a> {
    /// The line in the listing, from 1.
    pub(super) line: u32,
    /// Its address in the kernel.
    pub(super) at: u32,
    pub(super) guard: Option<(File, Option<u8>, bool)>,
    pub(super) opcode: &'a str,
    pub(super) operands: Vec<Operand<'a>>,
    /// All of it.
    pub(super) whole: &'a str,
}

/// A kernel with the functions that it calls.
#[derive(Default)]
pub(super) struct Section<'a> {
    pub(super) instructions: Vec<Text<'a>>,
    /// Addresses by label.
    pub(super) labels: HashMap<&'a str, u32>,
}

fn fail<T>(line: u32, what: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError { line, what: what.into() })
}

/// Reads a listing: the sections of code, by the names of their kernels.
pub(super) fn parse(text: &str) -> Result<BTreeMap<&str, Section<'_>>, ParseError> {
    let mut sections: BTreeMap<&str, Section> = BTreeMap::new();
    let mut name = None;
    let mut waiting: Vec<&str> = Vec::new();
    for (line, row) in (1u32..).zip(text.lines()) {
        let trimmed = row.trim();
        if let Some(rest) = trimmed.strip_prefix(".section").filter(|rest| rest.starts_with(char::is_whitespace)) {
            let section = rest.trim().split(',').next().unwrap_or_default();
            name = section.strip_prefix(".text.");
            waiting.clear();
            continue;
        }
        let Some(name) = name else { continue };
        let section = sections.entry(name).or_default();
        if let Some(label) = row.strip_suffix(':').filter(|label| !label.starts_with(char::is_whitespace)) {
            waiting.push(label);
        } else if let Some(rest) = trimmed.strip_prefix("/*") {
            let Some((at, rest)) = rest.split_once("*/") else { return fail(line, "no address") };
            let Ok(at) = u32::from_str_radix(at, 16) else { return fail(line, format!("{at} is no address")) };
            let Some((whole, _)) = rest.split_once(';') else { return fail(line, "no instruction") };
            // A remark, such as "SpillRefill".
            let whole = whole.split("(*").next().unwrap_or_default().trim();
            for label in waiting.drain(..) {
                section.labels.insert(label, at);
            }
            section.instructions.push(instruction(line, at, whole)?);
        }
    }
    Ok(sections)
}

fn instruction(line: u32, at: u32, whole: &str) -> Result<Text<'_>, ParseError> {
    let mut rest = whole;
    let mut guard = None;
    if let Some(guarded) = whole.strip_prefix('@') {
        let (name, after) = guarded.split_once(' ').unwrap_or((guarded, ""));
        match operand(name) {
            Some(Operand::Predicate(file, index, not)) => guard = Some((file, index, not)),
            _ => return fail(line, format!("{whole}: @{name} is no guard")),
        }
        rest = after.trim();
    }
    let (opcode, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut operands = Vec::new();
    for part in split(rest) {
        // `P0, R2 (label)`: the label after a register is an operand of its own.
        let (first, label) = match part.split_once(" `(") {
            Some((first, label)) => (first, Some(label)),
            None => (part, None),
        };
        let Some(first) = operand(first) else { return fail(line, format!("{whole}: operand {first}")) };
        operands.push(first);
        if let Some(label) = label {
            operands.push(Operand::Label(label.trim_end_matches(')')));
        }
    }
    Ok(Text { line, at, guard, opcode, operands, whole })
}

/// Splits operands at the commas that are in no brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'(' => depth += 1,
            b']' | b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Reads `R12`, `RZ`, `UR3` or `URZ`.
fn register(text: &str) -> Option<Named> {
    let (file, index) = match text.strip_prefix("UR") {
        Some(index) => (File::Uniform, index),
        None => (File::Lanes, text.strip_prefix('R')?),
    };
    if index == "Z" { Some((file, None)) } else { Some((file, Some(index.parse().ok()?))) }
}

/// Reads `P0`, `PT`, `UP2` or `UPT`.
fn predicate(text: &str) -> Option<(File, Option<u8>)> {
    let (file, index) = match text.strip_prefix("UP") {
        Some(index) => (File::Uniform, index),
        None => (File::Lanes, text.strip_prefix('P')?),
    };
    if index == "T" { Some((file, None)) } else { Some((file, Some(index.parse().ok().filter(|&at: &u8| at < 7)?))) }
}

/// Reads `0x1f` or `-0x1`.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = u64::from_str_radix(digits.strip_prefix("0x")?, 16).ok()? as i64;
    Some(if negative { value.wrapping_neg() } else { value })
}

fn operand(text: &str) -> Option<Operand<'_>> {
    if let Some(label) = text.strip_prefix("`(") {
        return Some(Operand::Label(label.strip_suffix(')')?));
    }
    if text.starts_with("SR") || text == "PR" {
        return Some(Operand::Special(text));
    }
    if let Some(value) = integer(text) {
        return Some(Operand::Integer(value));
    }
    if let Some(index) = text.strip_prefix('B').and_then(|index| index.parse().ok()) {
        return Some(Operand::Barrier(index));
    }
    if text.starts_with('[') || text.starts_with("desc[") {
        return Some(Operand::Address(address(text)?));
    }
    if let Some((file, index)) = predicate(text.strip_prefix('!').unwrap_or(text)) {
        return Some(Operand::Predicate(file, index, text.starts_with('!')));
    }
    let mut sign = Sign::default();
    let mut rest = text;
    if let Some(inner) = rest.strip_prefix('-') {
        (sign.negative, rest) = (true, inner);
    } else if let Some(inner) = rest.strip_prefix('~') {
        (sign.inverted, rest) = (true, inner);
    }
    // A hint that the register is kept for the next instruction.
    rest = rest.strip_suffix(".reuse").unwrap_or(rest);
    if let Some(inner) = rest.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) {
        (sign.absolute, rest) = (true, inner);
    }
    if let Some(constant) = rest.strip_prefix("c[") {
        let (bank, inside) = constant.split_once("][")?;
        let bank = u8::try_from(integer(bank)?).ok()?;
        let inside = inside.strip_suffix(']')?;
        let (index, offset) = match inside.split_once('+') {
            Some((index, offset)) => (Some(register(index)?), integer(offset)?),
            None => match register(inside) {
                Some(index) => (Some(index), 0),
                None => (None, integer(inside)?),
            },
        };
        return Some(Operand::Constant(bank, index, u32::try_from(offset).ok()?, sign));
    }
    let (name, wide) = match rest.strip_suffix(".64") {
        Some(name) => (name, true),
        None => (rest, false),
    };
    if let Some(named) = register(name) {
        return Some(Operand::Register(named, sign, wide));
    }
    // "-0.0" has its sign in the number.
    let value = match text {
        "+INF" => f64::INFINITY,
        "-INF" => f64::NEG_INFINITY,
        "+QNAN" => f64::NAN,
        "-QNAN" => -f64::NAN,
        _ if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte)) => text.parse().ok()?,
        _ => return None,
    };
    Some(Operand::Float(value))
}

fn address(text: &str) -> Option<Address<'_>> {
    let mut address = Address { base: None, uniform: None, offset: 0, descriptor: None };
    let mut inside = text;
    if let Some(rest) = text.strip_prefix("desc[") {
        let (descriptor, rest) = rest.split_once(']')?;
        let (File::Uniform, index) = register(descriptor)? else { return None };
        (address.descriptor, inside) = (Some(index?), rest);
    }
    inside = inside.strip_prefix('[')?.strip_suffix(']')?;
    for part in inside.split('+') {
        let (name, kind) = part.split_once('.').unwrap_or((part, ""));
        match register(name) {
            Some((File::Lanes, index)) if address.base.is_none() => address.base = Some((index, kind)),
            Some((File::Uniform, index)) if address.uniform.is_none() && kind.is_empty() => {
                address.uniform = Some(index);
            }
            Some(_) => return None,
            None => address.offset = address.offset.wrapping_add(integer(part)?),
        }
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_read() {
        let plain = Sign::default();
        let negative = Sign { negative: true, ..plain };
        let lanes = |index| (File::Lanes, index);
        for (text, want) in [
            ("RZ", Operand::Register(lanes(None), plain, false)),
            ("-R40.reuse", Operand::Register(lanes(Some(40)), negative, false)),
            ("~URZ", Operand::Register((File::Uniform, None), Sign { inverted: true, ..plain }, false)),
            ("|R2|.reuse", Operand::Register(lanes(Some(2)), Sign { absolute: true, ..plain }, false)),
            ("!UP3", Operand::Predicate(File::Uniform, Some(3), true)),
            ("PT", Operand::Predicate(File::Lanes, None, false)),
            ("-0x10", Operand::Integer(-16)),
            ("0xffffffffffffffff", Operand::Integer(-1)),
            ("-c[0x0][0x170]", Operand::Constant(0, None, 0x170, negative)),
            ("c[0x0][UR4+0x218]", Operand::Constant(0, Some((File::Uniform, Some(4))), 0x218, plain)),
            ("c[0x0][RZ]", Operand::Constant(0, Some(lanes(None)), 0, plain)),
            ("B3", Operand::Barrier(3)),
            ("1.175494350822287508e-38", Operand::Float(1.175_494_350_822_287_5e-38)),
            ("`(.L_x_7)", Operand::Label(".L_x_7")),
            ("SR_TID.X", Operand::Special("SR_TID.X")),
        ] {
            assert_eq!(operand(text), Some(want), "{text}");
        }
        assert!(matches!(operand("-0.0"), Some(Operand::Float(value)) if value == 0.0 && value.is_sign_negative()));
        for text in ["R", "P7", "c[0x0]", "[R1", "x", "R1.H0_H0", "[R1+R2]"] {
            assert_eq!(operand(text), None, "{text}");
        }
        let address = |base, uniform, offset, descriptor| Address { base, uniform, offset, descriptor };
        for (text, want) in [
            ("[R2.64+-0x8]", address(Some((Some(2), "64")), None, -8, None)),
            ("desc[UR16][R60.64+0x200]", address(Some((Some(60), "64")), None, 512, Some(16))),
            ("[R0.X4+UR6]", address(Some((Some(0), "X4")), Some(Some(6)), 0, None)),
            ("[UR4]", address(None, Some(Some(4)), 0, None)),
        ] {
            assert_eq!(operand(text), Some(Operand::Address(want)), "{text}");
        }
    }

    #[test]
    fn kernels_have_their_labels_and_instructions() {
        let text = "\t.section\t.text.k,\"ax\",@progbits\n\
                    k:\n.text.k:\n\
                    .L_1:\n        /*0000*/              @!P0 BRA P1, `(.L_1) ;\n\
                    $inner:\n        /*0010*/     LDL.LU.64 R2, [R1]    (*\"SpillRefill\"*);\n\
                    \t.section\t.nv.info,\"\"\n        /*0000*/ \t.word\t0x3\n";
        let sections = parse(text).unwrap();
        let section = &sections["k"];
        assert_eq!((sections.len(), section.instructions.len()), (1, 2));
        assert_eq!((section.labels[".L_1"], section.labels["$inner"]), (0, 16));
        let [first, second] = &section.instructions[..] else { panic!("two") };
        assert_eq!((first.line, first.guard, first.opcode), (5, Some((File::Lanes, Some(0), true)), "BRA"));
        assert_eq!(first.operands.len(), 2);
        assert_eq!((second.at, second.whole), (16, "LDL.LU.64 R2, [R1]"));
    }
}
