// SPDX-License-Identifier: Apache-2.0
// Queries made ready: unit length for cosine, and their codes when a plan first asks for them.
#pragma once

#include <cstdint>

#include "ann/index_data.h"
#include "ann/search/scratch.h"

namespace ec::ann {

class PreparedQueries {
 public:
  // Queries order[0] ... order[count - 1] of `queries`, count <= kQueryBlock. Throws bad_alloc.
  PreparedQueries(const IndexData& index, const float* queries, const int64_t* order, int64_t count,
                  Scratch& scratch);

  const float* vector(int64_t i) const { return scratch_.unit_queries.data() + i * index_.dim; }
  // Null when the index has no codes.
  const QueryCode* code(int64_t i);

 private:
  const IndexData& index_;
  int64_t count_;
  Scratch& scratch_;
  bool coded_ = false;
};

}  // namespace ec::ann
