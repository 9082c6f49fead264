// SPDX-License-Identifier: Apache-2.0
// Unit rows in bf16 as products of Hopper read them (common/hopper.cuh): tiles of a multiple of 64 rows, of
// each the parts (x1, and for what is strict x2, see pairwise.cuh) one after another, of each the blocks of
// 64 columns. A block is one piece, laid out as it is to lie in shared memory, so that one bulk copy brings
// it.
#pragma once

#include "common/hopper.cuh"
#include "depth/unit_rows.cuh"

namespace ec::cuda {

// One side's rows, packed. Rows beyond the last one are zeros, up to a whole tile.
struct Panels {
  BFloat* numbers;
  int64_t tiles;
  int tile_rows, parts, blocks;

  __host__ __device__ int64_t rows() const { return tiles * tile_rows; }
  __host__ __device__ int64_t size() const { return rows() * parts * blocks * kPanelColumns; }
  __device__ BFloat* block(int64_t tile, int part, int number) const {
    return numbers + ((tile * parts + part) * blocks + number) * tile_rows * kPanelColumns;
  }
};

// Rows [0, 64 count) of the panels, rows without a direction as zeros, which *missing (may be null) counts;
// a warp each. weights_to (may be null): the weights of the rows, 0 beyond the last one.
template <class T, bool kWhole>
__global__ void __launch_bounds__(256, 1)
    pack_unit_rows(Rows<T> rows, Panels panels, Scaling* scalings, int* missing, const float* weights,
                   float* weights_to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarpSize;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpSize;
       i < panels.rows(); i += warps) {
    const bool present = i < rows.count;
    const T* row = rows.row(present ? i : 0);
    const int columns = present ? rows.columns : 0;
    float square = 0.0f;
    for (int at = lane * kTogether; at < columns; at += kWarpColumns) {
      float numbers[kTogether];
      load_columns<kWhole>(row, at, columns, numbers);
      for (int k = 0; k < kTogether; ++k) square += numbers[k] * numbers[k];
    }
    const Scaling scaling = scaling_of<kWhole>(row, columns, warp_sum(square));
    const bool directed = scaling.known();
    const int64_t tile = i / panels.tile_rows;
    const int in_tile = static_cast<int>(i - tile * panels.tile_rows);
    for (int at = lane * kTogether; at < panels.blocks * kPanelColumns; at += kWarpColumns) {
      float numbers[kTogether];
      load_columns<kWhole>(row, at, columns, numbers);
      unsigned bits[kTogether], rest[kTogether];
      for (int k = 0; k < kTogether; ++k) {
        const float number = directed ? scaling.unit(numbers[k]) : 0.0f;
        bits[k] = bfloat_bits(number);
        rest[k] = bfloat_bits(number - __uint_as_float(bits[k] << 16));
      }
      const int place = place_in_panel(in_tile, at % kPanelColumns / 8) + at % 8;
      store_four(bits, panels.block(tile, 0, at / kPanelColumns) + place);
      if (panels.parts == 2) store_four(rest, panels.block(tile, 1, at / kPanelColumns) + place);
    }
    if (lane != 0) continue;
    if (weights_to != nullptr) weights_to[i] = present ? weights[i] : 0.0f;
    if (!present) continue;
    if (scalings != nullptr) scalings[i] = scaling;
    if (!directed && missing != nullptr) atomicAdd(missing, 1);
  }
}

}  // namespace ec::cuda
