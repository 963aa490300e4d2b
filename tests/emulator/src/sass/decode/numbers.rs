//! Instructions on registers and predicates.

use super::super::ParseError;
use super::super::alu;
use super::super::ir::{Compare, Fold, Join, Op, Place, Source, Special, TRUE, Test, Vote};
use super::super::listing::Operand;
use super::form::Form;
use crate::exec::Shuffle;

const COMPARE: [(&str, Compare); 6] = [
    ("LT", Compare::Less),
    ("EQ", Compare::Equal),
    ("LE", Compare::LessEqual),
    ("GT", Compare::Greater),
    ("NE", Compare::NotEqual),
    ("GE", Compare::GreaterEqual),
];
pub(super) const JOIN: [(&str, Join); 3] = [("AND", Join::And), ("OR", Join::Or), ("XOR", Join::Xor)];
/// Carries that are not there.
const NEVER: Test = Test { not: true, ..Test::ALWAYS };

/// Decodes an instruction, if it is one of these.
pub(super) fn decode(form: &mut Form) -> Result<bool, ParseError> {
    let op = match form.name {
        "IMAD" => multiply(form)?,
        "IADD3" | "IADD" | "VIADD" => add(form)?,
        "ISETP" => compare(form)?,
        "LOP3" => {
            form.take("LUT");
            form.bits(1)?;
            form.dst(1)?;
            sources(form, [1; 3])?;
            let table = form.known()? as u8;
            form.constant_test(false)?;
            Op::Logic { table }
        }
        "PLOP3" => {
            form.take("LUT");
            form.bits(2)?;
            for at in 0..3 {
                form.test(at)?;
            }
            Op::LogicBits { tables: [form.known()? as u8, form.known()? as u8] }
        }
        "PRMT" => {
            form.dst(1)?;
            sources(form, [1; 3])?;
            Op::Permute
        }
        "P2R" => {
            form.dst(1)?;
            predicates(form)?;
            form.src(0, 1)?;
            form.src(1, 1)?;
            Op::FromBits
        }
        "R2P" => {
            predicates(form)?;
            form.src(0, 1)?;
            form.src(1, 1)?;
            Op::ToBits
        }
        "SEL" => {
            let count = if form.take("64") { 2 } else { 1 };
            form.dst(count)?;
            form.src(0, count)?;
            form.src(1, count)?;
            form.test(0)?;
            if count == 2 { Op::Select64 } else { Op::Select }
        }
        "SHF" => shift(form)?,
        "LEA" => shift_add(form)?,
        "IMNMX" | "VIMNMX" | "VIADDMNMX" => min_max(form)?,
        "MOV" => {
            let count = if form.take("64") { 2 } else { 1 };
            form.dst(count)?;
            form.src(0, count)?;
            if count == 2 { Op::Move64 } else { Op::Move }
        }
        "HFMA2" => pair_of_halves(form)?,
        "S2R" | "S2UR" | "CS2R" => special(form)?,
        "R2UR" => {
            form.ins.uniform = true;
            form.dst(1)?;
            form.ins.uniform = false;
            form.src(0, 1)?;
            Op::ToUniform
        }
        "POPC" => unary(form, Op::CountOnes)?,
        "BREV" => unary(form, Op::Reverse)?,
        "FLO" => {
            let op = Op::FindHighest { signed: !form.take("U32"), shift: form.take("SH") };
            unary(form, op)?
        }
        "SHFL" => {
            let kinds =
                [("IDX", Shuffle::Index), ("UP", Shuffle::Up), ("DOWN", Shuffle::Down), ("BFLY", Shuffle::Butterfly)];
            let Some(kind) = form.one_of(&kinds) else { return form.fail("no kind of shuffle") };
            form.bits(1)?;
            form.dst(1)?;
            sources(form, [1; 3])?;
            Op::Shuffle(kind)
        }
        "VOTE" | "VOTEU" => {
            form.ins.uniform = form.name == "VOTEU";
            let kinds = [("ANY", Vote::Any), ("ALL", Vote::All), ("EQ", Vote::Equal)];
            let Some(kind) = form.one_of(&kinds) else { return form.fail("no kind of vote") };
            if !matches!(form.peek(), Some(Operand::Predicate(..))) {
                form.dst(1)?;
            }
            form.bits(1)?;
            form.test(0)?;
            Op::Vote(kind)
        }
        "REDUX" | "CREDUX" => {
            let fold = form.one_of(&[("MAX", Fold::Max), ("MIN", Fold::Min), ("SUM", Fold::Add), ("OR", Fold::Or)]);
            let signed = form.take("S32");
            let Some(fold) = fold else { return form.fail("no kind of reduction") };
            form.ins.uniform = true;
            form.dst(1)?;
            form.ins.uniform = false;
            form.src(0, 1)?;
            Op::Reduce { fold, signed }
        }
        _ => return Ok(false),
    };
    form.ins.op = op;
    Ok(true)
}

/// Takes the name of all predicates of a lane.
fn predicates(form: &mut Form) -> Result<(), ParseError> {
    if form.special()? != "PR" { form.fail("an operand that should be the predicates") } else { Ok(()) }
}

fn sources(form: &mut Form, counts: [u16; 3]) -> Result<(), ParseError> {
    (0..3).try_for_each(|at| form.src(at, counts[at]))
}

fn unary(form: &mut Form, op: Op) -> Result<Op, ParseError> {
    form.dst(1)?;
    form.src(0, 1)?;
    Ok(op)
}

fn multiply(form: &mut Form) -> Result<Op, ParseError> {
    let (wide, high) = (form.take("WIDE"), form.take("HI"));
    // Names of the compiler's for what the same operation is used for.
    form.drop(&["MOV", "IADD", "SHL"]);
    let (carry, signed) = (form.take("X"), !form.take("U32"));
    form.dst(if wide { 2 } else { 1 })?;
    if wide {
        form.bits(1)?;
    }
    sources(form, [1, 1, if wide || high { 2 } else { 1 }])?;
    form.ins.tests[0] = NEVER;
    if carry {
        if high {
            return form.fail("a carry into the upper half is not supported");
        }
        form.test(0)?;
    }
    Ok(match (wide, high) {
        (true, _) => Op::MadWide { signed },
        (_, true) => Op::MadHigh { signed },
        _ => Op::Mad,
    })
}

fn add(form: &mut Form) -> Result<Op, ParseError> {
    let count = if form.take("64") { 2 } else { 1 };
    let carry = form.take("X");
    form.dst(count)?;
    form.bits(2)?;
    let terms = if form.name == "IADD3" { 3 } else { 2 };
    for at in 0..terms {
        form.src(at, count)?;
    }
    form.ins.tests = [NEVER, NEVER, Test::ALWAYS];
    if carry {
        form.test(0)?;
        if form.peek().is_some() {
            form.test(1)?;
        }
    }
    if count == 1 {
        return Ok(Op::Add);
    }
    if carry || form.ins.bits != [TRUE; 2] {
        return form.fail("carries of 64 bits are not supported");
    }
    Ok(Op::Add64)
}

fn compare(form: &mut Form) -> Result<Op, ParseError> {
    let Some(compare) = form.one_of(&COMPARE) else { return form.fail("no comparison") };
    let kinds = [("U32", (false, false)), ("S64", (true, true)), ("U64", (true, false))];
    let (wide, signed) = form.one_of(&kinds).unwrap_or((false, true));
    let Some(join) = form.one_of(&JOIN) else { return form.fail("no way to join predicates") };
    let extended = form.take("EX");
    form.bits(2)?;
    for at in 0..2 {
        form.src(at, if wide { 2 } else { 1 })?;
    }
    form.test(0)?;
    if extended {
        form.test(1)?;
    }
    Ok(Op::Compare { compare, wide, signed, join, extended })
}

fn shift(form: &mut Form) -> Result<Op, ParseError> {
    let Some(left) = form.one_of(&[("L", true), ("R", false)]) else { return form.fail("no direction") };
    let kinds = [("U32", (false, false)), ("S32", (false, true)), ("U64", (true, false)), ("S64", (true, true))];
    let Some((wide, signed)) = form.one_of(&kinds) else { return form.fail("no type") };
    let (wrap, high) = (form.take("W"), form.take("HI"));
    form.dst(1)?;
    sources(form, [1; 3])?;
    Ok(Op::Shift { left, wide, signed, wrap, high })
}

fn shift_add(form: &mut Form) -> Result<Op, ParseError> {
    let (high, carry, extend) = (form.take("HI"), form.take("X"), form.take("SX32"));
    form.dst(1)?;
    form.bits(1)?;
    form.src(0, 1)?;
    form.src(1, 1)?;
    if high && !extend {
        form.src(2, 1)?;
    }
    let shift = form.known()? as u8;
    form.ins.tests[0] = NEVER;
    if carry {
        form.test(0)?;
    }
    let plain = |source: &Source| !source.inverted && !source.absolute && (!high || !source.negative);
    // What is subtracted from an upper half has no carry here.
    let mut src = form.ins.src;
    if high && !carry && form.ins.bits[0] == TRUE {
        src[1].negative = false;
    }
    if shift > 31 || !high && (carry || extend) || !src.iter().all(plain) {
        return form.fail("this form is not supported");
    }
    Ok(if high { Op::ShiftAddHigh { shift, extend } } else { Op::ShiftAdd { shift } })
}

fn min_max(form: &mut Form) -> Result<Op, ParseError> {
    let kinds = [("U32", (1, false)), ("U64", (2, false)), ("S64", (2, true)), ("S32", (1, true))];
    let (count, signed) = form.one_of(&kinds).unwrap_or((1, true));
    form.no_bits()?;
    form.dst(count)?;
    form.no_bits()?;
    let sum = form.name == "VIADDMNMX";
    for at in 0..if sum { 3 } else { 2 } {
        form.src(at, count)?;
    }
    form.test(0)?;
    if form.peek().is_some() {
        form.constant_test(false)?;
    }
    Ok(match (sum, count) {
        (true, 1) => Op::AddMinMax { signed },
        (true, _) => return form.fail("64 bits are not supported"),
        (_, 1) => Op::MinMax { signed },
        _ => Op::MinMax64 { signed },
    })
}

/// `HFMA2 R, -RZ, RZ, high, low`: how compilers write two constants of 16 bits.
fn pair_of_halves(form: &mut Form) -> Result<Op, ParseError> {
    form.take("MMA");
    form.dst(1)?;
    form.float(0)?;
    form.float(1)?;
    let zero = |source: &Source| source.place == Source::ZERO.place && !source.absolute;
    let [a, b, _] = form.ins.src;
    let (high, low) = (form.decimal()?, form.decimal()?);
    // -0 times 0 is -0, which changes no number that is added to it.
    if !zero(&a) || !zero(&b) || a.negative == b.negative {
        return form.fail("only constants are supported");
    }
    let (Some(high), Some(low)) = (alu::half(high), alu::half(low)) else {
        return form.fail("a constant that does not fit 16 bits");
    };
    let value = u64::from(high) << 16 | u64::from(low);
    form.ins.src = [Source { place: Place::Value(value), ..Source::ZERO }, Source::ZERO, Source::ZERO];
    Ok(Op::Move)
}

fn special(form: &mut Form) -> Result<Op, ParseError> {
    let wide = form.name == "CS2R" && !form.take("32");
    form.ins.uniform = form.name == "S2UR";
    form.dst(if wide { 2 } else { 1 })?;
    let special = match form.special()? {
        "SR_TID.X" => Special::Thread(0),
        "SR_TID.Y" => Special::Thread(1),
        "SR_TID.Z" => Special::Thread(2),
        "SR_CTAID.X" => Special::Block(0),
        "SR_CTAID.Y" => Special::Block(1),
        "SR_CTAID.Z" => Special::Block(2),
        "SR_LANEID" => Special::Lane,
        "SR_LTMASK" => Special::LanesBelow,
        "SR_EQMASK" => Special::LaneBit,
        // The block's number in its cluster: there are no clusters of more than one.
        "SR_CgaCtaId" | "SRZ" => Special::Zero,
        _ => return form.fail("this special register is not supported"),
    };
    if form.ins.uniform && !matches!(special, Special::Block(_) | Special::Zero) {
        return form.fail("a lane's number for the warp");
    }
    Ok(if wide { Op::Special64(special) } else { Op::Special(special) })
}
