// SPDX-License-Identifier: Apache-2.0
#include "depth/hopper/hopper_pairs.h"

#include "common/workspace.h"
#include "depth/hopper/pair_tiles.cuh"

namespace ec::cuda {
namespace {

constexpr int kPackThreads = 256, kPackBlocksEach = 8;  // of a multiprocessor
constexpr int kMostShares = 32;
constexpr int64_t kMostRows = int64_t{1} << 30;

// Shares of the corpus for each tile of rows, so that the blocks, who take items of about equal length by
// turns, end together. Blocks are on `blocks / shares` tiles of rows and `shares` tiles of the corpus at a
// time: these are to stay in the L2 cache, which they do best when the sides are alike, so that no less are
// tried.
int64_t shares_for(int64_t row_tiles, int64_t other_tiles, int64_t blocks) {
  int64_t alike = 1;
  while (alike * alike * kTileOthers < blocks * kTileRows) ++alike;
  int64_t best = min(alike, other_tiles), best_laps = ceiling(row_tiles * best, blocks);
  for (int64_t shares = best + 1; shares <= min(other_tiles, int64_t{kMostShares}); ++shares) {
    const int64_t laps = ceiling(row_tiles * shares, blocks);  // of 1 / shares each
    if (laps * best * 200 < best_laps * shares * 199) best = shares, best_laps = laps;
  }
  return best;
}

struct Layout {
  Layout(const HopperPairs& pairs, int multiprocessors, void* workspace) : arena(workspace) {
    const AnyRows& corpus = pairs.own_corpus ? pairs.rows : pairs.corpus;
    const int parts = pairs.strict ? 2 : 1,
              blocks = static_cast<int>(ceiling(corpus.columns, kPanelColumns));
    row_tiles = ceiling(pairs.rows.count, kTileRows);
    other_tiles = ceiling(corpus.count, kTileOthers);
    shares = shares_for(row_tiles, other_tiles, multiprocessors);
    resident = min(int64_t{multiprocessors}, row_tiles * shares);
    rows = {nullptr, row_tiles, kTileRows, parts, blocks};
    others = {nullptr, other_tiles, kTileOthers, parts, blocks};
    rows.numbers = arena.take<BFloat>(rows.size());
    others.numbers = arena.take<BFloat>(others.size());
    weights = pairs.weights == nullptr ? nullptr : arena.take<float>(sum_count() / 2);
    sums = arena.take<unsigned long long>(sum_count());
    scale = arena.take<double>(1);
  }

  // Of the rows of both sides, which may be the same.
  int64_t sum_count() const { return max(rows.rows(), others.rows()) * 2; }

  Arena arena;
  int64_t row_tiles, other_tiles, shares, resident;  // blocks that stay
  Panels rows, others;
  float* weights;
  double* scale;
  unsigned long long* sums;
};

template <class T>
void pack(const AnyRows& given, const Panels& panels, Scaling* scalings, int* missing, const float* weights,
          float* weights_to, int multiprocessors, Stream stream) {
  const Rows<T> rows = {static_cast<const T*>(given.data), given.count, given.stride,
                        static_cast<int>(given.columns)};
  const int64_t wanted = ceiling(panels.rows(), kPackThreads / kWarpSize);
  const auto blocks = static_cast<unsigned>(min(wanted, int64_t{kPackBlocksEach} * multiprocessors));
  const auto kernel = whole_vectors(rows) ? pack_unit_rows<T, true> : pack_unit_rows<T, false>;
  EC_LAUNCH(kernel, blocks, kPackThreads, 0, stream, rows, panels, scalings, missing, weights, weights_to);
}

using Pack = void (*)(const AnyRows&, const Panels&, Scaling*, int*, const float*, float*, int, Stream);
Pack pack_for(NumberKind kind) {
  return kind == NumberKind::kFloat32   ? pack<float>
         : kind == NumberKind::kFloat16 ? pack<Half>
                                        : pack<BFloat>;
}

using PairKernel = void (*)(HopperProblem);
template <PairMetric kMetric>
PairKernel kernel_for(bool weighted, bool symmetric) {
  if (symmetric)
    return weighted ? sum_pair_tiles<kMetric, true, true> : sum_pair_tiles<kMetric, false, true>;
  return weighted ? sum_pair_tiles<kMetric, true, false> : sum_pair_tiles<kMetric, false, false>;
}

void launch_pairs(const HopperProblem& problem, PairMetric metric, bool symmetric, int64_t blocks,
                  Stream stream) {
  const bool weighted = problem.weights != nullptr;
  const PairKernel kernel = metric == PairMetric::kArc
                                ? kernel_for<PairMetric::kArc>(weighted, symmetric)
                                : kernel_for<PairMetric::kChord>(weighted, symmetric);
  allow_shared(kernel, kHopperSharedBytes);
  EC_LAUNCH(kernel, static_cast<unsigned>(blocks), kTileThreads, kHopperSharedBytes, stream, problem);
}

}  // namespace

bool runs_hopper_pairs(int major, int minor) { return major == 9 && minor == 0; }

bool fits_hopper_pairs(const HopperPairs& pairs) {
  const AnyRows& corpus = pairs.own_corpus ? pairs.rows : pairs.corpus;
  return pairs.rows.count <= kMostRows && corpus.count <= kMostRows && corpus.columns <= kMostRows;
}

size_t hopper_pairs_workspace_bytes(const HopperPairs& pairs, int multiprocessors) {
  return Layout(pairs, multiprocessors, nullptr).arena.used();
}

void run_hopper_pairs(const HopperPairs& pairs, int multiprocessors, void* workspace, Stream stream) {
  const Layout layout(pairs, multiprocessors, workspace);
  const AnyRows& corpus = pairs.own_corpus ? pairs.rows : pairs.corpus;
  Scaling* corpus_scalings = pairs.own_corpus ? pairs.row_scalings : pairs.corpus_scalings;
  clear(pairs.missing, sizeof(int), stream);
  pack_for(corpus.kind)(corpus, layout.others, corpus_scalings, pairs.missing, pairs.weights,
                        layout.weights, multiprocessors, stream);
  // Where the rows are the corpus too, since tiles of the sides differ.
  const bool own = pairs.own_corpus;
  pack_for(pairs.rows.kind)(pairs.rows, layout.rows, own ? nullptr : pairs.row_scalings, nullptr,
                            own ? pairs.weights : nullptr, own ? layout.weights : nullptr, multiprocessors,
                            stream);
  EC_LAUNCH(start_sums, static_cast<unsigned>(multiprocessors), kPackThreads, 0, stream, layout.sums,
            layout.sum_count(), pairs.total, layout.scale);
  const HopperProblem problem = {
      {layout.rows, pairs.row_scalings, pairs.rows},
      {layout.others, corpus_scalings, corpus},
      layout.weights,
      static_cast<int>(layout.row_tiles),
      static_cast<int>(layout.other_tiles),
      static_cast<int>(layout.shares),
      static_cast<int>(ceiling(layout.row_tiles * layout.shares, layout.resident)),
      layout.sums,
      layout.scale};
  launch_pairs(problem, pairs.metric, pairs.own_corpus, layout.resident, stream);
  const bool arc = pairs.metric == PairMetric::kArc;
  const double middle = arc ? middle_distance<PairMetric::kArc>() : middle_distance<PairMetric::kChord>(),
               unit = arc ? unit_distance<PairMetric::kArc>() : unit_distance<PairMetric::kChord>();
  const auto blocks = static_cast<unsigned>(ceiling(pairs.rows.count, kPackThreads));
  EC_LAUNCH(end_sums, blocks, kPackThreads, 0, stream, problem, middle, unit, pairs.total, pairs.own_corpus,
            pairs.sums);
}

}  // namespace ec::cuda
