// SPDX-License-Identifier: Apache-2.0
// Halfspace depth and IRW on the GPU: the smaller tail of each row along each direction, the least of them
// or their mean (csrc/depth/projection_run.h).
//
// Numerics: counts, and weights as integers, both exact; so are their sums over directions, whose order
// does not show. A row counts itself on both sides in every direction; where it is left out, that is taken
// off.
#pragma once

#include "depth/projections.cuh"

namespace ec::cuda {

constexpr int kRankThreads = 256;

// ---- weights --------------------------------------------------------------------------------------

// marks[position] = NaN for a row that is not finite. A warp for each row.
static __global__ void __launch_bounds__(kRankThreads, 1)
    mark_bad_rows(AnyRows rows, Groups groups, float* marks) {
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kRankThreads / kWarpSize);
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kRankThreads + threadIdx.x) / kWarpSize;
       i < rows.count; i += warps) {
    const int64_t row = groups.row(i);
    bool finite = true;
    for (int64_t k = threadIdx.x % kWarpSize; k < rows.columns; k += kWarpSize)
      finite = finite && is_finite(rows.wide_number(row, k));
    finite = __any_sync(kAllLanes, !finite) == 0;
    if (!finite && threadIdx.x % kWarpSize == 0) marks[i] = __uint_as_float(kNotANumber);
  }
}

// totals[group] of the weights, a block each.
// Memory: shared, a double for each warp.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    total_weights(const int64_t* starts, const float* weights, double* totals) {
  double* scratch = shared_array<double>(kMomentWarps);
  double sum = 0.0;
  for (int64_t i = starts[blockIdx.x] + threadIdx.x; i < starts[blockIdx.x + 1]; i += kMomentThreads)
    sum += static_cast<double>(weights[i]);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) totals[blockIdx.x] = sum;
}

// *exponent: weights times 2 to this are integers whose sums over the corpus and the directions stay below
// 2^62. One block.
// Memory: shared, a double for each warp.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    choose_unit(const double* totals, int64_t groups, double directions, int* exponent) {
  double* scratch = shared_array<double>(kMomentWarps);
  double sum = 0.0;
  for (int64_t g = threadIdx.x; g < groups; g += kMomentThreads)
    if (is_finite(totals[g])) sum += totals[g];
  sum = block_sum(sum, scratch) * directions;
  if (threadIdx.x == 0) *exponent = sum > 0.0 ? 60 - ilogb(sum) : 0;
}

// A weight as an integer, 1 without an exponent; one that is none, which has made its group's total NaN, as
// 0.
__device__ __forceinline__ int64_t fixed_weight(float weight, const int* exponent) {
  if (exponent == nullptr) return 1;
  return weight >= 0.0f ? __double2ll_rn(ldexp(static_cast<double>(weight), *exponent)) : 0;
}

// totals[group] of those, a block each.
// Memory: shared, an int64 for each warp.
static __global__ void __launch_bounds__(kRankThreads, 1)
    total_fixed_weights(const int64_t* starts, const float* weights, const int* exponent, int64_t* totals) {
  int64_t* of_warps = shared_array<int64_t>(kRankThreads / kWarpSize);
  int64_t sum = 0;
  for (int64_t i = starts[blockIdx.x] + threadIdx.x; i < starts[blockIdx.x + 1]; i += kRankThreads)
    sum += fixed_weight(weights[i], exponent);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpSize == 0) of_warps[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kRankThreads / kWarpSize; ++w) sum += of_warps[w];
  totals[blockIdx.x] = sum;
}

// ---- tails ----------------------------------------------------------------------------------------

struct SortedKeys {
  const unsigned* keys;          // [direction][position - first_position]
  const int64_t* weights_up_to;  // the same: of all keys up to this one; null: rows count 1
  int64_t stride, first_position;
  const int64_t* starts;

  __device__ int64_t begin(int64_t group) const { return starts[group] - first_position; }
  __device__ int64_t count(int64_t group) const { return starts[group + 1] - starts[group]; }
};

// weights_up_to from places. A block for each group of the pass (x) and direction (y).
// Memory: shared, an int64 for each warp.
static __global__ void __launch_bounds__(kRankThreads, 1)
    add_up_weights(SortedKeys sorted, int64_t first_group, const unsigned* places, const float* weights,
                   const int* exponent, int64_t* up_to) {
  constexpr int kWarps = kRankThreads / kWarpSize;
  int64_t* of_warps = shared_array<int64_t>(kWarps);
  const int64_t group = first_group + blockIdx.x, count = sorted.count(group);
  const int64_t at = blockIdx.y * sorted.stride + sorted.begin(group);
  const float* own = weights + sorted.starts[group];
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  int64_t before = 0;
  for (int64_t base = 0; base < count; base += kRankThreads) {
    const int64_t i = base + threadIdx.x;
    int64_t sum = i < count ? fixed_weight(own[places[at + i]], exponent) : 0;
    for (int step = 1; step < kWarpSize; step *= 2) {
      const int64_t other = __shfl_sync(kAllLanes, sum, max(lane - step, 0));
      if (lane >= step) sum += other;
    }
    __syncthreads();
    if (lane == kWarpSize - 1) of_warps[warp] = sum;
    __syncthreads();
    sum += before;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) sum += of_warps[w];
      before += of_warps[w];
    }
    if (i < count) up_to[at + i] = sum;
  }
}

// What has been found of each group and row so far.
struct ScoredKeys {
  const unsigned* keys;  // [direction][row], in the order of positions where rows are their own corpus
  int64_t stride, rows;
  int64_t directions;         // of this block of them
  unsigned long long* found;  // [group][row]
};

// The directions of a slice of the grid (y).
struct Slice {
  int64_t begin, end;
  __device__ explicit Slice(int64_t directions)
      : begin(directions * blockIdx.y / gridDim.y), end(directions * (blockIdx.y + 1) / gridDim.y) {}
};

// found += or = min(found, .) of the smaller tails. A thread for each row and group of the pass.
template <bool kSum>
__global__ void __launch_bounds__(kRankThreads, 1)
    find_tails(SortedKeys sorted, ScoredKeys scored, int64_t first_group, int64_t groups) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kRankThreads + threadIdx.x;
  if (thread >= scored.rows * groups) return;
  const int64_t row = thread % scored.rows, group = first_group + thread / scored.rows;
  const int64_t begin = sorted.begin(group), count = sorted.count(group);
  const Slice slice(scored.directions);
  unsigned long long found = kSum ? 0ull : ~0ull;
  for (int64_t direction = slice.begin; direction < slice.end; ++direction) {
    const unsigned own = scored.keys[direction * scored.stride + row];
    const unsigned* keys = sorted.keys + direction * sorted.stride + begin;
    const int64_t less = keys_below<false>(keys, count, own);
    int64_t at_most = less;
    if (less < count && keys[less] == own) at_most += keys_below<true>(keys + less, count - less, own);
    int64_t below = at_most, above = count - less;
    if (sorted.weights_up_to != nullptr && count > 0) {
      const int64_t* up_to = sorted.weights_up_to + direction * sorted.stride + begin;
      below = at_most > 0 ? up_to[at_most - 1] : 0;
      above = up_to[count - 1] - (less > 0 ? up_to[less - 1] : 0);
    }
    const auto tail = static_cast<unsigned long long>(min(below, above));
    found = kSum ? found + tail : min(found, tail);
  }
  unsigned long long* to = scored.found + group * scored.rows + row;
  if (kSum)
    atomicAdd(to, found);
  else
    atomicMin(to, found);
}

// ---- depths ---------------------------------------------------------------------------------------

struct DirectionFinish {
  AnyRows rows;
  Groups groups;  // of the corpus
  bool own;       // rows are left out of their own groups, and stand as positions
  const unsigned long long* found;
  const float* marks;    // NaN for rows that have no depth
  const float* weights;  // [position]
  const double* totals;  // of the weights; NaN where no row has a depth
  const int64_t* fixed_totals;
  const int* exponent;  // of fixed weights; null: rows count 1
  int64_t times;        // a row has counted itself: in each direction of a mean, or once
  Depths depths;
};

// Of tails, or with kOutlying of the bits of the largest |t - median| / MAD. A thread for each row and
// group.
template <bool kOutlying>
__global__ void __launch_bounds__(kRankThreads, 1) finish_directions(DirectionFinish finish) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kRankThreads + threadIdx.x;
  if (thread >= finish.rows.count * finish.groups.count) return;
  const int64_t at = thread % finish.rows.count, group = thread / finish.rows.count;
  const bool left_out = finish.own && finish.groups.group_of(at) == group;
  const float own = left_out ? finish.weights[at] : 0.0f;
  const unsigned long long found = finish.found[thread];
  double depth = not_a_number();
  if (is_number(finish.marks[at]) && finish.totals[group] - static_cast<double>(own) > 0.0) {
    if (kOutlying) {
      depth = 1.0 / (1.0 + static_cast<double>(__uint_as_float(static_cast<unsigned>(found))));
    } else {
      const int64_t itself = left_out ? fixed_weight(own, finish.exponent) : 0;
      const int64_t remaining = finish.fixed_totals[group] - itself;
      const auto tails = static_cast<double>(static_cast<int64_t>(found) - finish.times * itself);
      // Less weight than the total's last digit is none.
      depth =
          remaining <= 0 ? 0.0 : tails / static_cast<double>(finish.times) / static_cast<double>(remaining);
    }
  }
  finish.depths.store(finish.own ? finish.groups.row(at) : at, group, depth);
}

}  // namespace ec::cuda
