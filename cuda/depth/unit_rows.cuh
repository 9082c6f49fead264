// SPDX-License-Identifier: Apache-2.0
// Lengths of rows, and rows of unit length in bf16 for the tensor cores.
#pragma once

#include "common/warp.cuh"
#include "depth/groups.cuh"

namespace ec::cuda {

constexpr int kWarpColumns = kWarpSize * kTogether;  // that a warp loads at once

// What a sum of squares may be, so that neither overflow nor underflow has cost digits; and what brings the
// numbers of other rows into that range.
constexpr float kLeastSquare = 1e-26f, kMostSquare = 1e38f;
constexpr float kEnlarging = 1.2676506e30f, kReducing = 7.8886091e-31f;  // 2^100 and 2^-100

// Number times first times second is that of the unit row: 1 / |row| alone may not be a float.
struct Scaling {
  float first, second;  // second: NaN for a row without a direction

  __device__ float unit(float number) const { return number * first * second; }
  __device__ bool known() const { return second == second; }
};

// All lanes of a warp call it; square: the sum of their squares.
template <bool kWhole, class T>
__device__ __forceinline__ Scaling scaling_of(const T* row, int columns, float square) {
  if (square >= kLeastSquare && square <= kMostSquare) return {1.0f, 1.0f / sqrtf(square)};
  const float first = square < kLeastSquare ? kEnlarging : kReducing;  // of NaN either is
  float scaled = 0.0f;
  for (int at = static_cast<int>(threadIdx.x) % kWarpSize * kTogether; at < columns; at += kWarpColumns) {
    float numbers[kTogether];
    load_columns<kWhole>(row, at, columns, numbers);
    for (int i = 0; i < kTogether; ++i) scaled += (numbers[i] * first) * (numbers[i] * first);
  }
  scaled = warp_sum(scaled);
  const bool directed = scaled > 0.0f && scaled <= 3.4028235e38f;
  return {first, directed ? 1.0f / sqrtf(scaled) : __uint_as_float(kNotANumber)};
}

// Nearest, ties to even. Requires: a is finite.
__device__ __forceinline__ unsigned bfloat_bits(float a) {
  const unsigned bits = __float_as_uint(a);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// Numbers as bf16, and what that leaves of them.
__device__ __forceinline__ void split_four(const float (&numbers)[kTogether], unsigned (&bits)[kTogether],
                                           unsigned (&rest)[kTogether]) {
  for (int k = 0; k < kTogether; ++k) {
    bits[k] = bfloat_bits(numbers[k]);
    rest[k] = bfloat_bits(numbers[k] - __uint_as_float(bits[k] << 16));
  }
}

__device__ __forceinline__ void store_four(const unsigned (&bits)[kTogether], BFloat* to) {
  *reinterpret_cast<uint2*>(to) = uint2{bits[0] | bits[1] << 16, bits[2] | bits[3] << 16};
}

}  // namespace ec::cuda
