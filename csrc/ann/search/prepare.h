// SPDX-License-Identifier: Apache-2.0
// Queries made ready: unit length for cosine, and the codes of those whose plans need them.
#pragma once

#include <array>
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
  // Makes the codes of queries which[0] ... which[number - 1], together; does nothing when the index has
  // none. Throws bad_alloc.
  void encode(const int64_t* which, int64_t number);
  void encode_all();
  // Null for a query that has no code.
  const QueryCode* code(int64_t i) const {
    const int64_t place = place_[static_cast<size_t>(i)];
    return place < 0 ? nullptr : &scratch_.codes[static_cast<size_t>(place)];
  }

 private:
  const IndexData& index_;
  int64_t count_;
  Scratch& scratch_;
  std::array<int64_t, kQueryBlock> place_;  // of each query's code, or -1
};

}  // namespace ec::ann
