// SPDX-License-Identifier: Apache-2.0
// Where groups start, on the device.
#pragma once

#include "depth/depth.h"
#include "depth/group_tables.cuh"

namespace ec::cuda {

// As parameters of the kernel (GroupStarts).
static __global__ void __launch_bounds__(kGroupsTogether + 1, 1)
    write_starts(const __grid_constant__ GroupStarts given, int64_t first, int count, int64_t* starts) {
  if (static_cast<int>(threadIdx.x) < count) starts[first + threadIdx.x] = given.starts[threadIdx.x];
}

// starts[groups + 1], from those that the problem has on the host.
inline void send_starts(const DepthProblem& problem, int64_t corpus_rows, int64_t* starts, Stream stream) {
  for (int64_t first = 0; first <= problem.groups; first += kGroupsTogether) {
    const auto count = static_cast<int>(min(problem.groups + 1 - first, int64_t{kGroupsTogether}));
    GroupStarts given = {};
    for (int i = 0; i < count; ++i)
      given.starts[i] = problem.starts != nullptr ? problem.starts[first + i]
                        : first + i == 0          ? 0
                                                  : corpus_rows;
    EC_LAUNCH(write_starts, 1, kGroupsTogether + 1, 0, stream, given, first, count, starts);
  }
}

}  // namespace ec::cuda
