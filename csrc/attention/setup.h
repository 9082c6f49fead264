// SPDX-License-Identifier: Apache-2.0
// What forward and backward share of one call: kernels, sizes, rows, and the prepared scores of a block.
#pragma once

#include <type_traits>

#include "attention/rows.h"

namespace ec {

// Below this many operations threads cost more than they give.
constexpr double kThreadedOperations = 1 << 22;

// Rows of the next block that the loops of this one fetch.
struct BlockAhead {
  RowsAhead scores, pool;
};

// The pool has time to fetch a line of memory for each so many products of a head and a line.
constexpr int64_t kProductsALine = 16;

template <class Row>
struct Setup {
  using Real = typename Products<Row>::Sum;

  explicit Setup(const ec_attention_problem& given)
      : problem(given),
        layout(given),
        run(AttentionRun::of(current_isa(), kRounded)),
        kernels(KernelsOf<Row>::tokens(run)),
        score_kernels(KernelsOf<Row>::scores(run)),
        shared(given.value.data == nullptr),
        scored(given.query.data != nullptr),
        uniform(!scored && given.bias.data == nullptr && given.mask.data == nullptr),
        heads(given.heads),
        padded_heads(round_up(given.heads, kHeadPadding)),
        key_padded(round_up(given.key_columns, row_step())),
        value_padded(round_up(given.value_columns, row_step())),
        keys(run, given, given.key, given.key_columns, key_padded),
        values(run, given, shared ? given.key : given.value, given.value_columns, value_padded) {}

  static constexpr bool kRounded = std::is_same<Row, uint16_t>::value;  // rows and factors are bf16

  // The factor of a sequence as rows; unrounded is used where rows are bf16.
  void pack(int64_t sequence, Real* unrounded, Row* to) const {
    if constexpr (kRounded) {
      pack_factor(problem, sequence, key_stride(), unrounded);
      run.tokens->convert.to_bfloat(unrounded, factor_numbers(), to);
    } else {
      pack_factor(problem, sequence, key_stride(), to);
    }
  }

  // Whether rows are multiplied by tiles.
  bool tiled() const {
    if constexpr (kRounded) return run.bfloat->tiled;
    return false;
  }

  // What takes the rows of a factor to be multiplied with tokens, and how much beside them it needs.
  int64_t arranged_numbers(int64_t columns) const {
    return kernels.arrange == nullptr ? 0 : kernels.arranged_numbers(heads, columns);
  }
  const Row* arranged(const Row* factor, int64_t columns, Row* room) const {
    if (arranged_numbers(columns) == 0) return factor;
    kernels.arrange(factor, heads, columns, factor_stride<Row>(columns), room);
    return room;
  }

  // Between the rows of factors, and the numbers of one that is multiplied with keys.
  int64_t key_stride() const { return factor_stride<Row>(key_padded); }
  int64_t value_stride() const { return factor_stride<Row>(value_padded); }
  int64_t factor_numbers() const { return padded_heads * key_stride(); }

  bool shared_query() const { return problem.query_per_sequence == 0; }

  // No rows are converted.
  bool in_place() const { return (!scored || keys.in_place()) && values.in_place(); }

  // What scores and pool fetch of the rows that each of them will need. Scores, which wait for every line
  // that they read, are held up by what they fetch, the pool is not: where both need the same rows, scores
  // fetch what the pool has no time for, at most one row for each of their tiles (of 6 tokens and 2 heads,
  // or 4 of both). Tiles take twice as long for the pool as for scores.
  BlockAhead ahead(const RowsAhead& scored_rows, const RowsAhead& pooled_rows) const {
    if (!shared || scored_rows.count == 0 || pooled_rows.count == 0) return {scored_rows, pooled_rows};
    const int64_t count = pooled_rows.count;
    if (tiled()) return {{scored_rows.rows, count / 3}, {pooled_rows.rows + count / 3, count - count / 3}};
    const int64_t left =
        heads == 1 ? 0 : std::max(int64_t{0}, count - heads * kBlockTokens / kProductsALine);
    const int64_t by_scores = std::min(left, kBlockTokens / 6 * (padded_heads / 4));
    return {{scored_rows.rows, by_scores}, {pooled_rows.rows + by_scores, count - by_scores}};
  }

  // Columns of a whole vector.
  int64_t row_step() const { return kRounded ? 2 * run.tokens->lanes : run.tokens->lanes; }

  // Must succeed before rows are pointed at.
  bool allocate() {
    const int64_t columns = std::max(key_padded, value_padded);
    if (!zeros.allocate(columns)) return false;
    std::fill(zeros.data(), zeros.data() + columns, Row{0});
    return true;
  }

  int threads() const {
    const double operations = 2.0 * static_cast<double>(heads * (key_padded + value_padded)) *
                              static_cast<double>(layout.all_tokens());
    return operations > kThreadedOperations ? problem.threads : 1;
  }

  ScoreRules rules(int64_t tokens) const {
    return {problem.activation == EC_ACTIVATION_TANH ? Activation::kTanh : Activation::kNone,
            problem.norm == EC_HEAD_NORM_L2 ? HeadNorm::kL2 : HeadNorm::kNone, heads, tokens};
  }

  // tile[j][t] += bias; does nothing without one.
  void add_bias(int64_t sequence, const Block& block, Real* tile) const {
    const ec_array& bias = problem.bias;
    if (bias.data == nullptr) return;
    const int64_t origin = layout.origin(bias.stride, sequence);
    for (int64_t j = 0; j < heads; ++j)
      for (int64_t t = 0; t < block.tokens; ++t)
        tile[j * kBlockTokens + t] += static_cast<Real>(
            array_value(bias, origin + block.token[t] * bias.stride[1] + j * bias.stride[2]));
  }

  // The additive mask of the block's tokens into to; null where there is none.
  const Real* read_mask(int64_t sequence, const Block& block, Real* to) const {
    const ec_array& mask = problem.mask;
    if (mask.data == nullptr) return nullptr;
    const int64_t origin = layout.origin(mask.stride, sequence);
    for (int64_t t = 0; t < block.tokens; ++t)
      to[t] = static_cast<Real>(array_value(mask, origin + block.token[t] * mask.stride[1]));
    std::fill(to + block.tokens, to + kBlockTokens, Real{0});
    return to;
  }

  // A tile to its places in an array shaped like scores, and back.
  void scatter(int64_t sequence, const Block& block, const Real* tile, void* array) const {
    Real* to = static_cast<Real*>(array) + layout.score_origin(sequence);
    for (int64_t j = 0; j < heads; ++j, to += layout.score_step(), tile += kBlockTokens)
      if (block.contiguous)
        std::memcpy(to + block.token[0], tile, static_cast<size_t>(block.tokens) * sizeof(Real));
      else
        for (int64_t t = 0; t < block.tokens; ++t) to[block.token[t]] = tile[t];
  }
  void gather(int64_t sequence, const Block& block, const void* array, Real* tile) const {
    const Real* from = static_cast<const Real*>(array) + layout.score_origin(sequence);
    for (int64_t j = 0; j < heads; ++j, from += layout.score_step(), tile += kBlockTokens)
      if (block.contiguous)
        std::memcpy(tile, from + block.token[0], static_cast<size_t>(block.tokens) * sizeof(Real));
      else
        for (int64_t t = 0; t < block.tokens; ++t) tile[t] = from[block.token[t]];
  }

  // value into the places [first, last) of each head of a sequence in an array shaped like scores.
  void fill_scores(int64_t sequence, int64_t first, int64_t last, Real value, void* array) const {
    Real* to = static_cast<Real*>(array) + layout.score_origin(sequence);
    for (int64_t j = 0; j < heads; ++j, to += layout.score_step()) std::fill(to + first, to + last, value);
  }

  // Where the last segment of a sequence ends: the tokens beyond its length are written with it.
  int64_t written_end(const Segment& segment) const {
    return segment.last == layout.length(segment.sequence) ? layout.room(segment.sequence) : segment.last;
  }

  const ec_attention_problem& problem;
  const Layout layout;
  const AttentionRun run;
  const TokenKernels<Row>& kernels;
  const ScoreKernels<Real>& score_kernels;
  const bool shared;   // the keys are the values
  const bool scored;   // there is a query
  const bool uniform;  // all weights are equal
  const int64_t heads, padded_heads, key_padded, value_padded;
  const BlockRows<Row> keys, values;
  NearBuffer<Row, 4 << 10> zeros;
};

}  // namespace ec
