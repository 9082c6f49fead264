// SPDX-License-Identifier: Apache-2.0
// How a query was answered, for whoever asks.
#pragma once

#include <cstdint>

namespace ec::cuda::ann {

enum class Way : int64_t { kWalk = 0, kList = 1, kBits = 2 };

// As ec_cuda_ann_search_options has them.
struct Explanation {
  int64_t passing;
  int64_t pool;  // of the walk; 0: none was planned
  int64_t met;   // rows that the walk has scored
  Way way;       // by which candidates were found
  int64_t measured;
};

}  // namespace ec::cuda::ann
