// SPDX-License-Identifier: Apache-2.0
#include "depth/shift.h"

#include <cmath>

namespace ec {

namespace {

constexpr int64_t kSampleRows = 1024;

double power_of_two_below(double value) {
  return value > 0.0 && std::isfinite(value) ? std::ldexp(1.0, -std::ilogb(value)) : 1.0;
}

}  // namespace

bool Shift::fit(const MatrixRows& rows) {
  const int64_t columns = rows.columns();
  AlignedBuffer<double> row_values;
  if (!center_.allocate(columns) || !center_float_.allocate(columns) || !row_values.allocate(columns))
    return false;
  for (int64_t i = 0; i < columns; ++i) center_.data()[i] = 0.0;
  const int64_t taken = rows.rows() < kSampleRows ? rows.rows() : kSampleRows;
  for (int64_t s = 0; s < taken; ++s) {
    const int64_t row = s * rows.rows() / taken;
    if (!rows.as_double(row, row_values.data())) continue;  // packing names the first such row
    for (int64_t i = 0; i < columns; ++i)
      center_.data()[i] += row_values.data()[i] / static_cast<double>(taken);
  }
  for (int64_t i = 0; i < columns; ++i) {
    // The center is a float, so that moving float rows is one rounding.
    center_float_.data()[i] = static_cast<float>(center_.data()[i]);
    if (!std::isfinite(center_float_.data()[i])) center_float_.data()[i] = 0.0f;
    center_.data()[i] = static_cast<double>(center_float_.data()[i]);
  }
  largest_ = 0.0;
  for (int64_t s = 0; s < taken; ++s) {
    if (!rows.as_double(s * rows.rows() / taken, row_values.data())) continue;
    for (int64_t i = 0; i < columns; ++i)
      largest_ = std::fmax(largest_, std::fabs(row_values.data()[i] - center_.data()[i]));
  }
  scale_ = power_of_two_below(largest_);
  return true;
}

void Shift::rescale(const MatrixRows& first, const MatrixRows* second) {
  for (const MatrixRows* rows : {&first, second}) {
    for (int64_t row = 0; rows != nullptr && row < rows->rows(); ++row) {
      const double largest = rows->largest(row);
      if (std::isfinite(largest)) largest_ = std::fmax(largest_, largest);
    }
  }
  // Twice: the center itself is no larger than the largest row.
  scale_ = power_of_two_below(2.0 * largest_);
}

}  // namespace ec
