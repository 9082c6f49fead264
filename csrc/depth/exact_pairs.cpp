// SPDX-License-Identifier: Apache-2.0
#include "depth/exact_pairs.h"

#include <cmath>

namespace ec {

ExactPair ExactPairs::distance_to(int64_t row, float computed_cosine) {
  const int64_t columns = packed_.corpus().columns();
  if (!unit()) {
    auto* difference = reinterpret_cast<double*>(own_scratch_);
    return {pair_distance(metric_, subtract(row, difference)), 0.0};
  }
  UnitRow other;
  packed_.corpus().as_unit(row, other_scratch_, &other);
  const bool opposite = metric_ == PairMetric::kArc && computed_cosine < 0.0f;
  const double squared = kernels_.squared_distance(own_.values, own_.scale, other.values,
                                                   opposite ? -other.scale : other.scale, columns);
  const double distance = pair_distance(metric_, squared);
  if (opposite) return {kPi - distance, 0.5 * squared - 1.0};
  return {distance, 1.0 - 0.5 * squared};
}

double ExactPairs::subtract(int64_t row, double* difference) {
  const int64_t columns = packed_.corpus().columns();
  auto* other = reinterpret_cast<double*>(other_scratch_);
  packed_.x().as_double(row_, difference);
  packed_.corpus().as_double(row, other);
  double squared = 0.0;
  for (int64_t i = 0; i < columns; ++i) {
    difference[i] = (difference[i] - other[i]) * scale_;
    squared += difference[i] * difference[i];
  }
  return squared;
}

}  // namespace ec
