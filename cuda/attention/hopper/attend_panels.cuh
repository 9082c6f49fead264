// SPDX-License-Identifier: Apache-2.0
// Forward on Hopper: both products by wgmma from tiles that the copy engine brings (token_ring.cuh). A warp
// brings; two warpgroups have every second panel of the columns each, multiply those with the factor as
// they come, exchange half of the sums, weigh half of the tokens each, and pool their panels with all
// weights: a panel is given back as soon as it is pooled.
//
// For a tile: z of half of the columns; sync; f and weights as in forward.cuh; sync; pooled += weights *
// panels. While tokens are weighed the copy engine fills the rest of the ring, which is so much longer than
// a tile that memory is kept busy until panels come back.
//
// Tokens that do not count may be anything: they are set to zeros in the ring before they are pooled.
//
// What bounds it, per tile of 768 columns and 64 tokens: its bytes take 5280 cycles at 4.3 TB/s; products
// read 3 KB of shared memory each at 32 heads, of which there are 96, and the engine writes 96 KB, which
// are 3070 cycles of 128 bytes.
//
// Memory: dynamic shared, the ring, the factor, and a PoolState.
#pragma once

#include "attention/hopper/panel_pool.cuh"
#include "common/behind.cuh"

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

// The weights of a tile that is present.
template <class Pool>
__device__ __forceinline__ void weigh_panels(const ForwardCall& call, const TileHeader& header,
                                             bool unbounded, const HeadState* states, Pool& pool) {
  constexpr int kWeighed = Pool::kWeighed;
  const AttentionProblem& problem = call.problem;
  const int64_t step = call.sequences.tokens, t = header.first + pool.token();
  float offset;
  const bool counts =
      t < header.piece.last && kept(problem, call.sequences, header.piece.sequence, t, &offset);
  const TileToken token(call.sequences, header, kTileTokens, pool.token(), counts ? offset : -HUGE_VALF);
  const auto put_like_scores = [&](float* to, const float(&numbers)[kWeighed]) {
    if (to == nullptr || !token.there) return;
#pragma unroll
    for (int i = 0; i < kWeighed; ++i)
      if (pool.writes(pool.own_head(i))) to[token.place + pool.own_head(i) * step] = numbers[i];
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
#pragma unroll
  for (int lanes = 1; lanes < 4; lanes *= 2) square += __shfl_xor_sync(kAllLanes, square, lanes);
  float passed;
  const float length = inverse_length(problem, square, &passed);
#pragma unroll
  for (float& a : f) a = counts ? a * length + token.offset : -HUGE_VALF;
  put_like_scores(call.result.weights, f);
  if (unbounded) {
    pool.raise_references(f);
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      const HeadState& state = states[pool.own_head(i)];
      pool.put(i, counts ? power_of(f[i], state) : 0.0f, state.shrink);
    }
  } else {  // all references are 1, and stay
#pragma unroll
    for (int i = 0; i < kWeighed; ++i)
      pool.put(i, counts ? power_above(f[i] - 1.0f, states[pool.own_head(i)].inverse) : 0.0f, 1.0f);
  }
  if (!counts) pool.leave_out_token();
  publish_writes();
}

template <class T, int kRows, int kOwn>
__device__ __forceinline__ void attend_panels_of(const HopperForward& problem, TokenRing& ring,
                                                 PoolState<T, kRows>& shared, unsigned char* factor) {
  const ForwardCall& call = problem.call;
  HeadState* states = shared.states;
  PanelPool<T, kRows, kOwn> pool(problem, ring, shared, factor);
  bool loaded = false, unbounded = false;
#pragma unroll 1
  for (unsigned n = 0;; ++n) {
    const TileHeader& header = ring.header(n);
    if (!header.present()) return;
    if (header.starts) {
      pool.sync();  // the piece before is finished
      begin_states(call, header.piece.sequence, kRows, states);
      if (!loaded || call.problem.query_per_sequence) pool.load(header.piece.sequence);
      loaded = true;
      pool.clear();
      pool.sync();
      // All heads in every warp: all go the same way.
      bool own = false;
      for (int j = static_cast<int>(threadIdx.x) % kWarpSize; j < kRows; j += kWarpSize)
        own = own || states[j].inverse > call.most_bounded;
      unbounded = __any_sync(kAllLanes, own ? 1 : 0) != 0;
    }
    if (header.first < header.piece.last) {
      weigh_panels(call, header, unbounded, states, pool);
      pool.sync();
      if (unbounded) pool.shrink();
      pool.add();
      ring.advance();
    }
    if (header.stops) {
      pool.sum_totals(states);
      finish_piece<T>(call, header.piece, states, pool, nullptr);
    }
    ring.leave(n);
  }
}

// Of narrow rows two blocks of a multiprocessor go by turns, and share its registers.
constexpr int kNarrowPanels = 3, kNarrowRows = 16;
__host__ __device__ constexpr bool hopper_pairs_up(int rows, int own) {
  return own <= kNarrowPanels && rows <= kNarrowRows;
}

// Of a thread that pools, and of one that brings.
__host__ __device__ constexpr int pooler_registers(bool pair) { return pair ? 104 : 224; }
__host__ __device__ constexpr int bringer_registers(bool pair) { return pair ? 32 : 56; }
constexpr bool registers_suffice(bool pair) {
  const int given = 65536 / (kHopperThreads * (pair ? 2 : 1)) / 8 * 8;  // of a thread when it starts
  return kPoolers * pooler_registers(pair) + bringer_registers(pair) <= (kPoolers + 1) * given;
}
static_assert(registers_suffice(false) && registers_suffice(true),
              "whoever takes more would wait for ever");

template <class T, int kRows, int kOwn>
__global__ void __launch_bounds__(kHopperThreads, hopper_pairs_up(kRows, kOwn) ? 2 : 1)
    attend_panels(const __grid_constant__ HopperForward problem) {
#if EC_HOPPER_CODE
  constexpr bool kPair = hopper_pairs_up(kRows, kOwn);
  unsigned char* memory = shared_array<unsigned char>(0);
  unsigned char* panels = memory + (kSwizzleBytes - shared_address(memory) % kSwizzleBytes) % kSwizzleBytes;
  unsigned char* factor = panels + problem.slots * kPanelBytes;
  auto& shared = *reinterpret_cast<PoolState<T, kRows>*>(
      factor + problem.panels * PanelPool<T, kRows, kOwn>::kFactorBytes);
  TokenRing ring(problem, shared.ring, panels);
  if (threadIdx.x == kAttentionThreads) ring.start();
  wait_for_kernel_before();
  __syncthreads();
  let_next_begin();
  if (threadIdx.x >= kAttentionThreads) {
    give_up_registers<bringer_registers(kPair)>();
    if (threadIdx.x < kAttentionThreads + kWarpSize) ring.bring();
  } else {
    take_registers<pooler_registers(kPair)>();
    attend_panels_of<T, kRows, kOwn>(problem, ring, shared, factor);
  }
#endif
}

}  // namespace ec::cuda
