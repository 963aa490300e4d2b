// The differences between a GPU and the host shim (tests/simt): shared memory by 32-bit address, and barriers with
// numbers. Nothing here knows the format.
#pragma once
#include "job.h"

#define DF11_INLINE __device__ __forceinline__

// Every barrier has a number: a test on the shim leaves out one at a time and must fail, so each is necessary.
#ifdef DF11_SIMT
#define DF11_SYNC_WARP(number) simt::sync_warp(number)
#define DF11_SYNC_BLOCK(number) simt::sync_block(number)
#else
#define DF11_SYNC_WARP(number) __syncwarp()
#define DF11_SYNC_BLOCK(number) __syncthreads()
#endif

// Shared memory is addressed by 32-bit numbers: a pointer costs one or two more instructions an access. load_table() is
// not volatile, so the compiler may move it, even over a barrier: use it for addresses that depend on what was read
// after the barrier.
#ifdef DF11_SIMT
template <class T> inline T& shared_at(u32 address) { return *(T*)(simt_shared() + address); }
DF11_INLINE u32 shared_start() { return 0; }
DF11_INLINE u32 load_shared(u32 at) { return shared_at<u32>(at); }
DF11_INLINE uint2 load_shared2(u32 at) { return shared_at<uint2>(at); }
DF11_INLINE uint2 load_table(u32 at) { return shared_at<uint2>(at); }
DF11_INLINE void store_shared(u32 at, u32 value) { shared_at<u32>(at) = value; }
DF11_INLINE void store_shared4(u32 at, uint4 value) { shared_at<uint4>(at) = value; }
DF11_INLINE void raise_shared(u32 at, u32 value) { atomicMax(&shared_at<u32>(at), value); }
template <u32 MASK> DF11_INLINE u32 masked_xor(u32 a, u32 c) { return (a & MASK) ^ c; }
DF11_INLINE u32 choose(u32 mask, u32 a, u32 b) { return (a & mask) | (b & ~mask); }
template <u32 PICK> DF11_INLINE u32 pick_bytes(u32 a) { return __byte_perm(a, 0, PICK); }
DF11_INLINE void forget(u32&) {}
DF11_INLINE void refill_shared(u32 before, u32 after, u32& hi, u32& lo, u32& next) {
  if ((before ^ after) & 32) { hi = lo; lo = load_shared(next); next += 4; }
}
template <int OFFSET> DF11_INLINE u32 load_global1(u64 at) { return *(const u32*)(at + OFFSET); }
template <int OFFSET> DF11_INLINE uint2 load_global2(u64 at) { return *(const uint2*)(at + OFFSET); }
template <int OFFSET> DF11_INLINE void store_global4(u64 at, uint4 value) { *(uint4*)(at + OFFSET) = value; }
DF11_INLINE void store_global_half(u64 at, u32 value) { *(u16*)at = (u16)value; }
DF11_INLINE void let_next_start() {}
DF11_INLINE void wait_for_previous() {}
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
template <u32 MASK> DF11_INLINE u32 masked_xor(u32 a, u32 c) {
  u32 d;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(d) : "r"(a), "n"(MASK), "r"(c));
  return d;
}
DF11_INLINE u32 choose(u32 mask, u32 a, u32 b) {
  u32 d;
  asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(d) : "r"(mask), "r"(a), "r"(b));
  return d;
}
// Picks a byte of `a`, or of zero, for each digit; the constants need no registers.
template <u32 PICK> DF11_INLINE u32 pick_bytes(u32 a) {
  u32 d;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(d) : "r"(a), "n"(PICK));
  return d;
}
// Takes the next word if bit 5 has changed. Without this the compiler loads into one more register and copies.
DF11_INLINE void refill_shared(u32 before, u32 after, u32& hi, u32& lo, u32& next) {
  asm volatile(
      "{\n\t.reg .pred p;\n\t.reg .u32 t;\n\t"
      "xor.b32 t, %3, %4;\n\tand.b32 t, t, 32;\n\tsetp.ne.u32 p, t, 0;\n\t"
      "@p mov.u32 %0, %1;\n\t@p ld.shared.u32 %1, [%2];\n\t@p add.u32 %2, %2, 4;\n\t}"
      : "+r"(hi), "+r"(lo), "+r"(next) : "r"(before), "r"(after) : "memory");
}
// Hides from the compiler what a value was computed from.
DF11_INLINE void forget(u32& value) { asm volatile("" : "+r"(value)); }
// The compiler does not see that an address from a job is one of global memory. These loads stay where they are issued.
template <int OFFSET> DF11_INLINE u32 load_global1(u64 at) {
  u32 v;
  asm volatile("ld.global.u32 %0, [%1 + %2];" : "=r"(v) : "l"(at), "n"(OFFSET));
  return v;
}
template <int OFFSET> DF11_INLINE uint2 load_global2(u64 at) {
  uint2 v;
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2 + %3];" : "=r"(v.x), "=r"(v.y) : "l"(at), "n"(OFFSET));
  return v;
}
template <int OFFSET> DF11_INLINE void store_global4(u64 at, uint4 v) {
  asm volatile("st.global.v4.u32 [%0 + %5], {%1, %2, %3, %4};"
               ::"l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "n"(OFFSET) : "memory");
}
DF11_INLINE void store_global_half(u64 at, u32 v) {
  asm volatile("st.global.u16 [%0], %1;" ::"l"(at), "h"((u16)v) : "memory");
}
// Programmatic dependent launch: lets the stream's next kernel start, if it was launched so; and waits until the kernel
// before has ended and its writes are visible. Older devices have no such launch.
#if __CUDA_ARCH__ >= 900
DF11_INLINE void let_next_start() { asm volatile("griddepcontrol.launch_dependents;"); }
DF11_INLINE void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
DF11_INLINE void let_next_start() {}
DF11_INLINE void wait_for_previous() {}
#endif
#endif

// The stream's first bit is the top one, and its first byte therefore the highest of a word.
DF11_INLINE u32 swap_bytes(u32 x) { return pick_bytes<0x0123>(x); }
DF11_INLINE uint4 swap_bytes(uint4 v) {
  return make_uint4(swap_bytes(v.x), swap_bytes(v.y), swap_bytes(v.z), swap_bytes(v.w));
}
