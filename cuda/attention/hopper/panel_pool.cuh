// SPDX-License-Identifier: Apache-2.0
// What a block multiplies with and pools into on Hopper (see attend_panels.cuh). A thread of warpgroup g
// weighs one token of a tile for a quarter of the heads: all heads of a token are those of four lanes.
#pragma once

#include <type_traits>

#include "attention/hopper/panel_slots.cuh"
#include "attention/hopper/token_ring.cuh"

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

// T has 16 bits. There are at most kRows heads, and 2 kOwn panels of the columns, of which the two
// warpgroups have one by turns.
template <class T, int kRows, int kOwn>
class PanelPool {
 public:
  static constexpr int kWeighed = kRows / 4;  // heads of a thread, of its token
  static constexpr int kSums = kRows / 2;     // of a thread, of a panel
  static constexpr int kFactorBytes = kRows * kPanelColumns * static_cast<int>(sizeof(T));  // of a panel

  __device__ PanelPool(const HopperForward& problem, const TokenRing& ring, PoolState<T, kRows>& shared,
                       unsigned char* factor)
      : problem_(problem),
        ring_(ring),
        shared_(shared),
        factor_(factor),
        group_(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0)) {}

  __device__ void sync() const { sync_threads<kAttentionThreads>(kPoolerBarrier); }
  __device__ int token() const { return warp() % kPoolerWarps * 16 + lane() / 4 + 8 * group(); }
  __device__ int own_head(int i) const { return i / 2 * 8 + lane() % 4 * 2 + i % 2; }
  __device__ bool writes(int j) const { return j < heads(); }

  // The factor of all panels, zeros beyond the heads and columns.
  __device__ void load(int64_t b) const {
    const AttentionProblem& problem = problem_.call.problem;
    const Numbers& query = problem.query;
    const int64_t origin = problem.query_per_sequence ? b * query.stride[0] : 0;
    if constexpr (kScaled) {
      for (int j = warp(); j < kRows; j += kAttentionWarps) {
        const float scale = j < heads() ? head_scale(query, origin + j * query.stride[2], columns()) : 1.0f;
        if (lane() == 0) shared_.scale[j] = scale;
      }
      sync();
    }
    if (query.kind == NumberKind::kFloat64)
      load_from<1>(static_cast<const double*>(query.data) + origin, false);
    else if (query.kind == NumberKind::kFloat32)
      load_from<3>(static_cast<const float*>(query.data) + origin, false);
    else
      load_from<3>(static_cast<const uint16_t*>(query.data) + origin, query.kind == NumberKind::kFloat16);
    publish_writes();
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) totals_[i] = rounded_totals_[i] = 0.0f;
#pragma unroll
    for (int p = 0; p < kOwn; ++p)
#pragma unroll
      for (float& sum : sums_[p]) sum = 0.0f;
  }

  // z of this thread's heads and token, as the panels come.
  __device__ void multiply(float (&z)[kWeighed]) const {
    float products[kSums];
    multiply_panel<true>(group(), products);
#pragma unroll 1
    for (int c = group() + kPoolers; c < problem_.panels; c += kPoolers) multiply_panel<false>(c, products);
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
      if (kScaled) z[i] *= shared_.scale[own_head(i)];
    }
  }

  // That what this thread's token has, which may be anything, is not pooled. Requires: all have multiplied.
  __device__ void leave_out_token() const {
    const uint4 zeros = {0, 0, 0, 0};
#pragma unroll 1
    for (int c = 0; c < problem_.panels; ++c) {
      auto* row = reinterpret_cast<uint4*>(ring_.panel(c)) + token() * (kPanelColumns / 8);
      row[lane() % 4] = zeros;
      row[lane() % 4 + 4] = zeros;
    }
  }
  __device__ void put(int i, float weight, float shrink) {
    const T number = rounded(weight, T{});
    shared_.tile.weights[place_in_panel(own_head(i), token() / 8) + token() % 8] = number;
    totals_[i] = __fmaf_rn(totals_[i], shrink, weight);
    rounded_totals_[i] = __fmaf_rn(rounded_totals_[i], shrink, to_float(number));
  }

  // From the largest numbers of this thread's heads to the references of all.
  __device__ void raise_references(const float (&f)[kWeighed]) const {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      float largest = f[i];
#pragma unroll
      for (int step = 4; step < kWarpSize; step *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
      if (lane() < 4) shared_.largest[warp()][own_head(i)] = largest;
    }
    sync();
    if (threadIdx.x < kRows) {
      float largest = shared_.largest[0][threadIdx.x];
      for (int w = 1; w < kAttentionWarps; ++w) largest = fmaxf(largest, shared_.largest[w][threadIdx.x]);
      raise_reference(largest, shared_.states[threadIdx.x]);
    }
    sync();
  }
  // Before add, where references move.
  __device__ void shrink() {
    float times[kWeighed];
    bool some = false;
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      times[i] = shared_.states[own_head(i)].shrink;
      some = some || times[i] != 1.0f;
    }
    if (some) {
#pragma unroll
      for (int p = 0; p < kOwn; ++p)
#pragma unroll
        for (int i = 0; i < kSums; ++i) sums_[p][i] *= times[i / 4 * 2 + i % 2];
    }
    __syncwarp();
  }
  // sums += panel^T weights^T, of the own panels, each of which is given back.
  __device__ void add() {
    const uint64_t weights = tile_descriptor(shared_address(shared_.tile.weights));
    products_fence();
#pragma unroll
    for (int p = 0; p < kOwn; ++p) {
      const int c = kPoolers * p + group();
      // Beyond the last panel is the first once more: what comes of it is not used.
      const uint64_t panel =
          tile_descriptor(shared_address(ring_.panel(c < problem_.panels ? c : group())));
#pragma unroll
      for (int k = 0; k < kTileTokens / kProductSteps; ++k)
        multiply_add_tiles<true>(sums_[p], panel + k * kNextTurnedStep, weights + k * kNextStep, T{});
      products_commit();
      if (p == 0) continue;
      products_wait<1>();
      give_back(c - kPoolers);
    }
#pragma unroll
    for (int p = 0; p < kOwn; ++p) products_end(sums_[p]);
    give_back(kPoolers * (kOwn - 1) + group());
  }

  // Of a piece: of thread j, the states of head j. Requires: all have put.
  __device__ void sum_totals(HeadState* states) const {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      double total = static_cast<double>(totals_[i]),
             rounded_total = static_cast<double>(rounded_totals_[i]);
#pragma unroll
      for (int step = 4; step < kWarpSize; step *= 2) {
        total += __shfl_xor_sync(kAllLanes, total, step);
        rounded_total += __shfl_xor_sync(kAllLanes, rounded_total, step);
      }
      if (lane() >= 4) continue;
      shared_.tile.sums[warp()][own_head(i)][0] = total;
      shared_.tile.sums[warp()][own_head(i)][1] = rounded_total;
    }
    sync();
    if (threadIdx.x >= kRows) return;
    HeadState& state = states[threadIdx.x];
    state.total = state.rounded_total = 0.0;
    for (int w = 0; w < kAttentionWarps; ++w) {
      state.total += shared_.tile.sums[w][threadIdx.x][0];
      state.rounded_total += shared_.tile.sums[w][threadIdx.x][1];
    }
  }

  // All sums to a slot.
  __device__ void leave(int64_t slot) const {
    const PanelSlots slots(problem_.panels, heads());
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
#pragma unroll
    for (int p = 0; p < kOwn; ++p) {
      const int c = kPoolers * p + group();
      if (c >= problem_.panels) continue;
#pragma unroll
      for (int g = 0; g < kRows / kFragmentHeads; ++g) {
        if (g >= slots.groups) continue;
        const float four[4] = {sums_[p][4 * g], sums_[p][4 * g + 1], sums_[p][4 * g + 2],
                               sums_[p][4 * g + 3]};
        store_four(four, problem_.call.slots.pooled + slots.fragment(slot, c, g) + 4 * thread);
      }
    }
  }

  // put(j, k, a, b) of the sums of head j and columns k and k + 1. They go through shared memory, so that
  // little code puts all of them.
  template <class Put>
  __device__ void each(float*, const Put& put) const {
    sync();  // all have read what was there
    float(&drained)[kRows][kDrained] = shared_.drained[warp()];
#pragma unroll
    for (int p = 0; p < kOwn; ++p) {
      const int c = kPoolers * p + group();
      if (c >= problem_.panels) continue;
#pragma unroll
      for (int i = 0; i < kSums; ++i)
        drained[own_head(i / 4 * 2 + i % 2)][lane() / 4 + i / 2 % 2 * 8] = sums_[p][i];
      __syncwarp();
      const int k = c * kPanelColumns + warp() % kPoolerWarps * kDrained + lane() % 8 * 2;
#pragma unroll 1
      for (int j = lane() / 8; j < heads(); j += 4) {
        const float2 pair = *reinterpret_cast<const float2*>(&drained[j][lane() % 8 * 2]);
        put(j, k, pair.x, pair.y);
      }
      __syncwarp();
    }
  }

 private:
  static constexpr bool kScaled = std::is_same_v<T, Half>;

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  static __device__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  __device__ int group() const { return group_; }
  __device__ int heads() const { return static_cast<int>(problem_.call.problem.heads); }
  __device__ int columns() const { return static_cast<int>(problem_.call.problem.key_columns); }

  // A thread has 8 columns of a head at a time, and asks for kAtOnce times that before it waits: numbers
  // are not touched, nor tested for their kind, while others are still to be asked for.
  template <int kAtOnce, class N>
  __device__ void load_from(const N* from, bool half) const {
    const Numbers& query = problem_.call.problem.query;
    const int64_t apart = query.stride[1];
    // What lies together is read by threads side by side.
    const bool by_heads = query.stride[2] <= apart;
    const int pieces = problem_.panels * (kPanelColumns / 8), count = kRows * pieces;
#pragma unroll 1
    for (int base = static_cast<int>(threadIdx.x); base < count; base += kAtOnce * kAttentionThreads) {
      N numbers[kAtOnce][8];
      int heads_of[kAtOnce], pieces_of[kAtOnce];
#pragma unroll
      for (int m = 0; m < kAtOnce; ++m) {
        const int i = base + m * kAttentionThreads;
        const int j = by_heads ? i % kRows : i / pieces, piece = by_heads ? i / kRows : i % pieces;
        const int there = i < count && j < heads() ? columns() - 8 * piece : 0;
        const N* next = from + j * query.stride[2] + 8 * piece * apart;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          numbers[m][n] = n < there ? *next : N{};
          next += apart;
        }
        heads_of[m] = j;
        pieces_of[m] = piece;
      }
#pragma unroll
      for (int m = 0; m < kAtOnce; ++m)
        if (base + m * kAttentionThreads < count) put_piece(heads_of[m], pieces_of[m], numbers[m], half);
    }
  }
  template <class N>
  __device__ void put_piece(int j, int piece, const N (&numbers)[8], bool half) const {
    const float times = kScaled ? 1.0f / shared_.scale[j] : 1.0f;
    unsigned pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      pairs[i] = pair_bits(float_of_bits(numbers[2 * i], half) * times,
                           float_of_bits(numbers[2 * i + 1], half) * times, T{});
    T* panel = reinterpret_cast<T*>(factor_ + piece / 8 * kFactorBytes);
    *reinterpret_cast<uint4*>(panel + place_in_panel(j, piece % 8)) =
        uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
  }

  // z += panel . factor, of panel c.
  template <bool kFirst>
  __device__ void multiply_panel(int c, float (&products)[kSums]) const {
    const uint64_t panel = tile_descriptor(shared_address(ring_.panel(c))),
                   factor = tile_descriptor(shared_address(factor_ + c * kFactorBytes));
    ring_.wait(c);
    products_fence();
    if (kFirst)
      multiply_tiles<false>(products, panel, factor, T{});
    else
      multiply_add_tiles<false>(products, panel, factor, T{});
#pragma unroll
    for (int k = 1; k < kPanelColumns / kProductSteps; ++k)
      multiply_add_tiles<false>(products, panel + k * kNextStep, factor + k * kNextStep, T{});
    products_commit();
  }
  __device__ void give_back(int c) const {
    if (c < problem_.panels) ring_.give(c);
  }

  const HopperForward& problem_;
  const TokenRing& ring_;
  PoolState<T, kRows>& shared_;
  unsigned char* factor_;
  const int group_;  // from one lane: the compiler is to know that it is the same in all of a warp
  float totals_[kWeighed], rounded_totals_[kWeighed];  // of this thread's tokens
  float sums_[kOwn][kSums];
};

template <class T, int kRows, int kOwn>
inline constexpr bool kLeavesSums<PanelPool<T, kRows, kOwn>> = true;

}  // namespace ec::cuda
