//! Linear images: groups at 12 bits a weight, from which a device decodes, and multiplies without decoding to memory.
//!
//! A Huffman image is small, but a weight of it can be decoded only after those before it. In a linear image every
//! weight has its own 12 bits, in the place where a warp wants it: as a fragment of a matrix. A layer takes 12.05 bits a
//! weight in it, and 10.84 in a Huffman image. It is a format of memory, made for the kernels of one library version:
//! models are stored and exchanged as DF11.
//!
//! As every image it is one run of bytes without a pointer in it, all of them defined and little-endian, it depends on
//! the group and the shapes of its tensors alone, and host and device make the same bytes.
//!
//! # Weights
//!
//! The exponents of trained weights take few values, and a pair of exponents (`e >> 1`) fewer still: seven pairs are
//! more than 99.8 % of a matrix. Each tensor has a table of eight pairs, so a weight is a code of three bits, a sign, and
//! a byte:
//!
//! ```text
//! bf16                 s eeeeeeee mmmmmmm       e = 2 · pair + e0
//! low byte             e0 mmmmmmm               stored as it is
//! high byte            s pppppppp               p = the pair's 7 bits: table[code]
//! ```
//!
//! `table[7]` is 0 in every tensor: zeros and subnormals, and the padding. `table[0..7]` are the most frequent other
//! pairs, rising (of two that are equally frequent the smaller one is taken); entries that are not needed follow, and are
//! 0. A weight whose pair is not in the table is an *escape*: it is stored as +0, and as it is in a list.
//!
//! # Tiles
//!
//! A tensor is a matrix of rows and columns, cut into *tiles* of 16 × 64 weights. Rows are padded to 16 and columns to 64,
//! by +0. Tiles are in the order of rows of tiles. Lane `4 g + t` of a warp (`g` = 0 to 7, `t` = 0 to 3) holds columns
//! `16 t` to `16 t + 15` of the rows `g` and `g + 8`.
//!
//! ```text
//! a tile, 1,536 bytes
//!   0     low bytes, rows 0 to 7: 16 bytes a lane, in the order of columns
//! 512     low bytes, rows 8 to 15
//! 1024    codes and signs: four words a lane: row g, columns 0 to 7 and 8 to 15 of the lane; row g + 8, the same
//!
//! a word of eight weights, A0 to A3 and B0 to B3
//!   nibble            7   6   5   4   3   2   1   0
//!   its top bit       A3  B3  A2  B2  A1  B1  A0  B0     signs
//!   its other bits    B3  B2  B1  B0  A3  A2  A1  A0     codes
//! ```
//!
//! One `prmt` with the eight bytes of the table looks four codes up, and a mask, for B after a shift by four, has the
//! signs at the tops of the same bytes.
//!
//! A tensor whose shape is not known, or would be mostly padding, is taken as rows of 64 columns: each tile is 1,024
//! weights that follow each other. It decodes like the others.
//!
//! # Sections
//!
//! Every section begins at a multiple of [`ALIGNMENT`](super::ALIGNMENT) bytes, and the size of the whole is a multiple
//! of it.
//!
//! ```text
//! section   bytes                        contents
//! ─────── ┌──────────────────────────────────────────────────────────────────────────────────────────────────────────
//!   head  │ header     256                  sizes and a checksum: see `LinearHead`
//!         │ tensors    64 · tensors         a record each: see `LinearTensor`
//! ─────── ├──────────────────────────────────────────────────────────────────────────────────────────────────────────
//!   body  │ tiles      1,536 · tiles        of tensor 0
//!         │ starts     4 · (tiles + 1)      u32 each: escapes before each tile; then the number of all
//!         │ escapes    4 · escapes          u32 each: (row in tile · 64 + column in tile) · 2^16 + bf16, rising in a tile
//!         │ ...                             the same of the next tensor
//! ```
//!
//! # Who makes it
//!
//! A [`LinearPlan`] counts a group: the tables, the escapes and so the size follow. Then the host writes the image, or a
//! device makes it from a Huffman image of the same group. [`decode()`] is the oracle.

mod layout;
mod oracle;
mod write;

pub use layout::{LinearHead, LinearTensor};
pub use oracle::{Decoded, decode};
pub use write::LinearPlan;

/// The first bytes of every linear image.
pub const LINEAR_MAGIC: [u8; 8] = *b"DF11LIN\0";
/// The version of the layout that this library writes and reads.
pub const LINEAR_VERSION: u32 = 1;
/// Rows of a tile.
pub const TILE_ROWS: u64 = 16;
/// Columns of a tile.
pub const TILE_COLUMNS: u64 = 64;
/// Weights of a tile.
pub const TILE: u64 = TILE_ROWS * TILE_COLUMNS;
/// Bytes of a tile.
pub const TILE_BYTES: u64 = 1536;
/// Bytes of a tensor's record.
pub const RECORD_BYTES: u64 = 64;
/// Bytes of the largest head that a linear image can have.
pub const MOST_LINEAR_HEAD_BYTES: u64 = 65_792;
