// Linear images: decoding them, and making them of decoded weights. linear.h has the layout; src/cuda/image/linear.rs
// draws it and gives the reasons. Multiplying is in a file of its own.
//
// # Decoding
//
// A warp takes a tile. Lane 8 r + q has columns 8 q to 8 q + 7 of the rows r, r + 4, r + 8 and r + 12: *eights*, 16
// bytes each at the destination, and so that eight lanes store 128 bytes of a row side by side. Low bytes are loaded 8
// lane by lane, 256 bytes a warp; a word of codes and signs is in one sector with another that is loaded a little
// later.
//
//     load the four eights of this lane and where the tile's escapes are
//     if launched early: wait for the kernel before, once
//     if the job has the whole tile, and its rows are aligned:  four times: join an eight, and store a vector
//     else:  four times: join an eight, and store what the job has of it, in pieces that are aligned
//     barrier of the warp                                                                                          (9)
//     each lane: store an escape over what is there, until there are no more
//
// Escapes are a few of a thousand weights. To find them before the stores would cost every weight some instructions;
// the barrier orders the two stores, and the second one hits the cache.
//
// # Trust
//
// As in decode.cuh: the job comes from the host, the image is not trusted. A tile's bytes decode to some weights
// whatever they are. The list of a tile's escapes is clamped to the tensor's, and to 1,024; an escape outside of the
// range is not stored. Reported are lists that overlap, leave the tensor's, do not rise, or have what the table has.
#pragma once
#include "linear.h"
#include "platform.cuh"

namespace df11 {

enum : u32 { LINEAR_EIGHTS = 4, LINEAR_ESCAPE = 255 };

// The list of a tile's escapes.
struct EscapeList {
  u32 from, to;
  bool good;

  DF11_INLINE EscapeList(u64 starts, u32 tile, u32 all) {
    from = ((const u32*)starts)[tile];
    to = ((const u32*)starts)[tile + 1];
    good = from <= to && to <= all && to - from <= DF11_LINEAR_TILE;
    if (to > all) to = all;
    if (from > to) from = to;
    if (to - from > DF11_LINEAR_TILE) to = from + DF11_LINEAR_TILE;
  }
};

// Joins eight weights: four words of two bf16 each, from eight low bytes and a word of codes and signs.
DF11_INLINE uint4 join_linear(uint2 low, u32 codes, u32 table0, u32 table1) {
  u32 picks = codes & 0x77777777, signs = 0x80808080;
  u32 a = __byte_perm(table0, table1, picks) | (codes & signs);
  u32 b = __byte_perm(table0, table1, picks >> 16) | (codes << 4 & signs);
  return make_uint4(__byte_perm(low.x, a, 0x5140), __byte_perm(low.x, a, 0x7362), __byte_perm(low.y, b, 0x5140),
                    __byte_perm(low.y, b, 0x7362));
}

// Returns whether one of eight table entries, of seven bits each, is `pair`.
DF11_INLINE bool is_in_table(u32 pair, u32 table0, u32 table1) {
  u32 four = pair * 0x01010101, low = 0x7f7f7f7f;
  return (((four ^ table0) + low) & ((four ^ table1) + low) & 0x80808080) != 0x80808080;
}

// Stores eight weights at any address that is a multiple of 2.
DF11_INLINE void store_eight(u64 to, uint4 v) {
  if ((to & 15) == 0) {
    store_global4<0>(to, v);
  } else if ((to & 3) == 0) {
    u32* words = (u32*)to;
    words[0] = v.x;
    words[1] = v.y;
    words[2] = v.z;
    words[3] = v.w;
  } else {
    u32* words = (u32*)(to + 2);
    store_global_half(to, v.x);
    words[0] = __funnelshift_r(v.x, v.y, 16);
    words[1] = __funnelshift_r(v.y, v.z, 16);
    words[2] = __funnelshift_r(v.z, v.w, 16);
    store_global_half(to + 14, v.w >> 16);
  }
}

// Shifts eight weights so that the second one becomes the first.
DF11_INLINE uint4 next_of_eight(uint4 v) {
  return make_uint4(__funnelshift_r(v.x, v.y, 16), __funnelshift_r(v.y, v.z, 16), __funnelshift_r(v.z, v.w, 16),
                    v.w >> 16);
}

// Returns the offset of a lane's word of codes in its first eight. The others are 256, 8 and 264 bytes after it.
DF11_INLINE u32 codes_of(u32 lane) {
  return DF11_LINEAR_CODES + (lane >> 3) * 64 + (lane >> 1 & 3) * 16 + (lane & 1) * 4;
}

// Does the work of one block of a job.
DF11_INLINE void decode_linear(const df11_linear_decode_job& job, u32 block) {
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  bool waits = (job.flags & DF11_JOB_EARLY) != 0;
  if (waits) let_next_start();
  bool bad = block == 0 && threadIdx.x == 0 && *(const u32*)job.state != 0;
  u32 table0 = (u32)job.table, table1 = (u32)(job.table >> 32);
  u64 to = job.dst - (u64)job.first * 2;  // where the tensor's first weight goes, even if it is not stored
  for (u32 tile = job.from_tile + warp * job.blocks + block; tile < job.end_tile; tile += job.blocks * warps) {
    u64 at = job.tiles + (u64)tile * DF11_LINEAR_TILE_BYTES;
    u64 low_at = at + lane * 8, codes_at = at + codes_of(lane);
    uint2 low[LINEAR_EIGHTS] = {load_global2<0>(low_at), load_global2<256>(low_at), load_global2<512>(low_at),
                                load_global2<768>(low_at)};
    u32 codes[LINEAR_EIGHTS] = {load_global1<0>(codes_at), load_global1<256>(codes_at), load_global1<8>(codes_at),
                                load_global1<264>(codes_at)};
    EscapeList list(job.starts, tile, job.escape_count);
    if (!list.good) bad = true;
    if (waits) wait_for_previous();
    waits = false;

    u32 row_tile = tile / job.ktiles, column = (tile - row_tile * job.ktiles) * DF11_LINEAR_COLUMNS;
    u64 origin = (u64)row_tile * DF11_LINEAR_ROWS * job.columns + column;  // the tile's first weight
    u64 last = origin + (u64)(DF11_LINEAR_ROWS - 1) * job.columns + DF11_LINEAR_COLUMNS;
    bool whole = job.columns - column >= DF11_LINEAR_COLUMNS && origin >= job.first && last <= job.end;
    u32 mine = column + (lane & 7) * 8;
    u64 weight = origin + (u64)(lane >> 3) * job.columns + (lane & 7) * 8, rows = (u64)job.columns * 4;
    if (whole && (((u32)to + (u32)origin * 2 | job.columns * 2) & 15) == 0) {
      u64 there = to + weight * 2;
#pragma unroll
      for (u32 i = 0; i < LINEAR_EIGHTS; i++, there += rows * 2)
        store_global4<0>(there, join_linear(low[i], codes[i], table0, table1));
    } else {
#pragma unroll
      for (u32 i = 0; i < LINEAR_EIGHTS; i++, weight += rows) {
        uint4 v = join_linear(low[i], codes[i], table0, table1);
        if (mine < job.columns && job.columns - mine >= 8 && weight >= job.first && weight + 8 <= job.end) {
          store_eight(to + weight * 2, v);
        } else if (mine < job.columns && weight < job.end && weight + 8 > job.first) {
          u32 there = job.columns - mine < 8 ? job.columns - mine : 8;
#pragma unroll 1
          for (u64 k = weight; k < weight + there && k < job.end; k++, v = next_of_eight(v))
            if (k >= job.first) store_global_half(to + k * 2, v.x);
        }
      }
    }
    DF11_SYNC_WARP(9);
    const u32* escapes = (const u32*)job.escapes;
    for (u32 i = list.from + lane; i < list.to; i += 32) {
      u32 escape = escapes[i], place = escape >> 16;
      if (place >= DF11_LINEAR_TILE || (i > list.from && escapes[i - 1] >> 16 >= place)) bad = true;
      if (is_in_table(escape >> 8 & 127, table0, table1)) bad = true;
      u64 weight = origin + (u64)(place >> 6) * job.columns + (place & 63);
      bool inside = place < DF11_LINEAR_TILE && job.columns - column > (place & 63);
      if (inside && weight >= job.first && weight < job.end) store_global_half(to + weight * 2, escape);
    }
  }
  // Also without a tile: when this kernel has ended, so has the one before it.
  if (waits) wait_for_previous();
  if (bad && job.status != 0) atomicMax((u32*)job.status, (u32)DF11_CORRUPT);
}

// Loads eight weights of which `count` are there; the others are +0.
DF11_INLINE uint4 load_eight(u64 from, u32 count) {
  if (count >= 8 && (from & 15) == 0) return *(const uint4*)from;
  uint4 v = make_uint4(0, 0, 0, 0);
#pragma unroll 1
  for (u32 k = 8; k-- > 0;) {
    u32 bits = k < count ? ((const u16*)from)[k] : 0;
    v = make_uint4(v.x << 16 | bits, __funnelshift_l(v.x, v.y, 16), __funnelshift_l(v.y, v.z, 16),
                   __funnelshift_l(v.z, v.w, 16));
  }
  return v;
}

// Makes tiles of decoded weights, and their escapes, for which `starts` has the places. The shared memory is 512
// bytes: the code of each pair of exponents.
DF11_INLINE void make_linear(const df11_linear_make_job& job) {
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, lut = shared_start();
  for (u32 pair = threadIdx.x; pair < 128; pair += blockDim.x) {
    u32 code = LINEAR_ESCAPE;
    for (u32 k = 0; k < 8; k++)
      if ((u32)(job.table >> k * 8 & 255) == pair) code = k;  // the last one: that of 0 is 7
    store_shared(lut + pair * 4, code);
  }
  DF11_SYNC_BLOCK(10);
  bool bad = false;
  for (u32 tile = warp * gridDim.x + blockIdx.x; tile < job.tile_count; tile += gridDim.x * warps) {
    u32 row_tile = tile / job.ktiles, column = (tile - row_tile * job.ktiles) * DF11_LINEAR_COLUMNS;
    u32 mine = column + (lane & 7) * 8;
    u64 at = job.tiles + (u64)tile * DF11_LINEAR_TILE_BYTES;
    EscapeList list(job.starts, tile, job.escape_count);
    if (!list.good) bad = true;
    u32 next = list.from;
#pragma unroll
    for (u32 i = 0; i < LINEAR_EIGHTS; i++) {
      u64 weight = ((u64)row_tile * DF11_LINEAR_ROWS + i * 4 + (lane >> 3)) * job.columns + mine;
      u32 there = mine < job.columns && weight < job.count ? 8 : 0;
      if (there != 0 && job.columns - mine < there) there = job.columns - mine;
      if (there != 0 && job.count - weight < there) there = (u32)(job.count - weight);
      uint4 v = load_eight(job.source + weight * 2, there);
      u32 words[4] = {v.x, v.y, v.z, v.w}, codes = 0, low[2] = {0, 0}, escapes = 0;
#pragma unroll
      for (u32 k = 0; k < 8; k++) {
        u32 bits = words[k / 2] >> (k & 1) * 16 & 0xffff, code = load_shared(lut + (bits >> 8 & 127) * 4);
        if (code == LINEAR_ESCAPE) { escapes |= 1 << k; bits = 0; code = 7; }
        codes |= code << k * 4 | bits >> 15 << (k < 4 ? k * 8 + 7 : (k - 4) * 8 + 3);
        low[k / 4] |= (bits & 255) << (k & 3) * 8;
      }
      *(uint2*)(at + lane * 8 + i * 256) = make_uint2(low[0], low[1]);
      *(u32*)(at + codes_of(lane) + (i & 1) * 256 + (i >> 1) * 8) = codes;
      // In the order of places: lane by lane, and those of a lane in their order.
      if (__ballot_sync(FULL, escapes != 0) == 0) continue;
      u32 before = 0, all = 0;
#pragma unroll
      for (u32 k = 0; k < 8; k++) {
        u32 lanes = __ballot_sync(FULL, escapes >> k & 1);
        all += __popc(lanes);
        before += __popc(lanes & ((1u << lane) - 1));
      }
#pragma unroll 1
      for (u32 place = i * 256 + lane * 8; escapes != 0; place++, escapes >>= 1, v = next_of_eight(v)) {
        if ((escapes & 1) == 0) continue;
        if (next + before < list.to) ((u32*)job.escapes)[next + before] = place << 16 | (v.x & 0xffff);
        before++;
      }
      next += all;
    }
    if (next != list.to) bad = true;
  }
  if (bad) atomicMax((u32*)job.state, (u32)DF11_CORRUPT);
}

}  // namespace df11
