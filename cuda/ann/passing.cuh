// SPDX-License-Identifier: Apache-2.0
// Which rows pass, as searches see it: lists of slots.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ec::cuda::ann {

// The slots that pass each filter of a batch.
struct PassingLists {
  const uint32_t* slots;  // [filters][stride]
  int64_t stride;
  const int64_t* counts;  // of each filter
  const uint32_t* every;  // filter -1: living slots; null: all of them
  int64_t every_count;

  __device__ int64_t count(int filter) const { return filter < 0 ? every_count : counts[filter]; }
  __device__ uint32_t slot(int filter, int64_t i) const {
    if (filter >= 0) return slots[filter * stride + i];
    return every == nullptr ? static_cast<uint32_t>(i) : every[i];
  }
};

}  // namespace ec::cuda::ann
