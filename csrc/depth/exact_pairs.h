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

// The difference of two rows as given, in units of the packed rows.
struct RowDifference {
  const float* values;  // [columns] (row - own row) times any factor
  double length;        // of the difference, without that factor
  double value_length;  // of values; 0 for equal rows
};

// Numerics: equal rows are at distance 0. Rows that are moved are subtracted as given, in float64 where
// one of them is float64, else in float32, which is exact for close rows. Unit rows are rounded to float32
// first, so their distance is off by about 1e-7.
class ExactPairs {
 public:
  // Floats of scratch that an object uses.
  static int64_t scratch_floats(int64_t columns) { return 3 * round_up(columns, 16); }

  ExactPairs(const PackedPair& packed, PairMetric metric, const RowKernels& kernels, float* scratch)
      : packed_(packed),
        metric_(metric),
        kernels_(kernels),
        columns_(packed.corpus().columns()),
        own_scratch_(scratch),
        other_scratch_(scratch + round_up(columns_, 16)),
        difference_(other_scratch_ + round_up(columns_, 16)) {}

  void set_row(int64_t row);

  // computed_cosine tells on which side of the sphere the pair is: near opposite rows arc is taken from
  // their sum.
  ExactPair distance_to(int64_t row, float computed_cosine);

  // Requires: metric L2 at construction. Valid until the next call.
  RowDifference difference_to(int64_t row);

 private:
  RowDifference difference_in_double(int64_t row);

  const PackedPair& packed_;
  const PairMetric metric_;
  const RowKernels& kernels_;
  const int64_t columns_;
  float* own_scratch_;
  float* other_scratch_;
  float* difference_;
  int64_t row_ = 0;
  UnitRow own_ = {nullptr, 0.0f};
};

}  // namespace ec
