// SPDX-License-Identifier: Apache-2.0
// Sums that come out the same in whatever order threads add to them: bounded numbers as 64-bit integers.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>

#include "core/workspace.h"

namespace ec {

// Numerics: every addition is rounded to bound * 2^-61, so m of them are off by at most m * bound * 2^-62.
class FixedSums {
 public:
  // rows * groups zero sums, none of which will exceed bound in magnitude.
  bool start(int64_t rows, int64_t groups, double bound) {
    int64_t count = 0;
    if (!multiply_sizes(rows, groups, &count) || !sums_.allocate(count)) return false;
    for (int64_t i = 0; i < count; ++i) sums_.data()[i] = 0;
    groups_ = groups;
    count_ = count;
    exponent_ = bound > 0.0 ? 61 - std::ilogb(bound) : 0;
    scale_ = std::ldexp(1.0, exponent_);
    return true;
  }

  void add(int64_t row, int64_t group, double value) {
    __atomic_fetch_add(&sums_.data()[row * groups_ + group], std::llrint(value * scale_), __ATOMIC_RELAXED);
  }

  // to[rows][groups] = factor * sum
  void read(double factor, double* to) const {
    const double unit = std::ldexp(factor, -exponent_);
    for (int64_t i = 0; i < count_; ++i) to[i] = static_cast<double>(sums_.data()[i]) * unit;
  }

 private:
  AlignedBuffer<int64_t> sums_;
  int64_t groups_ = 1, count_ = 0;
  int exponent_ = 0;
  double scale_ = 1.0;
};

}  // namespace ec
