// SPDX-License-Identifier: Apache-2.0
// Products of tokens with the factor, the weights and the gradients; see kernels.h for what each does.
//
// All three walk the rows as they lie in memory: no packing, so that a token is read once. Pool and spread
// hold a strip of columns of a few heads or tokens and broadcast the tile.
#include "attention/kernels.h"

#include EC_ISA_HEADER
#include "attention/token_scores.h"
#include "core/isa_table.h"

namespace ec {
namespace EC_ISA {

struct Floats {
  using Real = float;
  using Number = Real;
  using Sum = Real;
  using Vector = VF;
  static constexpr int kWidth = kLanes;  // sums of a vector
  static constexpr int kNumbers = kWidth;
  static inline Vector none() { return zero(); }
  static inline Vector all(Real a) { return set1(a); }
  static inline Vector get(const Real* p) { return load(p); }
  static inline Vector get_once(const Real* p) { return held(load(p)); }
  static inline void put(Real* p, Vector a) { store(p, a); }
  static inline void put_streamed(Real* p, Vector a) { stream(p, a); }
  static inline Vector step(Vector a, Vector b, Vector c) { return fma(a, b, c); }
  static inline Vector sum_lanes(const Vector (&a)[kWidth]) { return sum_each(a); }
};

typedef double VD __attribute__((vector_size(sizeof(VF))));
typedef double VDInMemory __attribute__((vector_size(sizeof(VF)), aligned(8), may_alias));

struct Doubles {
  using Real = double;
  using Number = Real;
  using Sum = Real;
  using Vector = VD;
  static constexpr int kWidth = kLanes / 2;
  static constexpr int kNumbers = kWidth;
  static inline Vector none() { return VD{}; }
  static inline Vector all(Real a) { return VD{} + a; }
  static inline Vector get(const Real* p) { return *reinterpret_cast<const VDInMemory*>(p); }
  static inline Vector get_once(const Real* p) { return get(p); }
  static inline void put(Real* p, Vector a) { *reinterpret_cast<VDInMemory*>(p) = a; }
  static inline void put_streamed(Real* p, Vector a) { put(p, a); }
  static inline Vector step(Vector a, Vector b, Vector c) { return a * b + c; }
  static inline Vector sum_lanes(const Vector (&a)[kWidth]) {
    Vector sums = none();
    EC_UNROLL for (int i = 0; i < kWidth; ++i) {
      Real sum = 0.0;
      EC_UNROLL for (int lane = 0; lane < kWidth; ++lane) sum += a[i][lane];
      sums[i] = sum;
    }
    return sums;
  }
};

// ---- pool -----------------------------------------------------------------------------------------

// pooled[kHeads][kVectors] += tile' rows, over one strip of columns.
template <class Lane, int kHeads, int kVectors>
static inline __attribute__((always_inline)) void pool_strip(const typename Lane::Real* const* rows,
                                                             int64_t tokens,
                                                             const typename Lane::Real* tile,
                                                             int64_t columns, int64_t at, LinesAhead& ahead,
                                                             typename Lane::Real* pooled) {
  using Vector = typename Lane::Vector;
  Vector sum[kHeads][kVectors];
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] =
      Lane::get(pooled + j * columns + at + v * Lane::kWidth);
  const auto add_token = [&](int64_t t) __attribute__((always_inline)) {
    if constexpr (kHeads < kVectors) {
      Vector weight[kHeads];
      EC_UNROLL for (int j = 0; j < kHeads; ++j) weight[j] = Lane::all(tile[j * kBlockTokens + t]);
      EC_UNROLL for (int v = 0; v < kVectors; ++v) {
        const typename Lane::Real* from = rows[t] + at + v * Lane::kWidth;
        const Vector numbers = kHeads == 1 ? Lane::get(from) : Lane::get_once(from);
        EC_UNROLL for (int j = 0; j < kHeads; ++j) sum[j][v] = Lane::step(weight[j], numbers, sum[j][v]);
      }
    } else {
      Vector numbers[kVectors];
      EC_UNROLL for (int v = 0; v < kVectors; ++v) numbers[v] = Lane::get(rows[t] + at + v * Lane::kWidth);
      EC_UNROLL for (int j = 0; j < kHeads; ++j) {
        const Vector weight = Lane::all(tile[j * kBlockTokens + t]);
        EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] = Lane::step(weight, numbers[v], sum[j][v]);
      }
    }
  };
  int64_t t = 0;
  for (; t < tokens && !ahead.done(); ++t) {
    ahead.step();
    add_token(t);
  }
  for (; t < tokens; ++t) add_token(t);
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v)
      Lane::put(pooled + j * columns + at + v * Lane::kWidth, sum[j][v]);
}

template <class Lane, int kHeads>
static void pool_heads(const typename Lane::Real* const* rows, int64_t tokens,
                       const typename Lane::Real* tile, int64_t columns, int64_t at, int64_t end,
                       LinesAhead& ahead, typename Lane::Real* pooled) {
  constexpr int kWide = kTileRows * kTileVectors / kHeads < 12 ? kTileRows * kTileVectors / kHeads : 12;
  for (; at + kWide * Lane::kWidth <= end; at += kWide * Lane::kWidth)
    pool_strip<Lane, kHeads, kWide>(rows, tokens, tile, columns, at, ahead, pooled);
  for (; at < end; at += Lane::kWidth)
    pool_strip<Lane, kHeads, 1>(rows, tokens, tile, columns, at, ahead, pooled);
}

// One head: tokens in groups, each along all columns, as memory likes it.
constexpr int kTogether = kTokenPadding;

template <class Lane>
static void pool_one(const typename Lane::Real* const* rows, int64_t tokens,
                     const typename Lane::Real* tile, int64_t columns, const RowsAhead& ahead,
                     typename Lane::Real* pooled) {
  using Vector = typename Lane::Vector;
  constexpr int kLine = 64 / sizeof(typename Lane::Real);
  for (int64_t t = 0; t < tokens; t += kTogether) {
    const typename Lane::Real* row[kTogether];
    const typename Lane::Real* to_come[kTogether];
    Vector weight[kTogether];
    EC_UNROLL for (int i = 0; i < kTogether; ++i) {
      row[i] = rows[t + i];
      to_come[i] = row_ahead(ahead, t + i, row[i]);
      weight[i] = t + i < tokens ? Lane::all(tile[t + i]) : Lane::none();
    }
    for (int64_t c = 0; c < columns; c += Lane::kWidth) {
      if (c % kLine == 0) EC_UNROLL for (int i = 0; i < kTogether; ++i) fetch(to_come[i] + c);
      Vector even = Lane::get(pooled + c), odd = Lane::none();
      EC_UNROLL for (int i = 0; i < kTogether; i += 2) {
        even = Lane::step(weight[i], Lane::get(row[i] + c), even);
        odd = Lane::step(weight[i + 1], Lane::get(row[i + 1] + c), odd);
      }
      Lane::put(pooled + c, even + odd);
    }
  }
}

constexpr int kStripVectors = 12;  // columns that stay in the first cache while all heads pass over them

template <class Lane>
static void pool(const typename Lane::Real* const* rows, int64_t tokens, const typename Lane::Real* tile,
                 int64_t heads, int64_t columns, const RowsAhead& ahead, typename Lane::Real* pooled) {
  if (heads == 1) return pool_one<Lane>(rows, tokens, tile, columns, ahead, pooled);
  const int64_t products = tokens * heads * (columns / Lane::kWidth);
  LinesAhead lines(ahead, columns * static_cast<int64_t>(sizeof(typename Lane::Real)),
                   products / (kTileRows * kTileVectors));
  for (int64_t at = 0; at < columns; at += kStripVectors * Lane::kWidth) {
    const int64_t left = columns - at;
    const int64_t end = at + (left < kStripVectors * Lane::kWidth ? left : kStripVectors * Lane::kWidth);
    int64_t j = 0;
    for (; j + kTileRows <= heads; j += kTileRows)
      pool_heads<Lane, kTileRows>(rows, tokens, tile + j * kBlockTokens, columns, at, end, lines,
                                  pooled + j * columns);
    for (; j + 4 <= heads; j += 4)
      pool_heads<Lane, 4>(rows, tokens, tile + j * kBlockTokens, columns, at, end, lines,
                          pooled + j * columns);
    for (; j + 2 <= heads; j += 2)
      pool_heads<Lane, 2>(rows, tokens, tile + j * kBlockTokens, columns, at, end, lines,
                          pooled + j * columns);
    for (; j < heads; ++j)
      pool_heads<Lane, 1>(rows, tokens, tile + j * kBlockTokens, columns, at, end, lines,
                          pooled + j * columns);
  }
}

// ---- spread ---------------------------------------------------------------------------------------

template <class Lane, int kVectors>
static inline __attribute__((always_inline)) void spread_strip(const typename Lane::Real* tile,
                                                               const typename Lane::Real* factor,
                                                               int64_t heads, int64_t columns, int64_t at,
                                                               bool streamed, bool accumulate,
                                                               typename Lane::Real* const* to) {
  using Vector = typename Lane::Vector;
  Vector sum[kTileRows][kVectors];
  EC_UNROLL for (int t = 0; t < kTileRows; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] =
      Lane::none();
  const typename Lane::Real* row = factor + at;
  for (int64_t j = 0; j < heads; ++j, tile += kBlockTokens, row += columns) {
    Vector numbers[kVectors];
    EC_UNROLL for (int v = 0; v < kVectors; ++v) numbers[v] = Lane::get(row + v * Lane::kWidth);
    EC_UNROLL for (int t = 0; t < kTileRows; ++t) {
      const Vector weight = Lane::all(tile[t]);
      EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] = Lane::step(weight, numbers[v], sum[t][v]);
    }
  }
  if (accumulate) {
    EC_UNROLL for (int t = 0; t < kTileRows; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v) {
      typename Lane::Real* p = to[t] + at + v * Lane::kWidth;
      Lane::put(p, Lane::get(p) + sum[t][v]);
    }
  } else if (streamed) {
    EC_UNROLL for (int t = 0; t < kTileRows; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v)
        Lane::put_streamed(to[t] + at + v * Lane::kWidth, sum[t][v]);
  } else {
    EC_UNROLL for (int t = 0; t < kTileRows; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v)
        Lane::put(to[t] + at + v * Lane::kWidth, sum[t][v]);
  }
}

template <class Lane>
static void spread(const typename Lane::Real* tile, int64_t tokens, const typename Lane::Real* factor,
                   int64_t heads, int64_t columns, bool streamed, bool accumulate,
                   typename Lane::Real* const* to) {
  int64_t at = 0;
  for (; at + kTileVectors * Lane::kWidth <= columns; at += kTileVectors * Lane::kWidth)
    for (int64_t t = 0; t < tokens; t += kTileRows)
      spread_strip<Lane, kTileVectors>(tile + t, factor, heads, columns, at, streamed, accumulate, to + t);
  for (; at < columns; at += Lane::kWidth)
    for (int64_t t = 0; t < tokens; t += kTileRows)
      spread_strip<Lane, 1>(tile + t, factor, heads, columns, at, streamed, accumulate, to + t);
  if (streamed) fence();
}

// ---- conversion -----------------------------------------------------------------------------------

template <void (*Store)(uint16_t*, VF)>
static inline void round_row(const float* from, int64_t columns, uint16_t* to) {
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) Store(to + i, load(from + i));
  if (i == columns) return;
  float last[kLanes] = {};
  uint16_t rounded[kLanes];
  for (int64_t k = i; k < columns; ++k) last[k - i] = from[k];
  Store(rounded, load(last));
  for (int64_t k = i; k < columns; ++k) to[k] = rounded[k - i];
}

static void to_half(const float* from, int64_t columns, uint16_t* to) {
  round_row<store_half>(from, columns, to);
}
static void to_bfloat(const float* from, int64_t columns, uint16_t* to) {
  round_row<store_bfloat>(from, columns, to);
}

static const AttentionKernels kTable = {kLanes,
                                        {scores<Floats>, pool<Floats>, spread<Floats>},
                                        {scores<Doubles>, pool<Doubles>, spread<Doubles>},
                                        {to_half, to_bfloat}};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(AttentionKernels, attention)
