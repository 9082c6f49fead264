// SPDX-License-Identifier: Apache-2.0
// Bitsets of slots, and collecting slots that come in any order into an AllowedSet.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/allowed.h"

namespace ec::ann {

inline bool is_dense(int64_t count, int64_t rows) { return count > rows / kDenseShare; }
inline bool test_bit(const uint64_t* bits, int64_t i) { return (bits[i >> 6] >> (i & 63) & 1) != 0; }
inline void set_bit(uint64_t* bits, int64_t i) { bits[i >> 6] |= uint64_t{1} << (i & 63); }
inline void clear_bit(uint64_t* bits, int64_t i) { bits[i >> 6] &= ~(uint64_t{1} << (i & 63)); }

// Written so that compilers count several words at once without a population-count instruction.
inline uint64_t count_of_word(uint64_t word) {
  word -= word >> 1 & 0x5555555555555555;
  word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return word * 0x0101010101010101 >> 56;
}
int64_t count_bits(const uint64_t* bits, int64_t words);

// Calls visit(slot) for each bit set, ascending.
template <class Visit>
void for_each_bit(const uint64_t* bits, int64_t words, Visit&& visit) {
  for (int64_t w = 0; w < words; ++w)
    for (uint64_t word = bits[w]; word != 0; word &= word - 1) visit(w * 64 + __builtin_ctzll(word));
}

AllowedSet empty_set(int64_t rows);
AllowedSet full_set(int64_t rows);
AllowedSet set_of_sorted(std::vector<uint32_t> slots, int64_t rows);  // ascending, distinct
AllowedSet set_of_bits(std::vector<uint64_t> bits, int64_t rows, int64_t count);
AllowedSet complement(const AllowedSet& set);
AllowedSet both(const AllowedSet& a, const AllowedSet& b);
// Takes out those slots whose bit is not set.
void keep_in(const uint64_t* bits, std::vector<uint32_t>* slots);
// Takes out slots whose bit in live is not set. Requires: word_count(set.rows) words.
void restrict_to(const uint64_t* live, AllowedSet* set);

// A union in the making. While it is to be small, a byte for each word says whether the word is in use, so
// that reading it does not cost a look at all words.
class Collector {
 public:
  // expected: about how many slots will come; wrong guesses cost time only.
  Collector(int64_t rows, int64_t expected);

  void add(int64_t slot) {
    set_bit(bits_.data(), slot);
    if (!used_.empty()) used_[static_cast<size_t>(slot >> 6)] = 1;
  }
  void add(const uint32_t* slots, int64_t count);
  void add_bits(const uint64_t* bits, int64_t words);
  void add(const AllowedSet& set);
  void remove(int64_t slot) { clear_bit(bits_.data(), slot); }
  void remove(const uint32_t* slots, int64_t count);
  // To be written by the caller; words in use are then no longer known.
  uint64_t* all_bits() {
    used_.clear();
    return bits_.data();
  }
  const uint64_t* bits() const { return bits_.data(); }
  bool is_small() const { return !used_.empty(); }

  // count: how many slots are in it, -1 when that is to be found out. The collector is used up.
  AllowedSet finish(int64_t count = -1);

 private:
  template <class Visit>
  void for_each_used(Visit&& visit) const;

  int64_t rows_;
  std::vector<uint64_t> bits_;
  std::vector<uint8_t> used_;  // a multiple of eight; empty when the union is not small
};

// Sorts slots below rows.
void sort_slots(int64_t rows, std::vector<uint32_t>* slots);

}  // namespace ec::ann
