//! What each opcode with its modifiers and operands becomes. What is not here is an error that names the opcode.

use super::ParseError;
use super::ir::{Ins, NONE, Op, Slot, Space, Ty, atom, carry, compare, logic, window};
use super::lex::error;
use super::lower::{INS, Lower, Symbol};
use super::syntax::{InstructionText, Operand};

/// An instruction while it is lowered: its modifiers are taken one by one, and none may be left.
struct Form<'a, 'i> {
    text: &'i InstructionText<'a>,
    modifiers: Vec<&'a str>,
}

impl<'a> Form<'a, '_> {
    fn fail<T>(&self, what: &str) -> Result<T, ParseError> {
        Err(error(self.text.line, &format!("{}: {what}", self.text.opcode)))
    }

    /// Takes a modifier, if it is there.
    fn take(&mut self, name: &str) -> bool {
        let at = self.modifiers.iter().position(|modifier| *modifier == name);
        at.map(|at| self.modifiers.remove(at)).is_some()
    }

    /// Takes whichever of these is there; returns its index.
    fn one_of(&mut self, names: &[&str]) -> Option<usize> {
        names.iter().position(|name| self.take(name))
    }

    /// Takes the first modifier that is a type; floats only where they are mere bits.
    fn any_type(&mut self) -> Result<(Ty, bool), ParseError> {
        for at in 0..self.modifiers.len() {
            if let Some(ty) = ty(self.modifiers[at]) {
                self.modifiers.remove(at);
                return Ok(ty);
            }
        }
        self.fail("there is no type, or one that is not supported")
    }

    fn bits_type(&mut self) -> Result<Ty, ParseError> {
        Ok(self.any_type()?.0)
    }

    /// As above, but no floats.
    fn int_type(&mut self) -> Result<Ty, ParseError> {
        match self.any_type()? {
            (ty, false) => Ok(ty),
            _ => self.fail("floating point is not supported"),
        }
    }

    /// No modifier may be left, and the operands are as many.
    fn done(&self, operands: usize) -> Result<(), ParseError> {
        if let Some(left) = self.modifiers.first() {
            return self.fail(&format!(".{left} is not supported"));
        }
        if self.text.operands.len() != operands {
            return self.fail(&format!("{} operands are not supported", self.text.operands.len()));
        }
        Ok(())
    }

    fn operand(&self, at: usize) -> &Operand<'a> {
        &self.text.operands[at]
    }
}

/// A type by its name; whether it is a float.
fn ty(name: &str) -> Option<(Ty, bool)> {
    Some(match name {
        "pred" => (Ty::Pred, false),
        "b8" | "u8" => (Ty::U8, false),
        "s8" => (Ty::S8, false),
        "b16" | "u16" => (Ty::U16, false),
        "s16" => (Ty::S16, false),
        "b32" | "u32" => (Ty::U32, false),
        "s32" => (Ty::S32, false),
        "b64" | "u64" => (Ty::U64, false),
        "s64" => (Ty::S64, false),
        "f16" | "bf16" => (Ty::U16, true),
        "f32" | "f16x2" | "bf16x2" => (Ty::U32, true),
        "f64" => (Ty::U64, true),
        _ => return None,
    })
}

fn unsigned(bits: u32) -> Ty {
    match bits {
        16 => Ty::U16,
        32 => Ty::U32,
        _ => Ty::U64,
    }
}

/// What an operand may be, besides a register of the type's width.
#[derive(Clone, Copy, PartialEq)]
enum Fit {
    Exact,
    /// A wider register will do, as for loads, stores and conversions.
    Wider,
}

const SPACES: [&str; 9] =
    ["global", "shared", "local", "const", "param", "shared::cta", "param::entry", "param::func", "generic"];

fn space(at: usize) -> Space {
    match at {
        0 => Space::Global,
        1 | 5 => Space::Shared,
        2 => Space::Local,
        3 => Space::Const,
        4 | 6 | 7 => Space::Param,
        _ => Space::Generic,
    }
}

impl<'a> Lower<'a, '_> {
    /// Lowers one instruction.
    pub(super) fn instruction(&mut self, text: &InstructionText<'a>) -> Result<(), ParseError> {
        let mut parts = text.opcode.split('.');
        let opcode = parts.next().unwrap_or_default();
        let form = &mut Form { text, modifiers: parts.collect() };
        let mut ins = Ins { line: text.line, ..INS };
        if let Some((name, negated)) = text.guard {
            let Symbol::Predicate(slot) = self.symbol(name, text.line)? else {
                return form.fail("a guard that is no predicate");
            };
            (ins.guard, ins.guard_not) = (slot, negated);
        }
        match opcode {
            "mov" => self.mov(form, ins),
            "add" | "sub" | "addc" | "subc" => self.add(form, ins, opcode),
            "mul" | "mad" | "madc" | "mul24" | "mad24" => self.multiply(form, ins, opcode),
            "div" => self.simple(form, ins, Op::Div, 2),
            "rem" => self.simple(form, ins, Op::Rem, 2),
            "min" => self.simple(form, ins, Op::Min, 2),
            "max" => self.simple(form, ins, Op::Max, 2),
            "sad" => self.simple(form, ins, Op::Sad, 3),
            "abs" => self.simple(form, ins, Op::Abs, 1),
            "neg" => self.simple(form, ins, Op::Neg, 1),
            "cnot" => self.simple(form, ins, Op::Cnot, 1),
            "brev" => self.simple(form, ins, Op::Brev, 1),
            "and" => self.logic(form, ins, Op::And, logic::AND),
            "or" => self.logic(form, ins, Op::Or, logic::OR),
            "xor" => self.logic(form, ins, Op::Xor, logic::XOR),
            "not" => self.logic(form, ins, Op::Not, logic::NOT),
            "popc" => self.to_u32(form, ins, Op::Popc),
            "clz" => self.to_u32(form, ins, Op::Clz),
            "bfind" => {
                ins.sub = form.take("shiftamt") as u8;
                self.to_u32(form, ins, Op::Bfind)
            }
            "shl" => self.shift(form, ins, Op::Shl),
            "shr" => self.shift(form, ins, Op::Shr),
            "shf" | "lop3" | "prmt" | "bfe" | "bfi" | "fns" | "bmsk" | "szext" | "dp4a" | "dp2a" => {
                self.bits(form, ins, opcode)
            }
            "setp" | "set" => self.compare(form, ins, opcode),
            "selp" | "slct" => self.select(form, ins, opcode),
            "cvt" => self.convert(form, ins),
            "cvta" | "isspacep" => self.address_space(form, ins, opcode),
            "ld" | "ldu" | "st" => self.load_store(form, ins, opcode),
            "atom" | "red" => self.atomic(form, ins, opcode),
            "membar" | "fence" => {
                form.modifiers.clear();
                form.done(0)?;
                self.push(Ins { op: Op::Fence, ..ins })
            }
            "prefetch" | "prefetchu" | "nanosleep" | "pmevent" => self.push(Ins { op: Op::Nop, ..ins }),
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" => self.control(form, ins, opcode),
            "bar" | "barrier" => self.barrier(form, ins),
            "shfl" | "vote" | "match" | "redux" | "activemask" => self.warp(form, ins, opcode),
            _ => form.fail("this instruction is not supported"),
        }
    }

    fn push(&mut self, ins: Ins) -> Result<(), ParseError> {
        self.emit(ins);
        Ok(())
    }

    /// The register that an operand names.
    fn register_of(
        &mut self,
        form: &Form<'a, '_>,
        operand: &Operand<'a>,
        ty: Ty,
        fit: Fit,
    ) -> Result<(Slot, u32), ParseError> {
        let Operand::Word(name) = operand else { return form.fail("an operand that is no register") };
        match self.symbol(name, form.text.line)? {
            Symbol::Register(slot, bits) if bits == ty.bits() || fit == Fit::Wider && bits > ty.bits() => {
                Ok((slot, bits))
            }
            Symbol::Register(_, bits) => form.fail(&format!("{name} has {bits} bits, not {}", ty.bits())),
            _ => form.fail(&format!("{name} is no register")),
        }
    }

    fn dst(&mut self, form: &Form<'a, '_>, at: usize, ty: Ty) -> Result<Slot, ParseError> {
        Ok(self.register_of(form, form.operand(at), ty, Fit::Exact)?.0)
    }

    /// A register or a constant.
    fn source(&mut self, form: &Form<'a, '_>, operand: &Operand<'a>, ty: Ty, fit: Fit) -> Result<Slot, ParseError> {
        let wide = ty.bits() == 64;
        let value = match operand {
            Operand::Int(value) => *value,
            Operand::Float(bits, true) if !wide => u64::from((f64::from_bits(*bits) as f32).to_bits()),
            Operand::Float(bits, false) if wide => (f32::from_bits(*bits as u32) as f64).to_bits(),
            Operand::Float(bits, _) => *bits,
            Operand::Word("WARP_SZ") => 32,
            Operand::Word(name) | Operand::Offset(name, _) => match self.symbol(name, form.text.line)? {
                Symbol::Memory(_, address) => match operand {
                    Operand::Offset(_, offset) => address.wrapping_add(*offset as u64),
                    _ => address,
                },
                _ => return Ok(self.register_of(form, operand, ty, fit)?.0),
            },
            _ => return form.fail("an operand that is not supported here"),
        };
        Ok(self.constant(if ty.bits() < 32 { unsigned_extend(ty, value) } else { value }, wide))
    }

    fn src(&mut self, form: &Form<'a, '_>, at: usize, ty: Ty) -> Result<Slot, ParseError> {
        self.source(form, form.operand(at), ty, Fit::Exact)
    }

    /// A predicate and whether it is negated.
    fn predicate(&mut self, form: &Form<'a, '_>, operand: &Operand<'a>) -> Result<(Slot, bool), ParseError> {
        let (name, not) = match operand {
            Operand::Word(name) => (name, false),
            Operand::Not(inner) => match &**inner {
                Operand::Word(name) => (name, true),
                _ => return form.fail("an operand that is no predicate"),
            },
            _ => return form.fail("an operand that is no predicate"),
        };
        match self.symbol(name, form.text.line)? {
            Symbol::Predicate(slot) => Ok((slot, not)),
            _ => form.fail(&format!("{name} is no predicate")),
        }
    }

    /// A predicate that is written; `_` is none.
    fn predicate_dst(&mut self, form: &Form<'a, '_>, operand: &Operand<'a>) -> Result<Slot, ParseError> {
        match operand {
            Operand::Word("_") => Ok(NONE),
            Operand::Word(_) => Ok(self.predicate(form, operand)?.0),
            _ => form.fail("a result that is no predicate"),
        }
    }

    /// d, then sources all of the type.
    fn simple(&mut self, form: &mut Form<'a, '_>, ins: Ins, op: Op, sources: usize) -> Result<(), ParseError> {
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

    fn to_u32(&mut self, form: &mut Form<'a, '_>, ins: Ins, op: Op) -> Result<(), ParseError> {
        let ty = form.int_type()?;
        form.done(2)?;
        let mut ins = Ins { op, ty, to: Ty::U32, ..ins };
        ins.r[0] = self.dst(form, 0, Ty::U32)?;
        ins.r[1] = self.src(form, 1, ty)?;
        self.push(ins)
    }

    fn logic(&mut self, form: &mut Form<'a, '_>, ins: Ins, op: Op, sub: u8) -> Result<(), ParseError> {
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

    fn shift(&mut self, form: &mut Form<'a, '_>, ins: Ins, op: Op) -> Result<(), ParseError> {
        let ty = form.int_type()?;
        form.done(3)?;
        let mut ins = Ins { op, ty, to: ty, ..ins };
        ins.r[0] = self.dst(form, 0, ty)?;
        ins.r[1] = self.src(form, 1, ty)?;
        ins.r[2] = self.src(form, 2, Ty::U32)?;
        self.push(ins)
    }

    fn mov(&mut self, form: &mut Form<'a, '_>, ins: Ins) -> Result<(), ParseError> {
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

    fn add(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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
        ins.sub = with_carry as u8 * carry::IN | cc as u8 * carry::OUT | subtract as u8 * carry::SUB;
        self.simple(form, ins, Op::Carry, 2)
    }

    fn multiply(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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
            ins.sub = (opcode == "madc") as u8 * carry::IN | cc as u8 * carry::OUT | half;
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

    fn bits(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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

    /// d, a, b, c of 32 bits.
    fn three(&mut self, form: &Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        if let Some(left) = form.modifiers.first() {
            return form.fail(&format!(".{left} is not supported"));
        }
        ins.r[0] = self.dst(form, 0, Ty::U32)?;
        for at in 1..4 {
            ins.r[at] = self.src(form, at, Ty::U32)?;
        }
        self.push(ins)
    }

    fn compare(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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
            match form.operand(0) {
                Operand::Pair(p, q) => {
                    ins.r[0] = self.predicate_dst(form, p)?;
                    ins.r[1] = self.predicate_dst(form, q)?;
                }
                p => ins.r[0] = self.predicate_dst(form, p)?,
            }
        }
        ins.r[2] = self.src(form, 1, ins.ty)?;
        ins.r[3] = self.src(form, 2, ins.ty)?;
        if join.is_some() {
            (ins.r[4], ins.not) = self.predicate(form, form.operand(3))?;
        }
        self.push(ins)
    }

    fn select(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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

    fn convert(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        ins.sub = form.take("sat") as u8;
        (ins.to, ins.ty) = (form.int_type()?, form.int_type()?);
        form.done(2)?;
        let (slot, bits) = self.register_of(form, form.operand(0), ins.to, Fit::Wider)?;
        // The result is extended to the register, as its type says.
        (ins.op, ins.r[0], ins.mode) = (Op::Cvt, slot, bits as u8);
        ins.r[1] = self.source(form, form.operand(1), ins.ty, Fit::Wider)?;
        self.push(ins)
    }

    fn address_space(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        let to = form.take("to");
        let Some(of) = form.one_of(&SPACES) else { return form.fail("this space is not supported") };
        let base = Lower::window(space(of));
        if opcode == "isspacep" {
            form.done(2)?;
            (ins.op, ins.space, ins.imm) = (Op::IsSpace, space(of), base);
            ins.r[0] = self.predicate(form, form.operand(0))?.0;
            ins.r[1] = self.src(form, 1, Ty::U64)?;
            return self.push(ins);
        }
        if form.int_type()?.bits() != 64 {
            return form.fail("only addresses of 64 bits are supported");
        }
        form.done(2)?;
        (ins.ty, ins.to) = (Ty::U64, Ty::U64);
        ins.r[0] = self.dst(form, 0, Ty::U64)?;
        ins.r[1] = self.src(form, 1, Ty::U64)?;
        ins.op = match (base, to) {
            (0, _) => Op::Mov,
            (_, false) => Op::Add,
            (_, true) => Op::Sub,
        };
        if base != 0 {
            ins.r[2] = self.constant(base, true);
        }
        self.push(ins)
    }

    /// Sets slot 5 and the offset from `[…]`.
    fn address(&mut self, form: &Form<'a, '_>, operand: &Operand<'a>, ins: &mut Ins) -> Result<(), ParseError> {
        let Operand::Address(inner) = operand else { return form.fail("an operand that is no address") };
        let (name, offset) = match &**inner {
            Operand::Word(name) => (*name, 0),
            Operand::Offset(name, offset) => (*name, *offset),
            Operand::Int(address) => {
                ins.r[5] = self.constant(*address, true);
                return Ok(());
            }
            _ => return form.fail("an address that is not supported"),
        };
        match self.symbol(name, form.text.line)? {
            Symbol::Register(slot, 32 | 64) => {
                (ins.r[5], ins.imm) = (slot, offset as u64);
                if ins.space == Space::Param && !self.in_kernel() {
                    ins.space = Space::Local;
                }
            }
            Symbol::Memory(of, address) => {
                // A function's parameters are local memory of the caller.
                if ins.space == Space::Param && of == Space::Local {
                    ins.space = Space::Local;
                }
                let base = if ins.space == Space::Generic { Lower::window(of) } else { 0 };
                if ins.space != Space::Generic && ins.space != of {
                    return form.fail(&format!("{name} lies in another space"));
                }
                ins.r[5] = self.constant(address.wrapping_add(offset as u64).wrapping_add(base), true);
            }
            _ => return form.fail("an address in a register of another size"),
        }
        Ok(())
    }

    fn load_store(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        ins.space = form.one_of(&SPACES).map_or(Space::Generic, space);
        let sub = form.one_of(&["v2", "v4"]).map_or(1, |at| 2u8 << at);
        skip_cache_and_order(form);
        ins.ty = form.bits_type()?;
        ins.sub = sub;
        form.done(2)?;
        let load = opcode != "st";
        ins.op = if load { Op::Ld } else { Op::St };
        if ins.ty == Ty::Pred || ins.ty.bits() * u32::from(sub) > 128 {
            return form.fail("an access of this size is not supported");
        }
        let (values, address) = if load { (0, 1) } else { (1, 0) };
        self.address(form, form.operand(address), &mut ins)?;
        if !load && matches!(ins.space, Space::Const | Space::Param) {
            return form.fail("this space may only be read");
        }
        let one = std::slice::from_ref(form.operand(values));
        let list = match form.operand(values) {
            Operand::Vector(list) => list,
            _ => one,
        };
        if list.len() != usize::from(sub) {
            return form.fail("the number of registers differs from the vector's");
        }
        let mut bits = 0;
        for (at, operand) in list.iter().enumerate() {
            ins.r[at] = match operand {
                Operand::Word("_") if load => NONE,
                _ if load => {
                    let (slot, width) = self.register_of(form, operand, ins.ty, Fit::Wider)?;
                    if bits != 0 && bits != width {
                        return form.fail("registers of different sizes");
                    }
                    bits = width;
                    slot
                }
                _ => self.source(form, operand, ins.ty, Fit::Wider)?,
            };
        }
        // Loads extend to the register, as the type says.
        ins.mode = bits as u8;
        self.push(ins)
    }

    fn atomic(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        ins.space = form.one_of(&SPACES).map_or(Space::Generic, space);
        skip_cache_and_order(form);
        let names = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];
        let Some(sub) = form.one_of(&names) else { return form.fail("this operation is not supported") };
        ins.sub = sub as u8;
        ins.ty = form.int_type()?;
        (ins.op, ins.to) = (Op::Atom, ins.ty);
        let first = (opcode == "atom") as usize;
        let cas = ins.sub == atom::CAS;
        form.done(first + 2 + cas as usize)?;
        if ins.ty.bits() < 32 || !matches!(ins.space, Space::Generic | Space::Global | Space::Shared) {
            return form.fail("this type or space is not supported");
        }
        if first == 1 && form.operand(0) != &Operand::Word("_") {
            ins.r[0] = self.dst(form, 0, ins.ty)?;
        }
        self.address(form, form.operand(first), &mut ins)?;
        ins.r[1] = self.src(form, first + 1, ins.ty)?;
        if cas {
            ins.r[2] = self.src(form, first + 2, ins.ty)?;
        }
        self.push(ins)
    }

    fn control(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        form.take("uni");
        let line = form.text.line;
        match opcode {
            "bra" => {
                form.done(1)?;
                let Operand::Word(label) = form.operand(0) else { return form.fail("a target that is no label") };
                let label = *label;
                let at = self.emit(Ins { op: Op::Bra, ..ins });
                self.branch_to(at, label, line);
                Ok(())
            }
            "brx" => {
                form.take("idx");
                form.done(2)?;
                let Operand::Word(name) = form.operand(1) else { return form.fail("no branch table") };
                let Some(table) = self.table(name) else { return form.fail("there is no branch table of this name") };
                ins.imm = table as u64;
                ins.r[0] = self.src(form, 0, Ty::U32)?;
                self.push(Ins { op: Op::Brx, ..ins })
            }
            "call" => {
                if let Some(left) = form.modifiers.first() {
                    return form.fail(&format!(".{left} is not supported"));
                }
                self.call(form.text, ins)
            }
            "ret" => {
                form.done(0)?;
                self.return_or_exit(ins);
                Ok(())
            }
            "exit" => {
                form.done(0)?;
                self.push(Ins { op: Op::Exit, ..ins })
            }
            _ => {
                form.done(0)?;
                self.push(Ins { op: Op::Trap, ..ins })
            }
        }
    }

    fn barrier(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
        if form.take("warp") {
            form.take("sync");
            form.done(1)?;
            ins.r[0] = self.src(form, 0, Ty::U32)?;
            return self.push(Ins { op: Op::WarpSync, ..ins });
        }
        form.take("cta");
        let aligned = form.text.opcode.starts_with("bar.") || form.take("aligned");
        ins.op = Op::Bar;
        ins.mode = aligned as u8;
        let Some(kind) = form.one_of(&["sync", "arrive", "red"]) else {
            return form.fail("this form is not supported");
        };
        ins.sub = kind as u8;
        let mut operands: Vec<_> = form.text.operands.iter().collect();
        if kind == 2 {
            let Some(reduction) = form.one_of(&["popc", "and", "or"]) else { return form.fail("no reduction") };
            ins.sub = 2 + reduction as u8;
            form.take("pred");
            form.take("u32");
            if operands.len() < 3 {
                return form.fail("too few operands");
            }
            ins.r[2] = if reduction == 0 {
                self.register_of(form, operands[0], Ty::U32, Fit::Exact)?.0
            } else {
                self.predicate(form, operands[0])?.0
            };
            (ins.r[3], ins.not) = self.predicate(form, operands[operands.len() - 1])?;
            operands.remove(0);
            operands.pop();
        }
        form.done(form.text.operands.len())?;
        match operands[..] {
            [barrier] => ins.r[0] = self.source(form, barrier, Ty::U32, Fit::Exact)?,
            [barrier, threads] => {
                ins.r[0] = self.source(form, barrier, Ty::U32, Fit::Exact)?;
                ins.r[1] = self.source(form, threads, Ty::U32, Fit::Exact)?;
            }
            _ => return form.fail("this number of operands is not supported"),
        }
        self.push(ins)
    }

    fn warp(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
        if opcode != "activemask" && !form.take("sync") {
            return form.fail("only the form with .sync is supported");
        }
        match opcode {
            "activemask" => {
                form.take("b32");
                form.done(1)?;
                ins.op = Op::ActiveMask;
                ins.r[0] = self.dst(form, 0, Ty::U32)?;
            }
            "shfl" => {
                form.take("b32");
                let Some(mode) = form.one_of(&["idx", "up", "down", "bfly"]) else { return form.fail("no mode") };
                form.done(5)?;
                (ins.op, ins.sub) = (Op::Shfl, mode as u8);
                match form.operand(0) {
                    Operand::Pair(d, p) => {
                        ins.r[0] = self.register_of(form, d, Ty::U32, Fit::Exact)?.0;
                        ins.r[1] = self.predicate_dst(form, p)?;
                    }
                    d => ins.r[0] = self.register_of(form, d, Ty::U32, Fit::Exact)?.0,
                }
                for at in 1..5 {
                    ins.r[at + 1] = self.src(form, at, Ty::U32)?;
                }
            }
            "vote" => {
                let Some(mode) = form.one_of(&["ballot", "any", "all", "uni"]) else { return form.fail("no mode") };
                (ins.op, ins.sub) = (Op::Vote, mode as u8);
                form.take(if mode == 0 { "b32" } else { "pred" });
                form.done(3)?;
                ins.r[0] =
                    if mode == 0 { self.dst(form, 0, Ty::U32)? } else { self.predicate(form, form.operand(0))?.0 };
                (ins.r[1], ins.not) = self.predicate(form, form.operand(1))?;
                ins.r[2] = self.src(form, 2, Ty::U32)?;
            }
            "match" => {
                let Some(mode) = form.one_of(&["any", "all"]) else { return form.fail("no mode") };
                (ins.op, ins.sub) = (Op::Match, mode as u8);
                ins.ty = form.int_type()?;
                form.done(3)?;
                match form.operand(0) {
                    Operand::Pair(d, p) if mode == 1 => {
                        ins.r[0] = self.register_of(form, d, Ty::U32, Fit::Exact)?.0;
                        ins.r[1] = self.predicate_dst(form, p)?;
                    }
                    d => ins.r[0] = self.register_of(form, d, Ty::U32, Fit::Exact)?.0,
                }
                ins.r[2] = self.src(form, 1, ins.ty)?;
                ins.r[3] = self.src(form, 2, Ty::U32)?;
            }
            _ => {
                let Some(mode) = form.one_of(&["add", "min", "max", "and", "or", "xor"]) else {
                    return form.fail("this operation is not supported");
                };
                (ins.op, ins.sub) = (Op::Redux, mode as u8);
                ins.ty = form.int_type()?;
                form.done(3)?;
                ins.r[0] = self.dst(form, 0, Ty::U32)?;
                ins.r[1] = self.src(form, 1, Ty::U32)?;
                ins.r[2] = self.src(form, 2, Ty::U32)?;
            }
        }
        self.push(ins)
    }
}

/// Caches and orders change nothing here: every access is seen by all at once.
fn skip_cache_and_order(form: &mut Form) {
    let skipped = [
        "weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "mmio", "ca",
        "cg", "cs", "lu", "cv", "wb", "wt", "nc",
    ];
    form.modifiers.retain(|modifier| {
        !skipped.contains(modifier) && !modifier.starts_with("L1::") && !modifier.starts_with("L2::")
    });
}

/// A constant of fewer than 32 bits as a register of 16 holds it.
fn unsigned_extend(ty: Ty, value: u64) -> u64 {
    if ty.bits() == 8 { value & 0xff } else { value & 0xffff }
}

// Windows must not be confused with the addresses of global memory.
const _: () = assert!(window::SHARED >> 48 != 0 && window::LOCAL >> 48 != 0 && window::PARAM >> 48 != 0);
