// SPDX-License-Identifier: Apache-2.0
// Spatial depth (Vardi and Zhang 2000; Serfling 2002): D(x) = 1 - |E[(x - X) / |x - X|]|, where a zero
// difference counts as zero.
//
// With w_j = weight_j / |x - X_j| the sum over the corpus is x (sum of w_j) - sum of w_j X_j: a product of
// rows, an element-wise step and a second product, block by block, so no n x m matrix is made.
#pragma once

#include <cstdint>

#include "core/dispatch.h"
#include "depth/mean_direction.h"
#include "product/panels.h"

namespace ec {

struct SpatialTile {
  float* c;                  // [tile_rows][panel_rows]: inner products of corpus rows (rows of the tile)
                             // and scored rows (columns); becomes w
  const float* row_norm;     // [tile_rows] squared norms
  const float* row_weight;   // [tile_rows]
  const float* column_norm;  // [panel_rows] squared norms
  const uint64_t* skip;      // [tile_rows] one bit a column where w is to be 0; null for none
  float* weight_sum;         // [panel_rows] += w
};

struct SpatialKernels {
  void (*weigh)(const SpatialTile& tile);
};

const SpatialKernels* spatial_kernels(Isa isa);

struct SpatialProblem {
  const MatrixRows* x;
  const MatrixRows* corpus;  // null: the corpus is x, and a row never meets itself
  CorpusParts parts;
};

// What a row gets: the length of its sum of weighted unit differences, or the sum itself.
enum class SpatialResult { kLength, kVector };

// kLength: to[n][groups]; kVector: to[n][groups][columns].
ec_status sum_unit_differences(const SpatialProblem& problem, const RunOptions& run, SpatialResult result,
                               double* to, FirstFault* x_fault, FirstFault* corpus_fault);

}  // namespace ec
