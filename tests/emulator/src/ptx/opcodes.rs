//! What each opcode with its modifiers and operands becomes. What is not here is an error that names the opcode.

mod control;
mod floats;
mod form;
mod memory;
mod numbers;

use super::ParseError;
use super::ir::{Ins, Op, logic};
use super::lower::{INS, Lower, Symbol};
use super::tree::InstructionText;
use form::Form;

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
            "fma" => self.float(form, ins, Op::FFma, 3),
            "div" if form.is_f32() => self.float_divide(form, ins),
            "min" | "max" if form.is_f32() => self.float_extreme(form, ins, opcode),
            "abs" if form.is_f32() => self.float_sign(form, ins, Op::FAbs),
            "neg" if form.is_f32() => self.float_sign(form, ins, Op::FNeg),
            "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => self.float_function(form, ins, opcode),
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
            "popc" => self.count(form, ins, Op::Popc),
            "clz" => self.count(form, ins, Op::Clz),
            "bfind" => {
                ins.sub = form.take("shiftamt") as u8;
                self.count(form, ins, Op::Bfind)
            }
            "shl" => self.shift(form, ins, Op::Shl),
            "shr" => self.shift(form, ins, Op::Shr),
            "shf" | "lop3" | "prmt" | "bfe" | "bfi" | "fns" | "bmsk" | "szext" | "dp4a" | "dp2a" => {
                self.bits(form, ins, opcode)
            }
            "setp" if form.is_f32() => self.float_compare(form, ins),
            "setp" | "set" => self.compare(form, ins, opcode),
            "selp" | "slct" => self.select(form, ins, opcode),
            "cvt" if form.has_float() => self.float_convert(form, ins),
            "cvt" => self.convert(form, ins),
            "mma" => self.mma(form, ins),
            "cvta" | "isspacep" => self.address_space(form, ins, opcode),
            "ld" | "ldu" | "st" => self.load_store(form, ins, opcode),
            "atom" | "red" => self.atomic(form, ins, opcode),
            "membar" | "fence" => {
                form.modifiers.clear();
                form.done(0)?;
                self.push(Ins { op: Op::Fence, ..ins })
            }
            "prefetch" | "prefetchu" | "nanosleep" | "pmevent" => self.push(Ins { op: Op::Nop, ..ins }),
            "griddepcontrol" => {
                let kind = form.one_of(&["launch_dependents", "wait"]);
                let Some(kind) = kind else { return form.fail("this form is not supported") };
                form.done(0)?;
                self.push(Ins { op: if kind == 0 { Op::Nop } else { Op::GridWait }, ..ins })
            }
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" => self.control(form, ins, opcode),
            "bar" | "barrier" => self.barrier(form, ins),
            "shfl" | "vote" | "match" | "redux" | "activemask" => self.warp(form, ins, opcode),
            _ => form.fail("this instruction is not supported"),
        }
    }
}
