// SPDX-License-Identifier: Apache-2.0
#include "depth/exact_pairs.h"

#include <cmath>

namespace ec {

namespace {

// Float sums of squares below this may have lost digits to underflow.
constexpr double kSmallestSafeSum = 1e-24;

}  // namespace

void ExactPairs::set_row(int64_t row) {
  row_ = row;
  if (metric_ != PairMetric::kL2)
    packed_.x().as_unit(row, own_scratch_, &own_);
  else
    own_.values = packed_.x().as_float(row, own_scratch_);
}

ExactPair ExactPairs::distance_to(int64_t row, float computed_cosine) {
  if (metric_ == PairMetric::kL2) return {difference_to(row).length, 0.0};
  UnitRow other;
  packed_.corpus().as_unit(row, other_scratch_, &other);
  const bool opposite = metric_ == PairMetric::kArc && computed_cosine < 0.0f;
  const double squared = kernels_.squared_distance(own_.values, own_.scale, other.values,
                                                   opposite ? -other.scale : other.scale, columns_);
  const double distance = pair_distance(metric_, squared);
  if (opposite) return {kPi - distance, 0.5 * squared - 1.0};
  return {distance, 1.0 - 0.5 * squared};
}

RowDifference ExactPairs::difference_to(int64_t row) {
  const double scale = packed_.origin().scale();
  if (packed_.x().wide() || packed_.corpus().wide() || scale > kLargestFloatScale)
    return difference_in_double(row);
  const float* other = packed_.corpus().as_float(row, other_scratch_);
  kernels_.shift_scale(other, own_.values, static_cast<float>(scale), columns_, difference_);
  const double squared = kernels_.sum_squares(difference_, columns_);
  if (!(squared > kSmallestSafeSum)) return difference_in_double(row);
  const double length = std::sqrt(squared);
  return {difference_, length, length};
}

RowDifference ExactPairs::difference_in_double(int64_t row) {
  double squared = 0.0, largest = 0.0;
  for (int64_t i = 0; i < columns_; ++i) {
    const double gap = packed_.corpus().value(row, i) - packed_.x().value(row_, i);
    largest = std::fmax(largest, std::fabs(gap));
  }
  if (largest == 0.0) return {difference_, 0.0, 0.0};
  const int exponent = -std::ilogb(largest);
  for (int64_t i = 0; i < columns_; ++i) {
    const double gap = packed_.corpus().value(row, i) - packed_.x().value(row_, i);
    const double value = std::ldexp(gap, exponent);
    difference_[i] = static_cast<float>(value);
    squared += value * value;
  }
  const double value_length = std::sqrt(squared);
  return {difference_, std::ldexp(value_length * packed_.origin().scale(), -exponent), value_length};
}

}  // namespace ec
