// SPDX-License-Identifier: Apache-2.0
// What is done to single rows of a matrix, for every dtype: conversion, sums, packing.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace ec {

struct RowKernels {
  // to[i] = row[i] as float. dtype is an ec_dtype.
  void (*convert)(const void* row, int dtype, int64_t columns, float* to);
  // Sum of squares. Numerics: float32 lanes, added in float64.
  double (*sum_squares)(const float* row, int64_t columns);
  double (*dot)(const float* row, const float* other, int64_t columns);
  // to[i] += scale * row[i]
  void (*add_scaled)(const float* row, float scale, int64_t columns, float* to);
  // to[i] = (row[i] - center[i]) * scale; center may be null.
  void (*shift_scale)(const float* row, const float* center, float scale, int64_t columns, float* to);
  // Sum over i of (scale_a a[i] - scale_b b[i])^2.
  double (*squared_distance)(const float* a, float scale_a, const float* b, float scale_b, int64_t columns);
  // One row of a panel: to[k * panel_rows] for each 32-bit group k (see product.h). Columns beyond the
  // last are zero.
  void (*pack_float)(const float* row, int64_t columns, uint32_t* to);
  // Rounded rows q replace the row and come with the scale (row . q) / (q . q), so that the rounding error
  // of scale * q is orthogonal to q: products of close rows then lose nothing to first order.
  void (*pack_bfloat)(float* row, int64_t columns, uint32_t* to, float* scale);
  // Steps of max|row| / 127. bias: see Int8Scales.
  void (*pack_int8)(float* row, int64_t columns, uint32_t* to, float* scale, int32_t* bias);
};

const RowKernels* row_kernels(Isa isa);

}  // namespace ec
