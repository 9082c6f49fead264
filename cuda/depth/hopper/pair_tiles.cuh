// SPDX-License-Identifier: Apache-2.0
// Sums of chord and arc distances (depth_math.h) for every pair of rows, on Hopper. What is summed, and
// what becomes of it, is as in pairwise.cuh; here is another way to the same sums.
//
// A block stays on its multiprocessor and takes one item after another: a tile of 192 rows, and every so
// many'th tile of 240 rows of the corpus. Bulk copies fill a ring of stages (64 columns of both tiles);
// three warpgroups, of 64 rows each, multiply from the same stages and take distances of the products in
// their registers. They are not kept in step: while one takes distances the others multiply, as far ahead
// of it as the ring is long; a pause at the start sets them apart. The warp that is the last to be done
// with a stage has it filled again, so that none does nothing but copy: registers are for 12 warps and no
// more.
//
// What bounds it, per multiprocessor and cycle: the tensor cores take 192 x 256 x 64 products in 1536
// cycles; in that time 54 KB come in (38 bytes a cycle; tiles of 128 x 256 would need 48, and the L2 cache
// gives little more), and products read 81 bytes of shared memory of the 128 that it gives. Distances are
// some 14 instructions a pair, for 1024 columns 2000 of 8192 cycles of a warpgroup's product, hidden behind
// those of the others.
//
// Where the rows are their own corpus, only tiles with pairs i < j are taken, each pair for both its rows.
//
// Numerics: see tile_sums.cuh. Memory: dynamic shared, kHopperSharedBytes.
#pragma once

#include "depth/hopper/tile_sums.cuh"

namespace ec::cuda {

constexpr int kRingStages = 4;
constexpr int kHopperWarps = kTileThreads / kWarpSize;
constexpr unsigned kPauseNanoseconds = 500;  // about what a stage takes a warpgroup that is alone

struct RingStage {
  BFloat rows[kTileRows * kPanelColumns], others[kTileOthers * kPanelColumns];
};
// The stage to be copied next. product: of strict ones x2 y1, x1 y2 and x1 y1, the small ones first,
// because tensor cores cut off what they add to a large sum.
struct NextStage {
  int lap, row_tile, tile, product, block;
};
struct HopperShared {
  RingStage stages[kRingStages];
  CopyBarrier full[kRingStages];
  unsigned done[kRingStages];  // warps, with what the stage holds
  NextStage next;              // the last one of them has it
  int next_laps[kHopperWarps];
  NearBits near;
};
// The stages begin on kSwizzleBytes, where shared memory may not.
constexpr size_t kHopperSharedBytes = sizeof(HopperShared) + kSwizzleBytes;
static_assert(kHopperSharedBytes <= size_t{227} << 10, "a block has no more");

// A tile of rows, and a share of the corpus: tiles first_tile, first_tile + shares, ...
struct HopperItem {
  int row_tile, first_tile;
};

// What a block takes in a lap. Blocks take turns in either order and shares move on from one tile of rows
// to the next, so that none gets the longer items alone. kSymmetric: only tiles with a pair i < j, of which
// later rows have less.
template <bool kSymmetric>
__device__ __forceinline__ HopperItem item_of(const HopperProblem& problem, int lap) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x),
            number = lap * blocks + (lap % 2 == 0 ? block : blocks - 1 - block);
  const int row_tile = number / problem.shares, place = number - row_tile * problem.shares;
  const int share = (place + row_tile) % problem.shares;
  if (row_tile >= problem.row_tiles) return {row_tile, problem.other_tiles};  // there is no such item
  const int least = kSymmetric ? static_cast<int>(int64_t{row_tile} * kTileRows / kTileOthers) : 0;
  const int behind = (share - least % problem.shares + problem.shares) % problem.shares;
  return {row_tile, least + behind};
}

__device__ __forceinline__ int products_of_tile(const HopperProblem& problem) {
  return problem.rows.panels.parts == 2 ? 3 : 1;
}

// Of the stages that a block goes through, number n is in this slot of the ring, and is there when the
// phase of this parity of `full` is over.
__device__ __forceinline__ int slot_of(unsigned n) { return static_cast<int>(n % kRingStages); }
__device__ __forceinline__ unsigned parity_of(unsigned n) { return n / kRingStages % 2; }

// The first tile of the next item that has one, from a lap on.
template <bool kSymmetric>
__device__ __forceinline__ void find_item(const HopperProblem& problem, NextStage& next) {
  for (; next.lap < problem.laps; ++next.lap) {
    const HopperItem item = item_of<kSymmetric>(problem, next.lap);
    next.row_tile = item.row_tile;
    next.tile = item.first_tile;
    if (next.tile < problem.other_tiles) return;
  }
}

// By one thread: has a stage filled with what comes next, if there is more. Short, for the warp waits.
template <bool kSymmetric>
__device__ __forceinline__ void copy_next(const HopperProblem& problem, HopperShared& shared, int slot) {
  NextStage next = shared.next;
  if (next.lap >= problem.laps) return;
  RingStage& stage = shared.stages[slot];
  CopyBarrier& full = shared.full[slot];
  arrive_and_expect(full, sizeof(RingStage));
  const int left = products_of_tile(problem) - 1 - next.product;  // products of the tile behind this one
  bulk_copy(stage.rows, problem.rows.panels.block(next.row_tile, left == 2, next.block), sizeof stage.rows,
            full);
  bulk_copy(stage.others, problem.others.panels.block(next.tile, left == 1, next.block),
            sizeof stage.others, full);
  if (++next.block == problem.rows.panels.blocks) {
    next.block = 0;
    if (++next.product == products_of_tile(problem)) {
      next.product = 0;
      next.tile += problem.shares;
      if (next.tile >= problem.other_tiles) {
        ++next.lap;
        find_item<kSymmetric>(problem, next);
      }
    }
  }
  shared.next = next;
}

// By a lane of each warp, when its warp has multiplied what a stage holds. The last one is alone with
// shared.next: it is one of those that the next stage has to wait for.
template <bool kSymmetric>
__device__ __forceinline__ void leave_stage(const HopperProblem& problem, HopperShared& shared, int slot) {
  if (count_up_to(shared.done[slot], kHopperWarps - 1)) copy_next<kSymmetric>(problem, shared, slot);
}

// By a warpgroup: has the products of stage n made, the first of a tile, or others added to those.
template <bool kFirst>
__device__ __forceinline__ void multiply_stage(HopperShared& shared, unsigned n,
                                               float (&c)[kThreadNumbers]) {
  const RingStage& stage = shared.stages[slot_of(n)];
  const int group = static_cast<int>(threadIdx.x / kGroupThreads);
  wait_for_phase(shared.full[slot_of(n)], parity_of(n));
  const uint64_t rows = tile_descriptor(shared_address(stage.rows + group * kPanelNumbers)),
                 others = tile_descriptor(shared_address(stage.others));
  products_fence();
  if (kFirst)
    multiply_tiles(c, rows, others);
  else
    multiply_add_tiles(c, rows, others);
#pragma unroll
  for (int k = 1; k < kPanelColumns / kProductSteps; ++k)
    multiply_add_tiles(c, rows + k * kNextStep, others + k * kNextStep);
  products_commit();
}

// By a warpgroup: the products of one tile, from stage n on, and the stages given back.
template <bool kSymmetric>
__device__ __forceinline__ void multiply_tile(const HopperProblem& problem, HopperShared& shared,
                                              unsigned& n, float (&c)[kThreadNumbers]) {
  const bool first_lane = threadIdx.x % kWarpSize == 0;
  multiply_stage<true>(shared, n, c);
  for (int steps = problem.rows.panels.blocks * products_of_tile(problem); steps > 1; --steps) {
    multiply_stage<false>(shared, ++n, c);
    products_wait<1>();  // those of the stage before are made, and it is free
    if (first_lane) leave_stage<kSymmetric>(problem, shared, slot_of(n - 1));
  }
  products_end(c);
  if (first_lane) leave_stage<kSymmetric>(problem, shared, slot_of(n));
  ++n;
}

// Barriers, and the first stages. By one thread.
template <bool kSymmetric>
__device__ __forceinline__ void start_ring(const HopperProblem& problem, HopperShared& shared) {
  for (int i = 0; i < kRingStages; ++i) {
    init_barrier(shared.full[i], 1);
    shared.done[i] = 0;
  }
  publish_barriers();
  NextStage next = {};
  find_item<kSymmetric>(problem, next);
  shared.next = next;
#pragma unroll 1
  for (int i = 0; i < kRingStages; ++i) copy_next<kSymmetric>(problem, shared, i);
}

template <PairMetric kMetric, bool kWeighted, bool kSymmetric>
__global__ void __launch_bounds__(kTileThreads, 1)
    sum_pair_tiles(const __grid_constant__ HopperProblem problem) {
#if EC_HOPPER_CODE
  unsigned char* memory = shared_array<unsigned char>(kHopperSharedBytes);
  HopperShared& shared = *reinterpret_cast<HopperShared*>(
      memory + (kSwizzleBytes - shared_address(memory) % kSwizzleBytes) % kSwizzleBytes);
  if (threadIdx.x == 0) start_ring<kSymmetric>(problem, shared);
  __syncthreads();
  __nanosleep(kPauseNanoseconds * (threadIdx.x / kGroupThreads));
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  // While the first stages are copied.
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * kHopperWarps + warp;
       task < problem.unit_sums.tasks(); task += static_cast<int64_t>(gridDim.x) * kHopperWarps)
    problem.unit_sums.add(task);
  unsigned n = 0;
  int lap = 0;
#pragma unroll 1
  while (lap < problem.laps) {
    const HopperItem item = item_of<kSymmetric>(problem, lap);
    const int first_row = item.row_tile * kTileRows + warp * kWarpPanelRows;
    shared.next_laps[warp] = lap + 1;  // by all its lanes; in between there is no register for it
#pragma unroll 1
    for (int tile = item.first_tile; tile < problem.other_tiles; tile += problem.shares) {
      float c[kThreadNumbers];
      multiply_tile<kSymmetric>(problem, shared, n, c);
      add_tile<kMetric, kWeighted, kSymmetric>(problem, first_row, tile * kTileOthers, c, shared.near);
    }
    __syncwarp();
    lap = shared.next_laps[warp];
    __syncwarp();
  }
#endif
}

}  // namespace ec::cuda
