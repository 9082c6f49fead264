// SPDX-License-Identifier: Apache-2.0
#include "depth/mahalanobis.cuh"

#include "depth/covariance.h"
#include "depth/mahalanobis.h"

namespace ec::cuda {
namespace {

constexpr int64_t kRotatedBytes = int64_t{128} << 20;  // of rotated rows at a time

// One call: where its arrays lie, and its kernels in their order.
class MahalanobisRun {
 public:
  MahalanobisRun(const DepthProblem& problem, int multiprocessors, void* workspace)
      : problem_(problem),
        arena_(workspace),
        kept_(problem.covariance),
        covariances_(problem, multiprocessors, problem.covariance_found,
                     problem.covariance == nullptr ? &arena_ : &kept_, &arena_) {
    const int64_t row_bytes =
        covariances_.together() * problem.rows.columns * static_cast<int64_t>(sizeof(double));
    const int64_t fit = max(int64_t{1}, kRotatedBytes / (row_bytes * kWideTile)) * kWideTile;
    rows_ = min(problem.rows.count, fit);
    rotated_ = arena_.take<double>(covariances_.together() * problem.rows.columns * rows_);
  }

  size_t bytes() const { return arena_.used(); }
  bool fits() const {
    const int64_t tiles = ceiling(problem_.rows.columns, kWideTile);
    return ceiling(rows_, kWideTile) <= 0x7fffffff / tiles;
  }

  void start(Stream stream) const {
    covariances_.start(stream);
    for (int64_t first = 0; first < problem_.groups; first += covariances_.together()) {
      const int64_t count = min(covariances_.together(), problem_.groups - first);
      covariances_.find(first, count, stream);
      for (int64_t row = 0; row < problem_.rows.count; row += rows_)
        score(first, count, row, min(rows_, problem_.rows.count - row), stream);
    }
  }

 private:
  static unsigned blocks(int64_t count) { return static_cast<unsigned>(count); }

  // Which row stands where among the scored ones.
  Groups positions() const {
    return problem_.own_corpus ? covariances_.groups() : Groups{nullptr, nullptr, 0, problem_.rows.count};
  }

  void score(int64_t first_group, int64_t groups, int64_t first, int64_t count, Stream stream) const {
    const int64_t columns = problem_.rows.columns, tiles = ceiling(count, kWideTile);
    const MovedRowsOperand rows = {problem_.rows,        positions(), covariances_.exponents(),
                                   covariances_.means(), first,       count};
    const WideMatrix<true> vectors = {covariances_.tridiagonals().vectors, columns, columns, columns,
                                      columns * columns};
    const WideResult to = {rotated_, rows_, rows_ * columns};
    EC_LAUNCH((multiply_wide<MovedRowsOperand, WideMatrix<true>, WideResult>),
              (Dim3{blocks(tiles * ceiling(columns, kWideTile)), 1, blocks(groups)}), kWideThreads,
              sizeof(WideShared), stream, rows, vectors, to, tiles);
    MomentRows corpus = covariances_.rows();
    if (!problem_.own_corpus) corpus.groups = positions();
    const DistanceProblem distances = {
        rotated_,
        rows_,
        rows_ * columns,
        covariances_.tridiagonals(),
        covariances_.moments(),
        corpus,
        problem_.own_corpus,
        covariances_.ddof(),
        first,
        count,
        first_group,
        {problem_.depths, problem_.rows.kind == NumberKind::kFloat64, problem_.groups}};
    EC_LAUNCH(find_distances, (Dim3{blocks(ceiling(count, kDistanceThreads)), blocks(groups), 1}),
              kDistanceThreads, 0, stream, distances);
  }

  const DepthProblem& problem_;
  Arena arena_, kept_;
  const Covariances covariances_;
  int64_t rows_ = 1;
  double* rotated_ = nullptr;
};

}  // namespace

size_t mahalanobis_workspace_bytes(const DepthProblem& problem, int multiprocessors) {
  return MahalanobisRun(problem, multiprocessors, nullptr).bytes();
}

size_t covariance_bytes(const DepthProblem& problem, int multiprocessors) {
  Arena kept(nullptr), scratch(nullptr);
  const Covariances measured(problem, multiprocessors, true, &kept, &scratch);
  return kept.used();
}

bool run_mahalanobis(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream) {
  const MahalanobisRun run(problem, multiprocessors, workspace);
  if (!run.fits()) return false;
  run.start(stream);
  return !launches_failed();
}

}  // namespace ec::cuda
