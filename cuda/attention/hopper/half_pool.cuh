// SPDX-License-Identifier: Apache-2.0
// How a block of a cluster weighs on Hopper, and what it exchanges with the other: see attend_halves.cuh. A
// thread of warpgroup g of block r weighs one token of a tile, of the half r of those of its warp, for an
// eighth of the heads, of the half g: all heads of a token are those of four lanes of both warpgroups.
#pragma once

#include "attention/hopper/panel_sums.cuh"
#include "common/cluster.cuh"

namespace ec::cuda {

constexpr int kHalfDrained = 8;  // columns of a panel, of a warp

// What a block shares beside the ring and the factor, which lie before it: on kSwizzleBytes. Each array
// that the other block stores to has a barrier that counts its bytes.
template <class T, int kRows>
struct HalfState {
  static constexpr int kOwnHeads = kRows / kPoolers;  // of a warpgroup
  struct OfTile {
    double squares[kPoolers][kTileTokens / kHalfBlocks];  // over a warpgroup's heads
    float largest[kAttentionWarps][kOwnHeads];            // over a warp's tokens
  };
  union {
    // Operands: rows are heads; or a panel of zeros (see add). Tiles take turns.
    T weights[2][kPanelNumbers];
    float drained[kAttentionWarps][kRows][kHalfDrained];  // when a piece is finished
  };
  float4 products[kRows / 32][kAttentionThreads];  // the other's, of a thread's heads and token
  union {
    OfTile tile;
    double sums[kAttentionWarps][kOwnHeads][2];  // of weights over a warp's tokens, and as they are pooled
  };
  double totals[kRows][2];   // the other's
  uint4 largest[kRows / 4];  // the other's
  HeadState states[kRows];
  float scale[kRows];  // of the factor
  CopyBarrier products_there, weights_there, largest_there, totals_there;
  RingState ring;
};

template <class T, int kRows, int kOwn>
class HalfPool : public PanelSums<T, kRows, kOwn, kHalfBlocks, kHalfDrained> {
 public:
  using Base = PanelSums<T, kRows, kOwn, kHalfBlocks, kHalfDrained>;
  using State = HalfState<T, kRows>;
  static constexpr int kWeighed = kRows / 8;  // heads of a thread, of its token

  __device__ HalfPool(const HopperForward& problem, const TokenRing<kHalfBlocks>& ring, State& shared,
                      unsigned char* factor)
      : Base(problem, ring, shared.scale, factor), shared_(shared), pooled_(ring.place()) {}

  // By one thread, before the cluster's barrier and publish_barriers.
  static __device__ void init(State& shared) {
    init_barrier(shared.products_there, 1);
    init_barrier(shared.weights_there, 1);
    init_barrier(shared.largest_there, 1);
    init_barrier(shared.totals_there, 1);
  }

  using Base::sync;
  __device__ int token() const { return token_of(rank()); }
  __device__ int own_head(int i) const { return first_head() + Base::head_of_column(i); }
  // Whether results of a head are written by this block.
  __device__ bool writes(int j) const { return j < heads() && j % kHalfBlocks == rank(); }
  // The token that this thread leaves out of the block's panels, where it does not count.
  __device__ int left_out() const { return token_of(group()); }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) totals_[i] = rounded_totals_[i] = 0.0f;
    Base::clear_sums();
    auto* zeros = reinterpret_cast<uint4*>(weights(tile_ - 1));  // for add
    for (int i = static_cast<int>(threadIdx.x); i < kPanelNumbers / 8; i += kAttentionThreads)
      zeros[i] = uint4{0, 0, 0, 0};
    publish_writes();
  }

  // Products of this block's columns and the warpgroup's heads, as the panels come.
  __device__ void multiply_own() {
    Base::template multiply_panel<true>(0, first_head(), products_);
#pragma unroll 1
    for (int c = 1; c < Base::panels(); ++c)
      Base::template multiply_panel<false>(c, first_head(), products_);
    products_end(products_);
  }
  // Those of the token that the other block weighs; the others stay.
  __device__ void send_products() {
    if (threadIdx.x == 0) arrive_and_expect(shared_.products_there, sizeof shared_.products);
#pragma unroll
    for (int i = 0; i < kWeighed; i += 4) {
      float numbers[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int at = (i + k) / 2 * 4 + k % 2;  // of the first token
        numbers[k] = products_[rank() == 0 ? at + 2 : at];
        products_[i + k] = products_[rank() == 0 ? at : at + 2];
      }
      store_there(other(), &shared_.products[i / 4][threadIdx.x], bits_of(numbers), shared_.products_there);
    }
  }
  // z of this thread's heads and token, from both blocks.
  __device__ void multiply(float (&z)[kWeighed]) const {
    wait_for_neighbours(shared_.products_there, tile_ % 2);
#pragma unroll
    for (int i = 0; i < kWeighed; i += 4) {
      const float4 four = shared_.products[i / 4][threadIdx.x];
      const float numbers[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        z[i + k] = numbers[k] + products_[i + k];
        if (Base::kScaled) z[i + k] *= shared_.scale[own_head(i + k)];
      }
    }
  }
  // Over all heads of this thread's token. When it is back all have multiplied, and the tile before is
  // pooled.
  __device__ double sum_heads(double square) {
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) square += __shfl_xor_sync(kAllLanes, square, lanes);
    const int at = warp() % kPoolerWarps * (kTileTokens / kHalfBlocks / kPoolerWarps) + lane() / 4;
    if (lane() % 4 == 0) shared_.tile.squares[group()][at] = square;
    end_add();
    sync();
    return square + shared_.tile.squares[1 - group()][at];
  }

  // Requires: all have multiplied.
  __device__ void leave_out() const { Base::zero_token(left_out()); }
  __device__ void put(int i, float weight, float shrink) {
    const T number = rounded(weight, T{});
    weights(tile_)[Base::place_of_weight(first_head(), i, token())] = number;
    totals_[i] = __fmaf_rn(totals_[i], shrink, weight);
    rounded_totals_[i] = __fmaf_rn(rounded_totals_[i], shrink, to_float(number));
  }
  // When all have put the weights of a tile: those of this block's tokens. The tile is to be pooled.
  __device__ void send_weights() {
    sync();
    constexpr int kPieces = kTileTokens / kHalfBlocks / 8;  // of 8 tokens of a head
    if (threadIdx.x == 0) arrive_and_expect(shared_.weights_there, kRows * kPieces * sizeof(uint4));
    if (threadIdx.x < kRows * kPieces) {
      const int j = static_cast<int>(threadIdx.x) / kPieces,
                piece = static_cast<int>(threadIdx.x) % kPieces * kHalfBlocks + rank();
      T* own = weights(tile_) + place_in_panel(j, piece);
      store_there(other(), own, *reinterpret_cast<const uint4*>(own), shared_.weights_there);
    }
    pooled_ = Base::ring_.place();
    ++tile_;
  }
  // Until all weights of the tile that is to be pooled are here.
  __device__ void receive_weights() const {
    wait_for_neighbours(shared_.weights_there, (tile_ - 1) % 2);
    publish_writes();  // those of the other block, too
  }

  // From the largest numbers of this thread's heads to the references of all, in both blocks alike.
  __device__ void raise_references(const float (&f)[kWeighed]) {
    Base::put_largest(f, shared_.tile.largest[warp()]);
    sync();
    const int t = static_cast<int>(threadIdx.x);
    if (t == 0) arrive_and_expect(shared_.largest_there, sizeof shared_.largest);
    if (t < kRows / 4) {
      const float four[4] = {largest_here(4 * t), largest_here(4 * t + 1), largest_here(4 * t + 2),
                             largest_here(4 * t + 3)};
      store_there(other(), &shared_.largest[t], bits_of(four), shared_.largest_there);
    }
    if (t < kRows) {
      wait_for_neighbours(shared_.largest_there, shares_ % 2);
      const float there = reinterpret_cast<const float*>(shared_.largest)[t];
      raise_reference(fmaxf(largest_here(t), there), shared_.states[t]);
    }
    ++shares_;
    sync();
  }
  // Before add, where references move.
  __device__ void shrink() { Base::shrink_sums(shared_.states); }
  // sums += panel^T weights^T, of the own panels of the tile that is to be pooled: under way until end_add.
  // Or, where a piece `starts` and there is none, += zeros^T zeros^T: the compiler has products under way
  // beside other code where they are on any path.
  __device__ void add(bool starts) {
    const uint64_t operand = tile_descriptor(shared_address(weights(tile_ - 1)));
#pragma unroll
    for (int p = 0; p < kOwn; ++p)
      Base::add_panel(starts ? operand : Base::panel_operand(pooled_, p), operand, p);
    adding_ = !starts;
  }
  // The panels are given back.
  __device__ void end_add() {
    Base::end_sums();
    if (!adding_) return;
    adding_ = false;
#pragma unroll
    for (int p = 0; p < kOwn; ++p) Base::give_back(pooled_, p);
  }

  // Of a piece, over the tokens of both blocks, where it has some: of thread j, the states of head j.
  // Requires: all have put.
  __device__ void sum_totals(bool some, HeadState* states) {
    const int j = static_cast<int>(threadIdx.x);
    if (!some) {
      if (j < kRows) states[j].total = states[j].rounded_total = 0.0;
      return;
    }
    Base::put_totals(totals_, rounded_totals_, shared_.sums[warp()]);
    sync();
    if (j == 0) arrive_and_expect(shared_.totals_there, sizeof shared_.totals);
    if (j < kRows) {
      double own[2] = {0.0, 0.0};
      for (int w = 0; w < kPoolerWarps; ++w)
        for (int i = 0; i < 2; ++i) own[i] += shared_.sums[first_warp(j) + w][j % State::kOwnHeads][i];
      store_there(other(), shared_.totals[j], bits_of(own), shared_.totals_there);
      wait_for_neighbours(shared_.totals_there, pieces_ % 2);
      states[j].total = own[0] + shared_.totals[j][0];
      states[j].rounded_total = own[1] + shared_.totals[j][1];
    }
    ++pieces_;
  }

  // See each_sum.
  template <class Put>
  __device__ void each(float*, const Put& put) const {
    sync();  // all weights have been pooled
    Base::each_sum(shared_.drained[warp()], put);
  }

 private:
  using Base::group;
  using Base::heads;
  using Base::lane;
  using Base::warp;

  static __device__ int rank() { return static_cast<int>(blockIdx.y); }
  static __device__ unsigned other() { return 1 - blockIdx.y; }
  __device__ int first_head() const { return group() * State::kOwnHeads; }  // of the warpgroup
  // Of the two tokens whose products this thread has.
  __device__ int token_of(int half) const { return warp() % kPoolerWarps * 16 + lane() / 4 + 8 * half; }
  __device__ T* weights(unsigned tile) const { return shared_.weights[tile % 2]; }
  // Of the warpgroup that weighs head j.
  static __device__ int first_warp(int j) { return j / State::kOwnHeads * kPoolerWarps; }
  // Of head j, over the tokens of this block.
  __device__ float largest_here(int j) const {
    float largest = -HUGE_VALF;
#pragma unroll
    for (int w = 0; w < kPoolerWarps; ++w)
      largest = fmaxf(largest, shared_.tile.largest[first_warp(j) + w][j % State::kOwnHeads]);
    return largest;
  }

  State& shared_;
  RingPlace pooled_;                                   // of the tile that is to be pooled
  bool adding_ = false;                                // that is under way
  unsigned tile_ = 0;                                  // those with tokens that are weighed
  unsigned shares_ = 0, pieces_ = 0;                   // that were exchanged
  float products_[kRows / 4];                          // of the two tokens, and then of this thread's own
  float totals_[kWeighed], rounded_totals_[kWeighed];  // of this thread's tokens
};

template <class T, int kRows, int kOwn>
inline constexpr bool kLeavesSums<HalfPool<T, kRows, kOwn>> = true;

}  // namespace ec::cuda
