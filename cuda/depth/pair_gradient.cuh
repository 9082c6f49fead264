// SPDX-License-Identifier: Apache-2.0
// Sums over pairs that gradients are made of: for each target row, over the source rows, of
//   F (target - source),  F = f / r d(distance) / dr  for distances, with r = |target - source|,
// and f = a_t b_s, or the sum of two such products where the rows are their own corpus and both sides of a
// pair pull. Spatial depth has, for targets that are rows and for those that are the corpus,
//   H = f / r,  F = H (u'e) / r,  the sums  sum F (target - source) - e_t sum H  and
//   sum F (target - source) + sum H e_s,
// with u the unit vector from the corpus's row to the other and e the direction of the mean of these.
//
// A block goes with one tile of targets through a share of the sources. Products of rows come out in
// registers, F of a tile lies in shared memory and is multiplied with the sources, kGradientTile columns at
// a time, and those sums are added to the block's vectors in memory (the second cache, mostly): nothing of
// the size of all pairs is held. Pairs whose product has lost the distance have F = 0 and are added from
// the difference of their rows as given, in float64; equal rows add nothing, nor do opposite ones under
// arc.
//
// Numerics: products and sums of a tile in float32, of a share its vectors in float32 and its sums in
// float64; shares are added in float64, in order.
#pragma once

#include "depth/gradient_rows.cuh"
#include "depth/pair_sums.cuh"

namespace ec::cuda {

enum class GradientMode { kDistances, kRows, kCorpus };

constexpr int kGradientTile = 64, kGradientThreads = 256, kGradientPad = kGradientTile + 4;
constexpr int kGradientWarps = kGradientThreads / kWarpSize;
constexpr int kOwnRows = 4;  // and columns, of a tile, that a thread has
// Unit rows no farther apart are of the same direction to within the rounding of float64.
constexpr double kSameDirection = 0x1p-50;

struct PairGradient {
  GradientRows targets, sources;
  bool leave_out;                                // both sides are one, and no row counts for itself
  PairMetric metric;                             // of spatial depth L2
  const float *target_factors, *source_factors;  // a (null: 1 each), b
  const float *second_target_factors, *second_source_factors;  // null: there are none
  const float* pulls;         // of sources: that of t, whose sums are wanted; or null
  const float *ends, *along;  // e and its product with its row, of the side that is not the corpus
  Move move;
  int64_t slots, target_tiles;  // shares of the sources; blocks are these times slots, targets fastest
  float* vectors;               // [slot][target][padded]
  TargetSums* sums;             // [slot][target]
};

using GradientRow = float[kGradientPad];

template <GradientMode kMode>
struct GradientShared {
  static constexpr bool kHasEnds = kMode != GradientMode::kDistances,
                        kHasPulls = kMode == GradientMode::kCorpus;
  struct Steps {  // [column][row]
    GradientRow targets[kGradientStep], sources[kGradientStep], ends[kHasEnds ? kGradientStep : 1];
  };
  struct Columns {  // [row][column]
    GradientRow sources[kGradientTile], ends[kHasPulls ? kGradientTile : 1];
  };
  union {
    Steps steps;
    Columns columns;
  };
  GradientRow factors[kGradientTile], pulls[kHasPulls ? kGradientTile : 1];  // [source][target]
  TargetSums sums[kGradientTile];
  unsigned near[kGradientTile][kGradientTile / 32];
  unsigned any_near;
};

using OwnTile = float[kOwnRows][kOwnRows];

__device__ __forceinline__ void load_own(const float* from, float (&to)[kOwnRows]) { load_four(from, to); }

// Numbers [at, at + kGradientStep) of a tile of rows, zeros from `end` on.
__device__ __forceinline__ void copy_gradient_step(const float* rows, int padded, int64_t first,
                                                   int64_t end, int at, GradientRow* to) {
  constexpr int kPieces = kGradientStep / kTogether;
  for (int i = static_cast<int>(threadIdx.x); i < kGradientTile * kPieces; i += kGradientThreads) {
    const int row = i / kPieces, column = i % kPieces * kTogether;
    float numbers[kTogether] = {};
    if (first + row < end) load_four(rows + (first + row) * padded + at + column, numbers);
    for (int k = 0; k < kTogether; ++k) to[column + k][row] = numbers[k];
  }
}
// Columns [at, at + kGradientTile) of a tile of rows, zeros beyond.
__device__ __forceinline__ void copy_gradient_columns(const float* rows, int padded, int64_t first,
                                                      int64_t end, int at, GradientRow* to) {
  constexpr int kPieces = kGradientTile / kTogether;
  for (int i = static_cast<int>(threadIdx.x); i < kGradientTile * kPieces; i += kGradientThreads) {
    const int row = i / kPieces, column = i % kPieces * kTogether;
    float numbers[kTogether] = {};
    if (first + row < end && at + column < padded)
      load_four(rows + (first + row) * padded + at + column, numbers);
    store_four(numbers, to[row] + column);
  }
}

// c += rows . columns of one number of each.
__device__ __forceinline__ void multiply_own(const float* rows, const float* columns, OwnTile& c) {
  float a[kOwnRows], b[kOwnRows];
  load_own(rows, a);
  load_own(columns, b);
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < kOwnRows; ++j) c[i][j] = __fmaf_rn(a[i], b[j], c[i][j]);
}

// Products of a tile, and of spatial depth those with e.
template <GradientMode kMode>
__device__ __forceinline__ void multiply_gradient_rows(const PairGradient& problem,
                                                       GradientShared<kMode>& shared, int64_t first,
                                                       int64_t first_source, OwnTile& c, OwnTile& along) {
  const int thread = static_cast<int>(threadIdx.x), own_row = thread / 16 * kOwnRows,
            own_source = thread % 16 * kOwnRows, padded = problem.targets.padded;
  const int64_t count = problem.targets.given.count, sources = problem.sources.given.count;
  constexpr bool kOfRows = kMode == GradientMode::kRows;
#pragma unroll 1
  for (int at = 0; at < padded; at += kGradientStep) {
    __syncthreads();
    copy_gradient_step(problem.targets.values, padded, first, count, at, shared.steps.targets);
    copy_gradient_step(problem.sources.values, padded, first_source, sources, at, shared.steps.sources);
    if constexpr (GradientShared<kMode>::kHasEnds)
      copy_gradient_step(problem.ends, padded, kOfRows ? first : first_source, kOfRows ? count : sources,
                         at, shared.steps.ends);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kGradientStep; ++k) {
      const float *target = shared.steps.targets[k] + own_row,
                  *source = shared.steps.sources[k] + own_source;
      multiply_own(target, source, c);
      if constexpr (kOfRows) multiply_own(shared.steps.ends[k] + own_row, source, along);
      if constexpr (kMode == GradientMode::kCorpus)
        multiply_own(target, shared.steps.ends[k] + own_source, along);
    }
  }
}

__device__ __forceinline__ float factor_of(const PairGradient& problem, int64_t target, int64_t source) {
  const float of_target = problem.target_factors == nullptr ? 1.0f : problem.target_factors[target];
  const float factor = of_target * problem.source_factors[source];
  if (problem.second_target_factors == nullptr) return factor;
  return factor + problem.second_target_factors[target] * problem.second_source_factors[source];
}

__device__ __forceinline__ bool is_near_gradient(PairMetric metric, float c, float squares) {
  if (metric == PairMetric::kL2) return is_near_moved(c, squares);
  return (metric == PairMetric::kArc ? fabsf(c) : c) > kStrictNearLimit;
}

// F of a tile into shared memory (and H), and their sums.
template <GradientMode kMode>
__device__ __forceinline__ void store_factors(const PairGradient& problem, GradientShared<kMode>& shared,
                                              int64_t first, int64_t first_source, const OwnTile& c,
                                              const OwnTile& products) {
  const int thread = static_cast<int>(threadIdx.x), own_row = thread / 16 * kOwnRows,
            own_source = thread % 16 * kOwnRows;
  const int64_t count = problem.targets.given.count, sources = problem.sources.given.count;
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    const int64_t target = first + own_row + i;
    float factors = 0.0f, distances = 0.0f, pulls = 0.0f;
#pragma unroll
    for (int j = 0; j < kOwnRows; ++j) {
      const int64_t source = first_source + own_source + j;
      float factor = 0.0f, pull = 0.0f;
      bool counts = target < count && source < sources && !(problem.leave_out && target == source);
      if (counts) {
        const float squares = problem.targets.squares[target] + problem.sources.squares[source];
        if (is_near_gradient(problem.metric, c[i][j], squares)) {
          atomicOr(&shared.near[own_row + i][(own_source + j) / 32], 1u << (own_source + j) % 32);
          atomicOr(&shared.any_near, 1u);
          counts = false;
        } else {
          const float square = squares - 2.0f * c[i][j], inverse = rsqrtf(square);
          const float given = factor_of(problem, target, source) * inverse;
          if constexpr (kMode == GradientMode::kDistances) {
            const bool arc = problem.metric == PairMetric::kArc;
            factor = arc ? given * rsqrtf(1.0f - 0.25f * square) : given;
            if (problem.pulls != nullptr) {
              const float chord = sqrtf(square), distance = arc ? 2.0f * asinf(0.5f * chord) : chord;
              distances += problem.pulls[source] * distance;
            }
          } else {
            const float base = problem.along[kMode == GradientMode::kRows ? target : source];
            const float across = (base - products[i][j]) * inverse;
            pull = given;
            factor = given * across * inverse;
            if (problem.pulls != nullptr) distances += problem.pulls[source] * across;
          }
        }
      }
      shared.factors[own_source + j][own_row + i] = factor;
      if constexpr (GradientShared<kMode>::kHasPulls) shared.pulls[own_source + j][own_row + i] = pull;
      factors += factor, pulls += pull;
    }
    for (int step = 1; step < 16; step *= 2) {
      factors += __shfl_xor_sync(kAllLanes, factors, step);
      distances += __shfl_xor_sync(kAllLanes, distances, step);
      pulls += __shfl_xor_sync(kAllLanes, pulls, step);
    }
    if (thread % 16 != 0) continue;
    TargetSums& sums = shared.sums[own_row + i];
    sums.factors += static_cast<double>(factors);
    sums.distances += static_cast<double>(distances);
    sums.pulls += static_cast<double>(pulls);
  }
}

// F . sources (less H . e) of a tile, added to the vectors of its targets.
template <GradientMode kMode>
__device__ __forceinline__ void add_gradient_columns(const PairGradient& problem,
                                                     GradientShared<kMode>& shared, int64_t first,
                                                     int64_t first_source, bool is_first, float* vectors) {
  const int thread = static_cast<int>(threadIdx.x), own_row = thread / 16 * kOwnRows,
            own_column = thread % 16 * kOwnRows, padded = problem.targets.padded;
  const int64_t count = problem.targets.given.count, sources = problem.sources.given.count;
#pragma unroll 1
  for (int at = 0; at < padded; at += kGradientTile) {
    __syncthreads();
    copy_gradient_columns(problem.sources.values, padded, first_source, sources, at,
                          shared.columns.sources);
    if constexpr (GradientShared<kMode>::kHasPulls)
      copy_gradient_columns(problem.ends, padded, first_source, sources, at, shared.columns.ends);
    __syncthreads();
    OwnTile sum = {}, of_ends = {};
#pragma unroll 4
    for (int s = 0; s < kGradientTile; ++s) {
      multiply_own(shared.factors[s] + own_row, shared.columns.sources[s] + own_column, sum);
      if constexpr (GradientShared<kMode>::kHasPulls)
        multiply_own(shared.pulls[s] + own_row, shared.columns.ends[s] + own_column, of_ends);
    }
    if (at + own_column >= padded) continue;
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      if (first + own_row + i >= count) break;
      float* to = vectors + (first + own_row + i) * padded + at + own_column;
      float numbers[kOwnRows] = {};
      if (!is_first) load_own(to, numbers);
#pragma unroll
      for (int j = 0; j < kOwnRows; ++j) numbers[j] += sum[i][j] - of_ends[i][j];
      store_four(numbers, to);
    }
  }
}

// The difference of a near pair: its numbers are target - sign source, of moved rows scaled.
struct NearGap {
  const GradientRows &targets, &sources;
  int64_t target, source;
  double sign, scale;

  __device__ double number(int64_t k, double with_sign) const {
    const double a = targets.given.wide_number(target, k), b = sources.given.wide_number(source, k);
    if (targets.inverses == nullptr) return (a - b) * scale;
    return a * targets.inverses[target] - with_sign * (b * sources.inverses[source]);
  }
  __device__ double number(int64_t k) const { return number(k, sign); }
};

// One near pair, by a warp.
template <GradientMode kMode>
__device__ __forceinline__ void add_near_gradient(const PairGradient& problem, int64_t target,
                                                  int64_t source, TargetSums& sums, float* vector) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const bool moved = problem.metric == PairMetric::kL2;
  NearGap gap = {problem.targets, problem.sources, target, source, 1.0, 1.0};
  if (moved) gap.scale = ldexp(1.0, problem.move.exponent());
  double minus = 0.0, plus = 0.0;
#pragma unroll 1
  for (int64_t k = lane; k < problem.targets.given.columns; k += kWarpSize) {
    const double less = gap.number(k, 1.0), more = moved ? 0.0 : gap.number(k, -1.0);
    minus += less * less, plus += more * more;
  }
  minus = warp_sum(minus), plus = warp_sum(plus);
  const bool arc = problem.metric == PairMetric::kArc;
  if (arc && plus < minus) gap.sign = -1.0;
  const double chord = sqrt(gap.sign > 0.0 ? minus : plus);
  const bool apart = chord > (moved ? 0.0 : kSameDirection);
  double across = 0.0;
  const float* end = nullptr;
  if constexpr (kMode == GradientMode::kDistances) {
    const double near = arc ? 2.0 * asin(0.5 * chord) : chord,
                 distance = gap.sign > 0.0 ? near : kPi - near;
    if (problem.pulls != nullptr && lane == 0)
      sums.distances += static_cast<double>(problem.pulls[source]) * distance;
  }
  if (!apart) return;
  double factor = static_cast<double>(factor_of(problem, target, source)) / chord;
  if constexpr (kMode == GradientMode::kDistances) {
    if (arc) factor /= sqrt(1.0 - 0.25 * chord * chord);
    factor *= gap.sign;
  } else {
    constexpr bool kOfRows = kMode == GradientMode::kRows;
    end = problem.ends + (kOfRows ? target : source) * problem.targets.padded;
    for (int64_t k = lane; k < problem.targets.given.columns; k += kWarpSize)
      across += gap.number(k) * static_cast<double>(end[k]);
    across = warp_sum(across) / chord * (kOfRows ? 1.0 : -1.0);
    if (problem.pulls != nullptr && lane == 0)
      sums.distances += static_cast<double>(problem.pulls[source]) * across;
  }
#pragma unroll 1
  for (int64_t k = lane; k < problem.targets.given.columns; k += kWarpSize) {
    double step = gap.number(k) * factor;  // what the target gets
    if constexpr (kMode == GradientMode::kRows)
      step = step / chord * across - factor * static_cast<double>(end[k]);
    if constexpr (kMode == GradientMode::kCorpus)
      step = step / chord * across + factor * static_cast<double>(end[k]);
    vector[k] -= static_cast<float>(step);
  }
}

template <GradientMode kMode>
__global__ void __launch_bounds__(kGradientThreads, 2)
    sum_gradients(const __grid_constant__ PairGradient problem) {
  auto& shared = shared_memory<GradientShared<kMode>>();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize;
  const int64_t slot = blockIdx.x / problem.target_tiles,
                first = (blockIdx.x - slot * problem.target_tiles) * kGradientTile,
                count = problem.targets.given.count;
  const int64_t tiles = (problem.sources.given.count + kGradientTile - 1) / kGradientTile;
  float* vectors = problem.vectors + slot * count * problem.targets.padded;
  for (int i = thread; i < kGradientTile; i += kGradientThreads) {
    shared.sums[i] = {0.0, 0.0, 0.0};
    for (unsigned& bits : shared.near[i]) bits = 0;
  }
  if (thread == 0) shared.any_near = 0;
  const int64_t begin = tiles * slot / problem.slots, end = tiles * (slot + 1) / problem.slots;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first_source = tile * kGradientTile;
    OwnTile c = {}, along = {};
    multiply_gradient_rows<kMode>(problem, shared, first, first_source, c, along);
    store_factors<kMode>(problem, shared, first, first_source, c, along);
    add_gradient_columns<kMode>(problem, shared, first, first_source, tile == begin, vectors);
    __syncthreads();
    if (shared.any_near == 0) continue;
    for (int row = warp; row < kGradientTile; row += kGradientWarps) {
      for (int word = 0; word < kGradientTile / 32; ++word) {
        for (unsigned left = shared.near[row][word]; left != 0; left &= left - 1) {
          const int64_t source = first_source + word * 32 + __ffs(left) - 1;
          add_near_gradient<kMode>(problem, first + row, source, shared.sums[row],
                                   vectors + (first + row) * problem.targets.padded);
        }
        __syncwarp();
        if (thread % kWarpSize == 0) shared.near[row][word] = 0;
      }
    }
    __syncthreads();
    if (thread == 0) shared.any_near = 0;
  }
  __syncthreads();
  for (int i = thread; i < kGradientTile && first + i < count; i += kGradientThreads)
    problem.sums[slot * count + first + i] = shared.sums[i];
}

}  // namespace ec::cuda
