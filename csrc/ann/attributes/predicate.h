// SPDX-License-Identifier: Apache-2.0
// One comparison with one column, bound to it: labels are codes and numbers are keys.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/attributes/bits.h"
#include "ann/attributes/column.h"

namespace ec::ann {

// What passes. A null row passes kNull alone.
enum class Test : uint8_t {
  kNothing,
  kNull,
  kNotNull,
  kCode,      // category: the row's code is code; set: one of the row's codes is
  kCodes,     // the same for any of codes
  kInterval,  // low <= key <= high
  kPoints     // the key is one of points
};

struct Predicate {
  const Column* column = nullptr;
  Test test = Test::kNothing;
  int32_t code = -1;
  int64_t low = INT64_MIN;
  int64_t high = INT64_MAX;
  std::vector<int32_t> codes;       // ascending, distinct, two or more
  std::vector<uint64_t> is_member;  // of codes, over the dictionary; filled when there are many
  std::vector<int64_t> points;      // ascending, distinct, two or more

  SortedKeys::Run run;   // kInterval: where the index has the rows
  int64_t expected = 0;  // about how many rows pass
};

// Give the test its operands. Empty ones match nothing; one is as good as kCode or kInterval.
void set_codes(std::vector<int32_t> codes, Predicate* predicate);
void set_points(std::vector<int64_t> points, Predicate* predicate);
// Looks up what the index knows: run and expected. To be called once, when all else is set.
void prepare(Predicate* predicate);

// The rows that pass.
AllowedSet rows_of(const Predicate& predicate);
// Puts the rows that pass into a union.
void collect_rows(const Predicate& predicate, Collector* collector);
// pass[i] = 1 when slots[i] passes, else 0, from the values themselves.
void test_rows(const Predicate& predicate, const uint32_t* slots, int64_t count, uint8_t* pass);

// The rows that pass in no order, where that is cheaper than in order: false, and nothing, otherwise.
bool rows_unsorted(const Predicate& predicate, std::vector<uint32_t>* slots);
// Takes those that do not pass out of many slots by a bitset of all that do, where that is cheaper than to
// test one by one: false, and nothing done, otherwise.
bool keep_by_bits(const Predicate& predicate, std::vector<uint32_t>* slots);

}  // namespace ec::ann
