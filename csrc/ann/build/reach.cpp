// SPDX-License-Identifier: Apache-2.0
#include "ann/build/reach.h"

#include <algorithm>
#include <atomic>

#include "core/parallel.h"

namespace ec {
namespace ann {

namespace {

constexpr int64_t kTaskRows = 512;
constexpr int64_t kFound = 1024;  // rows that a task holds back, so that few share the end of the queue
constexpr int64_t kAhead = 6;     // rows whose links are fetched before they are needed

}  // namespace

// What is marked are the rows that there is a chain to, whoever follows it first.
template <class Accept>
ec_status Reach::spread(uint32_t row, std::vector<uint8_t>* marks, const Accept& accept) {
  uint8_t* marked = marks->data();
  const int64_t degree = options_.degree;
  std::atomic<int64_t> end{1};
  marked[row] = 1;
  queue_[0] = row;
  for (int64_t first = 0, last = 1; first < last; first = last, last = end) {
    const int64_t tasks = (last - first + kTaskRows - 1) / kTaskRows;
    const ec_status status =
        parallel_for(tasks, options_.threads, options_.monitor, [&](int64_t task, int /*worker*/) {
          uint32_t found[kFound];
          int64_t count = 0;
          const auto flush = [&] {
            std::copy_n(found, count, queue_.data() + end.fetch_add(count, std::memory_order_relaxed));
            count = 0;
          };
          const int64_t begin = first + task * kTaskRows, until = std::min(last, begin + kTaskRows);
          for (int64_t i = begin; i < until; ++i) {
            const uint32_t from = queue_[i];
            const char* soon =
                reinterpret_cast<const char*>(links_of(queue_[std::min(i + kAhead, last - 1)]));
            for (int64_t at = 0; at < degree * 4; at += 64) __builtin_prefetch(soon + at);
            if (count + degree > kFound) flush();
            for (int64_t e = 0; e < degree && links_of(from)[e] != kNoSlot; ++e) {
              const uint32_t to = links_of(from)[e];
              if (__atomic_load_n(marked + to, __ATOMIC_RELAXED) != 0 || !accept(from, to)) continue;
              if (__atomic_exchange_n(marked + to, uint8_t{1}, __ATOMIC_RELAXED) == 0) found[count++] = to;
            }
          }
          flush();
        });
    if (status != EC_OK) return status;
  }
  return EC_OK;
}

ec_status Reach::mark_from(uint32_t row, std::vector<uint8_t>* marks) {
  return spread(row, marks, [](uint32_t, uint32_t) { return true; });
}

ec_status Reach::mark_most_to(uint32_t row, std::vector<uint8_t>* marks) {
  return spread(row, marks,
                [this](uint32_t from, uint32_t to) { return !graph_.is_twin(to) && leads_to(to, from); });
}

bool Reach::leads_to(uint32_t from, uint32_t to) const {
  const uint32_t* links = links_of(from);
  for (int64_t e = 0; e < options_.degree && links[e] != kNoSlot; ++e) {
    if (links[e] == to) return true;
  }
  return false;
}

}  // namespace ann
}  // namespace ec
