// SPDX-License-Identifier: Apache-2.0
#include "ann/calibrate/row_times.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "ann/search/prepare.h"

namespace ec::ann {
namespace {

constexpr int kTimings = 9;
constexpr float kNoReach = -1e9f;  // a cell_reach with which no cell is worth a look
// Vectors that are read before any is timed, so that the caches hold as much of them as they do amid
// searches.
constexpr int64_t kReadBytes = int64_t{64} << 20;
constexpr size_t kScattered = 256;  // rows that are timed together
constexpr int64_t kShortList = 64, kLongList = kScoreBlock;

// Nanoseconds of the median of a few runs, per unit.
template <class Body>
float timed(double units, Body&& body) {
  std::vector<double> times;
  for (int i = 0; i < kTimings; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body(i);
    times.push_back(nanoseconds_since(start));
  }
  return static_cast<float>(quantile(times, 0.5) / units);
}

// A plan that reads few tails.
Plan heads_alone() {
  Plan plan;
  plan.rank = plan.kept = kMeasuredResults;
  plan.tail_share = 0.0f;
  return plan;
}

// To score a row of a long list. Where too few rows are alive for one, of any rows.
float time_listed(const IndexData& index, const AllowedSet& few, PreparedQueries& prepared,
                  Scratch& scratch) {
  const Plan plan = heads_alone();
  if (few.count >= kLongList) {
    return timed(static_cast<double>(few.count), [&](int i) {
      Query query(index, Passing(&few, index.rows), prepared.vector(i), prepared.code(i), scratch);
      query.best_of_list(plan);
    });
  }
  std::vector<uint32_t> slots(static_cast<size_t>(std::min(index.rows, kLongList)));
  for (size_t row = 0; row < slots.size(); ++row) slots[row] = static_cast<uint32_t>(row);
  return timed(static_cast<double>(slots.size()), [&](int i) {
    Query query(index, Passing(nullptr, index.rows), prepared.vector(i), prepared.code(i), scratch);
    query.start_list(plan);
    query.offer_block(slots.data(), static_cast<int64_t>(slots.size()));
  });
}

// What a list of few rows takes beside its rows.
float time_short_list(const IndexData& index, const Costs& costs, PreparedQueries& prepared,
                      Scratch& scratch) {
  Costs known = costs;
  known.measured = true;
  Wanted wanted;
  wanted.k = kMeasuredResults;
  Plan plan;
  plan.kind = PlanKind::kList;
  plan.passing = std::min(index.rows, kShortList);
  set_bars(known, wanted, &plan);
  std::vector<uint32_t> slots(static_cast<size_t>(plan.passing));
  const float whole = timed(1.0, [&](int i) {
    for (size_t row = 0; row < slots.size(); ++row) {
      const uint64_t at =
          scrambled(row + static_cast<uint64_t>(i) * 1000) % static_cast<uint64_t>(index.rows);
      slots[row] = static_cast<uint32_t>(at);
    }
    Query query(index, Passing(nullptr, index.rows), prepared.vector(i), prepared.code(i), scratch);
    query.start_list(plan);
    query.offer_block(slots.data(), plan.passing);
    query.finish_list(plan, wanted.k);
  });
  return std::max(0.0f,
                  whole + costs.code_query - static_cast<float>(1e9 * list_seconds(known, plan, wanted)));
}

}  // namespace

void time_rows(const IndexData& index, const Samples& samples, Costs* costs) {
  Scratch& scratch = Scratch::of_this_thread();
  std::vector<float> block(static_cast<size_t>(kQueryBlock * index.dim));
  std::vector<int64_t> order(static_cast<size_t>(kQueryBlock));
  for (int64_t i = 0; i < kQueryBlock; ++i) {
    order[static_cast<size_t>(i)] = i;
    const Sample& sample = samples[static_cast<size_t>(i) % samples.size()];
    std::copy(sample.vector.begin(), sample.vector.end(), block.begin() + i * index.dim);
  }
  costs->code_query = timed(kQueryBlock, [&](int) {
    PreparedQueries prepared(index, block.data(), order.data(), kQueryBlock, scratch);
    prepared.encode_all();
  });
  PreparedQueries prepared(index, block.data(), order.data(), kQueryBlock, scratch);
  prepared.encode_all();
  const QueryCode& code = *prepared.code(0);
  costs->listed_row = time_listed(index, samples.set(kShareCount - 2), prepared, scratch);
  const int64_t cells = index.cells->cells();
  costs->centroid = timed(static_cast<double>(cells), [&](int i) {
    Query query(index, Passing(nullptr, index.rows), prepared.vector(i), prepared.code(i), scratch);
    query.rank_cells();
  });
  const int64_t near = std::min<int64_t>(index.graph_rows, 8 * kScoreBlock);
  Plan nearby = heads_alone();
  nearby.cell_reach = kNoReach;
  int64_t scored = 1;
  const float of_cells = timed(1.0, [&](int i) {
    Query query(index, Passing(&samples.set(1), index.rows), prepared.vector(i), prepared.code(i), scratch);
    query.best_of_cells(nearby, near / 2);
    scored = std::max<int64_t>(1, query.work().heads_scored);
  });
  costs->nearby_row = std::max(costs->listed_row, (of_cells - costs->centroid * static_cast<float>(cells)) /
                                                      static_cast<float>(scored));
  std::vector<Candidate> some(std::min(static_cast<size_t>(index.rows), kScattered));
  const auto spread = [&](int64_t run) {
    for (size_t i = 0; i < some.size(); ++i) {
      const uint64_t at =
          scrambled(i + static_cast<uint64_t>(run + 1) * 1000) % static_cast<uint64_t>(index.rows);
      some[i] = {0.0f, static_cast<uint32_t>(at)};
    }
  };
  Query query(index, Passing(nullptr, index.rows), prepared.vector(0), &code, scratch);
  const int64_t read = index.raw_dropped ? 0 : std::min(index.rows, kReadBytes / index.row_bytes());
  for (int64_t i = 0; i < read; i += static_cast<int64_t>(some.size())) {
    spread(2 * kTimings + i);
    query.rescore(some, kMeasuredResults, kAnyError);
  }
  costs->refine_row = timed(static_cast<double>(some.size()), [&](int i) {
    spread(i);
    query.complete(some.data(), some.size());
  });
  costs->rescore_row = timed(static_cast<double>(some.size()), [&](int i) {
    spread(i + kTimings);
    query.rescore(some, kMeasuredResults, kAnyError);
  });
  costs->list_query = time_short_list(index, *costs, prepared, scratch);
}

}  // namespace ec::ann
