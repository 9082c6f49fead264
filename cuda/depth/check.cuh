// SPDX-License-Identifier: Apache-2.0
// The first row, or weight, that has no depth; and float64 rows as float32.
#pragma once

#include "depth/group_tables.cuh"
#include "depth/shifted_rows.cuh"

namespace ec::cuda {

constexpr int kCheckThreads = 256;

// *found = the least row * kBadValues + BadValue (depth.h). Requires: all bits of *found are 1 before. A
// warp for each row.
static __global__ void __launch_bounds__(kCheckThreads, 1)
    check_rows(AnyRows rows, bool zeros_are_bad, unsigned long long* found) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kCheckThreads / kWarpSize);
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kCheckThreads + threadIdx.x) / kWarpSize;
       i < rows.count; i += warps) {
    bool finite = true, zero = true;
    for (int64_t k = lane; k < rows.columns; k += kWarpSize) {
      const double number = rows.wide_number(i, k);
      finite = finite && is_finite(number);
      zero = zero && number == 0.0;
    }
    const bool all_finite = __any_sync(kAllLanes, !finite) == 0,
               all_zero = __any_sync(kAllLanes, !zero) == 0;
    if (lane != 0 || (all_finite && !(all_zero && zeros_are_bad))) continue;
    const BadValue bad = all_finite ? BadValue::kZero : BadValue::kNotFinite;
    atomicMin(found, static_cast<unsigned long long>(i * kBadValues + static_cast<int64_t>(bad)));
  }
}

static __global__ void __launch_bounds__(kCheckThreads, 1)
    check_weights(Weights weights, int64_t count, unsigned long long* found) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kCheckThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kCheckThreads + threadIdx.x; i < count; i += step) {
    if (is_weight(weights.of(i))) continue;
    atomicMin(found,
              static_cast<unsigned long long>(i * kBadValues + static_cast<int64_t>(BadValue::kWeight)));
  }
}

// to[row] = a row as float32, times a power of two that brings its largest number to 1 at least, below 2:
// its direction is the same. A row that is not finite becomes NaN. A warp for each row.
static __global__ void __launch_bounds__(kCheckThreads, 1)
    narrow_rows(AnyRows rows, float* to, int64_t stride) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kCheckThreads / kWarpSize);
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kCheckThreads + threadIdx.x) / kWarpSize;
       i < rows.count; i += warps) {
    double largest = 0.0;
    bool finite = true;
    for (int64_t k = lane; k < rows.columns; k += kWarpSize) {
      const double number = rows.wide_number(i, k);
      finite = finite && is_finite(number);
      largest = fmax(largest, fabs(number));
    }
    finite = __any_sync(kAllLanes, !finite) == 0;
    largest = warp_max(largest);
    const int exponent = finite && largest > 0.0 ? -ilogb(largest) : 0;
    for (int64_t k = lane; k < rows.columns; k += kWarpSize)
      to[i * stride + k] = finite ? static_cast<float>(ldexp(rows.wide_number(i, k), exponent))
                                  : __uint_as_float(kNotANumber);
  }
}

}  // namespace ec::cuda
