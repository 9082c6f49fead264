// SPDX-License-Identifier: Apache-2.0
// Scores and pool for bf16 tokens, two numbers a product; see kernels.h for what each does.
#include "attention/kernels.h"

#include EC_ISA_HEADER
#include "attention/rows_ahead.h"
#include "core/isa_table.h"

#define EC_UNROLL _Pragma("GCC unroll 16")

namespace ec {
namespace EC_ISA {

#if defined(EC_BFLOAT_PRODUCTS)

constexpr int kPairs = 2 * kLanes;  // numbers of a vector

// ---- scores ---------------------------------------------------------------------------------------

constexpr int kScoreTokens = 4;
constexpr int kScoreHeads = 4;
constexpr int64_t kFactorBytes = 32 << 10;  // of the factor that stay in the first cache

static inline __attribute__((always_inline)) void score_tile(const uint16_t* const* rows,
                                                             const uint16_t* factor, int64_t columns,
                                                             const uint16_t* row_to_come, float* sums) {
  constexpr int kSums = kScoreTokens * kScoreHeads;
  const uint16_t* row[kScoreTokens];
  EC_UNROLL for (int t = 0; t < kScoreTokens; ++t) row[t] = rows[t];
  VF sum[kSums];
  EC_UNROLL for (int s = 0; s < kSums; ++s) sum[s] = zero();
  for (int64_t k = 0; k < columns; k += kPairs) {
    fetch(row_to_come + k);
    VF head[kScoreHeads];
    EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) head[h] =
        held(as_float(load_int(factor + h * columns + k)));
    EC_UNROLL for (int t = 0; t < kScoreTokens; ++t) {
      const VF numbers = held(as_float(load_int(row[t] + k)));
      EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) {
        VF& to = sum[h * kScoreTokens + t];
        to = dot_bfloat_pairs(to, as_int(numbers), as_int(head[h]));
      }
    }
  }
  EC_UNROLL for (int s = 0; s < kSums; s += kLanes) {
    VF group[kLanes];
    EC_UNROLL for (int i = 0; i < kLanes; ++i) group[i] = sum[s + i];
    store(sums + s, sum_each(group));
  }
}

static void scores(const uint16_t* const* rows, int64_t tokens, const uint16_t* factor, int64_t heads,
                   int64_t columns, const RowsAhead& ahead, float* tile) {
  const int64_t fitting = kFactorBytes / (columns * static_cast<int64_t>(sizeof(uint16_t)));
  const int64_t group = fitting < kScoreHeads ? kScoreHeads : fitting / kScoreHeads * kScoreHeads;
  const int64_t tiles = (tokens + kScoreTokens - 1) / kScoreTokens;
  for (int64_t first = 0; first < heads; first += group) {
    const int64_t last = first + group < heads ? first + group : heads;
    for (int64_t t = 0; t < tokens; t += kScoreTokens) {
      for (int64_t j = first; j < last; j += kScoreHeads) {
        const int64_t turn = j / kScoreHeads;
        const uint16_t* to_come =
            turn < kFetchedByScores ? row_ahead(ahead, turn * tiles + t / kScoreTokens, rows[t]) : rows[t];
        float sums[kScoreTokens * kScoreHeads];
        score_tile(rows + t, factor + j * columns, columns, to_come, sums);
        EC_UNROLL for (int h = 0; h < kScoreHeads; ++h) __builtin_memcpy(
            tile + (j + h) * kBlockTokens + t, sums + h * kScoreTokens, kScoreTokens * sizeof(float));
      }
    }
  }
}

// ---- pool -----------------------------------------------------------------------------------------

static void round_weights(const float* weights, int64_t heads, int64_t tokens, uint16_t* rounded,
                          double* total) {
  for (int64_t j = 0; j < heads; ++j) {
    VF sum = zero();
    for (int64_t t = 0; t < tokens; t += kLanes) {
      const VF weight = round_to_bfloat(load(weights + j * kBlockTokens + t));
      store_bfloat(rounded + j * kBlockTokens + t, weight);
      sum = add(sum, weight);
    }
    total[j] += sum_wide(sum);
  }
}

// pooled[kHeads][kSpan * kPairs columns] += rounded' rows; two tokens a step.
template <int kHeads, int kSpan>
static inline __attribute__((always_inline)) void pool_strip(const uint16_t* const* rows, int64_t tokens,
                                                             const uint16_t* rounded, int64_t columns,
                                                             int64_t at,
                                                             const uint16_t* const* rows_to_come,
                                                             int64_t fetching, float* pooled) {
  constexpr int kVectors = 2 * kSpan;
  VF sum[kHeads][kVectors];
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] =
      load(pooled + j * columns + at + v * kLanes);
  for (int64_t t = 0; t < tokens; t += 2) {
    if (t < 2 * fetching)
      EC_UNROLL for (int v = 0; v < kSpan; ++v) fetch(rows_to_come[t / 2] + at + v * kPairs);
    VI pair[kVectors];
    EC_UNROLL for (int v = 0; v < kSpan; ++v)
        interleave_bfloat(load_int(rows[t] + at + v * kPairs), load_int(rows[t + 1] + at + v * kPairs),
                          &pair[2 * v], &pair[2 * v + 1]);
    EC_UNROLL for (int j = 0; j < kHeads; ++j) {
      const VI weight = broadcast_group(reinterpret_cast<const uint32_t*>(rounded + j * kBlockTokens + t));
      EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] = dot_bfloat_pairs(sum[j][v], pair[v], weight);
    }
  }
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v)
      store(pooled + j * columns + at + v * kLanes, sum[j][v]);
}

template <int kHeads>
static void pool_heads(const uint16_t* const* rows, int64_t tokens, const uint16_t* rounded,
                       int64_t columns, int64_t at, int64_t end, const uint16_t* const* rows_to_come,
                       int64_t fetching, float* pooled) {
  constexpr int kSpan = kHeads >= 8 ? 1 : kHeads >= 4 ? 2 : 4;
  for (; at + kSpan * kPairs <= end; at += kSpan * kPairs)
    pool_strip<kHeads, kSpan>(rows, tokens, rounded, columns, at, rows_to_come, fetching, pooled);
  for (; at < end; at += kPairs)
    pool_strip<kHeads, 1>(rows, tokens, rounded, columns, at, rows_to_come, fetching, pooled);
}

// One head: tokens in groups, each along all columns, as memory likes it.
constexpr int kTogether = kTokenPadding;

static void pool_one(const uint16_t* const* rows, int64_t tokens, const uint16_t* rounded, int64_t columns,
                     const RowsAhead& ahead, float* pooled) {
  for (int64_t t = 0; t < tokens; t += kTogether) {
    const uint16_t* row[kTogether];
    const uint16_t* to_come[kTogether];
    VI weight[kTogether / 2];
    EC_UNROLL for (int i = 0; i < kTogether; ++i) {
      row[i] = rows[t + i];
      to_come[i] = row_ahead(ahead, t + i, row[i]);
    }
    EC_UNROLL for (int i = 0; i < kTogether / 2; ++i) weight[i] =
        t + 2 * i < tokens ? broadcast_group(reinterpret_cast<const uint32_t*>(rounded + t + 2 * i))
                           : zero_int();
    for (int64_t c = 0; c < columns; c += kPairs) {
      EC_UNROLL for (int i = 0; i < kTogether; ++i) fetch(to_come[i] + c);
      VF first = load(pooled + c), second = load(pooled + c + kLanes);
      EC_UNROLL for (int i = 0; i < kTogether / 2; ++i) {
        VI low, high;
        interleave_bfloat(load_int(row[2 * i] + c), load_int(row[2 * i + 1] + c), &low, &high);
        first = dot_bfloat_pairs(first, low, weight[i]);
        second = dot_bfloat_pairs(second, high, weight[i]);
      }
      store(pooled + c, first);
      store(pooled + c + kLanes, second);
    }
  }
}

constexpr int kStripPairs = 8;  // columns that stay in the first cache while all heads pass over them

static void pool(const uint16_t* const* rows, int64_t tokens, const uint16_t* rounded, int64_t heads,
                 int64_t columns, const RowsAhead& ahead, float* pooled) {
  if (heads == 1) return pool_one(rows, tokens, rounded, columns, ahead, pooled);
  const int64_t fetched = fetched_by_scores(tokens, kScoreTokens, (heads + kScoreHeads - 1) / kScoreHeads);
  const auto* to_come =
      ahead.count > fetched ? reinterpret_cast<const uint16_t* const*>(ahead.rows) + fetched : nullptr;
  const int64_t left_to_fetch = ahead.count - fetched;
  for (int64_t at = 0; at < columns; at += kStripPairs * kPairs) {
    const int64_t left = columns - at;
    const int64_t end = at + (left < kStripPairs * kPairs ? left : kStripPairs * kPairs);
    int64_t j = 0;
    for (; j + 8 <= heads; j += 8)
      pool_heads<8>(rows, tokens, rounded + j * kBlockTokens, columns, at, end, to_come,
                    j == 0 ? left_to_fetch : 0, pooled + j * columns);
    for (; j + 4 <= heads; j += 4)
      pool_heads<4>(rows, tokens, rounded + j * kBlockTokens, columns, at, end, to_come,
                    j == 0 ? left_to_fetch : 0, pooled + j * columns);
    for (; j < heads; ++j)
      pool_heads<1>(rows, tokens, rounded + j * kBlockTokens, columns, at, end, to_come,
                    j == 0 ? left_to_fetch : 0, pooled + j * columns);
  }
}

static const BFloatKernels kTable = {true, scores, round_weights, pool};

#else

static const BFloatKernels kTable = {false, nullptr, nullptr, nullptr};

#endif

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(BFloatKernels, attention_bfloat)
