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

__device__ __forceinline__ double warp_max(double value) {
  for (int step = kWarpSize / 2; step > 0; step /= 2)
    value = fmax(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

}  // namespace ec::cuda
