// SPDX-License-Identifier: Apache-2.0
// Queries whose answer by codes is not certain, compared with every row that passes by the vectors.
#pragma once

#include "ann/answers.cuh"

namespace ec::cuda::ann {

struct ExactShared {
  Key keys[kWarpSize];  // of as many rows, which the warps measure in turns
};

// x: places, fastest, times positions. A block's first warp keeps the list of its place.
template <class T>
__global__ void __launch_bounds__(kPairThreads, 1)
    scan_vectors(const __grid_constant__ AnswerProblem problem) {
  begin_behind();
  ExactShared& shared = shared_memory<ExactShared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const ScanProblem& scan = problem.scan;
  const int64_t position = blockIdx.x / scan.places, place = blockIdx.x - position * scan.places;
  if (problem.uncertain[position] == 0) return;
  const int filter = scan.queries.filter_of(position);
  const int64_t rows = scan.passing.count(filter);
  const float* query = scan.queries.vectors + position * scan.index.columns;
  const double part = scan.queries.facts[position].part;
  const KeyList list = scan.list(position, place);
  Key last = 0;  // of the list: what a key must be above to get in
  if (warp == 0) list.clear(lane);
  for (int64_t first = place * kWarpSize; first < rows; first += scan.places * kWarpSize) {
    for (int i = warp; i < kWarpSize; i += kPairWarps) {
      const bool there = first + i < rows;
      const uint32_t slot = there ? scan.passing.slot(filter, first + i) : 0;
      const float distance = there ? distance_of<T>(scan.index, query, part, slot, lane) : 0.0f;
      if (lane == 0) shared.keys[i] = there && distance == distance ? key_of(-distance, slot) : 0;
    }
    __syncthreads();
    if (warp == 0) {
      const Key key = shared.keys[lane];
      if (__any_sync(kAllLanes, key > last ? 1 : 0) != 0) {
        list.insert(sort_warp(key, lane), 0, lane);
        __syncwarp();
        last = list.last();
      }
    }
    __syncthreads();
  }
}

}  // namespace ec::cuda::ann
