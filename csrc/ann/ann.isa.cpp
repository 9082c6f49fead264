// SPDX-License-Identifier: Apache-2.0
// Products of codes; see kernels.h for what each does.
#include "ann/kernels.h"

#include EC_ISA_HEADER
#include "core/isa_table.h"

namespace ec {
namespace EC_ISA {

#define EC_UNROLL _Pragma("GCC unroll 16")

constexpr int kTogether = 4;  // rows whose sums, with the query, fit the registers of every instruction set
constexpr int kGroup = 16;    // rows scored side by side
constexpr int kAhead = 24;    // rows fetched before they are needed

static inline VF float_sums(VS acc) { return to_float((VI)acc); }

static inline void fetch(const uint8_t* row, int64_t bytes) {
  for (int64_t k = 0; k < bytes; k += 64) __builtin_prefetch(row + k, 0, 3);
}

// sums[i] = rows[i] . query for kLanes rows.
static inline VF dot_rows(const uint8_t* const* rows, int64_t bytes, const int8_t* query) {
  VF sums[kLanes];
  EC_UNROLL for (int first = 0; first < kLanes; first += kTogether) {
    VS acc[kTogether];
    EC_UNROLL for (int i = 0; i < kTogether; ++i) acc[i] = (VS)zero_int();
    for (int64_t k = 0; k < bytes; k += kByteStep) {
      EC_UNROLL for (int i = 0; i < kTogether; ++i) {
        acc[i] = dot_bytes(acc[i], rows[first + i] + k, query + k);
      }
    }
    EC_UNROLL for (int i = 0; i < kTogether; ++i) sums[first + i] = float_sums(acc[i]);
  }
  return sum_each(sums);
}

static inline float taken_off(int32_t bias) { return kBytesFromMiddle ? 0.0f : static_cast<float>(bias); }

static void score_group(const uint8_t* const* rows, int64_t head_bytes, const ann::QueryCode& query,
                        float reach, float* scores) {
  const VF bias = set1(taken_off(query.head_bias)), query_scale = set1(query.head_scale);
  EC_UNROLL for (int first = 0; first < kGroup; first += kLanes) {
    float scale[kLanes], offset[kLanes], tail_norm[kLanes];
    EC_UNROLL for (int i = 0; i < kLanes; ++i) {
      const auto* factors = reinterpret_cast<const ann::RowFactors*>(rows[first + i] + head_bytes) - 1;
      scale[i] = factors->head_scale;
      offset[i] = factors->offset;
      tail_norm[i] = factors->tail_norm;
    }
    const VF dots = sub(dot_rows(rows + first, head_bytes, query.bytes), bias);
    const VF least = fma(mul(dots, query_scale), load(scale), load(offset));
    store(scores + first, fma(set1(reach), load(tail_norm), least));
  }
}

static void score_listed(const uint8_t* heads, int64_t head_bytes, const uint32_t* slots, int64_t count,
                         const ann::QueryCode& query, float reach, float* scores) {
  const int64_t soon = count < kAhead ? count : kAhead;
  for (int64_t i = 0; i < soon; ++i) fetch(heads + slots[i] * head_bytes, head_bytes);
  for (int64_t first = 0; first < count; first += kGroup) {
    const uint8_t* rows[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      const int64_t at = first + i;
      rows[i] = heads + slots[at < count ? at : count - 1] * head_bytes;
      if (at + kAhead < count) fetch(heads + slots[at + kAhead] * head_bytes, head_bytes);
    }
    score_group(rows, head_bytes, query, reach, scores + first);
  }
}

static void score_range(const uint8_t* heads, int64_t head_bytes, int64_t first_slot, int64_t count,
                        const ann::QueryCode& query, float reach, float* scores) {
  const uint8_t* base = heads + first_slot * head_bytes;
  for (int64_t first = 0; first < count; first += kGroup) {
    const uint8_t* rows[kGroup];
    for (int i = 0; i < kGroup; ++i) {
      const int64_t at = first + i;
      rows[i] = base + (at < count ? at : count - 1) * head_bytes;
      if (at + kAhead < count) fetch(base + (at + kAhead) * head_bytes, head_bytes);
    }
    score_group(rows, head_bytes, query, reach, scores + first);
  }
}

static void add_tails(const uint8_t* heads, int64_t head_bytes, const uint8_t* tails, int64_t tail_bytes,
                      const uint32_t* slots, int64_t count, const ann::QueryCode& query, float reach,
                      float* scores) {
  const VF bias = set1(taken_off(query.tail_bias)), query_scale = set1(query.tail_scale);
  for (int64_t first = 0; first < count; first += kLanes) {
    const uint8_t* rows[kLanes];
    float scale[kLanes], tail_norm[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const int64_t slot = slots[first + i < count ? first + i : count - 1];
      const auto* factors = reinterpret_cast<const ann::RowFactors*>(heads + (slot + 1) * head_bytes) - 1;
      rows[i] = tails + slot * tail_bytes;
      scale[i] = factors->tail_scale;
      tail_norm[i] = factors->tail_norm;
    }
    const VF dots = sub(dot_rows(rows, tail_bytes, query.bytes + head_bytes), bias);
    const VF least = fnma(set1(reach), load(tail_norm), load(scores + first));
    store(scores + first, fma(mul(dots, query_scale), load(scale), least));
  }
}

static const AnnKernels kTable = {score_listed, score_range, add_tails};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(AnnKernels, ann)
