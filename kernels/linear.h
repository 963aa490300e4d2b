// The linear image: what its head says, as kernels read it. src/cuda/image/linear.rs has the drawing and the reasons.
// Plain data, little endian. The head is in device memory, and is not trusted there: a kernel that takes an offset or a
// number from it clamps both to what the host gave it.
#pragma once
#include "job.h"

// The shape of a tile: a warp holds it, each lane 16 columns of two rows.
enum : u32 {
  DF11_LINEAR_ROWS = 16,
  DF11_LINEAR_COLUMNS = 64,
  DF11_LINEAR_TILE = DF11_LINEAR_ROWS * DF11_LINEAR_COLUMNS,  // weights
  DF11_LINEAR_TILE_BYTES = 1536,
  DF11_LINEAR_UPPER = 512,                                    // where the low bytes of rows 8 to 15 begin
  DF11_LINEAR_CODES = 1024,                                   // where the words of codes and signs begin
};

// The first 256 bytes.
struct df11_linear_header {
  u8 magic[8];        // "DF11LIN" and a zero
  u32 version;        // 1
  u32 head_bytes;     // of this, the tensors, and zeros up to a multiple of 256
  u64 image_bytes;
  u64 weights;        // of the whole image
  u64 escapes;        // of the whole image
  u32 tensors;
  u32 tile_bytes;     // DF11_LINEAR_TILE_BYTES
  u32 tile_rows;      // DF11_LINEAR_ROWS
  u32 tile_columns;   // DF11_LINEAR_COLUMNS
  u64 records;        // the offset of the tensors: 256
  u64 tiles;          // of the whole image
  u8 zeros[168];
  u64 checksum;
  u32 state;          // 0 in every good image, or DF11_CORRUPT
  u32 zero;
};

// A tensor: `tensors` of them are at `records`.
struct df11_linear_tensor {
  u64 first;          // the group's weight with which it begins
  u64 rows;
  u64 columns;
  u64 tiles;          // the offset of its tiles, a multiple of 256
  u64 starts;         // the offset of a u32 for each tile, and one more: escapes before it
  u64 escapes;        // the offset of its escapes, a u32 each
  u32 escape_count;
  u32 ktiles;         // ceil(columns / 64): tiles side by side
  u8 table[8];        // what codes stand for: the upper seven bits of exponents; the last one is 0
};

static_assert(sizeof(df11_linear_header) == 256 && sizeof(df11_linear_tensor) == 64, "as the host writes them");
