// SPDX-License-Identifier: Apache-2.0
#include "depth/projection_origin.h"

#include <algorithm>
#include <cmath>

namespace ec {

namespace {

constexpr int64_t kSampleRows = 65;

// A power of two, so that scaling is exact; kept where floats have their full precision.
double scale_for(double largest) {
  if (!(largest > 0.0) || !std::isfinite(largest)) return 1.0;
  return std::ldexp(1.0, std::clamp(-std::ilogb(largest), -1000, 120));
}

}  // namespace

bool ProjectionOrigin::fit(const MatrixRows& rows) {
  const int64_t columns = rows.columns();
  const int64_t taken = std::min(rows.rows(), kSampleRows);
  AlignedBuffer<double> sample;  // [columns][taken]
  AlignedBuffer<double> row_values;
  if (!center_.allocate(columns) || !center_float_.allocate(columns) || !row_values.allocate(columns) ||
      !sample.allocate(columns * taken))
    return false;
  for (int64_t s = 0; s < taken; ++s) {
    const int64_t row = s * rows.rows() / taken;
    const bool finite = rows.as_double(row, row_values.data());
    for (int64_t i = 0; i < columns; ++i)
      sample.data()[i * taken + s] = finite ? row_values.data()[i] : 0.0;
  }
  largest_ = 0.0;
  for (int64_t i = 0; i < columns; ++i) {
    double* column = sample.data() + i * taken;
    std::nth_element(column, column + taken / 2, column + taken);
    // The center is a float, so that moving float rows is one rounding.
    const float center = static_cast<float>(column[taken / 2]);
    center_float_.data()[i] = std::isfinite(center) ? center : 0.0f;
    center_.data()[i] = static_cast<double>(center_float_.data()[i]);
    for (int64_t s = 0; s < taken; ++s)
      largest_ = std::max(largest_, std::fabs(column[s] - center_.data()[i]));
  }
  scale_ = scale_for(largest_);
  return true;
}

void ProjectionOrigin::rescale(const MatrixRows& first, const MatrixRows* second) {
  for (const MatrixRows* rows : {&first, second}) {
    for (int64_t row = 0; rows != nullptr && row < rows->rows(); ++row) {
      const double largest = rows->largest(row);
      if (std::isfinite(largest)) largest_ = std::max(largest_, largest);
    }
  }
  // Twice: the center itself is no larger than the largest row.
  scale_ = scale_for(2.0 * largest_);
}

}  // namespace ec
