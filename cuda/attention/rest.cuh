// SPDX-License-Identifier: Apache-2.0
// What rounding to 16 bits leaves of a number, in 8 bits: in 256ths of the step from the rounded number to
// the next of its binade. Together they have all but the last 8 digits of a float32.
#pragma once

#include "common/numbers.cuh"

namespace ec::cuda {

__device__ __forceinline__ float least_normal(Half) { return 6.103515625e-05f; }
__device__ __forceinline__ float least_normal(BFloat) { return 1.17549435e-38f; }
__device__ __forceinline__ float step_share(Half) { return 1.0f / (1 << 10); }
__device__ __forceinline__ float step_share(BFloat) { return 1.0f / (1 << 7); }

// The 256th of a step at `a`: a power of two.
template <class Short>
__device__ __forceinline__ float rest_unit(Short a) {
  const float power = __uint_as_float(__float_as_uint(to_float(a)) & 0x7f800000u);
  return fmaxf(power, least_normal(a)) * (step_share(a) / 256.0f);
}

// 0 where one of the two is not finite.
template <class Short>
__device__ __forceinline__ int8_t rest_of(float exact, Short a) {
  const float units = (exact - to_float(a)) / rest_unit(a);
  if (!(fabsf(units) <= 128.0f)) return 0;
  return static_cast<int8_t>(rintf(fminf(units, 127.0f)));
}
__device__ __forceinline__ int8_t rest_of(float, float) { return 0; }

template <class Short>
__device__ __forceinline__ float with_rest(Short a, int8_t rest) {
  return rest == 0 ? to_float(a) : __fmaf_rn(static_cast<float>(rest), rest_unit(a), to_float(a));
}
__device__ __forceinline__ float with_rest(float a, int8_t) { return a; }

// Four numbers; rest is on 4 bytes.
template <class T>
__device__ __forceinline__ void load_with_rest(const T* from, const int8_t* rest, float (&to)[kTogether]) {
  load_four(from, to);
  const unsigned four = *reinterpret_cast<const unsigned*>(rest);
#pragma unroll
  for (int i = 0; i < kTogether; ++i)
    to[i] = with_rest(rounded(to[i], T{}), static_cast<int8_t>(four >> 8 * i & 255u));
}

}  // namespace ec::cuda
