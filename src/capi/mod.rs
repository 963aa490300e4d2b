//! The C ABI: marshalling and nothing else. `include/df11.h` is generated from the files of this folder, and the doc
//! comments here are the C manual.
//!
//! - [`status`]: `df11_status`, `df11_error`, and the frame that every fallible function runs in;
//! - [`structs`]: how structs with a `struct_size` are read and written;
//! - [`log`]: versions and the log callback;
//! - [`types`]: the structs and constants that describe models;
//! - [`model`]: opening, counting, describing, finding;
//! - [`host`]: decoding on the CPU;
//! - [`image`]: groups as a device decodes them, in host memory;
//! - [`device`]: CUDA devices;
//! - [`resident`]: images on them;
//! - [`decompress`]: decoding on a CUDA stream;
//! - [`progress`]: how far a long call is, and its end;
//! - [`verify`]: verifying whole models;
//! - [`compress`]: writing whole models, and groups in memory.
//!
//! Conventions: names are C names, so that a C and a Rust reader see the same; every fallible function returns a
//! `df11_status`, takes an optional `df11_error *` last, and ends in `status::frame`, which turns errors and panics
//! into both. Nothing unwinds into C, and nothing is printed.
#![allow(non_camel_case_types)]

pub mod compress;
pub mod decompress;
pub mod device;
pub mod host;
pub mod image;
pub mod log;
pub mod model;
pub mod progress;
pub mod resident;
pub mod status;
pub mod structs;
pub mod types;
pub mod verify;
