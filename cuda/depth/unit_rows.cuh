// SPDX-License-Identifier: Apache-2.0
// Lengths of rows, and rows of unit length in bf16 for the tensor cores.
#pragma once

#include "common/numbers.cuh"
#include "common/warp.cuh"

namespace ec::cuda {

constexpr int kWarpColumns = kWarpSize * kTogether;  // that a warp loads at once
constexpr unsigned kNotANumber = 0x7fc00000u;        // its bits

// What a sum of squares may be, so that neither overflow nor underflow has cost digits.
constexpr float kLeastSquare = 1e-26f, kMostSquare = 1e38f;

// 1 / |row|: NaN for rows without a direction. All lanes of a warp call it; square: the sum of theirs.
template <bool kWhole, class T>
__device__ __forceinline__ float inverse_length(const T* row, int columns, float square) {
  if (square >= kLeastSquare && square <= kMostSquare) return 1.0f / sqrtf(square);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  float largest = 0.0f;
  bool finite = true;
  for (int at = lane * kTogether; at < columns; at += kWarpColumns) {
    float numbers[kTogether];
    load_columns<kWhole>(row, at, columns, numbers);
    for (int i = 0; i < kTogether; ++i) {
      finite = finite && fabsf(numbers[i]) <= 3.4028235e38f;
      largest = fmaxf(largest, fabsf(numbers[i]));
    }
  }
  largest = warp_max(largest);
  if (__any_sync(kAllLanes, !finite) || largest == 0.0f) return __uint_as_float(kNotANumber);
  float scaled = 0.0f;
  for (int at = lane * kTogether; at < columns; at += kWarpColumns) {
    float numbers[kTogether];
    load_columns<kWhole>(row, at, columns, numbers);
    for (int i = 0; i < kTogether; ++i) {
      const float number = numbers[i] / largest;
      scaled += number * number;
    }
  }
  return 1.0f / sqrtf(warp_sum(scaled)) / largest;
}

// Nearest, ties to even. Requires: a is finite.
__device__ __forceinline__ unsigned bfloat_bits(float a) {
  const unsigned bits = __float_as_uint(a);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

__device__ __forceinline__ void store_four(const unsigned (&bits)[kTogether], BFloat* to) {
  *reinterpret_cast<uint2*>(to) = uint2{bits[0] | bits[1] << 16, bits[2] | bits[3] << 16};
}

// unit[i][0 .. padded) = row i / |row i| in bf16, zeros behind its columns, and all zeros where it has no
// direction; strict: then its rest, in bf16 too. inverse[i] = 1 / |row i|, NaN there, which *missing (may
// be null) counts. A warp each; padded: a multiple of 4.
template <class T, bool kWhole>
__global__ void __launch_bounds__(256, 1)
    round_unit_rows(Rows<T> rows, int padded, bool strict, BFloat* unit, float* inverse, int* missing) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t stride = strict ? 2 * padded : padded;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarpSize;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpSize;
       i < rows.count; i += warps) {
    const T* row = rows.row(i);
    float square = 0.0f;
    for (int at = lane * kTogether; at < rows.columns; at += kWarpColumns) {
      float numbers[kTogether];
      load_columns<kWhole>(row, at, rows.columns, numbers);
      for (int k = 0; k < kTogether; ++k) square += numbers[k] * numbers[k];
    }
    const float length = inverse_length<kWhole>(row, rows.columns, warp_sum(square));
    const bool directed = length == length;
    for (int at = lane * kTogether; at < padded; at += kWarpColumns) {
      float numbers[kTogether];
      load_columns<kWhole>(row, at, rows.columns, numbers);
      unsigned bits[kTogether], rest[kTogether];
      for (int k = 0; k < kTogether; ++k) {
        const float number = directed ? numbers[k] * length : 0.0f;
        bits[k] = bfloat_bits(number);
        rest[k] = bfloat_bits(number - __uint_as_float(bits[k] << 16));
      }
      store_four(bits, unit + i * stride + at);
      if (strict) store_four(rest, unit + i * stride + padded + at);
    }
    if (lane == 0) {
      inverse[i] = length;
      if (!directed && missing != nullptr) atomicAdd(missing, 1);
    }
  }
}

}  // namespace ec::cuda
