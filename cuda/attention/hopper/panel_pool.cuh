// SPDX-License-Identifier: Apache-2.0
// How a block alone weighs on Hopper (see attend_panels.cuh). A thread of warpgroup g weighs one token of a
// tile for a quarter of the heads: all heads of a token are those of four lanes.
#pragma once

#include "attention/hopper/panel_sums.cuh"

namespace ec::cuda {

constexpr int kDrained = 16;  // columns of a panel, of a warp

// What a block shares beside the ring and the factor, which lie before it: on kSwizzleBytes.
template <class T, int kRows>
struct PoolState {
  struct OfTile {
    T weights[kRows * kTileTokens];            // an operand: rows are heads
    float sent[kRows / 4][kAttentionThreads];  // half sums, to a thread of the other warpgroup
    double sums[kAttentionWarps][kRows][2];    // of weights over a warp's tokens, and as they are pooled
  };
  union {
    OfTile tile;
    float drained[kAttentionWarps][kRows][kDrained];  // when a piece is finished
  };
  float largest[kAttentionWarps][kRows];  // over a warp's tokens
  HeadState states[kRows];
  float scale[kRows];  // of the factor
  RingState ring;
};

template <class T, int kRows, int kOwn>
class PanelPool : public PanelSums<T, kRows, kOwn, 1, kDrained> {
 public:
  using Base = PanelSums<T, kRows, kOwn, 1, kDrained>;
  static constexpr int kWeighed = kRows / 4;  // heads of a thread, of its token

  __device__ PanelPool(const HopperForward& problem, const TokenRing<1>& ring, PoolState<T, kRows>& shared,
                       unsigned char* factor)
      : Base(problem, ring, shared.scale, factor), shared_(shared) {}

  using Base::sync;
  __device__ int token() const { return warp() % kPoolerWarps * 16 + lane() / 4 + 8 * group(); }
  __device__ int own_head(int i) const { return Base::head_of_column(i); }
  __device__ bool writes(int j) const { return j < heads(); }
  // The token that this thread leaves out, where it does not count.
  __device__ int left_out() const { return token(); }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) totals_[i] = rounded_totals_[i] = 0.0f;
    Base::clear_sums();
  }

  // z of this thread's heads and token, as the panels come.
  __device__ void multiply(float (&z)[kWeighed]) const {
    float products[Base::kSums];
    Base::template multiply_panel<true>(group(), 0, products);
#pragma unroll 1
    for (int c = group() + kPoolers; c < Base::panels(); c += kPoolers)
      Base::template multiply_panel<false>(c, 0, products);
    products_end(products);
    // Of its two tokens a thread sends one to the thread of the other warpgroup that has the same.
    const bool second = group() != 0;
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      const float low = products[i / 2 * 4 + i % 2], high = products[i / 2 * 4 + 2 + i % 2];
      shared_.tile.sent[i][threadIdx.x ^ kGroupThreads] = second ? low : high;
      z[i] = second ? high : low;
    }
    sync();
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      z[i] += shared_.tile.sent[i][threadIdx.x];
      if (Base::kScaled) z[i] *= shared_.scale[own_head(i)];
    }
  }
  // Over all heads of this thread's token.
  __device__ double sum_heads(double square) const {
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) square += __shfl_xor_sync(kAllLanes, square, lanes);
    return square;
  }

  // Requires: all have multiplied.
  __device__ void leave_out() const { Base::zero_token(left_out()); }
  __device__ void put(int i, float weight, float shrink) {
    const T number = rounded(weight, T{});
    shared_.tile.weights[Base::place_of_weight(0, i, token())] = number;
    totals_[i] = __fmaf_rn(totals_[i], shrink, weight);
    rounded_totals_[i] = __fmaf_rn(rounded_totals_[i], shrink, to_float(number));
  }

  // From the largest numbers of this thread's heads to the references of all.
  __device__ void raise_references(const float (&f)[kWeighed]) const {
    Base::put_largest(f, shared_.largest[warp()]);
    sync();
    if (threadIdx.x < kRows) {
      float largest = shared_.largest[0][threadIdx.x];
      for (int w = 1; w < kAttentionWarps; ++w) largest = fmaxf(largest, shared_.largest[w][threadIdx.x]);
      raise_reference(largest, shared_.states[threadIdx.x]);
    }
    sync();
  }
  // Before add, where references move.
  __device__ void shrink() { Base::shrink_sums(shared_.states); }
  // sums += panel^T weights^T, of the own panels, each of which is given back.
  __device__ void add() {
    const uint64_t weights = tile_descriptor(shared_address(shared_.tile.weights));
    const RingPlace& place = Base::ring_.place();
#pragma unroll
    for (int p = 0; p < kOwn; ++p) {
      Base::add_panel(Base::panel_operand(place, p), weights, p);
      if (p == 0) continue;
      products_wait<1>();
      Base::give_back(place, p - 1);
    }
    Base::end_sums();
    Base::give_back(place, kOwn - 1);
  }

  // Of a piece: of thread j, the states of head j. Requires: all have put.
  __device__ void sum_totals(HeadState* states) const {
    Base::put_totals(totals_, rounded_totals_, shared_.tile.sums[warp()]);
    sync();
    if (threadIdx.x >= kRows) return;
    HeadState& state = states[threadIdx.x];
    state.total = state.rounded_total = 0.0;
    for (int w = 0; w < kAttentionWarps; ++w) {
      state.total += shared_.tile.sums[w][threadIdx.x][0];
      state.rounded_total += shared_.tile.sums[w][threadIdx.x][1];
    }
  }

  // See each_sum.
  template <class Put>
  __device__ void each(float*, const Put& put) const {
    sync();  // all have read what was there
    Base::each_sum(shared_.drained[warp()], put);
  }

 private:
  using Base::group;
  using Base::heads;
  using Base::lane;
  using Base::warp;

  PoolState<T, kRows>& shared_;
  float totals_[kWeighed], rounded_totals_[kWeighed];  // of this thread's tokens
};

template <class T, int kRows, int kOwn>
inline constexpr bool kLeavesSums<PanelPool<T, kRows, kOwn>> = true;

}  // namespace ec::cuda
