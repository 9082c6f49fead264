// SPDX-License-Identifier: Apache-2.0
#include "depth/depth.h"

#include "depth/check.cuh"
#include "depth/directions.h"
#include "depth/kept_sums.cuh"
#include "depth/layout.h"
#include "depth/mahalanobis.h"

namespace ec::cuda {
namespace {

constexpr int64_t kMostBlocks = 0x7fffffff;

template <class T>
Rows<T> rows_of(const AnyRows& rows) {
  return {static_cast<const T*>(rows.data), rows.count, rows.stride, static_cast<int>(rows.columns)};
}

// Kernels of one call, in their order.
class Run {
 public:
  Run(const Layout& layout, Stream stream) : layout_(layout), problem_(layout.problem), stream_(stream) {}

  void start() {
    if (layout_.angular) {
      narrow(problem_.rows, layout_.rows);
      if (!layout_.own) narrow(problem_.corpus, layout_.corpus);
      write_plan(layout_.of_sums);
    }
    if (layout_.pairs) write_plan(layout_.of_pairs);
    if (layout_.weighs()) prepare_weights();
    if (layout_.pairs) {
      if (!layout_.angular)
        move_all();
      else if (!layout_.hopper)
        round_all();
    }
    if (layout_.weighs()) weigh_groups();
    if (layout_.angular) {
      sum_corpus();
      if (problem_.wanted_sums != nullptr) return keep();
      if (problem_.given_sums != nullptr) take();
      score_rows();
    }
    if (layout_.spatial)
      score_spatial();
    else if (layout_.pairs)
      score_pairs();
  }

 private:
  static unsigned blocks(int64_t count) { return static_cast<unsigned>(count); }

  void narrow(const AnyRows& wide, const AnyRows& to) const {
    if (wide.kind != NumberKind::kFloat64) return;
    EC_LAUNCH(narrow_rows, blocks(layout_.blocks_for(wide.count)), kCheckThreads, 0, stream_, wide,
              const_cast<float*>(static_cast<const float*>(to.data)), to.stride);
  }

  void write_plan(const Plan& plan) const {
    int64_t segment = 0;
    for (int64_t first = 0; first < problem_.groups; first += kGroupsTogether) {
      const auto count = static_cast<int>(min(problem_.groups - first, int64_t{kGroupsTogether}));
      GroupStarts starts = {};
      int64_t next = segment;
      for (int i = 0; i <= count; ++i) {
        starts.starts[i] = problem_.starts != nullptr ? problem_.starts[first + i]
                           : i == 0                   ? 0
                                                      : layout_.corpus.count;
        if (i < count) next += plan.cut.segments(layout_.group_rows(first + i));
      }
      EC_LAUNCH(write_segments, 1, kGroupsTogether, static_cast<size_t>(count + 1) * sizeof(int64_t),
                stream_, starts, first, count, segment, plan.cut, plan.table, layout_.starts);
      segment = next;
    }
  }

  void prepare_weights() const {
    const int64_t count = layout_.corpus.count;
    const Weights weights = {problem_.weights, problem_.weights_kind, problem_.weights_stride};
    const unsigned grid = blocks(min(max(int64_t{1}, ceiling(count, kWeightThreads)),
                                     int64_t{kBlocksEach} * layout_.multiprocessors));
    clear(layout_.exponents, 3 * sizeof(int), stream_);
    if (weights.data != nullptr)
      EC_LAUNCH(find_largest_weight, grid, kWeightThreads, 0, stream_, weights, count, layout_.exponents);
    EC_LAUNCH(scale_weights, grid, kWeightThreads, 0, stream_, weights, layout_.groups(), count,
              layout_.exponents, layout_.weights);
  }

  void weigh_groups() const {
    const Plan& plan = layout_.weighed();
    EC_LAUNCH(sum_weights, blocks(plan.segments), kWeightThreads,
              kWeightThreads / kWarpSize * sizeof(double), stream_, plan.table.all, layout_.weights,
              plan.weights);
    EC_LAUNCH(add_weights, blocks(ceiling(problem_.groups, kWeightThreads)), kWeightThreads, 0, stream_,
              plan.table.first, problem_.groups, plan.weights, layout_.totals);
  }

  template <class T, int kVectors>
  void launch_sums(const Rows<T>& rows) const {
    const int width = kVectors * kWarpColumns, strip = min(rows.columns, width);
    const Dim3 grid{blocks(layout_.of_sums.segments), blocks(ceiling(rows.columns, width)), 1};
    const auto kernel =
        whole_vectors(rows) ? sum_unit_rows<T, kVectors, true> : sum_unit_rows<T, kVectors, false>;
    EC_LAUNCH(kernel, grid, kCosineThreads, static_cast<size_t>(strip) * sizeof(double), stream_, rows,
              layout_.groups(), layout_.of_sums.table.all, layout_.weights, layout_.partial);
  }

  // The weighted sums of the unit rows of each group.
  void sum_corpus() const {
    with_numbers(layout_.corpus.kind, [&](auto number) {
      using T = decltype(number);
      const Rows<T> rows = rows_of<T>(layout_.corpus);
      const int64_t vectors = ceiling(rows.columns, kWarpColumns);
      if (vectors <= 1)
        launch_sums<T, 1>(rows);
      else if (vectors <= 2)
        launch_sums<T, 2>(rows);
      else if (vectors <= 4)
        launch_sums<T, 4>(rows);
      else
        launch_sums<T, kMostStripVectors>(rows);
    });
    const int columns = static_cast<int>(layout_.corpus.columns);
    EC_LAUNCH(add_segments, blocks(problem_.groups * ceiling(columns, kWarpSize)), kCosineThreads,
              kCosineThreads * sizeof(double), stream_, layout_.partial, layout_.of_sums.table.first,
              layout_.groups(), columns, layout_.directions, layout_.weighs() ? nullptr : layout_.totals);
  }

  unsigned kept_blocks() const { return blocks(ceiling(layout_.corpus.columns + 1, kWeightThreads)); }
  void keep() const {
    if (!layout_.weighs()) clear(layout_.exponents, sizeof(int), stream_);
    EC_LAUNCH(keep_sums, kept_blocks(), kWeightThreads, 0, stream_, layout_.directions, layout_.totals,
              layout_.corpus.columns, layout_.exponents, problem_.wanted_sums);
  }
  void take() const {
    EC_LAUNCH(take_sums, kept_blocks(), kWeightThreads, 0, stream_, problem_.given_sums,
              layout_.corpus.columns, layout_.directions, layout_.totals);
  }

  Depths depths() const {
    return {problem_.depths, problem_.rows.kind == NumberKind::kFloat64, problem_.groups};
  }

  void score_rows() const {
    const Directions directions = {layout_.directions, layout_.totals, layout_.own, layout_.groups(),
                                   layout_.weights};
    with_numbers(layout_.rows.kind, [&](auto number) {
      using T = decltype(number);
      const Rows<T> rows = rows_of<T>(layout_.rows);
      const auto kernel = whole_vectors(rows) ? score_cosine<T, true> : score_cosine<T, false>;
      const Dim3 grid{blocks(layout_.row_blocks), blocks(ceiling(problem_.groups, kScoredGroups)), 1};
      EC_LAUNCH(kernel, grid, kCosineThreads, 0, stream_, rows, directions, depths(), layout_.cosines);
    });
  }

  void round_rows(const AnyRows& given, const Groups& groups, BFloat* units, Scaling* scalings,
                  float* weights) const {
    with_numbers(given.kind, [&](auto number) {
      using T = decltype(number);
      const Rows<T> rows = rows_of<T>(given);
      const auto kernel = whole_vectors(rows) ? round_unit_rows<T, true> : round_unit_rows<T, false>;
      EC_LAUNCH(kernel, blocks(layout_.blocks_for(given.count)), kCosineThreads, 0, stream_, rows, groups,
                static_cast<int>(layout_.padded), problem_.strict, units, scalings, weights);
    });
  }
  void round_all() const {
    round_rows(layout_.corpus, layout_.groups(), layout_.other_numbers, layout_.other_scalings,
               layout_.weights);
    if (!layout_.own)
      round_rows(layout_.rows, layout_.row_groups(), layout_.row_numbers, layout_.row_scalings, nullptr);
  }

  Move move() const { return {layout_.center, layout_.exponents + 1}; }
  void move_rows(const AnyRows& given, const Groups& groups, BFloat* numbers, float* squares,
                 float* weights) const {
    EC_LAUNCH(pack_moved_rows, blocks(layout_.blocks_for(given.count)), kMoveThreads, 0, stream_, given,
              groups, move(), static_cast<int>(layout_.padded), numbers, squares, weights);
  }
  void move_all() const {
    EC_LAUNCH(find_center, blocks(ceiling(layout_.corpus.columns, kCenterColumns)), kMoveThreads,
              sizeof(CenterShared), stream_, layout_.corpus, move());
    EC_LAUNCH(find_reach, blocks(layout_.corpus_blocks), kMoveThreads, 0, stream_, layout_.corpus, move());
    if (!layout_.own)
      EC_LAUNCH(find_reach, blocks(layout_.row_blocks), kMoveThreads, 0, stream_, layout_.rows, move());
    move_rows(layout_.corpus, layout_.groups(), layout_.other_numbers, layout_.other_squares,
              layout_.weights);
    if (!layout_.own)
      move_rows(layout_.rows, layout_.row_groups(), layout_.row_numbers, layout_.row_squares, nullptr);
  }

  PackedRows packed(const BFloat* numbers) const {
    return {numbers, static_cast<int>(layout_.padded), layout_.products};
  }

  template <PairMetric kMetric>
  void launch_tiles(const PairProblem& pairs) const {
    constexpr bool kCanMirror = kMetric != PairMetric::kL2;  // L2 distances have no bound
    const auto kernel = layout_.mirrored ? sum_pairs<kMetric, kCanMirror> : sum_pairs<kMetric, false>;
    if (layout_.mirrored)
      clear(layout_.fixed.sums, static_cast<size_t>(2 * layout_.rows.count) * sizeof(int64_t), stream_);
    allow_shared(kernel, sizeof(PairShared));
    EC_LAUNCH(kernel, blocks(layout_.row_tiles * layout_.of_pairs.segments), kPairThreads,
              sizeof(PairShared), stream_, pairs);
  }
  template <PairMetric kMetric>
  void launch_pairs() const {
    const PairSide rows = {packed(layout_.row_numbers), layout_.row_scalings, layout_.row_squares,
                           layout_.rows, layout_.row_groups().order};
    const PairSide others = {packed(layout_.other_numbers), layout_.other_scalings, layout_.other_squares,
                             layout_.corpus, problem_.order};
    const PairProblem pairs = {
        rows,         others,        layout_.of_pairs.table.all, layout_.weights, layout_.own, move(),
        layout_.sums, layout_.fixed, layout_.row_tiles};
    if (layout_.hopper)
      run_hopper_pairs(layout_.hopper_pairs(), layout_.multiprocessors, layout_.hopper_workspace, stream_);
    else
      launch_tiles<kMetric>(pairs);
    const PairFinish finish = {rows,
                               layout_.groups(),
                               layout_.of_pairs.table,
                               layout_.sums,
                               layout_.fixed,
                               layout_.cosines,
                               layout_.totals,
                               layout_.own ? layout_.weights : nullptr,
                               move(),
                               layout_.missing,
                               depths()};
    EC_LAUNCH(finish_pairs<kMetric>, blocks(ceiling(layout_.rows.count * problem_.groups, kPairThreads)),
              kPairThreads, 0, stream_, finish);
  }
  void score_pairs() const {
    if (problem_.metric == Metric::kChord)
      launch_pairs<PairMetric::kChord>();
    else if (problem_.metric == Metric::kArc)
      launch_pairs<PairMetric::kArc>();
    else
      launch_pairs<PairMetric::kL2>();
  }

  void score_spatial() const {
    const SpatialFinish finish = {
        packed(layout_.row_numbers), layout_.groups(), layout_.rows.count, layout_.own,
        layout_.row_squares,         layout_.weights,  layout_.totals,     layout_.vectors,
        layout_.weight_sums,         depths()};
    const SpatialProblem spatial = {packed(layout_.other_numbers),
                                    layout_.rows,
                                    layout_.corpus,
                                    layout_.of_pairs.table.all,
                                    layout_.of_pairs.segments,
                                    layout_.slots,
                                    layout_.row_tiles,
                                    layout_.other_squares,
                                    layout_.weights,
                                    move(),
                                    finish};
    allow_shared(sum_directions, sizeof(SpatialShared));
    EC_LAUNCH(sum_directions, blocks(layout_.row_tiles * layout_.slots), kPairThreads,
              sizeof(SpatialShared), stream_, spatial);
    if (!layout_.splits()) return;
    EC_LAUNCH(finish_spatial, blocks(ceiling(layout_.rows.count * problem_.groups, kPairWarps)),
              kPairThreads, 0, stream_, finish, layout_.of_pairs.table.first);
  }

  const Layout& layout_;
  const DepthProblem& problem_;
  const Stream stream_;
};

bool fits(const Layout& layout) {
  const int64_t groups = layout.problem.groups;
  return layout.rows.count <= kMostBlocks * kPairWarps / groups &&
         ceiling(layout.corpus.columns, kWarpSize) <= kMostBlocks / groups &&
         layout.of_sums.segments <= kMostBlocks &&
         layout.of_pairs.segments <= kMostBlocks / layout.row_tiles &&
         ceiling(groups, kScoredGroups) <= 65535 &&
         (!layout.hopper || fits_hopper_pairs(layout.hopper_pairs()));
}

}  // namespace

size_t depth_workspace_bytes(const DepthProblem& problem, int multiprocessors) {
  if (problem.metric == Metric::kMahalanobis) return mahalanobis_workspace_bytes(problem, multiprocessors);
  if (is_directional(problem.metric)) return directions_workspace_bytes(problem, multiprocessors);
  return Layout(problem, multiprocessors, nullptr).arena.used();
}

bool run_depth(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream) {
  if (problem.rows.count == 0) return true;
  if (problem.metric == Metric::kMahalanobis)
    return run_mahalanobis(problem, multiprocessors, workspace, stream);
  if (is_directional(problem.metric)) return run_directions(problem, multiprocessors, workspace, stream);
  const Layout layout(problem, multiprocessors, workspace);
  if (!fits(layout)) return false;
  Run(layout, stream).start();
  return !launches_failed();
}

bool find_bad_rows(const AnyRows& rows, bool zeros_are_bad, int multiprocessors, int64_t* found,
                   Stream stream) {
  fill(found, 0xff, sizeof(int64_t), stream);
  if (rows.count == 0) return !launches_failed();
  const int64_t blocks =
      min(ceiling(rows.count, kCheckThreads / kWarpSize), int64_t{kBlocksEach} * multiprocessors);
  EC_LAUNCH(check_rows, static_cast<unsigned>(blocks), kCheckThreads, 0, stream, rows, zeros_are_bad,
            reinterpret_cast<unsigned long long*>(found));
  return !launches_failed();
}

bool find_bad_weights(const void* weights, NumberKind kind, int64_t stride, int64_t count,
                      int multiprocessors, int64_t* found, Stream stream) {
  fill(found, 0xff, sizeof(int64_t), stream);
  if (count == 0) return !launches_failed();
  const int64_t blocks = min(ceiling(count, kCheckThreads), int64_t{kBlocksEach} * multiprocessors);
  EC_LAUNCH(check_weights, static_cast<unsigned>(blocks), kCheckThreads, 0, stream,
            Weights{weights, kind, stride}, count, reinterpret_cast<unsigned long long*>(found));
  return !launches_failed();
}

}  // namespace ec::cuda
