// SPDX-License-Identifier: Apache-2.0
// Forward on Hopper where heads and columns are many: as attend_panels.cuh, by two blocks of a cluster that
// have half of the columns each, so that the sums fit into their registers. Both walk the same tokens, and
// multiply them by half of the columns; then each weighs half of the tokens of a tile, with the other's
// products, and sends the weights, by which both pool their columns. A warpgroup multiplies half of the
// heads, and pools every second panel.
//
// Pooling is a tile behind, so that it is done, and the other's products come, while tokens are weighed:
//   multiply n | wait for weights n - 1, send products n, begin to pool n - 1 | wait for products n, z and
//   f of n | n - 1 is pooled, its panels are given back; sync | weights of n | sync | send weights n
// Where a piece ends with n - 1 that is pooled, and the piece finished, before products n are sent.
//
// Why nothing is written while it is read, and no barrier counts bytes of two turns at a time; a block
// sends to the other, its neighbour:
// - Products n + 1 are sent behind the wait for the neighbour's weights n, which it sent behind a sync
//   that all its threads came to after they had read products n, and all else that it was sent for tile
//   n.
// - Weights n + 1 are sent behind the wait for products n + 1, which the neighbour's threads sent when
//   they had waited for weights n. They take the place of weights n - 1, which it had pooled before a
//   sync in its tile n, or of numbers on their way out of a piece, which its threads had read before
//   they sent.
// - The largest numbers of tile n + 1 are sent behind the wait for products n + 1, sums of a piece that
//   ends with tile n behind the wait for weights n; the neighbour had used the last ones before it sent
//   those.
// Blocks leave together.
//
// What bounds it, per tile of 768 columns and 64 tokens: bytes of half of them take 2640 cycles at 4.3
// TB/s. Products with the factor, 48 that read 3 KB of shared memory each, take 1150 cycles alone; those
// that pool, 24 of 4 KB, take 770 beside what threads do, which is to wait for the neighbour's products
// (some 400) and to weigh 2048 numbers (some 1000).
//
// Memory: dynamic shared, the ring, the factor, and a HalfState, at the same place in both blocks. The ring
// holds two tiles, and what is brought ahead of them.
#pragma once

#include "attention/hopper/attend_panels.cuh"
#include "attention/hopper/half_pool.cuh"

namespace ec::cuda {

// What is the same in all lanes, so that the compiler knows.
__device__ __forceinline__ bool all_alike(bool a) { return __any_sync(kAllLanes, a ? 1 : 0) != 0; }

template <class T, int kRows, int kOwn>
__device__ __forceinline__ void attend_halves_of(const HopperForward& problem, TokenRing<kHalfBlocks>& ring,
                                                 HalfState<T, kRows>& shared, unsigned char* factor) {
  const ForwardCall& call = problem.call;
  HeadState* states = shared.states;
  HalfPool<T, kRows, kOwn> pool(problem, ring, shared, factor);
  bool loaded = false, unbounded = false;
  // Of tile n - 1: it has tokens and is to be pooled; its piece ends with it.
  bool pending = false, ends = false;
#pragma unroll 1
  for (unsigned n = 0;; ++n) {
    const TileHeader& header = ring.header(n);
    const bool present = all_alike(header.present()), starts = all_alike(header.starts),
               some = all_alike(header.present() && header.first < header.piece.last);
    if (present && (!loaded || (starts && call.problem.query_per_sequence))) {
      pool.load(header.piece.sequence);
      loaded = true;
      pool.sync();
    }
    if (some) pool.multiply_own();
    if (pending) {
      pool.receive_weights();
      if (unbounded) pool.shrink();
    }
    if (ends) {
      if (pending) {
        pool.add(false);
        pool.end_add();
      }
      pool.sum_totals(pending, states);
      finish_piece<T>(call, ring.header(n - 1).piece, states, pool, nullptr);
      ring.leave(n - 1);
    }
    if (!present) return;
    if (some) pool.send_products();
    if (starts) {
      pool.sync();  // the piece before is finished
      begin_states(call, header.piece.sequence, kRows, states);
      pool.clear();
      pool.sync();
      unbounded = has_unbounded(call, kRows, states);
    }
    pending = some;
    ends = all_alike(header.stops);
    if (!some) continue;
    pool.add(starts);
    weigh_panels(call, header, unbounded, states, pool);
    pool.send_weights();
    ring.advance();
    if (!ends) ring.leave(n);
  }
}

template <class T, int kRows, int kOwn>
__global__ void __launch_bounds__(kHopperThreads, 1)
    attend_half_panels(const __grid_constant__ HopperForward problem) {
#if EC_HOPPER_CODE
  unsigned char* memory = shared_array<unsigned char>(0);
  unsigned char* panels = memory + (kSwizzleBytes - shared_address(memory) % kSwizzleBytes) % kSwizzleBytes;
  unsigned char* factor = panels + problem.slots * kPanelBytes;
  using Pool = HalfPool<T, kRows, kOwn>;
  auto& shared = *reinterpret_cast<HalfState<T, kRows>*>(factor + problem.panels[0] * Pool::kFactorBytes);
  TokenRing<kHalfBlocks> ring(problem, shared.ring, panels);
  if (threadIdx.x == 0) {
    Pool::init(shared);
    ring.start();
  }
  const bool brings = threadIdx.x / kWarpSize == kAttentionWarps;
  if (brings) ring.look_ahead();
  cluster_arrive();
  cluster_wait();
  let_next_begin();
  if (threadIdx.x >= kAttentionThreads) {
    give_up_registers<bringer_registers(false)>();
    if (brings) ring.bring();
  } else {
    take_registers<pooler_registers(false)>();
    attend_halves_of<T, kRows, kOwn>(problem, ring, shared, factor);
  }
  cluster_arrive();  // the other may store here until it is through
  cluster_wait();
#endif
}

}  // namespace ec::cuda
