//! An interpreter of PTX: [`Module::parse`] reads what a compiler wrote, [`Launch`] runs one of its kernels and checks it.

mod access;
mod alu;
mod block;
mod collective;
mod global;
mod ir;
mod lanes;
mod launch;
mod lex;
mod lower;
mod module;
mod opcodes;
mod run;
mod shared;
mod syntax;
mod tree;
mod warp;

pub use crate::exec::{Counts, Fault, FaultKind, LineCounts, Options};
pub use launch::Launch;
pub use module::{Function, Module, ParseError, Variable};
