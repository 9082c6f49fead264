// SPDX-License-Identifier: Apache-2.0
// Depths over random directions as run_depth (depth.h) starts them.
#pragma once

#include "depth/depth.h"

namespace ec::cuda {

size_t directions_workspace_bytes(const DepthProblem& problem, int multiprocessors);
bool run_directions(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda
