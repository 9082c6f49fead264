// SPDX-License-Identifier: Apache-2.0
// The scan of scan.cuh on Hopper: another way to the same lists.
//
// A block has a tile of 128 queries and goes through tiles of 256 rows. A ring of stages (64 columns of
// both) is filled by one warpgroup; two others have 64 queries each, multiply from the same stages, and
// look at what they get in their registers (best_rows.cuh). They are not kept in step: while one looks the
// other multiplies, as far ahead of it as the ring is long; a pause at the start sets them apart.
//
// Where all rows are compared they are one after another, and one thread has them brought by the copy
// engine, as the queries are always. Rows of a list are gathered by all threads of the warpgroup, 16 bytes
// at a time, to where the engine would put them. Where these are so few that most blocks would have none,
// tiles have 64 of them. By bits all rows come one after another, too: a lane reads 16 bytes of a query's
// bits for each tile, and what does not pass is left out before it is looked at.
//
// What bounds it, per multiprocessor and cycle: the tensor cores take 128 x 256 x 64 products in 1024
// cycles; in that time 48 KB come in, and products read 80 bytes a cycle of shared memory of the 128 that
// it gives. To look at the products of 768 columns takes some 500 of a warpgroup's 6144 cycles of the
// tensor cores, behind those of the other. Of few queries a second warpgroup would have none, and leaves;
// then what counts is that two stages are under way at least, 64 KB of rows.
//
// Memory: dynamic shared, kScanSharedBytes.
#pragma once

#include "ann/hopper/best_rows.cuh"

namespace ec::cuda::ann {

constexpr int kRingStages = 4;
constexpr int kFewRows = kNarrowColumns;  // of a tile, where few rows pass
// Stages of gathered rows that a thread has not waited for when it begins another. With more of them the
// one of two warpgroups that is ahead would wait for copies that are there; small ones are waited for one
// by one all the same.
constexpr int kUnderWay = 1, kFewUnderWay = 2;
constexpr int kLookers = 2;  // warpgroups that multiply, and look
constexpr int kScanThreads = (kLookers + 1) * kGroupThreads;
constexpr int kGroupWarps = kGroupThreads / kWarpSize;
constexpr int kLookerRegisters = 224, kBringerRegisters = 56;
constexpr unsigned kPauseNanoseconds = 1000;  // about what two stages take
static_assert(kLookers * kPanelRows == kTile && kLookers * kGroupWarps * kWarpQueries == kTile,
              "each query of a tile has a warp");
constexpr int kGivenRegisters = 65536 / kScanThreads / 8 * 8;  // of a thread when it starts
static_assert(kLookers * kLookerRegisters + kBringerRegisters <= (kLookers + 1) * kGivenRegisters,
              "whoever takes more would wait for ever");

struct HopperScan {
  ScanProblem scan;
  TileMap rows, queries;  // of codes, with tiles of kScanRows and kTile
};

struct RingStage {
  BFloat rows[kScanRows * kPanelColumns], queries[kTile * kPanelColumns];
};
struct HopperScanShared {
  RingStage stages[kRingStages];
  TileFacts facts[kLookers];
  WarpKeys aside[kLookers * kGroupWarps];
  CopyBarrier full[kRingStages], empty[kRingStages];
  int wanted;
};
// The stages begin on kSwizzleBytes, where shared memory may not.
constexpr size_t kScanSharedBytes = sizeof(HopperScanShared) + kSwizzleBytes;
static_assert(kScanSharedBytes <= size_t{227} << 10, "a block has no more");

// Of the stages that a block goes through, number n is in this slot of the ring, is there when the phase of
// this parity of `full` is over, and free for stage n + kRingStages when that of `empty` is.
__device__ __forceinline__ int place_in_ring(unsigned n) { return static_cast<int>(n % kRingStages); }
__device__ __forceinline__ unsigned parity_of(unsigned n) { return n / kRingStages % 2; }

template <bool kByBits>
class HopperBlock {
 public:
  __device__ HopperBlock(const HopperScan& problem, HopperScanShared& shared,
                         const ScanShare<kByBits>& share)
      : problem_(problem),
        shared_(shared),
        share_(share),
        in_group_(static_cast<int>(threadIdx.x) % kGroupThreads),
        steps_((problem.scan.index.padded + kPanelColumns - 1) / kPanelColumns) {}

  __device__ __forceinline__ int lookers() const { return share_.queries > kPanelRows ? 2 : 1; }
  __device__ __forceinline__ bool is_gathered() const { return share_.is_listed; }
  __device__ __forceinline__ bool has_few_rows() const { return share_.tile_rows == kFewRows; }

  // By one thread.
  __device__ __forceinline__ void start() {
    for (int i = 0; i < kRingStages; ++i) {
      // Beside all threads that gather, the one that has queries brought.
      init_barrier(shared_.full[i], is_gathered() ? kGroupThreads + 1 : 1);
      init_barrier(shared_.empty[i], static_cast<unsigned>(lookers() * kGroupWarps));
    }
    publish_barriers();
    prefetch_map(problem_.queries);
    prefetch_map(problem_.rows);
  }

  // By the warpgroup that fills the ring.
  __device__ __forceinline__ void bring() {
    if (!kByBits && has_few_rows()) return gather<kFewRows, kFewUnderWay>();
    if (is_gathered()) return gather<kScanRows, kUnderWay>();
    if (in_group_ != 0) return;
    unsigned n = 0;
#pragma unroll 1
    for (int64_t turn = 0; turn < share_.turns; ++turn) {
      const auto row = static_cast<int>(share_.first_row(problem_.scan, turn));
#pragma unroll 1
      for (int step = 0; step < steps_; ++step, ++n) {
        wait_until_empty(n);
        RingStage& stage = shared_.stages[place_in_ring(n)];
        CopyBarrier& full = shared_.full[place_in_ring(n)];
        arrive_and_expect(full, sizeof(RingStage));
        copy_tile(stage.rows, problem_.rows, step * kPanelColumns, row, full);
        bring_queries(n, step);
      }
    }
  }

  // By a warpgroup that multiplies and looks, number `group`.
  __device__ __forceinline__ void look(int group) {
    if (!kByBits && has_few_rows()) return look_at<kNarrowNumbers>(group);
    // The two are apart from the start where they go on for long.
    if (group > 0) __nanosleep(kPauseNanoseconds);
    look_at<kWideNumbers>(group);
  }

 private:
  template <int kNumbers>
  __device__ __forceinline__ void look_at(int group) {
    const int warp = in_group_ / kWarpSize;
    TileFacts& facts = shared_.facts[group];
    BestRows<kByBits> best(problem_.scan, share_, group * kPanelRows + warp * kWarpQueries, facts,
                           shared_.aside[group * kGroupWarps + warp]);
    unsigned n = 0;
    uint2 next = own_slots(0);
#pragma unroll 1
    for (int64_t turn = 0; turn < share_.turns; ++turn) {
      // Under way while products are made.
      const uint2 slots = next;
      const float4 pair = facts_of(turn, slots);
      next = own_slots(turn + 1);
      const uint4 bits = kByBits ? own_bits(group, turn) : uint4{};
      float c[kNumbers];
      multiply_tile(group, n, c);
      if (kByBits) best.leave_out(c, bits);
      sync_group(group + 1);  // all have looked at the tile before
      facts.pairs[in_group_] = pair;
      facts.slots[in_group_] = slots;
      sync_group(group + 1);
      best.offer(c, turn == 0);
    }
    best.finish();
  }

  __device__ __forceinline__ void wait_until_empty(unsigned n) {
    wait_for_phase(shared_.empty[place_in_ring(n)], parity_of(n) ^ 1u);  // at once where nothing was there
  }

  __device__ __forceinline__ void bring_queries(unsigned n, int step) {
    copy_tile(shared_.stages[place_in_ring(n)].queries, problem_.queries, step * kPanelColumns,
              static_cast<int>(share_.first_query), shared_.full[place_in_ring(n)]);
  }

  // Rows of a list. A thread has one piece of every 16th row.
  template <int kTileRows, int kLeft>
  __device__ __forceinline__ void gather() {
    constexpr int kRowPieces = kPanelColumns / 8, kApart = kGroupThreads / kRowPieces,
                  kRows = kTileRows / kApart;
    static_assert(kLeft < kRingStages, "whoever fills the ring would wait for what nobody can have");
    const IndexRows& index = problem_.scan.index;
    const int piece = in_group_ % kRowPieces, first = in_group_ / kRowPieces;
    unsigned n = 0;
#pragma unroll 1
    for (int64_t turn = 0; turn < share_.turns; ++turn) {
      const int64_t first_row = share_.first_row(problem_.scan, turn) + first;
      const auto left = static_cast<int>(min(int64_t{kTileRows}, share_.rows - first_row));
      uint32_t slots[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        slots[i] = i * kApart < left ? share_.slot(problem_.scan, first_row + i * kApart) : 0;
#pragma unroll 1
      for (int step = 0; step < steps_; ++step, ++n) {
        wait_until_empty(n);
        RingStage& stage = shared_.stages[place_in_ring(n)];
        if (in_group_ == 0) {
          arrive_and_expect(shared_.full[place_in_ring(n)], sizeof stage.queries);
          bring_queries(n, step);
        }
        const int column = step * kPanelColumns + piece * 8;
        const BFloat* from = index.codes + (column < index.padded ? column : 0);
#pragma unroll
        for (int i = 0; i < kRows; ++i)
          gather_copy(stage.rows + place_in_panel(first, piece) + i * kApart * kPanelColumns,
                      from + static_cast<int64_t>(slots[i]) * index.padded,
                      i * kApart < left && column < index.padded);
        async_commit();
        async_wait<kLeft>();
        if (n >= kLeft) give(n - kLeft);
      }
    }
    async_wait<0>();
    for (unsigned i = n > kLeft ? n - kLeft : 0; i < n; ++i) give(i);
  }
  __device__ __forceinline__ void give(unsigned n) {
    publish_writes();
    arrive(shared_.full[place_in_ring(n)]);
  }

  // A thread finds the facts of two rows of each tile, or none where tiles have few.
  __device__ __forceinline__ int64_t own_row(int64_t turn) const {
    return share_.first_row(problem_.scan, turn) + 2 * in_group_;
  }
  __device__ __forceinline__ bool is_own(int64_t row) const {
    return 2 * in_group_ < share_.tile_rows && row < share_.rows;
  }
  __device__ __forceinline__ uint2 own_slots(int64_t turn) const {
    const int64_t row = own_row(turn);
    return {is_own(row) ? share_.slot(problem_.scan, row) : 0,
            is_own(row + 1) ? share_.slot(problem_.scan, row + 1) : 0};
  }
  __device__ __forceinline__ float4 facts_of(int64_t turn, uint2 slots) const {
    const int64_t row = own_row(turn);
    const IndexRows& index = problem_.scan.index;
    const float beyond = __uint_as_float(0x7fc00000u);
    const bool first = is_own(row), second = is_own(row + 1);
    return {first ? index.offsets[slots.x] : beyond, second ? index.offsets[slots.y] : beyond,
            first ? index.norms[slots.x] : 0.0f, second ? index.norms[slots.y] : 0.0f};
  }

  // As BestRows::leave_out has them. Tiles begin on a multiple of the rows of 16 bytes.
  __device__ __forceinline__ uint4 own_bits(int group, int64_t turn) const {
    const int query = group * kPanelRows + in_group_ / 2;
    if (query >= share_.queries) return {};
    const unsigned* bits = share_.bits_of(problem_.scan, query);
    if (bits == nullptr) return {~0u, ~0u, ~0u, ~0u};
    const int64_t row = share_.first_row(problem_.scan, turn) + in_group_ % 2 * (kScanRows / 2);
    return *reinterpret_cast<const uint4*>(bits + row / kWordBits);
  }

  // The products of stage n, the first of a tile, or others added to those.
  template <bool kFirst, int kNumbers>
  __device__ __forceinline__ void multiply_stage(int group, unsigned n, float (&c)[kNumbers]) {
    const RingStage& stage = shared_.stages[place_in_ring(n)];
    wait_for_phase(shared_.full[place_in_ring(n)], parity_of(n));
    const uint64_t queries = tile_descriptor(shared_address(stage.queries + group * kPanelNumbers)),
                   rows = tile_descriptor(shared_address(stage.rows));
    products_fence();
    if (kFirst)
      multiply_tiles(c, queries, rows);
    else
      multiply_add_tiles(c, queries, rows);
#pragma unroll
    for (int k = 1; k < kPanelColumns / kProductSteps; ++k)
      multiply_add_tiles(c, queries + k * kNextStep, rows + k * kNextStep);
    products_commit();
  }

  // The products of one tile, from stage n on, and the stages given back.
  template <int kNumbers>
  __device__ __forceinline__ void multiply_tile(int group, unsigned& n, float (&c)[kNumbers]) {
    const bool first_lane = in_group_ % kWarpSize == 0;
    multiply_stage<true>(group, n, c);
#pragma unroll 1
    for (int step = 1; step < steps_; ++step) {
      multiply_stage<false>(group, ++n, c);
      products_wait<1>();  // those of the stage before are made, and it is free
      if (first_lane) arrive(shared_.empty[place_in_ring(n - 1)]);
    }
    products_end(c);
    if (first_lane) arrive(shared_.empty[place_in_ring(n)]);
    ++n;
  }

  const HopperScan& problem_;
  HopperScanShared& shared_;
  const ScanShare<kByBits>& share_;
  const int in_group_, steps_;
};

// x: segments, fastest, times tiles of queries.
template <bool kByBits>
__global__ void __launch_bounds__(kScanThreads, 1) scan_tiles(const __grid_constant__ HopperScan problem) {
#if EC_HOPPER_CODE
  begin_behind();
  unsigned char* memory = shared_array<unsigned char>(kScanSharedBytes);
  HopperScanShared& shared = *reinterpret_cast<HopperScanShared*>(
      memory + (kSwizzleBytes - shared_address(memory) % kSwizzleBytes) % kSwizzleBytes);
  const ScanShare<kByBits> share(problem.scan, kScanRows, kByBits ? 0 : kFewRows);
  if (!share.is_wanted(problem.scan, shared.wanted)) return;
  HopperBlock<kByBits> block(problem, shared, share);
  if (threadIdx.x == 0) block.start();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  if (group == kLookers) {
    give_up_registers<kBringerRegisters>();
    block.bring();
  } else {
    take_registers<kLookerRegisters>();
    if (group >= block.lookers()) return;
    block.look(group);
  }
#endif
}

}  // namespace ec::cuda::ann
