// SPDX-License-Identifier: Apache-2.0
#include "depth/directions.h"

#include <optional>

#include "common/workspace.h"
#include "depth/spreads.cuh"
#include "depth/whitened_directions.h"

namespace ec::cuda {
namespace {

constexpr int64_t kDirectionBytes = int64_t{512} << 20;  // of all that a block of directions takes
constexpr int64_t kMostDirections = 32768;               // of a block
constexpr int64_t kRankBlocks = 8, kReadBlocks = 4;      // of a multiprocessor
constexpr int64_t kMostSlices = 64;

// One call: where its arrays lie, and its kernels in their order. A pass takes the groups that share their
// directions: all, or for AI-IRW one.
class DirectionsRun {
 public:
  DirectionsRun(const DepthProblem& problem, int multiprocessors, void* workspace)
      : problem_(problem),
        corpus_(problem.own_corpus ? problem.rows : problem.corpus),
        multiprocessors_(multiprocessors),
        arena_(workspace) {
    starts_ = arena_.take<int64_t>(problem.groups + 1);
    center_ = arena_.take<double>(corpus_.columns);
    exponents_ = arena_.take<int>(4);  // of weights, those of Move, and that of fixed weights
    weights_ = arena_.take<float>(corpus_.count);
    marks_ = problem.own_corpus ? weights_ : arena_.take<float>(problem.rows.count);
    totals_ = arena_.take<double>(problem.groups);
    fixed_totals_ = arena_.take<int64_t>(problem.groups);
    found_ = arena_.take<unsigned long long>(problem.groups * problem.rows.count);
    if (problem.metric == Metric::kAiIrw) whitened_.emplace(problem, multiprocessors, &arena_);
    pass_rows_ = whitened_ ? largest_group() : corpus_.count;
    corpus_keys_ = problem.own_corpus ? problem.rows.count : pass_rows_;
    take_block();
  }

  size_t bytes() const { return arena_.used(); }
  bool fits() const {
    constexpr int64_t kMostBlocks = 0x7fffffff;
    const int64_t rows = max(corpus_.count, problem_.rows.count);
    return problem_.groups <= kMostBlocks && problem_.rows.count <= kMostBlocks / problem_.groups &&
           ceiling(rows, kWideTile) <= kMostBlocks / ceiling(block_, kWideTile) &&
           // Places are 32 bits.
           corpus_.count <= kMostBlocks;
  }

  void start(Stream stream) const {
    prepare(stream);
    fill(found_, problem_.metric == Metric::kHalfspace ? 0xff : 0,
         static_cast<size_t>(problem_.groups * problem_.rows.count) * sizeof(*found_), stream);
    if (whitened_)
      score_whitened(stream);
    else
      for_blocks([&](const double* directions, int64_t count) {
        score(0, problem_.groups, directions, count, stream);
      });
    finish(stream);
  }

 private:
  static unsigned blocks(int64_t count) { return static_cast<unsigned>(count); }
  int64_t begin_of(int64_t group) const {
    return problem_.starts != nullptr ? problem_.starts[group] : group == 0 ? 0 : corpus_.count;
  }
  int64_t largest_group() const {
    int64_t most = 0;
    for (int64_t g = 0; g < problem_.groups; ++g) most = max(most, begin_of(g + 1) - begin_of(g));
    return most;
  }
  bool weighted() const { return problem_.weights != nullptr; }
  Groups groups() const { return {problem_.order, starts_, problem_.groups, corpus_.count}; }
  Groups row_order() const {
    return problem_.own_corpus ? groups() : Groups{nullptr, nullptr, 0, problem_.rows.count};
  }
  Move move() const { return {center_, exponents_ + 1}; }
  const int* unit() const { return weighted() ? exponents_ + 3 : nullptr; }

  void take_block() {
    const bool spread = problem_.metric == Metric::kProjection;
    const int64_t x_keys = problem_.own_corpus ? 0 : problem_.rows.count;
    int64_t bytes = 4 * (corpus_keys_ + x_keys + 2 * pass_rows_) + (weighted() ? 16 * pass_rows_ : 0);
    if (spread) bytes += problem_.groups * static_cast<int64_t>(sizeof(Spread));
    if (whitened_) bytes += WhitenedDirections::direction_bytes(corpus_.columns);
    block_ = min(min(kMostDirections, problem_.direction_count),
                 max(int64_t{1}, kDirectionBytes / max(int64_t{1}, bytes)));
    if (block_ > kWideTile && block_ < problem_.direction_count) block_ -= block_ % kWideTile;
    keys_ = arena_.take<unsigned>(block_ * corpus_keys_);
    row_keys_ = problem_.own_corpus ? keys_ : arena_.take<unsigned>(block_ * x_keys);
    sorted_ = arena_.take<unsigned>(block_ * pass_rows_);
    other_ = arena_.take<unsigned>(block_ * pass_rows_);
    if (weighted()) {
      places_ = arena_.take<unsigned>(block_ * pass_rows_);
      other_places_ = arena_.take<unsigned>(block_ * pass_rows_);
      up_to_ = arena_.take<int64_t>(block_ * pass_rows_);
    }
    if (spread) spreads_ = arena_.take<Spread>(block_ * problem_.groups);
    if (whitened_) whitened_->take(block_, &arena_);
  }

  template <class Body>
  void for_blocks(const Body& body) const {
    for (int64_t first = 0; first < problem_.direction_count; first += block_)
      body(problem_.directions + first * corpus_.columns, min(block_, problem_.direction_count - first));
  }

  unsigned readers(int64_t count, int threads) const {
    return blocks(max(int64_t{1}, min(ceiling(count, threads), kReadBlocks * multiprocessors_)));
  }

  // Weights, marks, and how rows are moved.
  void prepare(Stream stream) const {
    send_starts(problem_, corpus_.count, starts_, stream);
    clear(exponents_, 4 * sizeof(int), stream);
    const Weights weights = {problem_.weights, problem_.weights_kind, problem_.weights_stride};
    const unsigned readers_of_weights = readers(corpus_.count, kWeightThreads);
    if (weighted())
      EC_LAUNCH(find_largest_weight, readers_of_weights, kWeightThreads, 0, stream, weights, corpus_.count,
                exponents_);
    EC_LAUNCH(scale_weights, readers_of_weights, kWeightThreads, 0, stream, weights, groups(),
              corpus_.count, corpus_.count, exponents_, weights_);
    constexpr int kRowsEach = kRankThreads / kWarpSize;
    EC_LAUNCH(mark_bad_rows, readers(corpus_.count, kRowsEach), kRankThreads, 0, stream, corpus_, groups(),
              weights_);
    if (!problem_.own_corpus) {
      clear(marks_, static_cast<size_t>(problem_.rows.count) * sizeof(float), stream);
      EC_LAUNCH(mark_bad_rows, readers(problem_.rows.count, kRowsEach), kRankThreads, 0, stream,
                problem_.rows, row_order(), marks_);
    }
    constexpr size_t kScratch = kMomentWarps * sizeof(double);
    EC_LAUNCH(total_weights, blocks(problem_.groups), kMomentThreads, kScratch, stream, starts_, weights_,
              totals_);
    if (weighted())
      EC_LAUNCH(choose_unit, 1, kMomentThreads, kScratch, stream, totals_, problem_.groups,
                static_cast<double>(problem_.direction_count), exponents_ + 3);
    EC_LAUNCH(total_fixed_weights, blocks(problem_.groups), kRankThreads,
              kRankThreads / kWarpSize * sizeof(int64_t), stream, starts_, weights_, unit(), fixed_totals_);
    EC_LAUNCH(find_center, blocks(ceiling(corpus_.columns, kCenterColumns)), kMoveThreads,
              sizeof(CenterShared), stream, corpus_, move());
    EC_LAUNCH(find_reach, readers(corpus_.count, kRowsEach), kMoveThreads, 0, stream, corpus_, move());
    if (!problem_.own_corpus)
      EC_LAUNCH(find_reach, readers(problem_.rows.count, kRowsEach), kMoveThreads, 0, stream, problem_.rows,
                move());
  }

  void score_whitened(Stream stream) const {
    whitened_->start(stream);
    for (int64_t first = 0; first < problem_.groups; first += whitened_->together()) {
      const int64_t count = min(whitened_->together(), problem_.groups - first);
      whitened_->find(first, count, stream);
      EC_LAUNCH(mark_singular, blocks(ceiling(count, kNodeThreads)), kNodeThreads, 0, stream,
                whitened_->moments(), count, totals_ + first);
      for (int64_t g = 0; g < count; ++g)
        for_blocks([&](const double* directions, int64_t many) {
          score(first + g, 1, whitened_->of(g, directions, many, stream), many, stream);
        });
    }
  }

  void project(const AnyRows& rows, const Groups& order, int64_t first, int64_t many,
               const double* directions, int64_t count, unsigned* keys, int64_t stride,
               Stream stream) const {
    if (many == 0) return;
    const int64_t tiles = ceiling(many, kWideTile);
    EC_LAUNCH((multiply_wide<ProjectedRows, WideMatrix<false>, ProjectionKeys>),
              blocks(tiles * ceiling(count, kWideTile)), kWideThreads, sizeof(WideShared), stream,
              (ProjectedRows{rows, order, move(), first, many}),
              (WideMatrix<false>{directions, count, corpus_.columns, corpus_.columns, 0}),
              (ProjectionKeys{keys, stride}), tiles);
  }

  // A block of directions for the groups first .. first + many.
  void score(int64_t first, int64_t many, const double* directions, int64_t count, Stream stream) const {
    const int64_t begin = begin_of(first), rows = begin_of(first + many) - begin;
    if (problem_.own_corpus) {
      project(corpus_, groups(), 0, corpus_.count, directions, count, keys_, corpus_keys_, stream);
    } else {
      project(corpus_, groups(), begin, rows, directions, count, keys_, corpus_keys_, stream);
      project(problem_.rows, row_order(), 0, problem_.rows.count, directions, count, row_keys_,
              problem_.rows.count, stream);
    }
    const SortProblem sort = {keys_,         corpus_keys_, problem_.own_corpus ? 0 : begin,
                              starts_,       first,        begin,
                              sorted_,       other_,       places_,
                              other_places_, pass_rows_};
    const Dim3 grid{blocks(many), blocks(count), 1};
    EC_LAUNCH(sort_keys, grid, kSortThreads, sizeof(SortShared), stream, sort);
    const SortedKeys sorted = {sorted_, up_to_, pass_rows_, begin, starts_};
    if (weighted())
      EC_LAUNCH(add_up_weights, grid, kRankThreads, kRankThreads / kWarpSize * sizeof(int64_t), stream,
                sorted, first, places_, weights_, unit(), up_to_);
    const ScoredKeys scored = {row_keys_, problem_.rows.count, problem_.rows.count, count, found_};
    const int64_t rows_blocks = ceiling(problem_.rows.count * many, kRankThreads);
    const Dim3 slices{
        blocks(rows_blocks),
        blocks(min(min(count, kMostSlices), max(int64_t{1}, kRankBlocks * multiprocessors_ / rows_blocks))),
        1};
    if (problem_.metric == Metric::kProjection) {
      EC_LAUNCH(find_spreads, blocks(ceiling(count * many, kSpreadThreads)), kSpreadThreads, 0, stream,
                sorted, count, first, many, problem_.own_corpus, spreads_);
      EC_LAUNCH(find_outlying, slices, kRankThreads, 0, stream, sorted, scored, first, many,
                problem_.own_corpus, spreads_);
    } else if (problem_.metric == Metric::kHalfspace) {
      EC_LAUNCH((find_tails<false>), slices, kRankThreads, 0, stream, sorted, scored, first, many);
    } else {
      EC_LAUNCH((find_tails<true>), slices, kRankThreads, 0, stream, sorted, scored, first, many);
    }
  }

  void finish(Stream stream) const {
    const bool mean = problem_.metric == Metric::kIrw || problem_.metric == Metric::kAiIrw;
    const DirectionFinish finish = {
        problem_.rows,
        groups(),
        problem_.own_corpus,
        found_,
        marks_,
        weights_,
        totals_,
        fixed_totals_,
        unit(),
        mean ? problem_.direction_count : 1,
        {problem_.depths, problem_.rows.kind == NumberKind::kFloat64, problem_.groups}};
    const unsigned grid = blocks(ceiling(problem_.rows.count * problem_.groups, kRankThreads));
    if (problem_.metric == Metric::kProjection)
      EC_LAUNCH((finish_directions<true>), grid, kRankThreads, 0, stream, finish);
    else
      EC_LAUNCH((finish_directions<false>), grid, kRankThreads, 0, stream, finish);
  }

  const DepthProblem& problem_;
  const AnyRows corpus_;
  const int multiprocessors_;
  Arena arena_;
  std::optional<WhitenedDirections> whitened_;
  // Positions that a pass sorts and that keys_ holds, and directions of a block.
  int64_t pass_rows_ = 0, corpus_keys_ = 0, block_ = 1;
  int64_t* starts_ = nullptr;
  double* center_ = nullptr;
  int* exponents_ = nullptr;
  float *weights_ = nullptr, *marks_ = nullptr;
  double* totals_ = nullptr;
  int64_t* fixed_totals_ = nullptr;
  unsigned long long* found_ = nullptr;
  unsigned *keys_ = nullptr, *row_keys_ = nullptr, *sorted_ = nullptr, *other_ = nullptr;
  unsigned *places_ = nullptr, *other_places_ = nullptr;
  int64_t* up_to_ = nullptr;
  Spread* spreads_ = nullptr;
};

}  // namespace

size_t directions_workspace_bytes(const DepthProblem& problem, int multiprocessors) {
  return DirectionsRun(problem, multiprocessors, nullptr).bytes();
}

bool run_directions(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream) {
  const DirectionsRun run(problem, multiprocessors, workspace);
  if (!run.fits()) return false;
  run.start(stream);
  return !launches_failed();
}

}  // namespace ec::cuda
