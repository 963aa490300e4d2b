//! libdf11: losslessly compressed LLM weights for any inference engine.
//!
//! DFloat11 (DF11) keeps a bf16 weight's sign and mantissa as they are and Huffman-codes its exponent: about 10.9 bits
//! instead of 16, and every bit comes back. This crate opens DF11 models (a folder, a single file, bytes in memory),
//! checks them as hostile input, and decodes any range of weights on the CPU with as many threads as the caller gives.
//! The same functions are exported to C; `include/df11.h` is the C manual.
//!
//! ```no_run
//! use df11::{host, Model, OpenOptions};
//! # fn main() -> Result<(), df11::Error> {
//! let model = Model::open("Qwen3-8B-DF11", &OpenOptions::default())?;
//! let group = model.find_group("model.layers.0").expect("a Qwen3 model has layers");
//! let mut weights = vec![half::bf16::ZERO; model.groups()[group].element_count() as usize];
//! host::decompress(&model, group, 0, &mut weights, &host::DecodeOptions { threads: 8, ..Default::default() })?;
//! # Ok(()) }
//! ```

// Modules, and who may use whom:
//
// | module | what it is | uses |
// |---|---|---|
// | error | one error type, one status number each | nothing |
// | progress | how far a long call is, and the switch that ends it | error |
// | huffman | exponents to bits and back: code tables, the naive decoder, the fast one; knows no files | error |
// | format | bytes of files to checked views; decodes nothing | huffman's code tables, progress, error |
// | host | whole groups on the CPU: ranges, threads, verification, encoding | format, huffman, progress |
// | cuda | groups on a CUDA device: images, kernels, launches on the caller's stream | format, host, huffman |
// | writer | whole models out: presets, plans, files | host, format, huffman, progress |
// | capi | the C ABI: only marshalling | all of the above |
// | internals | re-exports for tests and benches, hidden from users | all of the above |
//
// format reads the stored look-up rows by huffman::rows, because a model is not open until its code is known to be a
// prefix code. That is the one arrow between the two, and nothing points back.

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("libdf11 supports 64-bit little-endian targets: DF11 files are little-endian and groups exceed 4 GiB");

mod capi;
pub mod cuda;
mod error;
mod format;
pub mod host;
mod huffman;
mod progress;
pub mod writer;

#[doc(hidden)]
pub mod internals;

pub use error::{Error, Place, Result, Status};
pub use format::{Group, Model, OpenOptions, Tensor};
pub use progress::Progress;
pub use safetensors::Dtype;

/// The version of this library, as `major.minor.patch`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The examples of the page for users of Rust are compiled as those of the documentation are.
#[cfg(doctest)]
#[doc = include_str!("../docs/rust.md")]
mod page {}
