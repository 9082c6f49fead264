// SPDX-License-Identifier: Apache-2.0
// Backward of more heads and columns than one block has registers for: clusters of two blocks share the
// tokens, and the two blocks of a cluster the columns. Each copies its half of every row and multiplies it
// with its half of grad_out; dA is what both have together, which they send each other. A and dz are then
// made in both; each writes its half of the tokens' gradients, and adds up its half of the query's.
//
// For tile n: half of dA; wait for the other's half of tile n - 1; sync; send the half of tile n; the rest
// of tile n - 1 (backward.cuh). So what is sent travels while a tile is worked on. Between pieces, whose
// factors are others, nothing is under way.
//
// Numerics: both blocks have the same dA, A and dz, bit by bit, for both walk the same pieces and tiles,
// and of two numbers to be added each has one. So they have the same sums and powers of two. What is of a
// token or a head alone is written by one of the two.
//
// Memory: products are received at one of two places by turns, each with a barrier. Products n are sent
// behind the wait for the other's products n - 1. These it sent behind a sync that all its threads came to
// after they had read products n - 2, which were at the place of n. So nothing is written while it is read,
// and no barrier counts bytes of two turns at a time. Whatever is sent to a block it waits for: then it may
// leave.
#pragma once

#include "attention/backward.cuh"
#include "common/cluster.cuh"

namespace ec::cuda {

constexpr int kClusterGradientTokens = 16;  // of a tile
constexpr int kClusterGradientHeads = 4;    // of a thread, of its token

// What comes from the other block, each with a barrier that counts its bytes; [2]: tiles take turns.
struct ReceivedGradients {
  uint4 products[2][kAttentionThreads];  // of a thread's heads and token
  int64_t number[2];                     // of the cluster, and nothing
  CopyBarrier products_there[2], number_there;
};

// T has 16 bits; there are at most 64 heads, and 128 kPairs columns of the keys in a half.
template <class T, int kPairs>
class ClusterGradientPool
    : public TensorGradientPool<T, kClusterHeads / 16, kPairs, kClusterGradientTokens, true> {
  using Base = TensorGradientPool<T, kClusterHeads / 16, kPairs, kClusterGradientTokens, true>;
  static_assert(Base::kOwnHeads == kClusterGradientHeads, "threads have all heads and tokens");

 public:
  __device__ ClusterGradientPool(const BackwardCall& call, unsigned char* shared,
                                 ReceivedGradients& received)
      : Base(call, shared), received_(received) {}

  // By one thread, before the cluster's barrier.
  static __device__ void init(ReceivedGradients& received) {
    for (CopyBarrier& there : received.products_there) init_barrier(there, 1);
    init_barrier(received.number_there, 1);
    publish_barriers();
  }

  // Whether results of a head are written by this block.
  __device__ bool writes(int j) const { return j % kClusterBlocks == static_cast<int>(blockIdx.y); }

  // This half's products of tile n. Requires: all threads have multiplied.
  __device__ void send(unsigned n) {
    CopyBarrier& there = received_.products_there[n % 2];
    if (threadIdx.x == 0) arrive_and_expect(there, sizeof received_.products[0]);
    const int token = static_cast<int>(threadIdx.x) % kClusterGradientTokens;
#pragma unroll
    for (int i = 0; i < kClusterGradientHeads; ++i)
      own_[i] = Base::product(i, head_of_half_warp<kClusterGradientHeads>(i), token);
    store_there(1 - blockIdx.y, &received_.products[n % 2][threadIdx.x], bits_of(own_), there);
  }
  // Those of tile n, the last that was sent, from both halves.
  __device__ void receive(unsigned n) {
    wait_for_neighbours(received_.products_there[n % 2], n / 2 % 2);
    load_at_once(received_.products[n % 2][threadIdx.x], sums_);
#pragma unroll
    for (int i = 0; i < kClusterGradientHeads; ++i) sums_[i] += own_[i];
  }
  // What was received.
  __device__ float product(int i, int, int) const { return sums_[i]; }

 private:
  ReceivedGradients& received_;
  float own_[kClusterGradientHeads], sums_[kClusterGradientHeads];  // of the thread's heads and token
};

// As take_number, of both blocks. Requires: the other's barriers are made.
template <bool kSums>
__device__ __forceinline__ void take_number_together(const BackwardCall& call, ReceivedGradients& received,
                                                     int64_t* number) {
  const bool counted = !kSums && call.slots.turns != nullptr;
  if (threadIdx.x == 0) {
    if (!counted) {
      *number = static_cast<int64_t>(blockIdx.x);
    } else if (blockIdx.y == 0) {
      const int64_t taken[2] = {atomicAdd(call.slots.started, 1), 0};
      *number = taken[0];
      store_there(1, received.number, bits_of(taken), received.number_there);
    } else {
      arrive_and_expect(received.number_there, sizeof received.number);
      wait_for_neighbours(received.number_there, 0);
      *number = received.number[0];
    }
  }
  __syncthreads();
}

// kSums: the walk over sharp sequences.
template <class T, class Pool, bool kSums>
__device__ __forceinline__ void differentiate_halves(const BackwardCall& call) {
  unsigned char* shared = shared_array<unsigned char>(call.memory.shared_bytes);
  auto& received = *call.memory.find<ReceivedGradients, true>(call.received, shared);
  if (threadIdx.x == 0) Pool::init(received);
  cluster_arrive();
  cluster_wait();
  int64_t& block = *call.memory.find<int64_t, true>(call.number, shared);
  take_number_together<kSums>(call, received, &block);
  TileWalk& walk = *call.memory.find<TileWalk, true>(call.walk, shared);
  TileCopies<T> copies(call.problem, call.sequences, Share(call.sequences, gridDim.x), block,
                       call.halves[blockIdx.y], call.gradient.scores, kSums ? call.terms.sharp : nullptr,
                       walk, call.memory.find<unsigned char, true>(call.stages, shared));
  HeadGradient* states = call.memory.find<HeadGradient, true>(call.states, shared);
  Across& across = *call.memory.find<Across, true>(call.across, shared);
  Pool pool(call, shared, received);
  pool.clear();
  bool loaded = false;
  bool pending = false;  // the last tile that was taken is sent, and no more
  for (;;) {
    const TileHeader& next = copies.next();
    const bool more = next.present() && !(pending && next.starts);
    if (!more && !pending) break;
    if (more) {
      if (next.starts) {
        __syncthreads();
        begin_piece<Pool, kSums>(call, next.piece, loaded, states, pool);
        loaded = !call.problem.query_per_sequence;
      }
      copies.take();
      pool.multiply(copies.stage().values);
    }
    const int back = more ? 1 : 0;
    if (pending) pool.receive(copies.taken() - 1 - static_cast<unsigned>(back));
    __syncthreads();
    if (more) pool.send(copies.taken() - 1);
    if (pending) {
      const TileHeader& header = copies.header(static_cast<unsigned>(back));
      const Stage<T> stage = copies.stage(back);
      if (kSums) {
        sum_tile(call, header, stage.offsets, stage.saved, nullptr, across, states, pool);
      } else {
        differentiate_tile(call, header, stage.offsets, stage.saved, nullptr, nullptr, nullptr, across,
                           states, pool);
        __syncthreads();
        if (call.wants_query()) pool.add(stage.keys, states);
        pool.spread(call, header, across);
      }
      if (header.stops)
        finish_piece<Pool, kSums>(call, header.piece, !copies.next().present(), block, states, pool);
    }
    pending = more;
  }
  async_wait<0>();
}

template <class T, int kPairs, bool kSums>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    differentiate_clusters(const __grid_constant__ BackwardCall call) {
#if EC_CLUSTER_CODE
  differentiate_halves<T, ClusterGradientPool<T, kPairs>, kSums>(call);
#endif
}

}  // namespace ec::cuda
