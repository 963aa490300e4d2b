#pragma once
#include "platform.cuh"

namespace df11 {

enum : u32 {
  LANE = DF11_LANE_WEIGHTS,
  TILE = 32 * LANE,                                    // weights of a tile
  ENTRY_LOG2 = 3,                                      // an entry has 8 bytes
  MASK = (1u << (DF11_WINDOW_BITS + ENTRY_LOG2)) - (1u << ENTRY_LOG2),
  PLACE = DF11_WINDOW_BITS + ENTRY_LOG2,               // bits that a window takes, as a byte address
  STAGED_CODE = 16 * DF11_CODE_UNITS,                  // bytes
  WARP_SHARED = STAGED_CODE + TILE,
  WIDEST = LANE * 32 * 32 / 128 + 1 + DF11_AHEAD_UNITS,  // units that a tile can honestly need
  UNROLL = 4,
  OVERRUN = DF11_WINDOW_BITS - 1,                      // bits that the last look-up of a lane may take too many
  FULL = 0xffffffffu,
};

DF11_INLINE u32 table_shared(u32 table_bytes) { return table_bytes <= DF11_TABLE_SMALL ? DF11_TABLE_SMALL : DF11_TABLE_LARGE; }

DF11_INLINE uint2 tame(uint2 entry, u32 within) {
  u32 length = entry.y & 63, bits = entry.y >> 8 & 0x38;
  if (length == 0) length = 1;
  if (length > 32) length = 32;
  if (bits > 32) bits = 32;
  return make_uint2(bits != 0 ? entry.x : entry.x & within, bits << 8 | length);
}

DF11_INLINE void copy_table(u64 table, u32 table_bytes, u32 to) {
  const uint4* from = (const uint4*)table;
  u32 size = table_shared(table_bytes), within = size - (1u << ENTRY_LOG2);
  for (u32 i = threadIdx.x; i < size / 16; i += blockDim.x) {
    uint4 two = i < table_bytes / 16 ? from[i] : make_uint4(0, 0, 0, 0);
    uint2 a = tame(make_uint2(two.x, two.y), within), b = tame(make_uint2(two.z, two.w), within);
    store_shared4(to + i * 16, make_uint4(a.x, a.y, b.x, b.y));
  }
}

// Where a lane reads its code words: staged in shared memory, or, in a tile too wide for that, in the image itself.
struct Staged {
  DF11_INLINE u32 word(u32 at) const { return load_shared(at); }
};
struct Direct {
  const u8* from;
  DF11_INLINE u32 word(u32 at) const { return swap_bytes(*(const u32*)(from + at)); }
};

// Decodes one lane: from bit `start` behind `base`, where `words` words may be read, into the stage from `out` to `end`.
// Returns the bit behind the last code taken, or FULL where the words ran out; the rest of the stage is then zero.
template <class Source>
DF11_INLINE u32 decode_lane(const Source& source, u32 table, u32 base, u32 words, u32 start, u32 out, u32 end) {
  u32 next = base + (start >> 5) * 4, last = base + (words - UNROLL) * 4;
  bool runs = words >= UNROLL + 2 && (start >> 5) + 2 + UNROLL <= words;
  u32 sh = 64 - PLACE - (start & 31);
  if (runs) {
    u32 hi = 0, lo = source.word(next), q = 0, acc = 0, jump = 0;
    next += 4;
    if (sh < 32) { hi = lo; lo = source.word(next); next += 4; }
    do {
#pragma unroll
      for (u32 k = 0; k < UNROLL; k++) {
        uint2 e = load_table(masked_xor(__funnelshift_r(lo, hi, sh), MASK, jump) + table);
        u32 bits = e.y >> 8;
        jump = bits != 0 ? 0 : e.x;
        u32 word = __funnelshift_r(e.x, acc, q);
        acc = __funnelshift_lc(e.x, acc, bits);
        u32 shifted = sh - e.y, filled = q + bits;
        if ((sh ^ shifted) & 32) { hi = lo; lo = source.word(next); next += 4; }
        if ((q ^ filled) & 32) { store_shared(out, word); out += 4; }
        sh = shifted;
        q = filled;
        if (out >= end) goto decoded;
      }
    } while (next <= last);
    runs = false;
  decoded:;
  }
  if (!runs)
    for (; out < end; out += 4) store_shared(out, 0);
  return runs ? (next - base) * 8 - PLACE - (sh & 31) : FULL;
}

// Eight weights out of eight staged exponents and eight bytes of sign and mantissa.
DF11_INLINE uint4 join8(uint2 exponents, uint2 signs) {
  const u32 m = 0x807f807f;
  u32 a = __byte_perm(exponents.x, 0, 0x0213), b = __byte_perm(exponents.y, 0, 0x0213);
  return make_uint4(choose(m, __byte_perm(signs.x, 0, 0x1100), a << 7), choose(m, __byte_perm(signs.x, 0, 0x3322), a >> 1),
                    choose(m, __byte_perm(signs.y, 0, 0x1100), b << 7), choose(m, __byte_perm(signs.y, 0, 0x3322), b >> 1));
}

// Exponents and signs of a group of eight that starts `shift` bytes before `here`, 1 to 7; `before` are the eight before.
DF11_INLINE uint2 slide_exponents(uint2 before, uint2 here, u32 shift) {
  u32 r = (8 - shift & 3) * 8;
  u32 a = shift <= 4 ? before.y : before.x, b = shift <= 4 ? here.x : before.y, c = shift <= 4 ? here.y : here.x;
  return make_uint2(__funnelshift_l(b, a, r), __funnelshift_l(c, b, r));
}
DF11_INLINE uint2 slide_signs(uint2 before, uint2 here, u32 shift) {
  u32 r = (8 - shift & 3) * 8;
  u32 a = shift <= 4 ? before.y : before.x, b = shift <= 4 ? here.x : before.y, c = shift <= 4 ? here.y : here.x;
  return make_uint2(__funnelshift_r(a, b, r), __funnelshift_r(b, c, r));
}

DF11_INLINE void store_one(u32 stage, const u8* signs, u16* to, u32 k) {
  u32 e = load_shared(stage + (k & ~3u)) >> (24 - (k & 3) * 8) & 255, s = signs[k];
  to[k] = (u16)((s & 0x80) << 8 | e << 7 | (s & 0x7f));
}

// The weights [a, b) of a tile that no whole 16-byte vector holds: at most seven at either side.
DF11_INLINE void store_edges(u32 stage, const u8* signs, u16* to, u32 lane, u32 shift, u32 a, u32 b) {
  u32 first = (a + shift + 7) / 8, end = (b + shift) / 8;   // the whole vectors
  if (lane < 8) {
    u32 k = a + lane;
    if (k < b && k + shift < first * 8) store_one(stage, signs, to, k);
  } else if (lane < 16 && end >= first) {
    u32 k = end * 8 - shift + lane - 8;
    if (k < b) store_one(stage, signs, to, k);
  }
}

// What a lane knows of its tile before it starts, loaded one tile ahead.
struct Ahead {
  uint4 v0, v1, v2;
  u64 unit;         // first of the tile
  u32 units;
  u32 lane_bit, next_bit;
};

DF11_INLINE Ahead look_ahead(const df11_job& job, u64 tile, u32 lane) {
  Ahead t;
  const u32* starts = (const u32*)job.starts + tile;
  const u16* lanes = (const u16*)job.lanes + tile * 32 + lane;
  u64 from = starts[0], to = (u64)starts[1] + DF11_AHEAD_UNITS;
  if (to > job.code_units) to = job.code_units;
  if (from > to) from = to;
  t.unit = from;
  t.units = to - from < WIDEST ? (u32)(to - from) : (u32)WIDEST;
  t.lane_bit = lanes[0];
  t.next_bit = FULL;
  if ((tile * 32 + lane + 1) * LANE < job.weights) t.next_bit = lanes[1];
  t.v0 = t.v1 = t.v2 = make_uint4(0, 0, 0, 0);
  if (t.units <= DF11_CODE_UNITS) {
    const uint4* p = (const uint4*)job.code + from + lane;
    if (lane < t.units) t.v0 = p[0];
    if (lane + 32 < t.units) t.v1 = p[32];
    if (lane + 64 < t.units) t.v2 = p[64];
  }
  return t;
}

// The lane's start behind the first bit of its tile's code, out of the low 16 bits that the index holds.
DF11_INLINE u32 lane_start(const Ahead& t, u32 lane) {
  u32 at = (t.lane_bit - (u32)t.unit * 128) & 0xffff;
  if (t.units > DF11_CODE_UNITS) {  // wide: 65,536 bits may have passed, once or twice
    u32 before = __shfl_up_sync(FULL, at, 1);
    u32 wraps = __ballot_sync(FULL, lane > 0 && at < before);
    at += 65536 * __popc(wraps & (FULL >> (31 - lane)));
  }
  return at;
}

DF11_INLINE void decode_tiles(const df11_job& job, u32 block) {
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  u32 table = shared_start(), code = table + table_shared(job.table_bytes) + warp * WARP_SHARED, stage = code + STAGED_CODE;
  copy_table(job.table, job.table_bytes, table);
  DF11_SYNC_BLOCK(1);
  bool bad = block == 0 && threadIdx.x == 0 && *(const u32*)job.state != 0;

  u64 tile = job.first / TILE + (u64)block * warps + warp, tiles = (job.first + job.count - 1) / TILE + 1;
  u64 stride = (u64)job.blocks * warps;
  // Weights between a border of the destination's 16-byte grid and a tile's first weight: the same for every tile.
  u32 shift = (u32)(job.dst / 2 - job.first) & 7;
  Ahead t;
  if (tile < tiles) t = look_ahead(job, tile, lane);
  for (; tile < tiles; tile += stride) {
    u64 at = tile * TILE;
    u32 a = job.first > at ? (u32)(job.first - at) : 0;
    u32 b = job.first + job.count - at < TILE ? (u32)(job.first + job.count - at) : (u32)TILE;
    u32 coded = job.weights - at < TILE ? (u32)(job.weights - at) : (u32)TILE;
    const u8* signs = (const u8*)job.signs + at;
    u16* to = (u16*)(job.dst + (at - job.first) * 2);
    bool whole = a == 0 && b == TILE;
    uint2 s[LANE / 8];
    if (whole)
#pragma unroll
      for (u32 i = 0; i < LANE / 8; i++) s[i] = ((const uint2*)signs)[i * 32 + lane];

    bool wide = t.units > DF11_CODE_UNITS;
    if (!wide) {
      if (lane < t.units) store_shared4(code + lane * 16, swap_bytes(t.v0));
      if (lane + 32 < t.units) store_shared4(code + lane * 16 + 512, swap_bytes(t.v1));
      if (lane + 64 < t.units) store_shared4(code + lane * 16 + 1024, swap_bytes(t.v2));
    }
    u32 start = lane_start(t, lane), words = t.units * 4;
    u32 ends_at = (t.next_bit - (u32)t.unit * 128) & 0xffff;
    bool checks = t.next_bit != FULL;
    const u8* direct = (const u8*)job.code + t.unit * 16;
    if (tile + stride < tiles) t = look_ahead(job, tile + stride, lane);
    DF11_SYNC_WARP(2);

    u32 mine = lane * LANE < coded ? coded - lane * LANE : 0;
    if (mine > LANE) mine = LANE;
    u32 out = stage + lane * LANE, end = out + (mine + 3 & ~3u);
    if (mine != 0) {
      u32 stop = wide ? decode_lane(Direct{direct}, table, 0, words, start, out, end)
                      : decode_lane(Staged{}, table, code, words, start, out, end);
      if (stop == FULL || (checks && ((stop - ends_at) & 0xffff) > OVERRUN)) bad = true;
      if (mine < LANE && mine + 3 & 4) store_shared(end, 0);
    }
    DF11_SYNC_WARP(3);

    if (whole && shift == 0) {
#pragma unroll
      for (u32 i = 0; i < LANE / 8; i++)
        ((uint4*)to)[i * 32 + lane] = join8(load_shared2(stage + (i * 32 + lane) * 8), s[i]);
    } else if (whole) {
      store_edges(stage, signs, to, lane, shift, a, b);
      uint2 carry = make_uint2(0, 0);
#pragma unroll
      for (u32 i = 0; i < LANE / 8; i++) {
        // The eight before lane 0's are lane 31's of the step before.
        uint2 give = lane == 31 ? carry : s[i], before;
        before.x = __shfl_sync(FULL, give.x, lane + 31);
        before.y = __shfl_sync(FULL, give.y, lane + 31);
        carry = s[i];
        u32 c = i * 32 + lane;
        if (c != 0) {
          uint2 e = slide_exponents(load_shared2(stage + c * 8 - 8), load_shared2(stage + c * 8), shift);
          *(uint4*)(to + c * 8 - shift) = join8(e, slide_signs(before, s[i], shift));
        }
      }
    } else {
      store_edges(stage, signs, to, lane, shift, a, b);
      for (u32 c = (a + shift + 7) / 8 + lane; c < (b + shift) / 8; c += 32) {
        uint2 e, m;
        if (shift == 0) {
          e = load_shared2(stage + c * 8);
          m = ((const uint2*)signs)[c];
        } else {
          e = slide_exponents(load_shared2(stage + c * 8 - 8), load_shared2(stage + c * 8), shift);
          m = slide_signs(((const uint2*)signs)[c - 1], ((const uint2*)signs)[c], shift);
        }
        *(uint4*)(to + c * 8 - shift) = join8(e, m);
      }
    }
  }
  if (bad && job.status != 0) atomicMax((u32*)job.status, (u32)DF11_CORRUPT);
}

}  // namespace df11
