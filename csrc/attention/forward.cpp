// SPDX-License-Identifier: Apache-2.0
// Forward: each segment of each sequence is walked once; segments of a cut sequence are merged after.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/arena.h"
#include "attention/check.h"
#include "attention/setup.h"
#include "core/errors.h"
#include "core/parallel.h"

namespace ec {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What tokens amount to: pooled = sum of weights * values, relative to exp(reference / temperature).
template <class Real>
struct State {
  Real* pooled;          // [heads][padded value columns]
  Real* reference;       // [heads]
  double* total;         // [heads]
  double* pooled_total;  // [heads]: of the weights as they were pooled, where those are rounded

  template <class Row>
  static State take(Arena& arena, const Setup<Row>& setup) {
    return {arena.take<Real>(setup.heads * setup.value_padded), arena.take<Real>(setup.heads),
            arena.take<double>(setup.heads), arena.take<double>(setup.heads)};
  }
};

// Rows of one block, and where they are converted if they must be.
template <class Row>
struct RowScratch {
  const Row** rows;
  Row* converted;

  static RowScratch take(Arena& arena, bool in_place, int64_t padded) {
    return {arena.take<const Row*>(kBlockTokens + kTokenPadding),
            arena.take<Row>(in_place ? 0 : kBlockTokens * padded)};
  }
};

// Scratch of one worker.
template <class Row>
struct Scratch {
  using Real = typename Setup<Row>::Real;

  State<Real> state;
  Row* factor;
  Row* arranged;            // see Setup::arranged
  Real* float_factor;       // before it is rounded to rows
  const Row* score_factor;  // what scores take
  Real* tile;
  Real* weights;
  Row* pool_weights;  // the weights, rounded to rows
  Real* mask;
  Real* inverse;
  Real* largest;
  RowScratch<Row> keys[2], values[2];  // of this block and of the next
  Real* line;
  bool bounded;  // see scores_bounded

  static Scratch take(Arena& arena, const Setup<Row>& setup) {
    const bool own_factor = setup.scored && !setup.shared_query();
    Scratch s;
    s.state = State<Real>::take(arena, setup);
    const int64_t numbers = own_factor ? setup.factor_numbers() : 0;
    s.factor = arena.take<Row>(numbers);
    s.arranged = arena.take<Row>(own_factor ? setup.arranged_numbers(setup.key_padded) : 0);
    s.float_factor = arena.take<Real>(Setup<Row>::kRounded ? numbers : 0);
    s.tile = arena.take<Real>(setup.padded_heads * kBlockTokens);
    s.weights = arena.take<Real>(setup.padded_heads * kBlockTokens);
    if constexpr (Setup<Row>::kRounded)
      s.pool_weights = arena.take<Row>(setup.padded_heads * kBlockTokens);
    else
      s.pool_weights = s.weights;
    s.mask = arena.take<Real>(kBlockTokens);
    s.inverse = arena.take<Real>(setup.heads);
    s.largest = arena.take<Real>(setup.heads);
    for (int i = 0; i < 2; ++i) {
      s.keys[i] = RowScratch<Row>::take(arena, setup.keys.in_place() || !setup.scored, setup.key_padded);
      s.values[i] = RowScratch<Row>::take(arena, setup.values.in_place() || (setup.shared && setup.scored),
                                          setup.value_padded);
    }
    s.line = arena.take<Real>(setup.value_padded);
    return s;
  }
};

template <class Row>
class Forward {
  using Real = typename Setup<Row>::Real;

 public:
  Forward(const ec_attention_problem& problem, const ec_attention_result& result)
      : setup_(problem), result_(result) {}

  ec_status run() {
    if (!segments_.build(setup_.problem) || !setup_.allocate()) return EC_OUT_OF_MEMORY;
    const int threads = setup_.threads();
    Arena measured, shared_part;
    Scratch<Row>::take(measured, setup_);
    ArenaMemory memory;
    if (!memory.allocate(measured, worker_count(segments_.count(), threads))) return EC_OUT_OF_MEMORY;
    State<Real>::take(shared_part, setup_);
    if (segments_.slots() > 0 && !partial_.allocate(shared_part, segments_.slots()))
      return EC_OUT_OF_MEMORY;
    if (setup_.scored && setup_.shared_query()) {
      if (!factor_.allocate(setup_.factor_numbers())) return EC_OUT_OF_MEMORY;
      AlignedBuffer<Real> unrounded;
      if (Setup<Row>::kRounded && !unrounded.allocate(setup_.factor_numbers())) return EC_OUT_OF_MEMORY;
      setup_.pack(0, unrounded.data(), factor_.data());
      if (!arranged_.allocate(setup_.arranged_numbers(setup_.key_padded))) return EC_OUT_OF_MEMORY;
      shared_factor_ = setup_.arranged(factor_.data(), setup_.key_padded, arranged_.data());
    }
    const ec_status status =
        parallel_for(segments_.count(), threads, setup_.problem.monitor, [&](int64_t task, int worker) {
          Arena arena = memory.copy(worker);
          Scratch<Row> scratch = Scratch<Row>::take(arena, setup_);
          // Tasks are dealt out in order: this worker's next one is likely to be so far on.
          const int64_t following = task + worker_count(segments_.count(), threads);
          do_segment(segments_[task], following < segments_.count() ? &segments_[following] : nullptr,
                     scratch);
        });
    if (status != EC_OK || segments_.slots() == 0) return status;
    return parallel_for(segments_.count(), threads, setup_.problem.monitor, [&](int64_t task, int worker) {
      const Segment& segment = segments_[task];
      if (segment.slot < 0 || segment.first != 0) return;
      Arena arena = memory.copy(worker);
      Scratch<Row> scratch = Scratch<Row>::take(arena, setup_);
      merge(task, scratch);
    });
  }

 private:
  // following (may be null): the segment whose first rows are fetched with the last ones of this.
  void do_segment(const Segment& segment, const Segment* following, Scratch<Row>& scratch) {
    if (segment.slot >= 0) {
      Arena arena = partial_.copy(segment.slot);
      scratch.state = State<Real>::take(arena, setup_);
    }
    begin(segment, scratch);
    BlockWalk walk(setup_.problem, segment);
    Block blocks[2];
    walk.next(&blocks[0]);
    if (blocks[0].tokens > 0) point(segment.sequence, blocks[0], 0, scratch);
    for (int now = 0; blocks[now].tokens > 0; now = 1 - now) {
      Block& next = blocks[1 - now];
      BlockAhead ahead;
      if (walk.next(&next))
        ahead = point_ahead(segment.sequence, next, 1 - now, scratch);
      else if (following != nullptr && setup_.in_place())
        ahead = point_ahead(*following, 1 - now, scratch);
      do_block(segment.sequence, blocks[now], now, ahead, scratch);
    }
    if (segment.slot < 0) finish(segment.sequence, scratch.state, scratch);
  }

  const Row** rows_of_values(Scratch<Row>& scratch, int which) const {
    return setup_.shared && setup_.scored ? scratch.keys[which].rows : scratch.values[which].rows;
  }

  void point(int64_t sequence, const Block& block, int which, Scratch<Row>& scratch) const {
    if (setup_.scored)
      setup_.keys.point(sequence, block, setup_.zeros.data(), scratch.keys[which].converted,
                        scratch.keys[which].rows);
    if (!setup_.scored || !setup_.shared)
      setup_.values.point(sequence, block, setup_.zeros.data(), scratch.values[which].converted,
                          scratch.values[which].rows);
  }

  // Points at a block to come, or at the first one of a segment, and says who fetches it.
  BlockAhead point_ahead(int64_t sequence, const Block& block, int which, Scratch<Row>& scratch) const {
    point(sequence, block, which, scratch);
    return setup_.ahead(setup_.keys.ahead(scratch.keys[which].rows, setup_.scored ? block.tokens : 0),
                        setup_.values.ahead(rows_of_values(scratch, which), block.tokens));
  }
  BlockAhead point_ahead(const Segment& segment, int which, Scratch<Row>& scratch) const {
    Block block;
    if (!BlockWalk(setup_.problem, segment).next(&block)) return {};
    return point_ahead(segment.sequence, block, which, scratch);
  }

  // An empty state, and what is per sequence. Tokens that do not count are written here.
  void begin(const Segment& segment, Scratch<Row>& scratch) {
    inverse_temperatures(setup_.problem, segment.sequence, scratch.inverse);
    scratch.bounded = setup_.uniform || scores_bounded(setup_.problem, scratch.inverse);
    State<Real>& state = scratch.state;
    std::fill(state.pooled, state.pooled + setup_.heads * setup_.value_padded, Real{0});
    std::fill(state.total, state.total + setup_.heads, 0.0);
    std::fill(state.pooled_total, state.pooled_total + setup_.heads, 0.0);
    const Real start = setup_.uniform ? Real{0} : scratch.bounded ? Real{1} : static_cast<Real>(-kInfinity);
    std::fill(state.reference, state.reference + setup_.heads, start);
    scratch.score_factor = shared_factor_;
    if (setup_.scored && !setup_.shared_query()) {
      setup_.pack(segment.sequence, scratch.float_factor, scratch.factor);
      scratch.score_factor = setup_.arranged(scratch.factor, setup_.key_padded, scratch.arranged);
    }
    const int64_t end = setup_.written_end(segment);
    if (result_.scores != nullptr)
      setup_.fill_scores(segment.sequence, segment.first, end, Real{0}, result_.scores);
    if (result_.weights != nullptr)
      setup_.fill_scores(segment.sequence, segment.first, end, static_cast<Real>(-kInfinity),
                         result_.weights);
    if (setup_.uniform)
      std::fill(scratch.weights, scratch.weights + setup_.padded_heads * kBlockTokens, Real{1});
  }

  void do_block(int64_t sequence, const Block& block, int which, const BlockAhead& ahead,
                Scratch<Row>& scratch) const {
    const Row* const* values = rows_of_values(scratch, which);
    State<Real>& state = scratch.state;
    if (setup_.uniform) {
      for (int64_t j = 0; j < setup_.heads; ++j) state.total[j] += static_cast<double>(block.tokens);
      if constexpr (Setup<Row>::kRounded) equal_weights(block.tokens, scratch.pool_weights);
      if (result_.weights != nullptr) {
        std::fill(scratch.tile, scratch.tile + setup_.heads * kBlockTokens, Real{0});
        setup_.scatter(sequence, block, scratch.tile, result_.weights);
      }
    } else {
      weigh_block(sequence, block, scratch.keys[which].rows, ahead.scores, scratch);
    }
    setup_.kernels.pool(values, block.tokens, scratch.pool_weights, setup_.heads, setup_.value_padded,
                        ahead.pool, state.pooled);
  }

  // Ones for the tokens of a block, and a zero behind an odd last one.
  void equal_weights(int64_t tokens, uint16_t* rounded) const {
    constexpr uint16_t kOne = 0x3f80;
    for (int64_t j = 0; j < setup_.heads; ++j, rounded += kBlockTokens) {
      std::fill(rounded, rounded + tokens, kOne);
      if (tokens % 2 != 0) rounded[tokens] = 0;
    }
  }

  // Weights of one block, relative to the reference, into scratch.weights.
  void weigh_block(int64_t sequence, const Block& block, const Row* const* keys, const RowsAhead& ahead,
                   Scratch<Row>& scratch) const {
    const ScoreRules rules = setup_.rules(block.tokens);
    Real* tile = scratch.tile;
    if (setup_.scored) {
      setup_.kernels.scores(keys, block.tokens, scratch.score_factor, setup_.heads, setup_.key_padded,
                            ahead, tile);
      if (result_.scores != nullptr) setup_.scatter(sequence, block, tile, result_.scores);
    } else {
      std::fill(tile, tile + setup_.heads * kBlockTokens, Real{0});
    }
    setup_.add_bias(sequence, block, tile);
    setup_.score_kernels.activate(rules, setup_.read_mask(sequence, block, scratch.mask), tile);
    if (result_.weights != nullptr) setup_.scatter(sequence, block, tile, result_.weights);
    const Real* reference = scratch.state.reference;
    if (!scratch.bounded) reference = raise_reference(rules, scratch);
    setup_.score_kernels.weigh(rules, scratch.inverse, reference, tile, scratch.weights,
                               scratch.state.total);
    if constexpr (Setup<Row>::kRounded)
      setup_.run.bfloat->round_weights(scratch.weights, setup_.heads, block.tokens, scratch.pool_weights,
                                       scratch.state.pooled_total);
  }

  // Moves the reference of heads whose scores have grown far beyond it. Gives what to subtract: 0 instead
  // of -infinity for heads that have seen no finite score.
  const Real* raise_reference(const ScoreRules& rules, Scratch<Row>& scratch) const {
    State<Real>& state = scratch.state;
    Real* largest = scratch.largest;
    setup_.score_kernels.largest(rules, scratch.tile, largest);
    const Real slack = static_cast<Real>(kReferenceSlack / kLog2E);
    for (int64_t j = 0; j < setup_.heads; ++j) {
      Real& reference = state.reference[j];
      if ((largest[j] - reference) * scratch.inverse[j] > slack) {
        const double shrink =
            std::exp(static_cast<double>(reference - largest[j]) * static_cast<double>(scratch.inverse[j]));
        state.total[j] *= shrink;
        state.pooled_total[j] *= shrink;
        Real* pooled = state.pooled + j * setup_.value_padded;
        scale_row(*setup_.run.rows, pooled, static_cast<Real>(shrink), setup_.value_padded, pooled);
        reference = largest[j];
      }
      largest[j] = std::isinf(reference) && reference < 0 ? Real{0} : reference;
    }
    return largest;
  }

  // The state of a cut sequence from those of its segments, in order.
  void merge(int64_t first, Scratch<Row>& scratch) {
    const int64_t sequence = segments_[first].sequence;
    inverse_temperatures(setup_.problem, sequence, scratch.inverse);
    State<Real>& sum = scratch.state;
    std::fill(sum.pooled, sum.pooled + setup_.heads * setup_.value_padded, Real{0});
    std::fill(sum.total, sum.total + setup_.heads, 0.0);
    std::fill(sum.pooled_total, sum.pooled_total + setup_.heads, 0.0);
    int64_t last = first;
    while (last < segments_.count() && segments_[last].sequence == sequence) ++last;
    for (int64_t j = 0; j < setup_.heads; ++j) {
      Real& reference = sum.reference[j];
      reference = static_cast<Real>(-kInfinity);
      for (int64_t i = first; i < last; ++i)
        if (part(i).total[j] != 0.0) reference = std::max(reference, part(i).reference[j]);
      for (int64_t i = first; i < last; ++i) {
        const State<Real> state = part(i);
        if (state.total[j] == 0.0) continue;
        const double shrink = state.reference[j] == reference
                                  ? 1.0
                                  : std::exp(static_cast<double>(state.reference[j] - reference) *
                                             static_cast<double>(scratch.inverse[j]));
        sum.total[j] += shrink * state.total[j];
        sum.pooled_total[j] += shrink * state.pooled_total[j];
        add_scaled_row(*setup_.run.rows, state.pooled + j * setup_.value_padded, static_cast<Real>(shrink),
                       setup_.value_padded, sum.pooled + j * setup_.value_padded);
      }
    }
    finish(sequence, sum, scratch);
  }

  State<Real> part(int64_t segment) {
    Arena arena = partial_.copy(segments_[segment].slot);
    return State<Real>::take(arena, setup_);
  }

  // From the state of a whole sequence to its results.
  void finish(int64_t sequence, const State<Real>& state, Scratch<Row>& scratch) const {
    const ec_dtype dtype = setup_.problem.key.dtype;
    for (int64_t j = 0; j < setup_.heads; ++j) {
      const int64_t row = sequence * setup_.heads + j;
      const bool empty = state.total[j] == 0.0;
      const double total = Setup<Row>::kRounded && !setup_.uniform ? state.pooled_total[j] : state.total[j];
      const Real scale = empty ? Real{0} : static_cast<Real>(1.0 / total);
      const Real* pooled = state.pooled + j * setup_.value_padded;
      scale_row(*setup_.run.rows, pooled, scale, setup_.value_padded, scratch.line);
      write_row(setup_.run.tokens->convert, scratch.line, setup_.problem.value_columns, dtype,
                element_pointer(result_.out, dtype, row * setup_.problem.value_columns));
      if (result_.wide != nullptr)
        std::copy(scratch.line, scratch.line + setup_.problem.value_columns,
                  static_cast<Real*>(result_.wide) + row * setup_.problem.value_columns);
      if (result_.lse != nullptr)
        static_cast<Real*>(result_.lse)[row] =
            empty ? static_cast<Real>(-kInfinity)
                  : state.reference[j] * scratch.inverse[j] + static_cast<Real>(std::log(state.total[j]));
    }
    if (result_.weights != nullptr) normalize_weights(sequence, state, scratch);
  }

  // From f to the weights, in place.
  void normalize_weights(int64_t sequence, const State<Real>& state, const Scratch<Row>& scratch) const {
    Real* row = static_cast<Real*>(result_.weights) + setup_.layout.score_origin(sequence);
    const int64_t room = setup_.layout.room(sequence);
    for (int64_t j = 0; j < setup_.heads; ++j, row += setup_.layout.score_step()) {
      const Real scale = state.total[j] == 0.0 ? Real{0} : static_cast<Real>(1.0 / state.total[j]);
      const Real reference = state.total[j] == 0.0 ? Real{0} : state.reference[j];
      for (int64_t t = 0; t < room; ++t)
        row[t] = std::exp((row[t] - reference) * scratch.inverse[j]) * scale;
    }
  }

  Setup<Row> setup_;
  const ec_attention_result& result_;
  Segments segments_;
  ArenaMemory partial_;
  NearBuffer<Row, 4 << 10> factor_;
  AlignedBuffer<Row> arranged_;
  const Row* shared_factor_ = nullptr;
};

}  // namespace
}  // namespace ec

extern "C" ec_status ec_attention_forward(const ec_attention_problem* problem,
                                          const ec_attention_result* result, ec_error* error) {
  ec_status status = ec::check_given(problem, "problem", error);
  if (status == EC_OK) status = ec::check_given(result, "result", error);
  if (status == EC_OK) status = ec::check_problem(*problem, error);
  if (status == EC_OK && problem->sequences > 0) status = ec::check_given(result->out, "out", error);
  if (status != EC_OK) return status;
  const bool bfloat =
      problem->key.dtype == EC_BFLOAT16 && ec::attention_bfloat_kernels(ec::current_isa())->native;
  status = problem->key.dtype == EC_FLOAT64 ? ec::Forward<double>(*problem, *result).run()
           : bfloat                         ? ec::Forward<uint16_t>(*problem, *result).run()
                                            : ec::Forward<float>(*problem, *result).run();
  if (status == EC_OUT_OF_MEMORY)
    return ec::fail(error, status, "", -1, "not enough memory for the scratch space of this call");
  return status;
}
