// SPDX-License-Identifier: Apache-2.0
// Depths of arrays on the GPU, on the caller's stream and in the caller's workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/numbers.cuh"

namespace ec::cuda {

enum class Metric { kCosine, kChord, kArc };

struct DepthProblem {
  Metric metric;
  AnyRows rows;
  bool own_corpus;       // the rows are their own corpus, and each leaves itself out
  AnyRows corpus;        // else
  const float* weights;  // of the corpus; may be null
  bool strict;           // chord and arc: float32 products, else bf16
  float* depths;         // [rows]
};

size_t depth_workspace_bytes(const DepthProblem& problem, int multiprocessors);
// Starts kernels, and returns whether all could be started. Requires: shapes that fit, a workspace of that
// size on a boundary of 256 bytes.
bool run_depth(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda
