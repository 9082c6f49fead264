// SPDX-License-Identifier: Apache-2.0
// Single pairs taken from the difference of their rows, for pairs whose inner product has lost it.
#pragma once

#include "depth/depth_math.h"
#include "depth/packed_pair.h"

namespace ec {

struct ExactPair {
  double distance;
  double cosine;  // unit rows only
};

// Numerics: equal rows are at distance 0. Shifted rows are subtracted as given, in float64; unit rows are
// rounded to float32 first, so their distance is off by about 1e-7.
class ExactPairs {
 public:
  // Floats of scratch that an object uses.
  static int64_t scratch_floats(int64_t columns) { return 4 * round_up(columns, 16); }

  ExactPairs(const PackedPair& packed, PairMetric metric, const RowKernels& kernels, float* scratch)
      : packed_(packed),
        metric_(metric),
        kernels_(kernels),
        scale_(packed.origin().scale()),
        own_scratch_(scratch),
        other_scratch_(scratch + 2 * round_up(packed.corpus().columns(), 16)) {}

  void set_row(int64_t row) {
    row_ = row;
    if (unit()) packed_.x().as_unit(row, own_scratch_, &own_);
  }

  // computed_cosine tells on which side of the sphere the pair is: near opposite rows arc is taken from
  // their sum.
  ExactPair distance_to(int64_t row, float computed_cosine);

  // (own row - row) * origin().scale() into difference[columns]; returns its squared length.
  double subtract(int64_t row, double* difference);

 private:
  bool unit() const { return metric_ != PairMetric::kL2; }

  const PackedPair& packed_;
  const PairMetric metric_;
  const RowKernels& kernels_;
  const double scale_;
  float* own_scratch_;    // [2 * columns], or doubles [columns]
  float* other_scratch_;  // the same
  int64_t row_ = 0;
  UnitRow own_ = {nullptr, 0.0f};
};

}  // namespace ec
