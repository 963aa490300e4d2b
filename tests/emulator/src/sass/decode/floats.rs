//! Instructions on floats.

use super::super::ParseError;
use super::super::ir::Op;
use super::form::Form;
use super::numbers::JOIN;
use crate::exec::{Format, Function, Relation, Rounding, Style};

const ROUNDING: [(&str, Rounding); 4] =
    [("RN", Rounding::Nearest), ("RZ", Rounding::Zero), ("RP", Rounding::Up), ("RM", Rounding::Down)];
const ROUNDING_WHOLE: [(&str, Rounding); 3] =
    [("TRUNC", Rounding::Zero), ("CEIL", Rounding::Up), ("FLOOR", Rounding::Down)];
const RELATIONS: [(&str, &str); 14] = [
    ("LT", "lt"),
    ("EQ", "eq"),
    ("LE", "le"),
    ("GT", "gt"),
    ("NE", "ne"),
    ("GE", "ge"),
    ("LTU", "ltu"),
    ("EQU", "equ"),
    ("LEU", "leu"),
    ("GTU", "gtu"),
    ("NEU", "neu"),
    ("GEU", "geu"),
    ("NUM", "num"),
    ("NAN", "nan"),
];
const FUNCTIONS: [(&str, Function); 8] = [
    ("RCP", Function::Reciprocal),
    ("SQRT", Function::Root),
    ("RSQ", Function::InverseRoot),
    ("EX2", Function::Power),
    ("LG2", Function::Logarithm),
    ("SIN", Function::Sine),
    ("COS", Function::Cosine),
    ("TANH", Function::Tangent),
];
const INTEGERS: [(&str, (u8, bool)); 5] =
    [("U8", (8, false)), ("U16", (16, false)), ("U32", (32, false)), ("S16", (16, true)), ("S32", (32, true))];

/// Decodes an instruction, if it is one of these.
pub(super) fn decode(form: &mut Form) -> Result<bool, ParseError> {
    let op = match form.name {
        "FADD" => Op::FloatAdd(arithmetic(form, 2)?),
        "FMUL" => Op::FloatMultiply(arithmetic(form, 2)?),
        "FFMA" => Op::FloatFused(arithmetic(form, 3)?),
        "FMNMX" => {
            let (flush, nan) = (form.take("FTZ"), form.take("NAN"));
            form.dst(1)?;
            form.float(0)?;
            form.float(1)?;
            form.test(0)?;
            Op::FloatExtreme { flush, nan }
        }
        "FSEL" => {
            form.dst(1)?;
            form.float(0)?;
            form.float(1)?;
            form.test(0)?;
            Op::SelectFloat
        }
        "FSETP" => compare(form)?,
        "FCHK" => {
            form.bits(1)?;
            form.float(0)?;
            form.float(1)?;
            Op::CheckDivision
        }
        "MUFU" => {
            let Some(function) = form.one_of(&FUNCTIONS) else { return form.fail("this function is not supported") };
            form.dst(1)?;
            form.float(0)?;
            Op::Function(function)
        }
        "FRND" => {
            let flush = form.take("FTZ");
            let rounding = form.one_of(&ROUNDING_WHOLE).unwrap_or(Rounding::Nearest);
            form.dst(1)?;
            form.float(0)?;
            Op::FloatWhole(Style { rounding, flush, saturate: false })
        }
        "F2FP" | "F2F" => narrow(form)?,
        "I2F" | "I2FP" => {
            let rounding = form.one_of(&ROUNDING).unwrap_or(Rounding::Nearest);
            form.take("F32");
            let (bits, signed) = form.one_of(&INTEGERS).unwrap_or((32, true));
            form.dst(1)?;
            form.src(0, 1)?;
            Op::IntegerToFloat { bits, signed, rounding }
        }
        "F2I" => {
            // Here what is no number becomes 0 in any case.
            form.take("NTZ");
            let (flush, signed) = (form.take("FTZ"), !form.take("U32"));
            let rounding = form.one_of(&ROUNDING_WHOLE).unwrap_or(Rounding::Nearest);
            form.dst(1)?;
            form.float(0)?;
            Op::FloatToInteger { signed, rounding, flush }
        }
        "HMMA" => {
            for name in ["16816", "F32", "BF16"] {
                if !form.take(name) {
                    return form.fail("only .16816.F32.BF16 is supported");
                }
            }
            form.dst(4)?;
            for (at, count) in [4, 2, 4].into_iter().enumerate() {
                form.src(at, count)?;
                if !form.ins.src[at].is_register() {
                    return form.fail("an operand that is no plain register");
                }
            }
            Op::Matrices
        }
        _ => return Ok(false),
    };
    form.ins.op = op;
    Ok(true)
}

fn arithmetic(form: &mut Form, sources: usize) -> Result<Style, ParseError> {
    let (flush, saturate) = (form.take("FTZ"), form.take("SAT"));
    let rounding = form.one_of(&ROUNDING).unwrap_or(Rounding::Nearest);
    form.dst(1)?;
    (0..sources).try_for_each(|at| form.float(at))?;
    Ok(Style { rounding, flush, saturate })
}

fn compare(form: &mut Form) -> Result<Op, ParseError> {
    let relation = form.one_of(&RELATIONS).and_then(Relation::named);
    let Some(relation) = relation else { return form.fail("no comparison") };
    let flush = form.take("FTZ");
    let Some(join) = form.one_of(&JOIN) else { return form.fail("no way to join predicates") };
    form.bits(2)?;
    form.float(0)?;
    form.float(1)?;
    form.test(0)?;
    Ok(Op::CompareFloat { relation, flush, join })
}

/// `F2FP` makes two floats of 16 bits of two, `F2F` one of one.
fn narrow(form: &mut Form) -> Result<Op, ParseError> {
    let single = form.name == "F2F";
    let format = form.one_of(&[("BF16", Format::Brain), ("F16", Format::Half)]);
    let rounding = form.one_of(&ROUNDING).unwrap_or(Rounding::Nearest);
    let (from, pack) = (form.take("F32"), form.take("PACK_AB"));
    let supported = if single { from && format.is_some() } else { pack };
    if !supported {
        return form.fail("this form is not supported");
    }
    form.dst(1)?;
    form.float(0)?;
    if !single {
        form.float(1)?;
    }
    Ok(Op::Narrow { format: format.unwrap_or(Format::Half), rounding, single })
}
