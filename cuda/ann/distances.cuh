// SPDX-License-Identifier: Apache-2.0
// Distances as the CPU has them: from the vectors as given, summed in float64.
#pragma once

#include "ann/queries.cuh"

namespace ec::cuda::ann {

// A warp; all lanes get it.
template <class T>
__device__ __forceinline__ float distance_of(const IndexRows& index, const float* query, int64_t slot,
                                             int lane) {
  const T* row = static_cast<const T*>(index.vectors) + slot * index.stride;
  const bool apart = index.metric == Metric::kL2;
  double sum = 0.0;
  for (int k = lane; k < index.columns; k += kWarpSize) {
    const auto x = static_cast<double>(to_float(row[k])), q = static_cast<double>(query[k]);
    sum += apart ? (x - q) * (x - q) : x * q;
  }
  sum = warp_sum(sum);
  if (apart) return static_cast<float>(sqrt(sum));
  if (index.metric == Metric::kInnerProduct) return static_cast<float>(-sum);
  return static_cast<float>(fmax(0.0, 1.0 - sum * static_cast<double>(index.inverse_norms[slot])));
}

// No row whose bound is at most this is nearer than what is returned. NaN for NaN.
__device__ __forceinline__ float nearest_below(const IndexRows& index, const QueryFacts& query,
                                               float bound) {
  const double lost = underflow_loss(index.padded) * (1.0 + fabs(query.part)) +
                      (index.metric == Metric::kCosine ? 4.0 * kSlack : 0.0);
  const double score = static_cast<double>(bound) + lost;
  constexpr double kRounding = 1e-12;  // of these few operations in float64
  if (index.metric == Metric::kL2) {
    const double square = query.part - 2.0 * score - kRounding * (query.part + fabs(score));
    return static_cast<float>(sqrt(fmax(0.0, square)));
  }
  const double product = score + query.part + kRounding * (fabs(score) + fabs(query.part));
  return static_cast<float>(index.metric == Metric::kCosine ? 1.0 - product : -product);
}

}  // namespace ec::cuda::ann
