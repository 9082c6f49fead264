// SPDX-License-Identifier: Apache-2.0
// Products of a tile of 16-bit tokens with the heads on the tensor cores: heads are the 16 rows of a
// fragment (zeros beyond those that there are), tokens or columns the others.
//
// For scores, 4 pairs of warps have a quarter of the columns each, and one of a pair 16 tokens: parts of
// the sums go to a slot of their own. For what is pooled, each warp has columns of its own, whose sums stay
// in its registers: 16 of them at a time, number warp + 8 i. Memory: tiles as in stage.cuh; factors
// [head][stride], stride as that of the keys; weights [head][kScoreStride], whose rows of 80 bytes meet in
// no bank either.
#pragma once

#include "attention/memory.cuh"

namespace ec::cuda {

constexpr int kColumnParts = 4;
constexpr int kPairColumns = 16;  // of two fragments side by side

// slots[part][head][kStride: token] = this part's share of tile . factor; scale (may be null): of each
// head.
template <class T, int kHeadTiles, int kStride>
__device__ __forceinline__ void multiply_tensor(const T* tile, const RowShape& shape, int tokens,
                                                const T* factor, const float* scale, float* slots) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int first = warp % 2 * 16, part = warp / 2;
  if (first >= tokens) return;
  FragmentC sums[kHeadTiles][2] = {};
  const T* rows = tile + (first + lane % 8 + lane / 16 * 8) * shape.stride + lane / 8 % 2 * 8;
  const T* heads = factor + lane % 16 * shape.stride + lane / 16 * 8;
#pragma unroll 2
  for (int k = part * kPairColumns; k < shape.padded; k += kColumnParts * kPairColumns) {
    unsigned pairs[4];
    load_matrices(rows + k, pairs);
    const FragmentB b[2] = {{{pairs[0], pairs[1]}}, {{pairs[2], pairs[3]}}};
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h) {
      FragmentA a;
      load_matrices(heads + 16 * h * shape.stride + k, a.pairs);
      multiply_add(a, b[0], sums[h][0], T{});
      multiply_add(a, b[1], sums[h][1], T{});
    }
  }
  float* to = slots + part * 16 * kHeadTiles * kStride + first + 2 * (lane % 4);
#pragma unroll
  for (int h = 0; h < kHeadTiles; ++h) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = 16 * h + lane / 4 + 8 * half;
      const float times = scale == nullptr ? 1.0f : scale[head];
#pragma unroll
      for (int n = 0; n < 2; ++n)
        *reinterpret_cast<float2*>(to + head * kStride + 8 * n) =
            float2{sums[h][n].numbers[2 * half] * times, sums[h][n].numbers[2 * half + 1] * times};
    }
  }
}

// sums of this warp's columns += weights * tile.
template <class T, int kHeadTiles, int kPairs>
__device__ __forceinline__ void pool_tensor(const T* weights, const T* tile, const RowShape& shape,
                                            int tokens, FragmentC (&sums)[kHeadTiles][2 * kPairs]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
#pragma unroll 1
  for (int t = 0; t < tokens; t += 16) {
    FragmentA a[kHeadTiles];
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h)
      load_matrices(weights + (16 * h + lane % 16) * kScoreStride + t + lane / 16 * 8, a[h].pairs);
    const T* rows = tile + (t + lane % 16) * shape.stride + lane / 16 * 8;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int k = (warp + kAttentionWarps * i) * kPairColumns;
      if (k >= shape.padded) continue;
      unsigned pairs[4];
      load_matrices_transposed(rows + k, pairs);
      const FragmentB b[2] = {{{pairs[0], pairs[1]}}, {{pairs[2], pairs[3]}}};
#pragma unroll
      for (int h = 0; h < kHeadTiles; ++h) {
        multiply_add(a[h], b[0], sums[h][2 * i], T{});
        multiply_add(a[h], b[1], sums[h][2 * i + 1], T{});
      }
    }
  }
}

// put(j, k, a, b) of the sums of head j and columns k and k + 1, for all heads and columns, by all threads.
// Numbers go through shared memory so that threads side by side put what lies side by side, and few
// registers are used beside those of the sums.
// Requires: scratch for kAtOnce tiles of heads, kDrainNumbers each, that no thread reads any more.
constexpr int kDrainColumns = kAttentionWarps * kPairColumns, kDrainStride = kDrainColumns + 8;
constexpr int kDrainNumbers = 16 * kDrainStride;

template <int kHeadTiles, int kPairs, int kAtOnce, class Put>
__device__ __forceinline__ void each_sum(const FragmentC (&sums)[kHeadTiles][2 * kPairs], int heads,
                                         int padded, float* scratch, const Put& put) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  float* own = scratch + lane / 4 * kDrainStride + warp * kPairColumns + 2 * (lane % 4);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int first = i * kDrainColumns;
    if (first >= padded) continue;
#pragma unroll
    for (int tile = 0; tile < kHeadTiles; tile += kAtOnce) {
#pragma unroll
      for (int h = 0; h < kAtOnce; ++h)
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const float* numbers = sums[tile + h][2 * i + n % 2].numbers + n / 2 * 2;
          *reinterpret_cast<float2*>(own + (16 * h + n / 2 * 8) * kDrainStride + n % 2 * 8) =
              float2{numbers[0], numbers[1]};
        }
      __syncthreads();
      const int columns = min(kDrainColumns, padded - first), rows = min(heads - 16 * tile, 16 * kAtOnce);
#pragma unroll 1
      for (int at = static_cast<int>(threadIdx.x); at < rows * (kDrainColumns / 2);
           at += kAttentionThreads) {
        const int j = at / (kDrainColumns / 2), k = at % (kDrainColumns / 2) * 2;
        const float* from = scratch + j * kDrainStride + k;
        if (k < columns) put(16 * tile + j, first + k, from[0], from[1]);
      }
      __syncthreads();
    }
  }
}

// A power of two that brings the numbers of a head of the query, of which the first is `origin`, to where
// float16 has all its digits when they are divided by it. By a warp.
static __device__ __forceinline__ float head_scale(const Numbers& query, int64_t origin, int columns) {
  float largest = 0.0f;
  for (int k = static_cast<int>(threadIdx.x) % kWarpSize; k < columns; k += kWarpSize)
    largest = fmaxf(largest, fabsf(static_cast<float>(number_at(query, origin + k * query.stride[1]))));
  largest = warp_max(largest);
  const bool scaled = largest >= 1e-30f && largest <= 1e30f;
  return scaled ? __uint_as_float(__float_as_uint(largest) & 0x7f800000u) : 1.0f;
}

// scale[j], and the factor of head j, of the columns that the keys have, divided by it. A warp each.
static __device__ __forceinline__ void load_scaled_query(const AttentionProblem& problem, int64_t b,
                                                         int rows, const RowShape& shape, Half* to,
                                                         float* scale) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const Numbers& query = problem.query;
  for (int j = static_cast<int>(threadIdx.x) / kWarpSize; j < rows; j += kAttentionWarps) {
    const int64_t origin = (problem.query_per_sequence ? b * query.stride[0] : 0) + j * query.stride[2] +
                           shape.first * query.stride[1];
    const int columns = j < problem.heads ? shape.columns : 0;
    const float power = head_scale(query, origin, columns), inverse = 1.0f / power;
    for (int k = lane; k < shape.padded; k += kWarpSize) {
      const float number =
          k < columns ? static_cast<float>(number_at(query, origin + k * query.stride[1])) : 0.0f;
      to[j * shape.stride + k] = rounded(number * inverse, Half{});
    }
    if (lane == 0) scale[j] = power;
  }
}
static __device__ __forceinline__ void load_scaled_query(const AttentionProblem& problem, int64_t b,
                                                         int rows, const RowShape& shape, BFloat* to,
                                                         float* scale) {
  const Numbers& query = problem.query;
  const int64_t origin =
      (problem.query_per_sequence ? b * query.stride[0] : 0) + shape.first * query.stride[1];
  load_rows(query, origin,
            {query.stride[2], query.stride[1], static_cast<int>(problem.heads), shape.columns}, rows,
            shape.padded, shape.stride, to);
  for (int j = static_cast<int>(threadIdx.x); j < rows; j += kAttentionThreads) scale[j] = 1.0f;
}

}  // namespace ec::cuda
