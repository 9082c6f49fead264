// SPDX-License-Identifier: Apache-2.0
// Distances as the CPU has them: from the vectors as given, or else their codes, summed in float64.
#pragma once

#include "ann/queries.cuh"

namespace ec::cuda::ann {

// From the score of codes; part: as QueryFacts has it.
__device__ __forceinline__ float distance_of_score(Metric metric, double part, double score) {
  if (metric == Metric::kInnerProduct) return static_cast<float>(-(part + score));
  const double square = fmax(0.0, part - 2.0 * score);
  return static_cast<float>(metric == Metric::kL2 ? sqrt(square) : 0.5 * square);
}

// What each column adds to the sum that a distance is made of.
template <class T>
__device__ __forceinline__ double term_of(const IndexRows& index, double x, double q) {
  return index.metric == Metric::kL2 && !kIsCoded<T> ? (x - q) * (x - q) : x * q;
}

template <class T>
__device__ __forceinline__ float distance_of_sum(const IndexRows& index, double part, int64_t slot,
                                                 double sum) {
  if (kIsCoded<T>)
    return distance_of_score(index.metric, part, sum + static_cast<double>(index.offsets[slot]));
  if (index.metric == Metric::kL2) return static_cast<float>(sqrt(sum));
  if (index.metric == Metric::kInnerProduct) return static_cast<float>(-sum);
  return static_cast<float>(fmax(0.0, 1.0 - sum * static_cast<double>(index.inverse_norms[slot])));
}

// A warp; all lanes get it. query: as prepared; part: as its QueryFacts has it.
template <class T>
__device__ __forceinline__ float distance_of(const IndexRows& index, const float* query, double part,
                                             int64_t slot, int lane) {
  const Row<T> row(index, slot);
  double sum = 0.0;
  for (int k = lane; k < index.columns; k += kWarpSize)
    sum += term_of<T>(index, static_cast<double>(row[k]), static_cast<double>(query[k]));
  return distance_of_sum<T>(index, part, slot, warp_sum(sum));
}

// Of two rows at once, so that neither waits for the other, and the query's numbers are made doubles once.
template <class T>
__device__ __forceinline__ void two_distances(const IndexRows& index, const float* query, double part,
                                              const uint32_t (&slots)[2], float (&distances)[2], int lane) {
  const Row<T> rows[2] = {Row<T>(index, slots[0]), Row<T>(index, slots[1])};
  double sums[2] = {};
#pragma unroll 4
  for (int k = lane; k < index.columns; k += kWarpSize) {
    const auto q = static_cast<double>(query[k]);
#pragma unroll
    for (int i = 0; i < 2; ++i) sums[i] += term_of<T>(index, static_cast<double>(rows[i][k]), q);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) distances[i] = distance_of_sum<T>(index, part, slots[i], warp_sum(sums[i]));
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
