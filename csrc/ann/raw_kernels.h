// SPDX-License-Identifier: Apache-2.0
// Loops over whole vectors, as they were given.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace ec {

enum class VectorDtype { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kInt8 = 3 };
constexpr int kVectorDtypes = 4;

struct VectorKernels {
  void (*widen)(const void* row, int64_t dim, float* to);
  // out[i] = row slots[i] . query. Numerics: float32 lanes, added in float64.
  void (*dot_listed)(const void* rows, int64_t row_bytes, const uint32_t* slots, int64_t count,
                     const float* query, int64_t dim, double* out);
  // out[i] = |row slots[i] - query|^2, from the differences.
  void (*square_listed)(const void* rows, int64_t row_bytes, const uint32_t* slots, int64_t count,
                        const float* query, int64_t dim, double* out);
};

constexpr int kProjectColumns = 48;  // what columns of a basis are padded to a multiple of

struct AnnRawKernels {
  VectorKernels vectors[kVectorDtypes];
  // out[i][j] = sum over k of rows[i][k] basis_j[k]. columns is a multiple of kProjectColumns; rows and out
  // are contiguous. basis: panels of kProjectColumns vectors, each [dim][kProjectColumns].
  void (*project)(const float* rows, int64_t count, const float* basis, int64_t dim, int64_t columns,
                  float* out);
  // bytes[k] = round(numbers[k] / scale) + 128, 128 from count to padded; the scale is max |numbers| / 127.
  // Returns the scale, 0 when all numbers are 0.
  float (*quantise)(const float* numbers, int64_t count, int64_t padded, uint8_t* bytes);
};

const AnnRawKernels* ann_raw_kernels(Isa isa);

}  // namespace ec
