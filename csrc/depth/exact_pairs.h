// SPDX-License-Identifier: Apache-2.0
// Distances of single pairs from the difference of their rows, for pairs whose inner product has lost it.
#pragma once

#include <cmath>

#include "depth/depth_math.h"
#include "depth/shift.h"
#include "product/matrix_rows.h"

namespace ec {

struct ExactPair {
  double distance;
  double cosine;  // unit rows only
};

// Numerics: rows are rounded to float32 once, their difference is exact to rounding; so the distance is
// off by about 1e-7 of the rows' length, and 0 for equal rows.
class ExactPairs {
 public:
  // scratch holds 2 rows of columns rounded up to 16 floats.
  ExactPairs(const MatrixRows& x, const MatrixRows& corpus, PairMetric metric, const Shift& shift,
             const RowKernels& kernels, float* scratch)
      : x_(x),
        corpus_(corpus),
        metric_(metric),
        transform_(shift.transform()),
        kernels_(kernels),
        own_scratch_(scratch),
        other_scratch_(scratch + round_up(corpus.columns(), 16)) {}

  void set_row(int64_t row) { own_ = read(x_, row, own_scratch_); }

  // computed_cosine tells on which side of the sphere the pair is: near opposite rows arc is taken from
  // their sum.
  ExactPair distance_to(int64_t row, float computed_cosine) {
    const UnitRow other = read(corpus_, row, other_scratch_);
    const bool opposite = metric_ == PairMetric::kArc && computed_cosine < 0.0f;
    const double squared = kernels_.squared_distance(own_.values, own_.scale, other.values,
                                                     opposite ? -other.scale : other.scale, x_.columns());
    const double distance = pair_distance(metric_, squared);
    if (opposite) return {kPi - distance, 0.5 * squared - 1.0};
    return {distance, metric_ == PairMetric::kL2 ? 0.0 : 1.0 - 0.5 * squared};
  }

 private:
  // Requires: the row has no fault (packing has seen it).
  UnitRow read(const MatrixRows& rows, int64_t row, float* scratch) const {
    UnitRow unit = {scratch, 1.0f};
    if (metric_ == PairMetric::kL2)
      rows.as_shifted(row, transform_.center, transform_.center_float, transform_.scale, scratch);
    else
      rows.as_unit(row, scratch, &unit);
    return unit;
  }

  const MatrixRows& x_;
  const MatrixRows& corpus_;
  const PairMetric metric_;
  const RowTransform transform_;
  const RowKernels& kernels_;
  float* own_scratch_;
  float* other_scratch_;
  UnitRow own_ = {nullptr, 0.0f};
};

}  // namespace ec
