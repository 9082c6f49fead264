// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/bits.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ec::ann {

namespace {

// Zeroes the bits behind the last row.
void trim(int64_t rows, std::vector<uint64_t>* bits) {
  if ((rows & 63) != 0) bits->back() &= (uint64_t{1} << (rows & 63)) - 1;
}

constexpr size_t kComparedAtOnce = 48;  // slots: up to here sorting by comparisons is cheaper
constexpr int kMostDigitBits = 11;  // of a slot in one pass of sorting: counts stay in the fastest cache
constexpr int64_t kAhead = 4;       // slots written for each word at once; those too many are written over

// Writes the slots of words [begin, end) and returns the end of what was written. Words have few bits, in
// no order that a processor could predict, so the first kAhead are written without asking how many there
// are. Requires: room for kAhead slots behind the last.
void write_slots(const uint64_t* bits, int64_t words, uint32_t* to) {
  constexpr uint64_t kStop = uint64_t{1} << 63;  // counting zeros needs a bit
  for (int64_t w = 0; w < words; ++w) {
    uint64_t word = bits[w];
    if (word == 0) continue;
    const int64_t count = static_cast<int64_t>(count_of_word(word));
    const uint32_t base = static_cast<uint32_t>(w * 64);
    for (int64_t i = 0; i < kAhead; ++i, word &= word - 1)
      to[i] = base + static_cast<uint32_t>(__builtin_ctzll(word | kStop));
    for (int64_t i = kAhead; i < count; ++i, word &= word - 1)
      to[i] = base + static_cast<uint32_t>(__builtin_ctzll(word));
    to += count;
  }
}

std::vector<uint32_t> slots_of_bits(const std::vector<uint64_t>& bits, int64_t count) {
  std::vector<uint32_t> slots(static_cast<size_t>(count + kAhead));
  write_slots(bits.data(), static_cast<int64_t>(bits.size()), slots.data());
  slots.resize(static_cast<size_t>(count));
  return slots;
}

// Takes the slots out of ascending ones that keep(slot) refuses.
template <class Keep>
void filter_slots(std::vector<uint32_t>* slots, Keep&& keep) {
  size_t kept = 0;
  for (size_t i = 0; i < slots->size(); ++i) {
    const uint32_t slot = (*slots)[i];
    (*slots)[kept] = slot;
    kept += keep(slot) ? 1 : 0;
  }
  slots->resize(kept);
}

}  // namespace

int64_t count_bits(const uint64_t* bits, int64_t words) {
  uint64_t count = 0;
  for (int64_t w = 0; w < words; ++w) count += count_of_word(bits[w]);
  return static_cast<int64_t>(count);
}

AllowedSet empty_set(int64_t rows) {
  AllowedSet set;
  set.rows = rows;
  return set;
}

AllowedSet full_set(int64_t rows) {
  std::vector<uint64_t> bits(static_cast<size_t>(word_count(rows)), ~uint64_t{0});
  if (rows > 0) trim(rows, &bits);
  return set_of_bits(std::move(bits), rows, rows);
}

AllowedSet set_of_sorted(std::vector<uint32_t> slots, int64_t rows) {
  AllowedSet set;
  set.rows = rows;
  set.count = static_cast<int64_t>(slots.size());
  set.dense = is_dense(set.count, rows);
  if (!set.dense) {
    set.slots = std::move(slots);
    return set;
  }
  set.bits.resize(static_cast<size_t>(word_count(rows)));
  for (const uint32_t slot : slots) set_bit(set.bits.data(), slot);
  return set;
}

AllowedSet set_of_bits(std::vector<uint64_t> bits, int64_t rows, int64_t count) {
  AllowedSet set;
  set.rows = rows;
  set.count = count;
  set.dense = is_dense(count, rows);
  if (set.dense)
    set.bits = std::move(bits);
  else
    set.slots = slots_of_bits(bits, count);
  return set;
}

AllowedSet complement(const AllowedSet& set) {
  std::vector<uint64_t> bits;
  if (set.dense) {
    bits.resize(set.bits.size());
    for (size_t w = 0; w < bits.size(); ++w) bits[w] = ~set.bits[w];
  } else {
    bits.assign(static_cast<size_t>(word_count(set.rows)), ~uint64_t{0});
    for (const uint32_t slot : set.slots) clear_bit(bits.data(), slot);
  }
  if (set.rows > 0) trim(set.rows, &bits);
  return set_of_bits(std::move(bits), set.rows, set.rows - set.count);
}

void keep_in(const uint64_t* bits, std::vector<uint32_t>* slots) {
  filter_slots(slots, [&](uint32_t slot) { return test_bit(bits, slot); });
}

AllowedSet both(const AllowedSet& a, const AllowedSet& b) {
  if (a.dense && b.dense) {
    std::vector<uint64_t> bits(a.bits.size());
    uint64_t count = 0;
    for (size_t w = 0; w < bits.size(); ++w) {
      bits[w] = a.bits[w] & b.bits[w];
      count += count_of_word(bits[w]);
    }
    return set_of_bits(std::move(bits), a.rows, static_cast<int64_t>(count));
  }
  if (a.dense) return both(b, a);
  std::vector<uint32_t> slots = a.slots;
  if (b.dense) {
    keep_in(b.bits.data(), &slots);
  } else {
    size_t j = 0;
    filter_slots(&slots, [&](uint32_t slot) {
      while (j < b.slots.size() && b.slots[j] < slot) ++j;
      return j < b.slots.size() && b.slots[j] == slot;
    });
  }
  return set_of_sorted(std::move(slots), a.rows);
}

void restrict_to(const uint64_t* live, AllowedSet* set) {
  if (!set->dense) {
    keep_in(live, &set->slots);
    set->count = static_cast<int64_t>(set->slots.size());
    return;
  }
  uint64_t count = 0;
  for (size_t w = 0; w < set->bits.size(); ++w) {
    set->bits[w] &= live[w];
    count += count_of_word(set->bits[w]);
  }
  *set = set_of_bits(std::move(set->bits), set->rows, static_cast<int64_t>(count));
}

Collector::Collector(int64_t rows, int64_t expected) : rows_(rows) {
  bits_.resize(static_cast<size_t>(word_count(rows)));
  if (!is_dense(expected, rows)) used_.resize((bits_.size() + 7) / 8 * 8);
}

void Collector::add(const uint32_t* slots, int64_t count) {
  uint64_t* bits = bits_.data();
  if (used_.empty()) {
    for (int64_t i = 0; i < count; ++i) set_bit(bits, slots[i]);
    return;
  }
  uint8_t* used = used_.data();
  for (int64_t i = 0; i < count; ++i) {
    set_bit(bits, slots[i]);
    used[slots[i] >> 6] = 1;
  }
}

void Collector::add_bits(const uint64_t* bits, int64_t words) {
  uint64_t* to = all_bits();
  for (int64_t w = 0; w < words; ++w) to[w] |= bits[w];
}

void Collector::add(const AllowedSet& set) {
  if (set.dense)
    add_bits(set.bits.data(), static_cast<int64_t>(set.bits.size()));
  else
    add(set.slots.data(), set.count);
}

void Collector::remove(const uint32_t* slots, int64_t count) {
  for (int64_t i = 0; i < count; ++i) clear_bit(bits_.data(), slots[i]);
}

// Calls visit(w) for each word in use, ascending.
template <class Visit>
void Collector::for_each_used(Visit&& visit) const {
  for (size_t begin = 0; begin < used_.size(); begin += 8) {
    uint64_t eight;
    std::memcpy(&eight, used_.data() + begin, 8);
    for (; eight != 0; eight &= eight - 1) visit(static_cast<int64_t>(begin) + __builtin_ctzll(eight) / 8);
  }
}

AllowedSet Collector::finish(int64_t count) {
  const int64_t words = static_cast<int64_t>(bits_.size());
  if (!is_small()) {
    if (count < 0) count = count_bits(bits_.data(), words);
    return set_of_bits(std::move(bits_), rows_, count);
  }
  if (count < 0) {
    count = 0;
    for_each_used([&](int64_t w) { count += count_of_word(bits_[static_cast<size_t>(w)]); });
  }
  // With a slot or more in each word, passing words by is no gain.
  if (is_dense(count, rows_) || count > words) return set_of_bits(std::move(bits_), rows_, count);
  std::vector<uint32_t> slots(static_cast<size_t>(count));
  uint32_t* to = slots.data();
  for_each_used([&](int64_t w) {
    for (uint64_t word = bits_[static_cast<size_t>(w)]; word != 0; word &= word - 1)
      *to++ = static_cast<uint32_t>(w * 64 + __builtin_ctzll(word));
  });
  return set_of_sorted(std::move(slots), rows_);
}

void sort_slots(int64_t rows, std::vector<uint32_t>* slots) {
  if (slots->size() <= kComparedAtOnce) {
    std::sort(slots->begin(), slots->end());
    return;
  }
  int bits = 1;
  while (bits < 32 && rows > int64_t{1} << bits) ++bits;
  const int passes = (bits + kMostDigitBits - 1) / kMostDigitBits;
  const int digit_bits = (bits + passes - 1) / passes;
  const uint32_t mask = (uint32_t{1} << digit_bits) - 1;
  std::vector<uint32_t> other(slots->size());
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = pass * digit_bits;
    uint32_t next[1 << kMostDigitBits];
    std::fill(next, next + mask + 1, 0u);
    for (const uint32_t slot : *slots) ++next[slot >> shift & mask];
    uint32_t sum = 0;
    for (uint32_t digit = 0; digit <= mask; ++digit) sum += std::exchange(next[digit], sum);
    for (const uint32_t slot : *slots) other[next[slot >> shift & mask]++] = slot;
    slots->swap(other);
  }
}

}  // namespace ec::ann
