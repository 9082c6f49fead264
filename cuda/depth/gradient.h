// SPDX-License-Identifier: Apache-2.0
// Gradients of the smooth depths on the GPU, on the caller's stream and in the caller's workspace.
#pragma once

#include "depth/depth.h"

namespace ec::cuda {

// With t_ij what a depth averages over the corpus (a distance; of cosine c; of spatial u_ij' e_i, u_ij the
// unit vector from corpus row j to row i and e_i the direction of their mean), the sums that its gradient
// is made of. Pairs without a direction of their own (equal rows; of arc opposite ones) add none.
struct GradientProblem {
  Metric metric;
  AnyRows rows;     // not float64, as the corpus
  bool own_corpus;  // the rows are their own corpus, and each leaves itself out
  AnyRows corpus;   // else
  // Of each row what its depth pulls its mean with, over the weight of the mean; weights of the corpus.
  const float *pull, *weights;
  float* of_rows;      // [rows][columns]: the gradient; null: not wanted
  float* of_corpus;    // [corpus rows][columns], not where the rows are the corpus; null: not wanted
  double* of_weights;  // [corpus rows]: sum of pull_i t_ij, of spatial less that; null: not wanted
};

size_t gradient_workspace_bytes(const GradientProblem& problem, int multiprocessors);
// Starts kernels, and returns whether all could be started. Requires: a row on each side at least, and a
// workspace of that size on a boundary of 256 bytes.
bool run_gradient(const GradientProblem& problem, int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda
