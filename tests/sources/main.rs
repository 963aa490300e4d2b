//! Files that must agree with other files of the sources: the generated header, the compiled kernels, the mirror of their constants.

mod header;
mod policy;
mod prebuilt;
#[path = "../support/mod.rs"]
mod support;
