// SPDX-License-Identifier: Apache-2.0
// Products of bf16 tokens, two numbers a product; see kernels.h for what each does.
#include "attention/kernels.h"

#include EC_ISA_HEADER
#include "attention/token_scores.h"
#include "core/isa_table.h"

#if defined(EC_BFLOAT_PRODUCTS)
#include "attention/bfloat_lines.h"
#endif

namespace ec {
namespace EC_ISA {

#if defined(EC_BFLOAT_PRODUCTS)

struct Pairs {
  using Number = uint16_t;
  using Sum = float;
  using Vector = VF;                     // of sums, or the bits of pairs
  static constexpr int kWidth = kLanes;  // sums of a vector
  static constexpr int kNumbers = kPairs;
  static inline Vector none() { return zero(); }
  static inline Vector get_once(const Number* p) { return held(as_float(load_int(p))); }
  static inline void put(Sum* p, Vector a) { store(p, a); }
  static inline Vector step(Vector a, Vector b, Vector c) {
    return dot_bfloat_pairs(c, as_int(a), as_int(b));
  }
  static inline Vector sum_lanes(const Vector (&a)[kWidth]) { return sum_each(a); }
};

// ---- pool -----------------------------------------------------------------------------------------

constexpr int kPoolSums = 16;  // of the widest strips

// pooled[kHeads][kSpan * kPairs columns] += rounded' rows; two tokens a step.
template <int kHeads, int kSpan>
static inline __attribute__((always_inline)) void pool_strip(const uint16_t* const* rows, int64_t tokens,
                                                             const uint16_t* rounded, int64_t columns,
                                                             int64_t at, LinesAhead& ahead, float* pooled) {
  constexpr int kVectors = 2 * kSpan;
  VF sum[kHeads][kVectors];
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] =
      load(pooled + j * columns + at + v * kLanes);
  const auto add_two = [&](int64_t t) __attribute__((always_inline)) {
    VI pair[kVectors];
    EC_UNROLL for (int v = 0; v < kSpan; ++v)
        interleave_bfloat(load_int(rows[t] + at + v * kPairs), load_int(rows[t + 1] + at + v * kPairs),
                          &pair[2 * v], &pair[2 * v + 1]);
    EC_UNROLL for (int j = 0; j < kHeads; ++j) {
      const VI weight = broadcast_group(reinterpret_cast<const uint32_t*>(rounded + j * kBlockTokens + t));
      EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] = dot_bfloat_pairs(sum[j][v], pair[v], weight);
    }
  };
  int64_t t = 0;
  ahead.add_steps((tokens + 1) / 2);
  for (LineRun run = ahead.take((tokens + 1) / 2); run.steps > 0; run = ahead.take((tokens + 1 - t) / 2)) {
    for (int64_t step = 0; step < run.steps; ++step, t += 2) {
      fetch_lines(run, step);
      add_two(t);
    }
  }
  for (; t < tokens; t += 2) add_two(t);
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v)
      store(pooled + j * columns + at + v * kLanes, sum[j][v]);
}

template <int kHeads>
static void pool_heads(const uint16_t* const* rows, int64_t tokens, const uint16_t* rounded,
                       int64_t columns, int64_t at, int64_t end, LinesAhead& ahead, float* pooled) {
  constexpr int kSpan = kHeads >= 8 ? 1 : kHeads >= 4 ? 2 : 4;
  for (; at + kSpan * kPairs <= end; at += kSpan * kPairs)
    pool_strip<kHeads, kSpan>(rows, tokens, rounded, columns, at, ahead, pooled);
  for (; at < end; at += kPairs) pool_strip<kHeads, 1>(rows, tokens, rounded, columns, at, ahead, pooled);
}

constexpr int kStripPairs = 8;  // columns that stay in the first cache while all heads pass over them

static void pool(const uint16_t* const* rows, int64_t tokens, const uint16_t* rounded, int64_t heads,
                 int64_t columns, const RowsAhead& ahead, float* pooled) {
  if (heads == 1) return pool_one(rows, tokens, rounded, columns, ahead, pooled);
  const int64_t products = tokens * heads * (columns / kPairs);
  LinesAhead lines(ahead, columns * static_cast<int64_t>(sizeof(uint16_t)), products / kPoolSums);
  for (int64_t at = 0; at < columns; at += kStripPairs * kPairs) {
    const int64_t left = columns - at;
    const int64_t end = at + (left < kStripPairs * kPairs ? left : kStripPairs * kPairs);
    int64_t j = 0;
    for (; j + 8 <= heads; j += 8)
      pool_heads<8>(rows, tokens, rounded + j * kBlockTokens, columns, at, end, lines,
                    pooled + j * columns);
    for (; j + 4 <= heads; j += 4)
      pool_heads<4>(rows, tokens, rounded + j * kBlockTokens, columns, at, end, lines,
                    pooled + j * columns);
    for (; j < heads; ++j)
      pool_heads<1>(rows, tokens, rounded + j * kBlockTokens, columns, at, end, lines,
                    pooled + j * columns);
  }
}

// ---- spread ---------------------------------------------------------------------------------------

constexpr int kSpreadTokens = 4;
constexpr int kSpreadVectors = kTileVectors >= 3 ? 6 : 4;
static_assert(kTokenPadding % kSpreadTokens == 0, "write lists are padded for a tile of tokens");

template <int kVectors>
static inline __attribute__((always_inline)) void spread_strip(const uint32_t* tile, const uint32_t* factor,
                                                               int64_t pairs, int64_t columns, int64_t at,
                                                               bool streamed, bool accumulate,
                                                               uint16_t* const* to) {
  VF sum[kSpreadTokens][kVectors];
  EC_UNROLL for (int t = 0; t < kSpreadTokens; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] =
      zero();
  factor += at;
  const int64_t stride = factor_stride<uint32_t>(columns);
  for (int64_t j = 0; j < pairs; ++j, tile += kBlockTokens, factor += stride) {
    VF numbers[kVectors];
    EC_UNROLL for (int v = 0; v < kVectors; ++v) numbers[v] = held(as_float(load_int(factor + v * kLanes)));
    EC_UNROLL for (int t = 0; t < kSpreadTokens; ++t) {
      const VI weight = broadcast_group(tile + t);
      EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] =
          dot_bfloat_pairs(sum[t][v], as_int(numbers[v]), weight);
    }
  }
  if (accumulate)
    EC_UNROLL for (int t = 0; t < kSpreadTokens; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v)
        sum[t][v] = add(sum[t][v], load_bfloat(to[t] + at + v * kLanes));
  EC_UNROLL for (int t = 0; t < kSpreadTokens; ++t) EC_UNROLL for (int v = 0; v < kVectors; v += 2) {
    const VI rounded = round_bfloat_pairs(sum[t][v], sum[t][v + 1]);
    if (streamed)
      stream_int(to[t] + at + v * kLanes, rounded);
    else
      store_int(to[t] + at + v * kLanes, rounded);
  }
}

static void spread(const uint32_t* tile, int64_t tokens, const uint32_t* factor, int64_t pairs,
                   int64_t columns, bool streamed, bool accumulate, uint16_t* const* to) {
  int64_t at = 0;
  for (; at + kSpreadVectors * kLanes <= columns; at += kSpreadVectors * kLanes)
    for (int64_t t = 0; t < tokens; t += kSpreadTokens)
      spread_strip<kSpreadVectors>(tile + t, factor, pairs, columns, at, streamed, accumulate, to + t);
  for (; at < columns; at += kPairs)
    for (int64_t t = 0; t < tokens; t += kSpreadTokens)
      spread_strip<2>(tile + t, factor, pairs, columns, at, streamed, accumulate, to + t);
  if (streamed) fence();
}

static const BFloatKernels kTable = {
    true, {scores<Pairs>, pool, spread, nullptr, nullptr}, round_weights, pair_rows, false};

#else

static const BFloatKernels kTable = {};

#endif

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(BFloatKernels, attention_bfloat)
