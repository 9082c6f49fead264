// SPDX-License-Identifier: Apache-2.0
// Bits of filters to lists of the slots that pass, ascending.
#pragma once

#include "ann/filters.cuh"
#include "ann/sums_before.cuh"

namespace ec::cuda::ann {

// What a block lists at once: one word a thread. Bits of a filter are padded to a multiple of it.
constexpr int kChunkWords = kFilterThreads;

// How many of a filter's slots chunks [0, end) have. All threads of the block.
__device__ __forceinline__ int64_t count_before(const int64_t* of_chunks, int64_t end, SumsShared& shared) {
  int64_t before = 0;
  for (int64_t at = 0; at < end; at += kFilterThreads) {
    const int64_t i = at + threadIdx.x;
    int all = 0;
    sum_before(i < end ? static_cast<int>(of_chunks[i]) : 0, shared, &all);
    before += all;
  }
  return before;
}

// bits [filters][chunks][kChunkWords]; of_chunks [filters][chunks]. x: chunks, y: filters in turns.
__global__ void __launch_bounds__(kFilterThreads, 1)
    count_chunks(const unsigned* bits, int64_t filters, int64_t chunks, int64_t* of_chunks) {
  SumsShared& shared = shared_memory<SumsShared>();
  for (int64_t filter = blockIdx.y; filter < filters; filter += gridDim.y) {
    const int64_t chunk = filter * chunks + blockIdx.x;
    int all = 0;
    sum_before(__popc(bits[chunk * kChunkWords + threadIdx.x]), shared, &all);
    if (threadIdx.x == 0) of_chunks[chunk] = all;
  }
}

// How many pass, where nothing is listed. A block for each filter.
__global__ void __launch_bounds__(kFilterThreads, 1)
    add_chunks(int64_t chunks, const int64_t* of_chunks, int64_t* counts) {
  SumsShared& shared = shared_memory<SumsShared>();
  const int64_t all = count_before(of_chunks + static_cast<int64_t>(blockIdx.x) * chunks, chunks, shared);
  if (threadIdx.x == 0) counts[blockIdx.x] = all;
}

// As count_chunks. Each block adds up what the chunks before its own have, which are few: it costs less
// than a kernel between the two.
__global__ void __launch_bounds__(kFilterThreads, 1)
    list_slots(const unsigned* bits, int64_t filters, int64_t chunks, const int64_t* of_chunks,
               uint32_t* slots, int64_t stride, int64_t* counts) {
  SumsShared& shared = shared_memory<SumsShared>();
  for (int64_t filter = blockIdx.y; filter < filters; filter += gridDim.y) {
    unsigned word = bits[(filter * chunks + blockIdx.x) * kChunkWords + threadIdx.x];
    const int64_t before = count_before(of_chunks + filter * chunks, blockIdx.x, shared);
    int all = 0;
    uint32_t* to = slots + filter * stride + before + sum_before(__popc(word), shared, &all);
    if (blockIdx.x == chunks - 1 && threadIdx.x == 0) counts[filter] = before + all;
    const auto base =
        static_cast<uint32_t>((static_cast<int64_t>(blockIdx.x) * kChunkWords + threadIdx.x) * kWordBits);
    for (; word != 0; word &= word - 1)
      *to++ = base + static_cast<uint32_t>(__ffs(static_cast<int>(word)) - 1);
  }
}

}  // namespace ec::cuda::ann
