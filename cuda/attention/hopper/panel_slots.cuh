// SPDX-License-Identifier: Apache-2.0
// Sums of parts of a sequence as blocks of Hopper leave them: each thread puts four numbers at a time where
// its registers have them, side by side with those of its neighbours, and the threads that merge take them
// from there. Only results have to lie by heads and columns.
//
// Layout of ForwardSlots::pooled: [slot][panel][8 heads][thread of a warpgroup][4]. Lane l of warp w has
// columns 16 w + l / 4 and + 8 of the panel, and heads 2 (l % 4) and + 1 of the eight: both heads of the
// first column, then of the second.
#pragma once

#include "common/hopper.cuh"
#include "common/warp.cuh"

namespace ec::cuda {

constexpr int kFragmentHeads = 8;  // of four numbers of each thread
constexpr int kFragmentNumbers = 4 * kGroupThreads;

struct PanelSlots {
  __host__ __device__ PanelSlots(int panels_of_slot, int64_t heads)
      : panels(panels_of_slot), groups(static_cast<int>((heads + kFragmentHeads - 1) / kFragmentHeads)) {}

  __host__ __device__ int64_t numbers() const { return int64_t{panels} * groups * kFragmentNumbers; }
  __device__ int64_t fragment(int64_t slot, int panel, int group) const {
    return ((slot * panels + panel) * groups + group) * kFragmentNumbers;
  }

  int panels, groups;  // of columns, of heads
};

}  // namespace ec::cuda
