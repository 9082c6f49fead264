// SPDX-License-Identifier: Apache-2.0
// Which slots hold a code: an ascending list for each, or a bitset where that is smaller.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/attributes/bits.h"

namespace ec::ann {

class Postings {
 public:
  // Where the slots of one entry are. Invariant: bits != null iff count > rows / kDenseShare.
  struct Slots {
    int64_t count = 0;
    const uint32_t* list = nullptr;
    const uint64_t* bits = nullptr;  // word_count(rows())
  };

  Postings() = default;
  // visit(found) calls found(entry, slot), with entry in [0, entries), for ascending slots in [0, rows)
  // and at most once for each pair. It is called twice and must do the same again.
  template <class Visit>
  Postings(int64_t rows, int64_t entries, Visit&& visit);

  int64_t rows() const { return rows_; }
  // Entries that there are not have no slots.
  Slots operator[](int64_t entry) const {
    if (entry >= static_cast<int64_t>(entries_.size())) return {};
    const Entry& found = entries_[static_cast<size_t>(entry)];
    if (!is_dense(found.count, rows_)) return {found.count, lists_.data() + found.begin, nullptr};
    return {found.count, nullptr, bitsets_.data() + found.begin};
  }
  int64_t size_bytes() const {
    return static_cast<int64_t>(entries_.size() * sizeof(Entry) + lists_.size() * sizeof(uint32_t) +
                                bitsets_.size() * sizeof(uint64_t));
  }

 private:
  struct Entry {
    int64_t begin = 0;  // in lists_, or in bitsets_
    int64_t count = 0;
  };

  int64_t rows_ = 0;
  std::vector<Entry> entries_;
  std::vector<uint32_t> lists_;
  std::vector<uint64_t> bitsets_;
};

template <class Visit>
Postings::Postings(int64_t rows, int64_t entries, Visit&& visit) : rows_(rows) {
  entries_.resize(static_cast<size_t>(entries));
  visit([&](int64_t entry, int64_t) { ++entries_[static_cast<size_t>(entry)].count; });
  int64_t listed = 0;
  int64_t words = 0;
  for (Entry& entry : entries_) {
    const bool dense = is_dense(entry.count, rows);
    entry.begin = dense ? words : listed;
    (dense ? words : listed) += dense ? word_count(rows) : entry.count;
  }
  lists_.resize(static_cast<size_t>(listed));
  bitsets_.resize(static_cast<size_t>(words));
  std::vector<int64_t> next(entries_.size());
  for (size_t i = 0; i < next.size(); ++i) next[i] = entries_[i].begin;
  visit([&](int64_t entry, int64_t slot) {
    const size_t i = static_cast<size_t>(entry);
    if (is_dense(entries_[i].count, rows))
      set_bit(bitsets_.data() + entries_[i].begin, slot);
    else
      lists_[static_cast<size_t>(next[i]++)] = static_cast<uint32_t>(slot);
  });
}

}  // namespace ec::ann
