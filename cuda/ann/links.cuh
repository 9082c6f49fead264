// SPDX-License-Identifier: Apache-2.0
// Links of a row, a block for each: the row and its candidates are a tile, whose products with itself by
// the tensor cores give all distances between them; then a warp goes through the candidates, nearest first,
// and takes each that none taken before it drops.
//
// A candidate drops those that are no farther from it than from the row. Which it drops is a row of bits,
// so that taking one is a few operations for all that are left.
//
// Numerics: distances are |a|^2 + |b|^2 - 2 ab of codes in bf16, products in float32, all by the same
// products, so that of equal codes they are 0.
// What bounds it: of 113 rows of 768 columns, some 25 MFLOP and 174 KB, which neighbouring rows share.
#pragma once

#include "ann/keys.cuh"
#include "ann/links.h"
#include "common/product_tiles.cuh"

namespace ec::cuda::ann {

constexpr int kLinkStages = 4;
constexpr int kMaskWords = kTile / 32;
constexpr uint32_t kNoRow = 0xffffffffu;
constexpr Key kNoKey = ~Key{0};

struct LinkShared {
  BFloat stages[kLinkStages][kTile * kStep];
  Key keys[kTile];        // distance and slot of each candidate; kNoKey: there is none
  uint32_t slots[kTile];  // the row's, then those of its candidates; kNoRow: none
  float squares[kTile], products[kTile], distances[kTile];  // |c|^2; with the row; from the row
  unsigned drops[kTile][kMaskWords];                        // bit j of row i: taking i drops j
  int order[kTile];                                         // candidates, nearest first
  int end, candidates;  // of the tile, behind the last row that is there
};

class LinkChooser {
 public:
  __device__ LinkChooser(const LinkProblem& problem, LinkShared& shared)
      : problem_(problem),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        lane_(thread_ % kWarpSize),
        warp_(thread_ / kWarpSize),
        row_(blockIdx.x),
        steps_(problem.index.padded / kStep) {}

  __device__ void run() {
    gather();
    for (int step = 0; step < kLinkStages - 1; ++step) copy_stage(step);
    TileSums c = {};
    for (int step = 0; step < steps_; ++step) {
      async_wait<kLinkStages - 2>();
      __syncthreads();  // all have their copies, and all are done with the stage that is filled next
      copy_stage(step + kLinkStages - 1);
      const BFloat* stage = shared_.stages[step % kLinkStages];
      if (has_work()) multiply_stage(stage, stage, first_row_of(warp_), first_other_of(warp_), c);
    }
    async_wait<0>();  // of groups that are empty
    note_squares(c);
    __syncthreads();
    measure();
    __syncthreads();
    rank();
    note_drops(c);
    __syncthreads();
    if (warp_ == 0) take();
  }

 private:
  __device__ bool has_work() const {
    return first_row_of(warp_) < shared_.end && first_other_of(warp_) < shared_.end;
  }

  // The slots of the tile, each once.
  __device__ void gather() {
    if (thread_ == 0) shared_.end = shared_.candidates = 0;
    const uint32_t slot = thread_ < kTile ? candidate() : kNoRow;
    if (thread_ < kTile) shared_.slots[thread_] = slot;
    __syncthreads();
    bool again = false;
    for (int i = 0; i < min(thread_, kTile); ++i) again = again || shared_.slots[i] == slot;
    __syncthreads();
    if (thread_ < kTile && again) shared_.slots[thread_] = kNoRow;
    if (slot != kNoRow && !again) atomicMax(&shared_.end, thread_ + 1);
    __syncthreads();
  }

  __device__ uint32_t candidate() const {
    const auto own = static_cast<uint32_t>(problem_.first + row_);
    if (thread_ == 0) return own;
    const int near = thread_ - 1, far = near - problem_.near_each;
    if (far < 0)  // -1 becomes kNoRow
      return static_cast<uint32_t>(problem_.near[row_ * problem_.near_each + near]);
    if (far >= problem_.far_each) return kNoRow;
    const BuildCells& cells = problem_.cells;
    const int64_t cell = cells.near_cells[static_cast<int64_t>(cells.cell_of[own]) * cells.near_each + far];
    if (cell < 0) return kNoRow;
    const uint32_t start = cells.start[cell], size = cells.start[cell + 1] - start;
    if (size == 0) return kNoRow;
    const uint32_t at = start + one_of(size, problem_.seed, own, far);
    return cells.members == nullptr ? at : cells.members[at];
  }

  // Zeros where there is no row.
  __device__ void copy_stage(int step) {
    if (step < steps_) {
      BFloat* stage = shared_.stages[step % kLinkStages];
      const int piece = thread_ % kPieces;
#pragma unroll
      for (int part = 0; part < kTile * kPieces / kPairThreads; ++part) {
        const int row = thread_ / kPieces + part * (kPairThreads / kPieces);
        const uint32_t slot = shared_.slots[row];
        const bool present = slot != kNoRow;
        const int64_t at = (present ? slot : 0) * static_cast<int64_t>(problem_.index.padded);
        async_copy(stage + place_of(row, piece), problem_.index.codes + at + step * kStep + piece * 8,
                   present);
      }
    }
    async_commit();  // a group each time, so that waiting counts right
  }

  // Calls body(row, other, product) for each of the lane's sums.
  template <class Body>
  __device__ void for_sums(const TileSums& c, const Body& body) const {
#pragma unroll
    for (int i = 0; i < 2 * kRowFragments; ++i)
#pragma unroll
      for (int j = 0; j < 2 * kOtherFragments; ++j)
        body(first_row_of(warp_) + row_in_warp(i / 2, i % 2, lane_),
             first_other_of(warp_) + other_in_warp(j / 2, j % 2, lane_),
             c[i / 2][j / 2].numbers[2 * (i % 2) + j % 2]);
  }

  __device__ void note_squares(const TileSums& c) {
    for_sums(c, [&](int row, int other, float product) {
      if (row == other) shared_.squares[row] = product;
      if (row == 0) shared_.products[other] = product;
    });
  }

  __device__ float distance(float square, float other, float product) const {
    return fmaxf(0.0f, __fmaf_rn(-2.0f, product, square + other));
  }

  __device__ void measure() {
    if (thread_ >= kTile) return;
    const float from_row =
        distance(shared_.squares[0], shared_.squares[thread_], shared_.products[thread_]);
    const uint32_t slot = shared_.slots[thread_];
    const bool present = thread_ > 0 && slot != kNoRow;
    shared_.distances[thread_] = from_row;
    shared_.keys[thread_] = present ? static_cast<Key>(__float_as_uint(from_row)) << 32 | slot : kNoKey;
    shared_.order[thread_] = 0;
    if (present) atomicAdd(&shared_.candidates, 1);
  }

  __device__ void rank() {
    if (thread_ >= kTile || shared_.keys[thread_] == kNoKey) return;
    const Key own = shared_.keys[thread_];
    int before = 0;
    for (int i = 1; i < shared_.end; ++i) before += shared_.keys[i] < own ? 1 : 0;
    shared_.order[before] = thread_;
  }

  // Four lanes have 32 others of a row between them.
  __device__ void note_drops(const TileSums& c) {
#pragma unroll
    for (int i = 0; i < 2 * kRowFragments; ++i) {
      const int row = first_row_of(warp_) + row_in_warp(i / 2, i % 2, lane_);
      unsigned bits = 0;
#pragma unroll
      for (int j = 0; j < 2 * kOtherFragments; ++j) {
        const int in_warp = other_in_warp(j / 2, j % 2, lane_), other = first_other_of(warp_) + in_warp;
        const float between = distance(shared_.squares[row], shared_.squares[other],
                                       c[i / 2][j / 2].numbers[2 * (i % 2) + j % 2]);
        bits |= (between <= shared_.distances[other] ? 1u : 0u) << in_warp;
      }
      bits |= __shfl_xor_sync(kAllLanes, bits, 1);
      bits |= __shfl_xor_sync(kAllLanes, bits, 2);
      if (lane_ % 4 == 0) shared_.drops[row][first_other_of(warp_) / 32] = bits;
    }
  }

  // A warp. Words of bits are of the candidates in their order, a lane having one of each word.
  __device__ void take() {
    int own[kMaskWords];
    unsigned alive[kMaskWords], taken[kMaskWords];
#pragma unroll
    for (int w = 0; w < kMaskWords; ++w) {
      own[w] = shared_.order[32 * w + lane_];
      alive[w] = __ballot_sync(kAllLanes, 32 * w + lane_ < shared_.candidates ? 1 : 0);
      taken[w] = 0;
    }
    int linked = 0;
    for (; linked < problem_.degree; ++linked) {
      const int at = first_of(alive);
      if (at < 0) break;
      const unsigned* drops = shared_.drops[shared_.order[at]];
#pragma unroll
      for (int w = 0; w < kMaskWords; ++w) {
        const unsigned bit = at / 32 == w ? 1u << at % 32 : 0u;
        taken[w] |= bit;
        alive[w] &=
            ~(bit | __ballot_sync(kAllLanes, static_cast<int>(drops[own[w] / 32] >> own[w] % 32 & 1u)));
      }
    }
    fill_up(linked, taken);
    store(own, taken);
  }

  __device__ static int first_of(const unsigned (&words)[kMaskWords]) {
    int first = -1;
#pragma unroll
    for (int w = kMaskWords - 1; w >= 0; --w)
      if (words[w] != 0) first = 32 * w + __ffs(static_cast<int>(words[w])) - 1;
    return first;
  }

  // With the nearest of those dropped, which are all that were not taken if there is room.
  __device__ void fill_up(int linked, unsigned (&taken)[kMaskWords]) const {
    unsigned dropped[kMaskWords];
#pragma unroll
    for (int w = 0; w < kMaskWords; ++w)
      dropped[w] = __ballot_sync(kAllLanes, 32 * w + lane_ < shared_.candidates ? 1 : 0) & ~taken[w];
    for (; linked < problem_.least; ++linked) {
      const int at = first_of(dropped);
      if (at < 0) return;
#pragma unroll
      for (int w = 0; w < kMaskWords; ++w) {
        const unsigned bit = at / 32 == w ? 1u << at % 32 : 0u;
        taken[w] |= bit;
        dropped[w] &= ~bit;
      }
    }
  }

  __device__ void store(const int (&own)[kMaskWords], const unsigned (&taken)[kMaskWords]) const {
    uint32_t* links = problem_.links + row_ * problem_.degree;
    int before = 0;
#pragma unroll
    for (int w = 0; w < kMaskWords; ++w) {
      if ((taken[w] >> lane_ & 1u) != 0)
        links[before + __popc(taken[w] & ((1u << lane_) - 1))] = shared_.slots[own[w]];
      before += __popc(taken[w]);
    }
    for (int i = before + lane_; i < problem_.degree; i += kWarpSize) links[i] = kNoRow;
  }

  const LinkProblem& problem_;
  LinkShared& shared_;
  const int thread_, lane_, warp_;
  const int64_t row_;
  const int steps_;
};

__global__ void __launch_bounds__(kPairThreads, 2)
    choose_links(const __grid_constant__ LinkProblem problem) {
  LinkChooser(problem, shared_memory<LinkShared>()).run();
}

}  // namespace ec::cuda::ann
