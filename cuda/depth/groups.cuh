// SPDX-License-Identifier: Apache-2.0
// Where the rows of groups stand, and what marks a result that is none.
#pragma once

#include "common/numbers.cuh"

namespace ec::cuda {

constexpr unsigned kNotANumber = 0x7fc00000u;  // its bits
__device__ __forceinline__ double not_a_number() {
  return static_cast<double>(__uint_as_float(kNotANumber));
}

// Which row stands where. order: null for rows in their own order.
struct Groups {
  const int64_t* order;
  const int64_t* starts;  // [count + 1]; null: one group of all rows
  int64_t count, rows;

  __device__ int64_t row(int64_t position) const { return order == nullptr ? position : order[position]; }
  __device__ int64_t size(int64_t group) const {
    return starts == nullptr ? rows : starts[group + 1] - starts[group];
  }
  __device__ int64_t group_of(int64_t position) const {
    int64_t low = 0, high = count;  // starts[low] <= position < starts[high]
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (starts[middle] <= position ? low : high) = middle;
    }
    return low;
  }
};

}  // namespace ec::cuda
