// SPDX-License-Identifier: Apache-2.0
// Turning a square of numbers of 32 bits; included by kernels only.
#pragma once

#include EC_ISA_HEADER

namespace ec {
namespace EC_ISA {

// Lane j of a[i] becomes lane i of a[j].
static inline __attribute__((always_inline)) void transpose(VF (&a)[kLanes]) {
  // Each turn doubles the run of rows that a vector holds of one column.
  _Pragma("GCC unroll 4") for (int run = 1; run < kLanes; run *= 2) {
    VF b[kLanes];
    _Pragma("GCC unroll 8") for (int i = 0; i < kLanes / 2; ++i)
        interleave(a[i], a[i + kLanes / 2], &b[2 * i], &b[2 * i + 1]);
    _Pragma("GCC unroll 16") for (int i = 0; i < kLanes; ++i) a[i] = b[i];
  }
}

}  // namespace EC_ISA
}  // namespace ec
