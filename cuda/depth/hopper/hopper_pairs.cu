// SPDX-License-Identifier: Apache-2.0
#include "depth/hopper/hopper_pairs.h"

#include "common/workspace.h"
#include "depth/hopper/pair_tiles.cuh"

namespace ec::cuda {
namespace {

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

bool fits_hopper_pairs(int64_t row_count, int64_t corpus_count, int64_t columns) {
  return row_count <= kMostRows && corpus_count <= kMostRows && columns <= kMostRows;
}

HopperPlan::HopperPlan(int64_t row_count, int64_t corpus_count, int64_t columns, bool split,
                       int multiprocessors)
    : row_tiles(ceiling(row_count, kTileRows)),
      other_tiles(ceiling(corpus_count, kTileOthers)),
      shares(shares_for(row_tiles, other_tiles, multiprocessors)),
      resident(min(int64_t{multiprocessors}, row_tiles * shares)) {
  const int parts = split ? 2 : 1, blocks = static_cast<int>(ceiling(columns, kPanelColumns));
  rows = {nullptr, row_tiles, kTileRows, parts, blocks};
  others = {nullptr, other_tiles, kTileOthers, parts, blocks};
}

void run_hopper_pairs(const HopperPairs& pairs, const HopperPlan& plan, const UnitSums& unit_sums,
                      Stream stream) {
  const HopperProblem problem = {
      {plan.rows, pairs.row_scalings, pairs.rows},
      {plan.others, pairs.own_corpus ? pairs.row_scalings : pairs.corpus_scalings,
       pairs.own_corpus ? pairs.rows : pairs.corpus},
      pairs.weights,
      static_cast<int>(plan.row_tiles),
      static_cast<int>(plan.other_tiles),
      static_cast<int>(plan.shares),
      static_cast<int>(ceiling(plan.row_tiles * plan.shares, plan.resident)),
      plan.sums,
      plan.scale,
      plan.rows.parts == 2 ? kStrictNearLimit : kNearLimit,
      unit_sums};
  launch_pairs(problem, pairs.metric, pairs.own_corpus, plan.resident, stream);
}

FixedSums hopper_sums(const HopperPlan& plan, PairMetric metric) {
  const bool arc = metric == PairMetric::kArc;
  return {plan.sums, 0.0, plan.scale,
          arc ? middle_distance<PairMetric::kArc>() : middle_distance<PairMetric::kChord>(),
          arc ? unit_distance<PairMetric::kArc>() : unit_distance<PairMetric::kChord>()};
}

}  // namespace ec::cuda
