// SPDX-License-Identifier: Apache-2.0
// A filter as bytes, read and bound to a table.
//
// The bytes are postfix; integers are little-endian:
//   leaf      opcode u8, column (u16 length, UTF-8), operands
//             EQ 1 v | LT 2 v | LE 3 v | GT 4 v | GE 5 v | BETWEEN 6 v v | ISIN 7 u32 count, v...
//             CONTAINS 8 v | CONTAINS_ANY 9 u32 count, v... | CONTAINS_ALL 10 u32 count, v... | IS_NULL 11
//   node      AND 32 u32 arity | OR 33 u32 arity | NOT 34
//   constant  ALL 48 | NONE 49
//   value v   tag u8, then: bool 1 u8 | integer 2 i64 | number 3 f64 | text 4 u32 length, UTF-8 |
//             datetime 5 i64 nanoseconds
// Logic is two-valued: a comparison with a null row is false, and NOT of it true.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ann/attributes/predicate.h"
#include "ann/attributes/table.h"

namespace ec::ann {

constexpr int64_t kMostDepth = 200;
constexpr int64_t kMostProgramBytes = int64_t{16} << 20;

struct Node {
  enum class Kind : uint8_t { kLeaf, kAnd, kOr, kNot, kAll, kNone };

  Kind kind = Kind::kNone;
  int32_t depth = 1;
  int32_t begin = 0;  // leaf: its predicate; else the first of its children
  int32_t end = 0;
  int64_t expected = 0;  // about how many rows pass
};

struct Program {
  std::vector<Node> nodes;  // children before parents; the last is the root
  std::vector<int32_t> children;
  std::vector<Predicate> predicates;

  const Node& root() const { return nodes.back(); }
};

// Throws ValueError for bytes that are no program and for unknown columns, KindError for operations and
// values that do not suit their column. What was in *program is gone.
void parse_program(std::string_view bytes, const Table& table, Program* program);

}  // namespace ec::ann
