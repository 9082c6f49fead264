// SPDX-License-Identifier: Apache-2.0
#include "ann/near_rows.cuh"

namespace ec::cuda::ann {

bool run_list_near_rows(const NearRowsProblem& problem, Stream stream) {
  constexpr int64_t kMostBlocks = 0x7fffffff;
  if (problem.count == 0) return true;
  const int64_t groups = (problem.count + problem.group - 1) / problem.group;
  if (groups > kMostBlocks) return false;
  const size_t shared = near_rows_shared_bytes(problem.cells.cells);
  allow_shared(list_near_rows, shared);
  EC_LAUNCH(list_near_rows, static_cast<unsigned>(groups), kFilterThreads, shared, stream, problem);
  return !launches_failed();
}

}  // namespace ec::cuda::ann
