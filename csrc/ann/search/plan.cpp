// SPDX-License-Identifier: Apache-2.0
// The cheapest plan, by the costs that were measured.
#include "ann/search/plan.h"

#include <algorithm>
#include <cmath>

namespace ec::ann {
namespace {

constexpr double kNano = 1e-9;
// Without costs, nanoseconds that vectors take.
constexpr double kUnmeasuredRow = 10.0, kUnmeasuredByte = 0.06;
// Codes that are kept for k results at least.
constexpr int64_t kKeptFactor = 4, kKeptSpare = 32;
// A walk that scores one in so many of the rows that it may see takes about as long as their list.
constexpr double kBudgetShare = 8.0;

// A recall amid the levels that were measured: between the first that is not below it and the one before,
// in proportion to the logarithm of what is lost.
class Target {
 public:
  explicit Target(float recall) {
    while (level_ + 1 < kLevels && at(level_) < recall - 1e-6f) ++level_;
    if (level_ == 0 || recall >= at(level_) - 1e-6f) return;
    const double before = std::log(1.0 - at(level_ - 1)), after = std::log(1.0 - at(level_));
    weight_ = std::clamp((before - std::log(1.0 - recall)) / (before - after), 0.0, 1.0);
  }
  int level() const { return level_; }
  template <class T>
  double of(const T (&table)[kLevels]) const {
    return weight_ * table[level_] + (1.0 - weight_) * table[std::max(level_ - 1, 0)];
  }

 private:
  static double at(int level) { return kRecallLevels[static_cast<size_t>(level)]; }

  int level_ = 0;
  double weight_ = 1.0;
};

// How much more work k results are than those that were measured.
double growth_of(int64_t k) {
  return std::max(1.0, static_cast<double>(k) / static_cast<double>(kMeasuredResults));
}

double tail_seconds(const IndexData& index) {
  return kNano * index.costs.listed_row * static_cast<double>(index.rows - index.graph_rows);
}

// Where share lies between the measured ones: *upper its index in kShares, the weight of the one after.
double between(float share, int* upper) {
  int at = 0;
  while (at + 2 < kShareCount && share < kShares[static_cast<size_t>(at + 1)]) ++at;
  *upper = at;
  const double high = std::log(kShares[static_cast<size_t>(at)]);
  const double low = std::log(kShares[static_cast<size_t>(at + 1)]);
  return std::clamp((high - std::log(static_cast<double>(share))) / (high - low), 0.0, 1.0);
}

template <class T>
double mix(const T (&table)[kShareCount][kLevels], int upper, double weight, const Target& target) {
  return (1.0 - weight) * target.of(table[upper]) + weight * target.of(table[upper + 1]);
}

}  // namespace

const char* plan_name(PlanKind kind) {
  switch (kind) {
    case PlanKind::kEmpty:
      return "empty";
    case PlanKind::kExact:
      return "exact";
    case PlanKind::kList:
      return "list";
    case PlanKind::kCells:
      return "cells";
    default:
      return "graph";
  }
}

Wanted aimed_at(Metric metric, const Wanted& wanted) {
  // The nearest by inner product are long rows, the same for many queries, so that what is missed of a few
  // results does not average out. Even if all that is missed among those that were measured were among the
  // first k, no more than is allowed of k are missed so.
  Wanted aimed = wanted;
  if (metric == Metric::kInnerProduct && wanted.k < kMeasuredResults)
    aimed.recall =
        1.0f - (1.0f - wanted.recall) * static_cast<float>(wanted.k) / static_cast<float>(kMeasuredResults);
  return aimed;
}

int64_t walk_budget(int64_t passing, float local_share, int64_t k) {
  const double seen = walks_two_steps(local_share) ? static_cast<double>(passing)
                                                   : static_cast<double>(passing) / local_share;
  return std::max(kLeastBudget, static_cast<int64_t>(growth_of(k) * seen / kBudgetShare));
}

double list_seconds(const Costs& costs, const Plan& plan, const Wanted& wanted) {
  const auto rows = static_cast<double>(plan.passing);
  const Target target(wanted.recall);
  const double refined = target.of(costs.refined) * growth_of(wanted.k);
  const double rescored =
      std::max(target.of(costs.rescored) * growth_of(wanted.k), static_cast<double>(wanted.k));
  return kNano *
         (costs.code_query + costs.list_query + rows * costs.listed_row +
          std::min(rows, refined) * costs.refine_row + std::min(rows, rescored) * costs.rescore_row);
}

void set_bars(const Costs& costs, const Wanted& wanted, Plan* plan) {
  const Target target(wanted.effort > 0 ? kRecallLevels.back() : wanted.recall);
  plan->tail_share = costs.measured ? static_cast<float>(target.of(costs.tail_share)) : 1.0f;
  plan->code_error = costs.measured ? static_cast<float>(target.of(costs.code_error)) : kAnyError;
  plan->code_margin =
      costs.measured ? static_cast<float>(target.of(costs.code_margin)) * costs.head_scale : kAnyError;
  // For fewer than were measured the bar stays: the first of few are as easily missed as the last of them.
  plan->rank = std::max(wanted.k, wanted.effort > 0 ? wanted.effort : kMeasuredResults);
  plan->rank = std::min(plan->rank, plan->passing);
  plan->kept = std::min(std::max(plan->rank, kKeptFactor * wanted.k) + kKeptSpare, plan->passing);
}

Plan plan_by_count(const IndexData& index, int64_t passing, const Wanted& wanted, bool* settled) {
  const Costs& costs = index.costs;
  Plan plan;
  plan.passing = passing;
  plan.local_share = static_cast<float>(passing) / static_cast<float>(std::max<int64_t>(index.rows, 1));
  *settled = true;
  if (passing == 0) return plan;
  plan.kind = PlanKind::kExact;
  const double row_nanoseconds =
      costs.measured ? costs.rescore_row
                     : kUnmeasuredRow + kUnmeasuredByte * static_cast<double>(index.row_bytes());
  plan.seconds = kNano * static_cast<double>(passing) * row_nanoseconds;
  if (wanted.exact || (!index.trained() && !index.raw_dropped)) return plan;
  set_bars(costs, wanted, &plan);
  const bool few = !costs.measured || plan.seconds <= list_seconds(costs, plan, wanted);
  const bool all = passing <= std::max(wanted.k, wanted.effort);
  if (!index.raw_dropped && (few || all)) return plan;
  plan.kind = PlanKind::kList;
  plan.seconds = list_seconds(costs, plan, wanted);
  if (index.graph_rows == 0 || !costs.measured) return plan;
  // A graph cannot be cheaper than its cheapest measured walk.
  const Target target(wanted.recall);
  double cheapest = INFINITY;
  for (int share = 0; share < kShareCount; ++share) {
    if (costs.slack[share][target.level()] >= 0.0f)
      cheapest = std::min(cheapest, target.of(costs.graph_time[share]));
  }
  *settled = wanted.effort <= 0 && plan.seconds <= kNano * cheapest;
  return plan;
}

Plan plan_by_share(const IndexData& index, int64_t passing, float local_share, bool usual,
                   const Wanted& wanted) {
  bool settled = false;
  Plan list = plan_by_count(index, passing, wanted, &settled);
  if (settled) return list;
  if (wanted.effort <= 0 && !usual) {
    // What was measured on rows does not hold for it, but a list with the widest bars misses little.
    Wanted closest = wanted;
    closest.recall = std::max(wanted.recall, kRecallLevels.back());
    set_bars(index.costs, closest, &list);
    return list;
  }
  const Costs& costs = index.costs;
  list.local_share = local_share;
  int upper = 0;
  const Target target(wanted.recall);
  const double weight = between(local_share, &upper);
  Plan best = list;
  const float floor_share = kShares[kShareCount - 1];
  if (local_share < 0.5f * floor_share) return best;  // beyond what was measured
  const double growth = growth_of(wanted.k);

  Plan cells = list;
  cells.kind = PlanKind::kCells;
  cells.cell_reach = static_cast<float>(target.of(costs.cell_reach));
  const double cell_rows = std::min(static_cast<double>(passing),
                                    mix(costs.cell_rows, upper, weight, target) * std::sqrt(growth));
  cells.seconds =
      list_seconds(costs, cells, wanted) - kNano * costs.listed_row * static_cast<double>(passing) +
      kNano * (costs.centroid * static_cast<double>(index.cells->cells()) + costs.nearby_row * cell_rows) +
      tail_seconds(index);
  if (wanted.effort <= 0 && cells.seconds < best.seconds) best = cells;

  const int level = target.level();
  const bool reached =
      costs.slack[upper][level] >= 0.0f && (weight == 0.0 || costs.slack[upper + 1][level] >= 0.0f);
  if (wanted.effort <= 0 && !reached) return best;
  Plan graph = list;
  graph.kind = PlanKind::kGraph;
  graph.slack = wanted.effort > 0 ? 0.0f : static_cast<float>(mix(costs.slack, upper, weight, target));
  graph.seconds = kNano * (costs.code_query + mix(costs.graph_time, upper, weight, target) * growth) +
                  tail_seconds(index);
  if (wanted.effort <= 0) {
    graph.budget = walk_budget(passing, local_share, wanted.k);
  }
  if (wanted.effort > 0 || graph.seconds < best.seconds) best = graph;
  return best;
}

}  // namespace ec::ann
