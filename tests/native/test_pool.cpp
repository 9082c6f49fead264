// SPDX-License-Identifier: Apache-2.0
// The pool of a search against a sorted list of all that it was offered.
#include "ann/search/pool.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "native/check.h"

namespace {

using ec::ann::better;
using ec::ann::Candidate;
using ec::ann::Pool;

// Scores repeat where there are few of them.
void is_what_sorting_gives(Pool& pool, int64_t least, int64_t rank, float margin, int offers,
                           uint32_t scores) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  pool.reset(least, rank, margin);
  std::vector<Candidate> all;
  uint32_t state = 1;
  float best = -kInfinity;
  for (int i = 0; i < offers; ++i) {
    state = state * 1664525u + 1013904223u;
    const auto score = static_cast<float>((state >> 8) % scores);
    pool.offer(score, static_cast<uint32_t>(i));
    all.push_back({score, static_cast<uint32_t>(i)});
    std::sort(all.begin(), all.end(), better);
    const auto last = static_cast<size_t>(rank - 1);
    best = all.size() > last ? all[last].score : -kInfinity;
    CHECK(pool.best() == best && pool.bar() == best - margin);
  }
  std::vector<Candidate> items = pool.items();
  std::sort(items.begin(), items.end(), better);
  const auto above = static_cast<size_t>(std::count_if(
      all.begin(), all.end(), [&](const Candidate& each) { return each.score > best - margin; }));
  const size_t kept = std::max(above, std::min(all.size(), static_cast<size_t>(least)));
  CHECK(items.size() == kept);
  for (size_t i = 0; i < std::min(kept, items.size()); ++i) CHECK(items[i].score == all[i].score);
}

}  // namespace

int main() {
  Pool pool;  // one for all, as a thread has one for its queries
  for (const int64_t size : {1, 2, 7, 72}) {
    for (const int64_t rank : {int64_t{1}, (size + 1) / 2, size}) {
      for (const int offers : {0, 1, static_cast<int>(size), static_cast<int>(2 * size), 500}) {
        for (const uint32_t scores : {1u, 5u, 1u << 20}) {
          for (const float margin : {0.0f, 2.0f, 3e5f, std::numeric_limits<float>::infinity()})
            is_what_sorting_gives(pool, size, rank, margin, offers, scores);
        }
      }
    }
  }
  return check::report();
}
