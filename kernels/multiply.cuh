// Multiplying: y = W x from a linear image, without decoding to memory. src/cuda/image/linear.rs has the layout of such an
// image, linear.h what its head says, job.h the parameters, decode.cu the entry points.
//
// # The idea
//
// A product with one vector reads each weight once, so it takes as long as memory takes to deliver the weights. Here a
// weight is 12 bits in memory, and becomes bf16 in registers: there is nothing between the loads and the arithmetic.
//
//     tile   16 rows and 64 columns: 1,536 bytes, three loads of 16 bytes for each lane of a warp
//     run    8 tiles side by side: 512 columns. What a warp sums up before anything is rounded another way
//     piece  up to 8 runs: those that the warps of a block do at once
//
//     for each piece of the columns (or for one, where a launch is split):
//         each warp, for its own run: x -> shared memory, once for all rows of the block;  barrier of the warp        (11)
//         for each row of tiles of the block:
//             for each tile of the run: load the next tile, decode this one, multiply
//             add the sums of the four lanes of a row;  sums -> shared memory
//         barrier of the warp; each lane adds the escapes of one row of tiles to its sums                             (14)
//         where a launch is split: barrier of the warp; sums -> the workspace                                         (15)
//         barrier of the block; each thread adds the sums of runs for one row or two;  barrier of the block       (12, 13)
//     store y
//
// Warps share nothing but sums, so a block has two barriers for eight runs of columns, however many rows it has.
//
// # The order of sums
//
// With FP32 (batch 1 and 2) every product and sum is a fused multiply-add in an order that is a promise, so that every
// GPU, every grid and every replay gives the same bits, and so does a CPU:
//
//     s_t = 0                            for each quarter t = 0..3 of the columns of a tile, 16 columns each
//     s_t = fma(w, x, s_t)               tiles of the run rising, columns of the quarter rising; an escape counts as +0
//     S = (s_0 + s_1) + (s_2 + s_3)      the run
//     S = fma(w, x, S)                   the escapes of the row in the run, rising
//     y = ((S_0 + S_1) + S_2) + ...      the runs
//
// The weight of an escape is +0 in its tile, so its column adds 0 * x, which is why x must be finite.
//
// With tensor cores (batch 3 to 8) a tile is four mma.sync that begin with zeros; their sums are added to those of the
// run with FP32. The order inside an mma.sync is the hardware's.
//
// # Decoding eight weights
//
//     c   = word & 0x77777777                   codes: four of A in the lower half, four of B in the upper
//     hi  = prmt(table, c)                      four pairs of exponents, of seven bits each
//     hi |= word & 0x80808080                   and their signs; for B: c >> 16 and word << 4
//     prmt(lo, hi) twice                        two bf16 in each register: what mma.sync takes
//     << 16, & 0xffff0000                       FP32
//
// That is 28 instructions for eight weights with FP32, and eight more multiply: 3.5 a weight with its multiplication. The
// loads are 0.1, x is 0.13.
//
// # x in shared memory
//
// FP32: the 16 columns of a quarter are 20 words apart, so that the four quarters that a quarter of a warp reads are in
// different banks; the eight lanes of a quarter read the same words. bf16: what a lane needs of a tile are 16 bytes twice,
// stored so that a quarter of a warp reads 128 bytes in a row.
//
// # Escapes
//
// They are less than one weight in a thousand, and each belongs to one sum. When a warp has the sums of all its rows of
// tiles in shared memory, a lane takes the escapes of one row of tiles for one vector, in their order, and adds each
// product to its sum there. So a run costs one loop of a lane, and not one of the whole warp: 0.1 instructions a weight
// instead of 0.9. Lanes load 16 bytes at a time, four numbers or escapes.
//
// # Trust
//
// The job comes from the host. Sections of the image, and with experts also the records of its head, are in device
// memory and are not trusted: numbers of escapes are cut to what the section has and a run can have, columns and rows are
// masked, and a record whose shape is not that of the job, or whose sections are not inside of the image, counts as a
// matrix of zeros and is reported. Every word of weights and tables is a weight: other bytes give other sums. An expert
// that does not exist is zeros, too.
#pragma once
#include "linear.h"
#include "platform.cuh"

namespace df11 {

enum : u32 {
  RUN_TILES = 8,
  RUN_COLUMNS = RUN_TILES * DF11_LINEAR_COLUMNS,
  QUARTER = 20,                                        // words from one quarter of a tile's x to the next, FP32
  TILE_X = 4 * QUARTER,                                // words of a tile's x
  RUN_X = RUN_TILES * TILE_X * 4,                      // bytes of a run's x, FP32, for one vector
  RUN_X_HALF = RUN_COLUMNS * 2,                        // bytes of a run's x, bf16, for one vector
  MULTIPLY_WARPS = DF11_MULTIPLY_THREADS / 32,
  WHOLE_WARP = 0xffffffffu,
};

// Three registers of a quarter: loads that are issued where they stand.
DF11_INLINE uint4 load_image(u64 at) {
  uint4 v;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  return v;
}
DF11_INLINE u32 load_image_word(u64 at) {
  u32 v;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(at));
  return v;
}
DF11_INLINE u64 load_image_long(u64 at) {
  u64 v;
  asm volatile("ld.global.nc.u64 %0, [%1];" : "=l"(v) : "l"(at));
  return v;
}
DF11_INLINE float4 load_x(u32 at) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(at) : "memory");
  return v;
}
DF11_INLINE uint4 load_shared4(u32 at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at) : "memory");
  return v;
}
DF11_INLINE u32 load_shared_half(u32 at) {
  u16 v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(at) : "memory");
  return v;
}
DF11_INLINE void store_shared_half(u32 at, u32 v) { asm volatile("st.shared.u16 [%0], %1;" ::"r"(at), "h"((u16)v) : "memory"); }
// Chooses bytes of two registers by four nibbles.
DF11_INLINE u32 permute(u32 a, u32 b, u32 pick) {
  u32 d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(pick));
  return d;
}
template <u32 PICK> DF11_INLINE u32 permute(u32 a, u32 b) {
  u32 d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "n"(PICK));
  return d;
}
// a & MASK | b
template <u32 MASK> DF11_INLINE u32 masked_or(u32 a, u32 b) {
  u32 d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "n"(MASK), "r"(b));
  return d;
}
DF11_INLINE float lower(u32 pair) { return __uint_as_float(pair << 16); }
DF11_INLINE float upper(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rounds to the nearest bf16, of two the even one.
DF11_INLINE u32 round_to_bf16(float value) {
  u32 bits = __float_as_uint(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

DF11_INLINE void report(u64 status, u32 what) {
  if (status != 0) atomicMax((u32*)status, what);
}

// A matrix, as a warp uses it: where its sections are, and whether they may be read.
struct Matrix {
  u64 tiles, starts, escapes;
  u32 escape_count, table_low, table_high;
  bool good;

  // Takes what the host said, or for an expert what the head on the device says, after a check.
  DF11_INLINE void find(const df11_multiply_job& job, const df11_multiply_part& part, bool reports) {
    tiles = part.tiles;
    starts = part.starts;
    escapes = part.escapes;
    escape_count = part.escape_count;
    table_low = (u32)part.table;
    table_high = (u32)(part.table >> 32);
    good = true;
    if (reports && load_image_word(part.image + 248) != 0) report(job.status, DF11_CORRUPT);
    if (job.ids == 0) return;
    u32 id = ((const u32*)job.ids)[blockIdx.z];
    if (id >= job.experts) {
      if (reports) report(job.status, DF11_INVALID_ARGUMENT);
      good = false;
      return;
    }
    u64 at = part.image + sizeof(df11_linear_header) + sizeof(df11_linear_tensor) * (u64)(part.tensor + id * part.step);
    u64 count = (u64)part.row_tiles * job.ktiles;
    u64 rows = load_image_long(at + 8), columns = load_image_long(at + 16), table = load_image_long(at + 56);
    u32 ktiles = load_image_word(at + 52);
    tiles = load_image_long(at + 24);
    starts = load_image_long(at + 32);
    escapes = load_image_long(at + 40);
    escape_count = load_image_word(at + 48);
    table_low = (u32)table;
    table_high = (u32)(table >> 32);
    auto fits = [&](u64 offset, u64 bytes) { return offset <= part.image_bytes && part.image_bytes - offset >= bytes; };
    good = rows == part.rows && columns == job.columns && ktiles == job.ktiles && ((tiles | starts | escapes) & 15) == 0
        && fits(tiles, count * DF11_LINEAR_TILE_BYTES) && fits(starts, 4 * count + 4) && fits(escapes, 4 * (u64)escape_count);
    if (!good && reports) report(job.status, DF11_CORRUPT);
    tiles += part.image;
    starts += part.image;
    escapes += part.image;
  }
};

// What a lane loads of a tile.
struct Tile {
  uint4 upper, lower, codes;   // low bytes of rows g and g + 8, and the codes of both
  DF11_INLINE void load(u64 at) {
    upper = load_image(at);
    lower = load_image(at + DF11_LINEAR_UPPER);
    codes = load_image(at + DF11_LINEAR_CODES);
  }
};

// The high bytes of the weights A and B of a word.
DF11_INLINE void high_bytes(u32 word, u32 table_low, u32 table_high, u32& a, u32& b) {
  u32 c = word & 0x77777777;
  a = masked_or<0x80808080>(word, permute(table_low, table_high, c));
  b = masked_or<0x80808080>(word << 4, permute(table_low, table_high, c >> 16));
}

// Four weights times four columns: one fused multiply-add each, in the order of columns, for each vector.
template <u32 BATCH> DF11_INLINE void four(u32 low, u32 high, const float4 (&x)[BATCH], float (&sum)[BATCH]) {
  u32 p = permute<0x5140>(low, high), q = permute<0x7362>(low, high);
#pragma unroll
  for (u32 b = 0; b < BATCH; b++) {
    sum[b] = __fmaf_rn(lower(p), x[b].x, sum[b]);
    sum[b] = __fmaf_rn(upper(p), x[b].y, sum[b]);
    sum[b] = __fmaf_rn(lower(q), x[b].z, sum[b]);
    sum[b] = __fmaf_rn(upper(q), x[b].w, sum[b]);
  }
}

// The arithmetic of one or two vectors: FP32.
template <u32 BATCH> struct Single {
  enum : u32 {
    OUT = BATCH,             // vectors in the sums
    X_STRIDE = RUN_X,        // bytes of a run's x for one of them
    UNROLLED = RUN_TILES,    // tiles that the loop does at once: a multiple of two, and no more than registers allow
  };
  float sum[2][BATCH];                            // of the lane's quarter: rows g and g + 8

  DF11_INLINE void clear() {
#pragma unroll
    for (u32 i = 0; i < 2 * BATCH; i++) sum[i / BATCH][i % BATCH] = 0.f;
  }

  static DF11_INLINE u32 x_bytes(u32) { return BATCH * X_STRIDE; }
  static DF11_INLINE u32 x_at(u32 column) {
    return 4 * (column / 64 * TILE_X + column / 16 % 4 * QUARTER + column % 16);
  }
  // Stores x of eight columns from a multiple of eight on.
  static DF11_INLINE void stage(u32 to, u32, u32 vector, u32 column, uint4 v) {
    u32 at = to + vector * X_STRIDE + x_at(column);
    store_shared4(at, make_uint4(v.x << 16, v.x & 0xffff0000u, v.y << 16, v.y & 0xffff0000u));
    store_shared4(at + 16, make_uint4(v.z << 16, v.z & 0xffff0000u, v.w << 16, v.w & 0xffff0000u));
  }

  DF11_INLINE void multiply(const Tile& tile, const Matrix& m, u32 x, u32, u32 lane) {
    const u32 words[2][2] = {{tile.codes.x, tile.codes.y}, {tile.codes.z, tile.codes.w}};
    const u32 low[2][4] = {{tile.upper.x, tile.upper.y, tile.upper.z, tile.upper.w},
                           {tile.lower.x, tile.lower.y, tile.lower.z, tile.lower.w}};
    u32 at = x + lane % 4 * (4 * QUARTER);
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      u32 high[2][2];
#pragma unroll
      for (u32 row = 0; row < 2; row++) high_bytes(words[row][half], m.table_low, m.table_high, high[row][0], high[row][1]);
#pragma unroll
      for (u32 quad = 0; quad < 2; quad++) {
        float4 v[BATCH];
#pragma unroll
        for (u32 b = 0; b < BATCH; b++) v[b] = load_x(at + b * X_STRIDE + 32 * half + 16 * quad);
#pragma unroll
        for (u32 row = 0; row < 2; row++) four<BATCH>(low[row][2 * half + quad], high[row][quad], v, sum[row]);
      }
    }
  }
  static DF11_INLINE u32 tile_x(u32) { return 4 * TILE_X; }   // bytes from the x of one tile to the next

  // Adds the quarters, so that every lane of a row has the sums of the row.
  DF11_INLINE void finish() {
#pragma unroll
    for (u32 i = 0; i < 2 * BATCH; i++) {
      float& s = sum[i / BATCH][i % BATCH];
      s = __fadd_rn(s, __shfl_xor_sync(WHOLE_WARP, s, 1));
      s = __fadd_rn(s, __shfl_xor_sync(WHOLE_WARP, s, 2));
    }
  }

  // x of a column, for one vector.
  static DF11_INLINE float x_of(u32 from, u32, u32 vector, u32 column) {
    return __uint_as_float(load_shared(from + vector * X_STRIDE + x_at(column)));
  }

  // Gives each sum of 16 rows and OUT vectors to `store`, with its place: each lane at most one.
  template <class Store> DF11_INLINE void give(u32 lane, const Store& store) const {
    u32 t = lane % 4;
    if (t < 2 * BATCH) store((lane / 4 + 8 * (t & 1)) * BATCH + (BATCH > 1 ? t / 2 : 0),
                             BATCH > 1 && t >= 2 ? (t & 1 ? sum[1][BATCH - 1] : sum[0][BATCH - 1]) : (t & 1 ? sum[1][0] : sum[0][0]));
  }
};

#if __CUDA_ARCH__ >= 800
// The arithmetic of up to eight vectors: tensor cores.
struct Eight {
  enum : u32 { OUT = 8, UNROLLED = 4 };
  float sum[4];   // rows g and g + 8, vectors 2 t and 2 t + 1

  DF11_INLINE void clear() {
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum[i] = 0.f;
  }

  static DF11_INLINE u32 x_bytes(u32 batch) { return batch * RUN_X_HALF; }
  // Of 16 bytes that begin at a multiple of eight columns.
  static DF11_INLINE u32 x_at(u32 batch, u32 vector, u32 column) {
    return ((column / 64 * 2 + column / 8 % 2) * batch + vector) * 64 + column / 16 % 4 * 16;
  }
  static DF11_INLINE void stage(u32 to, u32 batch, u32 vector, u32 column, uint4 v) {
    store_shared4(to + x_at(batch, vector, column), v);
  }
  static DF11_INLINE u32 tile_x(u32 batch) { return 128 * batch; }

  DF11_INLINE void step(float (&c)[4], u32 low0, u32 high0, u32 low1, u32 high1, u32 b0, u32 b1) const {
    u32 a0 = permute<0x5140>(low0, high0), a1 = permute<0x5140>(low1, high1);
    u32 a2 = permute<0x7362>(low0, high0), a3 = permute<0x7362>(low1, high1);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }

  DF11_INLINE void multiply(const Tile& tile, const Matrix& m, u32 x, u32 batch, u32 lane) {
    uint4 first = make_uint4(0, 0, 0, 0), second = first;
    if (lane / 4 < batch) {
      first = load_shared4(x + 16 * lane);
      second = load_shared4(x + 64 * batch + 16 * lane);
    }
    float c[4] = {0.f, 0.f, 0.f, 0.f};
    u32 a0, b0, a1, b1;
    high_bytes(tile.codes.x, m.table_low, m.table_high, a0, b0);
    high_bytes(tile.codes.z, m.table_low, m.table_high, a1, b1);
    step(c, tile.upper.x, a0, tile.lower.x, a1, first.x, first.y);
    step(c, tile.upper.y, b0, tile.lower.y, b1, first.z, first.w);
    high_bytes(tile.codes.y, m.table_low, m.table_high, a0, b0);
    high_bytes(tile.codes.w, m.table_low, m.table_high, a1, b1);
    step(c, tile.upper.z, a0, tile.lower.z, a1, second.x, second.y);
    step(c, tile.upper.w, b0, tile.lower.w, b1, second.z, second.w);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum[i] = __fadd_rn(sum[i], c[i]);
  }

  DF11_INLINE void finish() {}

  static DF11_INLINE float x_of(u32 from, u32 batch, u32 vector, u32 column) {
    return __uint_as_float(load_shared_half(from + x_at(batch, vector, column) + column % 8 * 2) << 16);
  }

  template <class Store> DF11_INLINE void give(u32 lane, const Store& store) const {
#pragma unroll
    for (u32 i = 0; i < 4; i++) store((lane / 4 + 8 * (i / 2)) * 8 + lane % 4 * 2 + i % 2, sum[i]);
  }
};
#endif

// Copies the x of a run to shared memory, with zeros behind the last column: what one warp does for itself.
template <class Sums>
DF11_INLINE void stage_x(const df11_multiply_job& job, u32 run, u32 to, u32 lane) {
  u64 from = job.x + 2 * (u64)blockIdx.z * job.x_step;
  for (u32 vector = 0; vector < job.batch; vector++, from += 2 * job.x_stride) {
#pragma unroll
    for (u32 i = 0; i < RUN_COLUMNS / 256; i++) {
      u32 place = 8 * lane + 256 * i;
      u64 column = (u64)run * RUN_COLUMNS + place;
      uint4 v = make_uint4(0, 0, 0, 0);
      if (column + 8 <= job.columns) {
        v = *(const uint4*)(from + 2 * column);
      } else if (column < job.columns) {
        u32 words[4] = {0, 0, 0, 0};
#pragma unroll
        for (u32 j = 0; j < 8; j++)
          if (column + j < job.columns) words[j / 2] |= (u32)*(const u16*)(from + 2 * (column + j)) << 16 * (j % 2);
        v = make_uint4(words[0], words[1], words[2], words[3]);
      }
      Sums::stage(to, job.batch, vector, place, v);
    }
  }
}

// The word `pick` of four.
DF11_INLINE u32 word_of(uint4 v, u32 pick) {
  u32 low = pick & 1 ? v.y : v.x, high = pick & 1 ? v.w : v.z;
  return pick & 2 ? high : low;
}

// Adds the escapes of a row of tiles, in a run of `n` tiles, to its sums of one vector in shared memory: the work of one lane.
// It loads 16 bytes at a time, which are within the image wherever one of their words is.
template <class Sums>
DF11_INLINE void add_escapes(const df11_multiply_job& job, const Matrix& m, u64 starts, u32 n, u32 x, u32 vector, u32 sums) {
  u32 skip = (u32)starts / 4 % 4;
  starts -= 4 * skip;
  uint4 first = load_image(starts), escapes = first;
  u32 next = word_of(first, skip), held = 0xffffffff;
  for (u32 k = 1; k <= n; k++) {
    u32 number = next, pick = (skip + k) % 4;
    if (pick == 0) first = load_image(starts + 4 * (skip + k));
    next = word_of(first, pick);
    if (next - number > DF11_LINEAR_TILE || next > m.escape_count) {
      report(job.status, DF11_CORRUPT);
      return;
    }
    for (; number < next; number++) {
      if (number / 4 != held) {
        held = number / 4;
        escapes = load_image(m.escapes + 16 * (u64)held);
      }
      u32 escape = word_of(escapes, number % 4);
      if (escape >> 26 != 0) report(job.status, DF11_CORRUPT);
      float v = Sums::x_of(x, job.batch, vector, DF11_LINEAR_COLUMNS * (k - 1) + (escape >> 16 & 63));
      u32 at = sums + 4 * Sums::OUT * (escape >> 22 & 15);
      store_shared(at, __float_as_uint(__fmaf_rn(__uint_as_float(escape << 16), v, __uint_as_float(load_shared(at)))));
    }
  }
}

// Stores a result: row `row` of vector `vector`.
DF11_INLINE void store_y(const df11_multiply_job& job, const df11_multiply_part& part, u32 row, u32 vector, float value) {
  if (row >= part.rows || vector >= job.batch) return;
  u64 at = vector * part.y_stride + blockIdx.z * part.y_step + row;
  if (job.flags & DF11_MULTIPLY_BF16) {
    *(u16*)(part.y + 2 * at) = (u16)round_to_bf16(value);
  } else {
    *(float*)(part.y + 4 * at) = value;
  }
}

// Multiplies what a block has to: rows of tiles of one matrix with all columns, or with one piece of them.
template <class Sums, u32 MOST>
DF11_INLINE void multiply(const df11_multiply_job& job) {
  u32 number = 0;
  while (number + 1 < job.parts && blockIdx.x >= job.part[number + 1].first_block) number++;
  const df11_multiply_part& part = job.part[number];
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 side = warp * job.inverse >> 8, place = warp - side * job.width;
  u32 first = (blockIdx.x - part.first_block) * job.rows_of_tiles;
  u32 rows = part.row_tiles - first < job.rows_of_tiles ? part.row_tiles - first : job.rows_of_tiles;
  Matrix m;
  m.find(job, part, threadIdx.x == 0 && blockIdx.x == part.first_block && blockIdx.y == 0);
  u32 x = shared_start() + warp * Sums::x_bytes(job.batch), slots = shared_start() + MULTIPLY_WARPS * Sums::x_bytes(job.batch);
  u32 outs = rows * 16 * Sums::OUT;
  bool split = job.flags & DF11_MULTIPLY_SPLIT;
  u32 piece = split ? blockIdx.y : 0, end = split ? piece + 1 : job.pieces;
  float total[MOST];

  for (u32 p = piece; p < end; p++) {
    u32 run = p * job.width + place;
    if (side < job.sides && run < job.runs) {
      stage_x<Sums>(job, run, x, lane);
      DF11_SYNC_WARP(11);
      u32 n = job.ktiles - run * RUN_TILES < RUN_TILES ? job.ktiles - run * RUN_TILES : RUN_TILES;
      if (!m.good) n = 0;
      u32 tile_x = Sums::tile_x(job.batch);
      u64 number_of_tile = (u64)(first + side) * job.ktiles + run * RUN_TILES;
      u64 tile = m.tiles + number_of_tile * DF11_LINEAR_TILE_BYTES + 16 * lane;
      u64 next_row = (u64)job.sides * job.ktiles * DF11_LINEAR_TILE_BYTES;
      u32 slot = slots + 4 * (16 * Sums::OUT) * (side * job.width + place), next_slot = 4 * (16 * Sums::OUT) * job.sides * job.width;
      if (n == RUN_TILES) {
        Tile tiles[2];
        if (side < rows) tiles[0].load(tile);
#pragma unroll 1
        for (u32 row = side; row < rows; row += job.sides) {
          Sums sums;
          sums.clear();
#pragma unroll Sums::UNROLLED
          for (u32 i = 0; i < RUN_TILES; i++) {
            if (i + 1 < RUN_TILES) {
              tiles[(i + 1) % 2].load(tile + (i + 1) * DF11_LINEAR_TILE_BYTES);
            } else if (row + job.sides < rows) {
              tiles[0].load(tile + next_row);
            }
            sums.multiply(tiles[i % 2], m, x + i * tile_x, job.batch, lane);
          }
          tile += next_row;
          sums.finish();
          sums.give(lane, [&](u32 i, float value) { store_shared(slot + 4 * i, __float_as_uint(value)); });
          slot += next_slot;
        }
      } else {
#pragma unroll 1
        for (u32 row = side; row < rows; row += job.sides) {
          Sums sums;
          sums.clear();
#pragma unroll 1
          for (u32 k = 0; k < n; k++) {
            Tile one;
            one.load(tile + k * DF11_LINEAR_TILE_BYTES);
            sums.multiply(one, m, x + k * tile_x, job.batch, lane);
          }
          tile += next_row;
          sums.finish();
          sums.give(lane, [&](u32 i, float value) { store_shared(slot + 4 * i, __float_as_uint(value)); });
          slot += next_slot;
        }
      }
      // Each lane has rows of tiles and vectors of its own, and takes their escapes in their order.
      DF11_SYNC_WARP(14);
      for (u32 i = lane; side + i / Sums::OUT * job.sides < rows && n > 0; i += 32) {
        u32 vector = i % Sums::OUT, row = side + i / Sums::OUT * job.sides;
        if (vector < job.batch)
          add_escapes<Sums>(job, m, m.starts + 4 * ((u64)(first + row) * job.ktiles + run * RUN_TILES), n, x, vector,
                            slots + 4 * (16 * Sums::OUT) * (row * job.width + place) + 4 * vector);
      }
      if (split) {
        DF11_SYNC_WARP(15);
        for (u32 row = side; row < rows; row += job.sides) {
          u32 from = slots + 4 * (16 * Sums::OUT) * (row * job.width + place);
          u64 to = part.partials + 4 * (u64)(16 * Sums::OUT) * (((u64)blockIdx.z * part.row_tiles + first + row) * job.runs + run);
          for (u32 i = lane; i < 16 * Sums::OUT; i += 32) *(float*)(to + 4 * i) = __uint_as_float(load_shared(from + 4 * i));
        }
      }
    }
    if (split) return;
    DF11_SYNC_BLOCK(12);
    u32 here = job.runs - p * job.width < job.width ? job.runs - p * job.width : job.width;
#pragma unroll
    for (u32 k = 0; k < MOST; k++) {
      u32 i = threadIdx.x + k * DF11_MULTIPLY_THREADS;
      if (i >= outs) break;
      u32 from = slots + 4 * (i / (16 * Sums::OUT) * (16 * Sums::OUT) * job.width + i % (16 * Sums::OUT));
      for (u32 j = 0; j < here; j++) {
        float value = __uint_as_float(load_shared(from + 4 * (16 * Sums::OUT) * j));
        total[k] = p == 0 && j == 0 ? value : __fadd_rn(total[k], value);
      }
    }
    if (p + 1 < end) DF11_SYNC_BLOCK(13);
  }
#pragma unroll
  for (u32 k = 0; k < MOST; k++) {
    u32 i = threadIdx.x + k * DF11_MULTIPLY_THREADS;
    if (i >= outs) break;
    store_y(job, part, 16 * first + i / Sums::OUT, i % Sums::OUT, total[k]);
  }
}

// Adds the sums of runs that a split launch left in the workspace: one row of one vector a thread.
DF11_INLINE void add_runs(const df11_multiply_job& job) {
  const df11_multiply_part& part = job.part[blockIdx.y];
  u32 out = job.batch > 2 ? 8 : job.batch, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= part.row_tiles * 16 * out) return;
  u32 tile = i / (16 * out), place = i % (16 * out);
  const float* from = (const float*)part.partials + ((u64)blockIdx.z * part.row_tiles + tile) * job.runs * (16 * out) + place;
  float total = from[0];
  for (u32 run = 1; run < job.runs; run++) total = __fadd_rn(total, from[(u64)run * (16 * out)]);
  store_y(job, part, i / out, i % out, total);
}

}  // namespace df11
