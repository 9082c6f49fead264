// SPDX-License-Identifier: Apache-2.0
// A filter as steps over a stack of bits, for machines without recursion: the form that a GPU runs.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ann/attributes/table.h"
#include "core/internal.h"

namespace ec::ann {

// What a step does with the stack. The first ones are of nodes, the others of a column.
enum class StepKind : int64_t {
  kPushFalse,
  kPushTrue,
  kNot,
  kAnd,  // of the two on top
  kOr,
  kPushNull,
  kPushNotNull,
  kPushCode,      // first: the code
  kPushCodes,     // [first, last) of the constants
  kPushInterval,  // first <= key <= last
  kPushPoints     // as codes
};

struct Step {
  StepKind kind;
  int64_t column;
  int64_t first, last;
};
static_assert(sizeof(Step) == 4 * sizeof(int64_t), "steps are sent as rows of four numbers");

// Programs one behind the other.
struct Steps {
  std::vector<Step> steps;
  std::vector<int64_t> starts = {0};  // of each program, and where the last ends
  std::vector<int64_t> constants;     // ascending in each step
};

// What is deeper comes first, so that the stack holds no more than log2(leaves) + 1 bits. Throws as
// parse_program does.
EC_INTERNAL Steps steps_of(const Table& table, const std::vector<std::string_view>& programs);

}  // namespace ec::ann
