//! An interpreter of PTX: [`Module::parse`] reads what a compiler wrote, [`Launch`] runs one of its kernels and checks it.

mod access;
mod alu;
mod block;
mod collective;
mod counts;
mod fault;
mod global;
mod ir;
mod lanes;
mod launch;
mod lex;
mod lower;
mod module;
mod opcodes;
mod race;
mod run;
mod shared;
mod syntax;
mod tree;
mod warp;

pub use counts::{Counts, LineCounts};
pub use fault::{Fault, FaultKind};
pub use launch::{Launch, Options};
pub use module::{Function, Module, ParseError, Variable};
