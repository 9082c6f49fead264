// SPDX-License-Identifier: Apache-2.0
// Tokens on their way through a block on Hopper: tiles of 64 tokens in panels of 64 columns, 8 KB, which
// one thread has brought by the copy engine to a ring in shared memory, as far ahead as that is long. The
// blocks of a cluster walk the same tokens, and have panels of their own.
#pragma once

#include "attention/forward.cuh"
#include "common/hopper_heads.cuh"

namespace ec::cuda {

constexpr int kTileTokens = kPanelRows;
constexpr int kEdgeTokens = 8;  // in which a tile that is not full is copied
constexpr int kMostSlots = 26;  // of the ring
constexpr int kPanelBytes = kPanelNumbers * static_cast<int>(sizeof(BFloat));
constexpr int kPoolers = 2;     // warpgroups
constexpr int kHalfBlocks = 2;  // of a cluster, that have half of the columns each
constexpr int kPoolerWarps = kGroupThreads / kWarpSize;
constexpr int kHopperThreads = kAttentionThreads + kGroupThreads;  // a warp of the last brings
constexpr int kPoolerBarrier = 1;                                  // of all that pool
static_assert(kAttentionThreads == kPoolers * kGroupThreads, "all of a piece are those that pool");

struct HopperForward {
  // Of this block, which is alone or one of a cluster.
  template <int kBlocks>
  __device__ int own_panels() const {
    return panels[kBlocks == 1 ? 0 : blockIdx.y];
  }
  template <int kBlocks>
  __device__ int first_panel() const {
    return kBlocks == 1 || blockIdx.y == 0 ? 0 : panels[0];
  }

  ForwardCall call;
  int panels[kHalfBlocks];  // of the columns: of each block, one after the other
  int slots;
  TileMap tiles, edges;  // of the keys, kTileTokens and kEdgeTokens at a time
};

// Barriers of the ring, and of headers of tiles.
struct RingState {
  TileWalk walk;
  CopyBarrier full[kMostSlots], empty[kMostSlots];
  CopyBarrier told[TileWalk::kHeaders], heard[TileWalk::kHeaders];
};

// Of panel c of a tile: where it lies, and the parity of the phase of `full` that brings it.
struct RingSlot {
  int slot;
  unsigned parity;
};

// Where the panels of a tile begin; all of a tile fit into the ring.
struct RingPlace {
  __device__ RingSlot operator[](int c) const {
    const bool around = first + c >= slots;
    return {around ? first + c - slots : first + c, (lap + (around ? 1u : 0u)) % 2};
  }
  __device__ void advance(int panels) {
    first += panels;
    if (first < slots) return;
    first -= slots;
    ++lap;
  }

  int slots, first = 0;
  unsigned lap = 0;
};

template <int kBlocks>
class TokenRing {
 public:
  // panels: on kSwizzleBytes.
  __device__ TokenRing(const HopperForward& problem, RingState& state, unsigned char* panels)
      : problem_(problem), state_(state), panels_(panels), place_{problem.slots} {}

  // By one thread, before the block's barrier.
  __device__ void start() const {
    for (int i = 0; i < problem_.slots; ++i) {
      init_barrier(state_.full[i], 1);
      init_barrier(state_.empty[i], kPoolerWarps);
    }
    for (unsigned i = 0; i < TileWalk::kHeaders; ++i) {
      init_barrier(state_.told[i], 1);
      init_barrier(state_.heard[i], kAttentionWarps);
    }
    publish_barriers();
    prefetch_map(problem_.tiles);
    prefetch_map(problem_.edges);
  }

  // By the warp that brings, while another thread starts: what comes first.
  __device__ void look_ahead() const {
    const Sequences& sequences = problem_.call.sequences;
    const PieceWalk pieces(sequences, Share(sequences, gridDim.x), blockIdx.x);
    if (threadIdx.x % kWarpSize != 0) return;
    state_.walk.pieces = pieces;
    state_.walk.headers[TileWalk::kHeaders - 1].stops = true;
    state_.walk.step(sequences, nullptr, kTileTokens, 0);
  }
  // By that warp, to the end.
  __device__ void bring() {
    const Sequences& sequences = problem_.call.sequences;
    if (threadIdx.x % kWarpSize != 0) return;
#pragma unroll 1
    for (unsigned n = 0;; ++n) {
      const unsigned i = n % TileWalk::kHeaders;
      if (n > 0) {
        wait_for_phase(state_.heard[i], n / TileWalk::kHeaders % 2 ^ 1u);
        state_.walk.step(sequences, nullptr, kTileTokens, n);
      }
      const TileHeader& header = state_.walk.headers[i];
      arrive(state_.told[i]);
      if (!header.present()) return;
      bring(header);
    }
  }

  // Tile n.
  __device__ const TileHeader& header(unsigned n) const {
    wait_for_phase(state_.told[n % TileWalk::kHeaders], n / TileWalk::kHeaders % 2);
    return state_.walk.headers[n % TileWalk::kHeaders];
  }
  // Its header is not needed any more. By each warp that pools.
  __device__ void leave(unsigned n) const {
    __syncwarp();
    if (threadIdx.x % kWarpSize == 0) arrive(state_.heard[n % TileWalk::kHeaders]);
  }

  // Of the next tile with tokens.
  __device__ const RingPlace& place() const { return place_; }
  __device__ void advance() { place_.advance(panels()); }

  __device__ unsigned char* panel(const RingPlace& place, int c) const {
    return panels_ + place[c].slot * kPanelBytes;
  }
  // For a panel of the next tile.
  __device__ void wait(int c) const {
    const RingSlot at = place_[c];
    wait_for_phase(state_.full[at.slot], at.parity);
  }
  // By each warp of the warpgroup that has the panel.
  __device__ void give(const RingPlace& place, int c) const {
    if (threadIdx.x % kWarpSize == 0) arrive(state_.empty[place[c].slot]);
  }

 private:
  __device__ int panels() const { return problem_.template own_panels<kBlocks>(); }

  __device__ void bring(const TileHeader& header) {
    const int64_t b = header.piece.sequence, left = header.piece.last - header.first;
    if (left <= 0) return;
    const Sequences& sequences = problem_.call.sequences;
    const bool ragged = sequences.offsets != nullptr;
    const auto row = static_cast<int>(ragged ? sequences.offset(b) + header.first : header.first);
    const int array = ragged ? 0 : static_cast<int>(b);
    const int edges = static_cast<int>((min(left, int64_t{kTileTokens}) + kEdgeTokens - 1) /
                                       kEdgeTokens);  // of kEdgeTokens
    const bool full = edges == kTileTokens / kEdgeTokens;
    const int first = problem_.template first_panel<kBlocks>(), count = panels();
#pragma unroll 1
    for (int c = 0; c < count; ++c) {
      const RingSlot at = place_[c];
      CopyBarrier& there = state_.full[at.slot];
      unsigned char* to = panels_ + at.slot * kPanelBytes;
      wait_for_phase(state_.empty[at.slot], at.parity ^ 1u);  // at once where nothing was there
      if (full) {
        arrive_and_expect(there, kPanelBytes);
        copy_tile(to, problem_.tiles, (first + c) * kPanelColumns, row, array, there);
        continue;
      }
      constexpr int kEdgeBytes = kPanelBytes / kTileTokens * kEdgeTokens;
      arrive_and_expect(there, static_cast<unsigned>(edges * kEdgeBytes));
#pragma unroll 1
      for (int i = 0; i < edges; ++i)
        copy_tile(to + i * kEdgeBytes, problem_.edges, (first + c) * kPanelColumns, row + i * kEdgeTokens,
                  array, there);
    }
    advance();
  }

  const HopperForward& problem_;
  RingState& state_;
  unsigned char* panels_;
  RingPlace place_;
};

}  // namespace ec::cuda
