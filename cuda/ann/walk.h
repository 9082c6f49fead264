// SPDX-License-Identifier: Apache-2.0
// When queries walk through the graph, and how far.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ec::cuda::ann {

constexpr int kDegree = 32;
constexpr int kWidenings = 4;   // pools of 1, 2, 4 and 8 times the base
constexpr int kMostPool = 512;  // rows

// A pool is the best rows that a walk has met, passing or not; the walk ends when it has looked at the
// neighbours of all of them. Where so many of them pass as the recall takes when all do, the others are as
// good as there.
struct WalkPlan {
  int base;                   // rows of a pool that meet the recall where all pass; 0: nothing walks
  int64_t least[kWidenings];  // with a pool of base << i: rows that must pass for a scan to be slower
  int64_t living;

  // The rows of the pool; 0: a scan.
  __host__ __device__ int pool(int64_t passing) const {
    for (int i = 0; base > 0 && i < kWidenings; ++i) {
      if (10 * (passing << i) < 9 * living) continue;
      return passing >= least[i] && base << i <= kMostPool ? base << i : 0;
    }
    return 0;
  }
  // How many rows of the pool must pass for the answer to stand.
  __host__ __device__ int enough(int k) const {
    const int most = 4 * base / 5;
    return most > k ? most : k;
  }
};

struct Graph {
  const uint32_t* links;  // [rows][kDegree], kNoLink behind the last
  const uint32_t* entries;
  int64_t entry_count;
  const unsigned* alive;  // bits; null: every slot
  WalkPlan plan;
};

}  // namespace ec::cuda::ann
