// SPDX-License-Identifier: Apache-2.0
// What one worker of the backward multiplies: factors and tiles, each in two halves, as numbers, rounded to
// rows where they are multiplied with tokens, and in groups where they are spread over tokens (see
// Products). Of float and double all three are the same arrays.
#pragma once

#include "attention/arena.h"
#include "attention/gradient_rows.h"
#include "attention/setup.h"

namespace ec {

template <class Row>
struct BackwardScratch {
  using Real = typename Setup<Row>::Real;
  using Group = typename Products<Row>::Group;
  static constexpr bool kRounded = Setup<Row>::kRounded;

  Row* factors;   // [2 heads, and one to spare], strided: the gradient of out, then the query's factor
  Row* arranged;  // see Setup::arranged
  const Row* score_factor;  // the gradient of out, as scores take it
  Group* factor_groups;
  Real* tiles;  // [2 heads][kBlockTokens]: weights, then dz
  Row* rounded_tiles;
  Group* tile_groups;
  Real* unrounded;  // a query's factor before it is rounded
  Real* scores;     // [heads, padded][kBlockTokens]
  Real* mask;
  Real* mask_gradient;
  Real* products;  // dA, where it is needed twice
  Real* inverse;
  Real* row_term;
  Real* correction;
  Real* origin;
  Real* lse;
  Real* score_lanes;
  const Row** key_rows[2];  // of this block and of the next
  const Row** value_rows[2];
  Row* key_converted[2];
  Row* value_converted[2];
  Real* line[2];
  typename GradientRows<Row>::Scratch grad_key, grad_value;

  // Where the second halves begin. They follow the first ones where keys and values are one.
  int64_t query_start, query_groups_start, dz_start, dz_groups_start;
  Row* query_factor() const { return factors + query_start; }
  Group* query_groups() const { return factor_groups + query_groups_start; }
  Real* dz() const { return tiles + dz_start; }
  Row* rounded_dz() const { return rounded_tiles + dz_start; }
  Group* dz_groups() const { return tile_groups + dz_groups_start; }

  // Groups of so many heads.
  static int64_t groups_of(int64_t heads) { return kRounded ? (heads + 1) / 2 : heads; }

  static BackwardScratch take(Arena& arena, const Setup<Row>& setup, const GradientRows<Row>& grad_key,
                              const GradientRows<Row>& grad_value) {
    const int64_t columns = std::max(setup.key_padded, setup.value_padded);
    const int64_t tile = setup.padded_heads * kBlockTokens, groups = groups_of(setup.heads);
    BackwardScratch s;
    s.query_start = (setup.shared ? setup.heads : setup.padded_heads) * setup.value_stride();
    s.dz_start = setup.heads * kBlockTokens;
    s.factors = arena.take<Row>((2 * setup.padded_heads + 1) * factor_stride<Row>(columns));
    s.arranged = arena.take<Row>(setup.arranged_numbers(setup.value_padded));
    s.score_factor = s.factors;
    s.tiles = arena.take<Real>(2 * tile);
    if constexpr (kRounded) {
      s.query_groups_start = groups * factor_stride<Group>(setup.value_padded);
      s.dz_groups_start = groups * kBlockTokens;
      s.factor_groups = arena.take<Group>(2 * groups * factor_stride<Group>(columns));
      s.rounded_tiles = arena.take<Row>(2 * tile);
      s.tile_groups = arena.take<Group>(2 * groups * kBlockTokens);
      s.unrounded = arena.take<Real>(setup.shared_query() ? 0 : setup.factor_numbers());
    } else {
      s.query_groups_start = s.query_start;
      s.dz_groups_start = s.dz_start;
      s.factor_groups = s.factors;
      s.rounded_tiles = s.tile_groups = s.tiles;
      s.unrounded = nullptr;
    }
    s.scores = arena.take<Real>(tile);
    s.mask = arena.take<Real>(kBlockTokens);
    s.mask_gradient = arena.take<Real>(kBlockTokens);
    s.products = arena.take<Real>(tile);
    s.inverse = arena.take<Real>(setup.heads);
    s.row_term = arena.take<Real>(setup.heads);
    s.correction = arena.take<Real>(setup.heads);
    s.origin = arena.take<Real>(setup.heads);
    s.lse = arena.take<Real>(setup.heads);
    s.score_lanes = arena.take<Real>(setup.heads * kScoreLanes);
    for (int i = 0; i < 2; ++i) {
      s.key_rows[i] = arena.take<const Row*>(kBlockTokens + kTokenPadding);
      s.value_rows[i] = arena.take<const Row*>(kBlockTokens + kTokenPadding);
      s.key_converted[i] = arena.take<Row>(setup.keys.in_place() ? 0 : kBlockTokens * setup.key_padded);
      s.value_converted[i] =
          arena.take<Row>(setup.values.in_place() || setup.shared ? 0 : kBlockTokens * setup.value_padded);
      s.line[i] = arena.take<Real>(columns);
    }
    s.grad_key = GradientRows<Row>::Scratch::take(arena, grad_key);
    s.grad_value = GradientRows<Row>::Scratch::take(arena, grad_value);
    return s;
  }

  // After the factors, or the tiles of a block, have been written.
  void group_factors(const Setup<Row>& setup) const {
    group(setup, factors, query_factor(), factor_lines(setup.value_padded), factor_lines(setup.key_padded),
          factor_groups, query_groups());
  }
  void round_and_group_tiles(const Setup<Row>& setup, int64_t tokens) const {
    if constexpr (kRounded)
      setup.run.bfloat->round_weights(tiles, 2 * setup.heads, tokens, rounded_tiles, nullptr);
    constexpr Lines kTile = {kBlockTokens, kBlockTokens, kBlockTokens};
    group(setup, rounded_tiles, rounded_dz(), kTile, kTile, tile_groups, dz_groups());
  }

 private:
  struct Lines {
    int64_t columns, row_stride, group_stride;
  };
  static Lines factor_lines(int64_t columns) {
    return {columns, factor_stride<Row>(columns), factor_stride<Group>(columns)};
  }

  static void group(const Setup<Row>& setup, const Row* first, const Row* second, const Lines& first_lines,
                    const Lines& second_lines, Group* first_groups, Group* second_groups) {
    if constexpr (kRounded) {
      const auto pair = [&](const Row* rows, int64_t count, const Lines& lines, Group* groups) {
        setup.run.bfloat->pair_rows(rows, count, lines.columns, lines.row_stride, lines.group_stride,
                                    groups);
      };
      if (setup.shared && setup.scored) return pair(first, 2 * setup.heads, first_lines, first_groups);
      pair(first, setup.heads, first_lines, first_groups);
      if (setup.scored) pair(second, setup.heads, second_lines, second_groups);
    }
  }
};

}  // namespace ec
