//! DF11 models on disk and in memory: bytes → checked views. Nothing here decodes weights, and nothing is copied that
//! the caller could read in place.
//!
//! # The format
//!
//! Written from a study of the reference (dfloat11 0.5.0) and checked against files that it wrote, which are in
//! `tests/data/golden`. A model is a folder in Hugging Face layout or one `.safetensors` file.
//!
//! *Container.* `config.json` holds `dfloat11_config`: `version`, `threads_per_block` (\[512\]), `bytes_per_thread` (8)
//! and `pattern_dict`, which maps regular expressions over module names (full match) to lists of attribute paths. The
//! reference opens **every** `*.safetensors` of the folder and goes by tensor names alone, so a group's parts may be in
//! different files, and an `*.index.json` lists only the uncompressed rest. A single file may come without a config.
//!
//! *Group.* One Huffman-coded run of weights, usually one transformer layer: the weights of the module's attributes,
//! flattened row-major and concatenated in the order of the attribute list. `self_attn.q_proj` in the list of module
//! NAME means the tensor `NAME.self_attn.q_proj.weight`; an empty list means `NAME.weight`.
//!
//! | tensor | type, shape | content |
//! |---|---|---|
//! | `NAME.luts` | U8 \[T+1, 256\] | T look-up rows, then one row of code lengths by exponent ([`crate::huffman::rows`]) |
//! | `NAME.encoded_exponent` | U8 \[B\] | the Huffman-coded exponents, first bit on top |
//! | `NAME.sign_mantissa` | U8 \[N\] | per weight: the sign in bit 7, seven mantissa bits below |
//! | `NAME.output_positions` | U8 \[4·(K+1)\] | little-endian u32: the first weight of each block, then N |
//! | `NAME.gaps` | U8 \[320·⌈B/4096⌉\] | 5 bits a chunk, first bit on top: where its first code starts |
//! | `NAME.split_positions` | I64 \[tensors−1\] | where the concatenation is cut, in elements |
//!
//! *Stream.* A chunk is 8 bytes, a block 512 chunks. A code belongs to the chunk and the block in which it *starts*; it
//! may end up to 31 bits further on. After the last weight the open byte is filled with the first bits of the
//! end-of-data code. Where that code starts in a block of its own, or the last code straddles a block's border and ends
//! on a byte, there is one position more or fewer than ⌈B/4096⌉ + 1; the gap of a chunk in which no weight starts means
//! nothing.
//!
//! *Shapes* of the original matrices are not stored (`shapes` derives them where they are certain), and neither are
//! checksums. A file's `__metadata__` may carry them
//! under [`SHAPES_KEY`] and [`HASHES_KEY`]; the reference ignores that.
//!
//! *Runs* are an extension: what the weights of a group are called may be said under [`GROUPS_KEY`], by full names of
//! tensors, of which each may be in several groups. Every tensor in groups is kept as a list of runs, most as one run.
//!
//! # Checks when a model is opened
//!
//! Everything that can be told from headers, look-up rows, positions and splits, in time linear in those: types, shapes
//! and sizes of the members against each other; rows that form a prefix code; positions that rise, and by no more and no
//! less in each block than the code's lengths allow. No code word is looked at, and no hash
//! is compared: that is [`crate::host::verify_model`].

mod complete;
mod config;
mod files;
mod foreign;
mod group;
mod header;
mod json;
mod layout;
mod model;
mod names;
mod patterns;
mod reader;
mod runs;
mod shapes;
mod source;
mod tensor;
mod view;

pub use complete::Missing;
pub use config::Config;
pub use layout::{FileLayout, LayoutTensor};
pub use model::{Model, OpenOptions};
pub(crate) use patterns::MOST_PATTERNS;
pub use patterns::{Pattern, Patterns};
pub use view::{Group, GroupPart, Location, Run, Tensor};

pub(crate) use complete::{
    Found, LACKS_KEY, TENSORS_KEY, ends as missing_ends, find as find_missing, no_rest, refuse as refuse_missing,
};
pub(crate) use files::{
    INDEX, MAIN, UNFINISHED, config_text, is_index, listed, read_config, read_text, safetensors_of,
};
#[cfg(feature = "writer")]
#[cfg(feature = "writer")]
pub(crate) use foreign::is_other_weights;
pub(crate) use foreign::{DOWNLOADS, not_json};
pub(crate) use group::{MEMBERS, MOST_TENSORS, Member, position};
pub(crate) use json::of_python;
pub(crate) use names::{ends_with, is_number, member_of, natural};
pub(crate) use source::{Access, Source, Span, open_regular, read_exact_at};
pub(crate) use tensor::Data;
pub use tensor::ShapeSource;

#[cfg(feature = "writer")]
pub(crate) use {config::MOST_CONFIG_BYTES, json::Seen, json::no_number, shapes::misderived};

/// The key in a file's `__metadata__` under which shapes of compressed tensors may be kept: a JSON object from tensor
/// names to lists of dimensions. It is this project's addition; the reference neither writes nor reads it.
pub const SHAPES_KEY: &str = "df11.shapes";

/// The key in a file's `__metadata__` under which hashes may be kept: a JSON object from names of tensors, compressed or
/// plain, to the SHA-256 of their little-endian values, decoded, as 64 hexadecimal digits in lower case. It is this
/// project's addition too.
pub const HASHES_KEY: &str = "df11.sha256";

/// Tells whether a key of a file's `__metadata__` is an addition of this project's.
pub(crate) fn of_this_library(key: &str) -> bool {
    key.starts_with("df11.")
}

/// The key in a file's `__metadata__` under which the weights of groups may be named: a JSON object from names of groups to
/// lists of runs, each a tensor's full name and the number of the run's first element in that tensor. It is this
/// project's extension of the format: see docs/format.md, "Groups with names and runs".
pub const GROUPS_KEY: &str = "df11.groups";
