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
    prepared.code(0);
  });
  PreparedQueries prepared(index, block.data(), order.data(), kQueryBlock, scratch);
  const QueryCode& code = *prepared.code(0);
  const AllowedSet& few = samples.set(kShareCount - 2);
  costs->listed_row = timed(static_cast<double>(std::max<int64_t>(few.count, 1)), [&](int i) {
    Query query(index, Passing(&few, index.rows), prepared.vector(i), prepared.code(i), scratch);
    query.best_of_list(kMeasuredResults, kMeasuredResults, 0.0f);
  });
  const int64_t cells = index.cells->cells();
  costs->centroid = timed(static_cast<double>(cells), [&](int i) {
    Query query(index, Passing(nullptr, index.rows), prepared.vector(i), prepared.code(i), scratch);
    query.rank_cells();
  });
  const int64_t near = std::min<int64_t>(index.graph_rows, 8 * kScoreBlock);
  int64_t scored = 1;
  const float of_cells = timed(1.0, [&](int i) {
    Query query(index, Passing(&samples.set(1), index.rows), prepared.vector(i), prepared.code(i), scratch);
    query.best_of_cells(kMeasuredResults, kMeasuredResults, 0.0f, near / 2, kNoReach);
    scored = std::max<int64_t>(1, query.work().heads_scored);
  });
  costs->nearby_row = std::max(costs->listed_row, (of_cells - costs->centroid * static_cast<float>(cells)) /
                                                      static_cast<float>(scored));
  std::vector<Candidate> some(static_cast<size_t>(std::min<int64_t>(index.rows, 256)));
  const auto spread = [&](int run) {
    for (size_t i = 0; i < some.size(); ++i) {
      const uint64_t at =
          scrambled(i + static_cast<uint64_t>(run + 1) * 1000) % static_cast<uint64_t>(index.rows);
      some[i] = {0.0f, static_cast<uint32_t>(at)};
    }
  };
  Query query(index, Passing(nullptr, index.rows), prepared.vector(0), &code, scratch);
  costs->refine_row = timed(static_cast<double>(some.size()), [&](int i) {
    spread(i);
    query.complete(some.data(), some.size());
  });
  costs->rescore_row = timed(static_cast<double>(some.size()), [&](int i) {
    spread(i + kTimings);
    query.rescore(some, static_cast<int64_t>(some.size()), 0.0f);
  });
}

}  // namespace ec::ann
