// SPDX-License-Identifier: Apache-2.0
// Sums over the parts that blocks have left, in one order: warps take turns at the parts, lanes have
// columns.
#pragma once

#include "attention/sequences.cuh"

namespace ec::cuda {

constexpr int kPartColumns = kTogether * kWarpSize;           // of a block
constexpr int kPartNumbers = kAttentionWarps * kPartColumns;  // of shared memory

// sums = those over parts of scale(part) * row(part)[first + 4 lane ...], for the lanes of warp 0. By all
// threads; they are done with `shared` when they return.
template <class Row, class Scale>
__device__ __forceinline__ void add_parts(int64_t parts, int first, int columns, const Row& row,
                                          const Scale& scale, float* shared, float (&sums)[kTogether]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int at = first + kTogether * lane;
  const bool whole = columns % kTogether == 0;  // rows lie side by side, the first on a boundary
  for (int i = 0; i < kTogether; ++i) sums[i] = 0.0f;
#pragma unroll 4
  for (int64_t part = warp; part < parts; part += kAttentionWarps) {
    float numbers[kTogether];
    if (whole)
      load_columns<true>(row(part), at, columns, numbers);
    else
      load_columns<false>(row(part), at, columns, numbers);
    const float times = scale(part);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) sums[i] = __fmaf_rn(times, numbers[i], sums[i]);
  }
  store_four(sums, shared + warp * kPartColumns + kTogether * lane);
  __syncthreads();
  if (warp == 0) {
    for (int i = 0; i < kTogether; ++i) sums[i] = 0.0f;
    for (int w = 0; w < kAttentionWarps; ++w)
      for (int i = 0; i < kTogether; ++i) sums[i] += shared[w * kPartColumns + kTogether * lane + i];
  }
  __syncthreads();
}

}  // namespace ec::cuda
