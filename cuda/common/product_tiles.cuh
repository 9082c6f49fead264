// SPDX-License-Identifier: Apache-2.0
// Products of a tile of rows with a tile of others by the tensor cores, stage by stage: what kernels over
// pairs of rows have in common.
//
// Memory: rows of 32 numbers lie in 4 pieces of 16 bytes, whose places are swapped by row so that neither
// copies nor matrices meet in a bank.
#pragma once

#include "common/tensor_core.cuh"
#include "common/warp.cuh"

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

__device__ __forceinline__ int place_of(int row, int piece) {
  return row * kStep + (piece ^ (row >> 1 & (kPieces - 1))) * 8;
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

// The products of one stage of rows with one of others, added to those of the warp. Sums: TileSums, or as
// many FragmentI, where numbers are pairs of bytes.
template <class Sums>
__device__ __forceinline__ void multiply_stage(const BFloat* rows, const BFloat* others, int warp_row,
                                               int warp_other, Sums& c) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int k = 0; k < kStep / 16; ++k) {
    FragmentA a[kRowFragments];
    FragmentB b[kOtherFragments];
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)  // matrices: rows 0-7 and 8-15, then their second 8 numbers
      load_matrices(rows + place_of(warp_row + 16 * i + lane % 16, 2 * k + lane / 16), a[i].pairs);
#pragma unroll
    for (int j = 0; j < kOtherFragments; j += 2) {
      // Matrices: 8 rows, their second 8 numbers, then the next rows.
      unsigned pairs[4];
      load_matrices(others + place_of(warp_other + 8 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2),
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
__device__ __forceinline__ void multiply_stage(const Stage& stage, int warp_row, int warp_other,
                                               TileSums& c) {
  multiply_stage(stage.rows, stage.others, warp_row, warp_other, c);
}

}  // namespace ec::cuda
