//! What every instruction's decoding needs: modifiers taken one by one, operands taken in order, none of which may be left.

use super::super::ParseError;
use super::super::ir::{Address, Bit, Ins, Op, Place, Slot, Source, TRUE, Test, UNIFORM_BIT, ZERO};
use super::super::listing::{File, Named, Operand, Sign, Text};
use super::{Context, UNIFORM_REGISTERS};

/// An instruction while it is decoded.
pub(super) struct Form<'a, 't> {
    context: &'t Context<'a>,
    text: &'t Text<'a>,
    /// The opcode without modifiers, and without the `U` of those that run once for the warp.
    pub(super) name: &'a str,
    modifiers: Vec<&'a str>,
    next: usize,
    pub(super) ins: Ins,
}

/// The predicate of that name.
fn bit(file: File, index: Option<u8>) -> Bit {
    match (file, index) {
        (_, None) => TRUE,
        (File::Lanes, Some(index)) => index,
        (File::Uniform, Some(index)) => UNIFORM_BIT + index,
    }
}

impl<'a, 't> Form<'a, 't> {
    pub(super) fn new(context: &'t Context<'a>, text: &'t Text<'a>) -> Result<Form<'a, 't>, ParseError> {
        let mut parts = text.opcode.split('.');
        let full = parts.next().unwrap_or_default();
        let name = full.strip_prefix('U').unwrap_or(full);
        let no_address = Address { base: ZERO, wide: false, scale: 1, uniform: ZERO, offset: 0, descriptor: ZERO };
        let guard = text.guard.map_or(Test::ALWAYS, |(file, index, not)| Test { bit: bit(file, index), not });
        let ins = Ins {
            line: text.line,
            op: Op::Nop,
            guard,
            uniform: name != full,
            dst: ZERO,
            src: [Source::ZERO; 3],
            bits: [TRUE; 2],
            tests: [Test::ALWAYS; 3],
            address: no_address,
            target: 0,
        };
        let form = Form { context, text, name, modifiers: parts.collect(), next: 0, ins };
        if form.ins.uniform && guard.bit < TRUE {
            return form.fail("a lane's predicate guards an instruction of the warp");
        }
        Ok(form)
    }

    pub(super) fn fail<T>(&self, what: &str) -> Result<T, ParseError> {
        Err(ParseError { line: self.text.line, what: format!("{}: {what}", self.text.whole) })
    }

    /// Fails if a modifier or an operand is left.
    pub(super) fn done(self) -> Result<Ins, ParseError> {
        if let Some(left) = self.modifiers.first() {
            return self.fail(&format!(".{left} is not supported"));
        }
        if self.peek().is_some() {
            return self.fail(&format!("operand {} is one too many", self.next + 1));
        }
        Ok(self.ins)
    }

    /// Takes a modifier, if it is there.
    pub(super) fn take(&mut self, name: &str) -> bool {
        let at = self.modifiers.iter().position(|modifier| *modifier == name);
        at.map(|at| self.modifiers.remove(at)).is_some()
    }

    /// Takes all of these that are there.
    pub(super) fn drop(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Takes whichever of these is there.
    pub(super) fn one_of<T: Copy>(&mut self, names: &[(&str, T)]) -> Option<T> {
        names.iter().find(|(name, _)| self.take(name)).map(|&(_, value)| value)
    }

    pub(super) fn peek(&self) -> Option<&'t Operand<'a>> {
        self.text.operands.get(self.next)
    }

    fn next(&mut self) -> Result<&'t Operand<'a>, ParseError> {
        let Some(operand) = self.peek() else { return self.fail("an operand is missing") };
        self.next += 1;
        Ok(operand)
    }

    /// Returns the slot of a register, and of so many after it.
    fn slot(&self, (file, index): Named, count: u16) -> Result<Slot, ParseError> {
        let Some(index) = index else { return Ok(ZERO) };
        let (first, all) = match file {
            File::Lanes => (1, self.context.registers),
            File::Uniform => (1 + self.context.registers, UNIFORM_REGISTERS),
        };
        if count > 1 && index % count != 0 {
            return self.fail(&format!("register {index} does not begin {count} of them"));
        }
        if index + count > all {
            return self.fail(&format!("register {index} is not one of the kernel's {all}"));
        }
        Ok(first + index)
    }

    /// Takes the register for the result, the first of so many.
    pub(super) fn dst(&mut self, count: u16) -> Result<(), ParseError> {
        let file = if self.ins.uniform { File::Uniform } else { File::Lanes };
        match self.next()? {
            Operand::Register(named, sign, _) if *sign == Sign::default() && named.0 == file => {
                self.ins.dst = self.slot(*named, count)?;
                Ok(())
            }
            _ => self.fail("the result is no register that it can have"),
        }
    }

    /// Takes the predicates for results, if there are any; at most so many.
    pub(super) fn bits(&mut self, most: usize) -> Result<(), ParseError> {
        for at in 0..most {
            let Some(Operand::Predicate(file, index, not)) = self.peek() else { break };
            if *not {
                return self.fail("a result is negated");
            }
            if self.ins.uniform != (*file == File::Uniform) && index.is_some() {
                return self.fail("a result of the wrong kind");
            }
            self.next += 1;
            self.ins.bits[at] = bit(*file, *index);
        }
        Ok(())
    }

    /// Takes predicates that must be the one that is always true: results that nothing here gives.
    pub(super) fn no_bits(&mut self) -> Result<(), ParseError> {
        let before = self.ins.bits;
        self.bits(2)?;
        if self.ins.bits != before {
            return self.fail("a result that is not supported");
        }
        Ok(())
    }

    /// Takes a predicate that is read.
    pub(super) fn test(&mut self, at: usize) -> Result<(), ParseError> {
        match self.next()? {
            Operand::Predicate(file, index, not) => {
                self.ins.tests[at] = Test { bit: bit(*file, *index), not: *not };
                Ok(())
            }
            _ => self.fail("an operand that should be a predicate"),
        }
    }

    /// Takes a predicate that must be the constant given.
    pub(super) fn constant_test(&mut self, value: bool) -> Result<(), ParseError> {
        match self.next()? {
            Operand::Predicate(_, None, not) if *not != value => Ok(()),
            _ => self.fail(&format!("a predicate that is not always {value}")),
        }
    }

    fn source(&self, operand: &Operand<'a>, count: u16, float: bool) -> Result<Source, ParseError> {
        let (place, sign) = match operand {
            Operand::Register(named, sign, _) => {
                if self.ins.uniform && named.0 == File::Lanes {
                    return self.fail("an instruction of the warp reads a lane's register");
                }
                (Place::Slot(self.slot(*named, count)?), *sign)
            }
            Operand::Integer(value) if !float => (Place::Value(*value as u64), Sign::default()),
            Operand::Integer(bits) => (Place::Value(*bits as u32 as u64), Sign::default()),
            Operand::Float(value) if float => (Place::Value((*value as f32).to_bits().into()), Sign::default()),
            Operand::Constant(bank, index, offset, sign) => {
                let index = match index {
                    None => ZERO,
                    Some(named) => self.slot(*named, 1)?,
                };
                (Place::Constant { bank: *bank, index, offset: *offset }, *sign)
            }
            _ => return self.fail("an operand that is not supported here"),
        };
        Ok(Source { place, negative: sign.negative, inverted: sign.inverted, absolute: sign.absolute })
    }

    /// Takes a number: a register or the first of so many, a constant, or a value.
    pub(super) fn src(&mut self, at: usize, count: u16) -> Result<(), ParseError> {
        let operand = self.next()?;
        self.ins.src[at] = self.source(operand, count, false)?;
        Ok(())
    }

    /// Takes a float.
    pub(super) fn float(&mut self, at: usize) -> Result<(), ParseError> {
        let operand = self.next()?;
        self.ins.src[at] = self.source(operand, 1, true)?;
        if self.ins.src[at].inverted {
            return self.fail("a float is inverted");
        }
        Ok(())
    }

    /// Takes a decimal number.
    pub(super) fn decimal(&mut self) -> Result<f64, ParseError> {
        match self.next()? {
            Operand::Float(value) => Ok(*value),
            _ => self.fail("an operand that should be a decimal number"),
        }
    }

    /// Takes a number that must be plain and known now.
    pub(super) fn known(&mut self) -> Result<i64, ParseError> {
        match self.next()? {
            Operand::Integer(value) => Ok(*value),
            Operand::Register((_, None), sign, _) if *sign == Sign::default() => Ok(0),
            _ => self.fail("an operand that should be a number"),
        }
    }

    /// Takes the name of a special register.
    pub(super) fn special(&mut self) -> Result<&'a str, ParseError> {
        match self.next()? {
            Operand::Special(name) => Ok(name),
            _ => self.fail("an operand that should be a special register"),
        }
    }

    /// Takes `B0` to `B15`.
    pub(super) fn barrier(&mut self) -> Result<u8, ParseError> {
        match self.next()? {
            Operand::Barrier(index) if *index < 16 => Ok(*index),
            _ => self.fail("an operand that should be a barrier"),
        }
    }

    /// Takes a label. Returns the address.
    pub(super) fn label(&mut self) -> Result<u32, ParseError> {
        let Operand::Label(label) = self.next()? else { return self.fail("an operand that should be a label") };
        let at = if *label == self.context.kernel { Some(&0) } else { self.context.section.labels.get(label) };
        match at {
            Some(&at) => Ok(at),
            None => self.fail(&format!("there is no label {label}")),
        }
    }

    /// Takes the label of an instruction to which it may jump.
    pub(super) fn target(&mut self) -> Result<(), ParseError> {
        let at = self.label()?;
        let found = self.context.section.instructions.binary_search_by_key(&at, |text| text.at);
        match found {
            Ok(index) => self.ins.target = index as u32,
            Err(_) => return self.fail("the target is no instruction"),
        }
        Ok(())
    }

    /// Takes an address. Those of global memory are 64 bits wide.
    pub(super) fn address(&mut self, global: bool) -> Result<(), ParseError> {
        let Operand::Address(address) = self.next()? else { return self.fail("an operand that should be an address") };
        let mut found = Address { offset: address.offset, ..self.ins.address };
        if let Some((index, kind)) = address.base {
            // Where registers of the warp are added, 64 bits say so; older listings do not say it for lanes alone.
            (found.wide, found.scale) = match kind {
                "64" if global => (true, 1),
                "" if global && address.uniform.is_none() => (true, 1),
                "U32" if global && address.uniform.is_some() => (false, 1),
                "" if !global => (false, 1),
                "X4" if !global => (false, 4),
                "X8" if !global => (false, 8),
                "X16" if !global => (false, 16),
                _ => return self.fail("an address that is not supported"),
            };
            found.base = self.slot((File::Lanes, index), if found.wide { 2 } else { 1 })?;
        }
        if let Some(index) = address.uniform {
            found.uniform = self.slot((File::Uniform, index), if global { 2 } else { 1 })?;
        }
        if let Some(index) = address.descriptor {
            found.descriptor = self.slot((File::Uniform, Some(index)), 2)?;
        }
        self.ins.address = found;
        Ok(())
    }
}
