//! Whole groups on the CPU: opened, decoded, verified and encoded, on any number of threads.
//!
//! - `open`: the public ways to open a model, and its verification on request;
//! - `borders`: where the runs of a range begin;
//! - `decode`: any range of a group's weights, any bytes of a tensor;
//! - `walk`: every code of one group, compared with its gaps and positions;
//! - `verify`: everything that can be verified of a whole model;
//! - `compress`: a group in memory, compressed to memory;
//! - `encode`: a group put together from stretches, wherever its parts go;
//! - `threads`: the threads of all that.

mod borders;
#[cfg(feature = "writer")]
mod compress;
mod decode;
#[cfg(feature = "writer")]
pub(crate) mod encode;
mod open;
mod threads;
#[cfg(feature = "verify")]
mod verify;
mod walk;

#[cfg(feature = "writer")]
pub use compress::{EncodeOptions, Packed, PackedSizes, compress, compress_raw};
pub use decode::DecodeOptions;
#[cfg(feature = "verify")]
pub(crate) use open::unusable;
pub(crate) use threads::{NAME as THREAD_NAME, builder as thread_builder, panic_text, run as run_threads};
#[cfg(feature = "writer")]
pub(crate) use verify::are_equal;
#[cfg(feature = "verify")]
pub(crate) use verify::hex;
#[cfg(feature = "verify")]
pub use verify::{Finding, FindingKind, Verified, VerifyOptions, compare_models, verify_model};
pub(crate) use walk::{BlockWalk, blocks_of};
