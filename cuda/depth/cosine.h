// SPDX-License-Identifier: Apache-2.0
// Cosine depth of arrays on the GPU, on the caller's stream and in the caller's workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/platform.h"

namespace ec::cuda {

enum class NumberKind { kFloat32, kFloat16, kBFloat16 };

struct Matrix {
  const void* data;
  int64_t count, stride, columns;  // stride: in numbers, between rows
  NumberKind kind;
};

struct CosineProblem {
  Matrix rows;
  Matrix corpus;  // where its data is null, the rows are their own corpus, and each leaves itself out
  const float* weights;  // of the corpus; may be null
  float* depths;         // [rows]
};

// Multiprocessors: of the device.
size_t cosine_workspace_bytes(const CosineProblem& problem, int multiprocessors);
// Requires: shapes that fit, workspace on a boundary of 256 bytes. Starts three kernels and returns.
void run_cosine(const CosineProblem& problem, int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda
