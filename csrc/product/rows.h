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
  // row . other, and the sum of squares of the row, in one pass.
  double (*dot_and_squares)(const float* row, const float* other, int64_t columns, double* squares);
  // to[i] += scale * row[i]
  void (*add_scaled)(const float* row, float scale, int64_t columns, float* to);
  // to[i] = (row[i] - center[i]) * scale; center may be null.
  void (*shift_scale)(const float* row, const float* center, float scale, int64_t columns, float* to);
  // Sum over i of (scale_a a[i] - scale_b b[i])^2.
  double (*squared_distance)(const float* a, float scale_a, const float* b, float scale_b, int64_t columns);
  // What a row becomes before it is packed, in place: the words of its 32-bit groups (see product.h)
  // at its front, the last one padded with zeros; floats are their own words. The rounded row q comes with
  // the scale (row . q) / (q . q), so that the rounding error of scale * q is orthogonal to q: products of
  // close rows then lose nothing to first order.
  void (*round_bfloat)(float* row, int64_t columns, float* scale);
  // Steps of max|row| / 127. bias: see ProductScales.
  void (*round_int8)(float* row, int64_t columns, float* scale, int32_t* bias);
  // lanes rows of words, stride apart, side by side: to[k * panel_rows + r] = word k of row r.
  void (*interleave)(const float* rows, int64_t stride, int64_t groups, uint32_t* to);
};

const RowKernels* row_kernels(Isa isa);

}  // namespace ec
