// SPDX-License-Identifier: Apache-2.0
// Rows to the nearest of some centroids by the tensor cores' products of bytes, and centroids to the means
// of their rows.
//
// Numerics: products of bytes are exact, all else goes through the operations of the CPU
// (csrc/ann/graph.isa.cpp, build/k_means.cpp) in their order, rows by their number. So cells are the CPU's
// of the same codes, where it has fused multiply-adds.
#pragma once

#include "ann/cells.h"
#include "common/product_tiles.cuh"

namespace ec::cuda::ann {

// Means as bytes. A row's bytes have 128 for zero, and its factors behind them, which a centroid meets with
// zeros.
struct Centroids {
  int64_t count;
  int8_t* bytes;  // [count][head_bytes]
  float* scales;  // what a step of the bytes is
  float* norms;   // squares of their lengths
  int* biases;    // 128 times the sum of the bytes
};

// ---- means ------------------------------------------------------------------------------------------

constexpr int kMeanThreads = kMostHeadBytes / 2;  // two numbers each
constexpr int kMeanWarps = kMeanThreads / kWarpSize;
constexpr int kLooked = 4 * kMeanThreads;  // rows that are looked through at a time
constexpr int kAdded = 8;                  // rows whose bytes are on their way at once

struct MeanShared {
  uint32_t members[2 * kLooked];  // rows of the cell that are still to be added
  int counts[kMeanWarps];         // of the members that each warp has found
  float most[kMeanWarps];
  int squares[kMeanWarps], sums[kMeanWarps];
};

// The mean of a cell's rows: a block.
class CellMean {
 public:
  __device__ CellMean(const HeadRows& rows, MeanShared& shared)
      : rows_(rows),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        lane_(thread_ % kWarpSize),
        warp_(thread_ / kWarpSize),
        cell_(blockIdx.x),
        numbers_(rows.head_bytes - 16) {}

  // Rows slots[i], i itself where slots is null, with cell_of[i] the block's number; cell_of null: row
  // slots[number] alone.
  __device__ void add_rows(const uint32_t* slots, const uint32_t* cell_of, int64_t count) {
    for (int64_t first = 0; first < count; first += kLooked) {
      if (cell_of != nullptr) {
        find(slots, cell_of, first, count);
      } else if (first == 0) {
        if (thread_ == 0) shared_.members[0] = slots[cell_];
        waiting_ = 1;
        __syncthreads();
      }
      if (waiting_ >= kLooked || first + kLooked >= count) add_waiting();
    }
  }
  __device__ int64_t added() const { return added_; }

  // Writes the mean: its bytes to both places, either of which may be null.
  __device__ void write(const Centroids& centroids, uint8_t* heads) {
    const bool mine = 2 * thread_ < numbers_;
    float most = mine ? fmaxf(fabsf(sums_[0]), fabsf(sums_[1])) : 0.0f;
    most = warp_max(most);
    if (lane_ == 0) shared_.most[warp_] = most;
    __syncthreads();
    for (const float other : shared_.most) most = fmaxf(most, other);
    const float step = most / 127.0f, inverse = step > 0.0f ? 1.0f / step : 0.0f;
    int bytes[2] = {0, 0};
    for (int i = 0; mine && i < 2; ++i) bytes[i] = static_cast<int>(rintf(sums_[i] * inverse));
    int square = warp_sum(bytes[0] * bytes[0] + bytes[1] * bytes[1]), sum = warp_sum(bytes[0] + bytes[1]);
    if (lane_ == 0) shared_.squares[warp_] = square, shared_.sums[warp_] = sum;
    __syncthreads();
    square = sum = 0;
    for (int w = 0; w < kMeanWarps; ++w) square += shared_.squares[w], sum += shared_.sums[w];
    const float scale = step / static_cast<float>(added_);
    const float norm = scale * scale * static_cast<float>(square);
    const bool there = 2 * thread_ < rows_.head_bytes;
    if (centroids.bytes != nullptr && there) {
      int8_t* to = centroids.bytes + cell_ * rows_.head_bytes + 2 * thread_;
      to[0] = static_cast<int8_t>(bytes[0]), to[1] = static_cast<int8_t>(bytes[1]);
      if (thread_ == 0) {
        centroids.scales[cell_] = scale;
        centroids.norms[cell_] = norm;
        centroids.biases[cell_] = 128 * sum;
      }
    }
    if (heads == nullptr) return;
    uint8_t* head = heads + cell_ * rows_.head_bytes;
    if (mine)
      head[2 * thread_] = static_cast<uint8_t>(bytes[0] + 128),
               head[2 * thread_ + 1] = static_cast<uint8_t>(bytes[1] + 128);
    if (thread_ == 0) *reinterpret_cast<float4*>(head + numbers_) = float4{scale, -0.5f * norm, 0.0f, 0.0f};
  }

 private:
  // Members among rows [first, first + kLooked), behind those that wait. All threads.
  __device__ void find(const uint32_t* slots, const uint32_t* cell_of, int64_t first, int64_t count) {
    const int64_t own = first + 4 * thread_;
    unsigned found[4];
    int before = 0, all = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool is_member = own + i < count && cell_of[own + i] == static_cast<uint32_t>(cell_);
      found[i] = __ballot_sync(kAllLanes, is_member ? 1 : 0);
      before += __popc(found[i] & ((1u << lane_) - 1));
      all += __popc(found[i]);
    }
    if (lane_ == 0) shared_.counts[warp_] = all;
    __syncthreads();
    int at = waiting_ + before, total = 0;
    for (int w = 0; w < kMeanWarps; ++w) {
      if (w < warp_) at += shared_.counts[w];
      total += shared_.counts[w];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if ((found[i] >> lane_ & 1u) != 0)
        shared_.members[at++] = slots == nullptr ? static_cast<uint32_t>(own + i) : slots[own + i];
    waiting_ += total;
    __syncthreads();
  }

  // One after another, so that sums are the same each time. All threads.
  __device__ void add_waiting() {
    for (int m = 0; m < waiting_; m += kAdded) {
      unsigned pairs[kAdded];
      float scales[kAdded];
#pragma unroll
      for (int i = 0; i < kAdded; ++i) {
        const int64_t slot = shared_.members[min(m + i, waiting_ - 1)];
        const uint8_t* head = rows_.heads + slot * rows_.head_bytes;
        scales[i] = *reinterpret_cast<const float*>(head + numbers_);
        pairs[i] =
            2 * thread_ < numbers_ ? *reinterpret_cast<const uint16_t*>(head + 2 * thread_) : 0x8080u;
      }
#pragma unroll
      for (int i = 0; i < kAdded; ++i) {
        if (m + i >= waiting_) break;
        sums_[0] += scales[i] * static_cast<float>(static_cast<int>(pairs[i] & 0xffu) - 128);
        sums_[1] += scales[i] * static_cast<float>(static_cast<int>(pairs[i] >> 8) - 128);
      }
    }
    added_ += waiting_;
    waiting_ = 0;  // members are written again behind a barrier of find
  }

  const HeadRows& rows_;
  MeanShared& shared_;
  const int thread_, lane_, warp_;
  const int64_t cell_;
  const int numbers_;
  float sums_[2] = {};
  int waiting_ = 0;
  int64_t added_ = 0;
};

// A block for each cell; those without rows stay as they are. cell_of null: each has one row.
__global__ void __launch_bounds__(kMeanThreads, 1)
    move_centroids(const __grid_constant__ HeadRows rows, const uint32_t* slots, const uint32_t* cell_of,
                   int64_t count, const __grid_constant__ Centroids centroids, uint8_t* heads) {
  CellMean mean(rows, shared_memory<MeanShared>());
  mean.add_rows(slots, cell_of, count);
  if (mean.added() > 0) mean.write(centroids, heads);
}

// ---- the nearest ------------------------------------------------------------------------------------

constexpr int kNearestStages = 3;
constexpr int kHeadStep = 2 * kStep;  // bytes of heads that a stage holds
constexpr int kColumnWarps = kTile / kWarpOthers;

struct NearestShared {
  Stage stages[kNearestStages];  // of bytes
  float row_scales[kTile], row_norms[kTile];
  // Of the centroids of the tiles that stages are of.
  float scales[kNearestStages][kTile], norms[kNearestStages][kTile];
  int biases[kNearestStages][kTile];
  unsigned long long nearest[kColumnWarps][kTile];
};

using ByteSums = FragmentI[kRowFragments][kOtherFragments];

// One tile of rows, compared with all centroids.
class Nearest {
 public:
  __device__ Nearest(const HeadRows& rows, const Centroids& centroids, const uint32_t* slots, int64_t count,
                     NearestShared& shared)
      : rows_(rows),
        centroids_(centroids),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        lane_(thread_ % kWarpSize),
        warp_(thread_ / kWarpSize),
        steps_(rows.head_bytes / kHeadStep),
        first_(static_cast<int64_t>(blockIdx.x) * kTile),
        there_(static_cast<int>(min(static_cast<int64_t>(kTile), count - first_))),
        tiles_(static_cast<int>((centroids.count + kTile - 1) / kTile)) {
#pragma unroll
    for (int part = 0; part < kCopies; ++part) slots_[part] = slots[first_ + min(row_of(part), there_ - 1)];
  }

  __device__ void run(uint32_t* cell_of) {
    note_rows();
#pragma unroll 1
    for (int i = 0; i < kNearestStages - 1; ++i) copy_stage(i);
    int number = 0;
    for (int tile = 0; tile < tiles_; ++tile) {
      ByteSums sums = {};
      for (int step = 0; step < steps_; ++step, ++number) {
        async_wait<kNearestStages - 2>();
        __syncthreads();  // all have their copies, and all are done with the stage that is filled next
        copy_stage(number + kNearestStages - 1);
        const Stage& stage = shared_.stages[number % kNearestStages];
        multiply_stage(stage.rows, stage.others, first_row_of(warp_), first_other_of(warp_), sums);
      }
      compare(sums, tile);
    }
    async_wait<0>();  // of groups that are empty
    meet();
    __syncthreads();
    if (thread_ >= there_) return;
    unsigned long long least = shared_.nearest[0][thread_];
    for (int i = 1; i < kColumnWarps; ++i) least = min(least, shared_.nearest[i][thread_]);
    cell_of[first_ + thread_] = static_cast<uint32_t>(least);
  }

 private:
  __device__ int row_of(int part) const { return thread_ / kPieces + part * (kPairThreads / kPieces); }

  __device__ void note_rows() {
#pragma unroll
    for (int part = 0; part < kCopies; ++part) {
      if (thread_ % kPieces != 0) continue;
      const int64_t slot = slots_[part];
      shared_.row_scales[row_of(part)] =
          -2.0f * *reinterpret_cast<const float*>(rows_.heads + (slot + 1) * rows_.head_bytes - 16);
      shared_.row_norms[row_of(part)] = rows_.squares[slot];
    }
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) least_[i] = __uint_as_float(0x7f800000u), cells_[i] = 0;
  }

  // Rows that are not there are the last again, centroids zeros.
  __device__ void copy_stage(int number) {
    const int tile = number / steps_;
    if (tile < tiles_) {
      const int step = number - tile * steps_;
      Stage& stage = shared_.stages[number % kNearestStages];
      const int piece = thread_ % kPieces;
#pragma unroll
      for (int part = 0; part < kCopies; ++part) {
        const int row = row_of(part), at = step * kHeadStep + piece * 16;
        const int64_t at_row = static_cast<int64_t>(tile) * kTile + row;
        const bool present = at_row < centroids_.count;
        const int64_t centroid = present ? at_row : 0;
        if (step == 0 && piece == 0) begin_centroid(tile, row, centroid, present);
        async_copy(stage.rows + place_of(row, piece),
                   rows_.heads + static_cast<int64_t>(slots_[part]) * rows_.head_bytes + at, true);
        async_copy(stage.others + place_of(row, piece), centroids_.bytes + centroid * rows_.head_bytes + at,
                   present);
      }
    }
    async_commit();  // a group each time, so that waiting counts right
  }

  __device__ void begin_centroid(int tile, int row, int64_t centroid, bool present) {
    const int ring = tile % kNearestStages;
    async_copy<4>(&shared_.scales[ring][row], centroids_.scales + centroid, present);
    async_copy<4>(&shared_.norms[ring][row], centroids_.norms + centroid, present);
    async_copy<4>(&shared_.biases[ring][row], centroids_.biases + centroid, present);
  }

  __device__ void compare(const ByteSums& sums, int tile) {
    const int ring = tile % kNearestStages;
    float row_scales[kLaneRows], row_norms[kLaneRows];
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      const int row = first_row_of(warp_) + row_in_warp(i / 2, i % 2, lane_);
      row_scales[i] = shared_.row_scales[row], row_norms[i] = shared_.row_norms[row];
    }
#pragma unroll
    for (int j = 0; j < 2 * kOtherFragments; ++j) {
      const int column = first_other_of(warp_) + other_in_warp(j / 2, j % 2, lane_);
      const int64_t cell = static_cast<int64_t>(tile) * kTile + column;
      if (cell >= centroids_.count) continue;
      const float scale = shared_.scales[ring][column], norm = shared_.norms[ring][column];
      const int bias = shared_.biases[ring][column];
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i) {
        const int sum = sums[i / 2][j / 2].numbers[2 * (i % 2) + j % 2] - bias;
        const float product = static_cast<float>(sum) * scale;
        const float distance = fmaxf(0.0f, __fmaf_rn(product, row_scales[i], row_norms[i] + norm));
        if (distance < least_[i]) least_[i] = distance, cells_[i] = static_cast<unsigned>(cell);
      }
    }
  }

  // Of the four lanes that have parts of a row.
  __device__ void meet() {
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) {
      // Numbers that are not negative have the order of their bits.
      auto key = static_cast<unsigned long long>(__float_as_uint(least_[i])) << 32 | cells_[i];
      key = min(key, __shfl_xor_sync(kAllLanes, key, 1));
      key = min(key, __shfl_xor_sync(kAllLanes, key, 2));
      const int row = first_row_of(warp_) + row_in_warp(i / 2, i % 2, lane_);
      if (lane_ % 4 == 0) shared_.nearest[warp_ % kColumnWarps][row] = key;
    }
  }

  static constexpr int kCopies = kTile * kPieces / kPairThreads;
  static constexpr int kLaneRows = 2 * kRowFragments;

  const HeadRows& rows_;
  const Centroids& centroids_;
  NearestShared& shared_;
  const int thread_, lane_, warp_, steps_;
  const int64_t first_;
  const int there_;
  const int tiles_;            // of centroids; their stages are counted in 32 bits
  uint32_t slots_[kCopies];    // of the rows that this thread copies
  float least_[kLaneRows];     // distance of the nearest centroid so far
  unsigned cells_[kLaneRows];  // and its number, the first of equals: they come in their order
};

__global__ void __launch_bounds__(kPairThreads, 1)
    find_nearest(const __grid_constant__ HeadRows rows, const __grid_constant__ Centroids centroids,
                 const uint32_t* slots, int64_t count, uint32_t* cell_of) {
  Nearest(rows, centroids, slots, count, shared_memory<NearestShared>()).run(cell_of);
}

}  // namespace ec::cuda::ann
