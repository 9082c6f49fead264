// SPDX-License-Identifier: Apache-2.0
// Queries made ready for rows of which codes alone are kept: turned to the axes of the codes, in float32.
#pragma once

#include "ann/prepare_queries.cuh"

namespace ec::cuda::ann {

constexpr int kTurnedAxes = 4, kTurnedQueries = 4;  // that a warp multiplies at once

// Of each position what its distances have beside scores; what it is scaled by, in place of its reach; zero
// for a query that has no answer. A warp for each position.
__global__ void __launch_bounds__(kRowThreads, 1)
    measure_queries(const __grid_constant__ Queries queries, const __grid_constant__ IndexRows index) {
  begin_behind();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarpSize;
  if (position >= queries.count) return;
  const int64_t number = queries.number(position);
  const double square = square_of(queries.given, number, lane);
  const bool answered = is_answered(index.metric, square);
  const double scale = index.metric == Metric::kCosine && answered ? 1.0 / sqrt(square) : 1.0;
  double own = 0.0, along = 0.0;
  for (int k = lane; answered && k < index.coded.query_columns; k += kWarpSize) {
    const auto x = static_cast<double>(
        static_cast<float>(static_cast<double>(queries.given.number(number, k)) * scale));
    const auto mean = static_cast<double>(index.mean[k]);
    own += (x - mean) * (x - mean);
    along += x * mean;
  }
  own = warp_sum(own), along = warp_sum(along);
  if (lane != 0) return;
  queries.facts[position] = {index.metric == Metric::kInnerProduct ? along : own,
                             answered ? static_cast<float>(scale) : 0.0f, answered ? 0 : 1};
}

// A query's number less the mean, but for ip.
__device__ __forceinline__ float centred_number(const Queries& queries, const IndexRows& index,
                                                int64_t position, int64_t number, int k) {
  const QueryFacts& facts = queries.facts[position];
  if (facts.unanswered != 0) return 0.0f;
  const float x = queries.given.number(number, k) * facts.reach;
  return index.metric == Metric::kInnerProduct ? x : x - index.mean[k];
}

// x: axes, a few for each warp; y: positions, a few at a time, in turns.
__global__ void __launch_bounds__(kRowThreads, 1)
    turn_queries(const __grid_constant__ Queries queries, const __grid_constant__ IndexRows index) {
  begin_behind();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int first_axis =
      (static_cast<int>(blockIdx.x) * kRowWarps + static_cast<int>(threadIdx.x) / kWarpSize) * kTurnedAxes;
  const int axes = min(kTurnedAxes, index.columns - first_axis);
  if (axes <= 0) return;
  const float* axis[kTurnedAxes];
  for (int a = 0; a < kTurnedAxes; ++a)
    axis[a] =
        index.coded.axes + static_cast<int64_t>(first_axis + min(a, axes - 1)) * index.coded.query_columns;
  for (int64_t first = static_cast<int64_t>(blockIdx.y) * kTurnedQueries; first < queries.count;
       first += static_cast<int64_t>(gridDim.y) * kTurnedQueries) {
    const auto count = static_cast<int>(min(static_cast<int64_t>(kTurnedQueries), queries.count - first));
    int64_t numbers[kTurnedQueries];
    for (int i = 0; i < kTurnedQueries; ++i) numbers[i] = queries.number(first + min(i, count - 1));
    float sums[kTurnedQueries][kTurnedAxes] = {};
    for (int k = lane; k < index.coded.query_columns; k += kWarpSize) {
      float x[kTurnedQueries];
#pragma unroll
      for (int i = 0; i < kTurnedQueries; ++i)
        x[i] = centred_number(queries, index, first + min(i, count - 1), numbers[i], k);
#pragma unroll
      for (int a = 0; a < kTurnedAxes; ++a) {
        const float b = axis[a][k];
#pragma unroll
        for (int i = 0; i < kTurnedQueries; ++i) sums[i][a] = __fmaf_rn(x[i], b, sums[i][a]);
      }
    }
#pragma unroll
    for (int i = 0; i < kTurnedQueries; ++i) {
#pragma unroll
      for (int a = 0; a < kTurnedAxes; ++a) {
        const float sum = warp_sum(sums[i][a]);
        if (lane == 0 && i < count && a < axes)
          queries.vectors[(first + i) * index.columns + first_axis + a] = sum;
      }
    }
  }
}

// Codes of what was turned, and what bounds need. A warp for each position.
__global__ void __launch_bounds__(kRowThreads, 1)
    code_queries(const __grid_constant__ Queries queries, const __grid_constant__ IndexRows index) {
  begin_behind();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarpSize;
  if (position >= queries.count) return;
  double own = 0.0, lost = 0.0;
  for (int k = lane; k < index.padded; k += kWarpSize) {
    const float part = k < index.columns ? queries.vectors[position * index.columns + k] : 0.0f;
    const BFloat code = bfloat_of(part);
    queries.codes[position * index.padded + k] = code;
    const double rest = static_cast<double>(part) - static_cast<double>(to_float(code));
    own += static_cast<double>(part) * static_cast<double>(part);
    lost += rest * rest;
  }
  own = warp_sum(own), lost = warp_sum(lost);
  if (lane != 0) return;
  QueryFacts& facts = queries.facts[position];
  facts.reach = facts.unanswered == 0 ? reach_of(index, own, lost) : __uint_as_float(0x7fc00000u);
}

}  // namespace ec::cuda::ann
