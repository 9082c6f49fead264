// SPDX-License-Identifier: Apache-2.0
#include "ann/links.cuh"

namespace ec::cuda::ann {

bool run_choose_links(const LinkProblem& problem, Stream stream) {
  constexpr int64_t kMostBlocks = 0x7fffffff;
  if (problem.count == 0) return true;
  if (problem.count > kMostBlocks) return false;
  allow_shared(choose_links, sizeof(LinkShared));
  EC_LAUNCH(choose_links, static_cast<unsigned>(problem.count), kPairThreads, sizeof(LinkShared), stream,
            problem);
  return !launches_failed();
}

}  // namespace ec::cuda::ann
