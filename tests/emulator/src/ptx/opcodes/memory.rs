//! Addresses, loads, stores and atomics.

use super::form::{Fit, Form};
use crate::ptx::ParseError;
use crate::ptx::ir::{Ins, NONE, Op, Space, Ty, atom, window};
use crate::ptx::lower::{Lower, Symbol};
use crate::ptx::tree::Operand;

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
    pub(super) fn address_space(
        &mut self,
        form: &mut Form<'a, '_>,
        mut ins: Ins,
        opcode: &str,
    ) -> Result<(), ParseError> {
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
    pub(super) fn address(
        &mut self,
        form: &Form<'a, '_>,
        operand: &Operand<'a>,
        ins: &mut Ins,
    ) -> Result<(), ParseError> {
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
                    return form.fail(&format!("{name} is in another space"));
                }
                ins.r[5] = self.constant(address.wrapping_add(offset as u64).wrapping_add(base), true);
            }
            _ => return form.fail("an address in a register of another size"),
        }
        Ok(())
    }

    pub(super) fn load_store(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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

    pub(super) fn atomic(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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

// Windows must not be confused with the addresses of global memory.
const _: () = assert!(window::SHARED >> 48 != 0 && window::LOCAL >> 48 != 0 && window::PARAM >> 48 != 0);
