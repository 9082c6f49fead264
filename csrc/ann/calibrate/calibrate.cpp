// SPDX-License-Identifier: Apache-2.0
// Costs and recall of every plan. What a recall takes is counted, and the same from run to run; nanoseconds
// are timed, and say above which level walks are not worth their while.
#include "ann/calibrate/calibrate.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "ann/calibrate/row_times.h"
#include "ann/search/prepare.h"

namespace ec::ann {
namespace {

constexpr double kHopeless = 4.0;  // times what a list takes: walks with more slack are not timed
constexpr float kWidest = 0.45f;   // the most slack that is tried
constexpr size_t kTimedWalks = 32;
constexpr double kUsualShare = 0.98;  // of the samples lie where rows do
// Times as far from a cell as these: a query that is none of them. Directions do not lie as far apart.
constexpr float kUnusual = 1.15f, kUnusualDirection = 1.02f;
constexpr int64_t kSquaredRows = 4096;  // whose mean square is taken
constexpr double kScaleShare = 0.9;     // of them, have no larger head_scale
// Of the results that a target of recall lets go, these shares may be lost: by cells that are not looked
// into, by walks that end too soon, by either of two bars that are set too high. A walk has the bars'
// beside its own: a row that is left out was part of the graph, which leads past it now, so that it is
// harder to find its neighbours than those of a query (two sets of rows, 500 queries: 0.961 and 0.994 for
// 0.95 and 0.99).
constexpr double kCellMargin = 0.5;
constexpr double kWalkMargin = 0.9;
constexpr double kBarMargin = 0.25;

}  // namespace

void Calibration::look() {
  looked_ = true;
  if (!possible()) return;
  costs_.rows = static_cast<float>(index_.graph_rows);
  look_at_rows(&costs_);
  index_.costs.row_square = costs_.row_square;
  index_.costs.head_scale = costs_.head_scale;
  samples_.look();
  find_bars(&costs_);
  find_cells(&costs_);
  bound(&costs_);
}

Costs Calibration::measure() {
  if (!looked_) look();
  if (!possible()) return costs_;
  time_rows(index_, samples_, &costs_);
  costs_.measured = true;  // as far as a walk needs it
  for (int share = 0; share < kShareCount; ++share) {
    find_slacks(share, &costs_);
    time_walks(share, &costs_);
  }
  bound(&costs_);
  return costs_;
}

void Calibration::find_bars(Costs* costs) const {
  std::vector<float> tail_share, code_error, code_margin;
  for (const Seen& seen : samples_.seen()) {
    tail_share.insert(tail_share.end(), seen.tail_share.begin(), seen.tail_share.end());
    code_error.insert(code_error.end(), seen.code_error.begin(), seen.code_error.end());
    code_margin.insert(code_margin.end(), seen.code_margin.begin(), seen.code_margin.end());
  }
  for (int level = 0; level < kLevels; ++level) {
    const double share = 1.0 - (1.0 - kRecallLevels[static_cast<size_t>(level)]) * kBarMargin;
    costs->tail_share[level] = std::max(0.0f, quantile(tail_share, share));
    costs->code_error[level] = std::max(0.0f, quantile(code_error, share));
    costs->code_margin[level] = quantile(code_margin, share);
    const float margin = costs->code_margin[level] * costs->head_scale;
    int64_t refined = 0, rescored = 0;
    for (const Seen& seen : samples_.seen()) {
      for (const SeenCode& code : seen.codes) {
        refined += code.missing - margin * seen.length <= costs->tail_share[level] * code.most ? 1 : 0;
        rescored += code.error <= costs->code_error[level] ? 1 : 0;
      }
    }
    costs->refined[level] = static_cast<float>(refined) / static_cast<float>(samples_.detailed());
    costs->rescored[level] = static_cast<float>(rescored) / static_cast<float>(samples_.detailed());
  }
}

// The cell_reach that the share in greatest need of it has, and how many rows that means at each.
void Calibration::find_cells(Costs* costs) const {
  std::vector<float> distances;
  for (const Seen& seen : samples_.seen()) distances.push_back(seen.distance);
  const float unusual = index_.metric == Metric::kInnerProduct ? kUnusualDirection : kUnusual;
  costs->usual_distance = unusual * quantile(distances, kUsualShare);
  samples_.each_of(kLevels, [&](size_t level) {
    const double share = 1.0 - (1.0 - kRecallLevels[level]) * kCellMargin;
    float& reach = costs->cell_reach[level];
    reach = -std::numeric_limits<float>::max();
    for (int at = 0; at < kShareCount; ++at) {
      std::vector<float> needed;
      for (const Seen& seen : samples_.seen()) {
        needed.insert(needed.end(), seen.cell_reach[at].begin(), seen.cell_reach[at].end());
      }
      reach = std::max(reach, quantile(needed, share));
    }
    for (int at = 0; at < kShareCount; ++at) {
      int64_t sum = 0;
      for (const Seen& seen : samples_.seen()) {
        for (const auto& [needed, rows] : seen.rows[at]) sum += needed <= reach ? rows : 0;
      }
      costs->cell_rows[at][level] = static_cast<int32_t>(sum / static_cast<int64_t>(samples_.detailed()));
    }
  });
}

// The mean |x - mean|^2 of rows of the graph, and the head_scale that most of them have.
void Calibration::look_at_rows(Costs* costs) const {
  const int64_t taken = std::min(index_.graph_rows, kSquaredRows);
  const CodeShape& shape = index_.codec->shape();
  double sum = 0.0;
  std::vector<float> scales;
  for (int64_t i = 0; i < taken; ++i) {
    const int64_t slot = i * index_.graph_rows / taken;
    sum += centred_square(index_, slot);
    scales.push_back(factors_of(index_.heads.data() + slot * shape.head_bytes, shape).head_scale);
  }
  costs->row_square = static_cast<float>(sum / static_cast<double>(taken));
  costs->head_scale = quantile(scales, kScaleShare);
}

// body(query, plan): a walk of one sample, set up.
template <class Body>
void Calibration::walk(size_t number, int share, const Costs& costs, float recall, float slack,
                       Body&& body) const {
  const Sample& sample = samples_[number];
  const AllowedSet& set = samples_.set(share);
  Scratch& scratch = Scratch::of_this_thread();
  const int64_t zero = 0;
  PreparedQueries prepared(index_, sample.vector.data(), &zero, 1, scratch);
  prepared.encode_all();
  const QueryCode* code = prepared.code(0);
  Wanted wanted;
  wanted.k = kMeasuredResults;
  wanted.recall = recall;
  Plan plan;
  plan.kind = PlanKind::kGraph;
  plan.passing = set.count;
  plan.local_share = kShares[static_cast<size_t>(share)];
  plan.slack = slack;
  plan.budget = walk_budget(plan.passing, plan.local_share, kMeasuredResults);
  set_bars(costs, wanted, &plan);
  Query query(index_, Passing(&set, index_.rows), prepared.vector(0), code, scratch);
  query.leave_out(sample.left_out);
  body(query, plan);
}

// Of each level the slack that meets as many neighbours as it asks, with the bars of the highest.
void Calibration::find_slacks(int share, Costs* costs) const {
  const size_t count = share == 0 ? samples_.size() : samples_.detailed();
  std::vector<std::vector<float>> met(count);
  samples_.each([&](size_t i) {
    if (i >= count) return;
    const std::vector<uint32_t>& nearest = samples_.seen()[i].nearest[share];
    walk(i, share, *costs, kRecallLevels.back(), kWidest, [&](Query& query, const Plan& plan) {
      Trace trace(nearest);
      query.trace_walk(plan, &trace);
      met[i] = trace.met();
      // What is missing when it is given up, the list finds.
      const bool given_up = query.work().heads_scored > plan.budget;
      met[i].resize(nearest.size(), given_up ? trace.slack() : std::numeric_limits<float>::infinity());
    });
  });
  std::vector<float> needed;
  for (const std::vector<float>& some : met) needed.insert(needed.end(), some.begin(), some.end());
  for (int level = 0; level < kLevels; ++level) {
    const double part = 1.0 - (1.0 - kRecallLevels[static_cast<size_t>(level)]) * kWalkMargin;
    const float slack = needed.empty() ? kNotReached : quantile(needed, part);
    costs->slack[share][level] = slack <= kWidest ? slack : kNotReached;
  }
}

// Means over some samples; once the list is cheaper, the levels above are as good as not reached.
void Calibration::time_walks(int share, Costs* costs) const {
  const size_t count = samples_.detailed(), step = (count + kTimedWalks - 1) / kTimedWalks;
  bool hopeless = false;
  for (int level = 0; level < kLevels; ++level) {
    float& slack = costs->slack[share][level];
    if (hopeless || slack == kNotReached) {
      slack = kNotReached;
      continue;
    }
    std::vector<double> scored(count), times(count);
    samples_.each([&](size_t i) {
      if (i >= count || i % step != 0) return;
      const float recall = kRecallLevels[static_cast<size_t>(level)];
      walk(i, share, *costs, recall, slack, [&](Query& query, const Plan& plan) {
        const auto start = std::chrono::steady_clock::now();
        query.run(plan, kMeasuredResults);
        times[i] = nanoseconds_since(start);
        scored[i] = static_cast<double>(query.work().heads_scored);
      });
    });
    double sum = 0.0;
    std::vector<double> per_row;
    for (size_t i = 0; i < count; i += step) {
      sum += scored[i];
      per_row.push_back(times[i] / std::max(scored[i], 1.0));
    }
    const double mean = sum / static_cast<double>(per_row.size());
    costs->graph_steps[share][level] = static_cast<int32_t>(mean);
    // The median of what a row takes: other programs may have interrupted some walks.
    const double time = quantile(per_row, 0.5) * mean;
    costs->graph_time[share][level] = static_cast<float>(time);
    hopeless = time > kHopeless * costs->listed_row * static_cast<double>(samples_.set(share).count);
  }
}

}  // namespace ec::ann
