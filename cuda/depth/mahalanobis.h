// SPDX-License-Identifier: Apache-2.0
// Mahalanobis depth as run_depth (depth.h) starts it.
#pragma once

#include "depth/depth.h"

namespace ec::cuda {

size_t mahalanobis_workspace_bytes(const DepthProblem& problem, int multiprocessors);
bool run_mahalanobis(const DepthProblem& problem, int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda
