// SPDX-License-Identifier: Apache-2.0
// Where the bulk of a corpus is, and how large. Distances, ranks and medians do not change when everything
// is moved, and float32 rows lose fewer digits near the origin; scaling keeps squares within float range.
#pragma once

#include "core/workspace.h"
#include "product/panels.h"

namespace ec {

class Origin {
 public:
  // The median, column by column, of a few evenly spaced rows of the corpus: single rows far out do not
  // move it, for the bulk is what must keep its digits. Scaled by a power of two to magnitudes around 1 in
  // the sample. Rows that are not finite count as zero; packing reports them. other: what else is moved
  // (may be null). False when there is no memory.
  bool fit(const MatrixRows& corpus, const MatrixRows* other);
  // Rescales by all rows: for data whose sample hides its largest rows.
  void rescale(const MatrixRows& corpus, const MatrixRows* other);

  RowTransform transform() const { return {false, center_.data(), center_float_.data(), scale_}; }
  double scale() const { return scale_; }

 private:
  AlignedBuffer<double> center_;
  AlignedBuffer<float> center_float_;
  double largest_ = 0.0;
  double scale_ = 1.0;
};

}  // namespace ec
