// SPDX-License-Identifier: Apache-2.0
// A matrix packed into panels (see product.h), its rows ordered by group.
//
// Memory: rows are permuted so that each group is contiguous and starts a new panel; the slots left over
// at a group's end are zero and have weight 0, so kernels need no edge cases.
#pragma once

#include <cstdint>

#include "core/workspace.h"
#include "product/matrix_rows.h"
#include "product/product.h"

namespace ec {

// Which row of the matrix lies in which slot of the panels.
struct SlotOrder {
  AlignedBuffer<int64_t> row;    // [slots]: row of the matrix, -1 for padding
  AlignedBuffer<int32_t> group;  // [panels]
  int64_t slots = 0;
  int64_t panels = 0;
  int64_t groups = 1;

  // One group of all rows.
  bool build(int64_t rows, int panel_rows);
  // labels[row] in [0, groups). Requires: groups >= 1.
  bool build(const int32_t* labels, int64_t rows, int64_t groups, int panel_rows);
};

struct Panels {
  Precision precision = Precision::kFloat32;
  int panel_rows = 0;
  int64_t word_groups = 0;            // 32-bit groups of columns
  AlignedBuffer<uint32_t> words;      // [panels][word_groups][panel_rows]
  AlignedBuffer<float> squared_norm;  // [slots], of moved rows (unit rows: 0)
  AlignedBuffer<float> weight;        // [slots]
  AlignedBuffer<float> scale;         // [slots], bfloat16 and int8: of the rounded rows
  AlignedBuffer<int32_t> bias;        // [slots], int8 only

  const uint32_t* panel(int64_t index) const { return words.data() + index * word_groups * panel_rows; }
};

// How a row becomes what is packed: its direction, or (row - center) * scale.
struct RowTransform {
  bool to_unit = true;
  const double* center = nullptr;       // [columns]
  const float* center_float = nullptr;  // the same, rounded
  double scale = 1.0;
};

// Packs every slot. weights may be null (all 1). Faults are reported with rows of the matrix.
// EC_OUT_OF_MEMORY, EC_INTERRUPTED or EC_OK (then look at *fault).
ec_status pack_panels(const MatrixRows& rows, const SlotOrder& order, const float* weights,
                      const RowTransform& transform, Precision precision, Isa isa, int threads,
                      const ec_monitor* monitor, Panels* panels, FirstFault* fault);

}  // namespace ec
