// SPDX-License-Identifier: Apache-2.0
// What sums over pairs are, whichever kernel takes them.
#pragma once

#include "depth/depth_math.h"

namespace ec::cuda {

// Beyond this |c| a pair is measured anew.
constexpr float kNearLimit = 0.95f, kStrictNearLimit = 0.999f;

// Sums over a segment of weight * distance and weight * c~.
struct PairSums {
  double distances, products;
};

}  // namespace ec::cuda
