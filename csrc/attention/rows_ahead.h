// SPDX-License-Identifier: Apache-2.0
// Fetching the rows of the next block while this one is worked on; included by kernels only. Each loop
// fetches the columns that it is at, of a row to come: that costs one instruction a cache line.
#pragma once

#include "attention/kernels.h"

namespace ec {
namespace EC_ISA {

// Scores fetch this many rows for each tile of tokens, pool the others.
constexpr int kFetchedByScores = 2;

// Row i of the next block, or row where there is none: what is fetched again is in the cache.
template <class Number>
static inline const Number* row_ahead(const RowsAhead& ahead, int64_t i, const Number* row) {
  return i < ahead.count ? static_cast<const Number*>(ahead.rows[i]) : row;
}

// Rows of the next block that the scores of this one have fetched.
static inline int64_t fetched_by_scores(int64_t tokens, int64_t tile_tokens, int64_t head_tiles) {
  const int64_t each = head_tiles < kFetchedByScores ? head_tiles : kFetchedByScores;
  return (tokens + tile_tokens - 1) / tile_tokens * each;
}

static inline void fetch(const void* at) { __builtin_prefetch(at, 0, 3); }

}  // namespace EC_ISA
}  // namespace ec
