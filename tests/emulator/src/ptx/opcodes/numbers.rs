//! Operations on registers.

use super::form::{Fit, Form};
use crate::ptx::ParseError;
use crate::ptx::ir::{Ins, NONE, Op, Ty, carry, compare};
use crate::ptx::lower::Lower;
use crate::ptx::tree::Operand;

fn unsigned(bits: u32) -> Ty {
    match bits {
        16 => Ty::U16,
        32 => Ty::U32,
        _ => Ty::U64,
    }
}

fn flag(is: bool, bit: u8) -> u8 {
    if is { bit } else { 0 }
}

impl<'a> Lower<'a, '_> {
    /// Parses d, then sources that are all of the type.
    pub(super) fn simple(
        &mut self,
        form: &mut Form<'a, '_>,
        ins: Ins,
        op: Op,
        sources: usize,
    ) -> Result<(), ParseError> {
        let ty = form.int_type()?;
        form.done(1 + sources)?;
        if ty.bits() < 16 {
            return form.fail("this type is not supported");
        }
        let mut ins = Ins { op, ty, to: ty, ..ins };
        ins.r[0] = self.dst(form, 0, ty)?;
        for at in 1..=sources {
            ins.r[at] = self.src(form, at, ty)?;
        }
        self.push(ins)
    }

    pub(super) fn count(&mut self, form: &mut Form<'a, '_>, ins: Ins, op: Op) -> Result<(), ParseError> {
        let ty = form.int_type()?;
        form.done(2)?;
        let mut ins = Ins { op, ty, to: Ty::U32, ..ins };
        ins.r[0] = self.dst(form, 0, Ty::U32)?;
        ins.r[1] = self.src(form, 1, ty)?;
        self.push(ins)
    }

    pub(super) fn logic(&mut self, form: &mut Form<'a, '_>, ins: Ins, op: Op, sub: u8) -> Result<(), ParseError> {
        let sources = if op == Op::Not { 1 } else { 2 };
        if !form.modifiers.contains(&"pred") {
            return self.simple(form, ins, op, sources);
        }
        form.take("pred");
        form.done(1 + sources)?;
        let mut ins = Ins { op: Op::PredLogic, sub, ..ins };
        for at in 0..=sources {
            let (slot, not) = self.predicate(form, form.operand(at))?;
            if not {
                return form.fail("a negated predicate is not supported here");
            }
            ins.r[at] = slot;
        }
        self.push(ins)
    }

    pub(super) fn shift(&mut self, form: &mut Form<'a, '_>, ins: Ins, op: Op) -> Result<(), ParseError> {
        let ty = form.int_type()?;
        form.done(3)?;
        let mut ins = Ins { op, ty, to: ty, ..ins };
        ins.r[0] = self.dst(form, 0, ty)?;
        ins.r[1] = self.src(form, 1, ty)?;
        ins.r[2] = self.src(form, 2, Ty::U32)?;
        self.push(ins)
    }

    pub(super) fn mov(&mut self, form: &mut Form<'a, '_>, ins: Ins) -> Result<(), ParseError> {
        let ty = form.bits_type()?;
        form.done(2)?;
        let mut ins = Ins { op: Op::Mov, ty, to: ty, ..ins };
        match (form.operand(0), form.operand(1)) {
            _ if ty == Ty::Pred => {
                ins.op = Op::PredMov;
                ins.r[0] = self.predicate(form, form.operand(0))?.0;
                match form.operand(1) {
                    Operand::Int(value) => ins.sub = (*value != 0) as u8,
                    other => ins.r[1] = self.predicate(form, other)?.0,
                }
            }
            (Operand::Vector(parts), whole) | (whole, Operand::Vector(parts)) => {
                let count = parts.len() as u32;
                if !matches!(count, 2 | 4) || ty.bits() / count < 16 {
                    return form.fail("a vector of this size is not supported");
                }
                let part = unsigned(ty.bits() / count);
                let unpack = matches!(form.operand(0), Operand::Vector(_));
                (ins.op, ins.ty, ins.sub) = (if unpack { Op::Unpack } else { Op::Pack }, part, count as u8);
                ins.r[0] = if unpack {
                    self.source(form, whole, ty, Fit::Exact)?
                } else {
                    self.register_of(form, whole, ty, Fit::Exact)?.0
                };
                for (at, operand) in parts.iter().enumerate() {
                    ins.r[1 + at] = match operand {
                        Operand::Word("_") if unpack => NONE,
                        _ if unpack => self.register_of(form, operand, part, Fit::Exact)?.0,
                        _ => self.source(form, operand, part, Fit::Exact)?,
                    };
                }
            }
            (_, Operand::Word("%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo")) => {
                ins.op = Op::Clock;
                ins.r[0] = self.dst(form, 0, ty)?;
            }
            _ => {
                ins.r[0] = self.dst(form, 0, ty)?;
                ins.r[1] = self.src(form, 1, ty)?;
            }
        }
        self.push(ins)
    }

    pub(super) fn add(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        match (opcode, form.has_float()) {
            ("add", true) => return self.float(form, ins, Op::FAdd, 2),
            ("sub", true) => return self.float(form, ins, Op::FSub, 2),
            _ => {}
        }
        let subtract = opcode.starts_with("sub");
        let with_carry = opcode.ends_with('c');
        let (cc, saturate) = (form.take("cc"), form.take("sat"));
        if !with_carry && !cc {
            let op = match (subtract, saturate) {
                (false, false) => Op::Add,
                (true, false) => Op::Sub,
                (false, true) => Op::AddSat,
                (true, true) => Op::SubSat,
            };
            return self.simple(form, ins, op, 2);
        }
        ins.sub = flag(with_carry, carry::IN) | flag(cc, carry::OUT) | flag(subtract, carry::SUB);
        self.simple(form, ins, Op::Carry, 2)
    }

    pub(super) fn multiply(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        if opcode == "mul" && form.has_float() {
            return self.float(form, ins, Op::FMul, 2);
        }
        let Some(part) = form.one_of(&["lo", "hi", "wide"]) else { return form.fail("neither lo, hi nor wide") };
        let cc = form.take("cc");
        let ty = form.int_type()?;
        let sources = if opcode.starts_with("mad") { 3 } else { 2 };
        form.done(1 + sources)?;
        let op = match (opcode, part) {
            ("mul", 0) => Op::MulLo,
            ("mul", 1) => Op::MulHi,
            ("mul", 2) => Op::MulWide,
            ("mad", 0 | 1) if cc => Op::Carry,
            ("madc", 0 | 1) => Op::Carry,
            ("mad", 0) => Op::MadLo,
            ("mad", 1) => Op::MadHi,
            ("mad", 2) if !cc => Op::MadWide,
            ("mul24", 0) => Op::Mul24Lo,
            ("mul24", 1) => Op::Mul24Hi,
            ("mad24", 0) => Op::Mad24Lo,
            ("mad24", 1) => Op::Mad24Hi,
            _ => return form.fail("this form is not supported"),
        };
        let to = match (part, ty) {
            (2, Ty::U16) => Ty::U32,
            (2, Ty::S16) => Ty::S32,
            (2, Ty::U32) => Ty::U64,
            (2, Ty::S32) => Ty::S64,
            (2, _) => return form.fail("this type is not supported"),
            _ => ty,
        };
        if op == Op::Carry {
            let half = if part == 0 { carry::MUL_LO } else { carry::MUL_HI };
            ins.sub = flag(opcode == "madc", carry::IN) | flag(cc, carry::OUT) | half;
        }
        let mut ins = Ins { op, ty, to, ..ins };
        ins.r[0] = self.dst(form, 0, to)?;
        ins.r[1] = self.src(form, 1, ty)?;
        ins.r[2] = self.src(form, 2, ty)?;
        if sources == 3 {
            ins.r[3] = self.src(form, 3, to)?;
        }
        self.push(ins)
    }

    pub(super) fn bits(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        match opcode {
            "shf" => {
                let Some(right) = form.one_of(&["l", "r"]) else { return form.fail("neither l nor r") };
                let Some(clamp) = form.one_of(&["wrap", "clamp"]) else { return form.fail("neither wrap nor clamp") };
                ins.sub = clamp as u8;
                self.simple(form, ins, if right == 1 { Op::ShfR } else { Op::ShfL }, 3)
            }
            "lop3" => {
                form.take("b32");
                form.done(5)?;
                let Operand::Int(table @ 0..=255) = form.operand(4) else { return form.fail("a table of this kind") };
                ins.imm = *table;
                self.three(form, Ins { op: Op::Lop3, ..ins })
            }
            "prmt" => {
                form.take("b32");
                let mode = form.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
                form.done(4)?;
                ins.sub = mode.map_or(0, |mode| mode as u8 + 1);
                ins.op = Op::Prmt;
                if let Operand::Int(selector) = form.operand(3)
                    && mode.is_none()
                {
                    (ins.op, ins.imm) = (Op::PrmtConst, *selector);
                }
                self.three(form, ins)
            }
            "bfe" => {
                let ty = form.int_type()?;
                form.done(4)?;
                let mut ins = Ins { op: Op::Bfe, ty, to: ty, ..ins };
                ins.r[0] = self.dst(form, 0, ty)?;
                ins.r[1] = self.src(form, 1, ty)?;
                ins.r[2] = self.src(form, 2, Ty::U32)?;
                ins.r[3] = self.src(form, 3, Ty::U32)?;
                self.push(ins)
            }
            "bfi" => {
                let ty = form.int_type()?;
                form.done(5)?;
                let mut ins = Ins { op: Op::Bfi, ty, to: ty, ..ins };
                ins.r[0] = self.dst(form, 0, ty)?;
                ins.r[1] = self.src(form, 1, ty)?;
                ins.r[2] = self.src(form, 2, ty)?;
                ins.r[3] = self.src(form, 3, Ty::U32)?;
                ins.r[4] = self.src(form, 4, Ty::U32)?;
                self.push(ins)
            }
            "fns" => {
                form.take("b32");
                form.done(4)?;
                self.three(form, Ins { op: Op::Fns, ..ins })
            }
            "bmsk" | "szext" => {
                let Some(clamp) = form.one_of(&["wrap", "clamp"]) else { return form.fail("neither wrap nor clamp") };
                ins.sub = clamp as u8;
                self.simple(form, ins, if opcode == "bmsk" { Op::Bmsk } else { Op::Szext }, 2)
            }
            _ => {
                let half = if opcode == "dp2a" { form.one_of(&["lo", "hi"]) } else { Some(0) };
                let Some(half) = half else { return form.fail("neither lo nor hi") };
                let (a, b) = (form.int_type()?, form.int_type()?);
                form.done(4)?;
                let op = if opcode == "dp4a" { Op::Dp4a } else { Op::Dp2a };
                self.three(form, Ins { op, ty: a, to: b, sub: half as u8, ..ins })
            }
        }
    }

    /// Parses d, a, b, c of 32 bits.
    pub(super) fn three(&mut self, form: &Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        if let Some(left) = form.modifiers.first() {
            return form.fail(&format!(".{left} is not supported"));
        }
        ins.r[0] = self.dst(form, 0, Ty::U32)?;
        for at in 1..4 {
            ins.r[at] = self.src(form, at, Ty::U32)?;
        }
        self.push(ins)
    }

    pub(super) fn compare(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        let comparisons = ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
        let Some(comparison) = form.one_of(&comparisons) else { return form.fail("no comparison that is supported") };
        let join = form.one_of(&["and", "or", "xor"]);
        ins.sub = [compare::LT, compare::LE, compare::GT, compare::GE]
            .get(comparison.wrapping_sub(6))
            .copied()
            .unwrap_or(comparison as u8);
        ins.mode = join.map_or(0, |join| join as u8 + 1);
        if opcode == "set" {
            ins.to = form.bits_type()?;
        }
        ins.ty = form.int_type()?;
        form.done(3 + join.is_some() as usize)?;
        if opcode == "set" {
            if ins.to.bits() != 32 {
                return form.fail("this type of result is not supported");
            }
            ins.op = Op::Set;
            ins.r[0] = self.dst(form, 0, ins.to)?;
        } else {
            ins.op = Op::Setp;
            (ins.r[0], ins.r[1]) = self.predicates_dst(form)?;
        }
        ins.r[2] = self.src(form, 1, ins.ty)?;
        ins.r[3] = self.src(form, 2, ins.ty)?;
        if join.is_some() {
            (ins.r[4], ins.not) = self.predicate(form, form.operand(3))?;
        }
        self.push(ins)
    }

    pub(super) fn select(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        let ty = form.bits_type()?;
        (ins.ty, ins.to) = (ty, ty);
        if opcode == "slct" {
            let of = form.int_type()?;
            if of != Ty::S32 {
                return form.fail("this type is not supported");
            }
        }
        form.done(4)?;
        ins.r[0] = self.dst(form, 0, ty)?;
        ins.r[1] = self.src(form, 1, ty)?;
        ins.r[2] = self.src(form, 2, ty)?;
        if opcode == "selp" {
            ins.op = Op::Selp;
            (ins.r[3], ins.not) = self.predicate(form, form.operand(3))?;
        } else {
            ins.op = Op::Slct;
            ins.r[3] = self.src(form, 3, Ty::S32)?;
        }
        self.push(ins)
    }

    pub(super) fn convert(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        ins.sub = form.take("sat") as u8;
        (ins.to, ins.ty) = (form.int_type()?, form.int_type()?);
        form.done(2)?;
        let (slot, bits) = self.register_of(form, form.operand(0), ins.to, Fit::Wider)?;
        // The result is extended to the register, as its type says.
        (ins.op, ins.r[0], ins.mode) = (Op::Cvt, slot, bits as u8);
        ins.r[1] = self.source(form, form.operand(1), ins.ty, Fit::Wider)?;
        self.push(ins)
    }
}
