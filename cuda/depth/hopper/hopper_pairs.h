// SPDX-License-Identifier: Apache-2.0
// Sums of chord and arc distances by Hopper's own instructions; see pair_tiles.cuh.
#pragma once

#include "depth/hopper/panels.cuh"
#include "depth/pair_sums.cuh"
#include "depth/unit_sums.cuh"

namespace ec::cuda {

struct Scaling;

// How the work is cut, and the memory for it.
struct HopperPlan {
  HopperPlan() = default;
  // split: three products of bf16 for each number, else one.
  HopperPlan(int64_t row_count, int64_t corpus_count, int64_t columns, bool split, int multiprocessors);

  // Two for each row of either side, up to whole tiles.
  int64_t sum_count() const { return max(rows.rows(), others.rows()) * 2; }

  int64_t row_tiles = 0, other_tiles = 0, shares = 0, resident = 0;  // blocks that stay
  Panels rows = {}, others = {};                                     // of unit rows
  unsigned long long* sums = nullptr;                                // [sum_count()], zeros before
  double* scale = nullptr;  // what sums are multiplied by: 2^61 over what all weights add up to
};

struct HopperPairs {
  PairMetric metric;  // chord or arc
  AnyRows rows;
  bool own_corpus;       // the rows are the corpus, and each leaves itself out
  AnyRows corpus;        // else
  const float* weights;  // of the corpus, 0 from its end to sum_count() / 2; null: 1 each
  const Scaling *row_scalings, *corpus_scalings;
};

// Whether a device of this compute capability runs it.
bool runs_hopper_pairs(int major, int minor);
// Whether the shapes are within what is counted in 32 bits.
bool fits_hopper_pairs(int64_t row_count, int64_t corpus_count, int64_t columns);
// Starts one kernel, which adds up directions besides. Requires: one row and one row of the corpus at
// least.
void run_hopper_pairs(const HopperPairs& pairs, const HopperPlan& plan, const UnitSums& unit_sums,
                      Stream stream);
// What comes of the sums.
FixedSums hopper_sums(const HopperPlan& plan, PairMetric metric);

}  // namespace ec::cuda
