// SPDX-License-Identifier: Apache-2.0
// Weights, means and scatters of groups, in float64: what python/embedcore/depth/_covariance.py calls
// Moments, of several groups at once (a batch).
//
// Rows are multiplied by the power of two that brings the largest number of the corpus to 1 at least, below
// 2: no square leaves float64, and no depth changes. A number that is not finite, and a weight that is
// none, make the mean NaN, and with it all that is computed from it.
#pragma once

#include <cstring>

#include "depth/group_tables.cuh"
#include "depth/shifted_rows.cuh"
#include "depth/wide_products.cuh"

namespace ec::cuda {

constexpr int kMomentThreads = 256, kMomentWarps = kMomentThreads / kWarpSize;
// Scored rows further out than that are taken as so far: their squares are numbers still.
constexpr double kFurthestOut = 1e120;

// 2 to an exponent, or where that is no normal number to the next exponent that is; cheaper than ldexp.
__device__ __forceinline__ double power_of_two(int exponent) {
  const int64_t bits = static_cast<int64_t>(max(-1022, min(1023, exponent)) + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return power;
}
// By which numbers of that largest biased exponent come near 1.
__device__ __forceinline__ double unit_scale(int biased) {
  return biased == 0 ? 1.0 : power_of_two(kExponentBias - biased);
}

// The sum over the block, for all of its threads. scratch: a number for each warp.
__device__ __forceinline__ double block_sum(double value, double* scratch) {
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  double sum = 0.0;
  for (int i = 0; i < kMomentWarps; ++i) sum += scratch[i];
  return sum;
}

// The corpus as moments take it. Positions are in order of groups.
struct MomentRows {
  AnyRows rows;
  Groups groups;
  Weights weights;
  const int* exponents;  // biased, of the largest weight and of the largest number

  __device__ double scale() const { return unit_scale(exponents[1]); }
  // At most 4.
  __device__ double weight(int64_t position) const {
    if (weights.data == nullptr) return 1.0;
    const double weight = weights.of(groups.row(position));
    return is_weight(weight) ? weight * unit_scale(exponents[0]) : not_a_number();
  }
};

// Groups first, first + 1 .. of the corpus, each cut into so many parts: the batches of a product.
struct Parts {
  const int64_t* starts;
  int64_t first, parts;

  __device__ int64_t group(int64_t batch) const { return first + batch / parts; }
  __device__ int64_t rows(int64_t batch) const { return starts[group(batch) + 1] - starts[group(batch)]; }
  __device__ int64_t begin(int64_t batch) const {
    return starts[group(batch)] + rows(batch) * (batch % parts) / parts;
  }
  __device__ int64_t end(int64_t batch) const {
    return starts[group(batch)] + rows(batch) * (batch % parts + 1) / parts;
  }
};

// *largest = the largest biased exponent of a finite number. Requires: *largest is 0 before.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    find_largest_number(AnyRows rows, int* largest) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kMomentWarps;
  double most = 0.0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kMomentWarps + threadIdx.x / kWarpSize;
       i < rows.count; i += warps) {
    for (int64_t k = lane; k < rows.columns; k += kWarpSize) {
      const double number = fabs(rows.wide_number(i, k));
      if (is_finite(number)) most = fmax(most, number);
    }
  }
  most = warp_max(most);
  if (lane == 0) atomicMax(largest, biased_exponent(most));
}

// What is known of a group.
struct GroupMoments {
  double weight;
  double used;       // rows of positive weight
  double fourth;     // sum of weight times the fourth power of the distance from the mean
  double trace;      // of the scatter
  double top;        // its largest eigenvalue, or hardly above
  double shrinkage;  // NaN for a group that has no usable covariance
};

// sums[part][column] of weight * number, and of the weight and of 1 for each row that has some.
struct PartSums {
  double* sums;    // [parts][columns]
  double* totals;  // [parts][2]
};

// Blocks: strips of columns, parts.
// Memory: shared, a double for each warp.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    sum_numbers(MomentRows corpus, Parts parts, PartSums to) {
  double* scratch = shared_array<double>(kMomentWarps);
  const int64_t part = blockIdx.y, begin = parts.begin(part), end = parts.end(part);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kMomentThreads + threadIdx.x;
  const double scale = corpus.scale();
  double sum = 0.0;
  for (int64_t i = begin; column < corpus.rows.columns && i < end; ++i) {
    const double number = corpus.rows.wide_number(corpus.groups.row(i), column);
    sum = __fma_rn(corpus.weight(i), is_finite(number) ? number * scale : not_a_number(), sum);
  }
  if (column < corpus.rows.columns) to.sums[part * corpus.rows.columns + column] = sum;
  if (blockIdx.x != 0) return;
  double weight = 0.0, used = 0.0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kMomentThreads) {
    const double own = corpus.weight(i);
    weight += own;
    used += own > 0.0 ? 1.0 : 0.0;
  }
  weight = block_sum(weight, scratch);
  used = block_sum(used, scratch);
  if (threadIdx.x == 0) to.totals[part * 2] = weight, to.totals[part * 2 + 1] = used;
}

// means[batch][column] and the weights, from the sums over parts. Blocks: strips of columns, groups.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    find_means(PartSums from, Parts parts, int64_t columns, double* means, GroupMoments* groups) {
  const int64_t batch = blockIdx.y;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kMomentThreads + threadIdx.x;
  double sum = 0.0, weight = 0.0, used = 0.0;
  for (int64_t part = batch * parts.parts; part < (batch + 1) * parts.parts; ++part) {
    if (column < columns) sum += from.sums[part * columns + column];
    weight += from.totals[part * 2];
    used += from.totals[part * 2 + 1];
  }
  if (column < columns) means[batch * columns + column] = sum / weight;
  if (column == 0) groups[batch].weight = weight, groups[batch].used = used;
}

// Operands of the scatter: i is a column, k a position of the part.
template <bool kWeighted>
struct ScatterOperand {
  static constexpr bool kAcross = true;
  MomentRows corpus;
  Parts parts;
  const double* means;

  __device__ int64_t count(int64_t) const { return corpus.rows.columns; }
  __device__ int64_t depth(int64_t batch) const { return parts.end(batch) - parts.begin(batch); }
  __device__ double number(int64_t batch, int64_t i, int64_t k) const {
    const int64_t position = parts.begin(batch) + k;
    const double mean = means[(parts.group(batch) - parts.first) * corpus.rows.columns + i];
    const double centred = corpus.rows.wide_number(corpus.groups.row(position), i) * corpus.scale() - mean;
    return kWeighted ? centred * corpus.weight(position) : centred;
  }
};
// [part][j][i] for i >= j, and some others.
struct ScatterParts : WideResult {
  static constexpr bool kSymmetric = true;
};

// scatters[batch][row][column], all of it, and vectors = the identity. Blocks: rows, groups.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    add_scatters(const double* from, int64_t parts, int64_t columns, double* scatters, double* vectors) {
  const int64_t batch = blockIdx.y, row = blockIdx.x, size = columns * columns;
  for (int64_t column = threadIdx.x; column < columns; column += kMomentThreads) {
    const int64_t at = min(row, column) * columns + max(row, column);
    double sum = 0.0;
    for (int64_t part = batch * parts; part < (batch + 1) * parts; ++part) sum += from[part * size + at];
    scatters[batch * size + row * columns + column] = sum;
    vectors[batch * size + row * columns + column] = row == column ? 1.0 : 0.0;
  }
}

// totals[part * 2] = sum of weight times the fourth power of the distance from the mean.
// Memory: shared, a double for each warp.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    sum_fourth_powers(MomentRows corpus, Parts parts, const double* means, double* totals) {
  double* scratch = shared_array<double>(kMomentWarps);
  const int64_t part = blockIdx.x, columns = corpus.rows.columns;
  const double* mean = means + part / parts.parts * columns;
  const double scale = corpus.scale();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  double sum = 0.0;
  for (int64_t i = parts.begin(part) + threadIdx.x / kWarpSize; i < parts.end(part); i += kMomentWarps) {
    const int64_t row = corpus.groups.row(i);
    double square = 0.0;
    for (int64_t k = lane; k < columns; k += kWarpSize) {
      const double centred = corpus.rows.wide_number(row, k) * scale - mean[k];
      square = __fma_rn(centred, centred, square);
    }
    square = warp_sum(square);
    if (lane == 0) sum += corpus.weight(i) * square * square;
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) totals[part * 2] = sum;
}

static __global__ void __launch_bounds__(kMomentThreads, 1)
    add_fourth_powers(const double* totals, int64_t parts, int64_t count, GroupMoments* groups) {
  const int64_t batch = static_cast<int64_t>(blockIdx.x) * kMomentThreads + threadIdx.x;
  if (batch >= count) return;
  double sum = 0.0;
  for (int64_t part = batch * parts; part < (batch + 1) * parts; ++part) sum += totals[part * 2];
  groups[batch].fourth = sum;
}

}  // namespace ec::cuda
