// SPDX-License-Identifier: Apache-2.0
// Forward of more heads and columns than one block has registers for: clusters of two blocks share the
// tokens, and the two blocks of a cluster the columns. Each copies its half of every row, which is so read
// once, multiplies it with its half of the factor, sends these half sums to the other, and pools its
// columns.
//
// For tile n: half of z; sync; send; pool the tile before; sync; wait for the other's half; f and weights
// as in forward.cuh, of all heads in both blocks. What is sent travels while the tile before is pooled.
//
// Numerics: both add the same two numbers, so that all that follows has the same bits in both, which walk
// the same pieces and tiles. Results of a head are written by one of them, results of a column by its own.
//
// Memory: what is sent goes to one of two places by turns, each with a barrier that counts its bytes. That
// is enough. Send n + 2, to the place of n, follows wait n + 1, so that all of send n + 1 was issued by
// then. The other issued that behind its sync between wait n and send n + 1: all its threads have had, and
// read, tile n. So no place is written while it is read, and no barrier counts bytes of two tiles at a
// time. The last wait of a block is for the last that is sent to it: then it may leave.
#pragma once

#include "attention/forward.cuh"
#include "common/cluster.cuh"

namespace ec::cuda {

constexpr int kClusterBlocks = 2, kClusterHeads = 64;
constexpr int kHalfParts = 2;     // of a half's columns, summed by other warps
constexpr int kSentTogether = 4;  // heads of a lane
constexpr int kSentNumbers = kClusterHeads * kWarpSize;

// Of 16 columns: 16 heads, and 8 kTiles tokens.
template <int kTiles>
struct HalfFragments {
  template <class T>
  __device__ void load(const T* heads, const T* rows, int stride) {
    load_matrices(heads, a.pairs);
#pragma unroll
    for (int t = 0; t < kTiles / 2; ++t) load_matrices(rows + 16 * t * stride, b[t]);
  }
  template <class T>
  __device__ void multiply(FragmentC (&sums)[kTiles], T number) const {
#pragma unroll
    for (int t = 0; t < kTiles / 2; ++t) {
      multiply_add(a, {{b[t][0], b[t][1]}}, sums[2 * t], number);
      multiply_add(a, {{b[t][2], b[t][3]}}, sums[2 * t + 1], number);
    }
  }

  FragmentA a;
  unsigned b[kTiles / 2][4];
};

// slots[part][head][kScoreStride: token] = this part's share of tile . factor, of 8 kTiles tokens: four
// warps have 16 heads each, and four others the other columns. What is multiplied next is loaded ahead.
template <class T, int kTiles>
__device__ __forceinline__ void multiply_half(const T* tile, const RowShape& shape, const T* factor,
                                              const float* scale, float* slots) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int first = warp % 4 * 16, part = warp / 4;
  FragmentC sums[kTiles] = {};
  const T* rows = tile + (lane % 8 + lane / 16 * 8) * shape.stride + lane / 8 % 2 * 8;
  const T* heads = factor + (first + lane % 16) * shape.stride + lane / 16 * 8;
  constexpr int kStep = kHalfParts * kPairColumns;
  int k = part * kPairColumns;
  if (k < shape.padded) {
    HalfFragments<kTiles> now, next;
    now.load(heads + k, rows + k, shape.stride);
    const int last = k + (shape.padded - 1 - k) / kStep * kStep;
#pragma unroll 2
    for (; k < last; k += kStep) {
      next.load(heads + k + kStep, rows + k + kStep, shape.stride);
      now.multiply(sums, T{});
      now = next;
    }
    now.multiply(sums, T{});
  }
  float* to = slots + part * kClusterHeads * kScoreStride + 2 * (lane % 4);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = first + lane / 4 + 8 * half;
    const float times = scale[head];
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      *reinterpret_cast<float2*>(to + head * kScoreStride + 8 * n) =
          float2{sums[n].numbers[2 * half] * times, sums[n].numbers[2 * half + 1] * times};
  }
}

// T has 16 bits; there are at most 64 heads, and 128 kPairs columns of the values in a half.
template <class T, int kPairs>
class ClusterPool {
 public:
  static constexpr int kRows = kClusterHeads, kHeadTiles = kRows / 16;
  static constexpr int kOwnHeads = kRows / kAttentionWarps, kPooledHeads = kOwnHeads;

  __device__ ClusterPool(const ForwardCall& call, unsigned char* shared)
      : tile_(call.halves[blockIdx.y]),
        heads_(static_cast<int>(call.problem.heads)),
        values_(tile_.values.columns == 0 ? tile_.keys : tile_.values),
        factor_(call.memory.find<T, true>(call.factor, shared)),
        weights_(call.memory.find<T, true>(call.weights, shared)),
        scale_(call.memory.find<float, true>(call.scale, shared)),
        slots_(call.memory.find<float, true>(call.scores, shared)),
        received_(call.memory.find<float, true>(call.received, shared)),
        full_(call.memory.find<CopyBarrier, true>(call.full, shared)) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kScoreStride; i += kAttentionThreads)
      weights_[i] = T{};
  }

  __device__ int rows() const { return kRows; }
  __device__ int first_head() const { return 0; }
  // Every second head of a warp.
  __device__ bool writes(int j) const {
    return j < heads_ && j / kAttentionWarps % kClusterBlocks == static_cast<int>(blockIdx.y);
  }
  __device__ void load(const AttentionProblem& problem, int64_t b) {
    load_scaled_query(problem, b, kRows, tile_.keys, factor_, scale_);
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kPooledHeads; ++i) totals_[i] = rounded_totals_[i] = 0.0f;
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h)
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) sums_[h][i] = {};
  }
  __device__ void multiply(const T* keys) const {
    if (tile_.tokens == kMostTileTokens)
      multiply_half<T, kMostTileTokens / 8>(keys, tile_.keys, factor_, scale_, slots_);
    else
      multiply_half<T, 2>(keys, tile_.keys, factor_, scale_, slots_);
  }
  // The half sums of tile n of this block to the other. Requires: all threads have multiplied.
  __device__ void send(unsigned n) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    CopyBarrier& full = full_[n % 2];
    if (threadIdx.x == 0) arrive_and_expect(full, kSentNumbers * sizeof(float));
#pragma unroll
    for (int i = 0; i < kOwnHeads; i += kSentTogether) {
      float numbers[kSentTogether];
#pragma unroll
      for (int own = 0; own < kSentTogether; ++own)
        numbers[own] = half_product(warp + kAttentionWarps * (i + own), lane);
      store_there(1 - blockIdx.y, received_from(n, i), numbers, full);
    }
  }
  // Waits for those of the other.
  __device__ void receive(unsigned n) {
    wait_for_neighbours(full_[n % 2], n / 2 % 2);
    from_ = received_from(n, 0);
  }
  // Of the i-th head of this warp, j; in their order.
  __device__ float product(int i, int j, int lane) {
    if (i % kSentTogether == 0)
      load_four(from_ + i / kSentTogether * kAttentionThreads * kSentTogether, others_);
    return half_product(j, lane) + others_[i % kSentTogether];
  }
  __device__ void put(int i, int j, float weight, float shrink) {
    const T number = rounded(weight, T{});
    weights_[j * kScoreStride + threadIdx.x % kWarpSize] = number;
    totals_[i] = __fmaf_rn(totals_[i], shrink, weight);
    rounded_totals_[i] = __fmaf_rn(rounded_totals_[i], shrink, to_float(number));
  }
  __device__ void add(const T* values, const HeadState* states) {
    shrink_sums(states, 0, sums_);
    pool_tensor<T, kHeadTiles, kPairs>(weights_, values, values_, tile_.tokens, sums_);
  }
  __device__ void sum_totals(HeadState* states) const {
    sum_own_totals<kPooledHeads, kRows>(0, totals_, rounded_totals_, states);
  }
  template <class Put>
  __device__ void each(float* scratch, const Put& put) const {
    each_sum<kHeadTiles, kPairs, 1>(
        sums_, heads_, values_.padded, scratch,
        [&](int j, int k, float a, float b) { put(j, values_.first + k, a, b); });
  }

 private:
  __device__ float half_product(int j, int lane) const {
    const float* from = slots_ + j * kScoreStride + lane;
    return from[0] + from[kRows * kScoreStride];
  }
  // Of heads i to i + kSentTogether of this warp.
  __device__ float* received_from(unsigned n, int i) const {
    return received_ + n % 2 * kSentNumbers +
           (i / kSentTogether * kAttentionThreads + static_cast<int>(threadIdx.x)) * kSentTogether;
  }

  const TileShape& tile_;
  const int heads_;
  const RowShape& values_;
  T *factor_, *weights_;
  float *scale_, *slots_, *received_;
  const float* from_ = nullptr;  // in received_, of this thread
  CopyBarrier* full_;
  float others_[kSentTogether];
  float totals_[kPooledHeads], rounded_totals_[kPooledHeads];  // of this lane's tokens
  FragmentC sums_[kHeadTiles][2 * kPairs];
};

// Pools a tile, and where it is the last finishes its piece, whose sums go through the stage of the tile:
// there is room for kDrainNumbers.
template <class T, class Pool>
__device__ __forceinline__ void pool_half(const ForwardCall& call, const TileHeader& header,
                                          const Stage<T>& stage, HeadState* states, Pool& pool) {
  pool.add(stage.values, states);
  if (!header.stops) return;
  pool.sum_totals(states);
  __syncthreads();
  finish_piece<T>(call, header.piece, states, pool, reinterpret_cast<float*>(stage.values));
}

template <class T, class Pool>
__device__ __forceinline__ void attend_halves(const ForwardCall& call) {
  unsigned char* shared = shared_array<unsigned char>(call.memory.shared_bytes);
  const AttentionProblem& problem = call.problem;
  if (threadIdx.x == 0) {
    CopyBarrier* full = call.memory.find<CopyBarrier, true>(call.full, shared);
    for (int i = 0; i < 2; ++i) init_barrier(full[i], 1);
    publish_barriers();
  }
  cluster_arrive();
  TileWalk& walk = *call.memory.find<TileWalk, true>(call.walk, shared);
  TileCopies<T> copies(problem, call.sequences, Share(call.sequences, gridDim.x), blockIdx.x,
                       call.halves[blockIdx.y], nullptr, nullptr, walk,
                       call.memory.find<unsigned char, true>(call.stages, shared));
  HeadState* states = call.memory.find<HeadState, true>(call.states, shared);
  double* squares = call.memory.find<double, true>(call.squares, shared);
  Pool pool(call, shared);
  cluster_wait();
  for (;;) {
    const TileHeader& header = copies.next();
    const bool present = header.present();
    const unsigned before = copies.taken();  // tiles, of which the last is weighed and not yet pooled
    if (present) {
      if (before == 0 || (header.starts && problem.query_per_sequence))
        pool.load(problem, header.piece.sequence);
      copies.take();
      pool.multiply(copies.stage().keys);
    }
    __syncthreads();
    if (present) pool.send(before);
    if (before > 0)
      pool_half(call, copies.header(present ? 1 : 0), copies.stage(present ? 1 : 0), states, pool);
    if (!present) break;
    __syncthreads();
    if (header.starts) {
      begin_states(call, header.piece.sequence, pool.rows(), states);
      pool.clear();
      __syncthreads();
    }
    pool.receive(copies.taken() - 1);
    weigh_tile(call, header, copies.stage().offsets, nullptr, squares, states, pool);
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
