// SPDX-License-Identifier: Apache-2.0
// What a bound must not be below to be among the best of a query of which nothing is known yet, from the
// bounds of its first tile: each of them would be sorted in without it.
//
// Lanes have bounds as they have products (best_rows.cuh). A bar is what at least as many rows of the tile
// reach as are kept, so that whatever is below it cannot be kept, and is the better the fewer reach it. It
// is found by trying: how many reach a bar is certain, and nothing else makes it one. Bounds are made anew
// for each try, by units that have nothing else to do; there are no registers for them.
#pragma once

#include "common/warp.cuh"

namespace ec::cuda::ann {

constexpr int kBarRounds = 6;
// For each of so many that are kept another may reach a bar, and no better one is looked for.
constexpr int kSpareOf = 2;

// What is made of a number before is not kept in registers until after.
__device__ __forceinline__ void forget(int& number) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(number));
#else
  static_cast<void>(number);
#endif
}

// How many bounds of each of the lane's two queries reach what is tried. All lanes.
template <int kNumbers, class Bound>
__device__ __forceinline__ void count_reaching(const Bound& bound, const float (&tried)[2],
                                               int (&counts)[2]) {
  int parts[4] = {};  // none waits for the others
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) parts[i % 4] += bound(i) >= tried[i / 2 % 2] ? 1 : 0;
  int both = parts[0] + parts[1] + ((parts[2] + parts[3]) << 16);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) both += __shfl_xor_sync(kAllLanes, both, step);
  counts[0] = both & 0xffff;
  counts[1] = both >> 16;
}

// The least of what 32 groups of a query's bounds have for their greatest, which some 32 and more of them
// reach; and the greatest of all. Bounds that are not numbers are passed over.
template <int kNumbers, class Bound>
__device__ __forceinline__ void find_ends(const Bound& bound, float (&low)[2], float (&high)[2]) {
  constexpr int kGroup = kNumbers / 8;  // of both queries
#pragma unroll
  for (int first = 0; first < kNumbers; first += kGroup) {
    float most[2];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      float& own = most[i / 2 % 2];
      own = i < 4 && i % 2 == 0 ? bound(first + i) : fmaxf(own, bound(first + i));
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      low[half] = first == 0 ? most[half] : fminf(low[half], most[half]);
      high[half] = first == 0 ? most[half] : fmaxf(high[half], most[half]);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      low[half] = fminf(low[half], __shfl_xor_sync(kAllLanes, low[half], step));
      high[half] = fmaxf(high[half], __shfl_xor_sync(kAllLanes, high[half], step));
    }
  }
}

// Raises the bars of the lane's two queries, which begin as -infinity; those that are not numbers stay.
// bound: of a lane, and the number of a product. All lanes; the four of a query find the same.
template <int kNumbers, class Bound>
__device__ __forceinline__ void find_bars(const Bound& bound, int lane, int kept, float (&bars)[2]) {
  const auto own = [&](int i) { return bound(lane, i); };
  float tried[2], above[2], step[2];
  find_ends<kNumbers>(own, tried, above);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (bars[half] != bars[half]) tried[half] = bars[half];  // which nothing reaches
    step[half] = above[half] - tried[half];
  }
#pragma unroll 1
  for (int round = 0; round < kBarRounds; ++round) {
    forget(lane);
    int counts[2];
    count_reaching<kNumbers>(own, tried, counts);
    bool wanting = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool enough = counts[half] >= kept;
      bars[half] = enough ? tried[half] : bars[half];
      above[half] = enough ? above[half] : tried[half];
      // Between what is known of both sides; else further down.
      const bool found = bars[half] > __uint_as_float(0xff800000u);
      const float next = found ? 0.5f * bars[half] + 0.5f * above[half] : tried[half] - step[half];
      step[half] *= 2.0f;
      const bool other =
          (!enough || counts[half] > kept + kept / kSpareOf) && next > bars[half] && next < above[half];
      tried[half] = other ? next : bars[half];
      wanting = wanting || other;
    }
    if (__any_sync(kAllLanes, wanting ? 1 : 0) == 0) return;
  }
}

}  // namespace ec::cuda::ann
