// SPDX-License-Identifier: Apache-2.0
// One query on its way through a plan.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ann/index_data.h"
#include "ann/search/passing.h"
#include "ann/search/plan.h"
#include "ann/search/scratch.h"

namespace ec::ann {

// What was done, for explain() and for calibration.
struct Work {
  int64_t cells_ranked = 0;
  int64_t heads_scored = 0;
  int64_t tails_added = 0;
  int64_t steps = 0;  // rows whose neighbours were looked at
  int64_t rescored = 0;
  bool gave_up = false;  // the walk went over its budget or found too few, and the list was taken
};

// For calibration: with how much slack a walk keeps certain rows. What a walk with less slack expands is
// the beginning of what one with more does, so that one tells of all: of each row the greatest slack that
// an expansion before it needed, and what it needs itself.
class Trace {
 public:
  explicit Trace(const std::vector<uint32_t>& wanted) : wanted_(wanted) {}
  void go_on(float slack) { slack_ = std::max(slack_, slack); }
  void meet(uint32_t slot, float slack) {
    if (std::find(wanted_.begin(), wanted_.end(), slot) != wanted_.end())
      met_.push_back(std::max(slack_, slack));
  }
  // The greatest so far.
  float slack() const { return slack_; }
  bool complete() const { return met_.size() == wanted_.size(); }
  // Of each wanted row that was met: the slack above which walks keep it.
  const std::vector<float>& met() const { return met_; }

 private:
  const std::vector<uint32_t>& wanted_;
  std::vector<float> met_;
  float slack_ = 0.0f;
};

class Query {
 public:
  // vector: dim floats, unit for cosine; code may be null when no plan that reads codes is run. lane: of
  // the queries of a block that are alive at once, which.
  Query(const IndexData& index, Passing passing, const float* vector, const QueryCode* code,
        Scratch& scratch, int64_t lane = 0);

  // The share of the rows near the query that pass. Ranks the cells. Requires: passing rows as bits.
  float local_share();
  // Whether the query is as near to the nearest cell as rows are to theirs. Ranks the cells.
  bool usual();
  // Answers by plan: found() holds at most k rows, nearest first, distances for scores.
  void run(const Plan& plan, int64_t k);
  // The plan `list` in steps, so that several queries may go through the same rows together.
  void start_list(const Plan& plan);
  void offer_block(const uint32_t* slots, int64_t count);
  void finish_list(const Plan& plan, int64_t k);
  // The best whole codes of what was offered, in no order.
  const std::vector<Candidate>& listed() { return pool_.items(); }

  const std::vector<Candidate>& found() const { return scratch_.found; }
  const Work& work() const { return work_; }

  // For calibration: this row is not there.
  void leave_out(uint32_t slot) { left_out_ = slot; }
  // Walks as a plan says, until the trace is complete.
  void trace_walk(const Plan& plan, Trace* trace);
  // The best whole codes of the list, or of the nearest cells, in no order, by the bars of a plan. Cells
  // are taken until they have had `rows` passing rows and, with its cell_reach, none of the others comes as
  // near as the rank-th best.
  std::vector<Candidate>& best_of_list(const Plan& plan);
  std::vector<Candidate>& best_of_cells(const Plan& plan, int64_t rows);
  // Cells by score, in scratch; a heap, the nearest first.
  std::vector<Candidate>& rank_cells();
  // Adds tails to the scores of heads.
  void complete(Candidate* candidates, size_t count);
  const RowFactors& factors(uint32_t slot) const;
  float head_score(uint32_t slot) const;
  // How far a cell of this score is, in units of its radius; and the cosine that a direction from its
  // centroid must have with the query's for a row at its radius to reach `bar`.
  float distance_of(const Candidate& cell) const;
  float reach_to(const Candidate& cell, float bar) const;
  // found(): the k nearest of candidates.
  void rescore(std::vector<Candidate>& candidates, int64_t k, float code_error);

 private:
  void offer_codes(Candidate* promising, size_t count);
  struct CellView;
  CellView view(const Candidate& cell) const;
  float most_above(const CellView& cell) const;
  void collect_cells(int64_t wanted_rows, bool further, int glances);
  float nearest_in(const Candidate& cell, float cell_reach) const;
  float square_at(float score) const;
  float beyond(float bar, float slack) const;
  float slack_to(float score, float bar) const;
  float wanted_beyond(const Plan& plan) const;
  void measure(const uint32_t* slots, int64_t count);
  void measure(const Candidate* candidates, size_t count);
  void keep_nearest(int64_t k);
  bool walk_graph(const Plan& plan);
  void start_walk(const Plan& plan);
  void gather_neighbours(uint32_t slot, bool two_steps);
  void take_neighbours(const Plan& plan);
  void exact(int64_t k);

  const IndexData& index_;
  Passing passing_;
  const float* vector_;
  const QueryCode* code_;
  Scratch& scratch_;
  Pool& pool_;
  const AnnKernels& kernels_;
  const AnnRawKernels& raw_kernels_;
  Work work_;
  uint32_t left_out_ = kNoSlot;
  Trace* trace_ = nullptr;
  float reach_ = 0.0f;  // times a row's tail_norm: what scores have on top for tails not read
  bool cells_ranked_ = false;
  int64_t neighbours_ = 0;  // how many of scratch_.slots gather_neighbours filled
};

}  // namespace ec::ann
