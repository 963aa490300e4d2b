// Decoding: Huffman-coded exponents and bytes of sign and mantissa in, bf16 out. This file is the algorithm; decode.cu
// has the entry points, nibbles.cuh a second kind of entries, index.cuh makes the index that is used here, policy.h has
// the numbers, platform.cuh what shims must replace.
//
// # The idea
//
// A stream of codes of unknown lengths can be entered only where it is recorded that a code begins. The file records
// that every 64 bits (gaps), so a thread knows where its bits begin but not which weights they are: it must count its
// codes first, add up the counts of all threads before it, and decode again. An image records the reverse: the bit at
// which every 104th weight begins. A thread then decodes exactly 104 weights and knows where they go. There is nothing
// to count, to add up or to wait for; stores are whole vectors; and the index takes less room (0.16 bits a weight) than
// gaps and positions (0.21), which an image need not hold.
//
//     lane   one thread: LANE = 104 weights
//     tile   one warp at a time: 32 lanes, TILE = 3,328 weights, about 70 units of code
//     unit   16 bytes of code
//
//     load the first tile's code and index, and where the second one's code is
//     copy the table into shared memory, taming every entry; barrier of the block                                 (1)
//     for each tile of this warp:
//         load the tile's signs (into registers: they are needed last, and take longest)
//         store its code, loaded while the previous tile was decoded, to shared memory, first byte on top
//         load the next tile's code and index, and where the code of the one after it is;  barrier of the warp     (2)
//         each lane: decode 104 exponents from its bit into its stage, four to a word
//         does the lane end where the next one begins?  if not, report;  barrier of the warp                       (4)
//         if launched early: wait for the kernel before, once
//         13 times: 8 staged exponents and 8 signs of 32 lanes -> 512 bytes of bf16
//
// # One look-up
//
// A window of 11 bits finds an entry of up to four exponents: 3.3 on weights of language models. Two words hold what
// comes next, `acc` the exponents that do not fill a word yet. The loop branches only at its end; what is done now and
// then is predicated.
//
//     (hi:lo) >> sh      ... | window, 11 bits | 0 0 0 ...     so that `& MASK` makes the address of an 8-byte entry
//     e    = table[((hi:lo) >> sh & MASK) ^ jump]              shift, LOP3, add, load
//     word = (acc:e.x) >> q;  acc = (acc:e.x) << e.bits        the word, in case it is now full, and the rest
//     sh  -= e;  q += e.bits                                   only the low six bits of both have a meaning
//     bit 5 of sh has changed:  hi = lo, lo = *next++          32 bits are used up
//     bit 5 of q has changed:   *out++ = word                  32 bits are full
//     jump = e.jump                                            0 except after the first part of a long code
//
// Whole registers are subtracted and added, because bits above bit 5 are never used: shifts take five bits. Bit 5
// changes once for 32 bits, and no entry takes more (`tame` ensures that).
//
// # Entries
//
// An image's entry has its first exponent on top, so that the order of bytes in `acc:e.x` is the order of weights:
//
//     in the image        x [31:24] 1st  [23:16] 2nd  [15:8] 3rd  [7:0] 4th     y [13:8] 8 count  [5:0] bits taken
//       of a long code    x XOR                                                 y [13:8] 0        [5:0] second_bits
//     in shared memory    x as above, or 0                  y [31:16] jump      [13:8] 8 count    [5:0] bits taken,
//     1-32
//
// A code longer than the window is looked up in steps. The first entry has no exponent; it advances the window by
// `second_bits` (7 on most models) and leaves a jump: the next window begins with bits that are known, and the XOR
// removes these from the address and puts the place of a second table there. So the same mask and the same instructions
// serve every level. Jumps are multiples of 8 below 32,768, which is why they fit into the entry with the other fields;
// taking them from there instead of choosing between x and 0 saves an instruction of twenty-two.
//
// A lane may take up to three exponents too many with its last look-up. They are not stored: a lane is 26 full words,
// and only full words are stored. At most OVERRUN = 10 bits are taken too many, because entries of several exponents
// are inside one window and the first of them was still needed.
//
// # Destinations
//
// Stores are vectors of 16 bytes on the destination's own grid. If its first weight is `shift` weights after a border
// of the grid, so is the first weight of every tile (a tile is 13 * 512 bytes), and a vector holds the last `shift`
// weights of one eight and the first of the next: two shuffles bring the neighbour's signs, and funnel shifts join. At
// both ends of a range or a tile up to seven weights remain, which are stored one by one, all at once by 16 lanes.
//
// # Trust
//
// The job comes from the host and is trusted. The image was written by the host too, but it has been stored and sent
// since; so whatever its bytes are, nothing outside image and destination is accessed, every loop ends, and
// contradictions are reported. The cost of each guard is in brackets, in PTX instructions a weight of all 12.4 (the
// largest group of tests/data/golden/block; removed one by one):
//
// - `starts` are clamped to the code section, and a tile to the widest that 32-bit codes can make (0.07);
// - a lane whose start is not inside its tile's code decodes nothing (0.09);
// - entries are tamed while they are copied: they take 1 to 32 bits, give 0 to 4 exponents, and jump inside the table,
//   which is filled up to a power of two (0.04). A look-up in shared memory therefore needs no check of its own;
// - every four look-ups a lane checks whether the next four could read beyond its tile's code (0.04). Because each
//   takes at least one bit, this also ends a walk in circles through a manipulated table;
// - a lane that stops early fills its stage with zeros: no other memory is disclosed;
// - the end of each lane is compared with the next one's start (0.41, most of it for loading that). This protects no
//   memory, only correctness: a bit that has changed in code or index is noticed unless the codes happen to
//   synchronise.
//
// All of them together: 0.63 of 12.4. Valid images never trigger them: a tile may read three units beyond the first one
// of the next tile, the code section has four units of zeros at its end, and a lane needs two words of look-ahead
// after the at most 96 bits that it may decode of the zeros, because a group's last word may need three exponents that
// do not exist.
//
// # Wide tiles
//
// Where codes are long (random exponents take 8 bits a weight, and 32 are possible) a tile does not fit its place in
// shared memory, and its lanes read the image word by word: three to nine times the instructions, but correct. There,
// too, lanes' starts may pass 65,536 bits, of which the index holds 16: each decrease from one lane to the next is one
// more (lanes are at most 3,328 bits apart).
#pragma once
#include "platform.cuh"

namespace df11 {

enum : u32 {
  LANE = DF11_LANE_WEIGHTS,
  TILE = 32 * LANE,
  EIGHTS = LANE / 8,                                     // vectors that a lane stores
  ENTRY_BYTES = 8,
  PLACE = DF11_WINDOW_BITS + 3,                          // bits of an entry's address in the main table
  MASK = (1u << PLACE) - ENTRY_BYTES,
  STAGED_CODE = 16 * DF11_CODE_UNITS,                    // bytes
  WIDEST = LANE * 32 * 32 / 128 + 1 + DF11_AHEAD_UNITS,  // units that a tile of a valid image can need
  UNROLL = 4,                                            // look-ups between two checks whether code is left
  OVERRUN = DF11_WINDOW_BITS - 1,                        // excess bits that the last look-up of a lane may take
  FULL = 0xffffffffu,
};
static_assert(EIGHTS % 2 == 1, "lanes side by side would store into the same banks of shared memory");
static_assert(DF11_CODE_UNITS <= 96, "three loads a lane must do");
static_assert(DF11_TABLE_SMALL == 1 << PLACE && DF11_TABLE_LARGE == 2 << PLACE, "jumps are tamed by a mask");

// Returns the bytes of shared memory for a warp: its code, and exponents of a byte or of a nibble each.
template <bool NIBBLES> DF11_INLINE constexpr u32 warp_shared() { return STAGED_CODE + (NIBBLES ? TILE / 2 : TILE); }

// Returns the bytes of shared memory for a table.
DF11_INLINE u32 table_shared(u32 table_bytes) {
  return table_bytes <= DF11_TABLE_SMALL ? DF11_TABLE_SMALL : DF11_TABLE_LARGE;
}

// Converts an entry to its form in shared memory. `within` is the highest address that it may jump to.
DF11_INLINE uint2 tame(uint2 entry, u32 within) {
  u32 length = entry.y & 63, bits = entry.y >> 8 & 0x38;
  if (length == 0) length = 1;
  if (length > 32) length = 32;
  if (bits > 32) bits = 32;
  return bits != 0 ? make_uint2(entry.x, bits << 8 | length) : make_uint2(0, (entry.x & within) << 16 | length);
}

// Copies the table with the whole block; a barrier must follow. Four loads of a thread are under way at once. Entries
// that the image does not have advance by one bit.
DF11_INLINE void copy_table(u64 table, u32 table_bytes, u32 to) {
  const uint4* from = (const uint4*)table;
  u32 size = table_shared(table_bytes), within = size - ENTRY_BYTES, given = table_bytes / 16;
  for (u32 i = threadIdx.x; i < given; i += 4 * blockDim.x) {
    uint4 two[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++)
      if (i + k * blockDim.x < given) two[k] = from[i + k * blockDim.x];
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
      u32 at = i + k * blockDim.x;
      if (at >= given) break;
      uint2 a = tame(make_uint2(two[k].x, two[k].y), within), b = tame(make_uint2(two[k].z, two[k].w), within);
      store_shared4(to + at * 16, make_uint4(a.x, a.y, b.x, b.y));
    }
  }
  for (u32 i = given + threadIdx.x; i < size / 16; i += blockDim.x) store_shared4(to + i * 16, make_uint4(0, 1, 0, 1));
}

// The source of a lane's code words: shared memory, or, in a tile too wide for that, the image itself.
struct Staged {
  DF11_INLINE u32 word(u32 at) const { return load_shared(at); }
  DF11_INLINE void refill(u32 sh, u32 shifted, u32& hi, u32& lo, u32& next) const {
    refill_shared(sh, shifted, hi, lo, next);
  }
};
struct Direct {
  const u8* from;
  DF11_INLINE u32 word(u32 at) const { return swap_bytes(*(const u32*)(from + at)); }
  DF11_INLINE void refill(u32 sh, u32 shifted, u32& hi, u32& lo, u32& next) const {
    if ((sh ^ shifted) & 32) { hi = lo; lo = word(next); next += 4; }
  }
};

// Decodes one lane: from bit `start` after `base`, where `words` words may be read, into the stage from `out` to `end`.
// Returns the bit after the last code taken, or FULL where the words ran out; the rest of the stage is then zero.
template <class Source>
DF11_INLINE u32 decode_lane(const Source& source, u32 table, u32 base, u32 words, u32 start, u32 out, u32 end) {
  u32 next = base + (start >> 5) * 4, sh = 64 - PLACE - (start & 31);
  if ((start >> 5) + 2 + UNROLL <= words) {
    u32 last = base + (words - UNROLL) * 4, hi = 0, lo = source.word(next), q = 0, acc = 0, jump = 0;
    next += 4;
    if (sh < 32) { hi = lo; lo = source.word(next); next += 4; }
    do {
#pragma unroll
      for (u32 k = 0; k < UNROLL; k++) {
        uint2 e = load_table(masked_xor<MASK>(__funnelshift_r(lo, hi, sh), jump) + table);
        u32 bits = pick_bytes<0x4441>(e.y), shifted = sh - e.y, filled = q + bits, word = __funnelshift_r(e.x, acc, q);
        jump = e.y >> 16;
        acc = __funnelshift_lc(e.x, acc, bits);
        source.refill(sh, shifted, hi, lo, next);
        if ((q ^ filled) & 32) { store_shared(out, word); out += 4; }
        sh = shifted;
        q = filled;
        if (out >= end) break;
      }
    } while (out < end && next <= last);
  }
  if (out >= end) return (next - base) * 8 - PLACE - (sh & 31);
  do { store_shared(out, 0); out += 4; } while (out < end);
  return FULL;
}

}  // namespace df11
#include "nibbles.cuh"
namespace df11 {

// The bit at which a lane must stop: modulo 65,536, or FULL if it is unknown.
struct Fit {
  u32 bit;
  // Returns whether a lane stopped there, or within the excess of its last look-up.
  DF11_INLINE bool is(u32 stop, u32 overrun) const { return stop != FULL && (bit == FULL || ((stop - bit) & 0xffff) <= overrun); }
};

// Returns how many weights of a tile a lane decodes.
DF11_INLINE u32 lane_weights(const df11_job& job, u32 tile, u32 lane) {
  if (tile + 1 < job.tiles) return LANE;
  u32 all = job.last_weights, before = lane * LANE;
  return before >= all ? 0 : all - before < LANE ? all - before : (u32)LANE;
}

// The data of a tile that a lane needs before it decodes: loaded one tile ahead, to hide the latency of memory. Where
// its code is must be known by then, so that is loaded two tiles ahead.
struct Ahead {
  u32 from, to;            // of the tile to load next, the units at which the index starts it and its successor
  u32 unit;                // the start of the tile's code, in units
  u32 units;               // the number of units that it may read
  u32 lane_bit, next_bit;  // the index's entries of this lane and the next, FULL if there is none
  uint4 v0, v1, v2;        // this lane's share of the code, if it is to be staged

  // Loads where the code of a tile is.
  DF11_INLINE void find(const df11_job& job, u32 tile) {
    const u32* starts = (const u32*)job.starts + tile;
    from = starts[0];
    to = starts[1];
  }
  // Finds the part of the code section that the tile's lanes may read.
  DF11_INLINE void limit(const df11_job& job) {
    u32 last = job.code_units - DF11_AHEAD_UNITS, end = (to < last ? to : last) + DF11_AHEAD_UNITS;
    unit = from < end ? from : end;
    units = end - unit < WIDEST ? end - unit : (u32)WIDEST;
  }
  // Loads the tile that was found last, and finds the one `stride` tiles after it, unless they are none of the job's.
  DF11_INLINE void load(const df11_job& job, u32 tile, u32 stride, u32 lane) {
    if (tile >= job.end_tile) return;
    const u16* lanes = (const u16*)job.lanes + ((u64)tile * 32 + lane);
    limit(job);
    lane_bit = lanes[0];
    next_bit = FULL;
    if (tile + 1 < job.tiles || (lane + 1) * LANE < job.last_weights) next_bit = lanes[1];
    if (units <= DF11_CODE_UNITS) {
      const uint4* p = (const uint4*)job.code + ((u64)unit + lane);
      if (lane < units) v0 = p[0];
      if (lane + 32 < units) v1 = p[32];
      if (lane + 64 < units) v2 = p[64];
    }
    if (tile + stride < job.end_tile) find(job, tile + stride);
  }
  // Returns the lane's first bit after the tile's first unit; in a wide tile modulo 65,536.
  DF11_INLINE u32 start() const { return (lane_bit - unit * 128) & 0xffff; }
  DF11_INLINE Fit fit() const { return Fit{next_bit == FULL ? FULL : (next_bit - unit * 128) & 0xffff}; }
  DF11_INLINE void stage(u32 code, u32 lane) const {
    if (lane < units) store_shared4(code + lane * 16, swap_bytes(v0));
    if (lane + 32 < units) store_shared4(code + lane * 16 + 512, swap_bytes(v1));
    if (lane + 64 < units) store_shared4(code + lane * 16 + 1024, swap_bytes(v2));
  }
};

// Decodes a lane of a tile whose code does not fit its place in shared memory. Returns false if the image contradicts
// itself.
template <bool NIBBLES>
DF11_INLINE bool decode_wide(const df11_job& job, const Ahead& t, u32 lane, u32 table, u32 out, u32 end, u32& rare) {
  u32 start = t.start(), before = __shfl_up_sync(FULL, start, 1);
  u32 wraps = __ballot_sync(FULL, lane > 0 && start < before);
  start += 65536 * __popc(wraps & (FULL >> (31 - lane)));
  if (out == end) return true;
  Direct source{(const u8*)job.code + (u64)t.unit * 16};
  if (NIBBLES)
    return t.fit().is(decode_nibbles(job, source, table, 0, t.units * 4, start, out, end, rare), NIBBLE_OVERRUN);
  return t.fit().is(decode_lane(source, table, 0, t.units * 4, start, out, end), OVERRUN);
}

// Joins eight weights: four words of two bf16 each, from eight staged exponents and eight bytes of sign and mantissa.
DF11_INLINE uint4 join8(uint2 exponents, uint2 signs) {
  const u32 m = 0x807f807f;
  u32 a = pick_bytes<0x0213>(exponents.x), b = pick_bytes<0x0213>(exponents.y);
  return make_uint4(choose(m, pick_bytes<0x1100>(signs.x), a << 7), choose(m, pick_bytes<0x3322>(signs.x), a >> 1),
                    choose(m, pick_bytes<0x1100>(signs.y), b << 7), choose(m, pick_bytes<0x3322>(signs.y), b >> 1));
}

// Loads signs and mantissas of the eights that a lane will store: 256 bytes a warp at a time.
template <int I> DF11_INLINE void load_signs(u64 from, uint2 (&s)[EIGHTS]) {
  if constexpr (I < EIGHTS) {
    s[I] = load_global2<I * 256>(from);
    load_signs<I + 1>(from, s);
  }
}

// Selects the eight that begin `shift` (1 to 7) places before `here`. `before` are the eight before `here`.
struct Slide {
  bool far;      // more than a word of `before` is needed
  u32 bits, shift;
  DF11_INLINE explicit Slide(u32 shift) : far(shift > 4), bits((0 - shift & 3) * 8), shift(shift) {}
  DF11_INLINE uint2 exponents(uint2 before, uint2 here) const {
    u32 a = far ? before.x : before.y, b = far ? before.y : here.x, c = far ? here.x : here.y;
    return make_uint2(__funnelshift_l(b, a, bits), __funnelshift_l(c, b, bits));
  }
  DF11_INLINE uint2 signs(uint2 before, uint2 here) const {
    u32 a = far ? before.x : before.y, b = far ? before.y : here.x, c = far ? here.x : here.y;
    return make_uint2(__funnelshift_r(a, b, bits), __funnelshift_r(b, c, bits));
  }
};

// Staged exponents: a byte each.
struct Bytes {
  typedef uint2 Eight;
  DF11_INLINE explicit Bytes(const df11_job&) {}
  static DF11_INLINE Eight staged(u32 stage, u32 eight) { return load_shared2(stage + eight * 8); }
  static DF11_INLINE Eight slide(const Slide& slide, Eight before, Eight here) { return slide.exponents(before, here); }
  DF11_INLINE uint4 join(Eight e, uint2 signs) const { return join8(e, signs); }
  DF11_INLINE u32 one(u32 stage, u32 k) const { return load_shared(stage + (k & ~3u)) >> (24 - (k & 3) * 8) & 255; }
};
struct Nibbles {
  typedef u32 Eight;
  u32 bases;
  DF11_INLINE explicit Nibbles(const df11_job& job) : bases(nibble_base(job) * 0x01010101u) {}
  static DF11_INLINE Eight staged(u32 stage, u32 eight) { return load_shared(stage + eight * 4); }
  static DF11_INLINE Eight slide(const Slide& slide, Eight before, Eight here) {
    return __funnelshift_r(here, before, slide.shift * 4);
  }
  DF11_INLINE uint4 join(Eight e, uint2 signs) const { return join_nibbles(e, signs, bases); }
  DF11_INLINE u32 one(u32 stage, u32 k) const {
    return (load_shared(stage + (k >> 3) * 4) >> (28 - (k & 7) * 4) & 15) + (bases & 255);
  }
};

template <bool NIBBLES> struct Either { typedef Bytes Form; };
template <> struct Either<true> { typedef Nibbles Form; };

// Stores a decoded tile, or a part of it. `shift` weights are between a border of the destination's 16-byte grid and
// the tile's first weight, so the vectors of the grid begin at weights 8 c - shift.
template <class Form> struct Store {
  Form form;
  u32 stage, lane, shift;
  u64 signs;               // of the tile's first weight
  u64 to;                  // where that goes, even if it is not stored

  DF11_INLINE Store(const df11_job& job, u32 tile, u32 lane, u32 stage)
      : form(job), stage(stage), lane(lane), shift((u32)(job.dst / 2 - job.first) & 7),
        signs(job.signs + (u64)tile * TILE), to(job.dst - job.first * 2 + (u64)tile * (TILE * 2)) {}

  DF11_INLINE typename Form::Eight staged(u32 eight) const { return Form::staged(stage, eight); }

  // Stores all of it, on the grid: nearly every tile.
  DF11_INLINE void whole(const uint2 (&s)[EIGHTS]) const { each<0>(s); }
  template <int I> DF11_INLINE void each(const uint2 (&s)[EIGHTS]) const {
    if constexpr (I < EIGHTS) {
      store_global4<I * 512>(to + lane * 16, form.join(staged(I * 32 + lane), s[I]));
      each<I + 1>(s);
    }
  }

  // Stores all of it, off the grid. The eight before lane 0's are those of lane 31 one step earlier.
  DF11_INLINE void shifted(const uint2 (&s)[EIGHTS]) const {
    Slide slide(shift);
    uint2 last = make_uint2(0, 0);
#pragma unroll
    for (u32 i = 0; i < EIGHTS; i++) {
      uint2 give = lane == 31 ? last : s[i], before;
      before.x = __shfl_sync(FULL, give.x, lane + 31);
      before.y = __shfl_sync(FULL, give.y, lane + 31);
      last = s[i];
      u32 c = i * 32 + lane;
      if (c == 0) continue;
      typename Form::Eight e = Form::slide(slide, staged(c - 1), staged(c));
      store_global4<0>(to + c * 16 - shift * 2, form.join(e, slide.signs(before, s[i])));
    }
  }

  // Stores the whole vectors of weights a to b - 1.
  DF11_INLINE void part(u32 a, u32 b) const {
    Slide slide(shift);
    for (u32 c = (a + shift + 7) / 8 + lane; c < (b + shift) / 8; c += 32) {
      typename Form::Eight e = staged(c);
      uint2 s = load_global2<0>(signs + c * 8);
      if (shift != 0) {
        e = Form::slide(slide, staged(c - 1), e);
        s = slide.signs(load_global2<-8>(signs + c * 8), s);
      }
      store_global4<0>(to + c * 16 - shift * 2, form.join(e, s));
    }
  }

  // Stores the weights of a to b - 1 that are in no whole vector: at most seven at either side.
  DF11_INLINE void edges(u32 a, u32 b) const {
    u32 first = (a + shift + 7) / 8, end = (b + shift) / 8, k = b;
    if (lane < 8) { if (a + lane + shift < first * 8) k = a + lane; }
    else if (lane < 16 && end >= first) k = end * 8 - shift + lane - 8;
    if (k < b) {
      u32 e = form.one(stage, k), s = ((const u8*)signs)[k];
      store_global_half(to + k * 2, (s & 0x80) << 8 | e << 7 | (s & 0x7f));
    }
  }
};

// Returns the first weight of a tile that the job decodes, and the one after the last.
DF11_INLINE u32 first_of(const df11_job& job, u32 tile) {
  u64 at = (u64)tile * TILE;
  return job.first > at ? (u32)(job.first - at) : 0;
}
DF11_INLINE u32 end_of(const df11_job& job, u32 tile) {
  u64 left = job.first + job.count - (u64)tile * TILE;
  return left < TILE ? (u32)left : (u32)TILE;
}

// Stores a weight of a tile whose exponent is none of the sixteen.
DF11_INLINE void store_one(const df11_job& job, u32 tile, u32 k, u32 e) {
  if (k < first_of(job, tile) || k >= end_of(job, tile)) return;
  u64 weight = (u64)tile * TILE + k;
  u32 s = *(const u8*)(job.signs + weight);
  store_global_half(job.dst + (weight - job.first) * 2, (s & 0x80) << 8 | e << 7 | (s & 0x7f));
}

// Stores the weights of a lane that no nibble holds. If there are several, the lane is decoded once more, code by code.
DF11_INLINE void store_rare(const df11_job& job, u32 table, u32 tile, u32 lane, u32 rare) {
  u32 w = lane * LANE;
  if (!(rare & RARE_MORE))
    return store_one(job, tile, w + (lane_weights(job, tile, lane) + 7 & ~7u) - (rare >> 8 & 255), rare & 255);
  Ahead t;
  t.find(job, tile);
  t.limit(job);
  const u16* lanes = (const u16*)job.lanes + (u64)tile * 32;
  u32 bit = 0, before = t.unit * 128;
  for (u32 l = 0; l <= lane; l++) {
    bit += lanes[l] - before & 0xffff;
    before = lanes[l];
  }
  Direct source{(const u8*)job.code + (u64)t.unit * 16};
  for (u32 end = w + LANE; w < end && (bit >> 5) + 2 <= t.units * 4;) {
    u32 at = (bit >> 5) * 4, v = __funnelshift_l(source.word(at + 4), source.word(at), bit);
    u32 e = load_nibbles((v >> NIBBLE_SHIFT) * 4 + table);
    if ((e & 0xffff) != 0) {
      w += e >> 10 & 7;
      bit += e & 63;
      continue;
    }
    e = rare_entry(job, table, e, v);
    if ((e >> 24) - nibble_base(job) > 15) store_one(job, tile, w, e >> 24);
    w++;
    bit += e >> 16 & 63;
  }
}

// Does the work of one block of a job. Warps share only the table; each takes one tile after the other.
template <bool NIBBLES>
DF11_INLINE void decode_tiles(const df11_job& job, u32 block) {
  enum : u32 { PER_WORD = NIBBLES ? 8 : 4, LANE_STAGE = LANE / PER_WORD * 4 };
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  u32 table = shared_start();
  u32 code = table + (NIBBLES ? (u32)DF11_TABLE_NIBBLES : table_shared(job.table_bytes)) + warp * warp_shared<NIBBLES>();
  forget(code);
  u32 stage = code + STAGED_CODE;
  bool waits = (job.flags & DF11_JOB_EARLY) != 0;
  if (waits) let_next_start();

  // Tiles are counted in 32 bits: a group has at most 2^32 weights. Weights and bytes are counted in 64.
  // Dealt to blocks before warps: however many tiles are left for a last round, all blocks get about the same number.
  u32 tile = (u32)(job.first / TILE) + warp * job.blocks + block, stride = job.blocks * warps;
  Ahead t;
  // Before the barrier, so that memory is waited for only twice: where the code is, then code and table together.
  u32 state = block == 0 && threadIdx.x == 0 ? *(const u32*)job.state : 0;
  if (tile < job.end_tile) t.find(job, tile);
  t.load(job, tile, stride, lane);
  if (NIBBLES) copy_nibbles(job, table);
  else copy_table(job.table, job.table_bytes, table);
  DF11_SYNC_BLOCK(1);
  bool bad = state != 0;
  for (; tile < job.end_tile; tile += stride) {
    bool whole = tile >= job.whole_tile && tile < job.whole_end;
    uint2 s[EIGHTS];
    u32 rare = 0;
    if (whole) load_signs<0>(job.signs + (u64)tile * TILE + lane * 8, s);
    if (t.units <= DF11_CODE_UNITS) {
      t.stage(code, lane);
      u32 words = t.units * 4, start = t.start();
      Fit fit = t.fit();
      t.load(job, tile + stride, stride, lane);
      u32 mine = lane_weights(job, tile, lane), out = stage + lane * LANE_STAGE;
      u32 end = out + (mine + (PER_WORD - 1)) / PER_WORD * 4;
      DF11_SYNC_WARP(2);
      if (!NIBBLES && (mine + 3 & 4)) store_shared(end, 0);  // the other half of a last eight
      if (mine != 0) {
        bool good;
        if (NIBBLES) good = fit.is(decode_nibbles(job, Staged{}, table, code, words, start, out, end, rare), NIBBLE_OVERRUN);
        else good = fit.is(decode_lane(Staged{}, table, code, words, start, out, end), OVERRUN);
        if (!good) bad = true;
      }
    } else {
      u32 mine = lane_weights(job, tile, lane), out = stage + lane * LANE_STAGE;
      u32 end = out + (mine + (PER_WORD - 1)) / PER_WORD * 4;
      DF11_SYNC_WARP(3);
      if (!NIBBLES && (mine + 3 & 4)) store_shared(end, 0);
      if (!decode_wide<NIBBLES>(job, t, lane, table, out, end, rare)) bad = true;
      t.load(job, tile + stride, stride, lane);
    }
    DF11_SYNC_WARP(4);

    if (waits) wait_for_previous();
    waits = false;
    // So that values computed from these are recomputed, not kept in registers while decoding.
    forget(tile);
    if (NIBBLES) forget(code);
    Store<typename Either<NIBBLES>::Form> store(job, tile, lane, code + STAGED_CODE);
    if (whole && store.shift == 0) {
      store.whole(s);
    } else {
      u32 a = first_of(job, tile), b = end_of(job, tile);
      store.edges(a, b);
      if (whole) store.shifted(s);
      else store.part(a, b);
    }
    if (NIBBLES) {
      DF11_SYNC_WARP(11);
      if (rare != 0) {
        forget(tile);
        store_rare(job, table, tile, lane, rare);
      }
    }
  }
  // Also without a tile: when this kernel has ended, so has the one before it.
  if (waits) wait_for_previous();
  if (bad && job.status != 0) atomicMax((u32*)job.status, (u32)DF11_CORRUPT);
}

// Does the work of one block by the entries that the job asks for. Kernels for devices before 10.0 have one kind: see
// nibbles.cuh.
DF11_INLINE void decode_job(const df11_job& job, u32 block) {
#if DF11_HAS_NIBBLES
  if (job.flags & DF11_JOB_NIBBLES) return decode_tiles<true>(job, block);
#endif
  decode_tiles<false>(job, block);
}

}  // namespace df11
