// SPDX-License-Identifier: Apache-2.0
// What a block of a cluster multiplies with, pools into, and exchanges with the other: see
// forward_clusters.cuh.
#pragma once

#include "attention/forward_pools.cuh"
#include "attention/half_products.cuh"
#include "common/cluster.cuh"

namespace ec::cuda {

constexpr int kHalfTokens = kMostTileTokens / kClusterBlocks;  // of a tile, that a block weighs
constexpr int kWeighedHeads = 4;                               // by a thread, of its token

// What comes from the other block, each with a barrier that counts its bytes; [2]: tiles take turns.
struct Received {
  uint4 products[2][kAttentionThreads];  // of a thread's heads and token
  uint4 largest[kAttentionThreads / kHalfTokens];
  double totals[kClusterHeads][2];  // of the weights, and of the weights as they are pooled
  CopyBarrier products_there[2], weights_there[2], largest_there, totals_there;
};

// T has 16 bits; there are at most 64 heads, and 128 kPairs columns of the values in a half. A half of a
// warp has 16 tokens, and four heads of eight.
template <class T, int kPairs>
class ClusterPool {
 public:
  static constexpr int kRows = kClusterHeads, kHeadTiles = kRows / 16;

  __device__ ClusterPool(const ForwardCall& call, unsigned char* shared)
      : tile_(call.halves[blockIdx.y]),
        heads_(static_cast<int>(call.problem.heads)),
        values_(tile_.values.columns == 0 ? tile_.keys : tile_.values),
        factor_(call.memory.find<T, true>(call.factor, shared)),
        weights_(call.memory.find<T, true>(call.weights, shared)),
        scale_(call.memory.find<float, true>(call.scale, shared)),
        slots_(call.memory.find<float, true>(call.scores, shared)),
        received_(*call.memory.find<Received, true>(call.received, shared)) {}

  // By one thread, before the cluster's barrier.
  static __device__ void init(Received& received) {
    for (int i = 0; i < 2; ++i) {
      init_barrier(received.products_there[i], 1);
      init_barrier(received.weights_there[i], 1);
    }
    init_barrier(received.largest_there, 1);
    init_barrier(received.totals_there, 1);
    publish_barriers();
  }

  __device__ void sync() const { __syncthreads(); }

  // Those that this thread weighs.
  __device__ int token() const { return static_cast<int>(blockIdx.y) * kHalfTokens + lane() % kHalfTokens; }
  __device__ int own_head(int i) const { return head_of_half_warp<kWeighedHeads>(i); }
  // Whether results of a head are written by this block.
  __device__ bool writes(int j) const {
    return j < heads_ && j % kClusterBlocks == static_cast<int>(blockIdx.y);
  }

  __device__ void load(const AttentionProblem& problem, int64_t b) {
    load_scaled_query(problem, b, kRows, tile_.keys, factor_, scale_);
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i) totals_[i] = rounded_totals_[i] = 0.0f;
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h)
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) sums_[h][i] = {};
  }
  __device__ void multiply(const T* keys) const {
    if (tile_.tokens == kMostTileTokens)
      multiply_half<T, kMostTileTokens / 8, kScoreStride>(keys, tile_.keys, factor_, scale_, slots_);
    else
      multiply_half<T, 2, kScoreStride>(keys, tile_.keys, factor_, scale_, slots_);
  }

  // This half's sums for the tokens of tile n that the other weighs. Requires: all threads have multiplied.
  __device__ void send_products(unsigned n) const {
    CopyBarrier& there = received_.products_there[n % 2];
    if (threadIdx.x == 0) arrive_and_expect(there, sizeof received_.products[0]);
    float numbers[kWeighedHeads];
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i) numbers[i] = half_product(own_head(i), token() ^ kHalfTokens);
    store_there(other(), &received_.products[n % 2][threadIdx.x], bits_of(numbers), there);
  }
  // z of this thread's heads and token, from both halves.
  __device__ void receive_products(unsigned n, float (&z)[kWeighedHeads]) const {
    wait_for_neighbours(received_.products_there[n % 2], n / 2 % 2);
    load_at_once(received_.products[n % 2][threadIdx.x], z);
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i) z[i] += half_product(own_head(i), token());
  }

  __device__ void put(unsigned n, int i, float weight, float shrink) {
    const T number = rounded(weight, T{});
    weights(n)[own_head(i) * kScoreStride + token()] = number;
    totals_[i] = __fmaf_rn(totals_[i], shrink, weight);
    rounded_totals_[i] = __fmaf_rn(rounded_totals_[i], shrink, to_float(number));
  }
  // The weights of this block's tokens of tile n. Requires: all threads have put them.
  __device__ void send_weights(unsigned n) const {
    constexpr int kPieces = kHalfTokens * sizeof(T) / sizeof(uint4);  // of a head
    CopyBarrier& there = received_.weights_there[n % 2];
    if (threadIdx.x == 0) arrive_and_expect(there, kRows * kPieces * sizeof(uint4));
    if (threadIdx.x >= kRows * kPieces) return;
    const int j = static_cast<int>(threadIdx.x) / kPieces, piece = static_cast<int>(threadIdx.x) % kPieces;
    T* own = weights(n) + j * kScoreStride + static_cast<int>(blockIdx.y) * kHalfTokens + piece * 8;
    store_there(other(), own, *reinterpret_cast<const uint4*>(own), there);
  }
  // Of tile n, of which all weights are here then.
  __device__ void add(unsigned n, const T* values, const HeadState* states) {
    shrink_sums(states, 0, sums_);
    wait_for_neighbours(received_.weights_there[n % 2], n / 2 % 2);
    pool_tensor<T, kHeadTiles, kPairs>(weights(n), values, values_, tile_.tokens, sums_);
  }

  // From the largest numbers of this thread's heads to those over all tokens of both blocks.
  __device__ void share_largest(float (&largest)[kWeighedHeads]) {
    CopyBarrier& there = received_.largest_there;
    uint4& place = received_.largest[threadIdx.x / kHalfTokens];
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i)
#pragma unroll
      for (int step = kHalfTokens / 2; step > 0; step /= 2)
        largest[i] = fmaxf(largest[i], __shfl_xor_sync(kAllLanes, largest[i], step));
    if (threadIdx.x == 0) arrive_and_expect(there, sizeof received_.largest);
    if (lane() % kHalfTokens == 0) store_there(other(), &place, bits_of(largest), there);
    wait_for_neighbours(there, shares_++ % 2);
    float others[kWeighedHeads];
    load_at_once(place, others);
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i) largest[i] = fmaxf(largest[i], others[i]);
  }
  // Of a piece, over both blocks' tokens.
  __device__ void sum_totals(HeadState* states) {
    CopyBarrier& there = received_.totals_there;
    if (threadIdx.x == 0) arrive_and_expect(there, sizeof received_.totals);
    double sums[kWeighedHeads][2];
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i) {
      sums[i][0] = totals_[i], sums[i][1] = rounded_totals_[i];
#pragma unroll
      for (int step = kHalfTokens / 2; step > 0; step /= 2)
#pragma unroll
        for (double& sum : sums[i]) sum += __shfl_xor_sync(kAllLanes, sum, step);
      if (lane() % kHalfTokens == 0)
        store_there(other(), received_.totals[own_head(i)], bits_of(sums[i]), there);
    }
    wait_for_neighbours(there, pieces_++ % 2);
    if (lane() % kHalfTokens != 0) return;
#pragma unroll
    for (int i = 0; i < kWeighedHeads; ++i) {
      const double* others = received_.totals[own_head(i)];
      states[own_head(i)].total = sums[i][0] + others[0];
      states[own_head(i)].rounded_total = sums[i][1] + others[1];
    }
  }

  template <class Put>
  __device__ void each(float* scratch, const Put& put) const {
    each_sum<kHeadTiles, kPairs, 1>(
        sums_, heads_, values_.padded, scratch,
        [&](int j, int k, float a, float b) { put(j, values_.first + k, a, b); });
  }

 private:
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  static __device__ unsigned other() { return 1 - blockIdx.y; }
  __device__ float half_product(int j, int t) const {
    const float* from = slots_ + j * kScoreStride + t;
    return from[0] + from[kRows * kScoreStride];
  }
  __device__ T* weights(unsigned n) const { return weights_ + n % 2 * (kRows * kScoreStride); }

  const TileShape& tile_;
  const int heads_;
  const RowShape& values_;
  T *factor_, *weights_;
  float *scale_, *slots_;
  Received& received_;
  unsigned shares_ = 0, pieces_ = 0;                             // that were exchanged
  float totals_[kWeighedHeads], rounded_totals_[kWeighedHeads];  // of this thread's tokens
  FragmentC sums_[kHeadTiles][2 * kPairs];
};

}  // namespace ec::cuda
