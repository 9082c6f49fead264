// SPDX-License-Identifier: Apache-2.0
// Cosine depth on the GPU: D(x, F) = 2 - E[1 - cos(x, H)] = 1 + x . s / (|x| W), with s the weighted sum of
// the corpus's unit rows and W the sum of the weights, both of a group (depth_math.h). Where rows are
// scored in their own corpus, each leaves itself out: s without its own unit row, and W without its own
// weight.
//
// Three kernels, each row read once by each of the first and the last (by the first, rows wider than
// kMostStripVectors vectors once for each strip; by the last, once for each group, but from the cache):
// sums of unit rows of each segment; their sum over the segments; a dot product for each row and group.
// Numerics: unit rows in float32, all sums in float64, so that a row with most of the weight does not cost
// the others their digits. Rows whose squares leave the range of float32 are scaled first. A row of zeros,
// or with a number that is not finite, makes its own depths NaN, in the corpus all depths in its group.
#pragma once

#include "depth/segments.cuh"
#include "depth/unit_rows.cuh"

namespace ec::cuda {

constexpr int kCosineWarps = 8;
constexpr int kCosineThreads = kCosineWarps * kWarpSize;
constexpr int kMostStripVectors = 8;  // of kWarpColumns, that lanes hold in registers

// partial[segment][column] = sum of weight * row / |row| over the rows of the segment, for one strip of
// columns (blockIdx.y). weights: null for 1 each.
// Memory: shared, one double for each column of the strip.
template <class T, int kVectors, bool kWhole>
__global__ void __launch_bounds__(kCosineThreads, 1)
    sum_unit_rows(Rows<T> rows, Groups groups, const Segment* segments, const float* weights,
                  double* partial) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int first = static_cast<int>(blockIdx.y) * kVectors * kWarpColumns;
  const int last = min(rows.columns, first + kVectors * kWarpColumns);
  const Segment segment = segments[blockIdx.x];
  double sum[kVectors][kTogether] = {};
  for (int64_t i = segment.begin + warp; i < segment.end; i += kCosineWarps) {
    const T* row = rows.row(groups.row(i));
    float numbers[kVectors][kTogether];
    float square = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      load_columns<kWhole>(row, first + v * kWarpColumns + lane * kTogether, rows.columns, numbers[v]);
      for (int k = 0; k < kTogether; ++k) square += numbers[v][k] * numbers[v][k];
    }
    // Of a row wider than a strip, the rest.
    for (int at = lane * kTogether; at < rows.columns; at += kWarpColumns) {
      if (at >= first && at < last) continue;
      float others[kTogether];
      load_columns<kWhole>(row, at, rows.columns, others);
      for (int k = 0; k < kTogether; ++k) square += others[k] * others[k];
    }
    const Scaling scaling = scaling_of<kWhole>(row, rows.columns, warp_sum(square));
    const double weight = weights == nullptr ? 1.0 : static_cast<double>(weights[i]);
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      for (int k = 0; k < kTogether; ++k)
        sum[v][k] = __fma_rn(weight, static_cast<double>(scaling.unit(numbers[v][k])), sum[v][k]);
  }
  // Warp by warp, so that the order of the sums is one.
  double* of_block = shared_array<double>(static_cast<size_t>(last - first));
  for (int turn = 0; turn < kCosineWarps; ++turn) {
    if (turn == warp) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v)
        for (int k = 0; k < kTogether; ++k) {
          const int at = v * kWarpColumns + lane * kTogether + k;
          if (at >= last - first) continue;
          of_block[at] = turn == 0 ? sum[v][k] : of_block[at] + sum[v][k];
        }
    }
    __syncthreads();
  }
  double* to = partial + static_cast<int64_t>(blockIdx.x) * rows.columns + first;
  for (int at = static_cast<int>(threadIdx.x); at < last - first; at += kCosineThreads)
    to[at] = of_block[at];
}

// directions[group][column] = the sum over the segments of the group. A block takes kWarpSize columns of
// one, each warp a part of the segments. totals: null, or what gets the number of rows of each group, where
// weights are 1.
// Memory: shared, a double for each thread.
static __global__ void __launch_bounds__(kCosineThreads, 1)
    add_segments(const double* partial, const int64_t* first_segment, Groups groups, int columns,
                 double* directions, double* totals) {
  double* of_warps = shared_array<double>(kCosineThreads);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize;
  const int strips = (columns + kWarpSize - 1) / kWarpSize;
  const int64_t group = blockIdx.x / strips;
  const int column = static_cast<int>(blockIdx.x - group * strips) * kWarpSize + thread % kWarpSize;
  const int64_t begin = first_segment[group], count = first_segment[group + 1] - begin;
  double sum = 0.0;
  for (int64_t i = count * warp / kCosineWarps; column < columns && i < count * (warp + 1) / kCosineWarps;
       ++i)
    sum += partial[(begin + i) * columns + column];
  of_warps[thread] = sum;
  __syncthreads();
  if (warp > 0 || column >= columns) return;
  for (int i = 1; i < kCosineWarps; ++i) sum += of_warps[i * kWarpSize + thread];
  directions[group * columns + column] = sum;
  if (totals != nullptr && column == 0)
    totals[group] = static_cast<double>(groups.starts[group + 1] - groups.starts[group]);
}

// What rows are scored against. Where `own`, the rows are the corpus, and positions are those of `groups`.
struct Directions {
  const double *sums, *totals;  // of each group
  bool own;
  Groups groups;
  const float* own_weights;  // null: 1 each

  __device__ int64_t row(int64_t position) const { return own ? groups.row(position) : position; }
  __device__ double own_weight(int64_t position) const {
    return own_weights == nullptr ? 1.0 : static_cast<double>(own_weights[position]);
  }
};

// Depths of rows or, where that is not null, cosines[position][group] = sum of weight * cos over the group.
// A warp for each row, and kScoredGroups groups of blockIdx.y.
constexpr int kScoredGroups = 32;
template <class T, bool kWhole>
__global__ void __launch_bounds__(kCosineThreads, 1)
    score_cosine(Rows<T> rows, Directions directions, Depths depths, double* cosines) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int64_t first_group = static_cast<int64_t>(blockIdx.y) * kScoredGroups,
                last_group = min(directions.groups.count, first_group + kScoredGroups);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kCosineWarps + warp; i < rows.count;
       i += static_cast<int64_t>(gridDim.x) * kCosineWarps) {
    const int64_t row_number = directions.row(i);
    const T* row = rows.row(row_number);
    float square = 0.0f;
    for (int at = lane * kTogether; at < rows.columns; at += kWarpColumns) {
      float numbers[kTogether];
      load_columns<kWhole>(row, at, rows.columns, numbers);
      for (int k = 0; k < kTogether; ++k) square += numbers[k] * numbers[k];
    }
    const Scaling scaling = scaling_of<kWhole>(row, rows.columns, warp_sum(square));
    const int64_t own_group = directions.own ? directions.groups.group_of(i) : -1;
    for (int64_t group = first_group; group < last_group; ++group) {
      const double own = group == own_group ? directions.own_weight(i) : 0.0;
      const double* direction = directions.sums + group * rows.columns;
      double along = 0.0;
      for (int at = lane * kTogether; at < rows.columns; at += kWarpColumns) {
        float numbers[kTogether];
        load_columns<kWhole>(row, at, rows.columns, numbers);
        for (int k = 0; k < kTogether && at + k < rows.columns; ++k) {
          const double unit = static_cast<double>(scaling.unit(numbers[k]));
          along = __fma_rn(unit, __fma_rn(-own, unit, direction[at + k]), along);
        }
      }
      along = warp_sum(along);
      if (lane != 0) continue;
      const double weight = directions.totals[group] - own;
      if (cosines != nullptr)
        cosines[i * directions.groups.count + group] = along;
      else  // a row alone in its group has no depth
        depths.store(row_number, group, weight > 0.0 ? 1.0 + along / weight : not_a_number());
    }
  }
}

}  // namespace ec::cuda
