// SPDX-License-Identifier: Apache-2.0
#include "depth/depth.h"

#include "depth/add_unit_sums.cuh"
#include "depth/check.cuh"
#include "depth/directions.h"
#include "depth/kept_sums.cuh"
#include "depth/layout.h"
#include "depth/mahalanobis.h"

namespace ec::cuda {
namespace {

constexpr int64_t kMostBlocks = 0x7fffffff, kMostBlocksAside = 65535;

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
    if (!layout_.angular) move_all();
    if (layout_.weighs()) weigh_groups();
    if (layout_.angular) prepare_unit_rows();
    if (layout_.spatial)
      score_spatial();
    else if (layout_.pairs)
      sum_all_pairs();
    else if (problem_.given_sums != nullptr)
      take();
    else
      EC_LAUNCH(add_unit_sums, blocks(layout_.unit_sums.tasks()), kUnitSumThreads,
                kUnitSumThreads * sizeof(double), stream_, layout_.unit_sums);
    if (problem_.wanted_sums != nullptr) return keep();
    if (layout_.angular) score_rows();
  }

 private:
  static unsigned blocks(int64_t count) { return static_cast<unsigned>(count); }

  void narrow(const AnyRows& wide, const AnyRows& to) const {
    if (wide.kind != NumberKind::kFloat64) return;
    EC_LAUNCH(narrow_rows, blocks(layout_.blocks_for(wide.count)), kCheckThreads, 0, stream_, wide,
              const_cast<float*>(static_cast<const float*>(to.data)), to.stride);
  }

  void write_plan(const Plan& plan) const {
    if (!layout_.tables) return;
    const Segments& segments = plan.segments;
    int64_t segment = 0;
    for (int64_t first = 0; first < problem_.groups; first += kGroupsTogether) {
      const auto count = static_cast<int>(min(problem_.groups - first, int64_t{kGroupsTogether}));
      GroupStarts starts = {};
      int64_t next = segment;
      for (int i = 0; i <= count; ++i) {
        starts.starts[i] = problem_.starts != nullptr ? problem_.starts[first + i]
                           : i == 0                   ? 0
                                                      : layout_.corpus.count;
        if (i < count) next += segments.cut.segments(layout_.group_rows(first + i));
      }
      EC_LAUNCH(write_segments, 1, kGroupsTogether, static_cast<size_t>(count + 1) * sizeof(int64_t),
                stream_, starts, first, count, segment, segments, layout_.starts);
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
              layout_.weight_count, layout_.exponents, layout_.weights);
  }

  void weigh_groups() const {
    const Plan& plan = layout_.weighed();
    EC_LAUNCH(sum_weights, blocks(plan.segments.count), kWeightThreads,
              kWeightThreads / kWarpSize * sizeof(double), stream_, plan.segments, layout_.weights,
              plan.weights);
    EC_LAUNCH(add_weights, blocks(ceiling(problem_.groups, kWeightThreads)), kWeightThreads, 0, stream_,
              plan.segments, problem_.groups, plan.weights, layout_.totals);
  }

  // Unit rows where pairs are to be taken, their sums in the corpus, and zeros for the sums of pairs.
  void prepare_unit_rows() const {
    const auto side = [&](const AnyRows& rows, const Groups& groups, bool of_rows) {
      const Packing packing = layout_.packing(of_rows);
      return PreparedSide{rows,
                          groups,
                          of_rows ? layout_.shares(packing.rows_of(rows.count)) : layout_.of_sums.segments,
                          of_rows ? nullptr : layout_.weights,
                          of_rows ? nullptr : layout_.partial,
                          packing};
    };
    Preparation preparation = {{side(layout_.corpus, layout_.groups(), false), {}}, 1};
    if (layout_.pairs && !layout_.own)
      preparation.sides[preparation.count++] = side(layout_.rows, layout_.row_groups(), true);
    if (layout_.hopper) {
      preparation.zeros = layout_.hopper_plan.sums;
      preparation.zero_count = layout_.hopper_plan.sum_count();
      preparation.total = layout_.totals;
      preparation.scale = layout_.hopper_plan.scale;
    } else if (layout_.mirrored) {
      preparation.zeros = layout_.fixed.sums;
      preparation.zero_count = 2 * layout_.rows.count;
    }
    run_preparation(preparation, stream_);
  }

  unsigned kept_blocks() const { return blocks(ceiling(layout_.unit_sums.stride() + 1, kWeightThreads)); }
  void keep() const {
    EC_LAUNCH(keep_sums, kept_blocks(), kWeightThreads, 0, stream_, layout_.unit_sums, layout_.totals,
              layout_.corpus.count, layout_.exponents, problem_.wanted_sums);
  }
  void take() const {
    EC_LAUNCH(take_sums, kept_blocks(), kWeightThreads, 0, stream_, problem_.given_sums, layout_.unit_sums,
              layout_.totals);
  }

  Depths depths() const {
    return {problem_.depths, problem_.rows.kind == NumberKind::kFloat64, problem_.groups};
  }

  void score_rows() const {
    const int64_t stride = layout_.unit_sums.stride(),
                  together =
                      max(int64_t{1}, kUnitSumBytes / (stride * static_cast<int64_t>(sizeof(double))));
    const Scored scored = {layout_.rows,
                           layout_.unit_sums,
                           layout_.groups(),
                           layout_.totals,
                           layout_.own,
                           layout_.weights,
                           min(together, problem_.groups),
                           layout_.results,
                           depths()};
    const unsigned sets = blocks(min(ceiling(problem_.groups, scored.together), kMostBlocksAside));
    with_pieces(layout_.rows, [&](auto number, auto pieces, auto whole) {
      using T = decltype(number);
      constexpr int kPieces = decltype(pieces)::value;
      constexpr bool kWhole = decltype(whole)::value;
      const Dim3 grid{blocks(layout_.row_blocks), sets, 1};
      if (layout_.rows.columns > kPieces * kWarpPieceColumns<T>)
        EC_LAUNCH((score_wide_rows<T, kWhole>), grid, kScoreThreads, 0, stream_, scored);
      else
        EC_LAUNCH((score_rows_of<T, kPieces, kWhole>), grid, kScoreThreads,
                  static_cast<size_t>(scored.together * stride) * sizeof(double), stream_, scored);
    });
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
    allow_shared(kernel, sizeof(PairShared));
    EC_LAUNCH(kernel, blocks(pairs.adders + layout_.row_tiles * layout_.of_pairs.segments.count),
              kPairThreads, sizeof(PairShared), stream_, pairs);
  }
  void sum_all_pairs() const {
    if (layout_.hopper) {
      const HopperPairs pairs = {layout_.results.metric, layout_.rows,    layout_.own,
                                 layout_.corpus,         layout_.weights, layout_.row_scalings,
                                 layout_.other_scalings};
      return run_hopper_pairs(pairs, layout_.hopper_plan, layout_.unit_sums, stream_);
    }
    const PairSide rows = {packed(layout_.row_numbers), layout_.row_scalings, layout_.row_squares,
                           layout_.rows, layout_.row_groups().order};
    const PairSide others = {packed(layout_.other_numbers), layout_.other_scalings, layout_.other_squares,
                             layout_.corpus, problem_.order};
    const PairProblem pairs = {
        rows,         others,        layout_.of_pairs.segments, layout_.weights,   layout_.own,     move(),
        layout_.sums, layout_.fixed, layout_.row_tiles,         layout_.unit_sums, layout_.adders()};
    if (problem_.metric == Metric::kChord)
      launch_tiles<PairMetric::kChord>(pairs);
    else if (problem_.metric == Metric::kArc)
      launch_tiles<PairMetric::kArc>(pairs);
    else
      launch_tiles<PairMetric::kL2>(pairs);
    if (layout_.angular) return;
    const L2Finish finish = {
        rows,   layout_.groups(), layout_.results, layout_.totals, layout_.own ? layout_.weights : nullptr,
        move(), depths()};
    EC_LAUNCH(finish_l2, blocks(ceiling(layout_.rows.count * problem_.groups, kPairThreads)), kPairThreads,
              0, stream_, finish);
  }

  void score_spatial() const {
    const SpatialFinish finish = {
        packed(layout_.row_numbers), layout_.groups(), layout_.rows.count, layout_.own,
        layout_.row_squares,         layout_.weights,  layout_.totals,     layout_.vectors,
        layout_.weight_sums,         depths()};
    const SpatialProblem spatial = {packed(layout_.other_numbers),
                                    layout_.rows,
                                    layout_.corpus,
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
              kPairThreads, 0, stream_, finish, layout_.of_pairs.segments);
  }

  const Layout& layout_;
  const DepthProblem& problem_;
  const Stream stream_;
};

bool fits(const Layout& layout) {
  const int64_t groups = layout.problem.groups;
  return layout.rows.count <= kMostBlocks * kPairWarps / groups &&
         ceiling(layout.corpus.columns, kWarpSize) <= kMostBlocks / groups &&
         layout.of_sums.segments.count + layout.row_blocks <= kMostBlocks &&
         layout.of_pairs.segments.count <= (kMostBlocks - layout.adders()) / layout.row_tiles &&
         (!layout.hopper || fits_hopper_pairs(layout.rows.count, layout.corpus.count, layout.rows.columns));
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
