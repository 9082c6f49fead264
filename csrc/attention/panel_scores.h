// SPDX-License-Identifier: Apache-2.0
// The scores of many heads of a block of tokens; included by kernels only. The lanes are heads, and a panel
// holds the numbers of two vectors of them for each column: fewer loads for a product than along the
// columns (token_scores.h), and no lanes to add up in the end.
#pragma once

#include "attention/rows_ahead.h"
#include "attention/token_scores.h"
#include "simd/transpose.h"

namespace ec {
namespace EC_ISA {

constexpr int kPanelVectors = 2;
constexpr int kPanelHeads = kPanelVectors * kLanes;
constexpr int kPanelTokens = kFewRegisters ? 6 : 12;
// Of tiles that are not full: the small one where the row list, which is padded, ends within the other.
constexpr int kRestTokens = 4, kLeastTokens = 2;
static_assert(kPanelTokens % kLeastTokens == 0 && kRestTokens % kLeastTokens == 0 &&
                  kTokenPadding % kLeastTokens == 0,
              "tiles end where row lists do");
// Numerics: products are summed up in float32 over so many columns, and those sums one after the other.
constexpr int64_t kPanelColumns = 256;

// Whether at most a fifth of the panels is empty.
static bool fills_panels(int64_t heads) {
  const int64_t room = (heads + kPanelHeads - 1) / kPanelHeads * kPanelHeads;
  return 5 * heads >= 4 * room;
}

static int64_t panel_numbers(int64_t heads, int64_t columns) {
  return fills_panels(heads) ? (heads + kPanelHeads - 1) / kPanelHeads * kPanelHeads * columns : 0;
}

// Rows of a factor, whose columns are a multiple of the lanes, to panels [group of heads][column][head].
static void fill_panels(const float* rows, int64_t heads, int64_t columns, int64_t stride, float* to) {
  for (int64_t first = 0; first < heads; first += kPanelHeads, to += kPanelHeads * columns)
    for (int64_t j = 0; j < kPanelHeads; j += kLanes)
      for (int64_t k = 0; k < columns; k += kLanes) {
        VF a[kLanes];
        EC_UNROLL for (int i = 0; i < kLanes; ++i) a[i] =
            first + j + i < heads ? load(rows + (first + j + i) * stride + k) : zero();
        transpose(a);
        EC_UNROLL for (int i = 0; i < kLanes; ++i) store(to + (k + i) * kPanelHeads + j, a[i]);
      }
}

// sums[t][kPanelHeads] += rows[t] . panel over columns [first, last).
template <int kTokens>
static inline __attribute__((always_inline)) void score_panel(const float* const* rows, const float* panel,
                                                              int64_t first, int64_t last,
                                                              LinesAhead& ahead, float* sums) {
  const float* row[kTokens];
  EC_UNROLL for (int t = 0; t < kTokens; ++t) row[t] = rows[t];
  VF sum[kTokens][kPanelVectors];
  EC_UNROLL for (int t = 0; t < kTokens; ++t) EC_UNROLL for (int v = 0; v < kPanelVectors; ++v) sum[t][v] =
      zero();
  do_steps(last - first, ahead, [&](int64_t i) __attribute__((always_inline)) {
    const int64_t k = first + i;
    VF heads[kPanelVectors];
    EC_UNROLL for (int v = 0; v < kPanelVectors; ++v) heads[v] =
        held(load(panel + k * kPanelHeads + v * kLanes));
    EC_UNROLL for (int t = 0; t < kTokens; ++t) {
      const VF number = set1(row[t][k]);
      EC_UNROLL for (int v = 0; v < kPanelVectors; ++v) sum[t][v] = fma(number, heads[v], sum[t][v]);
    }
  });
  EC_UNROLL for (int t = 0; t < kTokens; ++t) EC_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
    float* to = sums + t * kPanelHeads + v * kLanes;
    store(to, first == 0 ? sum[t][v] : add(load(to), sum[t][v]));
  }
}

// What fills_panels.
static void scores_of_panels(const float* const* rows, int64_t tokens, const float* panels, int64_t heads,
                             int64_t columns, const RowsAhead& ahead, float* tile) {
  constexpr int64_t kRoom = kBlockTokens + kPanelTokens;
  alignas(64) float sums[kRoom * kPanelHeads];
  const int64_t listed = (tokens + kTokenPadding - 1) / kTokenPadding * kTokenPadding;
  const int64_t groups = (heads + kPanelHeads - 1) / kPanelHeads;
  LinesAhead lines(ahead, columns * static_cast<int64_t>(sizeof(float)),
                   groups * columns * ((tokens + kPanelTokens - 1) / kPanelTokens));
  for (int64_t j = 0; j < heads; j += kPanelHeads, panels += kPanelHeads * columns) {
    for (int64_t first = 0; first < columns; first += kPanelColumns) {
      const int64_t last = columns - first < kPanelColumns ? columns : first + kPanelColumns;
      int64_t t = 0;
      for (; t + kPanelTokens <= tokens; t += kPanelTokens)
        score_panel<kPanelTokens>(rows + t, panels, first, last, lines, sums + t * kPanelHeads);
      for (; t < tokens && t + kRestTokens <= listed; t += kRestTokens)
        score_panel<kRestTokens>(rows + t, panels, first, last, lines, sums + t * kPanelHeads);
      for (; t < tokens; t += kLeastTokens)
        score_panel<kLeastTokens>(rows + t, panels, first, last, lines, sums + t * kPanelHeads);
    }
    for (int64_t v = 0; v < kPanelHeads; v += kLanes)
      for (int64_t t = 0; t < tokens; t += kLanes) {
        VF a[kLanes];
        EC_UNROLL for (int i = 0; i < kLanes; ++i) a[i] = load(sums + (t + i) * kPanelHeads + v);
        transpose(a);
        EC_UNROLL for (int i = 0; i < kLanes; ++i) if (j + v + i < heads)
            store(tile + (j + v + i) * kBlockTokens + t, a[i]);
      }
  }
}

}  // namespace EC_ISA
}  // namespace ec
