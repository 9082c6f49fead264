// SPDX-License-Identifier: Apache-2.0
// What all products of bf16 share; included by kernels only.
#pragma once

#include EC_ISA_HEADER
#include "attention/rows_ahead.h"

namespace ec {
namespace EC_ISA {

constexpr int kPairs = 2 * kLanes;  // numbers of a vector

static void round_weights(const float* weights, int64_t heads, int64_t tokens, uint16_t* rounded,
                          double* total) {
  for (int64_t j = 0; j < heads; ++j) {
    VF sum = zero();
    for (int64_t t = 0; t < tokens; t += kLanes) {
      const VF weight = round_to_bfloat(load(weights + j * kBlockTokens + t));
      store_bfloat(rounded + j * kBlockTokens + t, weight);
      sum = add(sum, weight);
    }
    if (total != nullptr) total[j] += sum_wide(sum);
  }
}

static void pair_rows(const uint16_t* rows, int64_t count, int64_t columns, int64_t row_stride,
                      int64_t pair_stride, uint32_t* pairs) {
  for (int64_t j = 0; j < count; j += 2, rows += 2 * row_stride, pairs += pair_stride)
    for (int64_t k = 0; k < columns; k += kPairs) {
      VI low, high;
      interleave_bfloat(load_int(rows + k), j + 1 < count ? load_int(rows + row_stride + k) : zero_int(),
                        &low, &high);
      store_int(pairs + k, low);
      store_int(pairs + k + kLanes, high);
    }
}

// The pool of one head: tokens in groups, each along all columns, as memory likes it.
static void pool_one(const uint16_t* const* rows, int64_t tokens, const uint16_t* rounded, int64_t columns,
                     const RowsAhead& ahead, float* pooled) {
  constexpr int kTogether = kTokenPadding;
  for (int64_t t = 0; t < tokens; t += kTogether) {
    const uint16_t* row[kTogether];
    const uint16_t* to_come[kTogether];
    VI weight[kTogether / 2];
    EC_UNROLL for (int i = 0; i < kTogether; ++i) {
      row[i] = rows[t + i];
      to_come[i] = row_ahead(ahead, t + i, row[i]);
    }
    EC_UNROLL for (int i = 0; i < kTogether / 2; ++i) weight[i] =
        t + 2 * i < tokens ? broadcast_group(reinterpret_cast<const uint32_t*>(rounded + t + 2 * i))
                           : zero_int();
    for (int64_t c = 0; c < columns; c += kPairs) {
      EC_UNROLL for (int i = 0; i < kTogether; ++i) fetch(to_come[i] + c);
      VF first = load(pooled + c), second = load(pooled + c + kLanes);
      EC_UNROLL for (int i = 0; i < kTogether / 2; ++i) {
        VI low, high;
        interleave_bfloat(load_int(row[2 * i] + c), load_int(row[2 * i + 1] + c), &low, &high);
        first = dot_bfloat_pairs(first, low, weight[i]);
        second = dot_bfloat_pairs(second, high, weight[i]);
      }
      store(pooled + c, first);
      store(pooled + c + kLanes, second);
    }
  }
}

}  // namespace EC_ISA
}  // namespace ec
