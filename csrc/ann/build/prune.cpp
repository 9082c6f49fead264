// SPDX-License-Identifier: Apache-2.0
#include "ann/build/prune.h"

#include <algorithm>

namespace ec {
namespace ann {

bool Pruner::allocate(int64_t capacity, const CodeShape& shape) {
  const int64_t room = round_up(capacity, kColumnStep);
  return left_.allocate(1, shape) && right_.allocate(room) && distances_.allocate(room) &&
         slots_.allocate(room) && alive_.allocate(room) && dropped_.allocate(room);
}

int64_t Pruner::prune(const CodedRows& rows, const Key* candidates, int64_t count, const PruneRule& rule,
                      const GraphKernels& kernels, Key* links) {
  for (int64_t i = 0; i < count; ++i) slots_[i] = slot_of(candidates[i]);
  std::copy_n(candidates, count, alive_.data());
  right_.load(rows, slots_.data(), count);
  int64_t linked = 0, dropped = 0, first = 0, alive = count;
  // Alive are [first, alive) of alive_ and right_: candidates that no link has dropped.
  while (first < alive && linked < rule.degree) {
    const Key chosen = alive_[first++];
    links[linked++] = chosen;
    if (first == alive || linked == rule.degree) break;
    const uint32_t slot = slot_of(chosen);
    left_.load(rows, &slot, 1, kernels);
    const int64_t from = first / kColumnStep * kColumnStep;  // arrays are padded to whole steps
    right_.pad(alive);
    kernels.distances(left_.codes(), 1, right_.codes(from), alive - from, distances_.data() + from, 0);
    int64_t kept = first;
    for (int64_t i = first; i < alive; ++i) {
      if (distances_[i] <= distance_of(alive_[i])) {
        dropped_[dropped++] = alive_[i];
        continue;
      }
      if (kept != i) {
        alive_[kept] = alive_[i];
        right_.move(i, kept);
      }
      ++kept;
    }
    alive = kept;
  }
  if (linked < rule.least && dropped > 0) {
    const int64_t more = std::min(rule.least - linked, dropped);
    std::partial_sort(dropped_.data(), dropped_.data() + more, dropped_.data() + dropped);
    std::copy_n(dropped_.data(), more, links + linked);
    linked += more;
    std::sort(links, links + linked);
  }
  return linked;
}

}  // namespace ann
}  // namespace ec
