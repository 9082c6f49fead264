// SPDX-License-Identifier: Apache-2.0
// Bits of filters to lists of the slots that pass, ascending.
#pragma once

#include "ann/filters.cuh"

namespace ec::cuda::ann {

// What a block lists at once: one word a thread. Bits of a filter are padded to a multiple of it.
constexpr int kChunkWords = kFilterThreads;

struct ListShared {
  int of_warp[kFilterThreads / kWarpSize];
};

// The sum of what the threads before this one have, and of all. All threads of the block.
__device__ __forceinline__ int sum_before(int number, ListShared& shared, int* all) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  int upto = number;
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const int other = __shfl_sync(kAllLanes, upto, lane - step < 0 ? lane : lane - step);
    if (lane >= step) upto += other;
  }
  __syncthreads();  // all have read what was shared before
  if (lane == kWarpSize - 1) shared.of_warp[warp] = upto;
  __syncthreads();
  int before = 0;
  *all = 0;
  for (int i = 0; i < kFilterThreads / kWarpSize; ++i) {
    if (i < warp) before += shared.of_warp[i];
    *all += shared.of_warp[i];
  }
  return before + upto - number;
}

// bits [filters][chunks][kChunkWords]; firsts [filters][chunks]. x: chunks, y: filters in turns.
__global__ void __launch_bounds__(kFilterThreads, 1)
    count_chunks(const unsigned* bits, int64_t filters, int64_t chunks, int64_t* firsts) {
  ListShared& shared = shared_memory<ListShared>();
  for (int64_t filter = blockIdx.y; filter < filters; filter += gridDim.y) {
    const int64_t chunk = filter * chunks + blockIdx.x;
    int all = 0;
    sum_before(__popc(bits[chunk * kChunkWords + threadIdx.x]), shared, &all);
    if (threadIdx.x == 0) firsts[chunk] = all;
  }
}

// Counts of chunks to where each begins, and to how many pass. A block for each filter.
__global__ void __launch_bounds__(kFilterThreads, 1)
    add_chunks(int64_t chunks, int64_t* firsts, int64_t* counts) {
  ListShared& shared = shared_memory<ListShared>();
  int64_t* own = firsts + static_cast<int64_t>(blockIdx.x) * chunks;
  int64_t before = 0;
  for (int64_t at = 0; at < chunks; at += kFilterThreads) {
    const int64_t i = at + threadIdx.x;
    const int count = i < chunks ? static_cast<int>(own[i]) : 0;
    int all = 0;
    const int first = sum_before(count, shared, &all);
    if (i < chunks) own[i] = before + first;
    before += all;
  }
  if (threadIdx.x == 0) counts[blockIdx.x] = before;
}

// As count_chunks.
__global__ void __launch_bounds__(kFilterThreads, 1)
    list_slots(const unsigned* bits, int64_t filters, int64_t chunks, const int64_t* firsts,
               uint32_t* slots, int64_t stride) {
  ListShared& shared = shared_memory<ListShared>();
  for (int64_t filter = blockIdx.y; filter < filters; filter += gridDim.y) {
    const int64_t chunk = filter * chunks + blockIdx.x;
    unsigned word = bits[chunk * kChunkWords + threadIdx.x];
    int all = 0;
    uint32_t* to = slots + filter * stride + firsts[chunk] + sum_before(__popc(word), shared, &all);
    const auto base =
        static_cast<uint32_t>((static_cast<int64_t>(blockIdx.x) * kChunkWords + threadIdx.x) * kWordBits);
    for (; word != 0; word &= word - 1)
      *to++ = base + static_cast<uint32_t>(__ffs(static_cast<int>(word)) - 1);
  }
}

}  // namespace ec::cuda::ann
