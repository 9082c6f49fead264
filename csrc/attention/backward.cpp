// SPDX-License-Identifier: Apache-2.0
// Backward: one walk over the tokens. Scores are read back, weights are made again from them and lse.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/backward_scratch.h"
#include "attention/check.h"
#include "core/errors.h"
#include "core/parallel.h"

namespace ec {
namespace {

// Sums of the query's gradient, one for each group of segments: as many as keep processors busy, as long
// as they stay small beside the keys.
constexpr int64_t kMostGroups = 64;
constexpr int64_t kLeastGroups = 16;
constexpr int64_t kGroupShare = 50;

// A sequence with a logarithm of its sum beyond this may have all its weight on a few tokens, where ds is
// the difference of equal numbers, and weights made again from lse, which is rounded, may not sum to 1.
// Both sums, of A and of A dA, are then taken first, as exact zeros must stay zeros when they are divided
// by a small temperature. So they are where weights have gradients of their own, which are part of dA.
constexpr double kSharpLse = 64.0;

// In several partial sums, which the processor adds at once.
template <class Real>
double dot(const Real* a, const Real* b, int64_t count) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums)
    for (int k = 0; k < kSums; ++k)
      sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  for (; i < count; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  double sum = 0.0;
  for (const double partial : sums) sum += partial;
  return sum;
}

template <class Row>
class Backward {
  using Real = typename Setup<Row>::Real;
  using Scratch = BackwardScratch<Row>;

 public:
  Backward(const ec_attention_problem& problem, const ec_attention_gradient& gradient)
      : setup_(problem),
        gradient_(gradient),
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
    if (setup_.scored && shared_query() && !pack_shared()) return EC_OUT_OF_MEMORY;
    const int64_t query_numbers = wants_query() ? setup_.heads * setup_.key_padded : 0;
    if (!query_sums_.allocate(groups * query_numbers)) return EC_OUT_OF_MEMORY;
    if (!score_sums_.allocate(gradient_.grad_temperature == nullptr ? 0 : segments_.count() * setup_.heads))
      return EC_OUT_OF_MEMORY;
    ec_status status = EC_OK;
    if (any_sharp()) {
      if (!sharp_sums_.allocate(2 * segments_.count() * setup_.heads)) return EC_OUT_OF_MEMORY;
      status = parallel_for(segments_.count(), threads, setup_.problem.monitor, [&](int64_t i, int worker) {
        Arena arena = memory.copy(worker);
        Scratch scratch = take(arena);
        if (sharp(segments_[i].sequence)) sum_products(i, scratch);
      });
      if (status != EC_OK) return status;
    }
    status = parallel_for(groups, threads, setup_.problem.monitor, [&](int64_t group, int worker) {
      Arena arena = memory.copy(worker);
      Scratch scratch = take(arena);
      Real* query_sum = query_sums_.data() + group * query_numbers;
      std::fill(query_sum, query_sum + query_numbers, Real{0});
      const int64_t end = first_of(group + 1, groups);
      for (int64_t i = first_of(group, groups); i < end; ++i)
        do_segment(i, i + 1 < end ? &segments_[i + 1] : nullptr, query_sum, scratch);
    });
    if (status != EC_OK) return status;
    if (wants_query()) finish_query(groups);
    if (gradient_.grad_temperature != nullptr) finish_temperature();
    return EC_OK;
  }

 private:
  bool wants_query() const { return setup_.scored && gradient_.grad_query != nullptr; }
  bool shared_query() const { return setup_.shared_query(); }

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

  Scratch take(Arena& arena) const { return Scratch::take(arena, setup_, grad_key_, grad_value_); }

  bool pack_shared() {
    const int64_t numbers = setup_.factor_numbers();
    AlignedBuffer<Real> unrounded;
    if (!shared_factor_.allocate(numbers) || (Setup<Row>::kRounded && !unrounded.allocate(numbers)))
      return false;
    setup_.pack(0, unrounded.data(), shared_factor_.data());
    return true;
  }

  bool sharp(int64_t sequence) const {
    if (gradient_.grad_weights != nullptr) return true;
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

  HeadTerms<Real> terms(const Scratch& scratch) const {
    return {scratch.inverse, scratch.lse, scratch.correction, scratch.row_term, scratch.origin};
  }

  // Sums over a segment's tokens of A and of A dA, for each head.
  void sum_products(int64_t index, Scratch& scratch) {
    const Segment& segment = segments_[index];
    double* sums = sharp_sums_.data() + 2 * index * setup_.heads;
    std::fill(sums, sums + 2 * setup_.heads, 0.0);
    read_gradient(segment.sequence, scratch);
    std::fill(scratch.row_term, scratch.row_term + setup_.heads, Real{0});
    BlockWalk walk(setup_.problem, segment);
    Block block;
    while (walk.next(&block)) {
      point(segment.sequence, block, 0, scratch);
      Real* products = scratch.dz();
      multiply(segment.sequence, block, 0, {}, scratch);
      std::copy(products, products + setup_.heads * kBlockTokens, scratch.products);
      setup_.score_kernels.backward(setup_.rules(block.tokens), terms(scratch),
                                    setup_.read_mask(segment.sequence, block, scratch.mask), scratch.scores,
                                    products, scratch.tiles, nullptr, nullptr);
      for (int64_t j = 0; j < setup_.heads; ++j)
        for (int64_t t = j * kBlockTokens; t < j * kBlockTokens + block.tokens; ++t) {
          const auto weight = static_cast<double>(scratch.tiles[t]);
          sums[2 * j] += weight;
          sums[2 * j + 1] += weight * static_cast<double>(scratch.products[t]);
        }
    }
  }

  // The correction and the row term of a sharp sequence, from the sums of its segments.
  void take_sums(int64_t index, Scratch& scratch) const {
    const int64_t sequence = segments_[index].sequence;
    int64_t first = index;
    while (first > 0 && segments_[first - 1].sequence == sequence) --first;
    for (int64_t j = 0; j < setup_.heads; ++j) {
      double weight = 0.0, product = 0.0;
      for (int64_t i = first; i < segments_.count() && segments_[i].sequence == sequence; ++i) {
        weight += sharp_sums_[2 * (i * setup_.heads + j)];
        product += sharp_sums_[2 * (i * setup_.heads + j) + 1];
      }
      if (weight == 0.0) continue;  // no token has a finite score
      scratch.correction[j] = static_cast<Real>(1.0 / weight);
      scratch.row_term[j] = static_cast<Real>(of_lse(sequence, j) - product / weight);
    }
  }

  // following (may be null): the segment whose first rows are fetched with the last ones of this.
  void do_segment(int64_t index, const Segment* following, Real* query_sum, Scratch& scratch) {
    const Segment& segment = segments_[index];
    begin(segment, scratch);
    if (sharp(segment.sequence)) take_sums(index, scratch);
    BlockWalk walk(setup_.problem, segment);
    Block blocks[2];
    walk.next(&blocks[0]);
    if (blocks[0].tokens > 0) point(segment.sequence, blocks[0], 0, scratch);
    int64_t next_key = segment.first, next_value = segment.first;
    double* score_sum = score_sums_.size() == 0 ? nullptr : score_sums_.data() + index * setup_.heads;
    if (score_sum != nullptr) std::fill(score_sum, score_sum + setup_.heads, 0.0);
    for (int now = 0; blocks[now].tokens > 0; now = 1 - now) {
      const Block& block = blocks[now];
      BlockAhead ahead;
      if (walk.next(&blocks[1 - now]))
        ahead = point_ahead(segment.sequence, blocks[1 - now], 1 - now, scratch);
      else if (following != nullptr && setup_.in_place())
        ahead = point_ahead(*following, 1 - now, scratch);
      weigh_block(segment.sequence, block, now, ahead.scores, score_sum, scratch);
      if (wants_query())
        setup_.kernels.pool(scratch.key_rows[now], block.tokens, scratch.rounded_dz(), setup_.heads,
                            setup_.key_padded, ahead.pool, query_sum);
      write_rows(segment.sequence, block, &next_key, &next_value, scratch);
    }
    const int64_t end = setup_.written_end(segment);
    if (grad_key_.wanted()) grad_key_.skip(segment.sequence, next_key, end);
    if (grad_value_.wanted()) grad_value_.skip(segment.sequence, next_value, end);
  }

  void point(int64_t sequence, const Block& block, int which, Scratch& scratch) const {
    setup_.keys.point(sequence, block, setup_.zeros.data(), scratch.key_converted[which],
                      scratch.key_rows[which]);
    if (setup_.shared)
      std::copy(scratch.key_rows[which], scratch.key_rows[which] + round_up(block.tokens, kTokenPadding),
                scratch.value_rows[which]);
    else
      setup_.values.point(sequence, block, setup_.zeros.data(), scratch.value_converted[which],
                          scratch.value_rows[which]);
  }

  // Points at a block to come, or at the first one of a segment, and says who fetches it.
  BlockAhead point_ahead(int64_t sequence, const Block& block, int which, Scratch& scratch) const {
    point(sequence, block, which, scratch);
    return setup_.ahead(setup_.values.ahead(scratch.value_rows[which], block.tokens),
                        setup_.keys.ahead(scratch.key_rows[which], wants_query() ? block.tokens : 0));
  }
  BlockAhead point_ahead(const Segment& segment, int which, Scratch& scratch) const {
    Block block;
    if (!BlockWalk(setup_.problem, segment).next(&block)) return {};
    return point_ahead(segment.sequence, block, which, scratch);
  }

  // d loss / d lse.
  double of_lse(int64_t sequence, int64_t head) const {
    const ec_array* grad_lse = gradient_.grad_lse;
    if (grad_lse == nullptr) return 0.0;
    return array_value(*grad_lse, sequence * grad_lse->stride[0] + head * grad_lse->stride[1]);
  }

  // The gradient of a sequence's result, its temperatures and sums, and h_j - S_j . G_j.
  void read_gradient(int64_t b, Scratch& scratch) const {
    const ec_attention_problem& problem = setup_.problem;
    const int64_t columns = problem.value_columns, padded = setup_.value_padded;
    inverse_temperatures(problem, b, scratch.inverse);
    std::fill(scratch.correction, scratch.correction + setup_.heads, Real{1});
    for (int64_t j = 0; j < setup_.heads; ++j) scratch.origin[j] = origin(b, j);
    const ec_array& grad_out = *gradient_.grad_out;
    for (int64_t j = 0; j < setup_.heads; ++j) {
      const RowKernels& rows = *setup_.run.rows;
      const void* row =
          element_pointer(grad_out.data, grad_out.dtype, b * grad_out.stride[0] + j * grad_out.stride[1]);
      read_row(rows, row, grad_out.dtype, columns, padded, scratch.factors + j * setup_.value_stride());
      read_row(rows, row, grad_out.dtype, columns, padded, scratch.line[0]);
      read_row(rows, element_pointer(gradient_.out, gradient_.out_dtype, (b * setup_.heads + j) * columns),
               gradient_.out_dtype, columns, padded, scratch.line[1]);
      scratch.row_term[j] =
          static_cast<Real>(of_lse(b, j) - dot(scratch.line[0], scratch.line[1], columns));
      // A head without a finite score has no weights: exp(s - infinity) is 0 whatever s is.
      const Real lse = static_cast<const Real*>(gradient_.lse)[b * setup_.heads + j];
      scratch.lse[j] = std::isinf(lse) && lse < 0 ? -lse : lse;
    }
    scratch.score_factor = setup_.arranged(scratch.factors, setup_.value_padded, scratch.arranged);
  }

  // What is per sequence. Tokens that do not count are written.
  void begin(const Segment& segment, Scratch& scratch) const {
    const int64_t b = segment.sequence;
    read_gradient(b, scratch);
    if (setup_.scored && !shared_query())
      setup_.pack(b, scratch.unrounded, scratch.query_factor());
    else if (setup_.scored)
      std::copy(shared_factor_.data(), shared_factor_.data() + setup_.heads * setup_.key_stride(),
                scratch.query_factor());
    scratch.group_factors(setup_);
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
                Scratch& scratch) const {
    Real* products = scratch.dz();
    setup_.kernels.scores(scratch.value_rows[which], block.tokens, scratch.score_factor, setup_.heads,
                          setup_.value_padded, ahead, products);
    if (gradient_.grad_weights != nullptr) {
      setup_.gather(sequence, block, gradient_.grad_weights, scratch.scores);
      for (int64_t j = 0; j < setup_.heads; ++j)
        for (int64_t t = j * kBlockTokens; t < j * kBlockTokens + block.tokens; ++t)
          products[t] += scratch.scores[t];
    }
    if (setup_.scored)
      setup_.gather(sequence, block, gradient_.scores, scratch.scores);
    else
      std::fill(scratch.scores, scratch.scores + setup_.heads * kBlockTokens, Real{0});
    setup_.add_bias(sequence, block, scratch.scores);
  }

  // Weights and dz of one block into the tiles.
  void weigh_block(int64_t sequence, const Block& block, int which, const RowsAhead& ahead,
                   double* score_sum, Scratch& scratch) const {
    Real* dz = scratch.dz();
    multiply(sequence, block, which, ahead, scratch);
    const bool summed = score_sum != nullptr;
    const int64_t lanes = setup_.heads * kScoreLanes;
    if (summed) std::fill(scratch.score_lanes, scratch.score_lanes + lanes, Real{0});
    Real* mask_gradient = gradient_.grad_mask == nullptr ? nullptr : scratch.mask_gradient;
    setup_.score_kernels.backward(setup_.rules(block.tokens), terms(scratch),
                                  setup_.read_mask(sequence, block, scratch.mask), scratch.scores, dz,
                                  scratch.tiles, summed ? scratch.score_lanes : nullptr, mask_gradient);
    if (summed)
      for (int64_t i = 0; i < lanes; ++i)
        score_sum[i / kScoreLanes] += static_cast<double>(scratch.score_lanes[i]);
    if (gradient_.grad_bias != nullptr) setup_.scatter(sequence, block, dz, gradient_.grad_bias);
    if (mask_gradient != nullptr) {
      Real* to = static_cast<Real*>(gradient_.grad_mask) + setup_.layout.token_origin(sequence);
      for (int64_t t = 0; t < block.tokens; ++t) to[block.token[t]] = mask_gradient[t];
    }
    scratch.round_and_group_tiles(setup_, block.tokens);
  }

  void write_rows(int64_t sequence, const Block& block, int64_t* next_key, int64_t* next_value,
                  Scratch& scratch) const {
    const int64_t heads = setup_.heads;
    if (grad_value_.wanted())
      grad_value_.write(setup_.kernels, sequence, block, scratch.tile_groups, scratch.factor_groups,
                        Scratch::groups_of(heads), next_value, scratch.grad_value);
    if (!grad_key_.wanted()) return;
    if (setup_.shared)
      grad_key_.write(setup_.kernels, sequence, block, scratch.tile_groups, scratch.factor_groups,
                      Scratch::groups_of(setup_.scored ? 2 * heads : heads), next_key, scratch.grad_key);
    else
      grad_key_.write(setup_.kernels, sequence, block, scratch.dz_groups(), scratch.query_groups(),
                      setup_.scored ? Scratch::groups_of(heads) : 0, next_key, scratch.grad_key);
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
    for (int64_t first = 0, last = 0; first < segments_.count(); first = last) {
      const int64_t sequence = segments_[first].sequence;
      while (last < segments_.count() && segments_[last].sequence == sequence) ++last;
      for (int64_t j = 0; j < heads; ++j) {
        double sum = 0.0;
        for (int64_t i = first; i < last; ++i) sum += score_sums_[i * heads + j];
        to[sequence * heads + j] = static_cast<Real>(temperature_gradient(sequence, j, sum));
      }
    }
  }

  // Scores of a sharp head are all but equal where they have weight, and summed up from there.
  Real origin(int64_t sequence, int64_t head) const {
    const Real lse = static_cast<const Real*>(gradient_.lse)[sequence * setup_.heads + head];
    return std::isfinite(lse) && std::fabs(static_cast<double>(lse)) > kSharpLse ? lse : Real{0};
  }

  // d loss / d T from the sum of ds (s - origin); ds sums to d loss / d lse.
  double temperature_gradient(int64_t sequence, int64_t head, double sum) const {
    const ec_attention_problem& problem = setup_.problem;
    const ec_array& array = problem.temperature;
    const double t = array.data == nullptr
                         ? problem.fixed_temperature
                         : array_value(array, sequence * array.stride[0] + head * array.stride[1]);
    const double of_origin = static_cast<double>(origin(sequence, head)) * of_lse(sequence, head);
    // Sums over heads and sequences stay finite.
    const double most = std::numeric_limits<Real>::max() / (1 << 24);
    return std::clamp(-(sum + of_origin) / t, -most, most);
  }

  Setup<Row> setup_;
  const ec_attention_gradient& gradient_;
  const GradientRows<Row> grad_key_, grad_value_;
  Segments segments_;
  NearBuffer<Row, 4 << 10> shared_factor_;
  NearBuffer<Real, 4 << 10> query_sums_;
  NearBuffer<double, 1 << 10> score_sums_;
  NearBuffer<double, 1 << 10> sharp_sums_;  // [segment][head]: of A, of A dA
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
  // A gradient of more digits than bf16 keeps them.
  const bool bfloat = problem->key.dtype == EC_BFLOAT16 && gradient->grad_out->dtype == EC_BFLOAT16 &&
                      ec::attention_bfloat_kernels(ec::current_isa())->native;
  status = problem->key.dtype == EC_FLOAT64 ? ec::Backward<double>(*problem, *gradient).run()
           : bfloat                         ? ec::Backward<uint16_t>(*problem, *gradient).run()
                                            : ec::Backward<float>(*problem, *gradient).run();
  if (status == EC_OUT_OF_MEMORY)
    return ec::fail(error, status, "", -1, "not enough memory for the scratch space of this call");
  return status;
}
