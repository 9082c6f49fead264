// SPDX-License-Identifier: Apache-2.0
// Scatters as tridiagonal matrices: S = Q T Q', by Householder's reflections (Golub and Van Loan, Matrix
// Computations, 8.3.1). Shrinking, scaling, and taking one row out change T by a multiple of the identity
// or y'(aT + tI)^-1 y by a rank-one formula, so that nothing else is ever factorised: with T,
// (aT + tI)^-1 y costs O(d), and eigenvalues are counted without being computed.
//
// Numerics: float64, backward stable as LAPACK's symmetric eigensolver is, which starts in the same way.
// Memory, for each group of a batch: scatters[d][d], whose trailing part is S reduced so far;
// vectors[d][d], Q; diagonals[d] and beside[d], T.
#pragma once

#include "depth/moments.cuh"

namespace ec::cuda {

struct Tridiagonals {
  double *scatters, *vectors, *diagonals, *beside;
  double* products;  // [batch][2][d]: A v, Q v
  int64_t columns;

  __device__ double* scatter(int64_t batch) const { return scatters + batch * columns * columns; }
  __device__ double* vector(int64_t batch) const { return vectors + batch * columns * columns; }
  __device__ double* diagonal(int64_t batch) const { return diagonals + batch * columns; }
  __device__ double* off(int64_t batch) const { return beside + batch * columns; }
  __device__ double* product(int64_t batch) const { return products + batch * 2 * columns; }
};

// I - factor v v', v = (head, the rest of the pivot's row): makes of that row (beside, 0, 0, ..).
struct Reflection {
  const double* rest;  // of column step + 1 on
  int64_t first;
  double head, factor, beside;

  __device__ double number(int64_t column) const { return column == first ? head : rest[column]; }
};

// Squares whose sum is below have no digits, and are none of a scatter with numbers near 1.
constexpr double kLeastReflected = 1e-300;

// Of all threads of a block.
__device__ __forceinline__ Reflection reflection_of(const double* pivot_row, int64_t step, int64_t columns,
                                                    double* scratch) {
  double tail = 0.0;
  for (int64_t j = step + 2 + threadIdx.x; j < columns; j += kMomentThreads)
    tail = __fma_rn(pivot_row[j], pivot_row[j], tail);
  tail = block_sum(tail, scratch);
  Reflection made = {pivot_row, step + 1, 0.0, 0.0, pivot_row[step + 1]};
  if (tail < kLeastReflected) return made;
  const double length = sqrt(__fma_rn(made.beside, made.beside, tail));
  const double beside = made.beside > 0.0 ? -length : length;
  made.head = made.beside - beside;
  made.factor = 2.0 / __fma_rn(made.head, made.head, tail);
  made.beside = beside;
  return made;
}

// Rows of the reduced scatter below the pivot, then all rows of Q: a warp each.
struct ReflectedRow {
  double* numbers;
  int64_t row;  // of its matrix
  bool of_scatter;

  __device__ ReflectedRow(const Tridiagonals& t, int64_t batch, int64_t step, int64_t at) {
    const int64_t below = t.columns - step - 1;
    of_scatter = at < below;
    row = of_scatter ? step + 1 + at : at - below;
    numbers = (of_scatter ? t.scatter(batch) : t.vector(batch)) + row * t.columns;
  }
};

// products = A v, Q v.
// Memory: shared, a double for each warp.
static __global__ void __launch_bounds__(kMomentThreads, 1)
    multiply_reflection(Tridiagonals t, int64_t step) {
  double* scratch = shared_array<double>(kMomentWarps);
  const int64_t batch = blockIdx.y;
  const Reflection v = reflection_of(t.scatter(batch) + step * t.columns, step, t.columns, scratch);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kMomentWarps + threadIdx.x / kWarpSize;
  if (at >= 2 * t.columns - step - 1) return;
  const ReflectedRow own(t, batch, step, at);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  double sum = 0.0;
  for (int64_t j = v.first + lane; j < t.columns; j += kWarpSize)
    sum = __fma_rn(own.numbers[j], v.number(j), sum);
  sum = warp_sum(sum);
  if (lane == 0) t.product(batch)[(own.of_scatter ? 0 : t.columns) + own.row] = sum;
}

// A = H A H and Q = Q H, by the products: with p = factor A v and w = p - factor / 2 (p'v) v, A loses
// v w' + w v'.
// Memory: shared, a double for each warp.
static __global__ void __launch_bounds__(kMomentThreads, 1) apply_reflection(Tridiagonals t, int64_t step) {
  double* scratch = shared_array<double>(kMomentWarps);
  const int64_t batch = blockIdx.y;
  const Reflection v = reflection_of(t.scatter(batch) + step * t.columns, step, t.columns, scratch);
  const double* products = t.product(batch);
  double both = 0.0;
  for (int64_t j = v.first + threadIdx.x; j < t.columns; j += kMomentThreads)
    both = __fma_rn(products[j], v.number(j), both);
  const double half = 0.5 * v.factor * v.factor * block_sum(both, scratch);
  if (blockIdx.x == 0 && threadIdx.x == 0) t.off(batch)[step] = v.beside;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kMomentWarps + threadIdx.x / kWarpSize;
  if (at >= 2 * t.columns - step - 1) return;
  const ReflectedRow own(t, batch, step, at);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const double product = v.factor * products[(own.of_scatter ? 0 : t.columns) + own.row];
  if (!own.of_scatter) {
    for (int64_t j = v.first + lane; j < t.columns; j += kWarpSize)
      own.numbers[j] = __fma_rn(-product, v.number(j), own.numbers[j]);
    return;
  }
  const double own_v = v.number(own.row), own_w = __fma_rn(-half, own_v, product);
  for (int64_t j = v.first + lane; j < t.columns; j += kWarpSize) {
    const double other_v = v.number(j), other_w = __fma_rn(-half, other_v, v.factor * products[j]);
    own.numbers[j] = own.numbers[j] - (own_v * other_w + own_w * other_v);
  }
}

// ---- eigenvalues ----------------------------------------------------------------------------------

// How many eigenvalues of T are below x (Sturm).
__device__ __forceinline__ int64_t count_below(const double* diagonal, const double* beside,
                                               int64_t columns, double x) {
  constexpr double kLeastPivot = 1e-290;
  int64_t count = 0;
  double pivot = 1.0, square = 0.0;
  for (int64_t k = 0; k < columns; ++k) {
    pivot = diagonal[k] - x - square / pivot;
    if (fabs(pivot) < kLeastPivot) pivot = -kLeastPivot;
    count += pivot < 0.0 ? 1 : 0;
    square = beside[k] * beside[k];
  }
  return count;
}

// At most so much above the largest eigenvalue, in parts of the range that Gershgorin's circles leave: 33
// to the power of the rounds.
constexpr int kTopRounds = 6;

__device__ __forceinline__ double largest_eigenvalue(const double* diagonal, const double* beside,
                                                     int64_t columns) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  double low = 0.0, high = 0.0;
  for (int64_t k = lane; k < columns; k += kWarpSize) {
    const double before = k > 0 ? fabs(beside[k - 1]) : 0.0,
                 after = k + 1 < columns ? fabs(beside[k]) : 0.0;
    low = fmax(low, diagonal[k]);
    high = fmax(high, diagonal[k] + before + after);
  }
  low = warp_max(low), high = warp_max(high);
#pragma unroll 1
  for (int round = 0; round < kTopRounds; ++round) {
    const double step = (high - low) / (kWarpSize + 1), own = low + step * (lane + 1);
    const unsigned all_below =
        __ballot_sync(kAllLanes, count_below(diagonal, beside, columns, own) == columns);
    const int first = all_below == 0 ? kWarpSize : __ffs(all_below) - 1;
    if (first < kWarpSize) high = low + step * (first + 1);
    low += step * first;
  }
  return high;
}

// What a covariance is made of.
struct CovarianceOptions {
  double shrinkage;  // below 0: 0 where the covariance has an inverse, else Ledoit and Wolf's
  double least;      // rows of positive weight
};

// (1 - s) S + s (trace S / d) I has no usable inverse: as Whitener.singular. By a warp.
__device__ __forceinline__ bool is_singular(const double* diagonal, const double* beside, int64_t columns,
                                            const GroupMoments& group, double shrinkage) {
  const auto width = static_cast<double>(columns);
  const double target = shrinkage * group.trace / width, kept = 1.0 - shrinkage;
  const double bound = (kept * group.top + target) * width * 2.220446049250313e-16 * 8.0;
  if (!(bound > 0.0)) return true;
  if (target > bound) return false;
  return !(kept > 0.0) || count_below(diagonal, beside, columns, (bound - target) / kept) > 0;
}

// Finishes T, and decides on the shrinkage. One block of a warp for each group.
static __global__ void __launch_bounds__(kWarpSize, 1)
    choose_shrinkage(Tridiagonals t, CovarianceOptions options, GroupMoments* groups) {
  const int64_t batch = blockIdx.x, columns = t.columns;
  const int lane = static_cast<int>(threadIdx.x);
  const double* scatter = t.scatter(batch);
  double *diagonal = t.diagonal(batch), *beside = t.off(batch);
  for (int64_t k = lane; k < columns; k += kWarpSize) diagonal[k] = scatter[k * columns + k];
  if (lane == 0) {
    if (columns > 1) beside[columns - 2] = scatter[(columns - 1) * columns - 1];
    beside[columns - 1] = 0.0;
  }
  __syncthreads();
  GroupMoments group = groups[batch];
  double trace = 0.0, squares = 0.0;
  for (int64_t k = lane; k < columns; k += kWarpSize) {
    trace += diagonal[k];
    squares += diagonal[k] * diagonal[k] + 2.0 * beside[k] * beside[k];
  }
  group.trace = warp_sum(trace);
  squares = warp_sum(squares) / (group.weight * group.weight);
  group.top = largest_eigenvalue(diagonal, beside, columns);
  group.shrinkage = options.shrinkage;
  if (options.shrinkage < 0.0) {
    group.shrinkage = 0.0;
    const auto width = static_cast<double>(columns);
    // Leaving a row out must leave full rank.
    if (group.used <= width + 1.0 || is_singular(diagonal, beside, columns, group, 0.0)) {
      const double scale = group.trace / group.weight / width, spread = squares - width * scale * scale;
      const double noise = (group.fourth / group.weight - squares) / group.used;
      group.shrinkage = spread > 0.0 ? fmin(fmax(noise, 0.0) / spread, 1.0) : 1.0;
    }
  }
  if (group.used < options.least || is_singular(diagonal, beside, columns, group, group.shrinkage))
    group.shrinkage = not_a_number();
  if (lane == 0) groups[batch] = group;
}

}  // namespace ec::cuda
