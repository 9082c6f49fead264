// SPDX-License-Identifier: Apache-2.0
// An index as arrays, to be kept in a file, and back.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ann/index_data.h"
#include "core/internal.h"

namespace ec::ann {

enum class PartType { kBytes, kUint32, kUint64, kInt64, kFloat32, kFloat64 };

struct Part {
  const char* name;
  PartType type;
  const void* data;
  int64_t count;
};

// Calls visit(part) for every part; what a part points at lives for the call only, or as long as the index.
EC_INTERNAL void visit_parts(const IndexData& index, const std::function<void(const Part&)>& visit);

// The part of that name: its memory and number of elements. Throws std::invalid_argument where it is
// missing, of another type or misaligned.
using FindPart = std::function<Part(const char* name, PartType type)>;

// Borrows the arrays; owner keeps them. Throws std::invalid_argument for anything that a search could not
// bear.
EC_INTERNAL std::shared_ptr<const IndexData> from_parts(const FindPart& find, std::shared_ptr<void> owner);

}  // namespace ec::ann
