// Decoding by entries of four bytes: for devices of 10.0 and later, whose memory is faster than their shared memory, and
// images that have a table of nibbles, as nearly all have. decode.cuh describes everything else.
//
// # Nibbles
//
// An exponent is staged as its offset from the job's base, four bits, eight to a word. So an entry has four bytes, and
// what is stored, staged and loaded again is half as much. Random look-ups of four bytes have fewer conflicts, too.
//
//     in the image and in shared memory    [31:16] four nibbles, the first on top    [12:8] 4 count    [4:0] bits taken
//       rare                               [31:24] exponent    [21:16] bits taken    [15:0] 0
//       long code                          [31:22] number of a table    [21:0] 0
//
// # Two look-ups at once
//
// No entry takes more than the 12 bits of its window, so 32 bits of the stream have two of them, and their nibbles fit a
// word. All that is done once for a look-up in decode.cuh is done here once for two, and no window needs a mask:
//
//     f    = (hi:lo) << s                    32 bits of the stream
//     e1   = table[f >> 20];  e2 = table[(f << e1) >> 20]
//     j    = the nibbles of e1, then those of e2
//     word = (acc:j) >> q;  acc = (acc:j) << both.bits
//     s   += both;  q += both.bits           both = e1 + e2: counts and bits are added where they are
//     bit 5 of s has changed:  hi = lo, lo = *next++
//     bit 5 of q has changed:  *out++ = word
//
// # What is rare
//
// Codes that are longer than the window, and exponents that are none of the sixteen, have entries that give nothing and
// take nothing. A lane stays where it is, until it looks, every two pairs, whether its last entry was one. Then it
// takes one code by the rare entry, from the main table or from those after it. If no nibble holds the exponent, it puts
// any into the stage, and remembers exponent and place. When the tile was stored, it stores that weight once more.
// A lane with several of these finds them by decoding its codes again, one by one.
//
// An image has a table of nibbles only if few codes are rare (src/cuda/image/nibbles.rs): one or two of a layer's tile.
//
// # Trust
//
// Entries are tamed: what is not rare takes 1 to 12 bits and gives one to four nibbles; rare entries take 1 to 32 bits, or
// name one of the tables. A walk through these ends when the 32 bits of a code are used up. Every two pairs, and with
// them one rare code, are at most three words, so a lane checks for three. Its last look-up may take up to
// NIBBLE_OVERRUN = 11 bits more than it needs, where decode.cuh allows 10.
#pragma once
#include "platform.cuh"

namespace df11 {

enum : u32 {
  NIBBLE_MAIN = 4 << DF11_NIBBLE_WINDOW_BITS,            // bytes of the main table
  NIBBLE_SHIFT = 32 - DF11_NIBBLE_WINDOW_BITS,
  PAIRS = 2,                                             // of look-ups between two checks
  NIBBLE_OVERRUN = DF11_NIBBLE_WINDOW_BITS - 1,          // excess bits of a lane's last look-up that it needed
  RARE_ONE = 1u << 24,
  RARE_MORE = 1u << 25,
};
static_assert(2 * DF11_NIBBLE_WINDOW_BITS <= 32, "both windows of a pair are in one word");

// What a job's flags say of the table.
DF11_INLINE u32 nibble_base(const df11_job& job) { return job.flags >> 9 & 255; }
DF11_INLINE u32 nibble_second_bits(const df11_job& job) { return job.flags >> 17 & 7; }
DF11_INLINE u32 nibble_tables(const df11_job& job) { return job.flags >> 20; }

// Converts an entry to its form in shared memory: it takes 1 to 12 bits and gives at most four exponents; or it is rare,
// and takes 1 to 32 bits, or names one of `tables` tables.
DF11_INLINE u32 tame_nibbles(u32 entry, u32 tables) {
  u32 length = entry & 63, bits = entry >> 8 & 0x1c, rare = entry >> 16 & 63;
  if (bits == 0) {
    if (rare == 0 && entry >> 22 >= tables) return 1u << 16;
    return rare > 32 ? (entry & 0xff000000) | 32u << 16 : entry & 0xffff0000;
  }
  if (length == 0) length = 1;
  if (length > DF11_NIBBLE_WINDOW_BITS) length = DF11_NIBBLE_WINDOW_BITS;
  if (bits > 16) bits = 16;
  return (entry & 0xffff0000) | bits << 8 | length;
}

// Copies the table with the whole block; a barrier must follow. Four loads of a thread are under way at once.
DF11_INLINE void copy_nibbles(const df11_job& job, u32 to) {
  const uint4* from = (const uint4*)(job.table + (job.table_bytes + 255 & ~255u));
  u32 tables = nibble_tables(job), given = (NIBBLE_MAIN + (tables << (nibble_second_bits(job) + 2))) / 16;
  for (u32 i = threadIdx.x; i < given; i += 4 * blockDim.x) {
    uint4 four[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++)
      if (i + k * blockDim.x < given) four[k] = from[i + k * blockDim.x];
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
      u32 at = i + k * blockDim.x;
      if (at >= given) break;
      uint4 v = four[k];
      store_shared4(to + at * 16, make_uint4(tame_nibbles(v.x, tables), tame_nibbles(v.y, tables),
                                             tame_nibbles(v.z, tables), tame_nibbles(v.w, tables)));
    }
  }
}

// Returns the rare entry of the code that `v` begins with, given the main table's entry for it.
DF11_INLINE u32 rare_entry(const df11_job& job, u32 table, u32 e, u32 v) {
  u32 bits = nibble_second_bits(job);
  // The bit after the code's last one ends the walk in any table.
  v = v << DF11_NIBBLE_WINDOW_BITS | 1u << (DF11_NIBBLE_WINDOW_BITS - 1);
  while ((e >> 16 & 63) == 0 && v != 0) {
    e = load_nibbles(table + NIBBLE_MAIN + ((e >> 22 << bits) + (v >> (32 - bits))) * 4);
    v <<= bits;
  }
  return (e >> 16 & 63) == 0 ? e | 1u << 16 : e;
}

// Decodes one lane, as decode_lane() does, into eight nibbles a word. `rare` is 0 before; after it, RARE_ONE if one
// exponent is none of the sixteen: bits 8 to 15 then are how many weights before `end` it is, and bits 0 to 7 what it is.
// RARE_MORE if there are several.
template <class Source>
DF11_INLINE u32 decode_nibbles(const df11_job& job, const Source& source, u32 table, u32 base, u32 words, u32 start,
                               u32 out, u32 end, u32& rare) {
  u32 next = base + (start >> 5) * 4, s = start & 31;
  if ((start >> 5) + 3 + PAIRS <= words) {
    u32 last = base + (words - PAIRS - 1) * 4, hi = source.word(next), lo = source.word(next + 4), q = 0, acc = 0, e2;
    next += 8;
    do {
#pragma unroll
      for (u32 k = 0; k < PAIRS; k++) {
        u32 f = __funnelshift_l(lo, hi, s), e1 = load_nibbles((f >> NIBBLE_SHIFT) * 4 + table);
        e2 = load_nibbles((__funnelshift_l(0, f, e1) >> NIBBLE_SHIFT) * 4 + table);
        u32 both = e1 + e2, bits = pick_bytes<0x4441>(both);
        u32 joined = (e1 & 0xffff0000) | __funnelshift_r(e2, 0, pick_bytes<0x4441>(e1));
        u32 after = s + both, filled = q + bits, word = __funnelshift_r(joined, acc, q);
        acc = __funnelshift_lc(joined, acc, bits);
        source.refill(s, after, hi, lo, next);
        if ((q ^ filled) & 32) { store_shared(out, word); out += 4; }
        s = after;
        q = filled;
        if (out >= end) break;
      }
      if ((e2 & 0xffff) == 0 && out < end) {
        e2 = rare_entry(job, table, e2, __funnelshift_l(lo, hi, s));
        u32 nibble = (e2 >> 24) - nibble_base(job);
        if (nibble > 15) {
          rare = rare != 0 ? (u32)RARE_MORE : RARE_ONE | ((end - out) * 2 - (q >> 2 & 7)) << 8 | e2 >> 24;
          nibble = 0;
        }
        u32 after = s + (e2 >> 16 & 63), filled = q + 4, word = __funnelshift_r(nibble << 28, acc, q);
        acc = acc << 4 | nibble;
        source.refill(s, after, hi, lo, next);
        if ((q ^ filled) & 32) { store_shared(out, word); out += 4; }
        s = after;
        q = filled;
      }
    } while (out < end && next <= last);
    if (out >= end) {
      // The second look-up of a pair may have been one too many.
      u32 stop = (next - base) * 8 - 64 + (s & 31);
      return (q & 31) >= pick_bytes<0x4441>(e2) ? stop - (e2 & 31) : stop;
    }
  }
  for (; out < end; out += 4) store_shared(out, 0);
  return FULL;
}

// Splits eight nibbles, the first on top, into the exponents of two words: a's bytes 0 and 2 are the first two.
DF11_INLINE uint2 spread(u32 w, u32 bases) {
  u32 even = (w >> 4) & 0x0f0f0f0f, odd = w & 0x0f0f0f0f;
  u32 a, b;
#ifdef DF11_SIMT
  a = __byte_perm(odd, even, 0x2367); b = __byte_perm(odd, even, 0x0145);
#else
  asm("prmt.b32 %0, %1, %2, 0x2367;" : "=r"(a) : "r"(odd), "r"(even));
  asm("prmt.b32 %0, %1, %2, 0x0145;" : "=r"(b) : "r"(odd), "r"(even));
#endif
  return make_uint2(a + bases, b + bases);
}

DF11_INLINE uint4 join_nibbles(u32 w, uint2 signs, u32 bases) {
  const u32 m = 0x807f807f;
  uint2 e = spread(w, bases);
  return make_uint4(choose(m, pick_bytes<0x1100>(signs.x), e.x * 128), choose(m, pick_bytes<0x3322>(signs.x), e.x >> 1),
                    choose(m, pick_bytes<0x1100>(signs.y), e.y * 128), choose(m, pick_bytes<0x3322>(signs.y), e.y >> 1));
}

}  // namespace df11
