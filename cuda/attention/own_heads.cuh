// SPDX-License-Identifier: Apache-2.0
// Scores of a tile by heads: warp w has heads w, w + 8, ..., and lane t token t of the tile. Or, of tiles
// of 16 tokens, a half of a warp has heads of its own, and its lanes the tokens.
#pragma once

#include "attention/memory.cuh"

namespace ec::cuda {

// Of kLanes lanes that have the same heads: of the token of this one the sum or the largest number that its
// warp has, and of its heads those that these lanes have. All lanes of a warp take part.
template <int kLanes, class N>
__device__ __forceinline__ N token_sum(N value) {
  if constexpr (kLanes < kWarpSize) value += __shfl_xor_sync(kAllLanes, value, kLanes);
  return value;
}
template <int kLanes>
__device__ __forceinline__ float token_max(float value) {
  if constexpr (kLanes < kWarpSize) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, kLanes));
  return value;
}
template <int kLanes, class N>
__device__ __forceinline__ N head_sum(N value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}
template <int kLanes>
__device__ __forceinline__ float head_max(float value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// The i-th head of this thread, where a half of a warp has its own: matrices of both halves meet in no
// bank.
template <int kOwnHeads>
__device__ __forceinline__ int head_of_half_warp(int i) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  return warp * 2 * kOwnHeads + i / 2 * 4 + lane / (kWarpSize / 2) * 2 + i % 2;
}

// body(i, j) of the i-th head j of these kLanes lanes. Where a number of heads is known these are
// kOwnHeads, beginning with `first`, around after kRows, and some may be beyond `heads`; else all.
template <int kOwnHeads, int kRows, int kLanes = kWarpSize, class Body>
__device__ __forceinline__ void for_own_heads(int heads, int first, const Body& body) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  if constexpr (kLanes < kWarpSize) {
    static_assert(kLanes == kWarpSize / 2 && kOwnHeads % 2 == 0 && kRows == 2 * kOwnHeads * kAttentionWarps,
                  "halves of warps have all heads");
#pragma unroll
    for (int i = 0; i < kOwnHeads; ++i) body(i, head_of_half_warp<kOwnHeads>(i));
  } else if constexpr (kOwnHeads > 0) {
#pragma unroll
    for (int i = 0; i < kOwnHeads; ++i) body(i, (first + warp + kAttentionWarps * i) % kRows);
  } else {
#pragma unroll 1
    for (int j = warp; j < heads; j += kAttentionWarps) body(0, j);
  }
}

// What each lane holds of the heads of its warp: in registers, or, of any number, in rows of a tile.
template <int kOwnHeads>
struct OwnNumbers {
  __device__ explicit OwnNumbers(float*) {}
  __device__ float& operator()(int i, int) { return numbers[i]; }
  float numbers[kOwnHeads];
};
template <>
struct OwnNumbers<0> {
  __device__ explicit OwnNumbers(float* rows) : own(rows + threadIdx.x % kWarpSize) {}
  __device__ float& operator()(int, int j) { return own[j * kScoreStride]; }
  float* own;
};

// 1 / |a| from the sum of all squares.
__device__ __forceinline__ float inverse_length(const AttentionProblem& problem, double square,
                                                float* passed) {
  *passed = 1.0f;
  if (problem.norm != HeadNorm::kL2) return 1.0f;
  // Without tanh, squares may be beyond float32.
  const float norm = problem.activation == Activation::kTanh ? sqrtf(static_cast<float>(square))
                                                             : static_cast<float>(sqrt(square));
  const float length = 1.0f / fmaxf(static_cast<float>(kLeastNorm), norm);
  *passed = norm > static_cast<float>(kLeastNorm) ? length : 0.0f;
  return length;
}

// The same of this lane's token, from its warp's share of the squares.
__device__ __forceinline__ float inverse_length(const AttentionProblem& problem, double square,
                                                double* squares, float* passed) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  if (problem.norm != HeadNorm::kL2) return inverse_length(problem, square, passed);
  squares[warp * kWarpSize + lane] = square;
  __syncthreads();
  square = 0.0;
#pragma unroll
  for (int i = 0; i < kAttentionWarps; ++i) square += squares[i * kWarpSize + lane];
  return inverse_length(problem, square, passed);
}

// A token of a tile: this lane's, or another.
struct TileToken {
  __device__ TileToken(const Sequences& sequences, const TileHeader& header, int tile_tokens,
                       const float* offsets, int number = static_cast<int>(threadIdx.x) % kWarpSize)
      : TileToken(sequences, header, tile_tokens, number, offsets[number]) {}
  __device__ TileToken(const Sequences& sequences, const TileHeader& header, int tile_tokens, int number,
                       float own_offset)
      : lane(number),
        t(header.first + lane),
        place(sequences.score_origin(header.piece.sequence) + t),
        offset(own_offset),
        there(lane < tile_tokens && t < header.piece.last) {}
  __device__ bool counts() const { return offset != -HUGE_VALF; }

  int lane;
  int64_t t;
  int64_t place;  // in arrays like scores, of head 0
  float offset;
  bool there;
};

// What is added to z of a head. Requires: there is a bias.
__device__ __forceinline__ float bias_of(const AttentionProblem& problem, const Sequences& sequences,
                                         int64_t b, const TileToken& token, int j) {
  const Numbers& bias = problem.bias;
  if (!token.counts() || j >= problem.heads) return 0.0f;
  const int64_t at = sequences.origin(bias.stride, b) + token.t * bias.stride[1] + j * bias.stride[2];
  return static_cast<float>(number_at(bias, at));
}

// z of a head with its bias, through the activation.
__device__ __forceinline__ float activated(const AttentionProblem& problem, const Sequences& sequences,
                                           int64_t b, const TileToken& token, int j, float z) {
  if (problem.bias.data != nullptr) z += bias_of(problem, sequences, b, token, j);
  return problem.activation == Activation::kTanh ? tanhf(z) : z;
}

}  // namespace ec::cuda
