// The few things that a GPU and the host shim (tests/simt) do differently: shared memory by 32-bit address, and barriers
// with numbers. Nothing here knows the format.
#pragma once
#include "job.h"

#define DF11_INLINE __device__ __forceinline__

// A test leaves out one barrier at a time, by its number, and must notice: none of them is there for luck.
#ifndef DF11_WITHOUT_BARRIER
#define DF11_WITHOUT_BARRIER 0
#endif
#define DF11_SYNC_WARP(number) do { if ((number) != DF11_WITHOUT_BARRIER) __syncwarp(); } while (0)
#define DF11_SYNC_BLOCK(number) do { if ((number) != DF11_WITHOUT_BARRIER) __syncthreads(); } while (0)

// Shared memory is addressed by 32-bit numbers: a pointer costs one or two more instructions an access. The table's loads
// are not volatile, since it never changes after its barrier; the compiler may move them.
#ifdef DF11_SIMT
template <class T> inline T& shared_at(u32 address) { return *(T*)(simt_shared() + address); }
DF11_INLINE u32 shared_start() { return 0; }
DF11_INLINE u32 load_shared(u32 at) { return shared_at<u32>(at); }
DF11_INLINE uint2 load_shared2(u32 at) { return shared_at<uint2>(at); }
DF11_INLINE uint2 load_table(u32 at) { return shared_at<uint2>(at); }
DF11_INLINE void store_shared(u32 at, u32 value) { shared_at<u32>(at) = value; }
DF11_INLINE void store_shared4(u32 at, uint4 value) { shared_at<uint4>(at) = value; }
DF11_INLINE void raise_shared(u32 at, u32 value) { atomicMax(&shared_at<u32>(at), value); }
DF11_INLINE u32 masked_xor(u32 a, u32 mask, u32 c) { return (a & mask) ^ c; }
DF11_INLINE u32 choose(u32 mask, u32 a, u32 b) { return (a & mask) | (b & ~mask); }
#else
extern __shared__ uint4 df11_shared[];
DF11_INLINE u32 shared_start() { return (u32)__cvta_generic_to_shared(df11_shared); }
DF11_INLINE u32 load_shared(u32 at) {
  u32 v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at) : "memory");
  return v;
}
DF11_INLINE uint2 load_shared2(u32 at) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at) : "memory");
  return v;
}
DF11_INLINE uint2 load_table(u32 at) {
  uint2 v;
  asm("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
  return v;
}
DF11_INLINE void store_shared(u32 at, u32 v) { asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory"); }
DF11_INLINE void store_shared4(u32 at, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
DF11_INLINE void raise_shared(u32 at, u32 v) {
  asm volatile("red.shared.max.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}
// Three inputs in one LOP3, which the compiler does not always see.
DF11_INLINE u32 masked_xor(u32 a, u32 mask, u32 c) {
  u32 d;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(d) : "r"(a), "r"(mask), "r"(c));
  return d;
}
DF11_INLINE u32 choose(u32 mask, u32 a, u32 b) {
  u32 d;
  asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(d) : "r"(mask), "r"(a), "r"(b));
  return d;
}
#endif

// The stream's first bit is the top one, and its first byte therefore the highest of a word.
DF11_INLINE u32 swap_bytes(u32 x) { return __byte_perm(x, 0, 0x0123); }
DF11_INLINE uint4 swap_bytes(uint4 v) {
  return make_uint4(swap_bytes(v.x), swap_bytes(v.y), swap_bytes(v.z), swap_bytes(v.w));
}
