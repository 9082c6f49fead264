// SPDX-License-Identifier: Apache-2.0
// Codes: what a search reads instead of the vectors.
//
// A vector x is centred and turned: r = basis (x - mean), the leading `code_dims` directions of greatest
// variance, most varying first. r is kept as bytes round(r_k / scale) + 128, in two planes:
//   head  the first head_bytes - 16 numbers, then the row's four factors. One or a few cache lines a row;
//         scanned, and read at every step through the graph.
//   tail  the other numbers, padded with 128 (zero). Read for rows whose head promises something.
// A search ranks by score, greatest first: l2 and cosine (of unit vectors): (x - mean) . (q - mean) -
// |x - mean|^2 / 2; ip: (x - mean) . q.
#pragma once

#include <cstdint>

namespace ec {
namespace ann {

constexpr int64_t kFactorBytes = 16;
constexpr uint32_t kNoSlot = 0xffffffffu;

// The factors at the end of a row's head.
struct RowFactors {
  float head_scale;  // a step of the head's bytes
  float offset;      // -|x - mean|^2 / 2, or 0 for ip
  float tail_scale;
  float tail_norm;  // of the numbers that the tail's bytes round; of a centroid: see build/build.h
};
static_assert(sizeof(RowFactors) == kFactorBytes, "factors fill the end of a head");

struct CodeShape {
  int64_t dim = 0;
  int64_t code_dims = 0;
  int64_t head_bytes = 0;  // a multiple of 64
  int64_t tail_bytes = 0;  // a multiple of 64; 0: everything is in the head

  int64_t head_numbers() const { return head_bytes - kFactorBytes; }
};

inline const RowFactors& factors_of(const uint8_t* head, const CodeShape& shape) {
  return *reinterpret_cast<const RowFactors*>(head + shape.head_numbers());
}

// The other side of a product: signed bytes, zero where a head has its factors.
struct QueryCode {
  const int8_t* bytes;  // head_bytes, then tail_bytes; on a cache line
  float head_scale;
  float tail_scale;
  int32_t head_bias;  // 128 times the sum of the head's bytes
  int32_t tail_bias;
  float tail_norm;
  float square;  // |q - mean|^2, or |q|^2 for ip
};

}  // namespace ann
}  // namespace ec
