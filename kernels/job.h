// The parameters of launches. Plain data, little endian, passed by value; addresses are device addresses. The host
// fills these structs and the kernels trust them: only the memory at the addresses is untrusted.
#pragma once
#include "policy.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A job of df11_decode: decodes `count` weights of one group from weight `first`.
struct df11_job {
  u64 dst;          // the destination of weight `first`; a multiple of 2
  u64 status;       // of a u32, or 0: raised to CORRUPT if the image contradicts itself, never lowered
  u64 first, count; // weights of the group; count > 0
  u64 state;        // of the image's state word
  u64 table;        // the image's sections
  u64 starts;
  u64 lanes;
  u64 code;
  u64 signs;
  u32 code_units;   // units of 16 bytes in the code section, its padding included: at least DF11_AHEAD_UNITS
  u32 tiles;        // of the whole group
  u32 last_weights; // weights of the group's last tile
  u32 end_tile;     // the tile after the last one that has weights of the job
  u32 whole_tile;   // of the tiles whole_tile ... whole_end - 1 the job decodes all weights, of no others
  u32 whole_end;
  u32 table_bytes;  // a multiple of 16, at most DF11_TABLE_LARGE
  u32 first_block;  // this job is done by the blocks first_block ... first_block + blocks - 1 of the grid
  u32 blocks;
  u32 flags;        // of those below
};

// The kernel may start before the one before it in the stream has ended (programmatic dependent launch, 9.0 and later):
// it reads the image at once, and waits before it writes anything.
enum { DF11_JOB_EARLY = 1 };

// The image has a table of nibbles, and is decoded by that: it begins at the next multiple of 256 bytes after the table.
// Bits 9 to 16 of the flags are then the base of its exponents, 17 to 19 the bits that a second-level table resolves (2
// to 7), and those from 20 the number of such tables. Only kernels with DF11_HAS_NIBBLES know this.
enum { DF11_JOB_NIBBLES = 2 };

// Up to DF11_MOST_JOBS jobs in one launch. Their block ranges follow each other and start at block 0.
struct df11_jobs {
  u32 count;
  u32 reserved;     // 0
  df11_job job[DF11_MOST_JOBS];
};

// The job of df11_index: makes the sections `starts` and `lanes` of an image, which were set to 0, from a file's gaps
// and positions.
struct df11_index_job {
  u64 image_state;    // raised to CORRUPT if gaps or positions contradict the codes
  u64 table;
  u64 starts;
  u64 lanes;
  u64 code;
  u64 gaps;           // 320 bytes a block
  u64 positions;      // u32 each; the address a multiple of 4
  u64 weights;
  u64 code_bytes;     // as in the file
  u64 code_units;     // units of 16 bytes in the code section, its padding included
  u64 tiles;
  u64 blocks;         // of 4,096 bytes of code
  u64 position_count; // at least 1
  u32 table_bytes;
  u32 reserved;       // 0
};

// A job of df11_linear_decode: decodes weights of one tensor of a linear image (linear.h).
struct df11_linear_decode_job {
  u64 dst;            // the destination of weight `first`; a multiple of 2
  u64 status;         // as for df11_job
  u64 state;          // of the image's state word
  u64 tiles;          // the tensor's sections
  u64 starts;
  u64 escapes;
  u64 table;          // its eight bytes, the first one lowest
  u32 first, end;     // weights of the tensor, the last one excluded: first < end
  u32 columns;
  u32 ktiles;         // ceil(columns / 64)
  u32 from_tile;      // the tiles that have weights of the job
  u32 end_tile;
  u32 blocks;         // as for df11_job
  u32 escape_count;
  u32 flags;          // as for df11_job
  u32 first_block;    // as for df11_job
};

struct df11_linear_decode_jobs {
  u32 count;
  u32 reserved;       // 0
  df11_linear_decode_job job[DF11_MOST_JOBS];
};

// The job of df11_linear_make: makes tiles of a linear image, and their escapes, of decoded weights: whole rows of tiles of
// a tensor. `starts` must be there.
struct df11_linear_make_job {
  u64 source;         // bf16 weights, row by row; a multiple of 2
  u64 state;          // raised to CORRUPT if these are not the weights that were counted
  u64 tiles;          // of the first tile
  u64 starts;         // of the first tile
  u64 escapes;        // of the tensor
  u64 table;          // as above
  u64 count;          // weights
  u32 columns;
  u32 ktiles;
  u32 escape_count;   // of the tensor
  u32 tile_count;     // tiles to make
};

// A matrix of a multiplication, or the experts' matrices in one place of a layer.
struct df11_multiply_part {
  u64 image;          // the linear image that it is in
  u64 image_bytes;
  u64 tiles;          // the addresses of its sections: without ids
  u64 starts;
  u64 escapes;
  u64 table;          // eight bytes
  u64 y;              // the address of its results
  u64 y_stride;       // elements from one vector's results to the next one's
  u64 y_step;         // elements from one chosen expert's results to the next one's
  u64 partials;       // with DF11_MULTIPLY_SPLIT: floats, for each row of tiles and run 16 rows of vectors
  u32 escape_count;
  u32 rows;
  u32 row_tiles;      // ceil(rows / 16)
  u32 tensor;         // with ids: the record of expert 0 in the image's head
  u32 step;           // with ids: records from one expert to the next
  u32 first_block;    // in x; those of a part end where the next one's begin
};

// A job of df11_multiply_*: up to DF11_MULTIPLY_PARTS matrices of the same columns, times the same vectors. A grid has in x
// the rows of tiles, in y the pieces of columns if it is split, in z the chosen experts.
struct df11_multiply_job {
  u64 x;              // bf16; a multiple of 16
  u64 x_stride;       // elements from one vector to the next, a multiple of 8
  u64 x_step;         // elements from the vectors of one chosen expert to the next one's, a multiple of 8
  u64 ids;            // the address of a u32 for each chosen expert, or 0
  u64 status;         // of a u32, or 0: raised, never lowered
  u32 columns;
  u32 ktiles;         // ceil(columns / 64)
  u32 runs;           // ceil(columns / 512)
  u32 width;          // runs of a piece
  u32 pieces;         // ceil(runs / width)
  u32 sides;          // rows of tiles that a block does at once: as many as its warps suffice for
  u32 inverse;        // ceil(256 / width): warp * inverse >> 8 is warp / width
  u32 rows_of_tiles;  // those of a block
  u32 batch;
  u32 experts;        // with ids: how many there are
  u32 flags;          // DF11_MULTIPLY_BF16, DF11_MULTIPLY_SPLIT
  u32 parts;
  df11_multiply_part part[DF11_MULTIPLY_PARTS];
};

enum {
  DF11_MULTIPLY_BF16 = 1,   // y is bf16, not f32
  DF11_MULTIPLY_SPLIT = 2,  // a block does one piece of columns, and leaves sums of runs in `partials` for df11_multiply_add
};

// The df11_status that a kernel can report.
enum { DF11_INVALID_ARGUMENT = 1, DF11_CORRUPT = 103 };
