// SPDX-License-Identifier: Apache-2.0
// The loops of a search over coded rows. Those over whole vectors are in raw_kernels.h.
#pragma once

#include <cstdint>

#include "ann/codes.h"
#include "core/dispatch.h"

namespace ec {

constexpr int kScoresWritten = 16;  // scores are written up to a multiple of this

struct AnnKernels {
  // scores[i] = factors.head_scale query.head_scale (head . query) + factors.offset + reach
  // factors.tail_norm of row slots[i]. Writes up to a multiple of kScoresWritten scores. Numerics: the
  // integer sum is exact below 2^24.
  void (*score_listed)(const uint8_t* heads, int64_t head_bytes, const uint32_t* slots, int64_t count,
                       const ann::QueryCode& query, float reach, float* scores);
  // The same of rows first, first + 1, ...
  void (*score_range)(const uint8_t* heads, int64_t head_bytes, int64_t first, int64_t count,
                      const ann::QueryCode& query, float reach, float* scores);
  // scores[i] += factors.tail_scale query.tail_scale (tail . query) - reach factors.tail_norm of row
  // slots[i]: from what tails may add to what they do. count <= kScoresWritten, and room for that many
  // scores.
  void (*add_tails)(const uint8_t* heads, int64_t head_bytes, const uint8_t* tails, int64_t tail_bytes,
                    const uint32_t* slots, int64_t count, const ann::QueryCode& query, float reach,
                    float* scores);
};

const AnnKernels* ann_kernels(Isa isa);

}  // namespace ec
