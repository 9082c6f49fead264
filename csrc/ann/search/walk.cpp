// SPDX-License-Identifier: Apache-2.0
// The graph plan: the rows of the nearest cells start a best-first walk.
//
// Where many rows near the query pass, failing rows are walked through like others and only kept out of the
// results. Where few do, only passing rows are scored, those two links away included, with a few failing
// rows as bridges when there are none.
#include <algorithm>
#include <cmath>

#include "ann/search/query.h"

namespace ec::ann {
namespace {

constexpr int64_t kMostNeighbours = 2 * kDegree;
constexpr size_t kFewNeighbours = 4;  // fewer passing ones: bridges are let in
constexpr size_t kBridges = 8;
// A few rows each of so many more cells, in case the nearest are not the right ones.
constexpr int kSeedCells = 12;

}  // namespace

float Query::wanted_beyond(const Plan& plan) const {
  const float bar = pool_.best();
  return std::isinf(bar) ? bar : beyond(bar, plan.slack);
}

void Query::start_walk(const Plan& plan) {
  scratch_.visited.clear(index_.graph_rows);
  start_list(plan);
  collect_cells(kSeedRows, false, kSeedCells);
  for (const Candidate& seed : pool_.items()) {
    if (trace_ != nullptr) trace_->meet(seed.slot, 0.0f);
    if (seed.slot >= index_.graph_rows) continue;  // of the tail: no links
    scratch_.visited.mark(seed.slot);
    scratch_.frontier.push_back(seed);
  }
  std::make_heap(scratch_.frontier.begin(), scratch_.frontier.end(), worse);
  if (left_out_ != kNoSlot) scratch_.visited.mark(left_out_);
}

// Fills scratch_.slots with unvisited neighbours to be scored and marks them. The number is neighbours_.
void Query::gather_neighbours(uint32_t slot, bool two_steps) {
  const uint32_t* links = index_.links.data() + static_cast<int64_t>(slot) * kDegree;
  Marks& visited = scratch_.visited;
  uint32_t* to = scratch_.slots.data();
  int64_t count = 0;
  scratch_.failing.clear();
  for (int i = 0; i < kDegree && links[i] != kNoSlot; ++i) {
    const uint32_t next = links[i];
    if (visited.marked(next)) continue;
    visited.mark(next);
    if (!two_steps || passing_.has(next)) {
      to[count++] = next;
    } else {
      scratch_.failing.push_back(next);
      __builtin_prefetch(index_.links.data() + static_cast<int64_t>(next) * kDegree);
      __builtin_prefetch(index_.links.data() + static_cast<int64_t>(next) * kDegree + 16);
    }
  }
  for (const uint32_t between : scratch_.failing) {
    if (count >= kMostNeighbours) break;
    const uint32_t* onward = index_.links.data() + static_cast<int64_t>(between) * kDegree;
    for (int i = 0; i < kDegree && onward[i] != kNoSlot; ++i) {
      if (visited.marked(onward[i]) || !passing_.has(onward[i])) continue;
      visited.mark(onward[i]);
      to[count++] = onward[i];
    }
  }
  if (count < static_cast<int64_t>(kFewNeighbours)) {
    for (size_t i = 0; i < scratch_.failing.size() && i < kBridges; ++i) to[count++] = scratch_.failing[i];
  }
  neighbours_ = count;
}

// Scores what gather_neighbours found; keeps what can still matter.
void Query::take_neighbours(const Plan& plan) {
  const CodeShape& shape = index_.codec->shape();
  kernels_.score_listed(index_.heads.data(), shape.head_bytes, scratch_.slots.data(), neighbours_, *code_,
                        reach_, scratch_.scores.data());
  work_.heads_scored += neighbours_;
  std::vector<Candidate>& promising = scratch_.promising;
  promising.clear();
  const float bar = pool_.best(), least = wanted_beyond(plan);
  for (int64_t i = 0; i < neighbours_; ++i) {
    const float score = scratch_.scores[static_cast<size_t>(i)];
    if (score > least) promising.push_back({score, scratch_.slots[static_cast<size_t>(i)]});
  }
  complete(promising.data(), promising.size());
  for (const Candidate& candidate : promising) {
    if (!(candidate.score > least)) continue;
    scratch_.frontier.push_back(candidate);
    std::push_heap(scratch_.frontier.begin(), scratch_.frontier.end(), worse);
    if (!passing_.has(candidate.slot)) continue;
    pool_.offer(candidate.score, candidate.slot);
    if (trace_ != nullptr) trace_->meet(candidate.slot, slack_to(candidate.score, bar));
  }
}

bool Query::walk_graph(const Plan& plan) {
  const bool two_steps = !passing_.all() && walks_two_steps(plan.local_share);
  scratch_.frontier.clear();
  start_walk(plan);
  while (!scratch_.frontier.empty()) {
    std::pop_heap(scratch_.frontier.begin(), scratch_.frontier.end(), worse);
    const Candidate next = scratch_.frontier.back();
    scratch_.frontier.pop_back();
    if (next.score < wanted_beyond(plan)) break;
    if (trace_ != nullptr) {
      if (trace_->complete()) break;
      trace_->go_on(slack_to(next.score, pool_.best()));
    }
    if (!scratch_.frontier.empty()) {
      __builtin_prefetch(index_.links.data() +
                         static_cast<int64_t>(scratch_.frontier.front().slot) * kDegree);
    }
    gather_neighbours(next.slot, two_steps);
    ++work_.steps;
    take_neighbours(plan);
    if (plan.budget > 0 && work_.heads_scored > plan.budget) return false;
  }
  return !std::isinf(pool_.best());
}

void Query::trace_walk(const Plan& plan, Trace* trace) {
  trace_ = trace;
  walk_graph(plan);
  trace_ = nullptr;
}

}  // namespace ec::ann
