// SPDX-License-Identifier: Apache-2.0
// Directions that whiten one group after the other: which kernels make them, and where they lie.
#pragma once

#include <cmath>

#include "depth/covariance.h"
#include "depth/whitening.cuh"

namespace ec::cuda {

constexpr int kSplits = 16;  // of the nodes

class WhitenedDirections {
 public:
  WhitenedDirections(const DepthProblem& problem, int multiprocessors, Arena* arena)
      : problem_(problem),
        kept_(problem.covariance),
        covariances_(problem, multiprocessors, problem.covariance_found,
                     problem.covariance == nullptr ? arena : &kept_, arena) {
    const auto columns = static_cast<double>(problem.rows.columns);
    nodes_.first = 0.5 * std::log(columns * 8.0 * 2.220446049250313e-16) - kNodeTail;
    nodes_.count = static_cast<int64_t>((kNodeTail - nodes_.first) / kNodeStep) + 1;
    nodes_.columns = problem.rows.columns;
    nodes_.inverses = arena->take<double>(nodes_.count * nodes_.columns);
    nodes_.factors = arena->take<double>(nodes_.count * nodes_.columns);
  }

  // For so many directions at a time, each of which takes direction_bytes.
  void take(int64_t most, Arena* arena) {
    const int64_t size = most * nodes_.columns;
    rotated_ = arena->take<double>(size);
    forward_ = arena->take<double>(size * kSplits);
    sums_ = arena->take<double>(size * kSplits);
    along_ = arena->take<double>(size);
  }
  static int64_t direction_bytes(int64_t columns) {
    return (2 + 2 * kSplits) * columns * static_cast<int64_t>(sizeof(double));
  }

  int64_t together() const { return covariances_.together(); }
  const GroupMoments* moments() const { return covariances_.moments(); }

  void start(Stream stream) const { covariances_.start(stream); }
  // The covariances of groups first .. first + count, count <= together().
  void find(int64_t first, int64_t count, Stream stream) const { covariances_.find(first, count, stream); }

  // The given directions for the batch-th of those groups: [direction][column], until the next call.
  const double* of(int64_t batch, const double* directions, int64_t count, Stream stream) const {
    const int64_t columns = nodes_.columns, size = columns * columns;
    const Tridiagonals& t = covariances_.tridiagonals();
    const double* vectors = t.vectors + batch * size;
    const WideMatrix<false> given = {directions, count, columns, columns, 0};
    multiply(given, WideMatrix<true>{vectors, columns, columns, columns, 0}, {rotated_, count, 0}, stream);
    EC_LAUNCH(factor_nodes, blocks(ceiling(nodes_.count, kNodeThreads)), kNodeThreads, 0, stream, nodes_,
              t.diagonals + batch * columns, t.beside + batch * columns, moments() + batch);
    EC_LAUNCH(solve_nodes, (Dim3{blocks(ceiling(count, kSolveThreads)), kSplits, 1}), kSolveThreads, 0,
              stream, nodes_, rotated_, count, forward_, sums_);
    EC_LAUNCH(add_splits, blocks(ceiling(columns * count, kSolveThreads)), kSolveThreads, 0, stream, sums_,
              columns * count, kSplits);
    multiply(WideMatrix<false>{vectors, columns, columns, columns, 0},
             WideMatrix<true>{sums_, count, columns, count, 0}, {along_, columns, 0}, stream);
    return along_;
  }

 private:
  static unsigned blocks(int64_t count) { return static_cast<unsigned>(count); }

  template <class A, class B>
  static void multiply(const A& a, const B& b, const WideResult& to, Stream stream) {
    const int64_t tiles = ceiling(a.rows, kWideTile);
    EC_LAUNCH((multiply_wide<A, B, WideResult>), blocks(tiles * ceiling(b.rows, kWideTile)), kWideThreads,
              sizeof(WideShared), stream, a, b, to, tiles);
  }

  const DepthProblem& problem_;
  Arena kept_;
  const Covariances covariances_;
  Nodes nodes_ = {};
  double *rotated_ = nullptr, *forward_ = nullptr, *sums_ = nullptr, *along_ = nullptr;
};

}  // namespace ec::cuda
