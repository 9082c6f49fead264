// SPDX-License-Identifier: Apache-2.0
// Which candidates a row is linked to: those that are nearer to it than to any link so far (RobustPrune of
// Vamana with alpha 1, Subramanya et al., NeurIPS 2019, algorithm 2), filled up with the nearest of those
// that are not. With alpha 1.07 walks for recall 0.99 took 1.1 to 1.6 times as long.
#pragma once

#include <cstdint>

#include "ann/build/code_blocks.h"

namespace ec {
namespace ann {

struct PruneRule {
  int64_t degree = 32;
  int64_t least = 16;  // links of a row that has as many candidates
};

class Pruner {
 public:
  bool allocate(int64_t capacity, const CodeShape& shape);
  // links: the keys of the candidates kept, ascending; returns how many. Requires: candidates ascend, and
  // there are at most `capacity`.
  int64_t prune(const CodedRows& rows, const Key* candidates, int64_t count, const PruneRule& rule,
                const GraphKernels& kernels, Key* links);

 private:
  LeftBlock left_;
  RightBlock right_;
  AlignedBuffer<float> distances_;
  AlignedBuffer<uint32_t> slots_;
  AlignedBuffer<Key> alive_;
  AlignedBuffer<Key> dropped_;
};

}  // namespace ann
}  // namespace ec
