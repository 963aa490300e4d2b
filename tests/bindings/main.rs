//! Programs in C and C++ that use the library, compiled and run: the header, the C++ binding, the examples, the programs for GPUs.

mod c;
mod cpp;
mod cuda_programs;
mod examples;
#[path = "../support/mod.rs"]
mod support;
