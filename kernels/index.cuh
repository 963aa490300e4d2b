// The index of an image, made on the device from the file's gaps and positions, once per upload.
//
// A block of threads takes a block of the code, 4,096 bytes, and a thread 64 bits of it, a chunk. The gap says where in
// a chunk its first code begins, so each thread can walk its own:
//
//     stage the block's code;  barrier                                                                             (7)
//     walk the chunk, counting codes that begin in it;  it must end at the next chunk's gap
//     sum of the counts of all threads before: by shuffles in a warp, then over warps;  barrier                    (8)
//     position of the block + that sum = number of the chunk's first weight
//     is there a multiple of 104 among the chunk's weights? (never two: it has 64 at most)
//         walk again up to it, and store the bit: lanes[n / 104], and starts[n / 3328] if it begins a tile
//
// Counting needs lengths of single codes where an entry of several extends beyond the chunk's end. The table holds only
// sums, but in an entry of n equal exponents each code has one n-th of the sum; and each code that fits a window
// together with another has such an entry: that of the window which repeats it.
//
// # What is compared
//
// The first gap is 0 and the walk of every chunk ends at the next one's gap, so all walks together are one walk over
// all codes; its counts reach each block's position, and N at the end; and the last code ends inside the code. So an
// index without a report is the one that the host makes. The data may end in the middle of a chunk: the bits after it
// look like codes and are not counted, and gaps there mean nothing.
//
// # Trust
//
// As in decode.cuh: the table is tamed; a walk stops at its chunk's end, or at a code of more than 64 bits; only staged
// words are read; lanes are written for weights below N only.
#pragma once
#include "decode.cuh"

namespace df11 {

enum : u32 {
  BLOCK_BYTES = 4096,
  CHUNKS = 512,               // of 64 bits, one a thread
  CODE_WORDS = BLOCK_BYTES / 4 + 4,
  // Shared memory after the table: the block's code, the length of each exponent's code (0: unknown), the sums of the
  // warps.
  INDEX_CODE = 0,
  INDEX_LENGTHS = CODE_WORDS * 4,
  INDEX_SUMS = INDEX_LENGTHS + 256 * 4,
};
static_assert(INDEX_SUMS + CHUNKS / 32 * 4 <= DF11_INDEX_SHARED, "DF11_INDEX_SHARED is too small");
static_assert(DF11_INDEX_THREADS == CHUNKS, "a thread is a chunk");

// A walk over the codes of a block, in its staged words.
struct Walk {
  u32 table, code, lengths;
  u32 bit, count;     // counted from the start of the block's code; weights passed

  // Takes the next entry's weights, except weights from `until` and those that start at bit `limit` or later. Returns
  // false if there is nothing to take.
  DF11_INLINE bool step(u32 limit, u32 until) {
    u32 jump = 0, skipped = 0;
    for (;;) {
      if (skipped > 64) return false;                          // no code is that long
      u32 at = bit + skipped, w = at >> 5;
      if (w > CODE_WORDS - 2) return false;
      u32 top = __funnelshift_l(load_shared(code + w * 4 + 4), load_shared(code + w * 4), at);
      uint2 e = load_table(masked_xor<MASK>(top >> (32 - PLACE), jump) + table);
      u32 n = e.y >> 11 & 7, length = e.y & 63;
      skipped += length;
      if (n == 0) { jump = e.y >> 16; continue; }
      if (n == 1) {                                            // also every code from a second-level table
        bit += skipped;
        count++;
      } else if (bit + skipped <= limit && count + n <= until) {
        bit += skipped;
        count += n;
      } else {
        for (u32 k = 0; k < n && bit < limit && count < until; k++) {
          u32 one = load_shared(lengths + (e.x >> (24 - 8 * k) & 255) * 4);
          bit += one != 0 ? one : 1;
          count++;
        }
      }
      return true;
    }
  }
  DF11_INLINE bool run(u32 limit, u32 until) {
    while (bit < limit && count < until)
      if (!step(limit, until)) return false;
    return true;
  }
};

DF11_INLINE u32 gap_of(const df11_index_job& job, u64 chunk) {
  const u8* gaps = (const u8*)job.gaps;
  u64 at = chunk * 5, last = job.blocks * 320 - 1;
  u32 two = (u32)gaps[at / 8] << 8 | gaps[at / 8 < last ? at / 8 + 1 : last];
  return two >> (11 - (u32)(at & 7)) & 31;
}

DF11_INLINE void index_blocks(const df11_index_job& job) {
  u32 thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  u32 table = shared_start(), more = table + table_shared(job.table_bytes);
  u32 code = more + INDEX_CODE, lengths = more + INDEX_LENGTHS, sums = more + INDEX_SUMS;
  copy_table(job.table, job.table_bytes, table);
  if (thread < 256) store_shared(lengths + thread * 4, 0);
  DF11_SYNC_BLOCK(5);
  // An entry of n equal exponents gives the length of that exponent's code; every code that can share an entry has one.
  for (u32 i = thread; i < (1u << DF11_WINDOW_BITS); i += CHUNKS) {
    uint2 e = load_shared2(table + i * 8);
    u32 n = e.y >> 11 & 7, length = e.y & 63, symbol = e.x >> 24, equal = symbol * 0x01010101u;
    if (n != 0 && (e.x ^ equal) >> (32 - 8 * n) == 0) raise_shared(lengths + symbol * 4, length / n);
  }
  bool bad = false;
  const u32* positions = (const u32*)job.positions;
  for (u64 block = blockIdx.x; block < job.blocks; block += gridDim.x) {
    DF11_SYNC_BLOCK(6);
    u64 first_word = block * (BLOCK_BYTES / 4), end_word = job.code_units * 4;
    for (u32 i = thread; i < CODE_WORDS; i += CHUNKS) {
      u64 w = first_word + i;
      store_shared(code + i * 4, w < end_word ? swap_bytes(((const u32*)job.code)[w]) : 0);
    }
    DF11_SYNC_BLOCK(7);

    u64 chunk = block * CHUNKS + thread, bits = job.code_bytes * 8;
    u32 gap = gap_of(job, chunk), limit = (thread + 1) * 64;
    Walk walk{table, code, lengths, thread * 64 + gap, 0};
    bool read = walk.run(limit, FULL);
    u32 count = walk.count, after = walk.bit - limit;

    u32 sum = count;                                           // of this lane and those before it
    for (u32 d = 1; d < 32; d *= 2) {
      u32 other = __shfl_up_sync(FULL, sum, d);
      if (lane >= d) sum += other;
    }
    if (lane == 31) store_shared(sums + warp * 4, sum);
    DF11_SYNC_BLOCK(8);
    u32 before = 0;
    for (u32 i = 0; i < warp; i++) before += load_shared(sums + i * 4);
    u64 from = block < job.position_count ? positions[block] : job.weights;
    u64 to = block + 1 < job.position_count ? positions[block + 1] : job.weights;
    u64 mine = from + before + sum - count, end = mine + count; // this chunk's weights

    if (chunk == 0 && (gap != 0 || from != 0)) bad = true;
    if (mine < job.weights) {
      if (!read) bad = true;
      // A walk that ends where the next chunk starts makes one walk of all of them.
      if (end < job.weights && (chunk + 1 >= job.blocks * CHUNKS || gap_of(job, chunk + 1) != after)) bad = true;
      u32 take = 0;                                            // weights before the one that starts a lane
      u64 lane_at = (mine + LANE - 1) / LANE;
      if (lane_at * LANE < end && lane_at * LANE < job.weights) {
        take = (u32)(lane_at * LANE - mine);
        Walk again{table, code, lengths, thread * 64 + gap, 0};
        again.run(limit, take);
        u64 bit = block * (BLOCK_BYTES * 8) + again.bit;
        ((u16*)job.lanes)[lane_at] = (u16)bit;
        if (lane_at % 32 == 0) ((u32*)job.starts)[lane_at / 32] = (u32)(bit / 128);
      }
      if (end >= job.weights) {                                // the group's last weight: its code must end in the last byte
        Walk again{table, code, lengths, thread * 64 + gap, 0};
        again.run(limit, (u32)(job.weights - mine));
        u64 stop = block * (BLOCK_BYTES * 8) + again.bit;
        if (stop > bits || stop + 8 <= bits) bad = true;
      }
    }
    u64 reached = end < job.weights ? end : job.weights;
    if (thread == CHUNKS - 1 && (reached != to || (block + 1 == job.blocks && reached != job.weights))) bad = true;
  }
  if (blockIdx.x == 0 && thread == 0) ((u32*)job.starts)[job.tiles] = (u32)((job.code_bytes + 15) / 16);
  if (bad) atomicMax((u32*)job.image_state, (u32)DF11_CORRUPT);
}

}  // namespace df11
