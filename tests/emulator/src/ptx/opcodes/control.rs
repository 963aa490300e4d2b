//! Branches, barriers, and the operations of a warp.

use super::form::{Fit, Form};
use crate::ptx::ParseError;
use crate::ptx::ir::{Ins, Op, Ty};
use crate::ptx::lower::Lower;
use crate::ptx::tree::Operand;

impl<'a> Lower<'a, '_> {
    pub(super) fn control(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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

    pub(super) fn barrier(&mut self, form: &mut Form<'a, '_>, mut ins: Ins) -> Result<(), ParseError> {
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

    pub(super) fn warp(&mut self, form: &mut Form<'a, '_>, mut ins: Ins, opcode: &str) -> Result<(), ParseError> {
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
