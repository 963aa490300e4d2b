//! Operations on floats.

use super::form::{Fit, Form};
use crate::exec::{Format, Function, Relation, Rounding, Style};
use crate::ptx::ParseError;
use crate::ptx::ir::{Ins, Op, Ty};
use crate::ptx::lower::Lower;
use crate::ptx::tree::Operand;

const ROUNDINGS: [(&str, Rounding); 4] =
    [("rn", Rounding::Nearest), ("rz", Rounding::Zero), ("rp", Rounding::Up), ("rm", Rounding::Down)];
const WHOLE: [(&str, Rounding); 4] =
    [("rni", Rounding::Nearest), ("rzi", Rounding::Zero), ("rpi", Rounding::Up), ("rmi", Rounding::Down)];

fn rounding(form: &mut Form, names: &[(&str, Rounding)]) -> Option<Rounding> {
    names.iter().find(|(name, _)| form.take(name)).map(|&(_, rounding)| rounding)
}

/// Takes `.ftz` and `.sat`.
fn style(form: &mut Form, rounding: Rounding) -> Style {
    Style { rounding, flush: form.take("ftz"), saturate: form.take("sat") }
}

fn format(name: &str) -> Option<Format> {
    Some(match name {
        "f16" | "f16x2" => Format::Half,
        "bf16" | "bf16x2" => Format::Brain,
        "f32" => Format::Single,
        "f64" => Format::Double,
        _ => return None,
    })
}

/// A type of a conversion.
enum Kind {
    Int(Ty),
    Float(Format),
    Pair(Format),
}

/// Takes the first type.
fn kind(form: &mut Form) -> Result<Kind, ParseError> {
    let Some(&name) = form.modifiers.iter().find(|name| super::form::ty(name).is_some()) else {
        return form.fail("there is no type, or one that is not supported");
    };
    if let Some(format) = format(name) {
        form.take(name);
        return Ok(if name.ends_with("x2") { Kind::Pair(format) } else { Kind::Float(format) });
    }
    form.int_type().map(Kind::Int)
}

/// The type of a register that has such a float.
fn register(format: Format) -> Ty {
    match format {
        Format::Half | Format::Brain => Ty::U16,
        Format::Single => Ty::U32,
        Format::Double => Ty::U64,
    }
}

impl<'a> Lower<'a, '_> {
    fn float_operands(
        &mut self,
        form: &Form<'a, '_>,
        ins: Ins,
        op: Op,
        sources: usize,
        ty: Ty,
    ) -> Result<(), ParseError> {
        form.done(1 + sources)?;
        let mut ins = Ins { op, ty, to: ty, ..ins };
        ins.r[0] = self.dst(form, 0, ty)?;
        for at in 1..=sources {
            ins.r[at] = self.src(form, at, ty)?;
        }
        self.push(ins)
    }

    /// Parses sums and products. Without a rounding they are rounded to the nearest; a compiler may then make one operation of
    /// two, which is not done here. `fma` must have one.
    pub(super) fn float(
        &mut self,
        form: &mut Form<'a, '_>,
        mut ins: Ins,
        op: Op,
        sources: usize,
    ) -> Result<(), ParseError> {
        let wide = form.take("f64");
        if !wide && !form.take("f32") {
            return form.fail("only f32 and f64 are supported");
        }
        let rounding = rounding(form, &ROUNDINGS);
        if rounding.is_none() && op == Op::FFma {
            return form.fail("no rounding");
        }
        let rounding = rounding.unwrap_or(Rounding::Nearest);
        if !wide {
            ins.sub = style(form, rounding).bits();
            return self.float_operands(form, ins, op, sources, Ty::U32);
        }
        if rounding != Rounding::Nearest {
            return form.fail("only .rn is supported for f64");
        }
        let op = match op {
            Op::FAdd => Op::DAdd,
            Op::FSub => Op::DSub,
            Op::FMul => Op::DMul,
            _ => Op::DFma,
        };
        self.float_operands(form, ins, op, sources, Ty::U64)
    }

    /// Parses divisions: `.rn`, `.full` (rounded to the nearest, too) and `.approx`.
    pub(super) fn float_divide(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        form.take("f32");
        let Some(way) = form.one_of(&["rn", "full", "approx"]) else { return form.fail("no way to divide") };
        ins.sub = style(form, Rounding::Nearest).bits();
        self.float_operands(form, ins, if way == 2 { Op::FDivFast } else { Op::FDiv }, 2, Ty::U32)
    }

    pub(super) fn float_extreme(
        &mut self,
        form: &mut Form<'a, '_>,
        mut ins: Ins,
        opcode: &str,
    ) -> Result<(), ParseError> {
        form.take("f32");
        ins.mode = form.take("NaN") as u8;
        ins.sub = Style { flush: form.take("ftz"), ..Style::PLAIN }.bits();
        self.float_operands(form, ins, if opcode == "min" { Op::FMin } else { Op::FMax }, 2, Ty::U32)
    }

    pub(super) fn float_sign(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, op: Op) -> Result<(), ParseError> {
        form.take("f32");
        ins.sub = Style { flush: form.take("ftz"), ..Style::PLAIN }.bits();
        self.float_operands(form, ins, op, 1, Ty::U32)
    }

    /// Parses functions: approximations, `rcp.rn` and `sqrt.rn`.
    pub(super) fn float_function(
        &mut self,
        form: &mut Form<'a, '_>,
        mut ins: Ins,
        opcode: &str,
    ) -> Result<(), ParseError> {
        if !form.take("f32") {
            return form.fail("only f32 is supported");
        }
        let function = match opcode {
            "rcp" => Function::Reciprocal,
            "sqrt" => Function::Root,
            "rsqrt" => Function::InverseRoot,
            "ex2" => Function::Power,
            "lg2" => Function::Logarithm,
            "sin" => Function::Sine,
            "cos" => Function::Cosine,
            _ => Function::Tangent,
        };
        let exact = matches!(function, Function::Reciprocal | Function::Root);
        let supported = form.take("approx") || exact && form.take("rn");
        if !supported {
            return form.fail("only .approx is supported, and .rn of rcp and sqrt");
        }
        ins.mode = function as u8;
        ins.sub = Style { flush: form.take("ftz"), ..Style::PLAIN }.bits();
        self.float_operands(form, ins, Op::FFunction, 1, Ty::U32)
    }

    pub(super) fn float_compare(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        form.take("f32");
        let mut relations = form.modifiers.iter().filter_map(|name| Some((*name, Relation::named(name)?)));
        let Some((name, relation)) = relations.next_back() else { return form.fail("no comparison that is supported") };
        form.take(name);
        let join = form.one_of(&["and", "or", "xor"]);
        (ins.op, ins.sub, ins.imm) = (Op::FSetp, relation.bits(), form.take("ftz") as u64);
        ins.mode = join.map_or(0, |join| join as u8 + 1);
        form.done(3 + join.is_some() as usize)?;
        (ins.r[0], ins.r[1]) = self.predicates_dst(form)?;
        ins.r[2] = self.src(form, 1, Ty::U32)?;
        ins.r[3] = self.src(form, 2, Ty::U32)?;
        if join.is_some() {
            (ins.r[4], ins.not) = self.predicate(form, form.operand(3))?;
        }
        self.push(ins)
    }

    /// Parses conversions from and to floats.
    pub(super) fn float_convert(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        let (to, from) = (kind(form)?, kind(form)?);
        let (near, whole) = (rounding(form, &ROUNDINGS), rounding(form, &WHOLE));
        let style = style(form, near.or(whole).unwrap_or(Rounding::Nearest));
        ins.sub = style.bits();
        match (to, from) {
            (Kind::Float(to), Kind::Int(from)) => {
                if near.is_none() || to == Format::Brain {
                    return form.fail("this form is not supported");
                }
                form.done(2)?;
                (ins.op, ins.ty, ins.to, ins.imm) = (Op::CvtFromInt, from, register(to), to as u64);
                ins.r[0] = self.dst(form, 0, ins.to)?;
                ins.r[1] = self.source(form, form.operand(1), from, Fit::Wider)?;
            }
            (Kind::Int(to), Kind::Float(from)) => {
                if whole.is_none() || from == Format::Brain {
                    return form.fail("this form is not supported");
                }
                form.done(2)?;
                (ins.op, ins.ty, ins.to, ins.imm) = (Op::CvtToInt, register(from), to, from as u64);
                let (slot, bits) = self.register_of(form, form.operand(0), to, Fit::Wider)?;
                (ins.r[0], ins.mode) = (slot, bits as u8);
                ins.r[1] = self.src(form, 1, ins.ty)?;
            }
            (Kind::Float(to), Kind::Float(from)) => {
                let narrower = register(to).bits() < register(from).bits();
                let same = to == from;
                let known = match (narrower, same) {
                    (true, _) => near.is_some() && (to != Format::Brain || from == Format::Single),
                    (_, true) => near.is_none() && to != Format::Brain,
                    // What becomes wider is exact; halves do not become another kind of them.
                    _ => near.is_none() && whole.is_none() && register(to).bits() > register(from).bits(),
                };
                if !known || style.saturate && to != Format::Single {
                    return form.fail("this form is not supported");
                }
                form.done(2)?;
                (ins.op, ins.ty, ins.to) = (Op::CvtFloat, register(from), register(to));
                (ins.imm, ins.mode) = (from as u64 | (to as u64) << 8, whole.is_some() as u8);
                ins.r[0] = self.dst(form, 0, ins.to)?;
                ins.r[1] = self.src(form, 1, ins.ty)?;
            }
            (Kind::Pair(to), Kind::Float(Format::Single)) => {
                if near.is_none() || style.saturate {
                    return form.fail("this form is not supported");
                }
                ins.imm = to as u64;
                return self.float_operands(form, ins, Op::CvtPair, 2, Ty::U32);
            }
            _ => return form.fail("this form is not supported"),
        }
        self.push(ins)
    }

    /// Parses products of matrices, of the one shape and the types that are supported.
    pub(super) fn mma(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        if form.modifiers != ["sync", "aligned", "m16n8k16", "row", "col", "f32", "bf16", "bf16", "f32"] {
            return form.fail("only .sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 is supported");
        }
        form.modifiers.clear();
        form.done(4)?;
        let mut slots = Vec::new();
        for (at, count) in [4, 4, 2, 4].into_iter().enumerate() {
            let Operand::Vector(list) = form.operand(at) else { return form.fail("an operand that is no vector") };
            if list.len() != count {
                return form.fail("a vector of another size");
            }
            for operand in list {
                slots.push(match at {
                    0 => self.register_of(form, operand, Ty::U32, Fit::Exact)?.0,
                    _ => self.source(form, operand, Ty::U32, Fit::Exact)?,
                });
            }
        }
        (ins.op, ins.imm) = (Op::Mma, self.code.matrices.len() as u64);
        self.code.matrices.push(slots.try_into().expect("as many as the vectors have"));
        self.push(ins)
    }
}
