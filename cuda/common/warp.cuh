// SPDX-License-Identifier: Apache-2.0
// What the lanes of a warp find together. All 32 take part, and all get the result.
#pragma once

#include "common/platform.h"

namespace ec::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Of numbers that are not NaN.
__device__ __forceinline__ float warp_max(float value) {
  for (int step = kWarpSize / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// Four lanes side by side have four words each: lane i gets word i of each of them, in their order.
__device__ __forceinline__ void transpose_words(unsigned (&words)[4]) {
  const bool odd = (threadIdx.x & 1) != 0, upper = (threadIdx.x & 2) != 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const unsigned other = __shfl_xor_sync(kAllLanes, odd ? words[i] : words[i + 1], 1);
    (odd ? words[i] : words[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned other = __shfl_xor_sync(kAllLanes, upper ? words[i] : words[i + 2], 2);
    (upper ? words[i] : words[i + 2]) = other;
  }
}

__device__ __forceinline__ double warp_max(double value) {
  for (int step = kWarpSize / 2; step > 0; step /= 2)
    value = fmax(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

}  // namespace ec::cuda
