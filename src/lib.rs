//! libdf11: losslessly compressed LLM weights for any inference engine.
//!
//! DFloat11 (DF11) keeps a bf16 weight's sign and mantissa as they are and Huffman-codes its exponent: about 10.9 bits
//! instead of 16, and every bit comes back. This crate opens DF11 models (a folder, a single file, bytes in memory),
//! checks them as hostile input, and decodes any range of weights on the CPU with as many threads as you give it.
//! The same functions are exported to C; `include/df11.h` is the C manual.
//!
//! ```no_run
//! use df11::{DecodeOptions, Model, OpenOptions, bf16};
//! # fn main() -> Result<(), df11::Error> {
//! let model = Model::open("Qwen3-8B-DF11", &OpenOptions::new())?;
//! let group = model.find_group("model.layers.0").expect("a Qwen3 model has layers");
//! let mut weights = vec![bf16::ZERO; group.element_count() as usize];
//! group.decompress(0, &mut weights, &DecodeOptions::new().threads(8))?;
//! # Ok(()) }
//! ```
//!
//! # Where to look
//!
//! - [`Model`] opens a model, and gives out its [`Group`]s and [`Tensor`]s, which decode themselves;
//! - [`verify`]: everything that can be verified of a whole model;
//! - [`writer`]: whole models compressed, as `df11 compress` does;
//! - [`plan`]: what a model becomes and what memory it takes, from headers alone;
//! - [`matrix`]: weights to multiply with on the CPU, in less time than bf16;
//! - [`encode`]: one group in memory, compressed to memory;
//! - [`cuda`]: groups on a CUDA device, decoded on your streams;
//! - [`Progress`]: how far a long call is, and the switch that ends it.

//! # Crate features
//!
//! | feature | by default | what it adds |
//! |---|---|---|
//! | `cuda` | yes | [`cuda`], with the kernels in the binary; the driver is loaded at run time |
//! | `writer` | yes | [`writer`] and [`encode`]; turns on `verify` |
//! | `verify` | with `writer` | [`verify`], which needs SHA-256 |
//! | `cudarc` | no | the types of the crate cudarc as arguments of [`cuda`] |
//! | `cli` | no | the command line tool `df11` |
//!
//! Without any of them the crate opens, checks and decodes models. It then still depends on `regex`, because the config of a
//! model names its tensors by regular expressions. The C ABI is complete with the default features, and is not there without
//! `cuda` and `writer`.
//!
//! # Types of other crates
//!
//! Three other crates' types are in the interface: [`Dtype`] of safetensors 0.8, [`bf16`] of half 2, and, with the feature
//! `cudarc`, types of cudarc 0.19. A new major version of one of these is a new major version of this crate.

// Modules, and who may use whom:
//
// | module | what it is | uses |
// |---|---|---|
// | error | one error type, one status number each | nothing |
// | progress | how far a long call is, and the switch that ends it | error |
// | huffman | exponents to bits and back: code tables, the naive decoder, the fast one; knows no files | error |
// | format | bytes of files to checked views; decodes nothing | huffman's code tables, progress, error |
// | host | whole groups on the CPU: ranges, threads, verification, encoding | format, huffman, progress |
// | matrix | bf16 matrices at 12 bits a weight, and products with them | host, format, huffman, progress |
// | cuda | groups on a CUDA device: images, kernels, launches on the caller's stream | format, host, huffman |
// | writer | whole models out: presets, plans, files | cuda (for images in files), host, format, huffman, progress |
// | plan | what a model becomes and needs, from headers alone | writer, cuda, host, format, huffman, progress |
// | capi | the C ABI: only marshalling | all of the above |
// | internals | re-exports for tests and benches, hidden from users | all of the above |
//
// format reads the stored look-up rows by huffman::rows, because a model is not open until its code is known to be a
// prefix code. That is the one arrow between the two, and nothing points back.

// A smaller build leaves functions that only the others' callers use. The full build says which nobody uses.
#![cfg_attr(not(all(feature = "cuda", feature = "writer")), allow(dead_code, unused_imports))]

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("libdf11 supports 64-bit little-endian targets: DF11 files are little-endian and groups exceed 4 GiB");

#[cfg(all(feature = "cuda", feature = "writer"))]
#[allow(missing_debug_implementations, reason = "these are C's types")]
mod capi;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
mod format;
mod host;
#[allow(missing_debug_implementations, reason = "no user has one of them")]
mod huffman;
pub mod matrix;
#[cfg(all(feature = "cuda", feature = "writer"))]
pub mod plan;
mod progress;
#[cfg(feature = "verify")]
mod thousands;
#[cfg(feature = "writer")]
pub mod writer;

#[doc(hidden)]
pub mod internals;

pub use error::{Error, Place, Result, Status, escape};
pub use format::{Config, Group, GroupPart, Location, Missing, Model, OpenOptions, Run, ShapeSource, Tensor};
pub use half::bf16;
pub use host::DecodeOptions;
pub use progress::Progress;
pub use safetensors::Dtype;

#[cfg(feature = "verify")]
/// Verifying whole models: every code, every hash that the files carry, and every bit of an original.
pub mod verify {
    pub use crate::host::{Finding, FindingKind, Verified, VerifyOptions, compare_models, verify_model};
}

#[cfg(feature = "writer")]
/// One group in memory, compressed to memory, byte for byte as the reference compressor does. [`crate::writer`] compresses
/// whole models.
pub mod encode {
    pub use crate::host::{EncodeOptions, Packed, PackedSizes, compress, compress_raw};
}

/// The version of this library, as `major.minor.patch`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The examples of the page for users of Rust are compiled as those of the documentation are.
#[cfg(doctest)]
#[doc = include_str!("../docs/rust.md")]
mod page {}
