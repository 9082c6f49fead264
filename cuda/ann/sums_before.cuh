// SPDX-License-Identifier: Apache-2.0
// Where each thread of a block writes what it has, behind what the threads before it have.
#pragma once

#include "ann/filters.h"
#include "common/warp.cuh"

namespace ec::cuda::ann {

struct SumsShared {
  int of_warp[kFilterThreads / kWarpSize];
};

// The sum of what the threads before this one have, and of all. All threads of the block.
__device__ __forceinline__ int sum_before(int number, SumsShared& shared, int* all) {
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

}  // namespace ec::cuda::ann
