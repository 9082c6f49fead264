// SPDX-License-Identifier: Apache-2.0
#include "product/matrix_rows.h"

#include <cmath>
#include <cstring>

#include "core/errors.h"
#include "core/isa_table.h"

EC_IMPORT_TABLES(RowKernels, row)

namespace ec {

namespace {

// Sums of squares of floats outside this range may have lost digits to underflow or overflow.
constexpr double kSmallestSafeSum = 1e-24;
constexpr double kLargestSafeSum = 1e37;
constexpr double kLargestShiftedSum = 1e30;

bool is_safe(double squares) { return squares > kSmallestSafeSum && squares < kLargestSafeSum; }

constexpr int64_t element_bytes(ec_dtype dtype) {
  return dtype == EC_FLOAT64 ? 8 : dtype == EC_FLOAT32 ? 4 : 2;
}

double half_to_double(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

}  // namespace

void FirstFault::report(int64_t row, RowFault fault) {
  if (fault == RowFault::kTooLarge) {
    too_large_.store(true, std::memory_order_relaxed);
    return;
  }
  const int64_t code = 4 * row + static_cast<int64_t>(fault);
  int64_t seen = first_.load(std::memory_order_relaxed);
  while (code < seen && !first_.compare_exchange_weak(seen, code, std::memory_order_relaxed)) {
  }
}

ec_status FirstFault::raise(const char* argument, ec_error* error) const {
  const int64_t code = first_.load(std::memory_order_relaxed);
  const int64_t row = code / 4;
  if (static_cast<RowFault>(code % 4) == RowFault::kZero)
    return fail(error, EC_INVALID_VALUE, argument, row,
                "'%s' must not hold zero rows (they have no direction); row %lld is zero", argument,
                static_cast<long long>(row));
  return fail(error, EC_INVALID_VALUE, argument, row,
              "'%s' must be finite; row %lld holds a NaN or an infinite value", argument,
              static_cast<long long>(row));
}

const void* MatrixRows::row_pointer(int64_t row) const {
  return static_cast<const char*>(matrix_.data) + row * matrix_.row_stride * element_bytes(matrix_.dtype);
}

double MatrixRows::element(const void* row, int64_t column) const {
  switch (matrix_.dtype) {
    case EC_FLOAT16:
      return half_to_double(static_cast<const uint16_t*>(row)[column]);
    case EC_BFLOAT16: {
      const uint32_t wide = static_cast<uint32_t>(static_cast<const uint16_t*>(row)[column]) << 16;
      float value;
      std::memcpy(&value, &wide, sizeof value);
      return value;
    }
    case EC_FLOAT32:
      return static_cast<const float*>(row)[column];
    default:
      return static_cast<const double*>(row)[column];
  }
}

const float* MatrixRows::as_float(int64_t row, float* scratch) const {
  const void* from = row_pointer(row);
  if (matrix_.dtype == EC_FLOAT32) return static_cast<const float*>(from);
  kernels_.convert(from, matrix_.dtype, matrix_.columns, scratch);
  return scratch;
}

RowFault MatrixRows::as_unit(int64_t row, float* scratch, UnitRow* unit) const {
  unit->values = as_float(row, scratch);
  const double squares = kernels_.sum_squares(unit->values, matrix_.columns);
  if (!is_safe(squares)) return as_unit_rescaled(row_pointer(row), scratch, unit);
  unit->scale = static_cast<float>(1.0 / std::sqrt(squares));
  return RowFault::kNone;
}

RowFault MatrixRows::as_unit_with_dot(int64_t row, const float* direction, float* scratch, UnitRow* unit,
                                      double* dot) const {
  double squares;
  unit->values = as_float(row, scratch);
  *dot = kernels_.dot_and_squares(unit->values, direction, matrix_.columns, &squares);
  if (is_safe(squares)) {
    unit->scale = static_cast<float>(1.0 / std::sqrt(squares));
  } else {
    const RowFault fault = as_unit_rescaled(row_pointer(row), scratch, unit);
    if (fault != RowFault::kNone) return fault;
    *dot = kernels_.dot(unit->values, direction, matrix_.columns);
  }
  *dot *= static_cast<double>(unit->scale);
  return RowFault::kNone;
}

RowFault MatrixRows::as_unit_rescaled(const void* row, float* scratch, UnitRow* unit) const {
  double largest = 0.0;
  for (int64_t i = 0; i < matrix_.columns; ++i) {
    const double size = std::fabs(element(row, i));
    if (!std::isfinite(size)) return RowFault::kNotFinite;
    largest = size > largest ? size : largest;
  }
  if (largest == 0.0) return RowFault::kZero;
  const int exponent = -std::ilogb(largest);
  for (int64_t i = 0; i < matrix_.columns; ++i)
    scratch[i] = static_cast<float>(std::ldexp(element(row, i), exponent));
  unit->values = scratch;
  unit->scale = static_cast<float>(1.0 / std::sqrt(kernels_.sum_squares(scratch, matrix_.columns)));
  return RowFault::kNone;
}

RowFault MatrixRows::as_shifted(int64_t row, const double* center, const float* center_float, double scale,
                                float* to) const {
  const void* from = row_pointer(row);
  if (wide() || scale > kLargestFloatScale) {
    for (int64_t i = 0; i < matrix_.columns; ++i)
      to[i] = static_cast<float>((element(from, i) - center[i]) * scale);
  } else {
    kernels_.shift_scale(as_float(row, to), center_float, static_cast<float>(scale), matrix_.columns, to);
  }
  // Far from overflow: inner products and sums of squares of two rows must not overflow either.
  if (kernels_.sum_squares(to, matrix_.columns) < kLargestShiftedSum) return RowFault::kNone;
  return std::isfinite(largest(row)) ? RowFault::kTooLarge : RowFault::kNotFinite;
}

bool MatrixRows::as_double(int64_t row, double* to) const {
  const void* from = row_pointer(row);
  bool finite = true;
  for (int64_t i = 0; i < matrix_.columns; ++i) {
    to[i] = element(from, i);
    finite = finite && std::isfinite(to[i]);
  }
  return finite;
}

double MatrixRows::largest(int64_t row) const {
  const void* from = row_pointer(row);
  double largest = 0.0;
  for (int64_t i = 0; i < matrix_.columns; ++i) {
    const double size = std::fabs(element(from, i));
    if (!(size <= largest)) largest = size;
    if (std::isnan(size)) return size;
  }
  return largest;
}

}  // namespace ec
