// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/given_sets.h"

#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include "ann/attributes/bits.h"
#include "ann/attributes/errors.h"

namespace ec::ann {

namespace {

constexpr uint64_t kLowBits = 0x7f7f7f7f7f7f7f7f;
constexpr uint64_t kHighBits = 0x8080808080808080;
constexpr uint64_t kGather = 0x0002040810204081;  // brings the high bit of byte i to bit 56 + i

// Bit i is set when byte i of eight is not zero.
uint64_t bits_of_bytes(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  const uint64_t nonzero = (((word & kLowBits) + kLowBits) | word) & kHighBits;
  return nonzero * kGather >> 56;
}

AllowedSet set_of_mask(const uint8_t* mask, int64_t rows) {
  std::vector<uint64_t> bits(static_cast<size_t>(word_count(rows)));
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8) bits[static_cast<size_t>(i >> 6)] |= bits_of_bytes(mask + i) << (i & 63);
  for (; i < rows; ++i)
    if (mask[i] != 0) set_bit(bits.data(), i);
  const int64_t count = count_bits(bits.data(), static_cast<int64_t>(bits.size()));
  return set_of_bits(std::move(bits), rows, count);
}

AllowedSet set_of_slots(const SlotList& list, int64_t rows) {
  Collector collector(rows, list.count);
  for (int64_t i = 0; i < list.count; ++i) {
    const int64_t slot = list.slots[i];
    if (slot < 0 || slot >= rows)
      fail_value("slot " + std::to_string(slot) + " is out of range: there are " + std::to_string(rows) +
                 " rows");
    collector.add(slot);
  }
  return collector.finish();
}

Filters::Set shared(AllowedSet set, const uint64_t* live) {
  if (live != nullptr) restrict_to(live, &set);
  return std::make_shared<const AllowedSet>(std::move(set));
}

}  // namespace

Filters filters_of_masks(const std::vector<const uint8_t*>& masks, int64_t rows, const uint64_t* live) {
  std::vector<Filters::Set> sets;
  std::unordered_map<const uint8_t*, size_t> first;
  for (const uint8_t* mask : masks) {
    const auto found = first.try_emplace(mask, sets.size());
    sets.push_back(found.second ? shared(set_of_mask(mask, rows), live) : sets[found.first->second]);
  }
  return {rows, std::move(sets)};
}

Filters filters_of_slots(const std::vector<SlotList>& lists, int64_t rows, const uint64_t* live) {
  std::vector<Filters::Set> sets;
  for (const SlotList& list : lists) sets.push_back(shared(set_of_slots(list, rows), live));
  return {rows, std::move(sets)};
}

Filters concatenate(const std::vector<const Filters*>& parts) {
  std::vector<Filters::Set> sets;
  for (const Filters* part : parts) {
    if (part->rows() != parts[0]->rows())
      fail_value("filters over " + std::to_string(parts[0]->rows()) + " and " +
                 std::to_string(part->rows()) + " rows cannot be one batch");
    for (int64_t i = 0; i < part->size(); ++i) sets.push_back(part->share(i));
  }
  return {parts.empty() ? 0 : parts[0]->rows(), std::move(sets)};
}

}  // namespace ec::ann
