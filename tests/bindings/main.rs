//! Programs in C and C++ that use the library, compiled and run: the header, the C++ binding, the examples, the programs for GPUs,
//! and what the documents show.

mod c;
mod cpp;
mod cuda_programs;
mod documents;
mod engine;
mod examples;
#[path = "../support/mod.rs"]
mod support;
