// SPDX-License-Identifier: Apache-2.0
// The sums of unit rows of each group, of the sums of its segments, as rows are scored against them.
#pragma once

#include "depth/segments.cuh"

namespace ec::cuda {

// Memory: the numbers of a group lie as lanes take them that hold pieces of rows (row_pieces.cuh): two by
// two, those of 32 lanes one after another, so that neither loads nor banks of shared memory are wasted;
// zeros beyond the columns.
struct UnitSums {
  const double* partial;  // [segment][column]
  Segments segments;
  int64_t groups;      // 0: there is nothing to add
  int columns, piece;  // numbers of a piece: 4 or 8
  double* sums;        // [group][stride()]

  __host__ __device__ int64_t stride() const {
    const int together = kWarpSize * piece;
    return int64_t{1} * (columns + together - 1) / together * together;
  }
  __host__ __device__ int64_t strips() const { return stride() / kWarpSize; }
  __host__ __device__ int64_t tasks() const { return groups == 0 ? 0 : groups * strips(); }

  __device__ int64_t place(int column) const {
    const int number = column / piece, k = column - number * piece;
    return (static_cast<int64_t>(number / kWarpSize * (piece / 2) + k / 2) * kWarpSize +
            number % kWarpSize) *
               2 +
           k % 2;
  }
  // Over segments [begin, end), in their order.
  __device__ double sum_of(int column, int64_t begin, int64_t end) const {
    constexpr int kTogetherLoaded = 8;
    double sum = 0.0;
    for (int64_t i = begin; i < end; i += kTogetherLoaded) {
      double loaded[kTogetherLoaded];
#pragma unroll
      for (int k = 0; k < kTogetherLoaded; ++k)
        loaded[k] = i + k < end ? partial[(i + k) * columns + column] : 0.0;
#pragma unroll
      for (int k = 0; k < kTogetherLoaded; ++k) sum += loaded[k];
    }
    return sum;
  }
  // One of the tasks, 32 columns of a group, by a warp.
  __device__ void add(int64_t task) const {
    const int64_t group = task / strips();
    const int column =
        static_cast<int>(task - group * strips()) * kWarpSize + static_cast<int>(threadIdx.x) % kWarpSize;
    sums[group * stride() + place(column)] =
        column < columns ? sum_of(column, segments.begin(group), segments.end(group)) : 0.0;
  }
};

}  // namespace ec::cuda
