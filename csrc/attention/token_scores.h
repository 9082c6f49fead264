// SPDX-License-Identifier: Apache-2.0
// The scores of a block of tokens, over what a vector of a row holds; included by kernels only. They run
// along the columns with a few tokens and heads in registers, and add up the lanes in the end.
#pragma once

#include EC_ISA_HEADER
#include "attention/rows_ahead.h"

#define EC_UNROLL _Pragma("GCC unroll 16")

namespace ec {
namespace EC_ISA {

// A tile reads kScoreTokens + kScoreHeads vectors for as many products as it has sums.
constexpr int kScoreTokens = 4;
constexpr int kScoreHeads = kTileRows * kTileVectors >= 16 ? 4 : 2;
static_assert(kTokenPadding % kScoreTokens == 0, "row lists are padded for a tile of tokens");
static_assert(kHeadPadding % kScoreHeads == 0, "factors are padded for a tile of heads");

// Bytes of the factor that stay in the first cache while all tokens of a block pass.
constexpr int64_t kFactorBytes = 32 << 10;

// sums[h][t] = rows[t] . factor[h]
template <class Lane>
static inline __attribute__((always_inline)) void score_tile(const typename Lane::Number* const* rows,
                                                             const typename Lane::Number* factor,
                                                             int64_t columns,
                                                             const typename Lane::Number* row_to_come,
                                                             typename Lane::Sum* sums) {
  using Vector = typename Lane::Vector;
  constexpr int kSums = kScoreTokens * kScoreHeads;
  static_assert(kSums % Lane::kWidth == 0, "sums are added up by whole vectors");
  const typename Lane::Number* row[kScoreTokens];
  EC_UNROLL for (int t = 0; t < kScoreTokens; ++t) row[t] = rows[t];
  Vector sum[kSums];
  EC_UNROLL for (int s = 0; s < kSums; ++s) sum[s] = Lane::none();
  for (int64_t k = 0; k < columns; k += Lane::kNumbers) {
    fetch(row_to_come + k);
    Vector head[kScoreHeads];
    EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) head[h] = Lane::get_once(factor + h * columns + k);
    EC_UNROLL for (int t = 0; t < kScoreTokens; ++t) {
      const Vector numbers = Lane::get_once(row[t] + k);
      EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) {
        Vector& to = sum[h * kScoreTokens + t];
        to = Lane::step(numbers, head[h], to);
      }
    }
  }
  EC_UNROLL for (int s = 0; s < kSums; s += Lane::kWidth) {
    Vector group[Lane::kWidth];
    EC_UNROLL for (int i = 0; i < Lane::kWidth; ++i) group[i] = sum[s + i];
    Lane::put(sums + s, Lane::sum_lanes(group));
  }
}

template <class Lane>
static void scores(const typename Lane::Number* const* rows, int64_t tokens,
                   const typename Lane::Number* factor, int64_t heads, int64_t columns,
                   const RowsAhead& ahead, typename Lane::Sum* tile) {
  using Number = typename Lane::Number;
  using Sum = typename Lane::Sum;
  const int64_t fitting = kFactorBytes / (columns * static_cast<int64_t>(sizeof(Number)));
  const int64_t group = fitting < kScoreHeads ? kScoreHeads : fitting / kScoreHeads * kScoreHeads;
  const int64_t tiles =
      (tokens + kScoreTokens - 1) / kScoreTokens * ((heads + kScoreHeads - 1) / kScoreHeads);
  int64_t next = 0, due = 0;  // of the rows to come; due / tiles of them are late, and a tile fetches one
  for (int64_t first = 0; first < heads; first += group) {
    const int64_t last = first + group < heads ? first + group : heads;
    for (int64_t t = 0; t < tokens; t += kScoreTokens) {
      for (int64_t j = first; j < last; j += kScoreHeads) {
        due += ahead.count;
        const Number* row_to_come = row_ahead(ahead, due >= tiles ? next++ : ahead.count, rows[t]);
        if (due >= tiles) due -= tiles;
        Sum sums[kScoreTokens * kScoreHeads];
        score_tile<Lane>(rows + t, factor + j * columns, columns, row_to_come, sums);
        EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) __builtin_memcpy(
            tile + (j + h) * kBlockTokens + t, sums + h * kScoreTokens, kScoreTokens * sizeof(Sum));
      }
    }
  }
}

}  // namespace EC_ISA
}  // namespace ec
