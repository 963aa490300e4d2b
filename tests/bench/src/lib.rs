//! Benchmarks of libdf11 beside its peers, all in one run, so that they share the machine's mood.
//!
//! - [`data`]: the weights, and a DF11 model of them made by the tests' own encoder;
//! - [`contest`]: what a contestant is, and rounds in which all of them take turns;
//! - [`ours`], [`copy`], [`huf0`] (with [`merge`] and [`split`]), [`zstd`], [`huge`], [`python`], [`image`]: the contestants;
//! - [`bench`](mod@bench): the options of a contest, its cases one after the other, and where results go;
//! - [`matrix`]: matrices, and products of plain bf16;
//! - [`model`]: whole models on the disk;
//! - [`clock`]: wall and CPU time, and staying on one core;
//! - [`machine`], [`report`]: what was measured on what, as a table and as JSON.
//!
//! Every contestant's answer is compared with the original bits after every timing: a fast wrong answer is no result.

pub mod bench;
pub mod clock;
pub mod contest;
pub mod copy;
pub mod data;
pub mod huf0;
pub mod huge;
pub mod image;
pub mod machine;
pub mod matrix;
pub mod merge;
pub mod model;
pub mod ours;
pub mod python;
pub mod report;
pub mod split;
mod vectors;
pub mod zstd;

/// The tests' own encoder.
#[path = "../../support/encoder.rs"]
pub mod encoder;
/// The tests' own weights.
#[path = "../../support/weights.rs"]
pub mod weights;
