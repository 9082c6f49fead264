// SPDX-License-Identifier: Apache-2.0
// Where the bulk of a corpus is. Ranks and medians along a direction do not change when everything is moved
// or scaled, and float32 projections lose fewer digits near the origin.
#pragma once

#include "core/workspace.h"
#include "product/panels.h"

namespace ec {

class ProjectionOrigin {
 public:
  // The median, column by column, of a few evenly spaced rows: single rows far out do not move it, for the
  // bulk is what must keep its digits. Scaled to magnitudes around 1 in the sample. Rows that are not
  // finite count as zero; packing reports them. False when there is no memory.
  bool fit(const MatrixRows& rows);
  // Rescales by all rows of both (second may be null): for data whose sample hides its largest rows.
  void rescale(const MatrixRows& first, const MatrixRows* second);

  RowTransform transform() const { return {false, center_.data(), center_float_.data(), scale_}; }

 private:
  AlignedBuffer<double> center_;
  AlignedBuffer<float> center_float_;
  double largest_ = 0.0;
  double scale_ = 1.0;
};

}  // namespace ec
