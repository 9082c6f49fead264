// SPDX-License-Identifier: Apache-2.0
// Lists of the rows of the cells around groups of rows, a block for each.
//
// Cells come in the order of how near they are to one of the group's own: these first, then what is nearest
// to each, then what is next, until there are rows enough. Which were taken is a bit each, so that rows are
// listed in their order.
#pragma once

#include "ann/near_rows.h"
#include "ann/sums_before.cuh"

namespace ec::cuda::ann {

struct NearRowsShared {
  SumsShared sums;
  unsigned taken[1];  // bits of cells, as many words as they need
};

__host__ __device__ inline size_t near_rows_shared_bytes(int64_t cells) {
  return sizeof(NearRowsShared) + static_cast<size_t>(cells / kWordBits) * sizeof(unsigned);
}

class NearRowsLister {
 public:
  __device__ NearRowsLister(const NearRowsProblem& problem, NearRowsShared& shared)
      : problem_(problem),
        cells_(problem.cells),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % 32) {
    const int64_t begin = problem.first + blockIdx.x * problem.group;
    const int64_t last = min(problem.first + problem.count, begin + problem.group) - 1;
    own_ = cells_.cell_of[begin];
    owns_ = cells_.cell_of[last] + 1 - own_;
  }

  __device__ void run() {
    for (int64_t i = threadIdx.x; i <= cells_.cells / kWordBits; i += kFilterThreads) shared_.taken[i] = 0;
    __syncthreads();
    if (threadIdx.x < kWarpSize) take_cells();
    __syncthreads();
    list_rows();
  }

 private:
  __device__ int size_of(int64_t cell) const {
    return static_cast<int>(cells_.start[cell + 1] - cells_.start[cell]);
  }

  // In the order in which they are looked at; -1: none.
  __device__ int64_t cell_at(int64_t place) const {
    const int64_t own = own_ + place % owns_, rank = place / owns_;
    return rank == 0 ? own : cells_.near_cells[own * cells_.near_each + rank - 1];
  }

  // A warp. Lanes fetch cells side by side, and all of them go through these one by one.
  __device__ void take_cells() {
    const int64_t end = owns_ * (cells_.near_each + 1);
    int64_t rows = 0;
    for (int64_t first = 0; first < end && rows < problem_.wanted; first += kWarpSize) {
      const int64_t place = first + lane_;
      const int cell = place < end ? static_cast<int>(cell_at(place)) : -1;
      const int size = cell >= 0 ? size_of(cell) : 0;
      for (int i = 0; i < kWarpSize && rows < problem_.wanted; ++i) {
        const int next = __shfl_sync(kAllLanes, cell, i), more = __shfl_sync(kAllLanes, size, i);
        if (next < 0) continue;
        unsigned& word = shared_.taken[next / kWordBits];
        const unsigned bit = 1u << next % kWordBits;
        const bool again = (word & bit) != 0;
        __syncwarp();  // all have looked
        if (again) continue;
        if (lane_ == 0) word |= bit;
        __syncwarp();
        rows += more;
      }
    }
  }

  // Each warp lists the rows of its threads' cells, one cell after another.
  __device__ void list_rows() {
    uint32_t* slots = problem_.slots + blockIdx.x * problem_.stride;
    int64_t before = 0;
    for (int64_t first = 0; first < cells_.cells; first += kFilterThreads) {
      const int64_t cell = first + threadIdx.x;
      const bool taken =
          cell < cells_.cells && (shared_.taken[cell / kWordBits] >> cell % kWordBits & 1u) != 0;
      const int size = taken ? size_of(cell) : 0;
      const uint32_t start = taken ? cells_.start[cell] : 0;
      int all = 0;
      const int at = sum_before(size, shared_.sums, &all);
      for (unsigned left = __ballot_sync(kAllLanes, size > 0 ? 1 : 0); left != 0; left &= left - 1) {
        const int lane = __ffs(static_cast<int>(left)) - 1;
        const uint32_t from = __shfl_sync(kAllLanes, start, lane);
        const int many = __shfl_sync(kAllLanes, size, lane), to = __shfl_sync(kAllLanes, at, lane);
        for (int i = lane_; i < many; i += kWarpSize)
          slots[before + to + i] = cells_.members == nullptr ? from + i : cells_.members[from + i];
      }
      before += all;
    }
    if (threadIdx.x == 0) problem_.counts[blockIdx.x] = before;
  }

  const NearRowsProblem& problem_;
  const BuildCells& cells_;
  NearRowsShared& shared_;
  const int lane_;
  int64_t own_, owns_;  // the group's first cell, and how many it is in
};

__global__ void __launch_bounds__(kFilterThreads, 1)
    list_near_rows(const __grid_constant__ NearRowsProblem problem) {
  auto* memory = shared_array<unsigned char>(near_rows_shared_bytes(problem.cells.cells));
  NearRowsLister(problem, *reinterpret_cast<NearRowsShared*>(memory)).run();
}

}  // namespace ec::cuda::ann
