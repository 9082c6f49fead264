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
  static constexpr int kProductSlots = 1;

  __device__ PlainPool(const ForwardCall& call, unsigned char* shared)
      : tile_(call.tile),
        heads_(static_cast<int>(call.problem.heads)),
        values_(call.tile.values.columns == 0 ? call.tile.keys : call.tile.values),
        factor_(call.memory.find<float>(call.factor, shared)),
        pooled_(call.memory.find<float>(call.pooled, shared)) {}

  __device__ int slot_numbers() const { return 0; }
  __device__ void load(const AttentionProblem& problem, int64_t b) {
    const int rows = (heads_ + kGroup - 1) / kGroup * kGroup;
    load_query(problem, b, rows, tile_.keys.padded, tile_.keys.padded, factor_);
  }
  __device__ void clear() {
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * values_.padded; i += kAttentionThreads)
      pooled_[i] = 0.0f;
  }
  __device__ void multiply(const T* keys, float* scores) const {
    multiply_plain(keys, tile_.keys, tile_.tokens, factor_, heads_, scores);
  }
  __device__ float put(int j, float weight, float* scores) const {
    scores[j * kScoreStride + threadIdx.x % kWarpSize] = weight;
    return weight;
  }
  __device__ void add(const T* values, const float* scores, const float* shrink) {
    pool_plain(scores, shrink, values, values_, tile_.tokens, heads_, pooled_);
  }
  template <class Put>
  __device__ void each(const Put& put) const {
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
  float *factor_, *pooled_;
};

// With them: T has 16 bits, there are at most 16 kHeadTiles heads, and 128 kPairs columns of the values.
template <class T, int kHeadTiles, int kPairs>
class TensorPool {
 public:
  static constexpr int kProductSlots = kColumnParts;
  static constexpr int kRows = 16 * kHeadTiles;

  __device__ TensorPool(const ForwardCall& call, unsigned char* shared)
      : tile_(call.tile),
        heads_(static_cast<int>(call.problem.heads)),
        values_(call.tile.values.columns == 0 ? call.tile.keys : call.tile.values),
        factor_(call.memory.find<T>(call.factor, shared)),
        weights_(call.memory.find<T>(call.weights, shared)),
        scale_(call.memory.find<float>(call.scale, shared)) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kScoreStride; i += kAttentionThreads)
      weights_[i] = T{};
  }

  __device__ int slot_numbers() const { return kRows * kScoreStride; }
  __device__ void load(const AttentionProblem& problem, int64_t b) {
    load_scaled_query(problem, b, kRows, tile_.keys, factor_, scale_);
  }
  __device__ void clear() {
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h)
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) sums_[h][i] = {};
  }
  __device__ void multiply(const T* keys, float* scores) const {
    multiply_tensor<T, kHeadTiles>(keys, tile_.keys, tile_.tokens, factor_, scale_, scores);
  }
  __device__ float put(int j, float weight, float*) const {
    const T number = rounded(weight, T{});
    weights_[j * kScoreStride + threadIdx.x % kWarpSize] = number;
    return to_float(number);
  }
  __device__ void add(const T* values, const float*, const float* shrink) {
    const int row = static_cast<int>(threadIdx.x) % kWarpSize / 4;
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h) {
      const int low = 16 * h + row, high = low + 8;
      const float times[2] = {low < heads_ ? shrink[low] : 1.0f, high < heads_ ? shrink[high] : 1.0f};
      if (times[0] == 1.0f && times[1] == 1.0f) continue;
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i)
#pragma unroll
        for (int n = 0; n < 4; ++n) sums_[h][i].numbers[n] *= times[n / 2];
    }
    pool_tensor<T, kHeadTiles, kPairs>(weights_, values, values_, tile_.tokens, sums_);
  }
  template <class Put>
  __device__ void each(const Put& put) const {
    each_sum<kHeadTiles, kPairs>(sums_, heads_, values_.padded, put);
  }

 private:
  const TileShape& tile_;
  const int heads_;
  const RowShape& values_;
  T *factor_, *weights_;
  float* scale_;
  FragmentC sums_[kHeadTiles][2 * kPairs];
};

}  // namespace ec::cuda
