// SPDX-License-Identifier: Apache-2.0
#include "ann/search/search.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <new>
#include <vector>

#include "ann/search/prepare.h"
#include "core/parallel.h"

namespace ec::ann {
namespace {

void write_result(const SearchRequest& request, int64_t number, const std::vector<Candidate>& found) {
  const int64_t k = request.wanted.k;
  const auto count = static_cast<int64_t>(found.size());
  int64_t* slots = request.slots + number * k;
  float* distances = request.distances + number * k;
  for (int64_t i = 0; i < k; ++i) {
    slots[i] = i < count ? static_cast<int64_t>(found[static_cast<size_t>(i)].slot) : -1;
    distances[i] = i < count ? found[static_cast<size_t>(i)].score : std::numeric_limits<float>::infinity();
  }
  request.counts[number] = count;
}

const AllowedSet* set_of(const IndexData& index, const SearchRequest& request, int64_t number) {
  const int32_t which = request.which == nullptr ? -1 : request.which[number];
  return which < 0 ? index.alive.get() : &(*request.filters)[which];
}

// A query, and how it is answered.
struct Asked {
  int64_t number;
  Explanation explanation;
  Query query;
};

// Queries [first, last) of a block, which have one filter, and their plan as far as their number of passing
// rows settles it.
struct Group {
  int64_t first, last;
  Passing passing;
  Plan plan;
  bool settled;

  bool needs_codes() const { return !settled || plan.kind == PlanKind::kList; }
};

// Some queries in the order of their filters, prepared together.
class Block {
 public:
  Block(const IndexData& index, const SearchRequest& request, Explanation* explanations,
        const int64_t* numbers, int64_t count)
      : index_(index),
        request_(request),
        aimed_(aimed_at(index.metric, request.wanted)),
        explanations_(explanations),
        numbers_(numbers),
        count_(count),
        scratch_(Scratch::of_this_thread()),
        prepared_(index, request.queries, numbers, count, scratch_) {}

  void run() {
    std::vector<Group> groups;
    std::vector<int64_t> coded;
    for (int64_t first = 0, last = 0; first < count_; first = last) {
      for (last = first + 1; last < count_ && filter_of(last) == filter_of(first); ++last) {
      }
      Group group{first, last, Passing(set_of(index_, request_, numbers_[first]), index_.rows), {}, false};
      group.plan = plan_by_count(index_, group.passing.count(), aimed_, &group.settled);
      for (int64_t i = first; group.needs_codes() && i < last; ++i) coded.push_back(i);
      groups.push_back(group);
    }
    prepared_.encode(coded.data(), static_cast<int64_t>(coded.size()));
    for (const Group& group : groups) run_group(group);
  }

 private:
  int32_t filter_of(int64_t i) const {
    return request_.which == nullptr ? -1 : request_.which[numbers_[i]];
  }

  // Those that take the list go through its rows together, which then are in the cache for all but the
  // first.
  void run_group(const Group& group) {
    std::vector<Asked> listed;
    listed.reserve(static_cast<size_t>(group.last - group.first));
    for (int64_t i = group.first; i < group.last; ++i) {
      Asked asked = plan(i, group);
      if (asked.explanation.plan.kind == PlanKind::kList) {
        listed.push_back(asked);
        continue;
      }
      asked.query.run(asked.explanation.plan, request_.wanted.k);
      write(asked);
    }
    if (listed.empty()) return;
    for (Asked& asked : listed) asked.query.start_list(asked.explanation.plan);
    group.passing.for_each_block(0, index_.rows, scratch_.slots.data(), kScoreBlock,
                                 [&](const uint32_t* slots, int64_t count) {
                                   for (Asked& asked : listed) asked.query.offer_block(slots, count);
                                 });
    for (Asked& asked : listed) {
      asked.query.finish_list(asked.explanation.plan, request_.wanted.k);
      write(asked);
    }
  }

  Asked plan(int64_t i, const Group& group) {
    Explanation explanation;
    explanation.plan = group.plan;
    Query query(index_, group.passing, prepared_.vector(i), prepared_.code(i), scratch_, i);
    if (!group.settled && group.passing.dense()) {
      const float share = group.passing.all() ? 1.0f : query.local_share();
      explanation.plan = plan_by_share(index_, group.passing.count(), share, query.usual(), aimed_);
    }
    return {numbers_[i], explanation, query};
  }

  void write(Asked& asked) const {
    write_result(request_, asked.number, asked.query.found());
    asked.explanation.work = asked.query.work();
    if (explanations_ != nullptr) explanations_[asked.number] = asked.explanation;
  }

  const IndexData& index_;
  const SearchRequest& request_;
  const Wanted aimed_;
  Explanation* explanations_;
  const int64_t* numbers_;
  int64_t count_;
  Scratch& scratch_;
  PreparedQueries prepared_;
};

ec_status search_all(const IndexData& index, const SearchRequest& request, Explanation* explanations) {
  // Equal filters side by side: what they need is in the cache.
  std::vector<int64_t> order(static_cast<size_t>(request.count));
  for (int64_t i = 0; i < request.count; ++i) order[static_cast<size_t>(i)] = i;
  if (request.which != nullptr) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return request.which[a] < request.which[b]; });
  }
  // Queries are projected in blocks, but few of them are spread over all threads. Results do not depend on
  // it.
  const int64_t workers = worker_count(request.count, request.threads);
  const int64_t size =
      workers <= 1 ? kQueryBlock : std::clamp<int64_t>(request.count / (2 * workers), 1, kQueryBlock);
  const int64_t blocks = (request.count + size - 1) / size;
  std::atomic<bool> out_of_memory{false};
  const ec_status status = parallel_for(blocks, request.threads, request.monitor, [&](int64_t block, int) {
    try {
      const int64_t first = block * size;
      const int64_t count = std::min(size, request.count - first);
      Block(index, request, explanations, order.data() + first, count).run();
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  });
  return out_of_memory ? EC_OUT_OF_MEMORY : status;
}

}  // namespace

ec_status search(const IndexData& index, const SearchRequest& request, Explanation* explanations) {
  try {
    return search_all(index, request, explanations);
  } catch (const std::bad_alloc&) {
    return EC_OUT_OF_MEMORY;
  }
}

}  // namespace ec::ann
