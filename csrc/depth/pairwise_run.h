// SPDX-License-Identifier: Apache-2.0
// Weighted sums of distances (and, when corrected, of computed cosines) from every row to every group.
#pragma once

#include "depth/mean_direction.h"
#include "depth/pairwise.h"
#include "product/panels.h"

namespace ec {

struct PairwiseProblem {
  const MatrixRows* x;
  const MatrixRows* corpus;  // null: the corpus is x, pairs are taken once, and a row never meets itself
  CorpusParts parts;         // of the corpus
  PairMetric metric;
  Precision precision;
};

// How close to 1 a computed |c| may be before the distance is taken from the rows themselves (for L2: how
// close 2 c may be to the sum of the squared norms).
float near_limit(PairMetric metric, Precision precision);

// distance_sums[n][groups], and for reduced precision cosine_sums[n][groups] of the cosines that the
// distances were taken at (null for float32).
ec_status sum_distances(const PairwiseProblem& problem, const RunOptions& run, double* distance_sums,
                        double* cosine_sums, FirstFault* x_fault, FirstFault* corpus_fault);

}  // namespace ec
