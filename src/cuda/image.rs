//! Images: the bytes of a group as a device decodes them. This module makes, describes and reads images in host memory;
//! it makes no CUDA call.
//!
//! An image is one run of bytes without a pointer in it: it may be copied, moved, broadcast or kept in a file. Its own
//! head describes it, so that it can be used without the model that it was made from. Everything in it is
//! little-endian, every byte of it is defined (bytes that are mentioned nowhere are zero), and it depends on the group
//! alone: the host and a device, with any number of threads, make the same bytes.
//!
//! # Sections
//!
//! Every section begins at a multiple of [`ALIGNMENT`] (256) bytes, and the size of the whole is a multiple of it.
//!
//! ```text
//! section   bytes                        contents
//! ─────── ┌──────────────────────────────────────────────────────────────────────────────────────────────────────────
//!         │ header     256                  sizes, offsets and a checksum: see `Head`
//!   head  │ ends       8 · tensors          u64 each: weights before the end of each tensor; the last is their number
//!         │ table      ≤ 32,768             what a window of 11 bits begins with: see `DeviceTable`
//! ─────── ├──────────────────────────────────────────────────────────────────────────────────────────────────────────
//!         │ starts     4 · (tiles + 1)      u32 each: bit / 128 of the tile's first weight; then ⌈code bytes / 16⌉
//!   body  │ lanes      2 · 32 · tiles       u16 each: the low 16 bits of the bit at which a lane's first weight starts;
//!         │                                 0 for lanes without a weight
//!         │ code       ⌈bytes / 16⌉·16 + 64 encoded_exponent as in the file, then zeros
//!         │ signs      see below            sign_mantissa as in the file, then zeros
//! ─────── └──────────────────────────────────────────────────────────────────────────────────────────────────────────
//! ```
//!
//! A *lane* is a run of [`LANE_WEIGHTS`] (104) weights that one thread of a device decodes, a *tile* the 32 lanes of a
//! warp. `starts` and `lanes` together are the *index*: they say where each lane begins, and take the place of the
//! file's gaps and positions. An image of a real layer takes 10.84 bits a weight: 8 for signs and mantissas, 2.66 for
//! codes, 0.16 for the index, 0.01 for the table.
//!
//! The section of signs has room for the group's gaps, padded to [`ALIGNMENT`], and positions even where the weights
//! are few ([`ImageLayout::parked_positions`]): they are stored there while a device makes the index from them.
//!
//! # Parts of groups
//!
//! An image may hold a part of its group, and its header says which. A *range* is any of the group's weights that follow
//! each other: its codes are the file's, from the unit of 16 bytes in which the first one begins, so that the first lane
//! starts at one of the first 128 bits. *Slices* are weights at equal distances, such as columns of a matrix: their
//! codes are new, and made with the group's own table. Lanes, tiles and all else count from the image's first weight, so
//! that decoding is the same.
//!
//! # The bit of a lane
//!
//! Sixteen bits are enough, because lanes of one tile follow one another. Let `rel(l) = (lanes[32·t + l] −
//! 128·starts[t]) mod 2^16`. Neighbours are at most 104 codes of 32 bits apart, 3,328 bits, so where `rel` falls from
//! one lane to the next it has wrapped once, and lane `l` of tile `t` starts at bit `128·starts[t] + rel(l) +
//! 2^16·(falls up to l)`. Only tiles of more than 65,535 bits (19.7 a weight, where real models have 2.7) have any.
//!
//! # Who makes it
//!
//! [`Group::write_image`](crate::Group::write_image) on the host, in one walk over the codes; or a device, from the
//! file's gaps and positions. [`decode()`] is the oracle of both and of the decode kernels: it reads an image as a
//! kernel does, one lane after the other, slowly.

mod copy;
mod device_table;
mod layout;
pub(crate) mod linear;
mod oracle;
pub(crate) mod range;
mod shard;
mod slice;
pub(crate) mod write;

pub use device_table::{DeviceTable, WINDOW};
pub use layout::{Extent, Head, ImageLayout};
pub use oracle::{Decoded, decode};
pub use shard::Shard;
pub use slice::Slice;

/// The first bytes of every image.
pub const IMAGE_MAGIC: [u8; 8] = *b"DF11IMG\0";
/// The version of the layout that this library writes and reads.
pub const IMAGE_VERSION: u32 = 1;
/// The alignment of sections, and of an image on a device, in bytes.
pub const ALIGNMENT: u64 = 256;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 256;
/// Bytes of the largest head that an image can have.
pub const MOST_HEAD_BYTES: u64 = 61_696;
/// Bytes of a slice in the head.
pub const SLICE_BYTES: u64 = 20;
/// Weights that one lane decodes.
pub const LANE_WEIGHTS: u64 = 104;
/// Lanes of a tile: a warp.
pub const TILE_LANES: u64 = 32;
/// Weights of a tile.
pub const TILE_WEIGHTS: u64 = LANE_WEIGHTS * TILE_LANES;
/// Bytes of a unit of the code section. Tiles' starts are counted in units.
pub const UNIT_BYTES: u64 = 16;
/// Zeros after the codes, in bytes: how far a lane may look ahead.
pub const CODE_SLACK: u64 = 64;
/// The offset of the state word in the header: 0 in every good image. A device that makes an index from gaps and
/// positions that contradict the codes writes 103 (`DF11_CORRUPT`) there, and decoding then reports it.
pub const STATE_OFFSET: u64 = 248;
