// SPDX-License-Identifier: Apache-2.0
// Bits of filters to lists of the slots that pass, ascending.
#pragma once

#include "ann/filters.cuh"
#include "ann/sums_before.cuh"
#include "common/behind.cuh"

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

// A warp for each chunk. bits [filters][chunks][kChunkWords]; of_chunks [filters][chunks]. y: filters in
// turns.
__global__ void __launch_bounds__(kFilterThreads, 1)
    count_chunks(const unsigned* bits, int64_t filters, int64_t chunks, int64_t* of_chunks) {
  begin_behind();
  constexpr int kWarps = kFilterThreads / kWarpSize, kLaneWords = kChunkWords / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t own = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  if (own >= chunks) return;
  for (int64_t filter = blockIdx.y; filter < filters; filter += gridDim.y) {
    const int64_t chunk = filter * chunks + own;
    int count = 0;
#pragma unroll
    for (int i = 0; i < kLaneWords; ++i) count += __popc(bits[chunk * kChunkWords + i * kWarpSize + lane]);
    count = warp_sum(count);
    if (lane == 0) of_chunks[chunk] = count;
  }
}

// How many pass. A block for each filter.
__global__ void __launch_bounds__(kFilterThreads, 1)
    add_chunks(int64_t chunks, const int64_t* of_chunks, int64_t* counts) {
  begin_behind();
  SumsShared& shared = shared_memory<SumsShared>();
  const int64_t all = count_before(of_chunks + static_cast<int64_t>(blockIdx.x) * chunks, chunks, shared);
  if (threadIdx.x == 0) counts[blockIdx.x] = all;
}

// Each block adds up what the chunks before its own have, which are few: it costs less than a kernel
// between the two. x: so many chunks `together`; y: filters in turns. unless: whether nobody wants lists.
__global__ void __launch_bounds__(kFilterThreads, 1)
    list_slots(const __grid_constant__ Listing lists, int64_t chunks, int64_t together) {
  begin_behind();
  if (lists.unless != nullptr && *lists.unless != 0) return;
  SumsShared& shared = shared_memory<SumsShared>();
  const int64_t first = blockIdx.x * together, end = min(chunks, first + together);
  for (int64_t filter = blockIdx.y; filter < lists.filters; filter += gridDim.y) {
    int64_t before = count_before(lists.of_chunks + filter * chunks, first, shared);
    for (int64_t chunk = first; chunk < end; ++chunk) {
      unsigned word = lists.bits[(filter * chunks + chunk) * kChunkWords + threadIdx.x];
      int all = 0;
      uint32_t* to = lists.slots + filter * lists.stride + before + sum_before(__popc(word), shared, &all);
      const auto base = static_cast<uint32_t>((chunk * kChunkWords + threadIdx.x) * kWordBits);
      for (; word != 0; word &= word - 1)
        *to++ = base + static_cast<uint32_t>(__ffs(static_cast<int>(word)) - 1);
      before += all;
    }
    if (end == chunks && threadIdx.x == 0) lists.counts[filter] = before;
  }
}

}  // namespace ec::cuda::ann
