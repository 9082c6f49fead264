// SPDX-License-Identifier: Apache-2.0
// Depths that need every pair of rows, by the tensor cores: arc and chord (depth_math.h).
//
// A block goes with one tile of rows through a share of the tiles of the corpus. Products of unit rows in
// bf16 come out in float32; distances are taken of them in registers and added up, so that no matrix of
// pairs is made. A unit row x is held as bf16 numbers x1 and, for what is strict, as those of its rest x2:
//   c~ = x1 . y1                        costs c some 1e-3,
//   c~ = x1 . y1 + x1 . y2 + x2 . y1    costs it some 1e-6, and three times as long.
// The linear correction (csrc/depth) takes the error out of the mean: mean f(c) = mean f(c~) + f'(mean c~)
// (mean c - mean c~), where mean c is exact as for cosine. Pairs so near one another, or so far, that f
// bends too much for that are measured anew from the rows themselves, each by a whole warp.
//
// Numerics: sums of a block in float32 over its share of the tiles, in float64 from there on, in one order.
// Memory: see Stage; rows of 32 numbers lie in 4 pieces of 16 bytes, whose places are swapped by row so
// that neither copies nor matrices meet in a bank.
#pragma once

#include "common/tensor_core.cuh"
#include "depth/depth_math.h"
#include "depth/unit_rows.cuh"

namespace ec::cuda {

constexpr int kTile = 128;  // rows, and rows of the corpus, of a tile
constexpr int kStep = 32;   // numbers of them that a stage holds
constexpr int kStages = 3;
constexpr int kPairThreads = 256;
constexpr int kPieces = kStep * 2 / 16;          // of 16 bytes, in a row of a stage
constexpr int kWarpRows = 64, kWarpOthers = 32;  // of the tile, that one warp takes: 2 x 4 warps
constexpr int kRowFragments = kWarpRows / 16, kOtherFragments = kWarpOthers / 8;

// Beyond this |c| a pair is measured anew.
constexpr float kNearLimit = 0.95f, kStrictNearLimit = 0.999f;

// Sums over a share of the corpus of weight * distance and weight * c~.
struct PairSums {
  double distances, products;
};

struct Stage {
  BFloat rows[kTile * kStep], others[kTile * kStep];
};
struct PairShared {
  Stage stages[kStages];
  PairSums sums[kTile];  // of each row of the tile
};

// Rows of one side.
struct Side {
  const BFloat* unit;  // [count][padded], strict [count][2 padded]: x1, then x2
  const Scaling* scalings;
  AnyRows given;
};

struct PairProblem {
  Side rows, others;
  int padded;  // a multiple of kStep
  bool strict;
  const float* weights;  // of the others; null: 1 each
  bool leave_out;        // row i is the i-th of the others, and not counted
  PairSums* sums;        // [gridDim.y][rows]
};

__device__ __forceinline__ int place_of(int row, int piece) {
  return row * kStep + (piece ^ (row >> 1 & (kPieces - 1))) * 8;
}

// One stage: numbers [at, at + kStep) of kTile rows from `first` on, zeros for rows that are not there.
__device__ __forceinline__ void copy_rows(const BFloat* from, int64_t count, int64_t first, int at,
                                          int stride, BFloat* to) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kPieces; i += kPairThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool present = first + row < count;
    const BFloat* source = from + (present ? first + row : 0) * stride + at + piece * 8;
    async_copy(to + place_of(row, piece), source, present);
  }
}

// The products of one stage, added to those of the warp.
__device__ __forceinline__ void multiply_stage(const Stage& stage, int warp_row, int warp_other,
                                               FragmentC (&c)[kRowFragments][kOtherFragments]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int k = 0; k < kStep / 16; ++k) {
    FragmentA a[kRowFragments];
    FragmentB b[kOtherFragments];
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)  // matrices: rows 0-7 and 8-15, then their second 8 numbers
      load_matrices(stage.rows + place_of(warp_row + 16 * i + lane % 16, 2 * k + lane / 16), a[i].pairs);
#pragma unroll
    for (int j = 0; j < kOtherFragments;
         j += 2) {  // matrices: 8 rows, their second 8 numbers, then the next rows
      unsigned pairs[4];
      load_matrices(
          stage.others + place_of(warp_other + 8 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2),
          pairs);
      b[j] = {{pairs[0], pairs[1]}};
      b[j + 1] = {{pairs[2], pairs[3]}};
    }
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)
#pragma unroll
      for (int j = 0; j < kOtherFragments; ++j) multiply_add(a[i], b[j], c[i][j]);
  }
}

// arccos(c) = sqrt(1 - c) P(c) for c >= 0, pi - arccos(-c) else.
template <PairMetric kMetric>
__device__ __forceinline__ float distance_at(float c) {
  if (kMetric == PairMetric::kChord) return sqrtf(fmaxf(0.0f, 2.0f - 2.0f * c));
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

// |x - sign y|^2 for the unit rows x and y that row i and other j stand for, by a warp.
__device__ __forceinline__ float measured_square(const PairProblem& problem, int64_t i, int64_t j,
                                                 float sign) {
  const Scaling of_row = problem.rows.scalings[i], of_other = problem.others.scalings[j];
  float square = 0.0f;
  for (int k = static_cast<int>(threadIdx.x) % kWarpSize; k < problem.rows.given.columns; k += kWarpSize) {
    const float difference = of_row.unit(problem.rows.given.number(i, k)) -
                             sign * of_other.unit(problem.others.given.number(j, k));
    square += difference * difference;
  }
  return warp_sum(square);
}

// The distance of unit rows of which that is known.
template <PairMetric kMetric>
__device__ __forceinline__ float distance_of(float square, float sign) {
  if (sign > 0.0f) return static_cast<float>(pair_distance(kMetric, static_cast<double>(square)));
  if (kMetric == PairMetric::kChord) return sqrtf(fmaxf(0.0f, 4.0f - square));
  return static_cast<float>(kPi - pair_distance(kMetric, static_cast<double>(square)));
}

template <PairMetric kMetric>
__global__ void __launch_bounds__(kPairThreads, 1) sum_pairs(PairProblem problem) {
  PairShared& shared = shared_memory<PairShared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int warp_row = warp / 4 * kWarpRows, warp_other = warp % 4 * kWarpOthers;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t tiles = (problem.others.given.count + kTile - 1) / kTile;
  const int64_t first_tile = tiles * blockIdx.y / gridDim.y,
                last_tile = tiles * (blockIdx.y + 1) / gridDim.y;
  const int steps_of_part = problem.padded / kStep,
            steps = problem.strict ? 3 * steps_of_part : steps_of_part;
  const int stride = problem.strict ? 2 * problem.padded : problem.padded;
  const int64_t all = (last_tile - first_tile) * steps;  // stages of this block, tile after tile

  const auto copy_stage = [&](int64_t number) {
    if (number < all) {
      Stage& stage = shared.stages[number % kStages];
      const int step = static_cast<int>(number % steps), product = step / steps_of_part;
      const int at = (step - product * steps_of_part) * kStep;
      copy_rows(problem.rows.unit, problem.rows.given.count, first_row,
                product == 2 ? problem.padded + at : at, stride, stage.rows);
      copy_rows(problem.others.unit, problem.others.given.count, (first_tile + number / steps) * kTile,
                product == 1 ? problem.padded + at : at, stride, stage.others);
    }
    async_commit();  // a group each time, so that waiting counts right
  };
  const float near_limit = problem.strict ? kStrictNearLimit : kNearLimit;

  float distances[2 * kRowFragments] = {}, products[2 * kRowFragments] = {};
  for (int i = 0; i < kStages - 1; ++i) copy_stage(i);
  int64_t number = 0;
  for (int64_t tile = first_tile; tile < last_tile; ++tile) {
    FragmentC c[kRowFragments][kOtherFragments] = {};
    for (int step = 0; step < steps; ++step, ++number) {
      async_wait<kStages - 2>();
      __syncthreads();  // all have their copies, and all are done with the stage that is filled next
      copy_stage(number + kStages - 1);
      multiply_stage(shared.stages[number % kStages], warp_row, warp_other, c);
    }
#pragma unroll
    for (int j = 0; j < kOtherFragments; ++j) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int64_t other = tile * kTile + warp_other + 8 * j + 2 * (lane % 4) + part;
        const bool there = other < problem.others.given.count;
        const float weight = !there ? 0.0f : problem.weights == nullptr ? 1.0f : problem.weights[other];
#pragma unroll
        for (int i = 0; i < kRowFragments; ++i) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int64_t row = first_row + warp_row + 16 * i + lane / 4 + 8 * half;
            float cosine = c[i][j].numbers[2 * half + part];
            float distance = distance_at<kMetric>(cosine);
            const bool counts =
                there && row < problem.rows.given.count && !(problem.leave_out && row == other);
            unsigned near = __ballot_sync(kAllLanes, counts && fabsf(cosine) > near_limit);
            while (near != 0) {
              const int from = __ffs(near) - 1;
              near &= near - 1;
              const float sign = __shfl_sync(kAllLanes, cosine, from) > 0.0f ? 1.0f : -1.0f;
              const float square = measured_square(problem, __shfl_sync(kAllLanes, row, from),
                                                   __shfl_sync(kAllLanes, other, from), sign);
              if (lane != from) continue;
              distance = distance_of<kMetric>(square, sign);
              cosine = sign * (1.0f - 0.5f * square);
            }
            const float counted = counts ? weight : 0.0f;
            distances[2 * i + half] += counted * distance;
            products[2 * i + half] += counted * cosine;
          }
        }
      }
    }
  }
  async_wait<0>();

  // Four lanes hold parts of a row, and four warps; these add up in turns.
  for (int turn = 0; turn < 4; ++turn) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * kRowFragments; ++i) {
      double of_distances = distances[i], of_products = products[i];
      for (int step = 1; step < 4; step *= 2) {
        of_distances += __shfl_xor_sync(kAllLanes, of_distances, step);
        of_products += __shfl_xor_sync(kAllLanes, of_products, step);
      }
      const int row = warp_row + 16 * (i / 2) + lane / 4 + 8 * (i % 2);
      if (warp % 4 != turn || lane % 4 != 0) continue;
      PairSums& sums = shared.sums[row];
      sums.distances = of_distances + (turn == 0 ? 0.0 : sums.distances);
      sums.products = of_products + (turn == 0 ? 0.0 : sums.products);
    }
  }
  __syncthreads();
  PairSums* to = problem.sums + blockIdx.y * problem.rows.given.count;
  for (int i = thread; i < kTile && first_row + i < problem.rows.given.count; i += kPairThreads)
    to[first_row + i] = shared.sums[i];
}

// From the sums of `shares` to depths. cosines[i] = W mean c, exact; in both the row itself is left out
// where it must be.
struct PairFinish {
  PairMetric metric;
  int64_t count;
  const PairSums* sums;
  int shares;
  const double *cosines, *total;
  const float* own_weights;  // see score_cosine
  bool leave_out, strict;
  const Scaling* scalings;
  const int* missing;  // rows of the corpus without a direction
  float* depths;
};

static __global__ void __launch_bounds__(kPairThreads, 1) finish_pairs(PairFinish finish) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPairThreads + threadIdx.x;
  if (i >= finish.count) return;
  double weight = *finish.total, distance = 0.0, rounded = 0.0;
  if (finish.leave_out)
    weight -= finish.own_weights == nullptr ? 1.0 : static_cast<double>(finish.own_weights[i]);
  for (int share = 0; share < finish.shares; ++share) {
    distance += finish.sums[share * finish.count + i].distances;
    rounded += finish.sums[share * finish.count + i].products;
  }
  distance /= weight;
  rounded /= weight;
  // The slope has no bound at the ends, where all pairs have been measured anew.
  const double bent = fabs(rounded) <= static_cast<double>(finish.strict ? kStrictNearLimit : kNearLimit)
                          ? pair_slope(finish.metric, rounded) * (finish.cosines[i] / weight - rounded)
                          : 0.0;
  const bool known = weight > 0.0 && finish.scalings[i].known() && *finish.missing == 0;
  finish.depths[i] = known ? static_cast<float>(depth_of_mean_distance(finish.metric, distance + bent))
                           : __uint_as_float(kNotANumber);
}

}  // namespace ec::cuda
