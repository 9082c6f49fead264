// SPDX-License-Identifier: Apache-2.0
// Sums of chord and arc distances by Hopper's own instructions; see pair_tiles.cuh.
#pragma once

#include <cstddef>

#include "common/numbers.cuh"
#include "depth/depth_math.h"

namespace ec::cuda {

struct PairSums;
struct Scaling;

struct HopperPairs {
  PairMetric metric;  // chord or arc
  AnyRows rows;
  bool own_corpus;       // the rows are the corpus, and each leaves itself out
  AnyRows corpus;        // else
  const float* weights;  // of the corpus; may be null
  bool strict;           // three products of bf16 for each number, else one
  const double* total;   // the sum of the weights

  // Written:
  Scaling *row_scalings, *corpus_scalings;  // of each row; where the rows are the corpus, the first alone
  int* missing;                             // counts rows of the corpus without a direction
  PairSums* sums;                           // [rows], as of one share
};

// Whether a device of this compute capability runs it.
bool runs_hopper_pairs(int major, int minor);
// Whether the shapes are within what is counted in 32 bits.
bool fits_hopper_pairs(const HopperPairs& pairs);
size_t hopper_pairs_workspace_bytes(const HopperPairs& pairs, int multiprocessors);
// Starts kernels. Requires: one row and one row of the corpus at least, a workspace of that size on a
// boundary of 256 bytes.
void run_hopper_pairs(const HopperPairs& pairs, int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda
