//! The emulated driver: each entry point called as an engine calls it, from Rust, from C and through cudarc.

#[macro_use]
mod support;

mod capture;
mod contexts;
mod cudarc_engine;
mod green;
mod inject;
mod libraries;
mod modules;
mod streams;
