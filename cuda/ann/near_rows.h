// SPDX-License-Identifier: Apache-2.0
// Which rows a build compares with some rows side by side: those of the cells around theirs.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ec::cuda::ann {

// Cells as builds know them: slots are in their order.
struct BuildCells {
  const uint32_t* members;    // slots that take part, by cells; null: all slots, in their order
  const uint32_t* start;      // [cells + 1], in members
  const uint32_t* cell_of;    // [slot]
  const int64_t* near_cells;  // [cells][near_each]: the nearest first, -1: none
  int64_t cells;
  int near_each;
};

constexpr int64_t kMostCells = 1 << 18;  // whose marks fit what a block shares

// Slots [first, first + count) in groups, the last of them as large as it is.
struct NearRowsProblem {
  BuildCells cells;
  int64_t first, count, group;
  int64_t wanted;   // rows of a list, if the cells around have as many; no cell is begun behind them
  uint32_t* slots;  // [groups][stride], ascending
  int64_t stride;   // no less than wanted - 1 and the rows of any cell
  int64_t* counts;  // [groups]
};

// False: a grid would be too large.
bool run_list_near_rows(const NearRowsProblem& problem, Stream stream);

}  // namespace ec::cuda::ann
