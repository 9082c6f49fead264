// SPDX-License-Identifier: Apache-2.0
// What cosine depth keeps of a corpus, from and to the arrays of a call.
#pragma once

#include "depth/unit_sums.cuh"

namespace ec::cuda {

// kept[columns + 1]: a sum of unit rows, then one of weights. total: null where each of `count` rows
// weighs 1. largest_weight: their biased exponent, which the sums of a call are scaled by; null or 0
// without weights.
static __global__ void __launch_bounds__(kWeightThreads, 1)
    keep_sums(const __grid_constant__ UnitSums from, const double* total, int64_t count,
              const int* largest_weight, double* kept) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x;
  if (at > from.columns) return;
  const int largest = largest_weight == nullptr ? 0 : *largest_weight;
  const double sum = at < from.columns  ? from.sums[from.place(static_cast<int>(at))]
                     : total != nullptr ? *total
                                        : static_cast<double>(count);
  kept[at] = ldexp(sum, largest == 0 ? 0 : largest - kExponentBias);
}

static __global__ void __launch_bounds__(kWeightThreads, 1)
    take_sums(const double* kept, const __grid_constant__ UnitSums to, double* total) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x, stride = to.stride();
  if (at < stride) to.sums[to.place(static_cast<int>(at))] = at < to.columns ? kept[at] : 0.0;
  if (at == stride) *total = kept[to.columns];
}

}  // namespace ec::cuda
