// SPDX-License-Identifier: Apache-2.0
#include "depth/origin.h"

#include <algorithm>
#include <cmath>

namespace ec {

namespace {

constexpr int64_t kSampleRows = 65;

// A power of two, so that scaling is exact.
double scale_for(double largest) {
  if (!(largest > 0.0) || !std::isfinite(largest)) return 1.0;
  return std::ldexp(1.0, std::clamp(-std::ilogb(largest), -1000, 1000));
}

}  // namespace

bool Origin::fit(const MatrixRows& corpus, const MatrixRows* other) {
  const int64_t columns = corpus.columns();
  const int64_t taken = std::min(corpus.rows(), kSampleRows);
  AlignedBuffer<double> sample;  // [columns][taken]
  AlignedBuffer<double> row_values;
  if (!center_.allocate(columns) || !center_float_.allocate(columns) || !row_values.allocate(columns) ||
      !sample.allocate(columns * taken))
    return false;
  for (int64_t s = 0; s < taken; ++s) {
    const bool finite = corpus.as_double(s * corpus.rows() / taken, row_values.data());
    for (int64_t i = 0; i < columns; ++i)
      sample.data()[i * taken + s] = finite ? row_values.data()[i] : 0.0;
  }
  // Where floats are moved the center is a float, so that moving them is one rounding.
  const bool all_wide = corpus.wide() && (other == nullptr || other->wide());
  largest_ = 0.0;
  for (int64_t i = 0; i < columns; ++i) {
    double* column = sample.data() + i * taken;
    std::nth_element(column, column + taken / 2, column + taken);
    const double median = column[taken / 2];
    const float rounded = static_cast<float>(median);
    center_float_.data()[i] = std::isfinite(rounded) ? rounded : 0.0f;
    center_.data()[i] = all_wide ? median : static_cast<double>(center_float_.data()[i]);
    for (int64_t s = 0; s < taken; ++s)
      largest_ = std::max(largest_, std::fabs(column[s] - center_.data()[i]));
  }
  scale_ = scale_for(largest_);
  return true;
}

void Origin::rescale(const MatrixRows& corpus, const MatrixRows* other) {
  for (const MatrixRows* rows : {&corpus, other}) {
    for (int64_t row = 0; rows != nullptr && row < rows->rows(); ++row) {
      const double largest = rows->largest(row);
      if (std::isfinite(largest)) largest_ = std::max(largest_, largest);
    }
  }
  // Half: the center is no larger than the largest row, so differences are at most twice that.
  scale_ = 0.5 * scale_for(largest_);
}

}  // namespace ec
