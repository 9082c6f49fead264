// SPDX-License-Identifier: Apache-2.0
// What a block multiplies with and pools into on Hopper, whichever way it weighs: the factor, and sums of
// panels that the two warpgroups have by turns.
#pragma once

#include <type_traits>

#include "attention/hopper/panel_slots.cuh"
#include "attention/hopper/token_ring.cuh"

namespace ec::cuda {

// T has 16 bits. There are at most kRows heads, and 2 kOwn panels of a block's columns. kDrained: columns
// of a panel that a warp puts at a time.
template <class T, int kRows, int kOwn, int kBlocks, int kDrained>
class PanelSums {
 public:
  static constexpr int kSums = kRows / 2;  // of a thread, of a panel
  static constexpr int kFactorBytes = kRows * kPanelColumns * static_cast<int>(sizeof(T));  // of a panel

  __device__ PanelSums(const HopperForward& problem, const TokenRing<kBlocks>& ring, float* scale,
                       unsigned char* factor)
      : problem_(problem),
        ring_(ring),
        scale_(scale),
        factor_(factor),
        group_(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0)) {}

  __device__ void sync() const { sync_threads<kAttentionThreads>(kPoolerBarrier); }

  // The factor of all panels, zeros beyond the heads and columns.
  __device__ void load(int64_t b) const {
    const AttentionProblem& problem = problem_.call.problem;
    const Numbers& query = problem.query;
    const int64_t origin = problem.query_per_sequence ? b * query.stride[0] : 0;
    if constexpr (kScaled) {
      for (int j = warp(); j < kRows; j += kAttentionWarps) {
        const float scale = j < heads() ? head_scale(query, origin + j * query.stride[2], columns()) : 1.0f;
        if (lane() == 0) scale_[j] = scale;
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

  // All sums to a slot.
  __device__ void leave(int64_t slot) const {
    const PanelSlots slots(problem_.panels[0] + problem_.panels[1], heads());
    const int first = problem_.template first_panel<kBlocks>();
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
#pragma unroll
    for (int p = 0; p < kOwn; ++p) {
      const int c = panel_of(p);
      if (c >= panels()) continue;
#pragma unroll
      for (int g = 0; g < kRows / kFragmentHeads; ++g) {
        if (g >= slots.groups) continue;
        const float four[4] = {sums_[p][4 * g], sums_[p][4 * g + 1], sums_[p][4 * g + 2],
                               sums_[p][4 * g + 3]};
        store_four(four, problem_.call.slots.pooled + slots.fragment(slot, first + c, g) + 4 * thread);
      }
    }
  }

 protected:
  static constexpr bool kScaled = std::is_same_v<T, Half>;

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  static __device__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  __device__ int group() const { return group_; }
  // Of products whose columns are heads, the head of the i-th column that this thread has.
  static __device__ int head_of_column(int i) { return i / 2 * 8 + lane() % 4 * 2 + i % 2; }
  // Where the weight of a token lies for that head, from `first` on, which is a multiple of 8: heads that
  // are 8 apart lie as those before, so that a thread has two places, and what is known of others.
  static __device__ int place_of_weight(int first, int i, int token) {
    return i / 2 * 8 * kPanelColumns + place_in_panel(first + head_of_column(i % 2), token / 8) + token % 8;
  }
  __device__ int heads() const { return static_cast<int>(problem_.call.problem.heads); }
  __device__ int columns() const { return static_cast<int>(problem_.call.problem.key_columns); }
  __device__ int panels() const { return problem_.template own_panels<kBlocks>(); }

  __device__ void clear_sums() {
#pragma unroll
    for (int p = 0; p < kOwn; ++p)
#pragma unroll
      for (float& sum : sums_[p]) sum = 0.0f;
  }

  // z += panel . factor, of panel c, of 2 kNumbers heads from `first_head` on.
  template <bool kFirst, int kNumbers>
  __device__ void multiply_panel(int c, int first_head, float (&products)[kNumbers]) const {
    const unsigned char* rows =
        factor_ + c * kFactorBytes + first_head * kPanelColumns * static_cast<int>(sizeof(T));
    const uint64_t panel = tile_descriptor(shared_address(ring_.panel(ring_.place(), c))),
                   factor = tile_descriptor(shared_address(rows));
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

  // That what a token of the next tile has, which may be anything, is not pooled, by the four lanes that
  // have it. Requires: all have multiplied.
  __device__ void zero_token(int token) const {
    const uint4 zeros = {0, 0, 0, 0};
#pragma unroll 1
    for (int c = 0; c < panels(); ++c) {
      auto* row = reinterpret_cast<uint4*>(ring_.panel(ring_.place(), c)) + token * (kPanelColumns / 8);
      row[lane() % 4] = zeros;
      row[lane() % 4 + 4] = zeros;
    }
  }

  // Of each of the heads that lanes have, the largest over the tokens of a warp.
  template <int kWeighed>
  __device__ void put_largest(const float (&numbers)[kWeighed], float* of_heads) const {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      float largest = numbers[i];
#pragma unroll
      for (int step = 4; step < kWarpSize; step *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
      if (lane() < 4) of_heads[head_of_column(i)] = largest;
    }
  }
  // And sums over them, of weights and of what they are rounded to.
  template <int kWeighed>
  __device__ void put_totals(const float (&totals)[kWeighed], const float (&rounded)[kWeighed],
                             double (*of_heads)[2]) const {
#pragma unroll
    for (int i = 0; i < kWeighed; ++i) {
      double total = static_cast<double>(totals[i]), rounded_total = static_cast<double>(rounded[i]);
#pragma unroll
      for (int step = 4; step < kWarpSize; step *= 2) {
        total += __shfl_xor_sync(kAllLanes, total, step);
        rounded_total += __shfl_xor_sync(kAllLanes, rounded_total, step);
      }
      if (lane() >= 4) continue;
      of_heads[head_of_column(i)][0] = total;
      of_heads[head_of_column(i)][1] = rounded_total;
    }
  }

  // Before the sums are added to, where references move.
  __device__ void shrink_sums(const HeadState* states) {
    float times[kRows / 4];
    bool some = false;
#pragma unroll
    for (int i = 0; i < kRows / 4; ++i) {
      times[i] = states[head_of_column(i)].shrink;
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

  // The p-th of the own panels of a tile, as an operand that is turned. Beyond the last panel it is the
  // first once more: what comes of it is not used.
  __device__ uint64_t panel_operand(const RingPlace& place, int p) const {
    const int c = panel_of(p);
    return tile_descriptor(shared_address(ring_.panel(place, c < panels() ? c : group())));
  }
  // sums += panel^T weights^T, of the p-th of the own panels of a tile.
  __device__ void add_panel(uint64_t panel, uint64_t weights, int p) {
    products_fence();
#pragma unroll
    for (int k = 0; k < kTileTokens / kProductSteps; ++k)
      multiply_add_tiles<true>(sums_[p], panel + k * kNextTurnedStep, weights + k * kNextStep, T{});
    products_commit();
  }
  __device__ void end_sums() {
#pragma unroll
    for (int p = 0; p < kOwn; ++p) products_end(sums_[p]);
  }
  // The p-th of the own panels of a tile.
  __device__ void give_back(const RingPlace& place, int p) const {
    if (panel_of(p) < panels()) ring_.give(place, panel_of(p));
  }

  // put(j, k, a, b) of the sums of head j and columns k and k + 1. They go through this warp's part of
  // shared memory, so that little code puts all of them.
  template <class Put>
  __device__ void each_sum(float (&drained)[kRows][kDrained], const Put& put) const {
    constexpr int kAcross = kDrained / 2, kWarpColumns = kPanelColumns / kPoolerWarps;
    const int first = problem_.template first_panel<kBlocks>();
#pragma unroll
    for (int p = 0; p < kOwn; ++p) {
      const int c = panel_of(p);
      if (c >= panels()) continue;
#pragma unroll 1
      for (int part = 0; part < kWarpColumns / kDrained; ++part) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
          const int half = i / 2 % 2;  // of the columns
          if (kDrained == kWarpColumns)
            drained[head_of_column(i / 4 * 2 + i % 2)][lane() / 4 + half * 8] = sums_[p][i];
          else if (half == 0)
            drained[head_of_column(i / 4 * 2 + i % 2)][lane() / 4] =
                part == 0 ? sums_[p][i] : sums_[p][i + 2];
        }
        __syncwarp();
        const int k = (first + c) * kPanelColumns + warp() % kPoolerWarps * kWarpColumns + part * kDrained +
                      lane() % kAcross * 2;
#pragma unroll 1
        for (int j = lane() / kAcross; j < heads(); j += kWarpSize / kAcross) {
          const float2 pair = *reinterpret_cast<const float2*>(&drained[j][lane() % kAcross * 2]);
          put(j, k, pair.x, pair.y);
        }
        __syncwarp();
      }
    }
  }

  const HopperForward& problem_;
  const TokenRing<kBlocks>& ring_;

 private:
  __device__ int panel_of(int p) const { return kPoolers * p + group(); }

  // A thread has 8 columns of a head at a time, and asks for kAtOnce times that before it waits: numbers
  // are not touched, nor tested for their kind, while others are still to be asked for.
  template <int kAtOnce, class N>
  __device__ void load_from(const N* from, bool half) const {
    const Numbers& query = problem_.call.problem.query;
    const int64_t apart = query.stride[1];
    // What lies together is read by threads side by side.
    const bool by_heads = query.stride[2] <= apart;
    const int first = problem_.template first_panel<kBlocks>() * kPanelColumns;
    const int pieces = panels() * (kPanelColumns / 8), count = kRows * pieces;
#pragma unroll 1
    for (int base = static_cast<int>(threadIdx.x); base < count; base += kAtOnce * kAttentionThreads) {
      N numbers[kAtOnce][8];
      int heads_of[kAtOnce], pieces_of[kAtOnce];
#pragma unroll
      for (int m = 0; m < kAtOnce; ++m) {
        const int i = base + m * kAttentionThreads;
        const int j = by_heads ? i % kRows : i / pieces, piece = by_heads ? i / kRows : i % pieces;
        const int there = i < count && j < heads() ? columns() - first - 8 * piece : 0;
        const N* next = from + j * query.stride[2] + (first + 8 * piece) * apart;
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
    const float times = kScaled ? 1.0f / scale_[j] : 1.0f;
    unsigned pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      pairs[i] = pair_bits(float_of_bits(numbers[2 * i], half) * times,
                           float_of_bits(numbers[2 * i + 1], half) * times, T{});
    T* panel = reinterpret_cast<T*>(factor_ + piece / 8 * kFactorBytes);
    *reinterpret_cast<uint4*>(panel + place_in_panel(j, piece % 8)) =
        uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
  }

  float* scale_;  // of the factor, of each head
  unsigned char* factor_;
  const int group_;  // from one lane: the compiler is to know that it is the same in all of a warp
  float sums_[kOwn][kSums];
};

}  // namespace ec::cuda
