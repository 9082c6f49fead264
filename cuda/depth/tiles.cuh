// SPDX-License-Identifier: Apache-2.0
// Products of packed rows by the tensor cores, tile by tile: what depths over pairs have in common.
//
// A row x is held as bf16 numbers x1 and, for what is strict, as those of its rest x2:
//   c~ = x1 . y1                        costs c some 1e-3 of |x| |y|,
//   c~ = x2 . y1 + x1 . y2 + x1 . y1    costs it some 1e-6, and three times as long; of few columns, whose
//                                       errors do not average out, x2 . y2 is added too.
// The small products come first: tensor cores cut off what their sums cannot hold, and small sums lose
// less.
#pragma once

#include "common/product_tiles.cuh"
#include "depth/segments.cuh"

namespace ec::cuda {

// Rows of one side, by position.
struct PackedRows {
  const BFloat* numbers;  // [count][padded], or [count][2 padded]: x1, then x2
  int padded;             // a multiple of kStep
  int products;           // 1, 3 or 4

  __device__ int64_t stride() const { return products > 1 ? 2 * padded : padded; }
  __device__ int steps() const { return products * (padded / kStep); }
};

// Numbers [at, at + kStep) of kTile rows from `first` on, zeros for rows from `end` on.
__device__ __forceinline__ void copy_rows(const PackedRows& from, int64_t first, int64_t end, int at,
                                          BFloat* to) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kPieces; i += kPairThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool present = first + row < end;
    const BFloat* source = from.numbers + (present ? first + row : first) * from.stride() + at + piece * 8;
    async_copy(to + place_of(row, piece), source, present);
  }
}

// What step `step` of a product of rows [row, row_end) and others [other, other_end) multiplies.
__device__ __forceinline__ void copy_step(const PackedRows& rows, int64_t row, int64_t row_end,
                                          const PackedRows& others, int64_t other, int64_t other_end,
                                          int step, Stage& stage) {
  const int steps = rows.padded / kStep, product = step / steps, at = (step - product * steps) * kStep;
  const int left = rows.products - product;  // 4: both rests, 3: that of the rows, 2: of the others
  copy_rows(rows, row, row_end, left > 2 ? rows.padded + at : at, stage.rows);
  copy_rows(others, other, other_end, left == 4 || left == 2 ? others.padded + at : at, stage.others);
}

// Which pairs of a tile count: rows and others that are there, and not other == row + own.
struct TileEdges {
  int rows, others, own;

  __device__ bool count(int row, int other) const {
    return row < rows && other < others && other != row + own;
  }
};
__device__ __forceinline__ TileEdges edges_of(int64_t first_row, int64_t row_end, int64_t first_other,
                                              int64_t other_end, bool leave_out) {
  const int64_t tile = kTile, apart = first_row - first_other;
  return {static_cast<int>(min(tile, row_end - first_row)),
          static_cast<int>(min(tile, other_end - first_other)),
          leave_out ? static_cast<int>(max(-2 * tile, min(2 * tile, apart))) : 2 * kTile};
}

// Pairs of a tile that are measured anew from their rows, as their products have lost the distance.
struct NearPairs {
  unsigned of_row[kTile][kTile / 32];  // a bit for each of the others
  unsigned any;
};

// All threads of the block; a barrier must follow before the first mark.
__device__ __forceinline__ void clear_near(NearPairs& near) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kTile / 32; i += kPairThreads)
    near.of_row[i / (kTile / 32)][i % (kTile / 32)] = 0;
  if (threadIdx.x == 0) near.any = 0;
}

__device__ __forceinline__ void mark_near(NearPairs& near, int row, int other) {
  atomicOr(&near.of_row[row][other / 32], 1u << (other % 32));
  atomicOr(&near.any, 1u);
}

// measure(row of the tile, others of the tile, how many) for the near pairs of a row, a few at a time and
// in order, by a whole warp; what is beyond `how many` is -1. All threads of the block; barriers before, so
// that all have marked theirs, and after.
template <int kPairs, class Measure>
__device__ __forceinline__ void measure_near(NearPairs& near, const Measure& measure) {
  constexpr int kWords = kTile / 32;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int row = static_cast<int>(threadIdx.x) / kWarpSize; row < kTile; row += kPairWarps) {
    int word = 0;
    unsigned left = near.of_row[row][0];
    for (;;) {
      int others[kPairs], count = 0;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        while (left == 0 && word + 1 < kWords) left = near.of_row[row][++word];
        others[p] = left == 0 ? -1 : word * 32 + __ffs(left) - 1;
        count += left == 0 ? 0 : 1;
        left &= left - 1;
      }
      if (count == 0) break;
      measure(row, others, count);
    }
    __syncwarp();  // all lanes have read it
    if (lane < kWords) near.of_row[row][lane] = 0;
  }
  __syncthreads();
  if (threadIdx.x == 0) near.any = 0;
  __syncthreads();
}

// A sum that keeps what its additions cut off.
struct LongSum {
  float sum = 0.0f, rest = 0.0f;

  __device__ void add(float number) {
    const float wanted = number - rest, reached = sum + wanted;
    rest = (reached - sum) - wanted;
    sum = reached;
  }
  __device__ double value() const { return static_cast<double>(sum) - static_cast<double>(rest); }
};

}  // namespace ec::cuda
