// SPDX-License-Identifier: Apache-2.0
// Where and how large a corpus is. L2 and spatial depth do not change when everything is moved, and
// distances lose fewer digits near the origin; scaling keeps squares within float range.
#pragma once

#include "core/workspace.h"
#include "product/panels.h"

namespace ec {

class Shift {
 public:
  // The mean of up to 1024 evenly spaced rows becomes the origin, and the largest difference in them has
  // magnitude 1 to 2 after scaling. Rows that are not finite are passed over. False when there is no
  // memory.
  bool fit(const MatrixRows& rows);
  // Rescales by all rows of both (second may be null): for data whose sample hides its largest rows.
  void rescale(const MatrixRows& first, const MatrixRows* second);

  RowTransform transform() const { return {false, center_.data(), center_float_.data(), scale_}; }
  double scale() const { return scale_; }

 private:
  AlignedBuffer<double> center_;
  AlignedBuffer<float> center_float_;
  double largest_ = 0.0;
  double scale_ = 1.0;
};

}  // namespace ec
