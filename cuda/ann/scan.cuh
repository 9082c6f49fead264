// SPDX-License-Identifier: Apache-2.0
// The rows that pass, compared by codes with all queries of a tile at once: products by the tensor cores,
// the best kept as they come, so that no matrix of scores is made.
//
// A block goes through every gridDim-th tile of rows for one tile of queries. What promises to be among the
// best of a query is put aside, and sorted into its list when there are kBuffered of them. Which candidates
// are looked at depends on when lists were sorted; which end up in the lists does not.
#pragma once

#include "ann/scan_problem.cuh"

namespace ec::cuda::ann {

constexpr int kScanStages = 3;
constexpr int kBuffered = kWarpSize;

struct ScanShared {
  Stage stages[kScanStages];
  Key buffers[kTile][kBuffered];
  // Of the rows of the tiles that stages are of.
  float offsets[kScanStages][kTile], norms[kScanStages][kTile];
  uint32_t slots[kScanStages][kTile];
  Key lasts[kTile];                   // of each query: what a key must be above
  float bars[kTile], reaches[kTile];  // of each query: what a bound must not be below for that
  int buffered[kTile];                // candidates, of which no more than kBuffered were put aside
  int full_round;                     // the last round in which there was no room
  int wanted;                         // whether a query of the tile needs the scan
};

// One block's way through its tiles.
template <bool kByBits>
class Scan {
 public:
  __device__ Scan(const ScanProblem& problem, ScanShared& shared)
      : problem_(problem),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        lane_(thread_ % kWarpSize),
        warp_(thread_ / kWarpSize),
        share_(problem, kTile, 0),
        steps_(problem.index.padded / kStep) {}

  __device__ void run() {
    if (!share_.is_wanted(problem_, shared_.wanted)) return;
    start();
    for (int i = 0; i < kScanStages - 1; ++i) copy_stage(i);
    int64_t number = 0;
    for (int64_t turn = 0; turn < share_.turns; ++turn) {
      TileSums c = {};
      for (int step = 0; step < steps_; ++step, ++number) {
        async_wait<kScanStages - 2>();
        __syncthreads();  // all have their copies, and all are done with the stage that is filled next
        copy_stage(number + kScanStages - 1);
        multiply_stage(shared_.stages[number % kScanStages], first_row_of(warp_), first_other_of(warp_), c);
      }
      offer(c, turn);
    }
    async_wait<0>();
    __syncthreads();
    for (int query = warp_; query < kTile; query += kPairWarps)
      if (shared_.buffered[query] > 0) sort_in(query);
  }

 private:
  // A warp has the lists of its queries throughout.
  __device__ void start() {
    if (thread_ == 0) shared_.full_round = 0;
    for (int query = warp_; query < share_.queries; query += kPairWarps)
      share_.clear_lists(problem_, query, lane_);
    for (int query = thread_; query < kTile; query += kPairThreads) {
      const bool there = query < share_.queries;
      shared_.buffered[query] = 0;
      shared_.lasts[query] = 0;
      shared_.bars[query] = __uint_as_float(there ? 0xff800000u : 0x7fc00000u);  // NaN: nothing gets in
      shared_.reaches[query] = there ? problem_.queries.facts[share_.first_query + query].reach : 0.0f;
    }
    __syncthreads();
  }

  __device__ int64_t first_row(int64_t turn) const { return share_.first_row(problem_, turn); }

  // Starts the copies of a stage; with the first of a tile, of what bounds need of its rows.
  __device__ void copy_stage(int64_t number) {
    const int64_t turn = number / steps_;
    if (turn < share_.turns) {
      const int step = static_cast<int>(number - turn * steps_);
      Stage& stage = shared_.stages[number % kScanStages];
      const int piece = thread_ % kPieces;
#pragma unroll
      for (int part = 0; part < kCopies; ++part) {
        const int row = thread_ / kPieces + part * (kPairThreads / kPieces);
        const bool present = first_row(turn) + row < share_.rows;
        if (step == 0) begin_row(turn, part, row, present, piece == 0);
        const int64_t at = step * kStep + piece * 8, padded = problem_.index.padded;
        async_copy(stage.others + place_of(row, piece), problem_.index.codes + slots_[part] * padded + at,
                   present);
        const int64_t query = share_.first_query + min(row, share_.queries - 1);
        async_copy(stage.rows + place_of(row, piece), problem_.queries.codes + query * padded + at,
                   row < share_.queries);
      }
    }
    async_commit();  // a group each time, so that waiting counts right
  }

  __device__ void begin_row(int64_t turn, int part, int row, bool present, bool first) {
    const int ring = static_cast<int>(turn % kScanStages);
    slots_[part] = share_.slot(problem_, first_row(turn) + (present ? row : 0));
    if (!first) return;
    shared_.slots[ring][row] = slots_[part];
    async_copy<4>(&shared_.offsets[ring][row], problem_.index.offsets + slots_[part], present);
    async_copy<4>(&shared_.norms[ring][row], problem_.index.norms + slots_[part], present);
  }

  // Query and row of number (i, j) of a lane's sums, in the tile.
  __device__ int query_of(int i) const { return first_row_of(warp_) + row_in_warp(i / 2, i % 2, lane_); }
  __device__ int row_of(int j) const { return first_other_of(warp_) + other_in_warp(j / 2, j % 2, lane_); }

  // Puts aside what is not below the bars.
  __device__ void offer(const TileSums& c, int64_t turn) {
    const int ring = static_cast<int>(turn % kScanStages);
    const auto rows = static_cast<int>(min(static_cast<int64_t>(kTile), share_.rows - first_row(turn)));
    const float* offsets = shared_.offsets[ring];
    const float* norms = shared_.norms[ring];
    const auto bound = [&](int i, int j) {
      return bound_of(c[i / 2][j / 2].numbers[2 * (i % 2) + j % 2], offsets[row_of(j)], norms[row_of(j)],
                      shared_.reaches[query_of(i)]);
    };
    Key waiting = 0;  // a bit for each of the lane's sums
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const float bar = shared_.bars[query_of(i)];
#pragma unroll
      for (int j = 0; j < kLaneOthers; ++j)
        if (row_of(j) < rows && bound(i, j) >= bar &&
            share_.passes(problem_, query_of(i), shared_.slots[ring][row_of(j)]))
          waiting |= Key{1} << (i * kLaneOthers + j);
    }
    for (;;) {
      ++round_;
      if (waiting != 0) {
#pragma unroll
        for (int i = 0; i < kLaneRows; ++i) {
#pragma unroll
          for (int j = 0; j < kLaneOthers; ++j) {
            const Key bit = Key{1} << (i * kLaneOthers + j);
            if ((waiting & bit) != 0 &&
                put_aside(query_of(i), key_of(bound(i, j), shared_.slots[ring][row_of(j)])))
              waiting &= ~bit;
          }
        }
      }
      __syncthreads();
      if (shared_.full_round != round_) return;
      for (int query = warp_; query < kTile; query += kPairWarps)
        if (shared_.buffered[query] >= kBuffered) sort_in(query);
      __syncthreads();
    }
  }

  // False where there is no room. Keys are compared and not bounds, of which many may be the same: what
  // ends up in the lists must not depend on who comes first.
  __device__ bool put_aside(int query, Key key) {
    if (key <= shared_.lasts[query]) return true;
    const int at = atomicAdd(&shared_.buffered[query], 1);
    if (at >= kBuffered) {
      shared_.full_round = round_;
      return false;
    }
    shared_.buffers[query][at] = key;
    return true;
  }

  // A warp.
  __device__ void sort_in(int query) {
    const KeyList list = problem_.list(share_.first_query + query, share_.segment);
    const Key key = lane_ < shared_.buffered[query] ? shared_.buffers[query][lane_] : 0;
    list.insert(sort_warp(key, lane_), 0, lane_);
    __syncwarp();  // all have read how many there were
    if (lane_ != kWarpSize - 1) return;
    shared_.buffered[query] = 0;
    const Key last = list.last();
    shared_.lasts[query] = last;
    if (last != 0) shared_.bars[query] = bound_of(last);
  }

  static constexpr int kCopies = kTile * kPieces / kPairThreads;
  static constexpr int kLaneRows = 2 * kRowFragments, kLaneOthers = 2 * kOtherFragments;
  static_assert(kLaneRows * kLaneOthers <= 64, "each of a lane's sums has a bit");

  const ScanProblem& problem_;
  ScanShared& shared_;
  const int thread_, lane_, warp_;
  const ScanShare<kByBits> share_;
  const int steps_;
  int round_ = 0;
  int64_t slots_[kCopies];  // of the rows that this thread copies
};

// x: segments, fastest, times tiles of queries.
template <bool kByBits>
__global__ void __launch_bounds__(kPairThreads, 1) scan_codes(const __grid_constant__ ScanProblem problem) {
  begin_behind();
  Scan<kByBits>(problem, shared_memory<ScanShared>()).run();
}

// What a scan takes, in tiles of rows for a tile of queries.
struct ScanWork {
  Key all;
  Key blocks;        // that have any of it
  unsigned longest;  // of a block

  // Adds what a tile of queries is compared with.
  __device__ void add(int64_t rows, int64_t segments) {
    const int64_t tiles = (rows + kTile - 1) / kTile;
    atomicAdd(&all, static_cast<Key>(tiles));
    atomicAdd(&blocks, static_cast<Key>(min(tiles, segments)));
    atomicMax(&longest, static_cast<unsigned>((tiles + segments - 1) / segments));
  }
  // How long it takes, in steps of one multiprocessor, each of which has a block at a time.
  __device__ double steps(int multiprocessors) const {
    const Key at_work = max(Key{1}, min(blocks, static_cast<Key>(multiprocessors)));
    return max(static_cast<double>(all) / static_cast<double>(at_work), static_cast<double>(longest));
  }
};

// Whether to scan by bits: whether all rows, for as few tiles of queries as there can be, take less
// than the rows of lists, for all tiles. One block.
__global__ void __launch_bounds__(kPairThreads, 1)
    choose_scan(const __grid_constant__ ScanProblem problem, const __grid_constant__ ScanProblem by_bits,
                int multiprocessors, int* chosen) {
  begin_behind();
  ScanWork& lists = shared_memory<ScanWork>();
  const Queries& queries = problem.queries;
  if (threadIdx.x == 0) lists = {};
  __syncthreads();
  for (int64_t tile = threadIdx.x; tile < queries.tiles; tile += kPairThreads)
    lists.add(problem.passing.count(queries.filter_of(queries.firsts[tile])), problem.segments);
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int64_t fewest = (queries.count + kTile - 1) / kTile;
  const int64_t tiles = (problem.index.rows + kTile - 1) / kTile;
  const int64_t segments = by_bits.segments;
  const ScanWork all = {static_cast<Key>(fewest * tiles), static_cast<Key>(fewest * min(tiles, segments)),
                        static_cast<unsigned>((tiles + segments - 1) / segments)};
  *chosen = all.steps(multiprocessors) < lists.steps(multiprocessors) ? 1 : 0;
}

}  // namespace ec::cuda::ann
