// SPDX-License-Identifier: Apache-2.0
// Projection depth on the GPU: medians and median absolute deviations of sorted projections, also without
// each of them in turn, and how far rows lie out (csrc/depth/projection_run.h).
//
// Numerics: float32, as on the CPU. The deviations from a median are two sorted sequences, those to its
// left and those to its right; the k-th of both is found by halving how many come from the left.
#pragma once

#include "depth/ranks.cuh"

namespace ec::cuda {

__device__ __forceinline__ float infinite_float() { return __uint_as_float(0x7f800000u); }

// Numbers in order, from sorted keys: themselves, or their distances from a center.
struct SortedNumbers {
  const unsigned* keys;
  int64_t count;

  __device__ float of_rank(int64_t k) const { return value_of(keys[k]); }
};
struct SortedDeviations {
  const unsigned* keys;
  int64_t count;
  float center;
  int64_t left;  // how many are below the center

  __device__ SortedDeviations(const SortedNumbers& numbers, float center_given)
      : keys(numbers.keys),
        count(numbers.count),
        center(center_given),
        left(keys_below<false>(numbers.keys, numbers.count, key_of(center_given))) {}

  __device__ float to_left(int64_t i) const { return center - value_of(keys[left - 1 - i]); }
  __device__ float to_right(int64_t i) const { return value_of(keys[left + i]) - center; }
  __device__ float of_rank(int64_t k) const {
    const int64_t taken = k + 1, right = count - left;
    int64_t low = max(int64_t{0}, taken - right), high = min(taken, left);  // of those to the left
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      // One more is wanted while the last from the right lies beyond the next to the left.
      const bool more = to_right(taken - middle - 1) > to_left(middle);
      low = more ? middle + 1 : low;
      high = more ? high : middle;
    }
    float found = 0.0f;
    if (low > 0) found = fmaxf(found, to_left(low - 1));
    if (taken > low) found = fmaxf(found, to_right(taken - low - 1));
    return found;
  }
};

// That of an even number is the mean of the two in the middle.
template <class Numbers>
__device__ __forceinline__ float median_of(const Numbers& numbers) {
  const int64_t half = numbers.count / 2;
  const float middle = numbers.of_rank(half);
  return numbers.count % 2 != 0 ? middle : 0.5f * (numbers.of_rank(half - 1) + middle);
}

// The median without one value, which matters through its side of the middle alone: [0] below the pivot,
// [1] equal to it, [2] above.
struct LeftOutMedian {
  float pivot;
  float median[3];

  __device__ float without(float value) const {
    return value < pivot ? median[0] : value > pivot ? median[2] : median[1];
  }
};

// With s the sorted numbers and h = count / 2: an even number of them keeps s[h] when one up to s[h - 1] is
// missing, else s[h - 1]; an odd one the two of s[h - 1], s[h], s[h + 1] that are then in the middle.
// Requires: two numbers at least.
template <class Numbers>
__device__ __forceinline__ LeftOutMedian left_out_median(const Numbers& numbers) {
  const int64_t half = numbers.count / 2;
  const float below = numbers.of_rank(half - 1), middle = numbers.of_rank(half);
  if (numbers.count % 2 == 0) return {below, {middle, middle, below}};
  const float above = numbers.of_rank(half + 1);
  return {middle, {0.5f * (middle + above), 0.5f * (below + above), 0.5f * (below + middle)}};
}

// Of one group along one direction.
struct Spread {
  float median, deviation;
  LeftOutMedian center;
  LeftOutMedian deviations[3];  // about center.median[i]
};

__device__ __forceinline__ float outlying(float distance, float deviation) {
  return distance > 0.0f ? distance / deviation : 0.0f;
}

// spreads[direction][group of the pass]. A thread each. left_out: whether rows are scored without
// themselves.
constexpr int kSpreadThreads = 64;
static __global__ void __launch_bounds__(kSpreadThreads, 1)
    find_spreads(SortedKeys sorted, int64_t directions, int64_t first_group, int64_t groups, bool left_out,
                 Spread* spreads) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kSpreadThreads + threadIdx.x;
  if (thread >= directions * groups) return;
  const int64_t direction = thread / groups, group = first_group + thread % groups;
  const SortedNumbers numbers = {sorted.keys + direction * sorted.stride + sorted.begin(group),
                                 sorted.count(group)};
  if (numbers.count == 0) return;  // no row has a depth in it
  Spread& to = spreads[thread];
  to.median = median_of(numbers);
  to.deviation = median_of(SortedDeviations(numbers, to.median));
  if (!left_out || numbers.count < 2) return;
  const LeftOutMedian center = left_out_median(numbers);
  to.center = center;
#pragma unroll 1
  for (int side = 0; side < 3; ++side) {
    const float median = side == 0 ? center.median[0] : side == 1 ? center.median[1] : center.median[2];
    to.deviations[side] = left_out_median(SortedDeviations(numbers, median));
  }
}

// found = max(found, bits of |t - median| / MAD), which are in the order of the numbers. A thread for each
// row and group of the pass.
static __global__ void __launch_bounds__(kRankThreads, 1)
    find_outlying(SortedKeys sorted, ScoredKeys scored, int64_t first_group, int64_t groups, bool own,
                  const Spread* spreads) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kRankThreads + threadIdx.x;
  if (thread >= scored.rows * groups) return;
  const int64_t row = thread % scored.rows, in_pass = thread / scored.rows, group = first_group + in_pass;
  if (sorted.count(group) == 0) return;
  const bool left_out = own && sorted.starts[group] <= row && row < sorted.starts[group + 1];
  if (left_out && sorted.count(group) < 2) return;
  const Slice slice(scored.directions);
  float worst = 0.0f;
  for (int64_t direction = slice.begin; direction < slice.end; ++direction) {
    const Spread& spread = spreads[direction * groups + in_pass];
    const float value = value_of(scored.keys[direction * scored.stride + row]);
    float distance = fabsf(value - spread.median), deviation = spread.deviation;
    if (left_out) {
      const float pivot = spread.center.pivot;
      const int side = value < pivot ? 0 : value > pivot ? 2 : 1;
      distance = fabsf(value - spread.center.without(value));
      deviation = spread.deviations[side].without(distance);
    }
    worst = fmaxf(worst, outlying(distance, deviation));
  }
  atomicMax(scored.found + group * scored.rows + row,
            static_cast<unsigned long long>(__float_as_uint(worst)));
}

}  // namespace ec::cuda
