// SPDX-License-Identifier: Apache-2.0
// How one query will be answered.
#pragma once

#include <cstdint>

#include "ann/index_data.h"
#include "core/internal.h"

namespace ec::ann {

constexpr int64_t kSeedRows = 128;  // rows of the nearest cells that start a walk
constexpr int64_t kLeastBudget = 4 * kSeedRows;
constexpr float kTwoStepShare = 0.3f;  // below: neighbours' neighbours instead of failing rows

enum class PlanKind { kEmpty, kExact, kList, kCells, kGraph };

EC_INTERNAL const char* plan_name(PlanKind kind);

struct Plan {
  PlanKind kind = PlanKind::kEmpty;
  int64_t passing = 0;    // rows that pass the filter
  float local_share = 1;  // of the rows near the query, how many pass
  float tail_share = 1;   // see Costs
  float code_error = 0;
  float code_margin = 0;  // times head_scale
  int64_t rank = 0;       // the best codes so far that set the bar for others
  int64_t kept = 0;       // best codes that are kept at least, and no fewer than `rank`
  float slack = 0;        // graph: how far beyond the rank-th best distance it looks
  float cell_reach = 0;   // cells: see Costs
  int64_t budget = 0;     // graph: rows scored before the list is taken after all
  double seconds = 0;     // estimated
};

struct Wanted {
  int64_t k = 10;
  float recall = 0.95f;
  int64_t effort = 0;  // > 0: a walk that looks on as far as its effort-th best, whatever the recall
  bool exact = false;
};

constexpr float kAnyError = 1e9f;  // a code_error with which every code that is kept is looked at

inline bool walks_two_steps(float local_share) { return local_share < kTwoStepShare; }

// What the bars have to be for, so that what is wanted is met: costs were measured with kMeasuredResults.
Wanted aimed_at(Metric metric, const Wanted& wanted);
// Rows that a walk scores before it is given up for the list of all `passing`.
int64_t walk_budget(int64_t passing, float local_share, int64_t k);
// How closely a plan looks at rows, for what is wanted.
void set_bars(const Costs& costs, const Wanted& wanted, Plan* plan);
// What a list takes, by costs that were measured.
double list_seconds(const Costs& costs, const Plan& plan, const Wanted& wanted);
// The plan when nothing is known of where the passing rows lie. settled: it needs no look at the cells.
Plan plan_by_count(const IndexData& index, int64_t passing, const Wanted& wanted, bool* settled);
// The plan when local_share of the rows near the query pass. usual: the query lies where rows do.
Plan plan_by_share(const IndexData& index, int64_t passing, float local_share, bool usual,
                   const Wanted& wanted);

}  // namespace ec::ann
