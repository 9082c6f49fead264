// SPDX-License-Identifier: Apache-2.0
// What a filter comes down to: the rows that pass. Searches know nothing else of attributes.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace ec::ann {

// A set of more than one row in kDenseShare is a bitset, which is then the smaller form.
constexpr int64_t kDenseShare = 32;

inline int64_t word_count(int64_t rows) { return (rows + 63) / 64; }

// Rows that pass, dead ones taken out. Never changed once a Filters holds it.
struct AllowedSet {
  int64_t rows = 0;             // of how many slots
  int64_t count = 0;            // how many pass
  std::vector<uint32_t> slots;  // ascending; filled iff !dense
  std::vector<uint64_t> bits;   // bit i of word i / 64; filled iff dense; word_count(rows), spare bits zero
  bool dense = false;           // Invariant: count > rows / kDenseShare
};

// The sets of a batch of filters over the same slots; equal filters share one set.
class Filters {
 public:
  using Set = std::shared_ptr<const AllowedSet>;

  Filters() = default;
  Filters(int64_t rows, std::vector<Set> sets) : rows_(rows), sets_(std::move(sets)) {}

  int64_t rows() const { return rows_; }
  int64_t size() const { return static_cast<int64_t>(sets_.size()); }
  const AllowedSet& operator[](int64_t i) const { return *sets_[static_cast<size_t>(i)]; }
  const Set& share(int64_t i) const { return sets_[static_cast<size_t>(i)]; }

 private:
  int64_t rows_ = 0;
  std::vector<Set> sets_;
};

}  // namespace ec::ann
