// SPDX-License-Identifier: Apache-2.0
// Queries made ready: of unit length for cosine, their codes, and what bounds need of them.
#pragma once

#include "ann/queries.cuh"

namespace ec::cuda::ann {

constexpr double kMostSquare = 1e30;  // longer queries' distances do not fit float32

// What tensor cores may lose of a product of unit vectors: they add in float32 and cut off.
__device__ __forceinline__ double product_loss(int padded) {
  return static_cast<double>(padded) * (1.0 / (1 << 22));
}

// own: the square of the query's length as it is compared; lost: of what rounding to codes took from it.
__device__ __forceinline__ float reach_of(const IndexRows& index, double own, double lost) {
  const auto roughness = static_cast<double>(*index.roughness);
  const double reach = sqrt(own) * (roughness + product_loss(index.padded) + 4.0 * kSlack) +
                       sqrt(lost) * (1.0 + 2.0 * roughness);
  return static_cast<float>(reach * (1.0 + kSlack) + underflow_loss(index.padded));
}

// Whether a query of that square has an answer. Not a number compares with nothing.
__device__ __forceinline__ bool is_answered(Metric metric, double square) {
  return metric == Metric::kCosine ? square > 0.0 && square < 1e300 : square <= kMostSquare;
}

__device__ __forceinline__ double square_of(const AnyRows& queries, int64_t number, int lane) {
  double square = 0.0;
  for (int k = lane; k < static_cast<int>(queries.columns); k += kWarpSize) {
    const auto x = static_cast<double>(queries.number(number, k));
    square += x * x;
  }
  return warp_sum(square);
}

// A warp for each position.
__global__ void __launch_bounds__(kRowThreads, 1)
    prepare_queries(const __grid_constant__ Queries queries, const __grid_constant__ IndexRows index) {
  begin_behind();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarpSize;
  if (position >= queries.count) return;
  const int64_t number = queries.number(position);
  const double square = square_of(queries.given, number, lane);
  const bool unit = index.metric == Metric::kCosine, centred = index.metric == Metric::kL2;
  const bool answered = is_answered(index.metric, square);
  const double scale = unit && answered ? 1.0 / sqrt(square) : 1.0;
  double own = 0.0, lost = 0.0, along = 0.0;
  for (int k = lane; k < index.padded; k += kWarpSize) {
    double part = 0.0;
    if (k < index.columns && answered) {
      const auto x = static_cast<float>(static_cast<double>(queries.given.number(number, k)) * scale);
      const auto mean = static_cast<double>(index.mean[k]);
      queries.vectors[position * index.columns + k] = x;
      part = static_cast<double>(x) - (centred ? mean : 0.0);
      along += static_cast<double>(x) * mean;
    }
    const BFloat code = bfloat_of(static_cast<float>(part));
    queries.codes[position * index.padded + k] = code;
    const double rest = part - static_cast<double>(to_float(code));
    own += part * part;
    lost += rest * rest;
  }
  own = warp_sum(own), lost = warp_sum(lost), along = warp_sum(along);
  if (lane != 0) return;
  queries.facts[position] = {centred ? own : along,
                             answered ? reach_of(index, own, lost) : __uint_as_float(0x7fc00000u),
                             answered ? 0 : 1};
}

}  // namespace ec::cuda::ann
