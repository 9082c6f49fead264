// SPDX-License-Identifier: Apache-2.0
// Products of packed rows by the tensor cores, tile by tile: what depths over pairs have in common.
//
// A row x is held as bf16 numbers x1 and, for what is strict, as those of its rest x2:
//   c~ = x1 . y1                        costs c some 1e-3 of |x| |y|,
//   c~ = x2 . y1 + x1 . y2 + x1 . y1    costs it some 1e-6, and three times as long; of few columns, whose
//                                       errors do not average out, x2 . y2 is added too.
// The small products come first: tensor cores cut off what their sums cannot hold, and small sums lose
// less.
//
// Memory: rows of 32 numbers lie in 4 pieces of 16 bytes, whose places are swapped by row so that neither
// copies nor matrices meet in a bank.
#pragma once

#include "common/tensor_core.cuh"
#include "depth/segments.cuh"

namespace ec::cuda {

constexpr int kTile = 128;  // rows, and rows of the corpus, of a tile
constexpr int kStep = 32;   // numbers of them that a stage holds
constexpr int kPairThreads = 256;
constexpr int kPairWarps = kPairThreads / kWarpSize;
constexpr int kPieces = kStep * 2 / 16;          // of 16 bytes, in a row of a stage
constexpr int kWarpRows = 64, kWarpOthers = 32;  // of the tile, that one warp takes: 2 x 4 warps
constexpr int kRowFragments = kWarpRows / 16, kOtherFragments = kWarpOthers / 8;

struct Stage {
  BFloat rows[kTile * kStep], others[kTile * kStep];
};

// Rows of one side, by position.
struct PackedRows {
  const BFloat* numbers;  // [count][padded], or [count][2 padded]: x1, then x2
  int padded;             // a multiple of kStep
  int products;           // 1, 3 or 4

  __device__ int64_t stride() const { return products > 1 ? 2 * padded : padded; }
  __device__ int steps() const { return products * (padded / kStep); }
};

__device__ __forceinline__ int place_of(int row, int piece) {
  return row * kStep + (piece ^ (row >> 1 & (kPieces - 1))) * 8;
}

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

using TileSums = FragmentC[kRowFragments][kOtherFragments];

// Where warp `warp` is in a tile.
__device__ __forceinline__ int first_row_of(int warp) { return warp / 4 * kWarpRows; }
__device__ __forceinline__ int first_other_of(int warp) { return warp % 4 * kWarpOthers; }
// The rows and others of number 2 half + part of fragment (i, j) of a lane, from those of its warp.
__device__ __forceinline__ int row_in_warp(int i, int half, int lane) {
  return 16 * i + lane / 4 + 8 * half;
}
__device__ __forceinline__ int other_in_warp(int j, int part, int lane) {
  return 8 * j + 2 * (lane % 4) + part;
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

// The products of one stage, added to those of the warp.
__device__ __forceinline__ void multiply_stage(const Stage& stage, int warp_row, int warp_other,
                                               TileSums& c) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int k = 0; k < kStep / 16; ++k) {
    FragmentA a[kRowFragments];
    FragmentB b[kOtherFragments];
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)  // matrices: rows 0-7 and 8-15, then their second 8 numbers
      load_matrices(stage.rows + place_of(warp_row + 16 * i + lane % 16, 2 * k + lane / 16), a[i].pairs);
#pragma unroll
    for (int j = 0; j < kOtherFragments; j += 2) {
      // Matrices: 8 rows, their second 8 numbers, then the next rows.
      unsigned pairs[4];
      load_matrices(
          stage.others + place_of(warp_other + 8 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2),
          pairs);
      b[j] = {{pairs[0], pairs[1]}};
      b[j + 1] = {{pairs[2], pairs[3]}};
    }
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)
#pragma unroll
      for (int j = 0; j < kOtherFragments; ++j) multiply_add(a[i], b[j], c[i][j]);
  }
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

// measure(row of the tile, other of the tile) for each near pair, by a whole warp; the pairs of a row by
// one warp in order. All threads of the block; barriers before, so that all have marked theirs, and after.
template <class Measure>
__device__ __forceinline__ void measure_near(NearPairs& near, const Measure& measure) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int row = static_cast<int>(threadIdx.x) / kWarpSize; row < kTile; row += kPairWarps) {
    for (int word = 0; word < kTile / 32; ++word) {
      unsigned left = near.of_row[row][word];
      for (; left != 0; left &= left - 1) measure(row, word * 32 + __ffs(left) - 1);
      __syncwarp();  // all lanes have read it
      if (lane == 0) near.of_row[row][word] = 0;
    }
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
