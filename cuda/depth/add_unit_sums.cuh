// SPDX-License-Identifier: Apache-2.0
// Sums of directions by a kernel of their own, where no kernel of pairs adds them up.
#pragma once

#include "depth/unit_sums.cuh"

namespace ec::cuda {

constexpr int kDirectionWarps = 8;
constexpr int kUnitSumThreads = kDirectionWarps * kWarpSize;

// A block for each task: each warp takes a part of the segments.
// Memory: shared, a double for each thread.
static __global__ void __launch_bounds__(kUnitSumThreads, 1)
    add_unit_sums(const __grid_constant__ UnitSums to) {
  double* of_warps = shared_array<double>(kUnitSumThreads);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize;
  const int64_t group = blockIdx.x / to.strips();
  const int column = static_cast<int>(blockIdx.x - group * to.strips()) * kWarpSize + thread % kWarpSize;
  const int64_t begin = to.segments.begin(group), count = to.segments.end(group) - begin;
  double sum = column < to.columns ? to.sum_of(column, begin + count * warp / kDirectionWarps,
                                               begin + count * (warp + 1) / kDirectionWarps)
                                   : 0.0;
  of_warps[thread] = sum;
  __syncthreads();
  if (warp > 0) return;
  for (int i = 1; i < kDirectionWarps; ++i) sum += of_warps[i * kWarpSize + thread];
  to.sums[group * to.stride() + to.place(column)] = sum;
}

}  // namespace ec::cuda
