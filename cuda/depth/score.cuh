// SPDX-License-Identifier: Apache-2.0
// From directions of groups, and sums over pairs, to the depths of rows under the angular metrics.
//
// Cosine depth: D(x, F) = 2 - E[1 - cos(x, H)] = 1 + x . s / (|x| W), with s the weighted sum of the
// corpus's unit rows and W the sum of the weights, both of a group (depth_math.h). Where rows are scored in
// their own corpus, each leaves itself out: s without its own unit row, and W without its own weight.
//
// Chord and arc have sums over pairs (pairwise.cuh) of distances f(c~) and of the products c~ themselves. A
// linear correction takes the error out of the mean: mean f(c) = mean f(c~) + f'(mean c~) (mean c - mean
// c~), where mean c = x . s / (|x| W) is exact.
//
// A warp holds rows in registers, of which it knows the lengths by then, and goes with them through the
// groups, whose directions lie in shared memory; of rows wider than 1024 columns it holds a part at a time,
// and reads them twice, and directions from the cache. Numerics: unit rows in float32, as where they were
// summed; their products in float64.
#pragma once

#include "depth/pair_sums.cuh"
#include "depth/row_pieces.cuh"
#include "depth/unit_sums.cuh"

namespace ec::cuda {

constexpr int kScoreWarps = 8;
constexpr int kScoreThreads = kScoreWarps * kWarpSize;
constexpr int64_t kUnitSumBytes = int64_t{48} << 10;  // that a block shares

struct Scored {
  AnyRows rows;
  UnitSums unit_sums;
  Groups groups;         // of the corpus
  const double* totals;  // of each group; null: its number of rows
  bool own;              // the rows are the corpus, positions those of groups, and each leaves itself out
  const float* weights;  // of the corpus; null: 1 each
  int64_t together;      // groups that blocks take at a time
  PairResults pairs;     // of chord and arc
  Depths depths;

  __device__ int64_t row(int64_t position) const { return own ? groups.row(position) : position; }
  // What row `position` leaves out of its own group.
  __device__ double own_weight(int64_t position) const {
    return weights == nullptr ? 1.0 : static_cast<double>(weights[position]);
  }
  // along: the sum of weight * cos over the group; NaN where the row, or one of the group, has no
  // direction.
  __device__ void finish(int64_t position, int64_t group, double along, double own_left_out) const {
    const double total = totals == nullptr ? static_cast<double>(groups.size(group)) : totals[group],
                 weight = total - own_left_out;
    const bool known = weight > 0.0 && along == along;  // a row alone in its group has no depth
    const double depth = pairs.any() ? pairs.depth(position, group, along, weight) : 1.0 + along / weight;
    depths.store(row(position), group, known ? depth : not_a_number());
  }
};

// Products of a row's piece with the same columns of a direction (of which `at` is lane's first two
// numbers), less the row itself times `own`.
template <class T>
__device__ __forceinline__ double along_of(const Piece& piece, const Scaling& scaling, const double2* at,
                                           double own, double along) {
#pragma unroll
  for (int k = 0; k < kPieceNumbers<T>; k += 2) {
    const double2 two = at[k / 2 * kWarpSize];
    const double first = static_cast<double>(scaling.unit(number_of(piece, k, T{}))),
                 second = static_cast<double>(scaling.unit(number_of(piece, k + 1, T{})));
    along = __fma_rn(first, __fma_rn(-own, first, two.x), along);
    along = __fma_rn(second, __fma_rn(-own, second, two.y), along);
  }
  return along;
}

// Groups [begin, end), by blockIdx.y, of rows that a warp holds.
template <class T, int kPieces, bool kWhole>
__global__ void __launch_bounds__(kScoreThreads, 2) score_rows_of(const __grid_constant__ Scored problem) {
  constexpr int kRows = kRowsTogether<kPieces>, kNumbers = kPieceNumbers<T>;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int columns = static_cast<int>(problem.rows.columns);
  const int64_t stride = problem.unit_sums.stride();
  double2* unit_sums = shared_array<double2>(static_cast<size_t>(problem.together * stride / 2));
  for (int64_t begin = blockIdx.y * problem.together; begin < problem.groups.count;
       begin += gridDim.y * problem.together) {
    const int64_t end = min(problem.groups.count, begin + problem.together);
    __syncthreads();
    const auto* given = reinterpret_cast<const double2*>(problem.unit_sums.sums + begin * stride);
    for (int64_t i = thread; i < (end - begin) * stride / 2; i += kScoreThreads) unit_sums[i] = given[i];
    __syncthreads();
    for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kScoreWarps + warp) * kRows;
         i < problem.rows.count; i += static_cast<int64_t>(gridDim.x) * kScoreWarps * kRows) {
      Piece pieces[kRows][kPieces];
      Scaling scalings[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const bool there = i + r < problem.rows.count;
        const T* row = row_of<T>(problem.rows, there ? problem.row(i + r) : 0);
#pragma unroll
        for (int v = 0; v < kPieces; ++v)
          pieces[r][v] = load_piece<kWhole>(row, (v * kWarpSize + lane) * kNumbers, there ? columns : 0);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float square = 0.0f;
#pragma unroll
        for (int v = 0; v < kPieces; ++v) square += square_of<T>(pieces[r][v]);
        const bool there = i + r < problem.rows.count;
        scalings[r] = scaling_of<kWhole>(row_of<T>(problem.rows, there ? problem.row(i + r) : 0),
                                         there ? columns : 0, warp_sum(square));
      }
      const int64_t mine = i + lane;  // the row that this lane finishes
      const bool finishes = lane < kRows && mine < problem.rows.count;
      const int64_t own_group = problem.own && finishes ? problem.groups.group_of(mine) : -1;
      const double own_weight = own_group >= 0 ? problem.own_weight(mine) : 0.0;
      for (int64_t group = begin; group < end; ++group) {
        const double own = group == own_group ? own_weight : 0.0;
        const double2* direction = unit_sums + (group - begin) * stride / 2 + lane;
        double found = 0.0;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const double left_out = __shfl_sync(kAllLanes, own, r);
          double along = 0.0;
#pragma unroll
          for (int v = 0; v < kPieces; ++v) {
            if (v * kWarpPieceColumns<T> >= columns) break;
            make_anew(pieces[r][v]);
            along = along_of<T>(pieces[r][v], scalings[r], direction + v * (kNumbers / 2) * kWarpSize,
                                left_out, along);
          }
          along = warp_sum(along);
          found = r == lane ? along : found;
        }
        if (finishes) problem.finish(mine, group, found, own);
      }
    }
  }
}

// The same of rows that are wider.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kScoreThreads, 2)
    score_wide_rows(const __grid_constant__ Scored problem) {
  constexpr int kNumbers = kPieceNumbers<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int columns = static_cast<int>(problem.rows.columns);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kScoreWarps + warp; i < problem.rows.count;
       i += static_cast<int64_t>(gridDim.x) * kScoreWarps) {
    const T* row = row_of<T>(problem.rows, problem.row(i));
    const Scaling scaling = scaling_of_wide<T, kWhole>(row, columns);
    const int64_t own_group = problem.own ? problem.groups.group_of(i) : -1;
    for (int64_t group = blockIdx.y; group < problem.groups.count; group += gridDim.y) {
      const double own = group == own_group ? problem.own_weight(i) : 0.0;
      const auto* direction =
          reinterpret_cast<const double2*>(problem.unit_sums.sums + group * problem.unit_sums.stride()) +
          lane;
      double along = 0.0;
#pragma unroll 4
      for (int v = 0; v < (columns + kWarpPieceColumns<T> - 1) / kWarpPieceColumns<T>; ++v)
        along = along_of<T>(load_piece<kWhole>(row, (v * kWarpSize + lane) * kNumbers, columns), scaling,
                            direction + v * (kNumbers / 2) * kWarpSize, own, along);
      along = warp_sum(along);
      if (lane == 0) problem.finish(i, group, along, own);
    }
  }
}

}  // namespace ec::cuda
