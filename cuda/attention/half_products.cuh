// SPDX-License-Identifier: Apache-2.0
// Products of 64 heads with half of the columns: those of a block of a cluster (forward_clusters.cuh,
// backward_clusters.cuh). Memory: as in tensor_products.cuh.
#pragma once

#include "attention/tensor_products.cuh"

namespace ec::cuda {

constexpr int kClusterBlocks = 2, kClusterHeads = 64;
constexpr int kHalfParts = 2;  // of a half's columns, summed by other warps

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

// slots[part][head][kStride: token] = this part's share of tile . factor, of 8 kTiles tokens; scale (may be
// null): of each head. Four warps have 16 heads each, and four others the other columns. What is multiplied
// next is loaded ahead.
template <class T, int kTiles, int kStride>
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
  float* to = slots + part * kClusterHeads * kStride + 2 * (lane % 4);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = first + lane / 4 + 8 * half;
    const float times = scale == nullptr ? 1.0f : scale[head];
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      *reinterpret_cast<float2*>(to + head * kStride + 8 * n) =
          float2{sums[n].numbers[2 * half] * times, sums[n].numbers[2 * half + 1] * times};
  }
}

}  // namespace ec::cuda
