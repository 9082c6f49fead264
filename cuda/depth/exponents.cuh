// SPDX-License-Identifier: Apache-2.0
// Binary exponents of the largest of many numbers, found by all threads at once.
#pragma once

#include "common/platform.h"

namespace ec::cuda {

// Exponents as positive numbers, so that memory cleared to 0 stands for none.
constexpr int kExponentBias = 4096;

// The binary exponent of a number that is not 0, biased; 0 of 0.
__device__ __forceinline__ int biased_exponent(double number) {
  return number == 0.0 ? 0 : ilogb(number) + kExponentBias;
}

}  // namespace ec::cuda
