// SPDX-License-Identifier: Apache-2.0
// The forward by Hopper's own instructions; see attend_panels.cuh and attend_halves.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/platform.h"

namespace ec::cuda {

struct AttentionProblem;
struct ForwardCall;

// How a call is laid out in shared memory.
struct HopperFit {
  bool fits = false;
  int blocks = 1;  // that share the columns: 2 in a cluster
  int panels = 0;  // of the first of them
  int slots = 0;
  size_t shared_bytes = 0;
  int blocks_each = 1;       // of a multiprocessor
  int64_t slot_numbers = 0;  // of ForwardSlots::pooled
};

// Places of a block, where there are so many: a tile, of which less takes as long.
constexpr int64_t kLeastHopperShare = 64;

// Whether a device of this compute capability runs it.
bool runs_hopper_forward(int major, int minor);
// Whether it takes such a problem, where a block shares so much at most.
HopperFit fit_hopper_forward(const AttentionProblem& problem, size_t most_shared);
// Starts one kernel of so many blocks, or clusters. Requires: a problem that fits.
void run_hopper_forward(const ForwardCall& call, const HopperFit& fit, int64_t blocks, Stream stream);
// Starts the kernel behind that, where there are several blocks.
void run_hopper_merge(const ForwardCall& call, int64_t blocks, Stream stream);

}  // namespace ec::cuda
