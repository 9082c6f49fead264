// SPDX-License-Identifier: Apache-2.0
// Rows of a user's matrix as floats, scaled or shifted, with bad values found on the way.
#pragma once

#include <atomic>
#include <cstdint>

#include "capi/embedcore.h"
#include "product/rows.h"

namespace ec {

// Larger scales do not fit a float: rows are scaled in float64 then.
constexpr double kLargestFloatScale = 0x1p120;

enum class RowFault : int { kNone = 0, kNotFinite = 1, kZero = 2, kTooLarge = 3 };

// The offending row with the lowest index; tasks report in any order.
class FirstFault {
 public:
  void report(int64_t row, RowFault fault);
  // A row is not finite, or zero where it must not be.
  bool any() const { return first_.load(std::memory_order_relaxed) != INT64_MAX; }
  // A row was too large for the scale in use; no fault of the user's.
  bool too_large() const { return too_large_.load(std::memory_order_relaxed); }
  // Writes the error of the first fault. Requires: any().
  ec_status raise(const char* argument, ec_error* error) const;

 private:
  std::atomic<int64_t> first_{INT64_MAX};  // 4 * row + fault, so that the lowest row wins
  std::atomic<bool> too_large_{false};
};

// values[i] * scale is the row of unit length.
struct UnitRow {
  const float* values;
  float scale;

  double value(int64_t column) const {
    return static_cast<double>(values[column]) * static_cast<double>(scale);
  }
};

class MatrixRows {
 public:
  MatrixRows(const ec_matrix& matrix, const RowKernels& kernels) : matrix_(matrix), kernels_(kernels) {}

  int64_t rows() const { return matrix_.rows; }
  int64_t columns() const { return matrix_.columns; }
  bool wide() const { return matrix_.dtype == EC_FLOAT64; }

  // Row i as floats; scratch[columns()] is used unless the matrix holds floats.
  const float* as_float(int64_t row, float* scratch) const;

  // Row i with the factor to unit length. Rows too large or too small for float sums are first scaled by
  // a power of two, so that every finite row that is not zero has a direction.
  RowFault as_unit(int64_t row, float* scratch, UnitRow* unit) const;

  // The same, with unit . direction computed in the pass that finds the length.
  RowFault as_unit_with_dot(int64_t row, const float* direction, float* scratch, UnitRow* unit,
                            double* dot) const;

  // (row - center) * scale into to[columns()]. For float64 input the difference is taken in float64.
  // kTooLarge when the result's sum of squares is beyond float range: a smaller scale is needed.
  RowFault as_shifted(int64_t row, const double* center, const float* center_float, double scale,
                      float* to) const;

  double value(int64_t row, int64_t column) const { return element(row_pointer(row), column); }

  // Row i in float64. False when a value is not finite.
  bool as_double(int64_t row, double* to) const;

  // Largest magnitude in the row; infinity or NaN where it holds one.
  double largest(int64_t row) const;

 private:
  const void* row_pointer(int64_t row) const;
  double element(const void* row, int64_t column) const;
  RowFault as_unit_rescaled(const void* row, float* scratch, UnitRow* unit) const;

  ec_matrix matrix_;
  const RowKernels& kernels_;
};

}  // namespace ec
