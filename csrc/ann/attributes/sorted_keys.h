// SPDX-License-Identifier: Apache-2.0
// Slots in the order of their numbers: an interval of values is a run of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ann/attributes/bits.h"

namespace ec::ann {

class SortedKeys {
 public:
  struct Run {
    int64_t begin = 0;
    int64_t end = 0;
    int64_t size() const { return end - begin; }
  };

  SortedKeys() = default;
  // nulls may be null; rows that are null are left out.
  SortedKeys(int64_t rows, const int64_t* keys, const uint8_t* nulls);

  int64_t size() const { return static_cast<int64_t>(keys_.size()); }
  const int64_t* keys() const { return keys_.data(); }
  const uint32_t* slots() const { return slots_.data(); }
  // Rows with low <= key <= high. Equal keys are in ascending order of slots.
  Run find(int64_t low, int64_t high) const;
  // Puts the rows of a run into a collector that is not small. first: it is empty.
  void collect(Run run, bool first, Collector* collector) const;
  // About how many single slots collect() handles, beside two words for each 64 rows.
  int64_t collect_steps(Run run) const { return std::min(run.size(), prefix_step_); }
  int64_t size_bytes() const {
    return static_cast<int64_t>(keys_.size() * 8 + slots_.size() * 4 + prefixes_.size() * 8);
  }

 private:
  void make_prefixes(int64_t rows);

  std::vector<int64_t> keys_;
  std::vector<uint32_t> slots_;
  // Bitset p holds the first (p + 1) prefix_step_ slots: long runs are differences of two of these.
  int64_t prefix_step_ = 0;
  int64_t words_ = 0;
  std::vector<uint64_t> prefixes_;
};

}  // namespace ec::ann
