// SPDX-License-Identifier: Apache-2.0
// Cosine depth on the GPU: D(x, F) = 2 - E[1 - cos(x, H)] = 1 + x . s / (|x| W), with s the weighted sum of
// the corpus's unit rows and W the sum of the weights (depth_math.h). Where rows are scored in their own
// corpus, each leaves itself out: s . x / |x| and W without its own weight.
//
// Three kernels, each row read once by each of the first and the last (by the first, rows wider than
// kMostStripVectors vectors once for each strip): sums of unit rows of each block; their sum over the
// blocks; a dot product for each row. Numerics: float32 over the rows of a warp, the warps of a block and
// the columns of a lane; float64 over the blocks, and from a row's dot product on. Rows whose squares leave
// the range of float32 are scaled first. A row of zeros, or with a number that is not finite, makes its own
// depth NaN, in the corpus all depths.
#pragma once

#include "depth/unit_rows.cuh"

namespace ec::cuda {

constexpr int kCosineWarps = 8;
constexpr int kCosineThreads = kCosineWarps * kWarpSize;
constexpr int kMostStripVectors = 16;  // of kWarpColumns, that lanes hold in registers

// partial[block][column] = sum of weight * row / |row| over the rows of the block, for one strip of columns
// (blockIdx.y); partial_weight[block] = the sum of those weights.
// Memory: shared, one float for each column of the strip, and a double for each warp.
template <class T, int kVectors, bool kWhole>
__global__ void __launch_bounds__(kCosineThreads, 1)
    sum_unit_rows(Rows<T> rows, const float* weights, float* partial, double* partial_weight) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int first = static_cast<int>(blockIdx.y) * kVectors * kWarpColumns;
  const int last = min(rows.columns, first + kVectors * kWarpColumns);
  float sum[kVectors][kTogether] = {};
  double total = 0.0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kCosineWarps + warp; i < rows.count;
       i += static_cast<int64_t>(gridDim.x) * kCosineWarps) {
    const T* row = rows.row(i);
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
    const float weight = weights == nullptr ? 1.0f : weights[i];
    total += static_cast<double>(weight);
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      for (int k = 0; k < kTogether; ++k) sum[v][k] += weight * scaling.unit(numbers[v][k]);
  }
  // Warp by warp, so that the order of the sums is one.
  double* of_warps = shared_array<double>(kCosineWarps + (last - first + 1) / 2);
  float* of_block = reinterpret_cast<float*>(of_warps + kCosineWarps);
  if (lane == 0) of_warps[warp] = total;
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
  float* to = partial + static_cast<int64_t>(blockIdx.x) * rows.columns + first;
  for (int at = static_cast<int>(threadIdx.x); at < last - first; at += kCosineThreads)
    to[at] = of_block[at];
  if (threadIdx.x == 0 && blockIdx.y == 0) {
    double sum_of_warps = 0.0;
    for (int turn = 0; turn < kCosineWarps; ++turn) sum_of_warps += of_warps[turn];
    partial_weight[blockIdx.x] = sum_of_warps;
  }
}

// direction[column] = the sum over the blocks; *total the sum of the weights. One thread a column.
static __global__ void __launch_bounds__(kCosineThreads, 1)
    add_blocks(const float* partial, const double* partial_weight, int blocks, int columns,
               float* direction, double* total) {
  const int at = static_cast<int>(blockIdx.x) * kCosineThreads + static_cast<int>(threadIdx.x);
  if (at < columns) {
    double sum = 0.0;
    for (int block = 0; block < blocks; ++block)
      sum += static_cast<double>(partial[static_cast<int64_t>(block) * columns + at]);
    direction[at] = static_cast<float>(sum);
  }
  if (at == 0) {
    double sum = 0.0;
    for (int block = 0; block < blocks; ++block) sum += partial_weight[block];
    *total = sum;
  }
}

// depths[i] of rows, or (where that is not null) cosines_of_rows[i] = sum of weight * cos over the corpus.
// own_weights: where the rows are the corpus; null and leave_out: weights of 1.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kCosineThreads, 1)
    score_cosine(Rows<T> rows, const float* direction, const double* total, const float* own_weights,
                 bool leave_out, float* depths, double* cosines_of_rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kCosineWarps + warp; i < rows.count;
       i += static_cast<int64_t>(gridDim.x) * kCosineWarps) {
    const T* row = rows.row(i);
    float square = 0.0f, along = 0.0f;
    for (int at = lane * kTogether; at < rows.columns; at += kWarpColumns) {
      float numbers[kTogether], of_direction[kTogether];
      load_columns<kWhole>(row, at, rows.columns, numbers);
      load_columns<kWhole>(direction, at, rows.columns, of_direction);
      for (int k = 0; k < kTogether; ++k) {
        square += numbers[k] * numbers[k];
        along += numbers[k] * of_direction[k];
      }
    }
    square = warp_sum(square);
    const Scaling scaling = scaling_of<kWhole>(row, rows.columns, square);
    const bool scaled = scaling.first != 1.0f;
    if (scaled) {  // products may have overflowed as squares did
      along = 0.0f;
      for (int at = lane * kTogether; at < rows.columns; at += kWarpColumns) {
        float numbers[kTogether], of_direction[kTogether];
        load_columns<kWhole>(row, at, rows.columns, numbers);
        load_columns<kWhole>(direction, at, rows.columns, of_direction);
        for (int k = 0; k < kTogether; ++k) along += scaling.unit(numbers[k]) * of_direction[k];
      }
    }
    double cosines =
        static_cast<double>(warp_sum(along)) * (scaled ? 1.0 : static_cast<double>(scaling.second));
    double weight = *total;
    if (leave_out) {
      const double own = own_weights == nullptr ? 1.0 : static_cast<double>(own_weights[i]);
      cosines -= own;
      weight -= own;
    }
    if (lane != 0) continue;
    if (cosines_of_rows != nullptr)
      cosines_of_rows[i] = cosines;
    else  // a row alone in its corpus has no depth
      depths[i] = weight > 0.0 ? static_cast<float>(1.0 + cosines / weight) : __uint_as_float(kNotANumber);
  }
}

}  // namespace ec::cuda
