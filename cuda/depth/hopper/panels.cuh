// SPDX-License-Identifier: Apache-2.0
// Unit rows in bf16 as products of Hopper read them (common/hopper.cuh): tiles of a multiple of 64 rows, of
// each the parts (x1, and for what is strict x2, see pairwise.cuh) one after another, of each the blocks of
// 64 columns. A block is one piece, laid out as it is to lie in shared memory, so that one bulk copy brings
// it.
#pragma once

#include "common/hopper.cuh"

namespace ec::cuda {

// One side's rows, packed. Rows beyond the last one are zeros, up to a whole tile.
struct Panels {
  BFloat* numbers;  // null: there are none
  int64_t tiles;
  int tile_rows, parts, blocks;

  __host__ __device__ int64_t rows() const { return tiles * tile_rows; }
  __host__ __device__ int64_t size() const { return rows() * parts * blocks * kPanelColumns; }
  __host__ __device__ BFloat* block(int64_t tile, int part, int number) const {
    return numbers + ((tile * parts + part) * blocks + number) * tile_rows * kPanelColumns;
  }
};

}  // namespace ec::cuda
