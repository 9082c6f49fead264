// SPDX-License-Identifier: Apache-2.0
// Products of tokens with the factor, the weights and the gradients; see kernels.h for what each does.
//
// All three walk the rows as they lie in memory: no packing, so that a token is read once. Pool and spread
// hold a strip of columns of a few heads or tokens and broadcast the tile.
#include <type_traits>

#include "attention/kernels.h"

#include EC_ISA_HEADER
#include "attention/panel_scores.h"
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

// Where the strip of a token begins: in its row, or among the strips that are kept one behind the other.
template <class Real>
struct InRows {
  const Real* const* rows;
  int64_t at;
  inline const Real* strip(int64_t t) const { return rows[t] + at; }
};
template <class Real, int kNumbers>
struct InStrips {
  const Real* strips;
  inline const Real* strip(int64_t t) const { return strips + t * kNumbers; }
};

// pooled[kHeads][kVectors] += tile' rows, over one strip of columns. keep (may be null): where the strips
// of all tokens go, one behind the other.
template <class Lane, int kHeads, int kVectors, bool kKeep, class From>
static inline __attribute__((always_inline)) void pool_strip(const From& from, int64_t tokens,
                                                             const typename Lane::Real* tile,
                                                             int64_t columns, LinesAhead& ahead,
                                                             typename Lane::Real* pooled,
                                                             typename Lane::Real* keep) {
  using Vector = typename Lane::Vector;
  Vector sum[kHeads][kVectors];
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] =
      Lane::get(pooled + j * columns + v * Lane::kWidth);
  const auto add_token = [&](int64_t t) __attribute__((always_inline)) {
    const typename Lane::Real* strip = from.strip(t);
    if constexpr (kHeads < kVectors) {
      Vector weight[kHeads];
      EC_UNROLL for (int j = 0; j < kHeads; ++j) weight[j] = Lane::all(tile[j * kBlockTokens + t]);
      EC_UNROLL for (int v = 0; v < kVectors; ++v) {
        const typename Lane::Real* at = strip + v * Lane::kWidth;
        const Vector numbers = kHeads == 1 ? Lane::get(at) : Lane::get_once(at);
        EC_UNROLL for (int j = 0; j < kHeads; ++j) sum[j][v] = Lane::step(weight[j], numbers, sum[j][v]);
      }
    } else {
      Vector numbers[kVectors];
      EC_UNROLL for (int v = 0; v < kVectors; ++v) numbers[v] = Lane::get_once(strip + v * Lane::kWidth);
      if constexpr (kKeep)
        EC_UNROLL for (int v = 0; v < kVectors; ++v)
            Lane::put(keep + (t * kVectors + v) * Lane::kWidth, numbers[v]);
      EC_UNROLL for (int j = 0; j < kHeads; ++j) {
        const Vector weight = Lane::all(tile[j * kBlockTokens + t]);
        EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[j][v] = Lane::step(weight, numbers[v], sum[j][v]);
      }
    }
  };
  int64_t t = 0;
  ahead.add_steps(tokens);
  for (LineRun run = ahead.take(tokens); run.steps > 0; run = ahead.take(tokens - t)) {
    for (int64_t step = 0; step < run.steps; ++step, ++t) {
      fetch_lines(run, step);
      add_token(t);
    }
  }
  for (; t < tokens; ++t) add_token(t);
  EC_UNROLL for (int j = 0; j < kHeads; ++j) EC_UNROLL for (int v = 0; v < kVectors; ++v)
      Lane::put(pooled + j * columns + v * Lane::kWidth, sum[j][v]);
}

// A few heads, over all columns.
template <class Lane, int kHeads>
static void pool_few(const typename Lane::Real* const* rows, int64_t tokens,
                     const typename Lane::Real* tile, int64_t columns, LinesAhead& ahead,
                     typename Lane::Real* pooled) {
  using Real = typename Lane::Real;
  constexpr int kWide = kTileRows * kTileVectors / kHeads < 12 ? kTileRows * kTileVectors / kHeads : 12;
  int64_t at = 0;
  for (; at + kWide * Lane::kWidth <= columns; at += kWide * Lane::kWidth)
    pool_strip<Lane, kHeads, kWide, false>(InRows<Real>{rows, at}, tokens, tile, columns, ahead,
                                           pooled + at, nullptr);
  for (; at < columns; at += Lane::kWidth)
    pool_strip<Lane, kHeads, 1, false>(InRows<Real>{rows, at}, tokens, tile, columns, ahead, pooled + at,
                                       nullptr);
}

// All heads, over one strip of columns. The first heads keep the strips for the others: in rows that lie
// a power of two apart, a strip of all tokens does not fit into the places that the cache has for them.
template <class Lane, int kVectors>
static void pool_many(const typename Lane::Real* const* rows, int64_t tokens,
                      const typename Lane::Real* tile, int64_t heads, int64_t columns, int64_t at,
                      LinesAhead& ahead, typename Lane::Real* pooled) {
  using Real = typename Lane::Real;
  constexpr int kNumbers = kVectors * Lane::kWidth;
  alignas(64) Real strips[kBlockTokens * kNumbers];
  pooled += at;
  pool_strip<Lane, kTileRows, kVectors, true>(InRows<Real>{rows, at}, tokens, tile, columns, ahead, pooled,
                                              strips);
  const InStrips<Real, kNumbers> kept{strips};
  int64_t j = kTileRows;
  const auto pool_next = [&](auto count) __attribute__((always_inline)) {
    constexpr int kHeads = decltype(count)::value;
    for (; j + kHeads <= heads; j += kHeads)
      pool_strip<Lane, kHeads, kVectors, false>(kept, tokens, tile + j * kBlockTokens, columns, ahead,
                                                pooled + j * columns, nullptr);
  };
  pool_next(std::integral_constant<int, kTileRows>());
  if constexpr (kTileRows > 4) pool_next(std::integral_constant<int, 4>());
  pool_next(std::integral_constant<int, 2>());
  pool_next(std::integral_constant<int, 1>());
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

template <class Lane>
static void pool(const typename Lane::Real* const* rows, int64_t tokens, const typename Lane::Real* tile,
                 int64_t heads, int64_t columns, const RowsAhead& ahead, typename Lane::Real* pooled) {
  if (heads == 1) return pool_one<Lane>(rows, tokens, tile, columns, ahead, pooled);
  const int64_t products = tokens * heads * (columns / Lane::kWidth);
  LinesAhead lines(ahead, columns * static_cast<int64_t>(sizeof(typename Lane::Real)),
                   products / (kTileRows * kTileVectors));
  if (heads >= kTileRows) {
    int64_t at = 0;
    for (; at + kTileVectors * Lane::kWidth <= columns; at += kTileVectors * Lane::kWidth)
      pool_many<Lane, kTileVectors>(rows, tokens, tile, heads, columns, at, lines, pooled);
    for (; at < columns; at += Lane::kWidth)
      pool_many<Lane, 1>(rows, tokens, tile, heads, columns, at, lines, pooled);
    return;
  }
  const auto pool_next = [&](auto count) __attribute__((always_inline)) {
    constexpr int kHeads = decltype(count)::value;
    for (; heads >= kHeads; heads -= kHeads, tile += kHeads * kBlockTokens, pooled += kHeads * columns)
      pool_few<Lane, kHeads>(rows, tokens, tile, columns, lines, pooled);
  };
  if constexpr (kTileRows > 4) pool_next(std::integral_constant<int, 4>());
  pool_next(std::integral_constant<int, 2>());
  pool_next(std::integral_constant<int, 1>());
}

// ---- spread ---------------------------------------------------------------------------------------

// Of few registers, whole lines of memory (of 8 lanes): a line that is streamed in parts is written twice.
constexpr int kSpreadTokens = kFewRegisters ? 6 : kTileRows;
constexpr int kSpreadVectors = kFewRegisters ? 2 : kTileVectors;

template <class Lane, int kTokens, int kVectors>
static inline __attribute__((always_inline)) void spread_strip(const typename Lane::Real* tile,
                                                               const typename Lane::Real* factor,
                                                               int64_t heads, int64_t columns, int64_t at,
                                                               bool streamed, bool accumulate,
                                                               typename Lane::Real* const* to) {
  using Vector = typename Lane::Vector;
  Vector sum[kTokens][kVectors];
  EC_UNROLL for (int t = 0; t < kTokens; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] =
      Lane::none();
  const typename Lane::Real* row = factor + at;
  const int64_t stride = factor_stride<typename Lane::Real>(columns);
  for (int64_t j = 0; j < heads; ++j, tile += kBlockTokens, row += stride) {
    Vector numbers[kVectors];
    EC_UNROLL for (int v = 0; v < kVectors; ++v) numbers[v] = Lane::get_once(row + v * Lane::kWidth);
    EC_UNROLL for (int t = 0; t < kTokens; ++t) {
      const Vector weight = Lane::all(tile[t]);
      EC_UNROLL for (int v = 0; v < kVectors; ++v) sum[t][v] = Lane::step(weight, numbers[v], sum[t][v]);
    }
  }
  if (accumulate) {
    EC_UNROLL for (int t = 0; t < kTokens; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v) {
      typename Lane::Real* p = to[t] + at + v * Lane::kWidth;
      Lane::put(p, Lane::get(p) + sum[t][v]);
    }
  } else if (streamed) {
    EC_UNROLL for (int t = 0; t < kTokens; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v)
        Lane::put_streamed(to[t] + at + v * Lane::kWidth, sum[t][v]);
  } else {
    EC_UNROLL for (int t = 0; t < kTokens; ++t) EC_UNROLL for (int v = 0; v < kVectors; ++v)
        Lane::put(to[t] + at + v * Lane::kWidth, sum[t][v]);
  }
}

template <class Lane, int kVectors>
static void spread_tokens(const typename Lane::Real* tile, int64_t tokens,
                          const typename Lane::Real* factor, int64_t heads, int64_t columns, int64_t at,
                          bool streamed, bool accumulate, typename Lane::Real* const* to) {
  const auto spread_few = [&](int64_t t, auto count) __attribute__((always_inline)) {
    spread_strip<Lane, decltype(count)::value, kVectors>(tile + t, factor, heads, columns, at, streamed,
                                                         accumulate, to + t);
  };
  int64_t t = 0;
  for (; t + kSpreadTokens <= tokens; t += kSpreadTokens)
    spread_few(t, std::integral_constant<int, kSpreadTokens>());
  const int64_t left = tokens - t;
  if (left > 4)
    spread_few(t, std::integral_constant<int, kSpreadTokens>());
  else if (left > 2)
    spread_few(t, std::integral_constant<int, 4>());
  else if (left > 0)
    spread_few(t, std::integral_constant<int, 2>());
}

template <class Lane>
static void spread(const typename Lane::Real* tile, int64_t tokens, const typename Lane::Real* factor,
                   int64_t heads, int64_t columns, bool streamed, bool accumulate,
                   typename Lane::Real* const* to) {
  int64_t at = 0;
  for (; at + kSpreadVectors * Lane::kWidth <= columns; at += kSpreadVectors * Lane::kWidth)
    spread_tokens<Lane, kSpreadVectors>(tile, tokens, factor, heads, columns, at, streamed, accumulate, to);
  for (; at < columns; at += Lane::kWidth)
    spread_tokens<Lane, 1>(tile, tokens, factor, heads, columns, at, streamed, accumulate, to);
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

// Of many heads by panels, else along the columns.
static void scores_of_floats(const float* const* rows, int64_t tokens, const float* factor, int64_t heads,
                             int64_t columns, const RowsAhead& ahead, float* tile) {
  const auto run = fills_panels(heads) ? scores_of_panels : scores<Floats>;
  run(rows, tokens, factor, heads, columns, ahead, tile);
}

static const AttentionKernels kTable = {
    kLanes,
    {scores_of_floats, pool<Floats>, spread<Floats>, panel_numbers, fill_panels},
    {scores<Doubles>, pool<Doubles>, spread<Doubles>, nullptr, nullptr},
    {to_half, to_bfloat}};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(AttentionKernels, attention)
