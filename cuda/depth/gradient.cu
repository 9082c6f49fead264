// SPDX-License-Identifier: Apache-2.0
#include "depth/gradient.h"

#include "common/workspace.h"
#include "depth/add_unit_sums.cuh"
#include "depth/cosine_gradient.cuh"
#include "depth/pair_gradient.cuh"
#include "depth/preparation.h"

namespace ec::cuda {
namespace {

constexpr int64_t kMostBlocks = 0x7fffffff;
constexpr int kBlocksEach = 4;      // of a multiprocessor, that read rows
constexpr int kPairBlocksEach = 4;  // that take pairs

// One call: its arrays and, where there is a stream to start them on, its kernels.
class Gradient {
 public:
  Gradient(const GradientProblem& problem, int multiprocessors, void* workspace, const Stream* stream)
      : problem_(problem),
        corpus_(problem.own_corpus ? problem.rows : problem.corpus),
        multiprocessors_(multiprocessors),
        arena_(workspace),
        stream_(stream) {
    if (problem.metric == Metric::kCosine)
      take_cosine();
    else
      take_pairs();
  }
  size_t used() const { return arena_.used(); }
  bool fits() const { return fits_; }

 private:
  unsigned row_blocks(int64_t count) const {
    constexpr int kWarps = kMoveThreads / kWarpSize;
    return static_cast<unsigned>(min(ceiling(count, kWarps), int64_t{kBlocksEach} * multiprocessors_));
  }
  bool starts() const { return stream_ != nullptr; }

  // ---- cosine ---------------------------------------------------------------------------------------

  PreparedSide summed(const AnyRows& rows, const float* factors) {
    const int64_t units = ceiling(rows.count, 8);
    const Cut cut = {8, ceiling(units, min(units, int64_t{kBlocksEach} * multiprocessors_))};
    const Segments segments = {nullptr, nullptr, cut, rows.count, cut.segments(rows.count)};
    return {rows,
            {nullptr, nullptr, 1, rows.count},
            segments,
            factors,
            arena_.take<double>(segments.count * rows.columns),
            {}};
  }
  UnitSums direction(const PreparedSide& side) {
    UnitSums to = {side.partial, side.segments, 1, static_cast<int>(side.rows.columns), 4, nullptr};
    to.sums = arena_.take<double>(to.stride());
    return to;
  }

  void take_cosine() {
    const Preparation preparation = {
        {summed(corpus_, problem_.weights), summed(problem_.rows, problem_.pull)}, 2};
    const UnitSums first = direction(preparation.sides[0]), second = direction(preparation.sides[1]);
    if (!starts()) return;
    run_preparation(preparation, *stream_);
    for (const UnitSums& one : {first, second})
      EC_LAUNCH(add_unit_sums, static_cast<unsigned>(one.tasks()), kUnitSumThreads,
                kUnitSumThreads * sizeof(double), *stream_, one);
    const bool own = problem_.own_corpus;
    const CosineGradient of_rows = {problem_.rows,
                                    first,
                                    second,
                                    problem_.pull,
                                    own ? problem_.weights : nullptr,
                                    own ? problem_.pull : nullptr,
                                    problem_.of_rows,
                                    own ? problem_.of_weights : nullptr};
    start_cosine(of_rows);
    if (own) return;
    start_cosine({corpus_, first, second, nullptr, problem_.weights, nullptr, problem_.of_corpus,
                  problem_.of_weights});
  }
  void start_cosine(const CosineGradient& one) const {
    if (one.gradient == nullptr && one.of_weights == nullptr) return;
    EC_LAUNCH(set_cosine_gradient, row_blocks(one.rows.count), kMoveThreads, 0, *stream_, one);
  }

  // ---- pairs ----------------------------------------------------------------------------------------

  bool spatial() const { return problem_.metric == Metric::kSpatial; }
  bool moved() const { return spatial() || problem_.metric == Metric::kL2; }

  GradientRows side(const AnyRows& given) {
    GradientRows to = {given, nullptr, nullptr, nullptr, 0};
    to.padded = static_cast<int>(ceiling(given.columns, kGradientStep) * kGradientStep);
    to.values = arena_.take<float>(given.count * to.padded);
    to.squares = arena_.take<float>(given.count);
    if (!moved()) to.inverses = arena_.take<double>(given.count);
    return to;
  }

  // Shares of the sources for each tile of targets.
  int64_t slots_for(int64_t targets, int64_t sources) const {
    const int64_t blocks = int64_t{kPairBlocksEach} * multiprocessors_;
    return min(ceiling(sources, kGradientTile), ceiling(blocks, ceiling(targets, kGradientTile)));
  }

  void take_pairs() {
    const int64_t n = problem_.rows.count, m = corpus_.count;
    rows_ = side(problem_.rows);
    others_ = problem_.own_corpus ? rows_ : side(corpus_);
    if (moved()) {
      move_.center = arena_.take<double>(corpus_.columns);
      move_.exponents = arena_.take<int>(2);
    }
    if (spatial()) {
      ends_ = arena_.take<float>(n * rows_.padded);
      along_ = arena_.take<float>(n);
    }
    const int64_t of_rows = slots_for(n, m) * n, of_corpus = slots_for(m, n) * m;
    vectors_ = arena_.take<float>(max(of_rows, of_corpus) * rows_.padded);
    sums_ = arena_.take<TargetSums>(max(of_rows, of_corpus));
    fits_ = ceiling(max(of_rows, of_corpus), kGradientTile) + max(n, m) <= kMostBlocks;
    if (!starts() || !fits_) return;
    set_rows();
    if (spatial())
      start_spatial();
    else
      start_distances();
  }

  void set_rows() const {
    if (moved()) {
      clear(move_.exponents, 2 * sizeof(int), *stream_);
      EC_LAUNCH(find_center, static_cast<unsigned>(ceiling(corpus_.columns, kCenterColumns)), kMoveThreads,
                sizeof(CenterShared), *stream_, corpus_, move_);
    }
    for (const GradientRows* one : {&rows_, &others_}) {
      if (one == &others_ && problem_.own_corpus) continue;
      if (moved())
        EC_LAUNCH(find_reach, row_blocks(one->given.count), kMoveThreads, 0, *stream_, one->given, move_);
    }
    for (const GradientRows* one : {&rows_, &others_}) {
      if (one == &others_ && problem_.own_corpus) continue;
      EC_LAUNCH(set_gradient_rows, row_blocks(one->given.count), kMoveThreads, 0, *stream_, *one, move_);
    }
  }

  // Sums of targets that are rows, or the corpus.
  PairGradient sums_of(bool corpus) const {
    PairGradient to = {};
    to.targets = corpus ? others_ : rows_, to.sources = corpus ? rows_ : others_;
    to.leave_out = problem_.own_corpus;
    to.metric = problem_.metric == Metric::kArc     ? PairMetric::kArc
                : problem_.metric == Metric::kChord ? PairMetric::kChord
                                                    : PairMetric::kL2;
    to.target_factors = corpus ? problem_.weights : problem_.pull;
    to.source_factors = corpus ? problem_.pull : problem_.weights;
    to.ends = ends_, to.along = along_, to.move = move_;
    to.slots = slots_for(to.targets.given.count, to.sources.given.count);
    to.target_tiles = ceiling(to.targets.given.count, kGradientTile);
    to.vectors = vectors_, to.sums = sums_;
    return to;
  }
  template <GradientMode kMode>
  void start(const PairGradient& pairs) const {
    allow_shared(sum_gradients<kMode>, sizeof(GradientShared<kMode>));
    EC_LAUNCH(sum_gradients<kMode>, static_cast<unsigned>(pairs.slots * pairs.target_tiles),
              kGradientThreads, sizeof(GradientShared<kMode>), *stream_, pairs);
  }
  GradientFinish finish_of(const PairGradient& pairs) const {
    GradientFinish finish = {};
    finish.targets = pairs.targets;
    finish.vectors = vectors_, finish.sums = sums_, finish.slots = pairs.slots;
    finish.scales = spatial(), finish.move = move_;
    finish.sign = spatial() ? -1.0 : 1.0;
    return finish;
  }
  void start_finish(const GradientFinish& finish) const {
    EC_LAUNCH(finish_gradient, row_blocks(finish.targets.given.count), kMoveThreads, 0, *stream_, finish);
  }

  void start_distances() const {
    const bool own = problem_.own_corpus;
    if (problem_.of_rows != nullptr || (own && problem_.of_weights != nullptr)) {
      PairGradient pairs = sums_of(false);
      if (own) {
        pairs.second_target_factors = problem_.weights, pairs.second_source_factors = problem_.pull;
        if (problem_.of_weights != nullptr) pairs.pulls = problem_.pull;
      }
      start<GradientMode::kDistances>(pairs);
      GradientFinish finish = finish_of(pairs);
      finish.gradient = problem_.of_rows, finish.of_weights = own ? problem_.of_weights : nullptr;
      start_finish(finish);
    }
    if (own || (problem_.of_corpus == nullptr && problem_.of_weights == nullptr)) return;
    PairGradient pairs = sums_of(true);
    if (problem_.of_weights != nullptr) pairs.pulls = problem_.pull;
    start<GradientMode::kDistances>(pairs);
    GradientFinish finish = finish_of(pairs);
    finish.gradient = problem_.of_corpus, finish.of_weights = problem_.of_weights;
    start_finish(finish);
  }

  void start_spatial() const {
    // The sums of unit vectors are what distances have for a gradient.
    PairGradient vectors = sums_of(false);
    vectors.target_factors = nullptr;
    start<GradientMode::kDistances>(vectors);
    EC_LAUNCH(set_ends, row_blocks(problem_.rows.count), kMoveThreads, 0, *stream_, finish_of(vectors),
              ends_, along_);
    if (problem_.of_rows != nullptr) {
      const PairGradient pairs = sums_of(false);
      start<GradientMode::kRows>(pairs);
      GradientFinish finish = finish_of(pairs);
      finish.ends = ends_, finish.gradient = problem_.of_rows;
      start_finish(finish);
    }
    float* of_corpus = problem_.own_corpus ? problem_.of_rows : problem_.of_corpus;
    if (of_corpus == nullptr && problem_.of_weights == nullptr) return;
    PairGradient pairs = sums_of(true);
    if (problem_.of_weights != nullptr) pairs.pulls = problem_.pull;
    start<GradientMode::kCorpus>(pairs);
    GradientFinish finish = finish_of(pairs);
    finish.gradient = of_corpus, finish.of_weights = problem_.of_weights;
    finish.adds = problem_.own_corpus;
    start_finish(finish);
  }

  const GradientProblem& problem_;
  const AnyRows corpus_;
  const int multiprocessors_;
  Arena arena_;
  const Stream* stream_;  // null: only to measure
  bool fits_ = true;
  GradientRows rows_ = {}, others_ = {};
  Move move_ = {nullptr, nullptr};
  float *ends_ = nullptr, *along_ = nullptr, *vectors_ = nullptr;
  TargetSums* sums_ = nullptr;
};

}  // namespace

size_t gradient_workspace_bytes(const GradientProblem& problem, int multiprocessors) {
  return Gradient(problem, multiprocessors, nullptr, nullptr).used();
}

bool run_gradient(const GradientProblem& problem, int multiprocessors, void* workspace, Stream stream) {
  const Gradient done(problem, multiprocessors, workspace, &stream);
  return done.fits() && !launches_failed();
}

}  // namespace ec::cuda
