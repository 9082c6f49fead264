// SPDX-License-Identifier: Apache-2.0
// The weights of a tile on Hopper, from its products: what there is to do for a token, the same for all
// that weigh (panel_pool.cuh, half_pool.cuh).
#pragma once

#include "attention/hopper/token_ring.cuh"

namespace ec::cuda {

// tanh a with an error of about three units in the last place, and nowhere another way for other numbers:
// those of several heads are found side by side.
__device__ __forceinline__ float near_tanh(float a) {
  const float square = a * a, size = fabsf(a);
  constexpr float k0 = kTanhCoefficient[0], k1 = kTanhCoefficient[1], k2 = kTanhCoefficient[2],
                  k3 = kTanhCoefficient[3], k4 = kTanhCoefficient[4];
  float small =
      __fmaf_rn(__fmaf_rn(__fmaf_rn(__fmaf_rn(k4, square, k3), square, k2), square, k1), square, k0);
  small = __fmaf_rn(small * square, a, a);
  const float power = near_power(size * (2.0f * static_cast<float>(kLog2E)));
  const float large = __fmaf_rn(-2.0f, near_inverse(power + 1.0f), 1.0f);
  return size <= kTanhSmall ? small : copysignf(large, a);
}

// The weight of a number that is at most 1, which is the reference, where it is a normal number.
__device__ __forceinline__ float bounded_power(float f, float inverse) {
  return near_power((f - 1.0f) * inverse * static_cast<float>(kLog2E));
}

// The weights of a tile that is present, of which the pool has this thread's token and heads.
template <class Pool>
__device__ __forceinline__ void weigh_panels(const ForwardCall& call, const TileHeader& header,
                                             bool unbounded, const HeadState* states, Pool& pool) {
  constexpr int kWeighed = Pool::kWeighed;
  const AttentionProblem& problem = call.problem;
  const int64_t step = call.sequences.tokens;
  const auto counted = [&](int token, float* offset) {
    const int64_t t = header.first + token;
    return t < header.piece.last && kept(problem, call.sequences, header.piece.sequence, t, offset);
  };
  float offset, unused;
  const bool counts = counted(pool.token(), &offset);
  const bool left_out = pool.left_out() == pool.token() ? !counts : !counted(pool.left_out(), &unused);
  const TileToken token(call.sequences, header, kTileTokens, pool.token(), counts ? offset : -HUGE_VALF);
  const auto put_like_scores = [&](float* to, const float(&numbers)[kWeighed]) {
    if (to == nullptr || !token.there) return;
#pragma unroll
    for (int i = 0; i < kWeighed; ++i)
      if (pool.own_head(i) < problem.heads) to[token.place + pool.own_head(i) * step] = numbers[i];
  };
  float f[kWeighed];
  pool.multiply(f);
#pragma unroll
  for (float& z : f) z = counts ? z : 0.0f;
  put_like_scores(call.result.scores, f);
  if (problem.bias.data != nullptr) {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i)
      f[i] += bias_of(problem, call.sequences, header.piece.sequence, token, pool.own_head(i));
  }
  double square = 0.0;
  if (problem.activation == Activation::kTanh) {
    float near = 0.0f;  // of numbers that are at most 1
#pragma unroll
    for (float& a : f) {
      a = near_tanh(a);
      near = __fmaf_rn(a, a, near);
    }
    square = static_cast<double>(near);
  } else {
#pragma unroll
    for (const float a : f) square += static_cast<double>(a) * static_cast<double>(a);
  }
  float passed;
  const float length = inverse_length(problem, pool.sum_heads(square), &passed);
#pragma unroll
  for (float& a : f) a = counts ? a * length + token.offset : -HUGE_VALF;
  put_like_scores(call.result.weights, f);
  // Whether the token counts or not, and before any is put: those of several heads are found side by side.
  float weights[kWeighed];
  if (unbounded) {
    pool.raise_references(f);
    float shrinks[kWeighed];
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      const HeadState& state = states[pool.own_head(i)];
      weights[i] = power_of(counts ? f[i] : 0.0f, state);
      shrinks[i] = state.shrink;
    }
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) pool.put(i, counts ? weights[i] : 0.0f, shrinks[i]);
  } else {  // all references are 1, and stay
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) weights[i] = bounded_power(f[i], states[pool.own_head(i)].inverse);
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) pool.put(i, counts ? weights[i] : 0.0f, 1.0f);
  }
  if (left_out) pool.leave_out();
  publish_writes();
}

// Whether some head's scores are beyond what needs no reference but 1; the same in all warps.
__device__ __forceinline__ bool has_unbounded(const ForwardCall& call, int rows, const HeadState* states) {
  bool own = false;
  for (int j = static_cast<int>(threadIdx.x) % kWarpSize; j < rows; j += kWarpSize)
    own = own || states[j].inverse > call.most_bounded;
  return __any_sync(kAllLanes, own ? 1 : 0) != 0;
}

}  // namespace ec::cuda
