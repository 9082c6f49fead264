// SPDX-License-Identifier: Apache-2.0
// Which rows pass, as a search asks: one by one, or the passing ones of a range.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ann/allowed.h"

namespace ec::ann {

class Passing {
 public:
  // set null: every row of `rows`.
  Passing(const AllowedSet* set, int64_t rows) : set_(set), rows_(rows) {
    if (set != nullptr && set->count == rows) set_ = nullptr;
    if (set_ != nullptr && set_->dense) bits_ = set_->bits.data();
  }

  bool all() const { return set_ == nullptr; }
  bool dense() const { return set_ == nullptr || bits_ != nullptr; }
  int64_t count() const { return set_ == nullptr ? rows_ : set_->count; }

  // Requires: dense().
  bool has(uint32_t slot) const { return bits_ == nullptr || (bits_[slot >> 6] >> (slot & 63) & 1) != 0; }

  // Calls body(slots, count) with the passing slots of [first, last), ascending, at most `room` at a time;
  // `room` is the size of buffer, at least 64.
  template <class Body>
  void for_each_block(int64_t first, int64_t last, uint32_t* buffer, int64_t room, Body&& body) const {
    if (set_ == nullptr) {
      for (int64_t at = first; at < last; at += room) {
        const int64_t count = std::min(room, last - at);
        for (int64_t i = 0; i < count; ++i) buffer[i] = static_cast<uint32_t>(at + i);
        body(buffer, count);
      }
    } else if (bits_ == nullptr) {
      const uint32_t* begin = std::lower_bound(set_->slots.data(), set_->slots.data() + set_->count, first);
      const uint32_t* end = std::lower_bound(begin, set_->slots.data() + set_->count, last);
      for (; begin < end; begin += room) body(begin, std::min<int64_t>(room, end - begin));
    } else {
      decode(first, last, buffer, room, body);
    }
  }

  // How many of [first, last) pass. Requires: dense().
  int64_t count_range(int64_t first, int64_t last) const {
    if (bits_ == nullptr || first >= last) return std::max<int64_t>(0, last - first);
    int64_t sum = 0;
    for (int64_t word = first >> 6; word <= (last - 1) >> 6; ++word) {
      sum += __builtin_popcountll(word_between(word, first, last));
    }
    return sum;
  }

 private:
  uint64_t word_between(int64_t word, int64_t first, int64_t last) const {
    uint64_t bits = bits_[word];
    if (word == first >> 6) bits &= ~uint64_t{0} << (first & 63);
    if (word == last >> 6) bits &= ~(~uint64_t{0} << (last & 63));
    return bits;
  }

  template <class Body>
  void decode(int64_t first, int64_t last, uint32_t* buffer, int64_t room, Body&& body) const {
    if (first >= last) return;
    int64_t count = 0;
    for (int64_t word = first >> 6; word <= (last - 1) >> 6; ++word) {
      const auto base = static_cast<uint32_t>(word << 6);
      for (uint64_t bits = word_between(word, first, last); bits != 0; bits &= bits - 1) {
        buffer[count++] = base + static_cast<uint32_t>(__builtin_ctzll(bits));
      }
      if (count + 64 > room) {
        body(buffer, count);
        count = 0;
      }
    }
    if (count > 0) body(buffer, count);
  }

  const AllowedSet* set_;
  int64_t rows_;
  const uint64_t* bits_ = nullptr;
};

}  // namespace ec::ann
