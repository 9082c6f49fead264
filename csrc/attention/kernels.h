// SPDX-License-Identifier: Apache-2.0
// The loops of attention over one block of tokens. Tokens come as pointers to their rows, so that
// masks, lengths and strides cost nothing here. A tile of scores holds one head a row and one token of
// the block a column: tile[j * kBlockTokens + t].
#pragma once

#include <cstdint>

#include "attention/attention_math.h"
#include "core/dispatch.h"

namespace ec {

constexpr int kBlockTokens = 64;
// Row lists are readable, and write lists writable, up to a multiple of this many tokens.
constexpr int kTokenPadding = 8;
// Partial sums of a head; narrower instruction sets use the first ones.
constexpr int kScoreLanes = 16;
// Rows of a factor are readable, and tiles of scores writable, up to a multiple of this many heads.
constexpr int kHeadPadding = 4;

// Rows of a factor lie so many numbers apart: a line more than their columns, because rows that lie a power
// of two apart share a few places of the cache.
template <class Number>
constexpr int64_t factor_stride(int64_t columns) {
  return columns + 64 / static_cast<int64_t>(sizeof(Number));
}

// Rows to be fetched into the cache while other work goes on.
struct RowsAhead {
  const void* const* rows = nullptr;
  int64_t count = 0;
};

// What rows of a dtype are multiplied with. Sum: what products are added up in. Group: what spread takes
// at a time, one head or, of bf16, a pair of heads in 32 bits.
template <class Row>
struct Products {
  using Sum = Row;
  using Group = Row;
};
template <>
struct Products<uint16_t> {
  using Sum = float;
  using Group = uint32_t;
};

// Products over tokens. Row is float, double, or uint16_t for bf16; columns are a multiple of the numbers
// of a vector. Rows of factors are factor_stride apart.
template <class Row>
struct TokenKernels {
  using Sum = typename Products<Row>::Sum;
  using Group = typename Products<Row>::Group;
  // tile[j][t] = rows[t] . factor[j], of a factor as Setup::arranged gives it
  // Numerics: sums of `lanes` partial sums of Sum, or of those over 256 columns each, one after the other;
  // of bf16, products and sums below 2^-126 are 0.
  void (*scores)(const Row* const* rows, int64_t tokens, const Row* factor, int64_t heads, int64_t columns,
                 const RowsAhead& ahead, Sum* tile);
  // pooled[j] += sum over t of tile[j][t] * rows[t]; pooled is [heads][columns].
  // Requires: of bf16, an odd last token is followed by a column of zeros.
  void (*pool)(const Row* const* rows, int64_t tokens, const Row* tile, int64_t heads, int64_t columns,
               const RowsAhead& ahead, Sum* pooled);
  // to[t] = sum over j of tile[j][t] * factor[j], or += when accumulate; j counts groups. streamed: the
  // result is not needed soon; it must lie on cache lines.
  void (*spread)(const Group* tile, int64_t tokens, const Group* factor, int64_t groups, int64_t columns,
                 bool streamed, bool accumulate, Row* const* to);
  // Where scores takes the rows of a factor as they are: null, or 0 numbers; else it takes what arrange
  // makes of them, so many numbers.
  int64_t (*arranged_numbers)(int64_t heads, int64_t columns);
  void (*arrange)(const Row* rows, int64_t heads, int64_t columns, int64_t stride, Row* to);
};

// What a tile of one block needs beside itself. Heads' numbers are arrays over the heads.
struct ScoreRules {
  Activation activation;
  HeadNorm norm;
  int64_t heads;
  int64_t tokens;
};

// Of each head, what the backward needs of a sequence.
template <class Real>
struct HeadTerms {
  const Real* inverse_temperature;
  const Real* lse;
  // What weights made again from a rounded lse are multiplied with, so that they sum to 1; and
  // h_j - S_j . G_j.
  const Real* correction;
  const Real* row_term;
  const Real* origin;  // what scores are summed up from, for the gradient of the temperature
};

// Elementwise steps on a tile. Numerics: Real throughout.
template <class Real>
struct ScoreKernels {
  // From z to f, in place. mask (one number a token) is added where it is not null. Columns beyond
  // `tokens` come out as -infinity.
  void (*activate)(const ScoreRules& rules, const Real* mask, Real* tile);
  void (*largest)(const ScoreRules& rules, const Real* tile,
                  Real* largest);  // of each head; NaN is passed over
  // weights[j][t] = exp((tile[j][t] - reference[j]) * inverse_temperature[j]); total[j] += their sum.
  void (*weigh)(const ScoreRules& rules, const Real* inverse_temperature, const Real* reference,
                const Real* tile, Real* weights, double* total);
  // From z (in `tile`) and dA (in `gradient`): tile becomes f, gradient dz, weights A.
  // score_lanes[j][kScoreLanes] (may be null) += ds (s - origin); mask_gradient[t] (may be null) = sum over
  // j of ds / T. Columns of dz and A beyond `tokens` come out as 0.
  void (*backward)(const ScoreRules& rules, const HeadTerms<Real>& heads, const Real* mask, Real* tile,
                   Real* gradient, Real* weights, Real* score_lanes, Real* mask_gradient);
};

// bf16 tokens in the instruction set's own products of pairs, summed in float32.
struct BFloatKernels {
  bool native;  // the set has such products; without them the functions are null, and rows are widened
  TokenKernels<uint16_t> tokens;
  // rounded[j][t] = weights[j][t] in bf16, columns beyond `tokens` included up to a whole vector;
  // total[j] (total may be null) += their sum.
  void (*round_weights)(const float* weights, int64_t heads, int64_t tokens, uint16_t* rounded,
                        double* total);
  // pairs[j][k] = rows[2 j][k] and rows[2 j + 1][k], low half first; an odd last row is paired with zeros.
  void (*pair_rows)(const uint16_t* rows, int64_t count, int64_t columns, int64_t row_stride,
                    int64_t pair_stride, uint32_t* pairs);
  bool tiled;  // by tiles, which take twice as long for the pool as for scores
};

// Rows of any dtype to and from Real.
struct ConvertKernels {
  // Writes `columns` rounded numbers.
  void (*to_half)(const float* from, int64_t columns, uint16_t* to);
  void (*to_bfloat)(const float* from, int64_t columns, uint16_t* to);
};

struct AttentionKernels {
  int lanes;  // floats; columns of doubles are padded to as many
  TokenKernels<float> tokens_float;
  TokenKernels<double> tokens_double;
  ConvertKernels convert;
};

struct AttentionScoreKernels {
  ScoreKernels<float> scores_float;
};

const AttentionKernels* attention_kernels(Isa isa);
const AttentionScoreKernels* attention_scores_kernels(Isa isa);
const BFloatKernels* attention_bfloat_kernels(Isa isa);

// The elementwise steps in float64, portable.
const ScoreKernels<double>& double_score_kernels();

}  // namespace ec
