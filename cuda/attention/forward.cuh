// SPDX-License-Identifier: Apache-2.0
// Forward: each block walks its share of the tokens (sequences.cuh) tile by tile. Both products take a tile
// from shared memory, so that the memory of the device is read once.
//
// For a tile: z of all heads; sync; f, and weights relative to a reference of each head (a warp has whole
// heads, a lane a token); sync; pooled += weights * values. A reference moves when a score is far above it;
// what was pooled before shrinks then.
// Numerics: z and sums over a block's tokens in float32, sums of weights and lengths over the heads in
// float64. Weights are rounded as the pool takes them, and divided by the sum of what was rounded.
#pragma once

#include "attention/forward_pools.cuh"
#include "common/behind.cuh"

namespace ec::cuda {

// Whether a pool has an order of its own for slots, and leave(slot).
template <class Pool>
inline constexpr bool kLeavesSums = false;

// Of a piece: results where it is its whole sequence, else a slot. scratch: see each_sum.
template <class T, class Pool>
__device__ __forceinline__ void finish_piece(const ForwardCall& call, const Piece& piece, HeadState* states,
                                             const Pool& pool, float* scratch) {
  const int64_t heads = call.problem.heads, columns = call.problem.value_columns;
  const int64_t row = (piece.whole() ? piece.sequence : piece.slot(blockIdx.x)) * heads;
  for (int j = static_cast<int>(threadIdx.x); j < heads; j += kAttentionThreads) {
    if (piece.whole()) {  // what shrinks no more keeps what is once more multiplied by
      states[j].shrink = finish_head(call, row + j, states[j].total, states[j].rounded_total,
                                     states[j].reference, states[j].inverse, pool.writes(j));
      continue;
    }
    if (!pool.writes(j)) continue;
    call.slots.reference[row + j] = states[j].reference;
    call.slots.total[row + j] = states[j].total;
    call.slots.rounded_total[row + j] = states[j].rounded_total;
  }
  if (piece.whole()) {
    pool.sync();
    pool.each(scratch, [&](int j, int k, float a, float b) {
      const float scale = states[j].shrink;
      write_out<T>(call, row + j, k, a * scale, b * scale);
    });
  } else if constexpr (kLeavesSums<Pool>) {
    pool.leave(piece.slot(blockIdx.x));
  } else {
    pool.each(scratch, [&](int j, int k, float a, float b) {
      if (k < columns) store_one_or_two(a, b, k + 1 < columns, call.slots.pooled + (row + j) * columns + k);
    });
  }
}

template <class T, class Pool>
__device__ __forceinline__ void attend(const ForwardCall& call) {
  unsigned char* shared = shared_array<unsigned char>(call.memory.shared_bytes);
  const AttentionProblem& problem = call.problem;
  wait_for_kernel_before();
  TileWalk& walk = *call.memory.find<TileWalk, Pool::kShared>(call.walk, shared);
  TileCopies<T> copies(problem, call.sequences, Share(call.sequences, gridDim.x), blockIdx.x, call.tile,
                       nullptr, nullptr, walk,
                       call.memory.find<unsigned char, Pool::kShared>(call.stages, shared));
  HeadState* states = call.memory.find<HeadState, Pool::kShared>(call.states, shared);
  double* squares = call.memory.find<double, Pool::kShared>(call.squares, shared);
  float* scores = call.memory.find<float, Pool::kShared>(call.scores, shared);
  let_next_begin();
  Pool pool(call, shared);
  bool loaded = problem.query.data == nullptr;
  for (;;) {
    const TileHeader& header = copies.next();
    if (!header.present()) break;
    if (header.starts) {  // while tokens are copied
      __syncthreads();
      begin_states(call, header.piece.sequence, pool.rows(), states);
      if (!loaded) pool.load(problem, header.piece.sequence);
      loaded = problem.query.data == nullptr || !problem.query_per_sequence;
      pool.clear();
    }
    copies.take();
    const Stage<T> stage = copies.stage();
    if (problem.query.data != nullptr) {
      pool.multiply(stage.keys);
      __syncthreads();
    }
    weigh_tile(call, header, stage.offsets, scores, squares, states, pool);
    __syncthreads();
    pool.add(stage.values, states);
    if (!header.stops) continue;
    pool.sum_totals(states);
    __syncthreads();
    finish_piece<T>(call, header.piece, states, pool, scores);
  }
  async_wait<0>();
}

template <class T>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attend_plain(const __grid_constant__ ForwardCall call) {
  attend<T, PlainPool<T>>(call);
}

// Of narrow rows and few heads two blocks of a multiprocessor go by turns: one multiplies where the other
// waits. They have registers for that.
constexpr int kNarrowPairs = 3, kNarrowTiles = 2;

template <class T, int kScoreTiles, int kHeadTiles, int kPairs>
__global__ void __launch_bounds__(kAttentionThreads,
                                  kPairs <= kNarrowPairs && kScoreTiles <= kNarrowTiles ? 2 : 1)
    attend_tensor(const __grid_constant__ ForwardCall call) {
  attend<T, TensorPool<T, kScoreTiles, kHeadTiles, kPairs>>(call);
}

}  // namespace ec::cuda
