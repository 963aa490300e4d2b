//! A CUDA driver for tests, without a GPU: memory that knows its bounds, interpreters of PTX and of machine code that check
//! every access, and (in `driver`) the `cu*` entry points over both.
//!
//! It is no model of speed, of a GPU's memory ordering, or of a real driver's quirks.

mod code;
pub mod driver;
mod exec;
pub mod memory;
pub mod ptx;
pub mod sass;
