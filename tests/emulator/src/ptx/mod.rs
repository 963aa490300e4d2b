//! An interpreter of PTX: [`Module::parse`] reads what a compiler wrote, [`Launch`] runs one of its kernels and checks it.

mod counts;
mod fault;
mod launch;
mod module;

pub use counts::Counts;
pub use fault::{Fault, FaultKind};
pub use launch::{Launch, Options};
pub use module::{Function, Module, ParseError, Variable};
