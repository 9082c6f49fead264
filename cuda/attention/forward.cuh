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

namespace ec::cuda {

// Of a piece: results where it is its whole sequence, else a slot.
template <class T, class Pool>
__device__ __forceinline__ void finish_piece(const ForwardCall& call, const Piece& piece,
                                             const HeadStates& states, Pool& pool) {
  const int64_t heads = call.problem.heads, columns = call.problem.value_columns;
  if (piece.whole()) {
    const int64_t row = piece.sequence * heads;
    for (int j = static_cast<int>(threadIdx.x); j < heads; j += kAttentionThreads)
      finish_head(call, row + j, states.total[j], states.rounded_total[j], states.reference[j],
                  states.inverse[j], true);
    pool.each([&](int j, int k, float a, float b) {
      const double total = states.rounded_total[j];
      const float scale = states.total[j] == 0.0 ? 0.0f : static_cast<float>(1.0 / total);
      write_out<T>(call, row + j, k, a * scale, b * scale);
    });
    return;
  }
  const int64_t row = piece.slot(blockIdx.x) * heads;
  for (int j = static_cast<int>(threadIdx.x); j < heads; j += kAttentionThreads) {
    call.slots.reference[row + j] = states.reference[j];
    call.slots.total[row + j] = states.total[j];
    call.slots.rounded_total[row + j] = states.rounded_total[j];
  }
  pool.each([&](int j, int k, float a, float b) {
    float* to = call.slots.pooled + (row + j) * columns + k;
    if (k < columns) to[0] = a;
    if (k + 1 < columns) to[1] = b;
  });
}

template <class T, class Pool>
__device__ __forceinline__ void attend(const ForwardCall& call) {
  unsigned char* shared = shared_array<unsigned char>(call.memory.shared_bytes);
  const AttentionProblem& problem = call.problem;
  const Share share(call.sequences, gridDim.x);
  unsigned char* stages = call.memory.find<unsigned char>(call.stages, shared);
  TileCopies<T> copies(problem, call.sequences, share, call.tile, nullptr, nullptr, stages);
  const HeadStates states(call.memory.find<unsigned char>(call.states, shared), problem.heads);
  double* squares = call.memory.find<double>(call.squares, shared);
  float* scores = call.memory.find<float>(call.scores, shared);
  Pool pool(call, shared);
  PieceWalk pieces(call.sequences, share, blockIdx.x);
  Piece piece;
  int number = 0;
  bool loaded = false;
  while (pieces.next(piece)) {
    begin_states(problem, piece.sequence, states);
    if (problem.query.data != nullptr && (!loaded || problem.query_per_sequence))
      pool.load(problem, piece.sequence);
    loaded = true;
    pool.clear();
    for (int64_t first = piece.first; first < piece.last; first += call.tile.tokens) {
      copies.take();
      const Stage<T> stage(call.tile, stages, number);
      number = number + 1 == call.tile.stages ? 0 : number + 1;
      if (problem.query.data != nullptr) pool.multiply(stage.keys, scores);
      __syncthreads();
      weigh_tile(call, piece, first, stage.offsets, Pool::kProductSlots, pool.slot_numbers(), scores, squares,
                 states, [&](int j, float weight) { return pool.put(j, weight, scores); });
      __syncthreads();
      pool.add(stage.values, scores, states.shrink);
    }
    __syncthreads();
    finish_piece<T>(call, piece, states, pool);
    __syncthreads();
  }
  async_wait<0>();
}

template <class T>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attend_plain(const __grid_constant__ ForwardCall call) {
  attend<T, PlainPool<T>>(call);
}

template <class T, int kHeadTiles, int kPairs>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attend_tensor(const __grid_constant__ ForwardCall call) {
  attend<T, TensorPool<T, kHeadTiles, kPairs>>(call);
}

}  // namespace ec::cuda
