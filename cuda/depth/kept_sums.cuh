// SPDX-License-Identifier: Apache-2.0
// What cosine depth keeps of a corpus, from and to the arrays of a call.
#pragma once

#include "depth/segments.cuh"

namespace ec::cuda {

// kept[columns + 1]: a sum of unit rows, then one of weights. largest_weight: their biased exponent, which
// the sums of a call are scaled by; 0 without weights.
static __global__ void __launch_bounds__(kWeightThreads, 1)
    keep_sums(const double* sums, const double* total, int64_t columns, const int* largest_weight,
              double* kept) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x;
  if (at > columns) return;
  const int exponent = *largest_weight == 0 ? 0 : *largest_weight - kExponentBias;
  kept[at] = ldexp(at < columns ? sums[at] : *total, exponent);
}

static __global__ void __launch_bounds__(kWeightThreads, 1)
    take_sums(const double* kept, int64_t columns, double* sums, double* total) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWeightThreads + threadIdx.x;
  if (at < columns) sums[at] = kept[at];
  if (at == columns) *total = kept[at];
}

}  // namespace ec::cuda
