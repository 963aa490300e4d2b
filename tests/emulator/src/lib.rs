//! A CUDA driver for tests, without a GPU: memory that knows its bounds, an interpreter of PTX that checks every access, and
//! (in `driver`) the `cu*` entry points over both.
//!
//! It is no model of speed, of a GPU's memory ordering, or of a real driver's quirks.

pub mod driver;
pub mod memory;
pub mod ptx;
