// A GPU's threads on a CPU, for tests: kernels written for CUDA compile as C++ after this header, and every thread of
// a block is a fiber with its own stack. Barriers and warp-wide operations switch fibers; nothing runs at the same time,
// but ThreadSanitizer is told of each fiber, so that it reports accesses that no barrier orders. AddressSanitizer sees a block's
// shared memory as one allocation of exactly the size that the launch asked for.
//
// It has only what the kernels use. It shows nothing about speed, and memory is as ordered as a CPU's.
#pragma once
#include <cstdint>
#include <cstddef>
#include <functional>
#include <stdexcept>

struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace simt {

// The error of a call that is undefined on a GPU: barriers that not all threads reach, masks that do not fit.
struct Misuse : std::runtime_error { using std::runtime_error::runtime_error; };

// The order in which the threads of a block run.
enum class Order { Ascending, Descending, Random };

struct Launch {
  unsigned blocks, threads;
  size_t shared;               // bytes of dynamic shared memory
  Order order = Order::Ascending;
  uint64_t seed = 1;
};

// Runs the kernel once for every thread. Throws Misuse.
void run(const Launch& launch, const std::function<void()>& kernel);

struct Index { unsigned x; };
Index thread_index();
Index block_index();
Index block_size();
Index grid_size();
unsigned char* shared();

// Barriers, identified by a number that the kernels give them. One of them may be left out, to test that this is noticed.
extern int barrier_left_out;
void sync_block(int number);
void sync_warp(int number);

enum class Operation : uint8_t { Sync, Shuffle, ShuffleUp, Ballot };
uint32_t warp_operation(Operation operation, uint32_t mask, uint32_t value, uint32_t argument);

}  // namespace simt

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define threadIdx (simt::thread_index())
#define blockIdx (simt::block_index())
#define blockDim (simt::block_size())
#define gridDim (simt::grid_size())

inline unsigned char* simt_shared() { return simt::shared(); }
inline uint32_t __shfl_sync(uint32_t mask, uint32_t value, uint32_t lane) {
  return simt::warp_operation(simt::Operation::Shuffle, mask, value, lane);
}
inline uint32_t __shfl_up_sync(uint32_t mask, uint32_t value, uint32_t by) {
  return simt::warp_operation(simt::Operation::ShuffleUp, mask, value, by);
}
inline uint32_t __ballot_sync(uint32_t mask, bool vote) {
  return simt::warp_operation(simt::Operation::Ballot, mask, vote, 0);
}

inline int __popc(uint32_t x) { return __builtin_popcount(x); }
// The upper or lower word of hi:lo after a shift by the low five bits of `by`; _lc by `by`, but at most 32.
inline uint32_t __funnelshift_l(uint32_t lo, uint32_t hi, uint32_t by) {
  return (uint32_t)(((uint64_t)hi << 32 | lo) << (by & 31) >> 32);
}
inline uint32_t __funnelshift_r(uint32_t lo, uint32_t hi, uint32_t by) {
  return (uint32_t)(((uint64_t)hi << 32 | lo) >> (by & 31));
}
inline uint32_t __funnelshift_lc(uint32_t lo, uint32_t hi, uint32_t by) {
  return by >= 32 ? lo : __funnelshift_l(lo, hi, by);
}
// Each of the four low digits of `pick` names one of eight bytes; the sign-copying digits 8 to 15 are not used.
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t pick) {
  uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) result |= (uint32_t)(bytes >> 8 * (pick >> 4 * i & 7) & 255) << 8 * i;
  return result;
}
inline uint32_t atomicMax(uint32_t* at, uint32_t value) {
  uint32_t old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return old;
}
