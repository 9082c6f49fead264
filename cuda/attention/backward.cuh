// SPDX-License-Identifier: Apache-2.0
// Backward: the walk of the forward once more (forward.cuh). Scores are read back with the tokens, weights
// are made again from them and lse.
//
// For a tile: dA = V G' of all heads; sync; A, dz; sync; dq += dz' K, and the gradients of the tokens,
// A' G and dz' q, from where they are, so that tokens are read once and their gradients written once.
// Numerics: as the forward; with tensor cores A, dz, G and q are rounded to the 16 bits of the tokens (of
// float16 divided by powers of two first), and G is so in all that is made of it; else all is float32.
#pragma once

#include "attention/backward_tensor_pool.cuh"
#include "common/behind.cuh"
#include "common/turns.cuh"

namespace ec::cuda {

// Sums of the query's gradient to a result or a slot, or added to what is there.
template <class Pool>
__device__ __forceinline__ void write_query(const BackwardCall& call, float* to, bool add,
                                            const Pool& pool) {
  const int columns = static_cast<int>(call.problem.key_columns);
  const auto put = [&](float* number, float sum) {
    if (add)
      atomicAdd(number, sum);  // not for the sake of others, but because nothing waits for it
    else
      *number = sum;
  };
  pool.each([&](int j, int k, float a, float b) {
    float* row = to + static_cast<int64_t>(j) * columns + k;
    if (k < columns) put(row, a);
    if (k + 1 < columns) put(row + 1, b);
  });
}

// Of a piece: what goes to results where it is whole, else to a slot.
template <class Pool>
__device__ __forceinline__ void finish_temperature(const BackwardCall& call, const Piece& piece,
                                                   int64_t block, const HeadGradient* states,
                                                   const Pool& pool) {
  const int64_t heads = call.problem.heads, b = piece.sequence, slot = piece.slot(block);
  if (call.gradient.grad_temperature == nullptr) return;
  for (int j = static_cast<int>(threadIdx.x); j < heads; j += kAttentionThreads) {
    if (!pool.writes(j)) continue;
    if (piece.whole())
      call.gradient.grad_temperature[b * heads + j] = temperature_gradient(call, b, j, states[j].score_sum);
    else
      call.slots.score_sums[slot * heads + j] = states[j].score_sum;
  }
}

// The query's gradient: of a piece where sequences have queries of their own. Else of the block, with its
// last piece: to its slot, or to one that blocks add to in their order, so that sums repeat. Blocks without
// tokens have none before others that have some, and no slot that is read.
template <class Pool>
__device__ __forceinline__ void finish_query(const BackwardCall& call, const Piece& piece, bool last,
                                             int64_t block, const Pool& pool) {
  const bool own = call.problem.query_per_sequence;
  const Share share(call.sequences, gridDim.x);
  if (!call.wants_query() || (!own && (!last || block * share.size >= share.total))) return;
  const int64_t numbers = call.problem.heads * call.problem.key_columns;
  const bool turns = !own && call.slots.turns != nullptr, whole = own && piece.whole();
  const int64_t slot = own ? piece.slot(block) : block % call.slots.queries;
  const int number = turns ? static_cast<int>(block / call.slots.queries) : 0;
  int* turn = turns ? call.slots.turns + blockIdx.y * call.slots.queries + slot : nullptr;
  if (turns) wait_for_turn(turn, number);
  write_query(
      call, whole ? call.gradient.grad_query + piece.sequence * numbers : call.slots.query + slot * numbers,
      number > 0, pool);
  if (turns) give_turn(turn, number + 1);
}

// The block's number among those that share the tokens. Where blocks take turns it is that of its start:
// who is waited for has started before.
template <bool kSums>
__device__ __forceinline__ void take_number(const BackwardCall& call, int64_t* number) {
  if (threadIdx.x == 0)
    *number = kSums || call.slots.turns == nullptr ? static_cast<int64_t>(blockIdx.x)
                                                   : atomicAdd(call.slots.started, 1);
  __syncthreads();
}

// Of a piece of a sharp sequence.
template <class Pool>
__device__ __forceinline__ void finish_sums(const BackwardCall& call, const Piece& piece,
                                            const HeadGradient* states, const Pool& pool) {
  const int64_t heads = call.problem.heads;
  double* to = piece.whole() ? call.terms.sums + 2 * piece.sequence * heads
                             : call.slots.sums + 2 * piece.slot(blockIdx.x) * heads;
  for (int j = static_cast<int>(threadIdx.x); j < heads; j += kAttentionThreads)
    if (pool.writes(j)) to[2 * j] = states[j].weight_sum, to[2 * j + 1] = states[j].product_sum;
}

// What is of a sequence, for when all threads have met.
template <class Pool, bool kSums>
__device__ __forceinline__ void begin_piece(const BackwardCall& call, const Piece& piece, bool loaded,
                                            HeadGradient* states, Pool& pool) {
  begin_heads(call, Share(call.sequences, gridDim.x), piece, pool.rows(), kSums, states);
  if (Pool::kScaled) __syncthreads();
  pool.load(call, piece.sequence, states, !kSums && !loaded);
  if (!kSums && call.problem.query_per_sequence) pool.clear();
}

// What is left to do when all threads have the last tile of a piece.
template <class Pool, bool kSums>
__device__ __forceinline__ void finish_piece(const BackwardCall& call, const Piece& piece, bool last,
                                             int64_t block, const HeadGradient* states, const Pool& pool) {
  __syncthreads();
  if (kSums) {
    finish_sums(call, piece, states, pool);
  } else {
    finish_temperature(call, piece, block, states, pool);
    finish_query(call, piece, last, block, pool);
  }
}

// kSums: the walk over sharp sequences.
template <class T, class Pool, bool kSums>
__device__ __forceinline__ void differentiate(const BackwardCall& call) {
  unsigned char* shared = shared_array<unsigned char>(call.memory.shared_bytes);
  wait_for_kernel_before();
  const int64_t& block = *call.memory.find<int64_t, Pool::kShared>(call.number, shared);
  take_number<kSums>(call, call.memory.find<int64_t, Pool::kShared>(call.number, shared));
  TileWalk& walk = *call.memory.find<TileWalk, Pool::kShared>(call.walk, shared);
  TileCopies<T> copies(call.problem, call.sequences, Share(call.sequences, gridDim.x), block, call.tile,
                       call.scored() ? call.gradient.scores : nullptr, kSums ? call.terms.sharp : nullptr,
                       walk, call.memory.find<unsigned char, Pool::kShared>(call.stages, shared));
  HeadGradient* states = call.memory.find<HeadGradient, Pool::kShared>(call.states, shared);
  float* scores = call.memory.find<float, Pool::kShared>(call.scores, shared);
  float* gradients = call.memory.find<float, Pool::kShared>(call.products, shared);
  float* weights = call.memory.find<float, Pool::kShared>(call.weights, shared);
  Across& across = *call.memory.find<Across, Pool::kShared>(call.across, shared);
  let_next_begin();
  Pool pool(call, shared);
  pool.clear();
  bool loaded = !call.scored();
  for (;;) {
    const TileHeader& header = copies.next();
    if (!header.present()) break;
    if (header.starts) {  // while tokens are copied
      __syncthreads();
      begin_piece<Pool, kSums>(call, header.piece, loaded, states, pool);
      loaded = !call.scored() || !call.problem.query_per_sequence;
    }
    copies.take();
    const Stage<T> stage = copies.stage();
    pool.multiply(stage.values);
    __syncthreads();
    if (kSums) {
      sum_tile(call, header, stage.offsets, stage.saved, scores, across, states, pool);
    } else {
      differentiate_tile(call, header, stage.offsets, stage.saved, scores, weights, gradients, across,
                         states, pool);
      __syncthreads();
      if (call.wants_query()) pool.add(stage.keys, states);
      pool.spread(call, header, across);
    }
    if (header.stops)
      finish_piece<Pool, kSums>(call, header.piece, !copies.next().present(), block, states, pool);
  }
  async_wait<0>();
}

// Of float32 the registers are not enough for two.
template <class T>
constexpr int kPlainGradientBlocks = sizeof(T) == 4 ? 1 : 2;

template <class T, bool kSums>
__global__ void __launch_bounds__(kAttentionThreads, kPlainGradientBlocks<T>)
    differentiate_plain(const __grid_constant__ BackwardCall call) {
  differentiate<T, PlainGradientPool<T>, kSums>(call);
}

template <class T, int kHeadTiles, int kPairs, int kTokens, bool kSums>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    differentiate_tensor(const __grid_constant__ BackwardCall call) {
  differentiate<T, TensorGradientPool<T, kHeadTiles, kPairs, kTokens>, kSums>(call);
}

}  // namespace ec::cuda
