// SPDX-License-Identifier: Apache-2.0
// Powers of two by which numbers are divided to where float16 has all its digits, and numbers of fewer
// digits than they were given with.
#pragma once

#include "common/numbers.cuh"

namespace ec::cuda {

// Numbers up to `largest` divided by it lie below 2^13. Those of 2^-26 of the largest and more keep all
// digits of float16, and of smaller ones no more than 2^-37 of the largest is lost.
__device__ __forceinline__ float power_for(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23 & 255u);
  return __uint_as_float(static_cast<unsigned>(max(1, exponent - 12)) << 23);
}

// 1 / a power of two from 2^-126 to 2^126.
__device__ __forceinline__ float inverse_power(float power) {
  return __uint_as_float(0x7f000000u - __float_as_uint(power));
}

// Without the last `dropped` of the 24 digits; ties to even.
__device__ __forceinline__ float with_digits_dropped(float number, int dropped) {
  if (dropped == 0 || !(fabsf(number) < HUGE_VALF)) return number;
  const unsigned bits = __float_as_uint(number), half = 1u << (dropped - 1);
  return __uint_as_float((bits + half - 1u + (bits >> dropped & 1u)) & ~(2u * half - 1u));
}

}  // namespace ec::cuda
