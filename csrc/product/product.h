// SPDX-License-Identifier: Apache-2.0
// Products of packed panels: the inner loop of everything that costs n m d.
//
// A panel holds panel_rows consecutive rows, transposed: for each 32-bit group of columns (one float,
// a pair of bf16, or kInt8Group int8 numbers) the groups of all its rows lie side by side. The same
// panels serve as either factor: columns of a tile are loaded as vectors, its rows are broadcast. So
// one packing of a corpus serves a self product, and nothing is packed twice.
#pragma once

#include <cstdint>

#include "capi/embedcore.h"
#include "core/dispatch.h"

namespace ec {

enum class Precision : int { kFloat32 = 0, kBFloat16 = 1, kInt8 = 2 };

// What turns products of rounded rows into numbers: c[i][j] = (sum[i][j] - column_bias[j]) *
// row_scale[i] * column_scale[j]. column_bias is for int8 only.
struct ProductScales {
  const float* row_scale;
  const float* column_scale;
  const int32_t* column_bias;  // int8_bias times the sum of the column's numbers
};

struct ProductKernels {
  int lanes;
  int tile_rows;   // rows of one product call; divides panel_rows
  int panel_rows;  // columns of one product call
  int int8_group;  // int8 numbers in a 32-bit group (4), or int16 ones (2)
  int int8_bias;   // what the instruction adds to each number of the broadcast side
  // c[tile_rows][panel_rows] (row stride panel_rows) = a b', or += when accumulate.
  // Requires: a and b point at the first wanted group of a panel, a moved on to the tile's first row;
  //   consecutive groups lie panel_rows words apart in both.
  // Numerics: float32 sums in order of the columns (int32, exact, for int8).
  void (*product_float)(const uint32_t* a, const uint32_t* b, int64_t groups, bool accumulate, float* c);
  // The same; where scales is not null, the result is scaled in the end.
  void (*product_bfloat)(const uint32_t* a, const uint32_t* b, int64_t groups, bool accumulate,
                         const ProductScales* scales, float* c);
  void (*product_int8)(const uint32_t* a, const uint32_t* b, int64_t groups, const ProductScales& scales,
                       float* c);
};

const ProductKernels* product_kernels(Isa isa);

}  // namespace ec
