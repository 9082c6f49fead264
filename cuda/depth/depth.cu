// SPDX-License-Identifier: Apache-2.0
#include "depth/depth.h"

#include "depth/cosine.cuh"
#include "depth/pairwise.cuh"

namespace ec::cuda {
namespace {

constexpr int kBlocksEach = 4;   // of a multiprocessor, that read rows
constexpr int kWavesWanted = 4;  // of blocks of pairs, so that the last one matters little
constexpr size_t kAlignment = 256;

// Hands out arrays of a workspace one after another; without a start it only measures.
class Arena {
 public:
  explicit Arena(void* start) : start_(static_cast<unsigned char*>(start)) {}
  template <class T>
  T* take(int64_t count) {
    unsigned char* found = start_ == nullptr ? nullptr : start_ + used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(found);
  }
  size_t used() const { return used_; }

 private:
  unsigned char* start_;
  size_t used_ = 0;
};

int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One call, laid out.
struct Layout {
  Layout(const DepthProblem& given, int multiprocessors, void* workspace)
      : problem(given),
        own(given.own_corpus),
        corpus(own ? given.rows : given.corpus),
        pairs(given.metric != Metric::kCosine),
        padded(ceiling(corpus.columns, kStep) * kStep),
        unit_stride(given.strict ? 2 * padded : padded),
        row_tiles(ceiling(given.rows.count, kTile)),
        arena(workspace) {
    const int64_t tiles = ceiling(corpus.count, kTile), wanted = int64_t{kWavesWanted} * multiprocessors;
    shares = min(tiles, max(int64_t{1}, ceiling(wanted, max(int64_t{1}, row_tiles))));
    sum_blocks = blocks_for(corpus.count, multiprocessors);
    score_blocks = blocks_for(given.rows.count, multiprocessors);
    total = arena.take<double>(1);
    missing = arena.take<int>(1);
    partial_weight = arena.take<double>(sum_blocks);
    direction = arena.take<float>(corpus.columns);
    partial = arena.take<float>(sum_blocks * corpus.columns);
    if (!pairs) return;
    cosines = arena.take<double>(given.rows.count);
    sums = arena.take<PairSums>(shares * given.rows.count);
    row_scalings = arena.take<Scaling>(given.rows.count);
    row_units = arena.take<BFloat>(given.rows.count * unit_stride);
    other_scalings = own ? row_scalings : arena.take<Scaling>(corpus.count);
    other_units = own ? row_units : arena.take<BFloat>(corpus.count * unit_stride);
  }

  // As many as keep the device busy, and no more than there are rows for.
  static int64_t blocks_for(int64_t rows, int multiprocessors) {
    return max(int64_t{1}, min(ceiling(rows, kCosineWarps), int64_t{kBlocksEach} * multiprocessors));
  }

  const DepthProblem& problem;
  const bool own;
  const AnyRows& corpus;
  const bool pairs;
  const int64_t padded, unit_stride, row_tiles;
  Arena arena;
  int64_t shares, sum_blocks, score_blocks;
  double *total, *partial_weight, *cosines = nullptr;
  int* missing;
  float *direction, *partial;
  Scaling *row_scalings = nullptr, *other_scalings = nullptr;
  PairSums* sums = nullptr;
  BFloat *row_units = nullptr, *other_units = nullptr;
};

template <class Body>
void with_numbers(NumberKind kind, const Body& body) {
  if (kind == NumberKind::kFloat32)
    body(float{});
  else if (kind == NumberKind::kFloat16)
    body(Half{});
  else
    body(BFloat{});
}

template <class T>
Rows<T> rows_of(const AnyRows& rows) {
  return {static_cast<const T*>(rows.data), rows.count, rows.stride, static_cast<int>(rows.columns)};
}

template <class T, int kVectors>
void launch_sums(const Rows<T>& rows, const Layout& layout, Stream stream) {
  const int width = kVectors * kWarpColumns, strip = min(rows.columns, width);
  const size_t shared = (kCosineWarps + static_cast<size_t>(strip + 1) / 2) * sizeof(double);
  const Dim3 grid{static_cast<unsigned>(layout.sum_blocks),
                  static_cast<unsigned>(ceiling(rows.columns, width)), 1};
  const auto kernel =
      whole_vectors(rows) ? sum_unit_rows<T, kVectors, true> : sum_unit_rows<T, kVectors, false>;
  EC_LAUNCH(kernel, grid, kCosineThreads, shared, stream, rows, layout.problem.weights, layout.partial,
            layout.partial_weight);
}

// The weighted sum of the corpus's unit rows into direction, and of the weights into total.
void sum_corpus(const Layout& layout, Stream stream) {
  with_numbers(layout.corpus.kind, [&](auto number) {
    using T = decltype(number);
    const Rows<T> rows = rows_of<T>(layout.corpus);
    const int64_t vectors = ceiling(rows.columns, kWarpColumns);
    const auto launch = vectors <= 1   ? launch_sums<T, 1>
                        : vectors <= 2 ? launch_sums<T, 2>
                        : vectors <= 4 ? launch_sums<T, 4>
                        : vectors <= 8 ? launch_sums<T, 8>
                                       : launch_sums<T, kMostStripVectors>;
    launch(rows, layout, stream);
  });
  const int columns = static_cast<int>(layout.corpus.columns);
  const auto blocks = static_cast<unsigned>(ceiling(columns, kCosineThreads));
  EC_LAUNCH(add_blocks, blocks, kCosineThreads, 0, stream, layout.partial, layout.partial_weight,
            static_cast<int>(layout.sum_blocks), columns, layout.direction, layout.total);
}

void score_rows(const Layout& layout, Stream stream) {
  with_numbers(layout.problem.rows.kind, [&](auto number) {
    using T = decltype(number);
    const Rows<T> rows = rows_of<T>(layout.problem.rows);
    const auto kernel = whole_vectors(rows) ? score_cosine<T, true> : score_cosine<T, false>;
    const auto blocks = static_cast<unsigned>(layout.score_blocks);
    EC_LAUNCH(kernel, blocks, kCosineThreads, 0, stream, rows, layout.direction, layout.total,
              layout.own ? layout.problem.weights : nullptr, layout.own, layout.problem.depths,
              layout.cosines);
  });
}

void round_rows(const Layout& layout, const AnyRows& given, BFloat* units, Scaling* scalings, int* missing,
                int64_t blocks, Stream stream) {
  with_numbers(given.kind, [&](auto number) {
    using T = decltype(number);
    const Rows<T> rows = rows_of<T>(given);
    const auto kernel = whole_vectors(rows) ? round_unit_rows<T, true> : round_unit_rows<T, false>;
    EC_LAUNCH(kernel, static_cast<unsigned>(blocks), kCosineThreads, 0, stream, rows,
              static_cast<int>(layout.padded), layout.problem.strict, units, scalings, missing);
  });
}

void score_pairs(const Layout& layout, Stream stream) {
  const DepthProblem& problem = layout.problem;
  clear(layout.missing, sizeof(int), stream);
  round_rows(layout, layout.corpus, layout.other_units, layout.other_scalings, layout.missing,
             layout.sum_blocks, stream);
  if (!layout.own)
    round_rows(layout, problem.rows, layout.row_units, layout.row_scalings, nullptr, layout.score_blocks,
               stream);
  const PairProblem pairs = {{layout.row_units, layout.row_scalings, problem.rows},
                             {layout.other_units, layout.other_scalings, layout.corpus},
                             static_cast<int>(layout.padded),
                             problem.strict,
                             problem.weights,
                             layout.own,
                             layout.sums};
  const Dim3 grid{static_cast<unsigned>(layout.row_tiles), static_cast<unsigned>(layout.shares), 1};
  const auto kernel =
      problem.metric == Metric::kArc ? sum_pairs<PairMetric::kArc> : sum_pairs<PairMetric::kChord>;
  allow_shared(kernel, sizeof(PairShared));
  EC_LAUNCH(kernel, grid, kPairThreads, sizeof(PairShared), stream, pairs);
  const PairFinish finish = {problem.metric == Metric::kArc ? PairMetric::kArc : PairMetric::kChord,
                             problem.rows.count,
                             layout.sums,
                             static_cast<int>(layout.shares),
                             layout.cosines,
                             layout.total,
                             layout.own ? problem.weights : nullptr,
                             layout.own,
                             problem.strict,
                             layout.row_scalings,
                             layout.missing,
                             problem.depths};
  const auto blocks = static_cast<unsigned>(ceiling(problem.rows.count, kPairThreads));
  EC_LAUNCH(finish_pairs, blocks, kPairThreads, 0, stream, finish);
}

}  // namespace

size_t depth_workspace_bytes(const DepthProblem& problem, int multiprocessors) {
  return Layout(problem, multiprocessors, nullptr).arena.used();
}

bool run_depth(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream) {
  if (problem.rows.count == 0) return true;
  const Layout layout(problem, multiprocessors, workspace);
  sum_corpus(layout, stream);
  score_rows(layout, stream);
  if (layout.pairs) score_pairs(layout, stream);
  return !launches_failed();
}

}  // namespace ec::cuda
