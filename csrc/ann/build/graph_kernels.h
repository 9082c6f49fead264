// SPDX-License-Identifier: Apache-2.0
// The loops of a build: distances between coded rows, and the nearest of them.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace ec {

// Rows as the left side of a product: signed bytes, zero where a head has its factors.
struct LeftCodes {
  const int8_t* bytes;  // [rows][head_bytes + tail_bytes]
  int64_t head_bytes;
  int64_t tail_bytes;
  const float* head_scale;
  const float* head_bias;  // 128 times the sum of the head's bytes
  const float* tail_scale;
  const float* tail_bias;
  const float* norm;
};

// Rows as the right side. Every array is filled up to a multiple of 16 rows.
struct RightCodes {
  const uint8_t* const* heads;
  const uint8_t* const* tails;  // not read where the left side has no tail
  const float* head_scale;
  const float* tail_scale;
  const float* norm;
};

struct GraphKernels {
  // out[r * stride + c] = |left row r - right row c|^2 from the codes, never negative. Writes up to a
  // multiple of 16 columns. Numerics: sums of products of a plane are exact below 2^24.
  void (*distances)(const LeftCodes& left, int64_t rows, const RightCodes& right, int64_t columns,
                    float* out, int64_t stride);
  // Appends (bits of distance) << 32 | slot of every column nearer than limit; how many. Requires:
  // distances are readable up to a multiple of 16.
  int64_t (*collect)(const float* distances, int64_t count, float limit, const uint32_t* slots,
                     uint64_t* keys);
  // The same for distances norm + norms[c] - 2 products[c].
  int64_t (*collect_products)(const float* products, const float* norms, int64_t count, float norm,
                              float limit, const uint32_t* slots, uint64_t* keys);
  // The first column with the least distance. Requires: count > 0.
  int64_t (*nearest)(const float* distances, int64_t count);
  // out = codes - 128; returns the sum of out.
  int32_t (*make_signed)(const uint8_t* codes, int64_t bytes, int8_t* out);
  // sums[i] += scale * (codes[i] - 128)
  void (*add_scaled)(const uint8_t* codes, int64_t count, float scale, float* sums);
};

const GraphKernels* graph_kernels(Isa isa);

}  // namespace ec
