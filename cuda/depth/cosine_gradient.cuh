// SPDX-License-Identifier: Apache-2.0
// The gradient of cosine depth, in O((n + m) d): with a, b the unit rows of both sides, s the weighted sum
// of the b and t that of the a, by what their depths pull with, the gradient of a is pull s and that of b
// weight t, of both what is across them, over the length of the row. What a row does to itself points along
// it, so that leaving it out changes nothing.
#pragma once

#include "depth/shifted_rows.cuh"
#include "depth/unit_sums.cuh"

namespace ec::cuda {

struct CosineGradient {
  AnyRows rows;
  UnitSums first, second;                       // s and t
  const float *first_factors, *second_factors;  // of rows; null: that part is not theirs
  const float* left_out;  // pulls that rows leave out of the products with t; null: none
  float* gradient;        // null: not wanted
  double* of_weights;     // products with t; null: not wanted
};

// A warp for each row.
static __global__ void __launch_bounds__(kMoveThreads, 1)
    set_cosine_gradient(const __grid_constant__ CosineGradient problem) {
  const AnyRows& rows = problem.rows;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kMoveThreads / kWarpSize);
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kMoveThreads + threadIdx.x) / kWarpSize;
       i < rows.count; i += warps) {
    double square = 0.0, along = 0.0, of_second = 0.0;
    const auto pulled = [&](int64_t k) {
      const int64_t place = problem.first.place(static_cast<int>(k));
      double sum = 0.0;  // of what is theirs alone: bad rows of one side harm only what they are in
      if (problem.first_factors != nullptr)
        sum += static_cast<double>(problem.first_factors[i]) * problem.first.sums[place];
      if (problem.second_factors != nullptr)
        sum += static_cast<double>(problem.second_factors[i]) * problem.second.sums[place];
      return sum;
    };
    for (int64_t k = lane; k < rows.columns; k += kWarpSize) {
      const double number = rows.wide_number(i, k);
      square += number * number;  // no square of float32 leaves float64
      along += number * pulled(k);
      of_second += number * problem.second.sums[problem.second.place(static_cast<int>(k))];
    }
    square = warp_sum(square), along = warp_sum(along), of_second = warp_sum(of_second);
    const double inverse = is_finite(square) && square > 0.0 ? 1.0 / sqrt(square) : not_a_number();
    if (lane == 0 && problem.of_weights != nullptr)
      problem.of_weights[i] =
          of_second * inverse -
          (problem.left_out == nullptr ? 0.0 : static_cast<double>(problem.left_out[i]));
    for (int64_t k = lane; problem.gradient != nullptr && k < rows.columns; k += kWarpSize)
      problem.gradient[i * rows.columns + k] =
          static_cast<float>((pulled(k) - along * inverse * inverse * rows.wide_number(i, k)) * inverse);
  }
}

}  // namespace ec::cuda
