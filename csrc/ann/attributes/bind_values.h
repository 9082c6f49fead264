// SPDX-License-Identifier: Apache-2.0
// From an operation and its operands to a predicate: which kinds go together, and exact bounds.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ann/attributes/predicate.h"

namespace ec::ann {

enum class Operation : uint8_t {
  kEqual = 1,
  kLess = 2,
  kLessEqual = 3,
  kGreater = 4,
  kGreaterEqual = 5,
  kBetween = 6,
  kIsIn = 7,
  kContains = 8,
  kContainsAny = 9,
  kContainsAll = 10,
  kIsNull = 11
};

struct Value {
  enum class Tag : uint8_t { kBool = 1, kInteger = 2, kNumber = 3, kText = 4, kDatetime = 5 };

  Tag tag = Tag::kBool;
  int64_t integer = 0;  // also bool and datetime
  double number = 0.0;
  std::string_view text;
};

// Throws KindError when columns of this kind do not have the operation.
void check_operation(const Column& column, Operation operation);

// Binds an operation. values: its operands. Requires: check_operation; operation is not kContainsAll with
// two values or more. KindError for values of another kind than the column's.
Predicate bind(const Column& column, Operation operation, const std::vector<Value>& values);

// contains_all of two values or more: all of these predicates.
std::vector<Predicate> bind_each(const Column& column, const std::vector<Value>& values);

}  // namespace ec::ann
