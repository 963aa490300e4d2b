// Ordinary kernels, to see that what the compiler makes of them runs: compiled.ptx is this file's PTX, by NVRTC 12.9.86 with
// --gpu-architecture=compute_75 --std=c++17. tests/ptx/compiled.rs says what they give.
typedef unsigned int u32;
typedef unsigned long long u64;

// Sums of all before, in one block, by shuffles.
extern "C" __global__ void scan(u32 *out, const u32 *in, u32 n) {
  __shared__ u32 sums[32];
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, before = 0;
  for (u32 base = 0; base < n; base += blockDim.x) {
    u32 i = base + threadIdx.x, x = i < n ? in[i] : 0, y = x;
    for (u32 d = 1; d < 32; d *= 2) {
      u32 z = __shfl_up_sync(~0u, y, d);
      if (lane >= d) y += z;
    }
    if (lane == 31) sums[warp] = y;
    __syncthreads();
    u32 part = 0, all = 0;
    for (u32 w = 0; w < blockDim.x / 32; w++) {
      if (w < warp) part += sums[w];
      all += sums[w];
    }
    if (i < n) out[i] = before + part + y - x;
    before += all;
    __syncthreads();
  }
}

// Counts of the values modulo `bins`, gathered in dynamic shared memory.
extern "C" __global__ void histogram(u32 *out, const u32 *in, u32 n, u32 bins) {
  extern __shared__ u32 counts[];
  for (u32 i = threadIdx.x; i < bins; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&counts[in[i] % bins], 1);
  __syncthreads();
  for (u32 i = threadIdx.x; i < bins; i += blockDim.x)
    if (counts[i]) atomicAdd(&out[i], counts[i]);
}

// A matrix turned over, tile by tile, 16 bytes at a time.
extern "C" __global__ void transpose(u32 *out, const u32 *in, u32 width, u32 height) {
  __shared__ u32 tile[32][33];
  u32 x = blockIdx.x * 32, y = blockIdx.y * 32, c = threadIdx.x * 4, r = threadIdx.y;
  for (u32 k = 0; k < 32; k += 8) {
    uint4 v = *(const uint4 *)(in + (u64)(y + r + k) * width + x + c);
    tile[r + k][c] = v.x, tile[r + k][c + 1] = v.y, tile[r + k][c + 2] = v.z, tile[r + k][c + 3] = v.w;
  }
  __syncthreads();
  for (u32 k = 0; k < 32; k += 8)
    *(uint4 *)(out + (u64)(x + r + k) * height + y + c) =
        make_uint4(tile[c][r + k], tile[c + 1][r + k], tile[c + 2][r + k], tile[c + 3][r + k]);
}

struct Task { u64 dst; u32 first, count, factor; };
struct Tasks { u32 count; Task task[20]; };
__constant__ int weights[8] = {3, -5, 7, -11, 13, -17, 19, -23};
__device__ u64 calls;

__device__ __noinline__ u32 collatz(u32 n) {
  u32 steps = 0;
  for (; n != 1; steps++) n = n % 2 ? 3 * n + 1 : n / 2;
  return steps;
}

// Tasks by value, found by each block; arithmetic of many kinds.
extern "C" __global__ void tasks(Tasks tasks) {
  u32 t = 0;
  while (t + 1 < tasks.count && tasks.task[t + 1].first <= blockIdx.x) t++;
  u32 i = (blockIdx.x - tasks.task[t].first) * blockDim.x + threadIdx.x;
  if (i >= tasks.task[t].count) return;
  u32 digits[8];
  for (u32 k = 0, x = i * tasks.task[t].factor; k < 8; k++, x >>= 4) digits[k] = x & 15;
  u32 picked = digits[i & 7], result;
  switch (picked) {
    case 0: result = collatz(i + 1); break;
    case 1: result = __popc(i) << 8 | __clz(i); break;
    case 2: result = __brev(i); break;
    case 3: result = __byte_perm(i, ~i, 0x7135); break;
    case 4: result = __funnelshift_l(i, ~i, i); break;
    case 5: result = __funnelshift_rc(i, ~i, i); break;
    case 6: result = (u32)((0x123456789abcdef0ull + i) / (i | 1)); break;
    case 7: result = (u32)((long long)(-(long long)i * 1000003) % 977); break;
    case 8: result = __umulhi(i * 0x9e3779b9u, 0x85ebca6bu); break;
    case 9: result = (u32)((int)(i * 0x9e3779b9u) >> (i & 31)); break;
    case 10: result = __ffs(i); break;
    case 11: result = (u32)weights[i & 7] * i; break;
    case 12: result = max((int)(i * 0x80000001u), -5); break;
    default: result = (u32)atomicAdd(&calls, 0) + picked; break;
  }
  ((u32 *)tasks.task[t].dst)[i] = result;
}
