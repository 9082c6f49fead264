// SPDX-License-Identifier: Apache-2.0
// A batch of queries.
#pragma once

#include <cstdint>

#include "ann/allowed.h"
#include "ann/search/query.h"
#include "capi/embedcore.h"
#include "core/internal.h"

namespace ec::ann {

struct SearchRequest {
  const float* queries = nullptr;  // [count][dim], contiguous
  int64_t count = 0;
  Wanted wanted;
  const Filters* filters = nullptr;  // null: no filters
  const int32_t* which = nullptr;    // of each query its filter, -1: none; null: all none
  int threads = 0;
  const ec_monitor* monitor = nullptr;
  // Results, [count][k] and [count]; slots padded with -1, distances with infinity.
  int64_t* slots = nullptr;
  float* distances = nullptr;
  int64_t* counts = nullptr;
};

// What one query's plan was and what it took.
struct Explanation {
  Plan plan;
  Work work;
};

// EC_INTERRUPTED, EC_OUT_OF_MEMORY. explanations may be null, else has room for count.
EC_INTERNAL ec_status search(const IndexData& index, const SearchRequest& request,
                             Explanation* explanations);

}  // namespace ec::ann
