//! Groups on a CUDA device.
//!
//! - [`image`]: a group's bytes as a device wants them. No CUDA call is made there: sizes, heads and whole images are made
//!   and read on any machine.

pub mod image;
