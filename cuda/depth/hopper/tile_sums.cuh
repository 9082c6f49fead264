// SPDX-License-Identifier: Apache-2.0
// From the products of a tile (common/hopper.cuh has their layout) to sums over its rows and, where rows
// are their own corpus, over its columns; see pair_tiles.cuh.
//
// Numerics: sums over what a thread has of a row of a tile, 60 numbers, over the 4 that share the row, and
// over the 16 rows that a warp has of a column in float32. From there on as whole numbers of 1 / scale, in
// which the sum of all weights is some 2^61: these may be added in any order. Summed is what a distance
// falls short of that of c = 0, of which the sum is known: pairs that are to count for nothing have c = 0.
#pragma once

#include "depth/hopper/panels.cuh"
#include "depth/near_pairs.cuh"
#include "depth/pair_sums.cuh"
#include "depth/unit_sums.cuh"

namespace ec::cuda {

constexpr int kRowPanels = 3;  // of a tile, one for each warpgroup
constexpr int kTileRows = kRowPanels * kPanelRows, kTileOthers = kProductColumns;
constexpr int kTileThreads = kRowPanels * kGroupThreads;

struct HopperSide {
  Panels panels;
  const Scaling* scalings;
  AnyRows given;
};

struct HopperProblem {
  HopperSide rows, others;  // with the same parts and blocks
  const float* weights;     // of the others, 0 beyond the last one up to whole tiles; null: 1 each
  int row_tiles, other_tiles, shares, laps;  // of all blocks over the items
  // [rows up to whole tiles][2]: sums of weight * (middle_distance - distance) / unit_distance, and of
  // weight * c~, times *scale.
  unsigned long long* sums;
  const double* scale;
  float near_limit;    // of |c|, beyond which pairs are measured anew
  UnitSums unit_sums;  // to be added up besides
};

// The distance of c = 0, and that in which distances are summed: chord is sqrt(2) sqrt(1 - c).
template <PairMetric kMetric>
EC_HD constexpr double middle_distance() {
  return kMetric == PairMetric::kArc ? kPi / 2.0 : 1.41421356237309505;
}
template <PairMetric kMetric>
EC_HD constexpr double unit_distance() {
  return kMetric == PairMetric::kArc ? 1.0 : 1.41421356237309505;
}

constexpr int kAbreast = 8;  // numbers whose distances are taken together, so that none waits for itself

// (middle_distance - distance) / unit_distance, of c in [-1, 1] and a little beyond; exactly 0 for 0, as
// the root of 1 is 1.
template <PairMetric kMetric>
__device__ __forceinline__ void shortfalls_at(const float (&c)[kAbreast], float (&shortfalls)[kAbreast]) {
  if (kMetric == PairMetric::kChord) {
#pragma unroll
    for (int i = 0; i < kAbreast; ++i) shortfalls[i] = 1.0f - near_root(fabsf(1.0f - c[i]));
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

constexpr int kWarpPanelRows = kPanelRows / 4;  // of a tile, that one warp has
constexpr int kWordNumbers = 24;                // numbers of a thread of which a word says which are near
constexpr int kWords = kThreadNumbers / kWordNumbers;
static_assert(kWords * kWordNumbers == kThreadNumbers && kWordNumbers % kAbreast == 0, "whole words");

// Numbers of which a warp asks at once whether some are near. Beyond that the compiler mixes nothing, which
// holds down the registers that it takes: where most are needed, it is to mix least.
template <PairMetric kMetric, bool kWeighted, bool kSymmetric>
EC_HD constexpr int numbers_asked() {
  return kSymmetric && (kWeighted || kMetric == PairMetric::kChord) ? kAbreast : kWordNumbers;
}

// Those of the first of the two rows that a thread has numbers of.
constexpr unsigned kFirstRowBits = 0x33333333u;

// In shared memory, of each thread: which numbers are near. Seldom used, and no registers then.
struct NearBits {
  unsigned bits[kWords][kTileThreads];
};

// What lane l of a warp finds in the end: of row l / 4 + 8 (l % 4 / 2) of its 16 rows the sum of distances
// (l even) or that of products (l odd).
__device__ __forceinline__ int found_row(int lane) { return lane / 4 + lane % 4 / 2 * 8; }

__device__ __forceinline__ void add_scaled(const HopperProblem& problem, double found,
                                           unsigned long long* to) {
  atomicAdd(to, static_cast<unsigned long long>(__double2ll_rn(found * *problem.scale)));
}

// The distance of unit rows x and y of which |x - sign y|^2 is known.
template <PairMetric kMetric>
__device__ __forceinline__ float distance_of(float square, float sign) {
  if (sign > 0.0f) return static_cast<float>(pair_distance(kMetric, static_cast<double>(square)));
  if (kMetric == PairMetric::kChord) return sqrtf(fmaxf(0.0f, 4.0f - square));
  return static_cast<float>(kPi - pair_distance(kMetric, static_cast<double>(square)));
}

// Pairs that bf16 cannot tell apart, measured from the given rows by all lanes and added by one each.
// words: a bit for each of which there are bits in near.
template <PairMetric kMetric, bool kWeighted, bool kSymmetric>
__device__ __forceinline__ void add_near_pairs(const HopperProblem& problem, int first_row, int first_other,
                                               unsigned words, const NearBits& near) {
  constexpr int kPairs = kWeighted && kSymmetric ? 2 : kNearTogether;  // there, registers are for two
  unsigned bits = 0;
  int word = 0;
#pragma unroll 1
  for (;;) {
    const int lane = lane_anew();
    const unsigned lanes = __ballot_sync(kAllLanes, bits != 0);
    if (lanes == 0) {
      if (words == 0) return;
      word = __ffs(static_cast<int>(words)) - 1;
      words &= words - 1;
      bits = near.bits[word][threadIdx.x];
      continue;
    }
    // Of one lane, and one of its two rows.
    const int from = __ffs(static_cast<int>(lanes)) - 1;
    unsigned left = __shfl_sync(kAllLanes, bits, from);
    const int half = (left & kFirstRowBits) != 0 ? 0 : 1;
    left &= kFirstRowBits << (2 * half);
    const int row = from / 4 + 8 * half;
    int others[kPairs], own = 0;
    Scaling scalings[kPairs];
    int count = 0;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const unsigned bit = left & (0u - left);
      const int number = word * kWordNumbers + __ffs(static_cast<int>(left)) - 1;
      others[p] = bit == 0 ? others[0] : first_other + number / 4 * 8 + from % 4 * 2 + number % 2;
      scalings[p] = problem.others.scalings[others[p]];
      own = lane == p ? others[p] : own;
      count += bit == 0 ? 0 : 1;
      left -= bit;
      bits &= lane == from ? ~bit : kAllLanes;
    }
    const MeasuredPair pair =
        measure_pairs(problem.rows.given, first_row + row, problem.rows.scalings[first_row + row],
                      problem.others.given, others, scalings, count, lane);
    if (lane >= count) continue;
    const double distance = static_cast<double>(distance_of<kMetric>(pair.square, pair.sign));
    const double found[2] = {(middle_distance<kMetric>() - distance) / unit_distance<kMetric>(),
                             static_cast<double>(pair.sign * (1.0f - 0.5f * pair.square))};
    const float* weights = problem.weights;
    const double of_other = kWeighted ? static_cast<double>(weights[own]) : 1.0,
                 of_row = kWeighted ? static_cast<double>(weights[first_row + row]) : 1.0;
#pragma unroll
    for (int kind = 0; kind < 2; ++kind) {
      add_scaled(problem, of_other * found[kind], problem.sums + int64_t{first_row + row} * 2 + kind);
      if (kSymmetric) add_scaled(problem, of_row * found[kind], problem.sums + int64_t{own} * 2 + kind);
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
                                            const float* row_weights, const float (&numbers)[kAbreast],
                                            const float (&shortfalls)[kAbreast], unsigned long long* to) {
  const float first_weight = kWeighted ? row_weights[0] : 1.0f, weight = kWeighted ? row_weights[8] : 1.0f;
  float values[8];  // of either kind those of 4 columns
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = i / 2 * 4 + i % 2;
    if (kWeighted) {
      values[i] = __fmaf_rn(first_weight, shortfalls[at], weight * shortfalls[at + 2]);
      values[4 + i] = __fmaf_rn(first_weight, numbers[at], weight * numbers[at + 2]);
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

// Sets numbers [first, first + kAsked) to 0 that are beyond near_limit and, where only pairs i < j count,
// others. Returns bits of the near ones that count. ahead: other - row of the tile's first number.
template <bool kSymmetric, int kAsked>
__device__ __forceinline__ unsigned leave_out_near(float (&c)[kThreadNumbers], int first, float near_limit,
                                                   int ahead) {
  const int lane = lane_anew();
  ahead += lane % 4 * 2 - lane / 4;
  unsigned near = 0;
#pragma unroll
  for (int at = first; at < first + kAsked; ++at) {
    const bool counts = !kSymmetric || ahead > at / 2 % 2 * 8 - at / 4 * 8 - at % 2;
    const bool is_near = fabsf(c[at]) > near_limit;
    near |= counts && is_near ? 1u << at % kWordNumbers : 0u;
    c[at] = counts && !is_near ? c[at] : 0.0f;
  }
  return near;
}

template <int kAsked>
__device__ __forceinline__ float largest_of(const float (&c)[kThreadNumbers], int first) {
  float largest[4] = {};
#pragma unroll
  for (int i = 0; i < kAsked; ++i) largest[i % 4] = fmaxf(largest[i % 4], fabsf(c[first + i]));
  return fmaxf(fmaxf(largest[0], largest[1]), fmaxf(largest[2], largest[3]));
}

// The sums of a thread over the two rows that it has numbers of.
struct RowParts {
  float distances[2] = {}, products[2] = {};
};

// Adds 8 numbers. weights: null or those of the columns.
template <bool kWeighted>
__device__ __forceinline__ void add_to_rows(const float (&numbers)[kAbreast],
                                            const float (&shortfalls)[kAbreast], const float* weights,
                                            RowParts& parts) {
#pragma unroll
  for (int i = 0; i < kAbreast; i += 4) {
    float2 both = {1.0f, 1.0f};
    if (kWeighted) both = *reinterpret_cast<const float2*>(weights + i * 2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = i + 2 * half;
      float &distances = parts.distances[half], &products = parts.products[half];
      if (kWeighted) {
        distances = __fmaf_rn(both.x, shortfalls[at], distances);
        distances = __fmaf_rn(both.y, shortfalls[at + 1], distances);
        products = __fmaf_rn(both.x, numbers[at], products);
        products = __fmaf_rn(both.y, numbers[at + 1], products);
      } else {
        distances += shortfalls[at] + shortfalls[at + 1];
        products += numbers[at] + numbers[at + 1];
      }
    }
  }
}

// The products of a tile, 16 rows of a warp, added to the sums.
template <PairMetric kMetric, bool kWeighted, bool kSymmetric>
__device__ __forceinline__ void add_tile(const HopperProblem& problem, int first_row, int first_other,
                                         float (&c)[kThreadNumbers], NearBits& near) {
  const int lane = lane_anew();
  unsigned long long* columns = kSymmetric ? found_column(problem, lane, first_other) : nullptr;
  const bool on_diagonal = kSymmetric && first_other < first_row + kWarpPanelRows;
  constexpr int kAsked = numbers_asked<kMetric, kWeighted, kSymmetric>();
  unsigned words = 0;
  RowParts parts;
#pragma unroll
  for (int first = 0; first < kThreadNumbers; first += kAsked) {
    if (__any_sync(kAllLanes, on_diagonal || largest_of<kAsked>(c, first) > problem.near_limit)) {
      unsigned& word = near.bits[first / kWordNumbers][threadIdx.x];
      const unsigned before = (words >> first / kWordNumbers & 1u) != 0 ? word : 0u;
      word = before |
             leave_out_near<kSymmetric, kAsked>(c, first, problem.near_limit, first_other - first_row);
      words |= 1u << first / kWordNumbers;
    }
#pragma unroll
    for (int at = first; at < first + kAsked; at += kAbreast) {
      float numbers[kAbreast], shortfalls[kAbreast];
#pragma unroll
      for (int i = 0; i < kAbreast; ++i) numbers[i] = c[at + i];
      shortfalls_at<kMetric>(numbers, shortfalls);
      // Places anew each time, for there are no registers to keep them.
      const float* weights =
          kWeighted ? problem.weights + first_other + lane_anew() % 4 * 2 + at * 2 : nullptr;
      add_to_rows<kWeighted>(numbers, shortfalls, weights, parts);
      if (kSymmetric) {
        const float* of_rows = kWeighted ? problem.weights + first_row + lane_anew() / 4 : nullptr;
        add_columns<kWeighted>(problem, lane, of_rows, numbers, shortfalls, columns + at * 4);
      }
    }
  }
  add_scaled(problem, static_cast<double>(gather(lane, parts.distances, parts.products)),
             problem.sums + int64_t{first_row + found_row(lane)} * 2 + lane % 2);
  if (words != 0)
    add_near_pairs<kMetric, kWeighted, kSymmetric>(problem, first_row, first_other, words, near);
}

}  // namespace ec::cuda
