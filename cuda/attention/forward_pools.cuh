// SPDX-License-Identifier: Apache-2.0
// What a block of the forward multiplies with and pools into, without and with tensor cores.
#pragma once

#include "attention/forward_tile.cuh"
#include "attention/plain_products.cuh"
#include "attention/tensor_products.cuh"

namespace ec::cuda {

// Without tensor cores.
template <class T>
class PlainPool {
 public:
  static constexpr bool kShared = false;
  static constexpr int kRows = 0, kOwnHeads = 0, kPooledHeads = 0;

  __device__ PlainPool(const ForwardCall& call, unsigned char* shared)
      : tile_(call.tile),
        heads_(static_cast<int>(call.problem.heads)),
        values_(call.tile.values.columns == 0 ? call.tile.keys : call.tile.values),
        factor_(call.memory.find<float>(call.factor, shared)),
        pooled_(call.memory.find<float>(call.pooled, shared)),
        totals_(call.memory.find<float>(call.totals, shared)),
        scores_(call.memory.find<float>(call.scores, shared)) {}

  __device__ void sync() const { __syncthreads(); }
  __device__ int rows() const { return heads_; }
  __device__ int first_head() const { return 0; }
  __device__ bool writes(int) const { return true; }
  __device__ void load(const AttentionProblem& problem, int64_t b) {
    const int rows = (heads_ + kGroup - 1) / kGroup * kGroup;
    load_query(problem, b, rows, tile_.keys.padded, tile_.keys.padded, factor_);
  }
  __device__ void clear() {
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * values_.padded; i += kAttentionThreads)
      pooled_[i] = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * kWarpSize; i += kAttentionThreads)
      totals_[i] = 0.0f;
  }
  __device__ void multiply(const T* keys) const {
    multiply_plain(keys, tile_.keys, tile_.tokens, factor_, heads_, scores_);
  }
  // Of the i-th head of this warp, j.
  __device__ float product(int, int j, int lane) const { return scores_[j * kScoreStride + lane]; }
  __device__ void put(int, int j, float weight, float shrink) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    scores_[j * kScoreStride + lane] = weight;
    float& total = totals_[j * kWarpSize + lane];
    total = __fmaf_rn(total, shrink, weight);
  }
  __device__ void add(const T* values, const HeadState* states) {
    pool_plain(scores_, &states[0].shrink, sizeof(HeadState) / sizeof(float), values, values_, tile_.tokens,
               heads_, pooled_);
  }
  // Requires: all threads have put and added.
  __device__ void sum_totals(HeadState* states) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    for_own_heads<0, 0>(heads_, 0, [&](int, int j) {
      const double total = warp_sum(static_cast<double>(totals_[j * kWarpSize + lane]));
      if (lane == 0) states[j].total = states[j].rounded_total = total;
    });
  }
  template <class Put>
  __device__ void each(float*, const Put& put) const {
    const int pairs = values_.padded / 2;
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * pairs; i += kAttentionThreads) {
      const int j = i / pairs, k = i % pairs * 2;
      const float* from = pooled_ + static_cast<int64_t>(j) * values_.padded + k;
      put(j, k, from[0], from[1]);
    }
  }

 private:
  const TileShape& tile_;
  const int heads_;
  const RowShape& values_;
  float *factor_, *pooled_, *totals_, *scores_;
};

// sums, of the 16 h + l / 4-th head from `first` on and the eighth behind that, times what they shrink by.
template <int kHeadTiles, int kFragments>
__device__ __forceinline__ void shrink_sums(const HeadState* states, int first,
                                            FragmentC (&sums)[kHeadTiles][kFragments]) {
  const int row = first + static_cast<int>(threadIdx.x) % kWarpSize / 4;
#pragma unroll
  for (int h = 0; h < kHeadTiles; ++h) {
    const float times[2] = {states[row + 16 * h].shrink, states[row + 16 * h + 8].shrink};
    if (times[0] == 1.0f && times[1] == 1.0f) continue;
#pragma unroll
    for (int i = 0; i < kFragments; ++i)
#pragma unroll
      for (int n = 0; n < 4; ++n) sums[h][i].numbers[n] *= times[n / 2];
  }
  __syncwarp();  // lanes may have gone different ways, and multiply together now
}

// The totals of this warp's heads, from those of its lanes' tokens.
template <int kHeads, int kRows>
__device__ __forceinline__ void sum_own_totals(int first, const float (&totals)[kHeads],
                                               const float (&rounded_totals)[kHeads], HeadState* states) {
  for_own_heads<kHeads, kRows>(kRows, first, [&](int i, int j) {
    const double total = warp_sum(static_cast<double>(totals[i])),
                 rounded_total = warp_sum(static_cast<double>(rounded_totals[i]));
    if (threadIdx.x % kWarpSize != 0) return;
    states[j].total = total;
    states[j].rounded_total = rounded_total;
  });
}

// With them: T has 16 bits, there are at most 16 kScoreTiles heads, and 128 kPairs columns of the values.
// Of more than 16 kHeadTiles heads blocks have a group each (blockIdx.y), to pool, and all to score.
template <class T, int kScoreTiles, int kHeadTiles, int kPairs>
class TensorPool {
 public:
  static constexpr bool kShared = true;
  static constexpr int kRows = 16 * kScoreTiles, kGroupRows = 16 * kHeadTiles;
  static constexpr int kProductSlots = kColumnParts, kSlotNumbers = kRows * kScoreStride;
  static constexpr int kOwnHeads = kRows / kAttentionWarps, kPooledHeads = kGroupRows / kAttentionWarps;

  __device__ TensorPool(const ForwardCall& call, unsigned char* shared)
      : tile_(call.tile),
        first_(static_cast<int>(blockIdx.y) * kGroupRows),
        last_(min(static_cast<int>(call.problem.heads), first_ + kGroupRows)),
        values_(call.tile.values.columns == 0 ? call.tile.keys : call.tile.values),
        factor_(call.memory.find<T, kShared>(call.factor, shared)),
        weights_(call.memory.find<T, kShared>(call.weights, shared)),
        scale_(call.memory.find<float, kShared>(call.scale, shared)),
        scores_(call.memory.find<float, kShared>(call.scores, shared)) {
    for (int i = static_cast<int>(threadIdx.x); i < kGroupRows * kScoreStride; i += kAttentionThreads)
      weights_[i] = T{};
  }

  __device__ void sync() const { __syncthreads(); }
  __device__ int rows() const { return kRows; }
  __device__ int first_head() const { return first_; }
  // Whether results of this head are written by this block.
  __device__ bool writes(int j) const { return j >= first_ && j < last_; }
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
    multiply_tensor<T, kScoreTiles, kScoreStride>(keys, tile_.keys, tile_.tokens, factor_, scale_, scores_);
  }
  __device__ float product(int, int j, int lane) const {
    float sum = 0.0f;
#pragma unroll
    for (int slot = 0; slot < kProductSlots; ++slot)
      sum += scores_[slot * kSlotNumbers + j * kScoreStride + lane];
    return sum;
  }
  __device__ void put(int i, int j, float weight, float shrink) {
    const T number = rounded(weight, T{});
    if (writes(j)) weights_[(j - first_) * kScoreStride + threadIdx.x % kWarpSize] = number;
    totals_[i] = __fmaf_rn(totals_[i], shrink, weight);
    rounded_totals_[i] = __fmaf_rn(rounded_totals_[i], shrink, to_float(number));
  }
  __device__ void add(const T* values, const HeadState* states) {
    shrink_sums(states, first_, sums_);
    pool_tensor<T, kHeadTiles, kPairs>(weights_, values, values_, tile_.tokens, sums_);
  }
  __device__ void sum_totals(HeadState* states) const {
    sum_own_totals<kPooledHeads, kRows>(first_, totals_, rounded_totals_, states);
  }
  template <class Put>
  __device__ void each(float* scratch, const Put& put) const {
    static_assert(kHeadTiles * kDrainNumbers <= kProductSlots * kSlotNumbers, "there is room");
    each_sum<kHeadTiles, kPairs, kHeadTiles>(
        sums_, last_ - first_, values_.padded, scratch,
        [&](int j, int k, float a, float b) { put(first_ + j, k, a, b); });
  }

 private:
  const TileShape& tile_;
  const int first_, last_;  // heads of this block
  const RowShape& values_;
  T *factor_, *weights_;
  float *scale_, *scores_;
  float totals_[kPooledHeads], rounded_totals_[kPooledHeads];  // of this lane's tokens
  FragmentC sums_[kHeadTiles][2 * kPairs];
};

}  // namespace ec::cuda
