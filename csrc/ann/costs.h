// SPDX-License-Identifier: Apache-2.0
// What a planner knows of this index on this machine. Measured by calibrate(), never changed by a search.
#pragma once

#include <array>
#include <cstdint>

namespace ec::ann {

// Levels of recall that were measured; a search whose target lies between two goes in between.
constexpr std::array<float, 7> kRecallLevels = {0.80f, 0.90f, 0.95f, 0.98f, 0.99f, 0.995f, 0.999f};
constexpr int kLevels = static_cast<int>(kRecallLevels.size());
// Shares of rows that pass at which graph and cells were measured, falling.
constexpr std::array<float, 5> kShares = {1.0f, 0.5f, 0.2f, 0.08f, 0.03f};
constexpr int kShareCount = static_cast<int>(kShares.size());
constexpr int64_t kMeasuredResults = 10;  // neighbours of each query that were looked for

constexpr float kNotReached = -1.0f;

struct Costs {
  bool measured = false;
  float rows = 0.0f;  // of the graph, when they were
  // Nanoseconds.
  float code_query = 0.0f;   // to project and quantise a query
  float listed_row = 0.0f;   // to score a listed row's head, amid many
  float nearby_row = 0.0f;   // to score a row of a cell
  float refine_row = 0.0f;   // to add a tail
  float rescore_row = 0.0f;  // a true distance
  float centroid = 0.0f;
  float list_query = 0.0f;  // to choose among listed rows, however few
  // How far queries like the rows are from the nearest cell, in units of its radius (for ip: of unit
  // length of rows). Farther ones are not like the rows, and walks through a graph made for rows lose their
  // way.
  float usual_distance = 0.0f;
  float row_square = 0.0f;  // mean |x - mean|^2
  // A row is looked at more closely while its score and what may be missing from it reach the k-th best.
  // From a head is missing at most this share of |tail| |query tail|, for as many neighbours as the level
  // asks.
  float tail_share[kLevels] = {};
  // And from a whole code this multiple of head_scale |q|.
  float code_error[kLevels] = {};
  // While codes are chosen, the k-th best of them stands for the k-th nearest row: so far below it, in that
  // unit, a row is kept. head_scale: that of most rows.
  float code_margin[kLevels] = {};
  float head_scale = 0.0f;
  // Of a list of any length, for 10 results: tails that are read, and rows that are measured.
  float refined[kLevels] = {}, rescored[kLevels] = {};
  // [share][level] at 10 results. A walk looks on as far as (1 + slack) times the k-th best distance;
  // kNotReached: no slack that was tried is enough, or the list takes far less time.
  float slack[kShareCount][kLevels] = {};
  float graph_time[kShareCount][kLevels] = {};
  int32_t graph_steps[kShareCount][kLevels] = {};  // rows scored
  // Cells are looked through while rows at their radius, in a direction that has this cosine with the
  // query's, could reach the k-th best.
  float cell_reach[kLevels] = {};
  int32_t cell_rows[kShareCount][kLevels] = {};  // passing rows of those cells
};

// Brings all numbers into bounds within which no score overflows and no plan is absurd: what was measured
// on odd rows (all equal, of low rank), or comes from a file. Requires: none is NaN.
void bound(Costs* costs);

}  // namespace ec::ann
