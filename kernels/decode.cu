// The entry points. decode.cuh, index.cuh, linear.cuh and multiply.cuh say what they do, job.h has their parameters. They
// allocate nothing, do not depend on other launches, and every thread ends.
//
// How to launch them (policy.h has the numbers):
//
// - df11_decode and df11_decode_many: one-dimensional; a block is 32 * warps threads, with warps =
//   DF11_WARPS_<capability> or fewer; dynamic shared memory as in policy.h, for df11_decode_many that of the largest
//   table. As many blocks as the device can hold at once (ask the driver for the occupancy) suffice: they continue with
//   further tiles. Of more than ceil(tiles / warps) blocks for a job some have nothing to do. A job of few tiles is
//   spread better over blocks of fewer warps.
// - df11_index: blocks of DF11_INDEX_THREADS threads, any number up to the blocks of the code; DF11_INDEX_SHARED bytes
//   and the table. `starts` and `lanes` must be set to 0 before.
// - df11_linear_decode: blocks of any number of warps up to DF11_LINEAR_WARPS, no dynamic shared memory; jobs have blocks
//   as those of df11_decode_many do.
// - df11_linear_make: the same blocks, any number of them, with DF11_LINEAR_SHARED bytes.
// - df11_multiply_1, _2 and _8: blocks of DF11_MULTIPLY_THREADS threads, in x one for each job.rows_of_tiles of a part, in y
//   one, or with DF11_MULTIPLY_SPLIT as many as there are pieces, in z one for each chosen expert. Shared memory:
//   multiply_shared() in src/cuda/policy.rs. A split launch is followed by df11_multiply_add: in x a thread for each row and
//   vector of the largest part, in y the parts.
#include "decode.cuh"
#include "index.cuh"
#include "linear.cuh"
#ifndef DF11_SIMT
#include "multiply.cuh"
#endif

extern "C" __global__ void __launch_bounds__(32 * DF11_MOST_WARPS)
df11_decode(const __grid_constant__ df11_job job) {
  df11::decode_job(job, blockIdx.x - job.first_block);
}

extern "C" __global__ void __launch_bounds__(32 * DF11_MOST_WARPS)
df11_decode_many(const __grid_constant__ df11_jobs jobs) {
  u32 i = 0;
  while (i + 1 < jobs.count && blockIdx.x >= jobs.job[i + 1].first_block) i++;
  df11::decode_job(jobs.job[i], blockIdx.x - jobs.job[i].first_block);
}

extern "C" __global__ void __launch_bounds__(DF11_INDEX_THREADS)
df11_index(const __grid_constant__ df11_index_job job) {
  df11::index_blocks(job);
}

extern "C" __global__ void __launch_bounds__(32 * DF11_LINEAR_WARPS)
df11_linear_decode(const __grid_constant__ df11_linear_decode_jobs jobs) {
  u32 i = 0;
  while (i + 1 < jobs.count && blockIdx.x >= jobs.job[i + 1].first_block) i++;
  df11::decode_linear(jobs.job[i], blockIdx.x - jobs.job[i].first_block);
}

extern "C" __global__ void __launch_bounds__(32 * DF11_LINEAR_WARPS)
df11_linear_make(const __grid_constant__ df11_linear_make_job job) {
  df11::make_linear(job);
}

#ifndef DF11_SIMT
extern "C" __global__ void __launch_bounds__(DF11_MULTIPLY_THREADS, 2)
df11_multiply_1(const __grid_constant__ df11_multiply_job job) {
  df11::multiply<df11::Single<1>, DF11_MULTIPLY_ROWS_1 * 16 / DF11_MULTIPLY_THREADS>(job);
}

extern "C" __global__ void __launch_bounds__(DF11_MULTIPLY_THREADS, 2)
df11_multiply_2(const __grid_constant__ df11_multiply_job job) {
  df11::multiply<df11::Single<2>, DF11_MULTIPLY_ROWS_2 * 32 / DF11_MULTIPLY_THREADS>(job);
}

#if __CUDA_ARCH__ >= 800
extern "C" __global__ void __launch_bounds__(DF11_MULTIPLY_THREADS, 2)
df11_multiply_8(const __grid_constant__ df11_multiply_job job) {
  df11::multiply<df11::Eight, DF11_MULTIPLY_ROWS_8 * 128 / DF11_MULTIPLY_THREADS>(job);
}
#endif

extern "C" __global__ void __launch_bounds__(DF11_MULTIPLY_THREADS)
df11_multiply_add(const __grid_constant__ df11_multiply_job job) {
  df11::add_runs(job);
}
#endif
