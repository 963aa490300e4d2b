//! What each instruction with its modifiers and operands becomes. What is not here is an error that names it.

mod control;
mod floats;
mod form;
mod memory;
mod numbers;

use super::ParseError;
use super::ir::Ins;
use super::listing::{Section, Text};
use form::Form;

/// What instructions are decoded against.
pub(super) struct Context<'a> {
    pub(super) kernel: &'a str,
    pub(super) section: &'a Section<'a>,
    /// The number of registers of a lane.
    pub(super) registers: u16,
}

/// The number of registers of a warp that instructions can name.
pub(super) const UNIFORM_REGISTERS: u16 = 96;

/// Decodes one instruction.
pub(super) fn decode(context: &Context, text: &Text) -> Result<Ins, ParseError> {
    let mut form = Form::new(context, text)?;
    let name = form.name;
    let known = numbers::decode(&mut form)?
        || floats::decode(&mut form)?
        || memory::decode(&mut form)?
        || control::decode(&mut form)?;
    if !known {
        return form.fail(&format!("{name} is not supported"));
    }
    form.done()
}
