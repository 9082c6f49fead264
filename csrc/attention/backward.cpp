// SPDX-License-Identifier: Apache-2.0
// Backward: one walk over the tokens. Scores are read back, weights are made again from them and lse.
#include <algorithm>
#include <cmath>

#include "attention/arena.h"
#include "attention/gradient_rows.h"
#include "attention/setup.h"
#include "core/errors.h"
#include "core/parallel.h"

namespace ec {
namespace {

// Sums of the query's gradient, one for each group of segments: as many as keep processors busy, as long
// as they stay small beside the keys.
constexpr int64_t kMostGroups = 64;
constexpr int64_t kLeastGroups = 16;
constexpr int64_t kGroupShare = 50;

// A sequence with a logarithm of its sum beyond this may have all its weight on one token, where ds is the
// difference of equal numbers. S . G is then summed over the same dA that it is taken from, as exact zeros
// must stay zeros when they are divided by a small temperature.
constexpr double kSharpLse = 64.0;

template <class Real>
struct Scratch {
  Real* factors;  // [2 heads, and one to spare][padded]: the gradient of out, then the query's factor
  Real* tiles;    // [2 heads][kBlockTokens]: weights, then dz
  Real* scores;   // [heads, even][kBlockTokens]
  Real* mask;
  Real* mask_gradient;
  Real* products;  // dA, where it is needed twice
  Real* inverse;
  Real* row_term;
  Real* lse;
  Real* score_lanes;
  const Real** key_rows[2];
  const Real** value_rows[2];
  Real* key_converted[2];
  Real* value_converted[2];
  Real* line[2];
  typename GradientRows<Real>::Scratch grad_key, grad_value;
};

template <class Real>
class Backward {
 public:
  Backward(const ec_attention_problem& problem, const ec_attention_gradient& gradient)
      : setup_(problem),
        gradient_(gradient),
        padded_(std::max(setup_.key_padded, setup_.value_padded)),
        grad_key_(setup_.run, problem, gradient.grad_key, problem.key_columns, setup_.key_padded,
                  gradient.accumulate != 0),
        grad_value_(setup_.run, problem, setup_.shared ? nullptr : gradient.grad_value,
                    problem.value_columns, setup_.value_padded, false) {}

  ec_status run() {
    if (!segments_.build(setup_.problem) || !setup_.allocate()) return EC_OUT_OF_MEMORY;
    const int threads = setup_.threads();
    const int64_t groups = group_count();
    Arena measured;
    take(measured);
    ArenaMemory memory;
    if (!memory.allocate(measured, worker_count(segments_.count(), threads))) return EC_OUT_OF_MEMORY;
    const int64_t query_numbers = wants_query() ? setup_.heads * setup_.key_padded : 0;
    if (!query_sums_.allocate(groups * query_numbers)) return EC_OUT_OF_MEMORY;
    if (!score_sums_.allocate(gradient_.grad_temperature == nullptr ? 0 : segments_.count() * setup_.heads))
      return EC_OUT_OF_MEMORY;
    ec_status status = EC_OK;
    if (any_sharp()) {
      if (!sharp_sums_.allocate(segments_.count() * setup_.heads)) return EC_OUT_OF_MEMORY;
      status = parallel_for(segments_.count(), threads, setup_.problem.monitor, [&](int64_t i, int worker) {
        Arena arena = memory.copy(worker);
        Scratch<Real> scratch = take(arena);
        if (sharp(segments_[i].sequence)) sum_products(i, scratch);
      });
      if (status != EC_OK) return status;
    }
    status = parallel_for(groups, threads, setup_.problem.monitor, [&](int64_t group, int worker) {
      Arena arena = memory.copy(worker);
      Scratch<Real> scratch = take(arena);
      Real* query_sum = query_sums_.data() + group * query_numbers;
      std::fill(query_sum, query_sum + query_numbers, Real{0});
      for (int64_t i = first_of(group, groups); i < first_of(group + 1, groups); ++i)
        do_segment(i, query_sum, scratch);
    });
    if (status != EC_OK) return status;
    if (wants_query()) finish_query(groups);
    if (gradient_.grad_temperature != nullptr) finish_temperature();
    return EC_OK;
  }

 private:
  bool wants_query() const { return setup_.scored && gradient_.grad_query != nullptr; }
  bool shared_query() const { return setup_.problem.query_per_sequence == 0; }

  int64_t group_count() const {
    const int64_t count = segments_.count();
    if (!wants_query() || !shared_query()) return count;
    const int64_t sum_bytes = setup_.heads * setup_.key_padded * static_cast<int64_t>(sizeof(Real));
    const int64_t key_bytes =
        setup_.layout.all_tokens() * setup_.problem.key_columns * dtype_size(setup_.problem.key.dtype);
    const int64_t affordable = std::max(kLeastGroups, key_bytes / kGroupShare / sum_bytes);
    return std::min({count, kMostGroups, affordable});
  }
  int64_t first_of(int64_t group, int64_t groups) const { return group * segments_.count() / groups; }

  Scratch<Real> take(Arena& arena) const {
    const int64_t tile = setup_.padded_heads * kBlockTokens;
    Scratch<Real> s;
    s.factors = arena.take<Real>((2 * setup_.padded_heads + 1) * padded_);
    s.tiles = arena.take<Real>(2 * tile);
    s.scores = arena.take<Real>(tile);
    s.mask = arena.take<Real>(kBlockTokens);
    s.mask_gradient = arena.take<Real>(kBlockTokens);
    s.products = arena.take<Real>(tile);
    s.inverse = arena.take<Real>(setup_.heads);
    s.row_term = arena.take<Real>(setup_.heads);
    s.lse = arena.take<Real>(setup_.heads);
    s.score_lanes = arena.take<Real>(setup_.heads * kScoreLanes);
    for (int i = 0; i < 2; ++i) {
      s.key_rows[i] = arena.take<const Real*>(kBlockTokens + kTokenPadding);
      s.value_rows[i] = arena.take<const Real*>(kBlockTokens + kTokenPadding);
      s.key_converted[i] = arena.take<Real>(setup_.keys.in_place() ? 0 : kBlockTokens * setup_.key_padded);
      s.value_converted[i] = arena.take<Real>(
          setup_.values.in_place() || setup_.shared ? 0 : kBlockTokens * setup_.value_padded);
      s.line[i] = arena.take<Real>(padded_);
    }
    s.grad_key = GradientRows<Real>::Scratch::take(arena, grad_key_);
    s.grad_value = GradientRows<Real>::Scratch::take(arena, grad_value_);
    return s;
  }

  // The factors' second half; its rows follow those of the gradient where keys and values are one.
  Real* query_factor(const Scratch<Real>& scratch) const {
    return scratch.factors + (setup_.shared ? setup_.heads : setup_.padded_heads) * setup_.value_padded;
  }
  Real* dz_tile(const Scratch<Real>& scratch) const { return scratch.tiles + setup_.heads * kBlockTokens; }

  bool sharp(int64_t sequence) const {
    const Real* lse = static_cast<const Real*>(gradient_.lse) + sequence * setup_.heads;
    for (int64_t j = 0; j < setup_.heads; ++j)
      if (std::isfinite(lse[j]) && std::fabs(static_cast<double>(lse[j])) > kSharpLse) return true;
    return false;
  }
  bool any_sharp() const {
    for (int64_t b = 0; b < setup_.problem.sequences; ++b)
      if (sharp(b)) return true;
    return false;
  }

  // Sum over a segment's tokens of A dA, for each head.
  void sum_products(int64_t index, Scratch<Real>& scratch) {
    const Segment& segment = segments_[index];
    double* sums = sharp_sums_.data() + index * setup_.heads;
    std::fill(sums, sums + setup_.heads, 0.0);
    read_gradient(segment.sequence, scratch);
    std::fill(scratch.row_term, scratch.row_term + setup_.heads, Real{0});
    BlockWalk walk(setup_.problem, segment);
    Block block;
    while (walk.next(&block)) {
      point(segment.sequence, block, 0, scratch);
      Real* products = dz_tile(scratch);
      multiply(segment.sequence, block, 0, {nullptr, 0}, scratch);
      std::copy(products, products + setup_.heads * kBlockTokens, scratch.products);
      setup_.score_kernels.backward(setup_.rules(block.tokens), scratch.inverse, scratch.lse,
                                    scratch.row_term,
                                    setup_.read_mask(segment.sequence, block, scratch.mask), scratch.scores,
                                    products, scratch.tiles, nullptr, nullptr);
      for (int64_t j = 0; j < setup_.heads; ++j)
        for (int64_t t = j * kBlockTokens; t < j * kBlockTokens + block.tokens; ++t)
          sums[j] += static_cast<double>(scratch.tiles[t]) * static_cast<double>(scratch.products[t]);
    }
  }

  // S . G of a sharp sequence, from the sums of its segments.
  double summed_products(int64_t first, int64_t head) const {
    double sum = 0.0;
    for (int64_t i = first; i < segments_.count() && segments_[i].sequence == segments_[first].sequence;
         ++i)
      sum += sharp_sums_[i * setup_.heads + head];
    return sum;
  }

  void do_segment(int64_t index, Real* query_sum, Scratch<Real>& scratch) {
    const Segment& segment = segments_[index];
    begin(segment, scratch);
    if (sharp(segment.sequence)) {
      int64_t first = index;
      while (first > 0 && segments_[first - 1].sequence == segment.sequence) --first;
      for (int64_t j = 0; j < setup_.heads; ++j)
        scratch.row_term[j] = static_cast<Real>(of_lse(segment.sequence, j) - summed_products(first, j));
    }
    BlockWalk walk(setup_.problem, segment);
    Block blocks[2];
    walk.next(&blocks[0]);
    if (blocks[0].tokens > 0) point(segment.sequence, blocks[0], 0, scratch);
    int64_t next_key = segment.first, next_value = segment.first;
    double* score_sum = score_sums_.size() == 0 ? nullptr : score_sums_.data() + index * setup_.heads;
    if (score_sum != nullptr) std::fill(score_sum, score_sum + setup_.heads, 0.0);
    for (int now = 0; blocks[now].tokens > 0; now = 1 - now) {
      const Block& block = blocks[now];
      RowsAhead keys_ahead = {nullptr, 0}, values_ahead = {nullptr, 0};
      const Block& next = blocks[1 - now];
      if (walk.next(&blocks[1 - now])) {
        point(segment.sequence, next, 1 - now, scratch);
        keys_ahead = setup_.keys.ahead(scratch.key_rows[1 - now], next.tokens);
        values_ahead = setup_.values.ahead(scratch.value_rows[1 - now], next.tokens);
      }
      weigh_block(segment.sequence, block, now, values_ahead, score_sum, scratch);
      if (wants_query())
        setup_.kernels.pool(scratch.key_rows[now], block.tokens, dz_tile(scratch), setup_.heads,
                            setup_.key_padded, keys_ahead, query_sum);
      write_rows(segment.sequence, block, &next_key, &next_value, scratch);
    }
    const int64_t end = setup_.written_end(segment);
    if (grad_key_.wanted()) grad_key_.skip(segment.sequence, next_key, end);
    if (grad_value_.wanted()) grad_value_.skip(segment.sequence, next_value, end);
  }

  void point(int64_t sequence, const Block& block, int which, Scratch<Real>& scratch) const {
    setup_.keys.point(sequence, block, setup_.zeros.data(), scratch.key_converted[which],
                      scratch.key_rows[which]);
    if (setup_.shared)
      std::copy(scratch.key_rows[which], scratch.key_rows[which] + round_up(block.tokens, kTokenPadding),
                scratch.value_rows[which]);
    else
      setup_.values.point(sequence, block, setup_.zeros.data(), scratch.value_converted[which],
                          scratch.value_rows[which]);
  }

  // d loss / d lse.
  double of_lse(int64_t sequence, int64_t head) const {
    const ec_array* grad_lse = gradient_.grad_lse;
    if (grad_lse == nullptr) return 0.0;
    return array_value(*grad_lse, sequence * grad_lse->stride[0] + head * grad_lse->stride[1]);
  }

  // The gradient of a sequence's result, its temperatures and sums, and h_j - S_j . G_j.
  void read_gradient(int64_t b, Scratch<Real>& scratch) const {
    const ec_attention_problem& problem = setup_.problem;
    const int64_t columns = problem.value_columns;
    inverse_temperatures(problem, b, scratch.inverse);
    const ec_array& grad_out = *gradient_.grad_out;
    for (int64_t j = 0; j < setup_.heads; ++j) {
      Real* row = scratch.factors + j * setup_.value_padded;
      read_row(
          *setup_.run.rows,
          element_pointer(grad_out.data, grad_out.dtype, b * grad_out.stride[0] + j * grad_out.stride[1]),
          grad_out.dtype, columns, setup_.value_padded, row);
      read_row(*setup_.run.rows,
               element_pointer(gradient_.out, gradient_.out_dtype, (b * setup_.heads + j) * columns),
               gradient_.out_dtype, columns, setup_.value_padded, scratch.line[0]);
      double dot = 0.0;
      for (int64_t c = 0; c < columns; ++c)
        dot += static_cast<double>(row[c]) * static_cast<double>(scratch.line[0][c]);
      scratch.row_term[j] = static_cast<Real>(of_lse(b, j) - dot);
      // A head without a finite score has no weights: exp(s - infinity) is 0 whatever s is.
      const Real lse = static_cast<const Real*>(gradient_.lse)[b * setup_.heads + j];
      scratch.lse[j] = std::isinf(lse) && lse < 0 ? -lse : lse;
    }
  }

  // What is per sequence. Tokens that do not count are written.
  void begin(const Segment& segment, Scratch<Real>& scratch) const {
    const ec_attention_problem& problem = setup_.problem;
    const int64_t b = segment.sequence;
    read_gradient(b, scratch);
    if (setup_.scored) pack_factor(problem, b, setup_.key_padded, query_factor(scratch));
    const int64_t end = setup_.written_end(segment);
    if (gradient_.grad_bias != nullptr)
      setup_.fill_scores(b, segment.first, end, Real{0}, gradient_.grad_bias);
    if (gradient_.grad_mask != nullptr) {
      Real* to = static_cast<Real*>(gradient_.grad_mask) + setup_.layout.token_origin(b);
      std::fill(to + segment.first, to + end, Real{0});
    }
  }

  // dA and z of one block.
  void multiply(int64_t sequence, const Block& block, int which, const RowsAhead& ahead,
                Scratch<Real>& scratch) const {
    setup_.kernels.scores(scratch.value_rows[which], block.tokens, scratch.factors, setup_.heads,
                          setup_.value_padded, ahead, dz_tile(scratch));
    if (setup_.scored)
      setup_.gather(sequence, block, gradient_.scores, scratch.scores);
    else
      std::fill(scratch.scores, scratch.scores + setup_.heads * kBlockTokens, Real{0});
    setup_.add_bias(sequence, block, scratch.scores);
  }

  // Weights and dz of one block into the tiles.
  void weigh_block(int64_t sequence, const Block& block, int which, const RowsAhead& ahead,
                   double* score_sum, Scratch<Real>& scratch) const {
    Real* dz = dz_tile(scratch);
    multiply(sequence, block, which, ahead, scratch);
    const bool summed = score_sum != nullptr;
    const int64_t lanes = setup_.heads * kScoreLanes;
    if (summed) std::fill(scratch.score_lanes, scratch.score_lanes + lanes, Real{0});
    Real* mask_gradient = gradient_.grad_mask == nullptr ? nullptr : scratch.mask_gradient;
    setup_.score_kernels.backward(setup_.rules(block.tokens), scratch.inverse, scratch.lse,
                                  scratch.row_term, setup_.read_mask(sequence, block, scratch.mask),
                                  scratch.scores, dz, scratch.tiles, summed ? scratch.score_lanes : nullptr,
                                  mask_gradient);
    if (summed)
      for (int64_t i = 0; i < lanes; ++i)
        score_sum[i / kScoreLanes] += static_cast<double>(scratch.score_lanes[i]);
    if (gradient_.grad_bias != nullptr) setup_.scatter(sequence, block, dz, gradient_.grad_bias);
    if (mask_gradient != nullptr) {
      Real* to = static_cast<Real*>(gradient_.grad_mask) + setup_.layout.token_origin(sequence);
      for (int64_t t = 0; t < block.tokens; ++t) to[block.token[t]] = mask_gradient[t];
    }
  }

  void write_rows(int64_t sequence, const Block& block, int64_t* next_key, int64_t* next_value,
                  Scratch<Real>& scratch) const {
    if (grad_value_.wanted())
      grad_value_.write(setup_.kernels, sequence, block, scratch.tiles, scratch.factors, setup_.heads,
                        next_value, scratch.grad_value);
    if (!grad_key_.wanted()) return;
    if (setup_.shared)
      grad_key_.write(setup_.kernels, sequence, block, scratch.tiles, scratch.factors,
                      setup_.scored ? 2 * setup_.heads : setup_.heads, next_key, scratch.grad_key);
    else
      grad_key_.write(setup_.kernels, sequence, block, dz_tile(scratch), query_factor(scratch),
                      setup_.scored ? setup_.heads : 0, next_key, scratch.grad_key);
  }

  // The sums of all groups (or of the segments of each sequence), in order.
  void finish_query(int64_t groups) const {
    const int64_t columns = setup_.problem.key_columns, numbers = setup_.heads * setup_.key_padded;
    Real* to = static_cast<Real*>(gradient_.grad_query);
    const int64_t results = shared_query() ? 1 : setup_.problem.sequences;
    std::fill(to, to + results * setup_.heads * columns, Real{0});
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t result = shared_query() ? 0 : segments_[group].sequence;
      for (int64_t j = 0; j < setup_.heads; ++j) {
        const Real* from = query_sums_.data() + group * numbers + j * setup_.key_padded;
        add_scaled_row(*setup_.run.rows, from, Real{1}, columns,
                       to + (result * setup_.heads + j) * columns);
      }
    }
  }

  void finish_temperature() const {
    const int64_t heads = setup_.heads;
    Real* to = static_cast<Real*>(gradient_.grad_temperature);
    std::fill(to, to + setup_.problem.sequences * heads, Real{0});
    for (int64_t i = 0; i < segments_.count(); ++i) {
      Real* row = to + segments_[i].sequence * heads;
      for (int64_t j = 0; j < heads; ++j)
        row[j] +=
            static_cast<Real>(temperature_gradient(segments_[i].sequence, j, score_sums_[i * heads + j]));
    }
  }

  // d loss / d T from the sum of ds (f + mask).
  double temperature_gradient(int64_t sequence, int64_t head, double sum) const {
    const ec_attention_problem& problem = setup_.problem;
    const ec_array& array = problem.temperature;
    const double t = array.data == nullptr
                         ? problem.fixed_temperature
                         : array_value(array, sequence * array.stride[0] + head * array.stride[1]);
    return -sum / (t * t);
  }

  Setup<Real> setup_;
  const ec_attention_gradient& gradient_;
  const int64_t padded_;
  const GradientRows<Real> grad_key_, grad_value_;
  Segments segments_;
  AlignedBuffer<Real> query_sums_;
  AlignedBuffer<double> score_sums_;
  AlignedBuffer<double> sharp_sums_;
};

// What the forward pass gave must be there.
ec_status check_saved(const ec_attention_problem& problem, const ec_attention_gradient& gradient,
                      ec_error* error) {
  if (problem.sequences == 0) return EC_OK;
  ec_status status = check_given(gradient.grad_out, "grad_out", error);
  if (status == EC_OK) status = check_given(gradient.out, "out", error);
  if (status == EC_OK) status = check_given(gradient.lse, "lse", error);
  if (status == EC_OK && problem.query.data != nullptr && problem.tokens > 0)
    status = check_given(gradient.scores, "scores", error);
  return status;
}

}  // namespace
}  // namespace ec

extern "C" ec_status ec_attention_backward(const ec_attention_problem* problem,
                                           const ec_attention_gradient* gradient, ec_error* error) {
  ec_status status = ec::check_given(problem, "problem", error);
  if (status == EC_OK) status = ec::check_given(gradient, "gradient", error);
  if (status == EC_OK) status = ec::check_problem(*problem, error);
  if (status == EC_OK) status = ec::check_saved(*problem, *gradient, error);
  if (status != EC_OK) return status;
  status = problem->key.dtype == EC_FLOAT64 ? ec::Backward<double>(*problem, *gradient).run()
                                            : ec::Backward<float>(*problem, *gradient).run();
  if (status == EC_OUT_OF_MEMORY)
    return ec::fail(error, status, "", -1, "not enough memory for the scratch space of this call");
  return status;
}
