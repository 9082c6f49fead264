// SPDX-License-Identifier: Apache-2.0
// Products of a tile of tokens with the heads, without tensor cores: any kind of number, any count of
// heads. All threads of a block take part; rows are as in stage.cuh, factors and sums float32
// [head][padded], and scores and weights [head][kScoreStride]. Reads heads up to a multiple of kTogether,
// writes none beyond.
//
// Numerics: float32 sums of 32 partial sums (multiply), or over the tokens of a tile in their order.
#pragma once

#include "attention/stage.cuh"

namespace ec::cuda {

constexpr int kGroup = 4;  // tokens, and heads, that a thread takes at once

// Half of the numbers each: sums over two lanes that lie 2 kHalf apart.
template <int kHalf>
__device__ __forceinline__ void sum_halves(float (&numbers)[kGroup * kGroup]) {
  const bool upper = (threadIdx.x & 2 * kHalf) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float kept = upper ? numbers[i + kHalf] : numbers[i];
    const float given = upper ? numbers[i] : numbers[i + kHalf];
    numbers[i] = kept + __shfl_xor_sync(kAllLanes, given, 2 * kHalf);
  }
}

// Sums over the lanes of 16 numbers each: lane l gets that of number l / 2.
__device__ __forceinline__ float sum_sixteen(float (&numbers)[kGroup * kGroup]) {
  sum_halves<8>(numbers);
  sum_halves<4>(numbers);
  sum_halves<2>(numbers);
  sum_halves<1>(numbers);
  return numbers[0] + __shfl_xor_sync(kAllLanes, numbers[0], 1);
}

// scores[j][t] = tile[t] . factor[j]
template <class T>
__device__ __forceinline__ void multiply_plain(const T* tile, const RowShape& shape, int tokens,
                                               const float* factor, int heads, float* scores) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int groups = tokens / kGroup, items = groups * ((heads + kGroup - 1) / kGroup);
  for (int item = warp; item < items; item += kAttentionWarps) {
    const int t = item % groups * kGroup, j = item / groups * kGroup;
    float sums[kGroup * kGroup] = {};
    for (int k = kTogether * lane; k < shape.padded; k += kTogether * kWarpSize) {
      float of_head[kGroup][kTogether];
#pragma unroll
      for (int i = 0; i < kGroup; ++i)
        load_four(factor + static_cast<int64_t>(j + i) * shape.padded + k, of_head[i]);
#pragma unroll
      for (int u = 0; u < kGroup; ++u) {
        float numbers[kTogether];
        load_four(tile + (t + u) * shape.stride + k, numbers);
#pragma unroll
        for (int i = 0; i < kGroup; ++i)
#pragma unroll
          for (int v = 0; v < kTogether; ++v)
            sums[kGroup * u + i] = __fmaf_rn(numbers[v], of_head[i][v], sums[kGroup * u + i]);
      }
    }
    const float sum = sum_sixteen(sums);
    const int number = lane / 2, head = j + number % kGroup;
    if (lane % 2 == 0 && head < heads) scores[head * kScoreStride + t + number / kGroup] = sum;
  }
}

// pooled[j] = shrink[j * step] * pooled[j] + the sum over the tokens of weights[j][t] * tile[t]; shrink may
// be null.
template <class T>
__device__ __forceinline__ void pool_plain(const float* weights, const float* shrink, int step,
                                           const T* tile, const RowShape& shape, int tokens, int heads,
                                           float* pooled) {
  const int vectors = shape.padded / kTogether, items = vectors * ((heads + kGroup - 1) / kGroup);
  for (int item = static_cast<int>(threadIdx.x); item < items; item += kAttentionThreads) {
    const int k = item % vectors * kTogether, j = item / vectors * kGroup;
    float sums[kGroup][kTogether] = {};
#pragma unroll 1
    for (int t = 0; t < tokens; t += kGroup) {
      float weight[kGroup][kGroup];
#pragma unroll
      for (int i = 0; i < kGroup; ++i) load_four(weights + (j + i) * kScoreStride + t, weight[i]);
#pragma unroll
      for (int u = 0; u < kGroup; ++u) {
        float numbers[kTogether];
        load_four(tile + (t + u) * shape.stride + k, numbers);
#pragma unroll
        for (int i = 0; i < kGroup; ++i)
#pragma unroll
          for (int v = 0; v < kTogether; ++v) sums[i][v] = __fmaf_rn(weight[i][u], numbers[v], sums[i][v]);
      }
    }
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (j + i >= heads) continue;
      const float scale = shrink == nullptr ? 1.0f : shrink[(j + i) * step];
      float* to = pooled + static_cast<int64_t>(j + i) * shape.padded + k;
#pragma unroll
      for (int v = 0; v < kTogether; ++v) to[v] = __fmaf_rn(scale, to[v], sums[i][v]);
    }
  }
}

}  // namespace ec::cuda
