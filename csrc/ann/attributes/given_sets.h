// SPDX-License-Identifier: Apache-2.0
// Filters that come as masks or as slots, not as programs.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/allowed.h"
#include "core/internal.h"

namespace ec::ann {

struct SlotList {
  const int64_t* slots = nullptr;
  int64_t count = 0;
};

// One set for each mask of rows bytes, nonzero where the row passes. Equal pointers share a set. live: a
// bitset over slots, or null when all are alive.
EC_INTERNAL Filters filters_of_masks(const std::vector<const uint8_t*>& masks, int64_t rows,
                                     const uint64_t* live);
// One set for each list, in any order and with duplicates. Throws ValueError for a slot out of range.
EC_INTERNAL Filters filters_of_slots(const std::vector<SlotList>& lists, int64_t rows,
                                     const uint64_t* live);
// All sets in turn. Throws ValueError unless all are over equally many slots.
EC_INTERNAL Filters concatenate(const std::vector<const Filters*>& parts);

}  // namespace ec::ann
