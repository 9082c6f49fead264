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
#include "attention/hopper/weigh_panels.cuh"
#include "common/behind.cuh"

namespace ec::cuda {

template <class T, int kRows, int kOwn>
__device__ __forceinline__ void attend_panels_of(const HopperForward& problem, TokenRing<1>& ring,
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
      unbounded = has_unbounded(call, kRows, states);
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
__host__ __device__ constexpr int pooler_registers(bool pair) { return pair ? 104 : 232; }
__host__ __device__ constexpr int bringer_registers(bool pair) { return pair ? 32 : 40; }
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
      factor + problem.panels[0] * PanelPool<T, kRows, kOwn>::kFactorBytes);
  TokenRing<1> ring(problem, shared.ring, panels);
  if (threadIdx.x == 0) ring.start();
  wait_for_kernel_before();
  const bool brings = threadIdx.x / kWarpSize == kAttentionWarps;
  if (brings) ring.look_ahead();
  __syncthreads();
  let_next_begin();
  if (threadIdx.x >= kAttentionThreads) {
    give_up_registers<bringer_registers(kPair)>();
    if (brings) ring.bring();
  } else {
    take_registers<pooler_registers(kPair)>();
    attend_panels_of<T, kRows, kOwn>(problem, ring, shared, factor);
  }
#endif
}

}  // namespace ec::cuda
