//! The C ABI: marshalling and nothing else. `include/df11.h` is generated from the files of this folder, a chapter from
//! each, and the doc comments here are the C manual (tests/sources/header.rs has the order of the chapters).
//!
//! - [`args`]: the arguments of C as values that safe code can use;
//! - [`frame`]: the end of every call;
//! - [`structs`]: how structs with a `struct_size` are read and written;
//! - [`version`], [`status`], [`log`], [`progress`];
//! - [`model`], [`group`], [`tensor`]: open and look;
//! - [`host`]: decode on the CPU;
//! - [`matrix`]: matrices to multiply with;
//! - [`device`], [`image`], [`resident`], [`decompress`]: CUDA;
//! - [`multiply`]: CUDA, in a header of its own, because it is not yet part of the stable ABI;
//! - [`device`], [`image`], [`linear_image`], [`resident`], [`decompress`]: CUDA;
//! - [`compress`], [`plan`], [`preset`], [`pack`]: write;
//! - [`verify`].
//!
//! Conventions: names are C names, so that a C and a Rust reader see the same. Every fallible function returns a
//! `df11_status` and takes an optional `df11_error *` last. It consists of a shell, which turns what C gives into argument
//! types inside one unsafe block, and of a body, which is safe. Where the Rust function is unsafe itself (raw destinations,
//! work on a device) the shell calls it. [`frame::call`] turns the error or panic into a
//! status. Nothing unwinds into C, and nothing is printed.
#![allow(non_camel_case_types)]

mod args;
mod compress;
mod decompress;
mod device;
mod frame;
mod group;
mod host;
mod image;
mod linear_image;
mod log;
mod matrix;
mod model;
mod multiply;
mod pack;
mod plan;
mod preset;
mod progress;
mod resident;
mod rewrite;
mod shard;
mod status;
mod structs;
mod tensor;
mod verify;
mod version;

pub use compress::*;
pub use decompress::*;
pub use device::*;
pub use group::*;
pub use host::*;
pub use image::*;
pub use linear_image::*;
pub use log::*;
pub use matrix::*;
pub use model::*;
pub use multiply::*;
pub use pack::*;
pub use plan::*;
pub use preset::*;
pub use progress::*;
pub use resident::*;
pub use rewrite::*;
pub use shard::*;
pub use status::*;
pub use tensor::*;
pub use verify::*;
pub use version::*;
