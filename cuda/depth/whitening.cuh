// SPDX-License-Identifier: Apache-2.0
// Directions that whiten a corpus: u' C^-1/2 for the C of its tridiagonal form (tridiagonal.cuh), up to a
// factor that ranks do not see.
//
//   A^-1/2 = 2 / pi  integral over all s of e^s (A + e^2s I)^-1 ds,
//
// since each eigenvalue has 1 / (2 sqrt(l)) times the integral of sech. The trapezoidal rule with step h
// leaves 4 exp(-pi^2 / h) of it, and ends at distance t from log sqrt(l) exp(-t). A is scaled so that its
// largest eigenvalue is 1; those of a C that is not singular are then above 8 d eps, which bounds s below.
// Each node is one tridiagonal system, solved without pivots as A is positive definite.
#pragma once

#include "depth/tridiagonal.cuh"

namespace ec::cuda {

constexpr double kNodeStep = 0.3;   // leaves 2e-14
constexpr double kNodeTail = 32.0;  // leaves 2e-14
constexpr int kNodeThreads = 64, kSolveThreads = 128;

struct Nodes {
  double first;  // the least s
  int64_t count;
  // Of each, by column: 1 / pivot, and the number beside it over the pivot.
  double *inverses, *factors;
  int64_t columns;
};

// Eliminates the columns of (a T + t + e^2s) for each node, a thread each.
static __global__ void __launch_bounds__(kNodeThreads, 1)
    factor_nodes(Nodes nodes, const double* diagonal, const double* beside, const GroupMoments* group) {
  const int64_t node = static_cast<int64_t>(blockIdx.x) * kNodeThreads + threadIdx.x;
  if (node >= nodes.count) return;
  const double target = group->shrinkage * group->trace / static_cast<double>(nodes.columns);
  const double scale = 1.0 / ((1.0 - group->shrinkage) * group->top + target);
  const double a = (1.0 - group->shrinkage) * scale;
  const double shift = target * scale + exp(2.0 * (nodes.first + kNodeStep * static_cast<double>(node)));
  double pivot = 1.0, last = 0.0;
  for (int64_t k = 0; k < nodes.columns; ++k) {
    pivot = __fma_rn(a, diagonal[k], shift) - last * last / pivot;
    last = a * beside[k];
    nodes.inverses[node * nodes.columns + k] = 1.0 / pivot;
    nodes.factors[node * nodes.columns + k] = last / pivot;
  }
}

// sums[split][column][direction] = sum over the nodes of the split (blockIdx.y) of e^s (A + e^2s)^-1 y. A
// thread for each direction. Memory: rotated y, forward (of the split) and sums: [column][direction].
static __global__ void __launch_bounds__(kSolveThreads, 1)
    solve_nodes(Nodes nodes, const double* rotated, int64_t directions, double* forward, double* sums) {
  const int64_t direction = static_cast<int64_t>(blockIdx.x) * kSolveThreads + threadIdx.x;
  if (direction >= directions) return;
  const int64_t columns = nodes.columns, size = columns * directions;
  const double* y = rotated + direction;
  double *between = forward + blockIdx.y * size + direction, *to = sums + blockIdx.y * size + direction;
  for (int64_t k = 0; k < columns; ++k) to[k * directions] = 0.0;
  for (int64_t node = blockIdx.y; node < nodes.count; node += gridDim.y) {
    const double *inverses = nodes.inverses + node * columns, *factors = nodes.factors + node * columns;
    const double weight = exp(nodes.first + kNodeStep * static_cast<double>(node));
    double number = 0.0;
    for (int64_t k = 0; k < columns; ++k) {
      number = y[k * directions] - (k > 0 ? factors[k - 1] * number : 0.0);
      between[k * directions] = number;
    }
    number = 0.0;
    for (int64_t k = columns - 1; k >= 0; --k) {
      number = between[k * directions] * inverses[k] - (k + 1 < columns ? factors[k] * number : 0.0);
      to[k * directions] = __fma_rn(weight, number, to[k * directions]);
    }
  }
}

// The first of `splits` arrays of `size` numbers gets the sum of all.
static __global__ void __launch_bounds__(kSolveThreads, 1)
    add_splits(double* sums, int64_t size, int splits) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kSolveThreads + threadIdx.x;
  if (i >= size) return;
  double sum = 0.0;
  for (int split = 0; split < splits; ++split) sum += sums[split * size + i];
  sums[i] = sum;
}

// A group without a covariance has no depths either.
static __global__ void __launch_bounds__(kNodeThreads, 1)
    mark_singular(const GroupMoments* moments, int64_t count, double* totals) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kNodeThreads + threadIdx.x;
  if (group < count && moments[group].shrinkage != moments[group].shrinkage) totals[group] = not_a_number();
}

}  // namespace ec::cuda
