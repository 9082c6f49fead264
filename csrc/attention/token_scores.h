// SPDX-License-Identifier: Apache-2.0
// The scores of a block of tokens, over what a vector of a row holds; included by kernels only. They run
// along the columns with a few tokens and heads in registers, and add up the lanes in the end.
#pragma once

#include EC_ISA_HEADER
#include "attention/rows_ahead.h"

namespace ec {
namespace EC_ISA {

// Of 16 registers, what a tile may take as sums is 12: enough for the latency of a product, twice over.
constexpr bool kFewRegisters = kTileRows * kTileVectors < 16;

// A tile reads kScoreTokens + kScoreHeads vectors for as many products as it has sums.
constexpr int kScoreTokens = kFewRegisters ? 6 : 4;
// A tile of 6 writes 8 columns, from one that 6 divides.
static_assert(!kFewRegisters || (kBlockTokens / 6 - 1) * 6 + 8 <= kBlockTokens, "tiles stay in their rows");
constexpr int kScoreHeads = kFewRegisters ? 2 : 4;
static_assert(kTokenPadding % (kFewRegisters ? 2 : kScoreTokens) == 0,
              "row lists are padded for the last tile");
static_assert(kHeadPadding % kScoreHeads == 0, "factors are padded for a tile of heads");

// Bytes of the factor that stay in the first cache while all tokens of a block pass.
constexpr int64_t kFactorBytes = 32 << 10;

// Adds up the lanes of kTokens sums of each head, to tile[h][t].
template <class Lane, int kTokens>
static inline __attribute__((always_inline)) void put_sums(
    const typename Lane::Vector (&sum)[kScoreHeads * kTokens], typename Lane::Sum* tile) {
  using Vector = typename Lane::Vector;
  constexpr int kWidth = Lane::kWidth;
  if constexpr (kFewRegisters) {
    // Whole vectors for each head: of the widest tiles, what lies beyond is written by the next tile.
    EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) EC_UNROLL for (int t = 0; t < kTokens; t += kWidth) {
      Vector group[kWidth];
      EC_UNROLL for (int i = 0; i < kWidth; ++i) group[i] =
          t + i < kTokens ? sum[h * kTokens + (t + i < kTokens ? t + i : 0)] : Lane::none();
      const Vector sums = Lane::sum_lanes(group);
      typename Lane::Sum* to = tile + h * kBlockTokens + t;
      if constexpr (kTokens == kScoreTokens)
        Lane::put(to, sums);
      else
        EC_UNROLL for (int i = 0; i < kWidth; ++i) if (t + i < kTokens) to[i] = sums[i];
    }
  } else {
    constexpr int kSums = kTokens * kScoreHeads;
    static_assert(kSums % kWidth == 0, "sums are added up by whole vectors");
    typename Lane::Sum sums[kSums];
    EC_UNROLL for (int s = 0; s < kSums; s += kWidth) {
      Vector group[kWidth];
      EC_UNROLL for (int i = 0; i < kWidth; ++i) group[i] = sum[s + i];
      Lane::put(sums + s, Lane::sum_lanes(group));
    }
    EC_UNROLL for (int h = 0; h < kScoreHeads; ++h)
        __builtin_memcpy(tile + h * kBlockTokens, sums + h * kTokens, kTokens * sizeof(typename Lane::Sum));
  }
}

// tile[h][t] = rows[t] . factor[h] of kTokens tokens and kScoreHeads heads.
template <class Lane, int kTokens>
static inline __attribute__((always_inline)) void score_tile(const typename Lane::Number* const* rows,
                                                             const typename Lane::Number* factor,
                                                             int64_t columns,
                                                             const typename Lane::Number* row_to_come,
                                                             typename Lane::Sum* tile) {
  using Vector = typename Lane::Vector;
  constexpr int kSums = kTokens * kScoreHeads;
  const int64_t stride = factor_stride<typename Lane::Number>(columns);
  const typename Lane::Number* row[kTokens];
  EC_UNROLL for (int t = 0; t < kTokens; ++t) row[t] = rows[t];
  Vector sum[kSums];
  EC_UNROLL for (int s = 0; s < kSums; ++s) sum[s] = Lane::none();
  for (int64_t k = 0; k < columns; k += Lane::kNumbers) {
    fetch(row_to_come + k);
    Vector head[kScoreHeads];
    EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) head[h] = Lane::get_once(factor + h * stride + k);
    EC_UNROLL for (int t = 0; t < kTokens; ++t) {
      const Vector numbers = Lane::get_once(row[t] + k);
      EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) {
        Vector& to = sum[h * kTokens + t];
        to = Lane::step(numbers, head[h], to);
      }
    }
  }
  put_sums<Lane, kTokens>(sum, tile);
}

// The tiles of groups of heads, and the rows to come that they fetch: one each at most.
template <class Lane>
struct ScoreTiles {
  using Number = typename Lane::Number;

  const Number* const* rows;
  const Number* factor;
  int64_t columns;
  const RowsAhead& ahead;
  int64_t tiles;  // of all groups
  typename Lane::Sum* tile;
  int64_t fetched = 0, due = 0;  // rows; due / tiles of one are late

  // Tokens from t on and heads [first, last).
  template <int kTokens>
  inline __attribute__((always_inline)) void score(int64_t t, int64_t first, int64_t last) {
    for (int64_t j = first; j < last; j += kScoreHeads) {
      due += ahead.count;
      const Number* row_to_come = row_ahead(ahead, due >= tiles ? fetched++ : ahead.count, rows[t]);
      if (due >= tiles) due -= tiles;
      score_tile<Lane, kTokens>(rows + t, factor + j * factor_stride<Number>(columns), columns, row_to_come,
                                tile + j * kBlockTokens + t);
    }
  }
};

template <class Lane>
static void scores(const typename Lane::Number* const* rows, int64_t tokens,
                   const typename Lane::Number* factor, int64_t heads, int64_t columns,
                   const RowsAhead& ahead, typename Lane::Sum* tile) {
  const int64_t fitting = kFactorBytes / (columns * static_cast<int64_t>(sizeof(typename Lane::Number)));
  const int64_t group = fitting < kScoreHeads ? kScoreHeads : fitting / kScoreHeads * kScoreHeads;
  const int64_t count =
      (tokens + kScoreTokens - 1) / kScoreTokens * ((heads + kScoreHeads - 1) / kScoreHeads);
  ScoreTiles<Lane> tiles{rows, factor, columns, ahead, count, tile};
  for (int64_t first = 0; first < heads; first += group) {
    const int64_t last = first + group < heads ? first + group : heads;
    int64_t t = 0;
    for (; t + kScoreTokens <= tokens; t += kScoreTokens)
      tiles.template score<kScoreTokens>(t, first, last);
    const int64_t left = tokens - t;
    if (left > (kFewRegisters ? 4 : 0)) {
      tiles.template score<kScoreTokens>(t, first, last);
    } else if constexpr (kFewRegisters) {
      if (left > 2)
        tiles.template score<4>(t, first, last);
      else if (left > 0)
        tiles.template score<2>(t, first, last);
    }
  }
}

}  // namespace EC_ISA
}  // namespace ec
