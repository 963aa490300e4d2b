//! What every opcode's lowering needs: modifiers taken one by one, operands that must fit.

use crate::ptx::ParseError;
use crate::ptx::ir::{Ins, NONE, Slot, Ty};
use crate::ptx::lex::error;
use crate::ptx::lower::{Lower, Symbol};
use crate::ptx::tree::{InstructionText, Operand};

/// An instruction while it is lowered: its modifiers are taken one by one, and none may be left.
pub(super) struct Form<'a, 'i> {
    pub(super) text: &'i InstructionText<'a>,
    pub(super) modifiers: Vec<&'a str>,
}

impl<'a> Form<'a, '_> {
    pub(super) fn fail<T>(&self, what: &str) -> Result<T, ParseError> {
        Err(error(self.text.line, &format!("{}: {what}", self.text.opcode)))
    }

    /// Takes a modifier, if it is there.
    pub(super) fn take(&mut self, name: &str) -> bool {
        let at = self.modifiers.iter().position(|modifier| *modifier == name);
        at.map(|at| self.modifiers.remove(at)).is_some()
    }

    /// Takes whichever of these is there; returns its index.
    pub(super) fn one_of(&mut self, names: &[&str]) -> Option<usize> {
        names.iter().position(|name| self.take(name))
    }

    /// Returns whether it is about 32-bit floats.
    pub(super) fn is_f32(&self) -> bool {
        self.modifiers.contains(&"f32")
    }

    /// Returns whether a float of any kind is among its types.
    pub(super) fn has_float(&self) -> bool {
        self.modifiers.iter().any(|modifier| matches!(ty(modifier), Some((_, true))))
    }

    /// Takes the first modifier that is a type; floats only where they are mere bits.
    pub(super) fn any_type(&mut self) -> Result<(Ty, bool), ParseError> {
        for at in 0..self.modifiers.len() {
            if let Some(ty) = ty(self.modifiers[at]) {
                self.modifiers.remove(at);
                return Ok(ty);
            }
        }
        self.fail("there is no type, or one that is not supported")
    }

    pub(super) fn bits_type(&mut self) -> Result<Ty, ParseError> {
        Ok(self.any_type()?.0)
    }

    /// Returns the type, which must not be a floating-point one.
    pub(super) fn int_type(&mut self) -> Result<Ty, ParseError> {
        match self.any_type()? {
            (ty, false) => Ok(ty),
            _ => self.fail("floating point is not supported"),
        }
    }

    /// Fails if a modifier is left, or if the number of operands is another one.
    pub(super) fn done(&self, operands: usize) -> Result<(), ParseError> {
        if let Some(left) = self.modifiers.first() {
            return self.fail(&format!(".{left} is not supported"));
        }
        if self.text.operands.len() != operands {
            return self.fail(&format!("{} operands are not supported", self.text.operands.len()));
        }
        Ok(())
    }

    pub(super) fn operand(&self, at: usize) -> &Operand<'a> {
        &self.text.operands[at]
    }
}

/// Returns a type by its name; whether it is a float.
pub(super) fn ty(name: &str) -> Option<(Ty, bool)> {
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

/// What an operand may be, besides a register of the type's width.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fit {
    Exact,
    /// A wider register will do, as for loads, stores and conversions.
    Wider,
}

impl<'a> Lower<'a, '_> {
    pub(super) fn push(&mut self, ins: Ins) -> Result<(), ParseError> {
        self.emit(ins);
        Ok(())
    }

    /// Returns the register that an operand names.
    pub(super) fn register_of(
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

    pub(super) fn dst(&mut self, form: &Form<'a, '_>, at: usize, ty: Ty) -> Result<Slot, ParseError> {
        Ok(self.register_of(form, form.operand(at), ty, Fit::Exact)?.0)
    }

    /// Returns a register or a constant.
    pub(super) fn source(
        &mut self,
        form: &Form<'a, '_>,
        operand: &Operand<'a>,
        ty: Ty,
        fit: Fit,
    ) -> Result<Slot, ParseError> {
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

    pub(super) fn src(&mut self, form: &Form<'a, '_>, at: usize, ty: Ty) -> Result<Slot, ParseError> {
        self.source(form, form.operand(at), ty, Fit::Exact)
    }

    /// Returns a predicate and whether it is negated.
    pub(super) fn predicate(&mut self, form: &Form<'a, '_>, operand: &Operand<'a>) -> Result<(Slot, bool), ParseError> {
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

    /// Returns a predicate that is written; `_` is none.
    pub(super) fn predicate_dst(&mut self, form: &Form<'a, '_>, operand: &Operand<'a>) -> Result<Slot, ParseError> {
        match operand {
            Operand::Word("_") => Ok(NONE),
            Operand::Word(_) => Ok(self.predicate(form, operand)?.0),
            _ => form.fail("a result that is no predicate"),
        }
    }

    /// Returns the one or two predicates that a comparison writes.
    pub(super) fn predicates_dst(&mut self, form: &Form<'a, '_>) -> Result<(Slot, Slot), ParseError> {
        match form.operand(0) {
            Operand::Pair(p, q) => Ok((self.predicate_dst(form, p)?, self.predicate_dst(form, q)?)),
            p => Ok((self.predicate_dst(form, p)?, NONE)),
        }
    }
}

/// Returns a constant of fewer than 32 bits as a register of 16 holds it.
fn unsigned_extend(ty: Ty, value: u64) -> u64 {
    if ty.bits() == 8 { value & 0xff } else { value & 0xffff }
}
