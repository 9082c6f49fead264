// SPDX-License-Identifier: Apache-2.0
// Rows moved to the bulk of a corpus and scaled to its size (csrc/depth/origin.h), in bf16 for the tensor
// cores: distances do not change, and products lose fewer digits near the origin.
//
// The center is the median, column by column, of a few evenly spaced rows. The scale, a power of two,
// brings that sample to about 1; where other rows are so far out that their squares would leave float32, it
// brings those to 2^kFarExponent, which leaves the bulk its digits unless it is some 2^100 times smaller.
// All of this is in float64, whatever the rows are in; what is packed is rounded from there.
#pragma once

#include "depth/exponents.cuh"
#include "depth/groups.cuh"
#include "depth/unit_rows.cuh"

namespace ec::cuda {

constexpr int kSampleRows = 65;
constexpr int kCenterColumns = 32;  // of a block
constexpr int kFarExponent = 50;    // squares of numbers that large, of 2^16 columns, are floats
constexpr int kMoveThreads = 256;

__device__ __forceinline__ bool is_finite(double a) { return fabs(a) <= 1.7976931348623157e308; }
__device__ __forceinline__ bool is_number(float a) { return a == a; }

// How rows are moved and scaled.
struct Move {
  double* center;  // [columns]
  int* exponents;  // biased, of the largest number after the move: of the sample, of all

  // Rows are multiplied by 2 to this.
  __device__ int exponent() const {
    const int bulk = exponents[0], all = exponents[1];
    if (all == 0) return 0;
    return max(-1000, min(1000, kExponentBias - max(bulk, all - kFarExponent)));
  }
};

// Requires: exponents are 0 before. Rows of the sample that are not finite count as zeros.
// Memory: shared, the sample of kCenterColumns columns. A warp finds a median, by the ranks of its lanes.
struct CenterShared {
  double sample[kSampleRows][kCenterColumns];
};
static __global__ void __launch_bounds__(kMoveThreads, 1) find_center(AnyRows corpus, Move move) {
  CenterShared& shared = shared_memory<CenterShared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kCenterColumns;
  const int taken = static_cast<int>(min(corpus.count, int64_t{kSampleRows}));
  for (int i = thread; i < taken * kCenterColumns; i += kMoveThreads) {
    const int s = i / kCenterColumns, column = i % kCenterColumns;
    const double number = first + column < corpus.columns
                              ? corpus.wide_number(s * corpus.count / taken, first + column)
                              : 0.0;
    shared.sample[s][column] = is_finite(number) ? number : 0.0;
  }
  __syncthreads();
  double largest = 0.0;
  for (int column = thread / kWarpSize; column < kCenterColumns; column += kMoveThreads / kWarpSize) {
    double median = 0.0;
    for (int base = 0; base < taken; base += kWarpSize) {
      const int s = base + lane;
      const double own = s < taken ? shared.sample[s][column] : 0.0;
      int before = 0;
      for (int i = 0; i < taken; ++i) {
        const double other = shared.sample[i][column];
        before += other < own || (other == own && i < s) ? 1 : 0;
      }
      const unsigned found = __ballot_sync(kAllLanes, s < taken && before == taken / 2);
      if (found != 0) median = __shfl_sync(kAllLanes, own, __ffs(found) - 1);
    }
    if (lane == 0 && first + column < corpus.columns) move.center[first + column] = median;
    for (int s = lane; s < taken; s += kWarpSize)
      largest = fmax(largest, fabs(shared.sample[s][column] - median));
  }
  largest = warp_max(largest);
  if (lane == 0 && is_finite(largest)) atomicMax(&move.exponents[0], biased_exponent(largest));
}

// A warp for each row. Rows that are not finite do not count.
static __global__ void __launch_bounds__(kMoveThreads, 1) find_reach(AnyRows rows, Move move) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kMoveThreads / kWarpSize);
  double reach = 0.0;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kMoveThreads + threadIdx.x) / kWarpSize;
       i < rows.count; i += warps) {
    double largest = 0.0;
    bool finite = true;
    for (int64_t k = lane; k < rows.columns; k += kWarpSize) {
      const double moved = rows.wide_number(i, k) - move.center[k];
      finite = finite && is_finite(moved);
      largest = fmax(largest, fabs(moved));
    }
    if (__any_sync(kAllLanes, !finite) == 0) reach = fmax(reach, largest);
  }
  reach = warp_max(reach);
  if (lane == 0) atomicMax(&move.exponents[1], biased_exponent(reach));
}

// numbers[position][0 .. padded) = (row - center) * scale in bf16, zeros behind its columns, then its rest;
// squares[position] = |what that is|^2. A row with a number that is not finite is packed as zeros; its
// square and (where there are any) its weight become NaN. A warp each; padded: a multiple of 4.
static __global__ void __launch_bounds__(kMoveThreads, 1)
    pack_moved_rows(AnyRows rows, Groups groups, Move move, int padded, BFloat* numbers, float* squares,
                    float* weights) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kMoveThreads / kWarpSize);
  const double scale = ldexp(1.0, move.exponent());
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kMoveThreads + threadIdx.x) / kWarpSize;
       i < rows.count; i += warps) {
    const int64_t row = groups.row(i);
    BFloat* to = numbers + i * 2 * padded;
    bool finite = true;
    for (int64_t k = lane; k < rows.columns; k += kWarpSize)
      finite = finite && is_finite(rows.wide_number(row, k));
    finite = __any_sync(kAllLanes, !finite) == 0;
    float square = 0.0f;
    for (int at = lane * kTogether; at < padded; at += kWarpColumns) {
      float moved[kTogether];
      for (int k = 0; k < kTogether; ++k)
        moved[k] = finite && at + k < rows.columns
                       ? static_cast<float>((rows.wide_number(row, at + k) - move.center[at + k]) * scale)
                       : 0.0f;
      unsigned bits[kTogether], rest[kTogether];
      split_four(moved, bits, rest);
      store_four(bits, to + at);
      store_four(rest, to + padded + at);
      for (int k = 0; k < kTogether; ++k) {
        const float packed = __uint_as_float(bits[k] << 16) + __uint_as_float(rest[k] << 16);
        square += packed * packed;
      }
    }
    square = warp_sum(square);
    if (lane != 0) continue;
    squares[i] = finite ? square : __uint_as_float(kNotANumber);
    if (!finite && weights != nullptr) weights[i] = __uint_as_float(kNotANumber);
  }
}

// Whether the product of two packed rows has lost their distance: 2 c is nearly squares, |x|^2 + |y|^2, or
// these have lost digits themselves.
constexpr float kMovedNearLimit = 1.0f - 1.0f / 16.0f, kLeastMovedSquares = 1e-30f;
__device__ __forceinline__ bool is_near_moved(float c, float squares) {
  return 2.0f * c > kMovedNearLimit * squares || squares < kLeastMovedSquares;
}

// The difference of two rows as given, by a warp: its length is length * 2^exponent, that of equal rows 0.
struct Difference {
  double length;
  int exponent;
};
// Sums of squares in between have lost nothing.
constexpr double kLeastWideSquare = 1e-250, kMostWideSquare = 1e300;

// |a - b|^2 / 2^(2 exponent), and the largest difference of two numbers.
__device__ __forceinline__ double square_of_difference(const AnyRows& a, int64_t row, const AnyRows& b,
                                                       int64_t other, int exponent, double* largest) {
  double square = 0.0, most = 0.0;
#pragma unroll 1
  for (int64_t k = threadIdx.x % kWarpSize; k < a.columns; k += kWarpSize) {
    const double difference = a.wide_number(row, k) - b.wide_number(other, k);
    const double scaled = exponent == 0 ? difference : ldexp(difference, -exponent);
    square += scaled * scaled;
    most = fmax(most, fabs(difference));
  }
  *largest = warp_max(most);
  return warp_sum(square);
}
__device__ __forceinline__ Difference difference_of(const AnyRows& a, int64_t row, const AnyRows& b,
                                                    int64_t other) {
  double largest = 0.0;
  double square = square_of_difference(a, row, b, other, 0, &largest);
  if (largest == 0.0) return {0.0, 0};
  if (square >= kLeastWideSquare && square <= kMostWideSquare) return {sqrt(square), 0};
  const int exponent = ilogb(largest);
  square = square_of_difference(a, row, b, other, exponent, &largest);
  return {sqrt(square), exponent};
}

}  // namespace ec::cuda
