// SPDX-License-Identifier: Apache-2.0
// Rows as their gradients are taken: unit rows, or rows moved to the bulk of the corpus (shifted_rows.cuh),
// in float32; and what sums over pairs make of them.
#pragma once

#include "depth/shifted_rows.cuh"

namespace ec::cuda {

constexpr int kGradientStep = 32;  // numbers of a row that are multiplied at a time

// Rows of one side. inverses: 1 / |row|, null for moved rows.
struct GradientRows {
  AnyRows given;
  float* values;     // [row][padded], zeros behind the columns
  float* squares;    // |values|^2
  double* inverses;  // of unit rows, which a row of zeros makes NaN
  int padded;        // a multiple of kGradientStep

  __device__ const float* row(int64_t i) const { return values + i * padded; }
};

// A warp for each row.
static __global__ void __launch_bounds__(kMoveThreads, 1) set_gradient_rows(GradientRows to, Move move) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kMoveThreads / kWarpSize);
  const double scale = to.inverses == nullptr ? ldexp(1.0, move.exponent()) : 1.0;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kMoveThreads + threadIdx.x) / kWarpSize;
       i < to.given.count; i += warps) {
    double factor = scale;
    if (to.inverses != nullptr) {
      double length = 0.0;  // no square of float32 leaves float64
      for (int64_t k = lane; k < to.given.columns; k += kWarpSize)
        length += to.given.wide_number(i, k) * to.given.wide_number(i, k);
      length = warp_sum(length);
      factor = is_finite(length) && length > 0.0 ? 1.0 / sqrt(length) : not_a_number();
      if (lane == 0) to.inverses[i] = factor;
    }
    float square = 0.0f;
    for (int64_t k = lane; k < to.padded; k += kWarpSize) {
      const double center = to.inverses == nullptr && k < to.given.columns ? move.center[k] : 0.0;
      const float value =
          k < to.given.columns ? static_cast<float>((to.given.wide_number(i, k) - center) * factor) : 0.0f;
      to.values[i * to.padded + k] = value;
      square += value * value;
    }
    square = warp_sum(square);
    if (lane == 0) to.squares[i] = square;
  }
}

// Sums over pairs of a target row: of F, of pull t and of H (pair_gradient.cuh).
struct TargetSums {
  double factors, distances, pulls;
};

struct GradientFinish {
  GradientRows targets;
  const float* vectors;    // [slot][target][padded]: sum F source
  const TargetSums* sums;  // [slot][target]
  int64_t slots;
  const float* ends;  // [target][padded]: e of targets, of which -sum H is added; null: there are none
  bool scales;        // the gradient is one of moved rows that depends on their scale
  Move move;
  bool adds;           // to what is there
  float* gradient;     // [target][columns]; null: not wanted
  double* of_weights;  // null: not wanted
  double sign;         // of of_weights
};

// target * sum F - sum F source, of unit rows what is across them, over their length. A warp for each
// target.
static __global__ void __launch_bounds__(kMoveThreads, 1)
    finish_gradient(const __grid_constant__ GradientFinish finish) {
  const GradientRows& targets = finish.targets;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kMoveThreads / kWarpSize),
                count = targets.given.count;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kMoveThreads + threadIdx.x) / kWarpSize; i < count;
       i += warps) {
    TargetSums sums = {0.0, 0.0, 0.0};
    for (int64_t slot = 0; slot < finish.slots; ++slot) {
      const TargetSums& found = finish.sums[slot * count + i];
      sums.factors += found.factors, sums.distances += found.distances, sums.pulls += found.pulls;
    }
    const bool moved = targets.inverses == nullptr;
    const int exponent = moved ? finish.move.exponent() : 0;
    if (lane == 0 && finish.of_weights != nullptr)
      finish.of_weights[i] =
          finish.sign * (finish.scales ? sums.distances : ldexp(sums.distances, -exponent));
    if (finish.gradient == nullptr) continue;
    const auto number = [&](int64_t k) {
      double found = static_cast<double>(targets.row(i)[k]) * sums.factors;
      for (int64_t slot = 0; slot < finish.slots; ++slot)
        found -= static_cast<double>(finish.vectors[(slot * count + i) * targets.padded + k]);
      if (finish.ends != nullptr)
        found -= static_cast<double>(finish.ends[i * targets.padded + k]) * sums.pulls;
      return found;
    };
    double along = 0.0;
    for (int64_t k = lane; !moved && k < targets.given.columns; k += kWarpSize)
      along += number(k) * targets.given.wide_number(i, k) * targets.inverses[i];
    along = warp_sum(along);
    const double factor = moved ? finish.scales ? ldexp(1.0, exponent) : 1.0 : targets.inverses[i];
    float* to = finish.gradient + i * targets.given.columns;
    for (int64_t k = lane; k < targets.given.columns; k += kWarpSize) {
      const double unit = moved ? 0.0 : targets.given.wide_number(i, k) * targets.inverses[i];
      const double found = (number(k) - along * unit) * factor;
      to[k] = static_cast<float>(found + (finish.adds ? static_cast<double>(to[k]) : 0.0));
    }
  }
}

// ends[target] = the direction of target * sum F - sum F source, 0 where that is none; along[target] = its
// product with the target. A warp for each target.
static __global__ void __launch_bounds__(kMoveThreads, 1)
    set_ends(const __grid_constant__ GradientFinish finish, float* ends, float* along) {
  const GradientRows& targets = finish.targets;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kMoveThreads / kWarpSize),
                count = targets.given.count;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kMoveThreads + threadIdx.x) / kWarpSize; i < count;
       i += warps) {
    double factors = 0.0, square = 0.0;
    for (int64_t slot = 0; slot < finish.slots; ++slot) factors += finish.sums[slot * count + i].factors;
    const auto number = [&](int64_t k) {
      double found = static_cast<double>(targets.row(i)[k]) * factors;
      for (int64_t slot = 0; slot < finish.slots; ++slot)
        found -= static_cast<double>(finish.vectors[(slot * count + i) * targets.padded + k]);
      return found;
    };
    for (int64_t k = lane; k < targets.padded; k += kWarpSize) square += number(k) * number(k);
    const double length = sqrt(warp_sum(square));
    float product = 0.0f;
    for (int64_t k = lane; k < targets.padded; k += kWarpSize) {
      const float end = length == 0.0 ? 0.0f : static_cast<float>(number(k) / length);
      ends[i * targets.padded + k] = end;
      product += end * targets.row(i)[k];
    }
    product = warp_sum(product);
    if (lane == 0) along[i] = product;
  }
}

}  // namespace ec::cuda
