// SPDX-License-Identifier: Apache-2.0
// Depths that need every pair: chord, arc and L2. Sums of distances over tiles of a product.
//
// Kernels work on a tile c[tile_rows][panel_rows] of inner products, row stride panel_rows.
#pragma once

#include <cstdint>

#include "core/dispatch.h"
#include "depth/depth_math.h"

namespace ec {

struct PairTile {
  const float* c;
  const float* row_norm;       // [tile_rows] squared norms, L2 only
  const float* column_norm;    // [panel_rows] squared norms, L2 only
  const float* row_weight;     // [tile_rows], symmetric only
  const float* column_weight;  // [panel_rows]
  // One bit a column, set for pairs that the caller takes care of: they count 0 here. Null for none.
  const uint64_t* skip;  // [tile_rows]
  float* row_sum;        // [tile_rows][lanes] += column_weight * distance
  float* row_dot;        // [tile_rows][lanes] += column_weight * c, corrected only
  float* column_sum;     // [panel_rows] += row_weight * distance, symmetric only
  float* column_dot;     // [panel_rows] += row_weight * c, symmetric and corrected only
};

struct PairwiseKernels {
  // Pairs so close that c has lost the digits of their distance (chord and arc are singular at c = 1,
  // arc also at -1): |c| > limit, or for L2 2 c > limit (|x|^2 + |y|^2). Writes a bit a column for each
  // row and returns whether there is any.
  bool (*near_unit)(const float* c, float limit, uint64_t* near);
  bool (*near_l2)(const float* c, const float* row_norm, const float* column_norm, float limit,
                  uint64_t* near);
  // [metric][symmetric][corrected][skipping]
  void (*reduce[kPairMetricCount][2][2][2])(const PairTile& tile);
};

const PairwiseKernels* pairwise_kernels(Isa isa);

}  // namespace ec
