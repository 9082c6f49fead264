// SPDX-License-Identifier: Apache-2.0
// How queries were answered, for whoever asks.
#pragma once

#include "ann/answers.cuh"
#include "ann/explain.h"
#include "ann/walk.cuh"

namespace ec::cuda::ann {

constexpr int kExplainThreads = 128;

// A thread for each position. walk: of which most_pool is 0 where nothing may walk; by_bits: null where
// there is no choice.
__global__ void __launch_bounds__(kExplainThreads, 1)
    explain_queries(const __grid_constant__ AnswerProblem answers, const __grid_constant__ WalkProblem walk,
                    const int* by_bits, Explanation* explanations) {
  begin_behind();
  const Queries& queries = answers.scan.queries;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kExplainThreads + threadIdx.x;
  if (position >= queries.count) return;
  Explanation found = {};
  found.passing = answers.scan.passing.count(queries.filter_of(position));
  if (walk.most_pool > 0) found.pool = walk.graph.plan.pool(found.passing);
  if (found.pool > 0) found.met = walk.met[position];
  found.way = by_bits != nullptr && *by_bits != 0 ? Way::kBits : Way::kList;
  if (found.pool > 0 && walk.needs_scan[position] == 0) found.way = Way::kWalk;
  const bool again = answers.uncertain != nullptr && answers.uncertain[position] != 0;
  const KeyList candidates = answers.scan.list(position, 0);
  found.measured = again ? found.passing : candidates.length(candidates.kept);
  explanations[queries.number(position)] = found;
}

}  // namespace ec::cuda::ann
