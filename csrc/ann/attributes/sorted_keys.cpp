// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/sorted_keys.h"

#include <algorithm>
#include <utility>

namespace ec::ann {

namespace {

// Collecting a run costs this many single slots on average beside the words of two bitsets; the
// bitsets cost at most four bytes a row.
constexpr int64_t kLeastPrefixStep = 2048;

struct Pair {
  uint64_t key;  // in the order of unsigned numbers
  uint32_t slot;
};

constexpr uint64_t kSign = uint64_t{1} << 63;

// Stable, so equal keys keep the order of their slots.
void radix_sort(std::vector<Pair>* pairs) {
  uint64_t varying = 0;
  for (const Pair& pair : *pairs) varying |= pair.key ^ pairs->front().key;
  std::vector<Pair> other(pairs->size());
  for (int shift = 0; shift < 64; shift += 8) {
    if ((varying >> shift & 255) == 0) continue;
    size_t start[257] = {};
    for (const Pair& pair : *pairs) ++start[(pair.key >> shift & 255) + 1];
    for (int digit = 0; digit < 256; ++digit) start[digit + 1] += start[digit];
    for (const Pair& pair : *pairs) other[start[pair.key >> shift & 255]++] = pair;
    pairs->swap(other);
  }
}

// The first position whose key is not below key.
int64_t lower_bound(const int64_t* keys, int64_t size, int64_t key) {
  const int64_t* base = keys;
  while (size > 1) {  // without branches that depend on the keys
    const int64_t half = size / 2;
    base += base[half - 1] < key ? half : 0;
    size -= half;
  }
  return base - keys + (size == 1 && *base < key ? 1 : 0);
}

}  // namespace

SortedKeys::SortedKeys(int64_t rows, const int64_t* keys, const uint8_t* nulls) {
  std::vector<Pair> pairs;
  pairs.reserve(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i)
    if (nulls == nullptr || nulls[i] == 0)
      pairs.push_back({static_cast<uint64_t>(keys[i]) ^ kSign, static_cast<uint32_t>(i)});
  radix_sort(&pairs);
  keys_.resize(pairs.size());
  slots_.resize(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    keys_[i] = static_cast<int64_t>(pairs[i].key ^ kSign);
    slots_[i] = pairs[i].slot;
  }
  make_prefixes(rows);
}

void SortedKeys::make_prefixes(int64_t rows) {
  words_ = word_count(rows);
  prefix_step_ = std::max(kLeastPrefixStep, rows / kDenseShare);
  const int64_t count = size() / prefix_step_;
  prefixes_.resize(static_cast<size_t>(count * words_));
  for (int64_t p = 0; p < count; ++p) {
    uint64_t* bits = prefixes_.data() + p * words_;
    if (p > 0) std::copy(bits - words_, bits, bits);
    for (int64_t i = p * prefix_step_; i < (p + 1) * prefix_step_; ++i)
      set_bit(bits, slots_[static_cast<size_t>(i)]);
  }
}

SortedKeys::Run SortedKeys::find(int64_t low, int64_t high) const {
  if (low > high) return {};
  const int64_t begin = lower_bound(keys(), size(), low);
  const int64_t end = high == INT64_MAX ? size() : lower_bound(keys(), size(), high + 1);
  return {begin, end};
}

void SortedKeys::collect(Run run, bool first, Collector* collector) const {
  // Prefix p has the slots [0, p * prefix_step_) of the order, p in [0, prefixes]. In an empty collector it
  // may reach beyond the run: what is too much is taken out again.
  const int64_t prefixes = words_ == 0 ? 0 : static_cast<int64_t>(prefixes_.size()) / words_;
  const int64_t below_round = first ? prefix_step_ / 2 : prefix_step_ - 1;
  const int64_t above_round = first ? prefix_step_ / 2 : 0;
  const int64_t below = (run.begin + below_round) / prefix_step_;
  const int64_t above = std::min((run.end + above_round) / prefix_step_, prefixes);
  if (below >= above) return collector->add(slots() + run.begin, run.size());
  uint64_t* bits = collector->all_bits();
  const uint64_t* upper = prefixes_.data() + (above - 1) * words_;
  if (below == 0) {
    for (int64_t w = 0; w < words_; ++w) bits[w] |= upper[w];
  } else {
    const uint64_t* lower = prefixes_.data() + (below - 1) * words_;
    for (int64_t w = 0; w < words_; ++w) bits[w] |= upper[w] & ~lower[w];
  }
  const int64_t from = below * prefix_step_;
  const int64_t to = above * prefix_step_;
  if (from > run.begin) collector->add(slots() + run.begin, from - run.begin);
  if (from < run.begin) collector->remove(slots() + from, run.begin - from);
  if (to < run.end) collector->add(slots() + to, run.end - to);
  if (to > run.end) collector->remove(slots() + run.end, to - run.end);
}

}  // namespace ec::ann
