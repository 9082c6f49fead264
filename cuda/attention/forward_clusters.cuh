// SPDX-License-Identifier: Apache-2.0
// Forward of more heads and columns than one block has registers for: clusters of two blocks share the
// tokens, and the two blocks of a cluster the columns. Each copies its half of every row, which is so read
// once, multiplies it with its half of the factor, and pools its columns. Weights are made once: each block
// takes half of a tile's tokens, for all heads, gets the other's half sums for these, and sends back what
// it makes of them.
//
// For tile n: half of z; sync; send the products; pool tile n - 1, whose weights are there; sync; wait for
// the other's products; f and weights as in forward.cuh; with the next tile: sync; send the weights. What
// is sent travels while tiles are pooled and multiplied.
//
// Numerics: both blocks have the same weights and sums of them, bit by bit, for both walk the same pieces
// and tiles, and of two numbers to be added or compared each has one. Results of a token are written by the
// block that weighs it, those of a head by one of the two, and those of a column by its own.
//
// Memory: products and weights are received at one of two places by turns, which is enough, and so is a
// barrier for each place, without another sync of the cluster:
// - Products n + 2 are sent behind the wait for the other's products n + 1. These were sent behind a sync
//   that all its threads came to after they had read products n, and so waited for these.
// - Weights n + 1 are sent behind the wait for products n + 1, which the other sent behind a sync that all
//   its threads came to after they had pooled tile n - 1, and so waited for its weights.
// - The largest numbers of tile n + 1 are sent behind the wait for products n + 1, sums of a piece that
//   ends with tile n behind the wait for weights n; the other had used the last ones before it sent those.
// So nothing is written while it is read, and no barrier counts bytes of two turns at a time. Whatever is
// sent to a block it waits for: then it may leave.
#pragma once

#include "attention/cluster_pool.cuh"
#include "attention/forward.cuh"

namespace ec::cuda {

// Moves the references of all heads whose scores have grown far above them, in both blocks alike.
template <class Pool>
__device__ __forceinline__ void raise_shared(const float (&f)[kWeighedHeads], HeadState* states,
                                             Pool& pool) {
  float largest[kWeighedHeads];
#pragma unroll
  for (int i = 0; i < kWeighedHeads; ++i) largest[i] = f[i];
  pool.share_largest(largest);
  if (threadIdx.x % kHalfTokens == 0) {
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i) raise_reference(largest[i], states[pool.own_head(i)]);
  }
  __syncwarp();
}

// The weights of this block's tokens of tile n.
template <class Pool>
__device__ __forceinline__ void weigh_half(const ForwardCall& call, const TileHeader& header, unsigned n,
                                           const float* offsets, double* squares, HeadState* states,
                                           Pool& pool) {
  const AttentionProblem& problem = call.problem;
  const int64_t step = call.sequences.tokens;
  const TileToken token(call.sequences, header, call.tile.tokens, offsets, pool.token());
  const auto put_like_scores = [&](float* to, int j, float number) {
    if (to != nullptr && token.there && j < problem.heads) to[token.place + j * step] = number;
  };
  float f[kWeighedHeads];
  pool.receive_products(n, f);
  float near = 0.0f;  // of numbers that are at most 1
  double square = 0.0;
#pragma unroll
  for (int i = 0; i < kWeighedHeads; ++i) {
    const int j = pool.own_head(i);
    const float z = token.counts() ? f[i] : 0.0f;
    put_like_scores(call.result.scores, j, z);
    f[i] = activated(problem, call.sequences, header.piece.sequence, token, j, z);
    if (problem.activation == Activation::kTanh)
      near = __fmaf_rn(f[i], f[i], near);
    else
      square += static_cast<double>(f[i]) * static_cast<double>(f[i]);
  }
  square += static_cast<double>(near);
  square += __shfl_xor_sync(kAllLanes, square, kHalfTokens);
  float passed;
  const float length = inverse_length(problem, square, squares, &passed);
#pragma unroll
  for (int i = 0; i < kWeighedHeads; ++i) {
    f[i] = token.counts() ? f[i] * length + token.offset : -HUGE_VALF;
    put_like_scores(call.result.weights, pool.own_head(i), f[i]);
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;  // all heads: both blocks go the same way
  const bool unbounded =
      states[lane].inverse > call.most_bounded || states[lane + kWarpSize].inverse > call.most_bounded;
  if (__any_sync(kAllLanes, unbounded)) raise_shared(f, states, pool);
#pragma unroll
  for (int i = 0; i < kWeighedHeads; ++i) {
    const HeadState& state = states[pool.own_head(i)];
    pool.put(n, i, token.counts() ? power_of(f[i], state) : 0.0f, state.shrink);
  }
}

// Pools tile n, and where it is the last finishes its piece, whose sums go through the stage of the tile:
// there is room for kDrainNumbers.
template <class T, class Pool>
__device__ __forceinline__ void pool_half(const ForwardCall& call, const TileHeader& header, unsigned n,
                                          const Stage<T>& stage, HeadState* states, Pool& pool) {
  pool.add(n, stage.values, states);
  if (!header.stops) return;
  pool.sum_totals(states);
  __syncthreads();
  finish_piece<T>(call, header.piece, states, pool, reinterpret_cast<float*>(stage.values));
}

template <class T, class Pool>
__device__ __forceinline__ void attend_halves(const ForwardCall& call) {
  unsigned char* shared = shared_array<unsigned char>(call.memory.shared_bytes);
  const AttentionProblem& problem = call.problem;
  if (threadIdx.x == 0) Pool::init(*call.memory.find<Received, true>(call.received, shared));
  cluster_arrive();
  TileWalk& walk = *call.memory.find<TileWalk, true>(call.walk, shared);
  TileCopies<T> copies(problem, call.sequences, Share(call.sequences, gridDim.x), blockIdx.x,
                       call.halves[blockIdx.y], nullptr, nullptr, walk,
                       call.memory.find<unsigned char, true>(call.stages, shared));
  HeadState* states = call.memory.find<HeadState, true>(call.states, shared);
  double* squares = call.memory.find<double, true>(call.squares, shared);
  let_next_begin();
  Pool pool(call, shared);
  cluster_wait();
  for (;;) {
    const TileHeader& header = copies.next();
    const bool present = header.present();
    const unsigned n = copies.taken();  // tile n - 1 is weighed, and not pooled yet
    if (present) {
      if (n == 0 || (header.starts && problem.query_per_sequence))
        pool.load(problem, header.piece.sequence);
      copies.take();
    } else {
      __syncthreads();
    }
    if (n > 0) pool.send_weights(n - 1);
    if (present) {
      pool.multiply(copies.stage().keys);
      __syncthreads();
      pool.send_products(n);
    }
    if (n > 0)
      pool_half(call, copies.header(present ? 1 : 0), n - 1, copies.stage(present ? 1 : 0), states, pool);
    if (!present) break;
    __syncthreads();
    if (header.starts) {
      begin_states(call, header.piece.sequence, kClusterHeads, states);
      pool.clear();
      __syncthreads();
    }
    weigh_half(call, header, n, copies.stage().offsets, squares, states, pool);
  }
  async_wait<0>();
}

template <class T, int kPairs>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attend_clusters(const __grid_constant__ ForwardCall call) {
#if EC_CLUSTER_CODE
  attend_halves<T, ClusterPool<T, kPairs>>(call);
#endif
}

}  // namespace ec::cuda
