#include "decode.cuh"
#include "index.cuh"

extern "C" __global__ void __launch_bounds__(32 * DF11_MOST_WARPS) df11_decode(const __grid_constant__ df11_job job) {
  df11::decode_tiles(job, blockIdx.x - job.first_block);
}

extern "C" __global__ void __launch_bounds__(32 * DF11_MOST_WARPS) df11_decode_many(const __grid_constant__ df11_jobs jobs) {
  u32 i = 0;
  while (i + 1 < jobs.count && blockIdx.x >= jobs.job[i + 1].first_block) i++;
  df11::decode_tiles(jobs.job[i], blockIdx.x - jobs.job[i].first_block);
}

extern "C" __global__ void __launch_bounds__(DF11_INDEX_THREADS) df11_index(const __grid_constant__ df11_index_job job) {
  df11::index_blocks(job);
}
