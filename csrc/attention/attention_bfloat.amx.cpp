// SPDX-License-Identifier: Apache-2.0
// Products of bf16 tokens by tiles; see kernels.h for what each does. Tiles multiply faster than memory
// delivers, so that what counts is how lines get into them: scores take rows of tokens as they lie, pool
// and spread pair them up (of weights, heads) in a buffer that stays in the first cache.
#include "attention/kernels.h"

#include "attention/bfloat_lines.h"
#include "core/isa_table.h"
#include "simd/avx512amx.h"

namespace ec {
namespace EC_ISA {

constexpr int kDepth = 32;                             // numbers of a line that are multiplied
constexpr int kColumns = 2 * kTileLines;               // of a strip: two tiles of sums
constexpr int kTileNumbers = kTileLines * kTileLines;  // of 32 bits

static inline int64_t tiles_of(int64_t lines) { return (lines + kTileLines - 1) / kTileLines; }

// ---- scores ---------------------------------------------------------------------------------------

static int64_t arranged_numbers(int64_t heads, int64_t columns) {
  return tiles_of(heads) * kTileLines * columns;
}

// Tiles of 16 heads and 32 columns, those of the same heads one behind the other.
static void arrange(const uint16_t* rows, int64_t heads, int64_t columns, int64_t stride, uint16_t* to) {
  for (int64_t j = 0; j < heads; j += kTileLines)
    for (int64_t k = 0; k < columns; k += kDepth, to += 2 * kTileNumbers)
      transpose_tile(rows + j * stride + k, stride / 2, heads - j, to, kTileLines, kTileLines);
}

// 16 tokens as lines: where they lie, if that is evenly, or copied.
constexpr int64_t kCopiedColumns = 512;

struct TokenLines {
  const uint16_t* at;
  int64_t stride;

  // Columns [first, first + count) of rows[0 .. tokens); zeros for the tokens that are missing of 16.
  void take(const uint16_t* const* rows, int64_t tokens, int64_t first, int64_t count, uint16_t* copied) {
    if (tokens >= kTileLines && evenly(rows)) {
      at = rows[0] + first;
      stride = rows[1] - rows[0];
      return;
    }
    at = copied;
    stride = count;
    for (int64_t t = 0; t < kTileLines; ++t, copied += count)
      for (int64_t k = 0; k < count; k += kDepth)
        store_int(copied + k, t < tokens ? load_int(rows[t] + first + k) : zero_int());
  }

 private:
  static bool evenly(const uint16_t* const* rows) {
    bool even = true;
    for (int t = 2; t < kTileLines; ++t) even &= rows[t] - rows[t - 1] == rows[1] - rows[0];
    return even;
  }
};

// A tile of sums, a token a line, to those of its heads.
template <int kTile>
static inline void put_scores(int64_t heads, float* tile) {
  alignas(64) float sums[kTileNumbers];
  store_tile<kTile>(sums, kTileBytes);
  transpose_tile(sums, kTileLines, kTileLines, tile, kBlockTokens, heads);
}

// Scores of kTokens tiles of tokens and kHeads tiles of heads: sums in tiles 0 to 3, tokens in 4 and 5.
template <int kTokens, int kHeads>
static void score_tiles(const uint16_t* const* rows, int64_t tokens, const uint16_t* factor, int64_t heads,
                        int64_t columns, LinesAhead& ahead, float* tile) {
  alignas(64) uint16_t copied[kTokens][kTileLines * kCopiedColumns];
  clear_tile<0>();
  clear_tile<1>();
  clear_tile<2>();
  clear_tile<3>();
  for (int64_t first = 0; first < columns; first += kCopiedColumns) {
    const int64_t count = columns - first < kCopiedColumns ? columns - first : kCopiedColumns;
    TokenLines lines[kTokens];
    for (int i = 0; i < kTokens; ++i)
      lines[i].take(rows + i * kTileLines, tokens - i * kTileLines, first, count, copied[i]);
    const uint16_t* heads_at = factor + first * kTileLines;
    do_steps(count / kDepth, ahead, [&](int64_t k) __attribute__((always_inline)) {
      load_tile<6>(heads_at + k * 2 * kTileNumbers, kTileBytes);
      if constexpr (kHeads > 1)
        load_tile<7>(heads_at + columns * kTileLines + k * 2 * kTileNumbers, kTileBytes);
      load_tile<4>(lines[0].at + k * kDepth, 2 * lines[0].stride);
      multiply_tiles<0, 4, 6>();
      if constexpr (kHeads > 1) multiply_tiles<1, 4, 7>();
      if constexpr (kTokens > 1) {
        load_tile<5>(lines[1].at + k * kDepth, 2 * lines[1].stride);
        multiply_tiles<2, 5, 6>();
        if constexpr (kHeads > 1) multiply_tiles<3, 5, 7>();
      }
    });
  }
  constexpr int kNextHeads = kTileLines * kBlockTokens;
  put_scores<0>(heads, tile);
  if constexpr (kHeads > 1) put_scores<1>(heads - kTileLines, tile + kNextHeads);
  if constexpr (kTokens > 1) {
    put_scores<2>(heads, tile + kTileLines);
    if constexpr (kHeads > 1) put_scores<3>(heads - kTileLines, tile + kNextHeads + kTileLines);
  }
}

static void scores(const uint16_t* const* rows, int64_t tokens, const uint16_t* factor, int64_t heads,
                   int64_t columns, const RowsAhead& ahead, float* tile) {
  shape_tiles(TileShapes());
  const int64_t passes = (tiles_of(tokens) + 1) / 2 * ((tiles_of(heads) + 1) / 2);
  LinesAhead lines(ahead, columns * static_cast<int64_t>(sizeof(uint16_t)), passes * (columns / kDepth));
  for (int64_t t = 0; t < tokens; t += 2 * kTileLines) {
    for (int64_t j = 0; j < heads; j += 2 * kTileLines) {
      const auto pass = tokens - t > kTileLines
                            ? heads - j > kTileLines ? score_tiles<2, 2> : score_tiles<2, 1>
                        : heads - j > kTileLines ? score_tiles<1, 2>
                                                 : score_tiles<1, 1>;
      pass(rows + t, tokens - t, factor + j * columns, heads - j, columns, lines,
           tile + j * kBlockTokens + t);
    }
  }
  release_tiles();
}

// ---- pool -----------------------------------------------------------------------------------------

// Weights of 16 heads and a block of tokens as lines: where they lie, or copied where some are missing.
struct WeightLines {
  const uint16_t* at;

  WeightLines(const uint16_t* rounded, int64_t heads, int64_t least, int64_t tokens, uint16_t* copied)
      : at(rounded) {
    if (heads >= least && tokens == kBlockTokens) return;
    at = copied;
    for (int64_t j = 0; j < kTileLines; ++j, rounded += kBlockTokens, copied += kBlockTokens)
      for (int64_t t = 0; t < kBlockTokens; t += kPairs)
        store_int(copied + t, load_first(rounded + t, j < heads ? tokens - t : 0));
  }
};

// Columns [at, at + kColumns) of a block as pairs of tokens, zeros for those that are missing:
// pairs[half of the columns][pair of tokens][column].
using PairedTokens = uint32_t[2][kBlockTokens / 2][kTileLines];

static inline __attribute__((always_inline)) void pair_tokens(const uint16_t* const* rows, int64_t tokens,
                                                              int64_t at, LinesAhead& ahead,
                                                              PairedTokens& pairs) {
  const int64_t count = (tokens + 1) / 2;
  do_steps(count, ahead, [&](int64_t i) __attribute__((always_inline)) {
    VI low, high;
    interleave_bfloat(load_int(rows[2 * i] + at), load_int(rows[2 * i + 1] + at), &low, &high);
    store_int(pairs[0][i], low);
    store_int(pairs[1][i], high);
  });
  for (int64_t i = count; i < kBlockTokens / 2; ++i) {
    store_int(pairs[0][i], zero_int());
    store_int(pairs[1][i], zero_int());
  }
}

// Of fewer heads than lines, the sums and weights have so many lines; of more, the last heads go through
// buffers that have all.
static void pool(const uint16_t* const* rows, int64_t tokens, const uint16_t* rounded, int64_t heads,
                 int64_t columns, const RowsAhead& ahead, float* pooled) {
  if (heads == 1) return pool_one(rows, tokens, rounded, columns, ahead, pooled);
  const int64_t least = heads < kTileLines ? heads : kTileLines;
  TileShapes shapes;
  for (int i = 0; i < 4; ++i) shapes.set(i, least);
  shape_tiles(shapes);
  LinesAhead lines(ahead, columns * static_cast<int64_t>(sizeof(uint16_t)),
                   columns / kColumns * ((tokens + 1) / 2));
  alignas(64) PairedTokens pairs;
  alignas(64) uint16_t copied[kTileLines * kBlockTokens];
  alignas(64) float sums[kTileLines][kColumns];
  for (int64_t at = 0; at < columns; at += kColumns) {
    pair_tokens(rows, tokens, at, lines, pairs);
    load_tile<4>(pairs[0][0], kTileBytes);
    load_tile<5>(pairs[1][0], kTileBytes);
    load_tile<6>(pairs[0][kTileLines], kTileBytes);
    load_tile<7>(pairs[1][kTileLines], kTileBytes);
    for (int64_t j = 0; j < heads; j += kTileLines) {
      const WeightLines weights(rounded + j * kBlockTokens, heads - j, least, tokens, copied);
      float* to = pooled + j * columns + at;
      const bool through = heads - j < least;
      const int64_t stride = through ? kColumns : columns;
      if (through) {
        for (int64_t i = 0; i < heads - j; ++i) {
          store(sums[i], load(to + i * columns));
          store(sums[i] + kLanes, load(to + i * columns + kLanes));
        }
      }
      float* from = through ? sums[0] : to;
      constexpr int64_t kFloat = sizeof(float), kLine = kBlockTokens * sizeof(uint16_t);
      load_tile<0>(from, stride * kFloat);
      load_tile<1>(from + kTileLines, stride * kFloat);
      load_tile<2>(weights.at, kLine);
      multiply_tiles<0, 2, 4>();
      multiply_tiles<1, 2, 5>();
      if (tokens > kDepth) {
        load_tile<3>(weights.at + kDepth, kLine);
        multiply_tiles<0, 3, 6>();
        multiply_tiles<1, 3, 7>();
      }
      store_tile<0>(from, stride * kFloat);
      store_tile<1>(from + kTileLines, stride * kFloat);
      if (through) {
        for (int64_t i = 0; i < heads - j; ++i) {
          store(to + i * columns, load(sums[i]));
          store(to + i * columns + kLanes, load(sums[i] + kLanes));
        }
      }
    }
  }
  release_tiles();
}

// ---- spread ---------------------------------------------------------------------------------------

constexpr int kMostDepths = 8;  // tiles of 16 pairs of heads whose weights are turned once

// Weights as lines of tokens: lines[depth][token][pair].
using SpreadLines = uint32_t[kMostDepths][kBlockTokens][kTileLines];

// to[t] = sums[t], or += when accumulate.
static inline void put_rows(const float (*sums)[kColumns], int64_t tokens, int64_t at, bool streamed,
                            bool accumulate, uint16_t* const* to) {
  for (int64_t t = 0; t < tokens; ++t) {
    uint16_t* row = to[t] + at;
    VF low = load(sums[t]), high = load(sums[t] + kLanes);
    if (accumulate) {
      low = add(low, load_bfloat(row));
      high = add(high, load_bfloat(row + kLanes));
    }
    const VI rounded = round_bfloat_pairs(low, high);
    if (streamed)
      stream_int(row, rounded);
    else
      store_int(row, rounded);
  }
}

// Of fewer pairs than lines, the factor has so many lines; of more, the last ones go through a buffer, as
// its rows end there.
static void spread(const uint32_t* tile, int64_t tokens, const uint32_t* factor, int64_t pairs,
                   int64_t columns, bool streamed, bool accumulate, uint16_t* const* to) {
  const bool few = pairs > 0 && pairs < kTileLines;
  TileShapes shapes;
  for (int i = 0; few && i < 2; ++i) {
    shapes.set(4 + i, kTileLines, pairs);
    shapes.set(6 + i, pairs);
  }
  shape_tiles(shapes);
  const int64_t depths = tiles_of(pairs), whole = few ? 1 : pairs / kTileLines;
  const int64_t stride = factor_stride<uint32_t>(columns);
  constexpr int64_t kNumber = sizeof(uint32_t);
  alignas(64) SpreadLines lines;
  alignas(64) uint32_t turned[kTileNumbers];
  const auto turn = [&](int64_t d, int64_t t, uint32_t* weights) {
    transpose_tile(tile + d * kTileLines * kBlockTokens + t, kBlockTokens, pairs - d * kTileLines, weights,
                   kTileLines, kTileLines);
    return weights;
  };
  for (int64_t d = 0; d < depths && d < kMostDepths; ++d)
    for (int64_t t = 0; t < kBlockTokens; t += kTileLines) turn(d, t, lines[d][t]);
  alignas(64) uint32_t rest[kTileLines][kColumns] = {};
  alignas(64) float sums[2 * kTileLines][kColumns];
  for (int64_t at = 0; at < columns; at += kColumns) {
    for (int64_t i = 0; i < pairs - whole * kTileLines; ++i) {
      const uint32_t* from = factor + (whole * kTileLines + i) * stride + at;
      store_int(rest[i], load_int(from));
      store_int(rest[i] + kLanes, load_int(from + kLanes));
    }
    for (int64_t t = 0; t < tokens; t += 2 * kTileLines) {
      clear_tile<0>();
      clear_tile<1>();
      clear_tile<2>();
      clear_tile<3>();
      for (int64_t d = 0; d < depths; ++d) {
        const uint32_t* from = d < whole ? factor + d * kTileLines * stride + at : rest[0];
        const int64_t step = (d < whole ? stride : kColumns) * kNumber;
        load_tile<6>(from, step);
        load_tile<7>(from + kTileLines, step);
        load_tile<4>(d < kMostDepths ? lines[d][t] : turn(d, t, turned), kTileBytes);
        multiply_tiles<0, 4, 6>();
        multiply_tiles<1, 4, 7>();
        load_tile<5>(d < kMostDepths ? lines[d][t + kTileLines] : turn(d, t + kTileLines, turned),
                     kTileBytes);
        multiply_tiles<2, 5, 6>();
        multiply_tiles<3, 5, 7>();
      }
      constexpr int64_t kSums = kColumns * kNumber;
      store_tile<0>(sums[0], kSums);
      store_tile<1>(sums[0] + kTileLines, kSums);
      store_tile<2>(sums[kTileLines], kSums);
      store_tile<3>(sums[kTileLines] + kTileLines, kSums);
      put_rows(sums, tokens - t < 2 * kTileLines ? tokens - t : 2 * kTileLines, at, streamed, accumulate,
               to + t);
    }
  }
  release_tiles();
  if (streamed) fence();
}

static const BFloatKernels kTable = {
    true, {scores, pool, spread, arranged_numbers, arrange}, round_weights, pair_rows, true};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(BFloatKernels, attention_bfloat)
