// SPDX-License-Identifier: Apache-2.0
// From the products of a tile (common/hopper.cuh has their layout) to sums over its rows and, where rows
// are their own corpus, over its columns; see pair_tiles.cuh.
//
// Numerics: sums over what a thread has of a row of a tile, 64 numbers, over the 4 that share the row, and
// over the 16 rows that a warp has of a column in float32. From there on as whole numbers of 1 / scale, in
// which the sum of all weights is some 2^61: these may be added in any order. Summed is what a distance
// falls short of that of c = 0, of which the sum is known: pairs that are to count for nothing have c = 0.
#pragma once

#include "depth/hopper/panels.cuh"
#include "depth/pairwise.cuh"

namespace ec::cuda {

struct HopperSide {
  Panels panels;
  const Scaling* scalings;
  AnyRows given;
};

struct HopperProblem {
  HopperSide rows, others;  // with the same parts and blocks
  const float* weights;     // of the others, 0 beyond the last one up to a whole tile; null: 1 each
  int row_tiles, other_tiles, shares, laps;  // of all blocks over the items
  // [rows up to whole tiles][2]: sums of weight * (distance of c = 0 - distance), and of weight * c~, times
  // *scale.
  unsigned long long* sums;
  const double* scale;
};

// What c~ = 0 stands for.
template <PairMetric kMetric>
EC_HD constexpr double middle_distance() {
  return kMetric == PairMetric::kArc ? kPi / 2.0 : 1.41421356237309505;
}

constexpr int kAbreast = 8;  // numbers whose distances are taken together, so that none waits for itself

// middle_distance - distance, of c in [-1, 1] and a little beyond; exactly 0 for 0.
template <PairMetric kMetric>
__device__ __forceinline__ void shortfalls_at(const float (&c)[kAbreast], float (&shortfalls)[kAbreast]) {
  if (kMetric == PairMetric::kChord) {
#pragma unroll
    for (int i = 0; i < kAbreast; ++i)
      shortfalls[i] = near_root(2.0f) - near_root(fabsf(__fmaf_rn(-2.0f, c[i], 2.0f)));
    return;
  }
  // Numbers of its own: device code has no way to an array of the host.
  constexpr float coefficient[kArcDegree + 1] = {kArcCoefficient[0], kArcCoefficient[1], kArcCoefficient[2],
                                                 kArcCoefficient[3], kArcCoefficient[4], kArcCoefficient[5],
                                                 kArcCoefficient[6]};
  float p[kAbreast], root[kAbreast];
#pragma unroll
  for (int i = 0; i < kAbreast; ++i)
    p[i] = coefficient[kArcDegree], root[i] = near_root(fabsf(1.0f - fabsf(c[i])));
#pragma unroll
  for (int degree = kArcDegree - 1; degree >= 0; --degree)
#pragma unroll
    for (int i = 0; i < kAbreast; ++i) p[i] = __fmaf_rn(p[i], fabsf(c[i]), coefficient[degree]);
#pragma unroll
  for (int i = 0; i < kAbreast; ++i) {
    const float shortfall = __fmaf_rn(-root[i], p[i], coefficient[0]);
    shortfalls[i] = __uint_as_float(__float_as_uint(shortfall) ^ (__float_as_uint(c[i]) & 0x80000000u));
  }
}

// The largest |c| of a thread.
__device__ __forceinline__ float largest_of(const float (&c)[kThreadNumbers]) {
  float largest[kAbreast] = {};
#pragma unroll
  for (int i = 0; i < kThreadNumbers; ++i)
    largest[i % kAbreast] = fmaxf(largest[i % kAbreast], fabsf(c[i]));
#pragma unroll
  for (int step = kAbreast / 2; step > 0; step /= 2)
#pragma unroll
    for (int i = 0; i < step; ++i) largest[i] = fmaxf(largest[i], largest[i + step]);
  return largest[0];
}

// |x - y|^2 or |x + y|^2 of unit rows, the smaller one, and which (sign of c).
struct MeasuredPair {
  float square, sign;
};
__device__ __forceinline__ MeasuredPair measure_pair(const HopperProblem& problem, int i, int j) {
  const Scaling of_row = problem.rows.scalings[i], of_other = problem.others.scalings[j];
  float minus = 0.0f, plus = 0.0f;
#pragma unroll 1
  for (int k = static_cast<int>(threadIdx.x) % kWarpSize; k < problem.rows.given.columns; k += kWarpSize) {
    const float a = of_row.unit(problem.rows.given.number(i, k)),
                b = of_other.unit(problem.others.given.number(j, k));
    minus += (a - b) * (a - b);
    plus += (a + b) * (a + b);
  }
  minus = warp_sum(minus);
  plus = warp_sum(plus);
  return minus <= plus ? MeasuredPair{minus, 1.0f} : MeasuredPair{plus, -1.0f};
}

constexpr int kWarpPanelRows = kPanelRows / 4;  // of a tile, that one warp has
constexpr int kNearWords = kThreadNumbers / 32;

// What lane l of a warp finds in the end: of row l / 4 + 8 (l % 4 / 2) of its 16 rows the sum of distances
// (l even) or that of products (l odd).
__device__ __forceinline__ int found_row(int lane) { return lane / 4 + lane % 4 / 2 * 8; }

__device__ __forceinline__ void add_scaled(const HopperProblem& problem, double found,
                                           unsigned long long* to) {
  atomicAdd(to, static_cast<unsigned long long>(__double2ll_rn(found * *problem.scale)));
}

// Pairs that bf16 cannot tell apart, measured from the given rows by all lanes and added by two of them; a
// bit of near: one number of this thread.
template <PairMetric kMetric, bool kSymmetric>
__device__ __forceinline__ void add_near_pairs(const HopperProblem& problem, int first_row, int first_other,
                                               const unsigned (&near)[kNearWords]) {
  const int lane = lane_anew();
#pragma unroll
  for (int word = 0; word < kNearWords; ++word) {
    unsigned bits = near[word];
#pragma unroll 1
    for (;;) {
      const unsigned lanes = __ballot_sync(kAllLanes, bits != 0);
      if (lanes == 0) break;
      const int from = __ffs(static_cast<int>(lanes)) - 1;
      const int number = 32 * word + __ffs(static_cast<int>(__shfl_sync(kAllLanes, bits, from))) - 1;
      if (lane == from) bits &= bits - 1;
      const int row = from / 4 + number / 2 % 2 * 8,
                other = first_other + number / 4 * 8 + from % 4 * 2 + number % 2;
      const MeasuredPair pair = measure_pair(problem, first_row + row, other);
      if (row != found_row(lane)) continue;
      const int kind = lane % 2;
      const double distance = static_cast<double>(distance_of<kMetric>(pair.square, pair.sign));
      const double found = kind == 0 ? middle_distance<kMetric>() - distance
                                     : static_cast<double>(pair.sign * (1.0f - 0.5f * pair.square));
      const float* weights = problem.weights;
      add_scaled(problem, weights == nullptr ? found : static_cast<double>(weights[other]) * found,
                 problem.sums + int64_t{first_row + row} * 2 + kind);
      if (!kSymmetric) continue;
      add_scaled(problem,
                 weights == nullptr ? found : static_cast<double>(weights[first_row + row]) * found,
                 problem.sums + int64_t{other} * 2 + kind);
    }
  }
}

// Of parts that four lanes have of two rows, the sum that this lane is to find.
__device__ __forceinline__ float gather(int lane, const float (&distances)[2], const float (&products)[2]) {
  const bool odd = lane % 2 != 0, second = lane / 2 % 2 != 0;
  float kept[2];
  for (int half = 0; half < 2; ++half)
    kept[half] = (odd ? products[half] : distances[half]) +
                 __shfl_xor_sync(kAllLanes, odd ? distances[half] : products[half], 1);
  return (second ? kept[1] : kept[0]) + __shfl_xor_sync(kAllLanes, second ? kept[0] : kept[1], 2);
}

// Where a lane adds what it finds of columns [first_column, + 16): see add_columns.
__device__ __forceinline__ unsigned long long* found_column(const HopperProblem& problem, int lane,
                                                            int first_column) {
  return problem.sums + int64_t{first_column + (lane & 8) + lane % 4 * 2 + lane / 4 % 2} * 2 + lane / 16;
}

// What the threads of a warp have of two rows each, and 16 columns, added to the columns. Halves of the
// values go to the lanes that are to find them: one value is left to each lane, of all 16 rows.
template <bool kWeighted>
__device__ __forceinline__ void add_columns(const HopperProblem& problem, int lane,
                                            const float (&row_weights)[2], const float (&numbers)[kAbreast],
                                            const float (&shortfalls)[kAbreast], unsigned long long* to) {
  float values[8];  // of either kind those of 4 columns
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = i / 2 * 4 + i % 2;
    if (kWeighted) {
      values[i] = __fmaf_rn(row_weights[0], shortfalls[at], row_weights[1] * shortfalls[at + 2]);
      values[4 + i] = __fmaf_rn(row_weights[0], numbers[at], row_weights[1] * numbers[at + 2]);
    } else {
      values[i] = shortfalls[at] + shortfalls[at + 2];
      values[4 + i] = numbers[at] + numbers[at + 2];
    }
  }
#pragma unroll
  for (int left = 4; left > 0; left /= 2) {
    const bool upper = (lane & 4 * left) != 0;
#pragma unroll
    for (int i = 0; i < left; ++i) {
      const float given = upper ? values[i] : values[left + i];
      values[i] = (upper ? values[left + i] : values[i]) + __shfl_xor_sync(kAllLanes, given, 4 * left);
    }
  }
  add_scaled(problem, static_cast<double>(values[0]), to);
}

// Adds a thread's numbers, but for those beyond near_limit, of which bits are set in near, and,
// where only pairs i < j count, but for others. kChosen: false where all numbers count.
template <PairMetric kMetric, bool kWeighted, bool kSymmetric, bool kChosen>
__device__ __forceinline__ void add_numbers(const HopperProblem& problem, float near_limit, int first_row,
                                            int first_other, const float (&c)[kThreadNumbers],
                                            unsigned (&near)[kNearWords]) {
  const int lane = lane_anew(), row = first_row + lane / 4, other = first_other + lane % 4 * 2;
  float row_weights[2] = {};
  if (kWeighted && kSymmetric) {
    row_weights[0] = row < problem.rows.given.count ? problem.weights[row] : 0.0f;
    row_weights[1] = row + 8 < problem.rows.given.count ? problem.weights[row + 8] : 0.0f;
  }
  unsigned long long* columns = kSymmetric ? found_column(problem, lane, first_other) : nullptr;
  const float* weights = kWeighted ? problem.weights + other : nullptr;
  float distances[2] = {}, products[2] = {};
#pragma unroll
  for (int first = 0; first < kThreadNumbers; first += kAbreast) {
    float numbers[kAbreast], shortfalls[kAbreast];
#pragma unroll
    for (int i = 0; i < kAbreast; ++i) {
      numbers[i] = c[first + i];
      if (!kChosen) continue;
      const bool counts = !kSymmetric || other - row > i / 2 % 2 * 8 - (first + i) / 4 * 8 - i % 2;
      const bool is_near = counts && fabsf(numbers[i]) > near_limit;
      if (is_near) near[(first + i) / 32] |= 1u << (first + i) % 32;
      if (is_near || !counts) numbers[i] = 0.0f;
    }
    shortfalls_at<kMetric>(numbers, shortfalls);
#pragma unroll
    for (int i = 0; i < kAbreast; i += 4) {
      float2 both = {1.0f, 1.0f};
      if (kWeighted) both = *reinterpret_cast<const float2*>(weights + (first + i) * 2);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = i + 2 * half;
        if (kWeighted) {
          distances[half] = __fmaf_rn(both.x, shortfalls[at], distances[half]);
          distances[half] = __fmaf_rn(both.y, shortfalls[at + 1], distances[half]);
          products[half] = __fmaf_rn(both.x, numbers[at], products[half]);
          products[half] = __fmaf_rn(both.y, numbers[at + 1], products[half]);
        } else {
          distances[half] += shortfalls[at] + shortfalls[at + 1];
          products[half] += numbers[at] + numbers[at + 1];
        }
      }
    }
    if (kSymmetric)
      add_columns<kWeighted>(problem, lane, row_weights, numbers, shortfalls, columns + first * 4);
  }
  add_scaled(problem, static_cast<double>(gather(lane, distances, products)),
             problem.sums + int64_t{first_row + found_row(lane)} * 2 + lane % 2);
}

// The products of a tile, 16 rows of a warp, added to the sums.
template <PairMetric kMetric, bool kWeighted, bool kSymmetric>
__device__ __forceinline__ void add_tile(const HopperProblem& problem, float near_limit, int first_row,
                                         int first_other, const float (&c)[kThreadNumbers]) {
  unsigned near[kNearWords] = {};
  const bool chosen =
      (kSymmetric && first_other < first_row + kWarpPanelRows) || largest_of(c) > near_limit;
  if (!__any_sync(kAllLanes, chosen)) {
    add_numbers<kMetric, kWeighted, kSymmetric, false>(problem, near_limit, first_row, first_other, c,
                                                       near);
  } else {
    add_numbers<kMetric, kWeighted, kSymmetric, true>(problem, near_limit, first_row, first_other, c, near);
    add_near_pairs<kMetric, kSymmetric>(problem, first_row, first_other, near);
  }
}

}  // namespace ec::cuda
