// SPDX-License-Identifier: Apache-2.0
// Mahalanobis depth on the GPU: 1 / (1 + (x - mu)' C^-1 (x - mu)), C = (1 - s) S + s (trace S / d) I, with
// S the scatter of a group over W - ddof (_covariance.py). With y = Q'(x - mu) (tridiagonal.cuh) the
// distance is y'(aT + tI)^-1 y: one division a column, in one pass.
//
// A row that is left out of its own group, exactly: with r = W - w, k = W w / r and c = x - mu, the scatter
// loses k c c', so that its trace loses k |c|^2, and Sherman and Morrison's formula gives the distance.
#pragma once

#include "depth/tridiagonal.cuh"

namespace ec::cuda {

// Scored rows as i, columns as k: moved and scaled. Rows are positions where they are their own corpus.
struct MovedRowsOperand {
  static constexpr bool kAcross = false;
  AnyRows rows;
  Groups groups;
  const int* exponents;
  const double* means;  // [batch][columns]
  int64_t first, many;

  __device__ int64_t count(int64_t) const { return many; }
  __device__ int64_t depth(int64_t) const { return rows.columns; }
  __device__ double number(int64_t batch, int64_t i, int64_t k) const {
    const double number = rows.wide_number(groups.row(first + i), k);
    if (!is_finite(number)) return not_a_number();
    const double moved = number * unit_scale(exponents[1]) - means[batch * rows.columns + k];
    return moved != moved ? moved : fmax(-kFurthestOut, fmin(kFurthestOut, moved));
  }
};

struct DistanceProblem {
  const double* rotated;  // [batch][column][row]: y
  int64_t stride, batch_stride;
  Tridiagonals t;
  const GroupMoments* groups;
  MomentRows corpus;
  bool own;     // rows are left out of their own groups
  double ddof;  // that the weight is lessened by
  int64_t first_row, rows, first_group;
  Depths depths;
};

// y'(aT + tI)^-1 y, by the elimination of columns one after the other.
__device__ __forceinline__ double inverse_form(const double* y, int64_t stride, const double* diagonal,
                                               const double* beside, int64_t columns, double a, double t) {
  double sum = 0.0, eliminated = 0.0, before = 0.0;  // before: a beside / pivot
  double last = 0.0;                                 // a beside
#pragma unroll 4
  for (int64_t k = 0; k < columns; ++k) {
    eliminated = __fma_rn(-before, eliminated, y[k * stride]);
    const double inverse = 1.0 / __fma_rn(-before, last, __fma_rn(a, diagonal[k], t));
    sum = __fma_rn(eliminated * eliminated, inverse, sum);
    last = a * beside[k];
    before = last * inverse;
  }
  return sum;
}

constexpr int kDistanceThreads = 128;

// A thread for each row and group (blockIdx.y).
static __global__ void __launch_bounds__(kDistanceThreads, 1) find_distances(DistanceProblem problem) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kDistanceThreads + threadIdx.x, batch = blockIdx.y;
  if (i >= problem.rows) return;
  const int64_t columns = problem.t.columns, at = problem.first_row + i, to = problem.first_group + batch;
  const GroupMoments group = problem.groups[batch];
  const double *y = problem.rotated + batch * problem.batch_stride + i,
               *diagonal = problem.t.diagonal(batch), *beside = problem.t.off(batch);
  const bool left_out = problem.own && problem.corpus.groups.group_of(at) == to;
  const double weight = left_out ? problem.corpus.weight(at) : 0.0;
  const double rest = group.weight - weight, lost = group.weight * weight / rest;
  double trace = group.trace;
  if (lost != 0.0) {
    double square = 0.0;
    for (int64_t k = 0; k < columns; ++k)
      square = __fma_rn(y[k * problem.stride], y[k * problem.stride], square);
    trace -= lost * square;
  }
  const double scale = 1.0 / (rest - problem.ddof), a = (1.0 - group.shrinkage) * scale;
  const double t = group.shrinkage * trace * scale / static_cast<double>(columns);
  double distance = inverse_form(y, problem.stride, diagonal, beside, columns, a, t);
  const double factor = 1.0 - a * lost * distance, share = group.weight / rest;
  distance *= share * share / factor;
  // Without the row its direction has no variance left: infinitely far.
  const double depth = factor <= 1e-12 ? 0.0 : 1.0 / (1.0 + distance);
  problem.depths.store(problem.corpus.groups.row(at), to, depth);
}

}  // namespace ec::cuda
