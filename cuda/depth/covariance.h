// SPDX-License-Identifier: Apache-2.0
// The covariances of groups, as many at a time as there is room for: which kernels find them, and where
// they lie.
#pragma once

#include "common/workspace.h"
#include "depth/depth.h"
#include "depth/group_starts.h"
#include "depth/tridiagonal.cuh"

namespace ec::cuda {

constexpr int64_t kScatterBytes = int64_t{512} << 20;  // of all scatters at a time, where one is not more
constexpr int64_t kMostTogether = 16384;               // groups
constexpr int64_t kPartRows = 256, kMostParts = 64;    // of a scatter
constexpr int64_t kReadPartRows = 32;                  // of what reads rows alone
constexpr int64_t kMomentBlocks = 4;                   // of a multiprocessor

class Covariances {
 public:
  // What scores need is taken from `kept`, all else from `scratch`. found: it is there already.
  Covariances(const DepthProblem& problem, int multiprocessors, bool found, Arena* kept, Arena* scratch)
      : problem_(problem),
        corpus_(problem.own_corpus ? problem.rows : problem.corpus),
        multiprocessors_(multiprocessors),
        found_(found) {
    choose_parts();
    const int64_t columns = corpus_.columns, size = columns * columns;
    starts_ = kept->take<int64_t>(problem.groups + 1);
    exponents_ = kept->take<int>(2);
    moments_ = kept->take<GroupMoments>(together_);
    means_ = kept->take<double>(together_ * columns);
    t_.columns = columns;
    t_.vectors = kept->take<double>(together_ * size);
    t_.diagonals = kept->take<double>(together_ * columns);
    t_.beside = kept->take<double>(together_ * columns);
    if (found) return;
    sums_.sums = scratch->take<double>(together_ * read_parts_ * columns);
    sums_.totals = scratch->take<double>(together_ * read_parts_ * 2);
    scatter_parts_ = scratch->take<double>(together_ * parts_ * size);
    t_.scatters = scratch->take<double>(together_ * size);
    t_.products = scratch->take<double>(together_ * 2 * columns);
  }

  int64_t together() const { return together_; }
  const Tridiagonals& tridiagonals() const { return t_; }
  const GroupMoments* moments() const { return moments_; }
  const double* means() const { return means_; }
  const int* exponents() const { return exponents_; }
  double ddof() const { return problem_.weights == nullptr ? 1.0 : 0.0; }

  Groups groups() const { return {problem_.order, starts_, problem_.groups, corpus_.count}; }
  MomentRows rows() const {
    return {
        corpus_, groups(), {problem_.weights, problem_.weights_kind, problem_.weights_stride}, exponents_};
  }

  // What all batches need.
  void start(Stream stream) const {
    if (found_) return;
    send_starts(problem_, corpus_.count, starts_, stream);
    clear(exponents_, 2 * sizeof(int), stream);
    const Weights weights = rows().weights;
    const auto readers = [&](int64_t rows_of_block) {
      return blocks(
          max(int64_t{1}, min(kMomentBlocks * multiprocessors_, ceiling(corpus_.count, rows_of_block))));
    };
    if (weights.data != nullptr)
      EC_LAUNCH(find_largest_weight, readers(kWeightThreads), kWeightThreads, 0, stream, weights,
                corpus_.count, exponents_);
    EC_LAUNCH(find_largest_number, readers(kMomentWarps), kMomentThreads, 0, stream, corpus_,
              exponents_ + 1);
  }

  // Moments and tridiagonal scatters of groups first .. first + count; count <= together().
  void find(int64_t first, int64_t count, Stream stream) const {
    if (found_) return;
    const Parts parts = {starts_, first, parts_}, read_parts = {starts_, first, read_parts_};
    const int64_t columns = corpus_.columns, strips = ceiling(columns, kMomentThreads);
    constexpr size_t kScratch = kMomentWarps * sizeof(double);
    EC_LAUNCH(sum_numbers, (Dim3{blocks(strips), blocks(count * read_parts_), 1}), kMomentThreads, kScratch,
              stream, rows(), read_parts, sums_);
    EC_LAUNCH(find_means, (Dim3{blocks(strips), blocks(count), 1}), kMomentThreads, 0, stream, sums_,
              read_parts, columns, means_, moments_);
    multiply_scatters(parts, count, stream);
    EC_LAUNCH(add_scatters, (Dim3{blocks(columns), blocks(count), 1}), kMomentThreads, 0, stream,
              scatter_parts_, parts_, columns, t_.scatters, t_.vectors);
    if (problem_.shrinkage < 0.0) {
      EC_LAUNCH(sum_fourth_powers, blocks(count * read_parts_), kMomentThreads, kScratch, stream, rows(),
                read_parts, means_, sums_.totals);
      EC_LAUNCH(add_fourth_powers, blocks(ceiling(count, kMomentThreads)), kMomentThreads, 0, stream,
                sums_.totals, read_parts_, count, moments_);
    }
    for (int64_t step = 0; step + 2 < columns; ++step) {
      const Dim3 grid{blocks(ceiling(2 * columns - step - 1, kMomentWarps)), blocks(count), 1};
      EC_LAUNCH(multiply_reflection, grid, kMomentThreads, kScratch, stream, t_, step);
      EC_LAUNCH(apply_reflection, grid, kMomentThreads, kScratch, stream, t_, step);
    }
    const CovarianceOptions options = {problem_.shrinkage, problem_.own_corpus ? 3.0 : 2.0};
    EC_LAUNCH(choose_shrinkage, blocks(count), kWarpSize, 0, stream, t_, options, moments_);
  }

 private:
  static unsigned blocks(int64_t count) { return static_cast<unsigned>(count); }
  int64_t group_rows(int64_t group) const {
    return problem_.starts == nullptr ? corpus_.count : problem_.starts[group + 1] - problem_.starts[group];
  }

  // Parts keep the device busy; their sums are for a batch.
  void choose_parts() {
    const int64_t columns = corpus_.columns, size = columns * columns;
    const int64_t tiles = ceiling(columns, kWideTile), half = tiles * (tiles + 1) / 2;
    int64_t most_rows = 0;
    for (int64_t g = 0; g < problem_.groups; ++g) most_rows = max(most_rows, group_rows(g));
    const auto room = [&](int64_t parts) {
      const int64_t fit = kScatterBytes / (size * (2 + parts) * static_cast<int64_t>(sizeof(double)));
      return max(int64_t{1}, min(min(problem_.groups, kMostTogether / parts), fit));
    };
    parts_ = max(int64_t{1}, min(min(kMostParts, ceiling(most_rows, kPartRows)),
                                 ceiling(2 * multiprocessors_, half * room(1))));
    together_ = room(parts_);
    read_parts_ = max(int64_t{1}, min(ceiling(most_rows, kReadPartRows),
                                      ceiling(kMomentBlocks * multiprocessors_, together_)));
  }

  void multiply_scatters(const Parts& parts, int64_t count, Stream stream) const {
    const int64_t columns = corpus_.columns, tiles = ceiling(columns, kWideTile);
    const ScatterParts to = {{scatter_parts_, columns, columns * columns}};
    const ScatterOperand<false> plain = {rows(), parts, means_};
    const ScatterOperand<true> weighted = {rows(), parts, means_};
    const Dim3 grid{blocks(tiles * tiles), 1, blocks(count * parts_)};
    if (problem_.weights == nullptr)
      EC_LAUNCH((multiply_wide<ScatterOperand<false>, ScatterOperand<false>, ScatterParts>), grid,
                kWideThreads, sizeof(WideShared), stream, plain, plain, to, tiles);
    else
      EC_LAUNCH((multiply_wide<ScatterOperand<true>, ScatterOperand<false>, ScatterParts>), grid,
                kWideThreads, sizeof(WideShared), stream, weighted, plain, to, tiles);
  }

  const DepthProblem& problem_;
  const AnyRows corpus_;
  const int multiprocessors_;
  const bool found_;
  int64_t parts_ = 1, read_parts_ = 1, together_ = 1;
  int64_t* starts_ = nullptr;
  int* exponents_ = nullptr;
  GroupMoments* moments_ = nullptr;
  double *means_ = nullptr, *scatter_parts_ = nullptr;
  PartSums sums_ = {nullptr, nullptr};
  Tridiagonals t_ = {};
};

}  // namespace ec::cuda
