// SPDX-License-Identifier: Apache-2.0
// Depths that are means of distances, of every pair of rows: arc, chord and L2 (depth_math.h).
//
// A block goes with one tile of rows through a segment of the corpus. Products of packed rows come out in
// float32; distances are taken of them in registers and added up, so that no matrix of pairs is made.
// For arc and chord a linear correction (csrc/depth) takes the error out of the mean: mean f(c) = mean
// f(c~)
// + f'(mean c~) (mean c - mean c~), where mean c is exact as for cosine. Pairs so near one another (of arc
// and chord, or so far) that the products have lost the distance are measured anew from the rows.
//
// Where arc and chord are taken of one group's own rows, a tile and its mirror image are one: a block
// starts at its own tile, and adds what lies beyond to both sides, as whole numbers, whose order does not
// matter.
//
// Numerics: sums of a tile in float32, of a segment as LongSum (of mirrored tiles, at most
// kMostMirrorTiles, in float32), in float64 from there on, in one order. A weight of NaN makes all depths
// in its group NaN (segments.cuh), and so does a row without a direction, by the sums of directions.
#pragma once

#include <type_traits>

#include "depth/near_pairs.cuh"
#include "depth/pair_sums.cuh"
#include "depth/shifted_rows.cuh"
#include "depth/tiles.cuh"
#include "depth/unit_rows.cuh"
#include "depth/unit_sums.cuh"

namespace ec::cuda {

constexpr int kStages = 3;

constexpr int64_t kMostMirrorTiles = 64;

// A sum of few numbers, with the interface of LongSum.
struct ShortSum {
  float sum = 0.0f;

  __device__ void add(float number) { sum += number; }
  __device__ double value() const { return static_cast<double>(sum); }
};

struct PairShared {
  Stage stages[kStages];
  PairSums sums[kTile];  // of each row of the tile
  PairSums near_sums[kTile];
  NearPairs near;
};

// Rows of one side, by position.
struct PairSide {
  PackedRows packed;
  const Scaling* scalings;  // of unit rows
  const float* squares;     // of moved rows
  AnyRows given;
  const int64_t* order;

  __device__ int64_t row(int64_t position) const { return order == nullptr ? position : order[position]; }
};

struct PairProblem {
  PairSide rows, others;
  Segments segments;     // of the others
  const float* weights;  // of the others; null: 1 each
  bool leave_out;        // both sides are one, and no row counts for itself
  Move move;             // of moved rows
  PairSums* sums;        // [segment][rows]
  FixedSums fixed;       // instead, of mirrored tiles
  int64_t row_tiles;     // blockIdx.x: these times segments, rows fastest
  // The first `adders` blocks add up what is no part of pairs, so that no kernel is started for it.
  UnitSums unit_sums;
  int64_t adders;
};

// arccos(c) = sqrt(1 - c) P(c) for c >= 0, pi - arccos(-c) else.
__device__ __forceinline__ float arc_of(float c) {
  // Numbers of its own: device code has no way to an array of the host.
  constexpr float coefficient[kArcDegree + 1] = {kArcCoefficient[0], kArcCoefficient[1], kArcCoefficient[2],
                                                 kArcCoefficient[3], kArcCoefficient[4], kArcCoefficient[5],
                                                 kArcCoefficient[6]};
  const float size = fabsf(c);
  float p = coefficient[kArcDegree];
#pragma unroll
  for (int i = kArcDegree - 1; i >= 0; --i) p = __fmaf_rn(p, size, coefficient[i]);
  const float arc = sqrtf(fmaxf(0.0f, 1.0f - size)) * p;
  return c < 0.0f ? static_cast<float>(kPi) - arc : arc;
}

// squares: |x|^2 + |y|^2, for L2.
template <PairMetric kMetric>
__device__ __forceinline__ float distance_at(float c, float squares) {
  if (kMetric == PairMetric::kChord) return sqrtf(fmaxf(0.0f, 2.0f - 2.0f * c));
  if (kMetric == PairMetric::kL2) return sqrtf(fmaxf(0.0f, squares - 2.0f * c));
  return arc_of(c);
}

template <PairMetric kMetric>
__device__ __forceinline__ bool is_near(float c, float squares, bool strict) {
  if (kMetric == PairMetric::kL2) return is_near_moved(c, squares);
  return fabsf(c) > (strict ? kStrictNearLimit : kNearLimit);
}

// Distance and c of unit rows, from what is shorter, their difference or their sum.
template <PairMetric kMetric>
__device__ __forceinline__ PairSums sums_of_units(const MeasuredPair& pair) {
  const double square = static_cast<double>(pair.square), near = pair_distance(kMetric, square);
  if (pair.sign > 0.0f) return {near, 1.0 - 0.5 * square};
  const double far = kMetric == PairMetric::kChord ? sqrt(fmax(0.0, 4.0 - square)) : kPi - near;
  return {far, 0.5 * square - 1.0};
}

// Lane p gets the sums of pair p of a row and some others, at positions, of which `count` are there.
template <PairMetric kMetric, int kPairs>
__device__ __forceinline__ PairSums measured_pairs(const PairProblem& problem, int64_t i,
                                                   const int64_t (&others)[kPairs], int count) {
  if constexpr (kMetric == PairMetric::kL2) {
    const Difference found = difference_of(problem.rows.given, problem.rows.row(i), problem.others.given,
                                           problem.others.row(others[0]));
    return {ldexp(found.length, found.exponent + problem.move.exponent()), 0.0};
  } else {
    int64_t rows[kPairs];
    Scaling scalings[kPairs];
#pragma unroll
    for (int p = 0; p < kPairs; ++p)
      rows[p] = problem.others.row(others[p]), scalings[p] = problem.others.scalings[others[p]];
    return sums_of_units<kMetric>(measure_pairs(
        problem.rows.given, problem.rows.row(i), problem.rows.scalings[i], problem.others.given, rows,
        scalings, count, static_cast<int>(threadIdx.x) % kWarpSize));
  }
}

// 0 for what is not a number: its group's total weight is none either, and decides.
__device__ __forceinline__ float weight_at(const PairProblem& problem, int64_t position) {
  if (problem.weights == nullptr) return 1.0f;
  const float weight = problem.weights[position];
  return is_number(weight) ? weight : 0.0f;
}

// Sums for the others of a mirrored tile: of a lane's rows first, then of a warp's.
struct MirrorSums {
  float distances[2 * kOtherFragments] = {}, products[2 * kOtherFragments] = {};

  __device__ void store(const FixedSums& to, int64_t first_other, int others, int lane) {
#pragma unroll
    for (int j = 0; j < 2 * kOtherFragments; ++j) {
      for (int step = 4; step < kWarpSize; step *= 2) {
        distances[j] += __shfl_xor_sync(kAllLanes, distances[j], step);
        products[j] += __shfl_xor_sync(kAllLanes, products[j], step);
      }
      const int other = other_in_warp(j / 2, j % 2, lane);
      if (lane < 4 && other < others)
        to.add(first_other + other, {static_cast<double>(distances[j]), static_cast<double>(products[j])});
    }
  }
};

// Adds the distances of a tile that the products give to the sums of a lane, and marks the others.
template <PairMetric kMetric, bool kMirrored, class Sum>
__device__ __forceinline__ void add_tile(const PairProblem& problem, const TileSums& c, int64_t first_row,
                                         int64_t first_other, int64_t end,
                                         Sum (&distances)[2 * kRowFragments],
                                         Sum (&products)[2 * kRowFragments], NearPairs& near) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int warp_row = first_row_of(warp), warp_other = first_other_of(warp);
  const TileEdges edges =
      edges_of(first_row, problem.rows.given.count, first_other, end, problem.leave_out);
  const bool mirrors = kMirrored && first_row != first_other;
  MirrorSums mirror;
  float weights[2 * kOtherFragments], squares[2 * kOtherFragments];
#pragma unroll
  for (int j = 0; j < 2 * kOtherFragments; ++j) {
    const int other = warp_other + other_in_warp(j / 2, j % 2, lane);
    const bool there = other < edges.others;
    weights[j] = there ? weight_at(problem, first_other + other) : 0.0f;
    squares[j] = kMetric == PairMetric::kL2 && there ? problem.others.squares[first_other + other] : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 2 * kRowFragments; ++i) {
    const int row = warp_row + row_in_warp(i / 2, i % 2, lane);
    const bool row_there = row < edges.rows;
    const float own_square =
        kMetric == PairMetric::kL2 && row_there ? problem.rows.squares[first_row + row] : 0.0f;
    const float own_weight = mirrors && row_there ? weight_at(problem, first_row + row) : 0.0f;
    float distance_sum = 0.0f, product_sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 2 * kOtherFragments; ++j) {
      const int other = warp_other + other_in_warp(j / 2, j % 2, lane);
      const float both = own_square + squares[j];
      float cosine = c[i / 2][j / 2].numbers[2 * (i % 2) + j % 2];
      bool counts = edges.count(row, other);
      if (counts && is_near<kMetric>(cosine, both, problem.rows.packed.products > 1)) {
        mark_near(near, row, other);
        counts = false;
      }
      const float distance = counts ? distance_at<kMetric>(cosine, both) : 0.0f;
      cosine = counts ? cosine : 0.0f;
      distance_sum += weights[j] * distance;
      if (kMetric != PairMetric::kL2) product_sum += weights[j] * cosine;
      if (kMirrored) mirror.distances[j] += own_weight * distance;
      if (kMirrored) mirror.products[j] += own_weight * cosine;
    }
    distances[i].add(distance_sum);
    if (kMetric != PairMetric::kL2) products[i].add(product_sum);
  }
  if (mirrors) mirror.store(problem.fixed, first_other + warp_other, edges.others - warp_other, lane);
}

// Sums of lanes to those of the rows of a tile: four lanes hold parts of a row, and four warps; these add
// up in turns. All threads of the block; a barrier must follow.
template <class Sum>
__device__ __forceinline__ void add_lanes(const Sum (&distances)[2 * kRowFragments],
                                          const Sum (&products)[2 * kRowFragments], PairSums* to) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  for (int turn = 0; turn < 4; ++turn) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * kRowFragments; ++i) {
      double of_distances = distances[i].value(), of_products = products[i].value();
      for (int step = 1; step < 4; step *= 2) {
        of_distances += __shfl_xor_sync(kAllLanes, of_distances, step);
        of_products += __shfl_xor_sync(kAllLanes, of_products, step);
      }
      if (warp % 4 != turn || lane % 4 != 0) continue;
      PairSums& sums = to[first_row_of(warp) + row_in_warp(i / 2, i % 2, lane)];
      sums.distances = of_distances + (turn == 0 ? 0.0 : sums.distances);
      sums.products = of_products + (turn == 0 ? 0.0 : sums.products);
    }
  }
}

// What a block has found for its rows. All threads of the block.
template <bool kMirrored, class Sum>
__device__ __forceinline__ void store_sums(const PairProblem& problem, PairShared& shared,
                                           int64_t first_row, int64_t number_of_segment,
                                           const Sum (&distances)[2 * kRowFragments],
                                           const Sum (&products)[2 * kRowFragments]) {
  const int64_t rows = problem.rows.given.count;
  add_lanes(distances, products, shared.sums);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTile && first_row + i < rows; i += kPairThreads) {
    const PairSums found = {shared.sums[i].distances + shared.near_sums[i].distances,
                            shared.sums[i].products + shared.near_sums[i].products};
    if (kMirrored)
      problem.fixed.add(first_row + i, found);
    else
      problem.sums[number_of_segment * rows + first_row + i] = found;
  }
}

template <PairMetric kMetric, bool kMirrored>
__global__ void __launch_bounds__(kPairThreads, 1) sum_pairs(const __grid_constant__ PairProblem problem) {
  PairShared& shared = shared_memory<PairShared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  if (blockIdx.x < problem.adders) {
    const int64_t task = static_cast<int64_t>(blockIdx.x) * kPairWarps + warp;
    if (task < problem.unit_sums.tasks()) problem.unit_sums.add(task);
    return;
  }
  const int64_t block = blockIdx.x - problem.adders;
  const int64_t number_of_segment = block / problem.row_tiles;
  const int64_t first_row = (block - number_of_segment * problem.row_tiles) * kTile;
  const Segment segment = problem.segments.segment(number_of_segment);
  const int64_t tiles = (segment.end - segment.begin + kTile - 1) / kTile;
  const int64_t first_tile = kMirrored ? max(int64_t{0}, (first_row - segment.begin) / kTile) : 0;
  if (kMirrored && first_tile >= tiles) return;
  const int steps = problem.rows.packed.steps();
  const int64_t rows = problem.rows.given.count,
                all = (tiles - first_tile) * steps;  // stages, tile after tile

  const auto copy_stage = [&](int64_t number) {
    if (number < all) {
      const int64_t tile = number / steps, first_other = segment.begin + (first_tile + tile) * kTile;
      copy_step(problem.rows.packed, first_row, rows, problem.others.packed, first_other, segment.end,
                static_cast<int>(number - tile * steps), shared.stages[number % kStages]);
    }
    async_commit();  // a group each time, so that waiting counts right
  };

  clear_near(shared.near);
  for (int i = thread; i < kTile; i += kPairThreads) shared.near_sums[i] = {0.0, 0.0};
  std::conditional_t<kMirrored, ShortSum, LongSum> distances[2 * kRowFragments],
      products[2 * kRowFragments];
  for (int i = 0; i < kStages - 1; ++i) copy_stage(i);
  int64_t number = 0;
  for (int64_t tile = first_tile; tile < tiles; ++tile) {
    TileSums c = {};
    for (int step = 0; step < steps; ++step, ++number) {
      async_wait<kStages - 2>();
      __syncthreads();  // all have their copies, and all are done with the stage that is filled next
      copy_stage(number + kStages - 1);
      multiply_stage(shared.stages[number % kStages], first_row_of(warp), first_other_of(warp), c);
    }
    const int64_t first_other = segment.begin + tile * kTile;
    add_tile<kMetric, kMirrored>(problem, c, first_row, first_other, segment.end, distances, products,
                                 shared.near);
    __syncthreads();
    if (shared.near.any == 0) continue;
    // Of moved rows, whose differences are of float64, one at a time.
    constexpr int kPairs = kMetric == PairMetric::kL2 ? 1 : kNearTogether;
    measure_near<kPairs>(shared.near, [&](int row, const int(&others)[kPairs], int count) {
      int64_t positions[kPairs], own = 0;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        positions[p] = first_other + (p < count ? others[p] : others[0]);
        own = lane == p ? positions[p] : own;
      }
      const PairSums pair = measured_pairs<kMetric>(problem, first_row + row, positions, count);
      const auto times = [&](int64_t position) {
        const double weight = lane < count ? static_cast<double>(weight_at(problem, position)) : 0.0;
        return PairSums{weight * pair.distances, weight * pair.products};
      };
      PairSums of_row = times(lane < count ? own : positions[0]);
      for (int step = 1; step < kPairs; step *= 2) {
        of_row.distances += __shfl_xor_sync(kAllLanes, of_row.distances, step);
        of_row.products += __shfl_xor_sync(kAllLanes, of_row.products, step);
      }
      if (lane == 0) {
        shared.near_sums[row].distances += of_row.distances;
        shared.near_sums[row].products += of_row.products;
      }
      if (kMirrored && first_row != first_other && lane < count)
        problem.fixed.add(own, times(first_row + row));
    });
  }
  async_wait<0>();

  store_sums<kMirrored>(problem, shared, first_row, number_of_segment, distances, products);
}

// L2 depths of the sums.
struct L2Finish {
  PairSide rows;
  Groups groups;
  PairResults pairs;
  const double* totals;
  const float* own_weights;  // null where rows are not left out
  Move move;
  Depths depths;
};

// One thread for each group and row, rows fastest.
static __global__ void __launch_bounds__(kPairThreads, 1)
    finish_l2(const __grid_constant__ L2Finish finish) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kPairThreads + threadIdx.x;
  const int64_t rows = finish.rows.given.count, group = at / rows, i = at - group * rows;
  if (group >= finish.groups.count) return;
  double weight = finish.totals[group];
  if (finish.own_weights != nullptr && finish.groups.group_of(i) == group)
    weight -= static_cast<double>(finish.own_weights[i]);
  const double distance = finish.pairs.of(i, group, weight).distances / weight;
  const bool known = weight > 0.0 && is_number(finish.rows.squares[i]);
  finish.depths.store(
      finish.rows.row(i), group,
      known ? depth_of_mean_distance(PairMetric::kL2, ldexp(distance, -finish.move.exponent()))
            : not_a_number());
}

}  // namespace ec::cuda
