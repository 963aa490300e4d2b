//! An interpreter of machine code: [`Module::parse`] reads a cubin beside what `nvdisasm` printed of it, [`Launch`] runs one
//! of its kernels and checks it.
//!
//! The instructions of machine code are documented by name only. What each does here is what NVIDIA's compiler must mean by
//! it, for the code that it makes of PTX whose meaning is known; where that leaves a doubt, the instruction is refused.

mod access;
mod alu;
mod block;
mod collective;
mod decode;
mod elf;
mod ir;
mod listing;
mod module;
mod run;
#[cfg(test)]
mod tests;
mod warp;

pub use block::Launch;
pub use module::{Function, Module, ParseError};

pub(crate) use elf::bytes_of;
