//! Instructions that move lanes about, and those that do nothing here.

use super::super::ParseError;
use super::super::ir::{Op, Place, Source, Test, ZERO};
use super::super::listing::Operand;
use super::form::Form;

/// Decodes an instruction, if it is one of these.
pub(super) fn decode(form: &mut Form) -> Result<bool, ParseError> {
    let op = match form.name {
        "NOP" | "YIELD" | "ENDCOLLECTIVE" | "ERRBAR" => Op::Nop,
        // The end of a wait for the kernel before, and leave for the one after to start: launches here run one by one.
        "ACQBULK" | "PREEXIT" => Op::Nop,
        "MEMBAR" => {
            form.drop(&["SC", "ALL", "CTA", "GPU", "SYS", "VC"]);
            Op::Nop
        }
        "NANOSLEEP" => {
            form.src(0, 1)?;
            Op::Nop
        }
        "BRA" => branch(form)?,
        "BSSY" => {
            form.drop(&["RECONVERGENT", "RELIABLE"]);
            let barrier = form.barrier()?;
            form.target()?;
            Op::Meet { barrier }
        }
        "BSYNC" => {
            form.drop(&["RECONVERGENT", "RELIABLE"]);
            Op::Await { barrier: form.barrier()? }
        }
        "BREAK" => {
            form.take("RELIABLE");
            Op::Leave { barrier: form.barrier()? }
        }
        "BMOV" => {
            let clears = form.take("32") && form.take("CLEAR");
            form.dst(1)?;
            if !clears || form.ins.dst != ZERO {
                return form.fail("only clearing a barrier is supported");
            }
            Op::Forget { barrier: form.barrier()? }
        }
        "WARPSYNC" => {
            let all = form.take("ALL");
            let collective = form.take("COLLECTIVE");
            if !all {
                form.src(0, 1)?;
            }
            if collective {
                // What follows is done by all lanes of the mask together; the label is where that ends.
                form.label()?;
            }
            Op::WarpSync { all }
        }
        "CALL" => {
            if !form.take("REL") || !form.take("NOINC") {
                return form.fail("only .REL.NOINC is supported");
            }
            form.target()?;
            Op::Call
        }
        "RET" => {
            if !form.take("REL") || !form.take("NODEC") {
                return form.fail("only .REL.NODEC is supported");
            }
            form.src(0, 2)?;
            if form.label()? != 0 {
                return form.fail("an address that does not count from the kernel's beginning");
            }
            Op::Return
        }
        "EXIT" => Op::Exit,
        "BAR" => {
            if !form.take("SYNC") {
                return form.fail("only .SYNC is supported");
            }
            form.take("DEFER_BLOCKING");
            form.src(0, 1)?;
            if form.peek().is_some() {
                form.src(1, 1)?;
            }
            Op::BlockSync
        }
        _ => return Ok(false),
    };
    form.ins.op = op;
    Ok(true)
}

fn branch(form: &mut Form) -> Result<Op, ParseError> {
    let (divergent, convergent) = (form.take("DIV"), form.take("CONV"));
    form.take("U");
    form.ins.tests[0] = Test::ALWAYS;
    if divergent || convergent {
        form.ins.src[0] = Source { place: Place::Value(u64::MAX), ..Source::ZERO };
        if matches!(form.peek(), Some(Operand::Register(..))) {
            form.src(0, 1)?;
        }
    } else if matches!(form.peek(), Some(Operand::Predicate(..))) {
        form.test(0)?;
    }
    form.target()?;
    Ok(match (divergent, convergent) {
        (true, _) => Op::BranchDivergent,
        (_, true) => Op::BranchConvergent,
        _ => Op::Branch,
    })
}
