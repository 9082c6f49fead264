// SPDX-License-Identifier: Apache-2.0
// From rows to codes of bytes, some thousand rows at a time: centred, turned to the axes, rounded.
//
// Numerics: each number goes through the operations of the CPU (csrc/ann/codec.cpp, ann_raw.isa.cpp) in
// their order; a product with an axis is a chain of fused multiply-adds in float32, as where the CPU has
// them. So bytes and factors are the CPU's bit by bit, but where a sum of float64, which has another order
// here, lies between two numbers of float32; one of those moves a byte by one step at most.
// What bounds it: the products, by float32 multiply-adds: of 768 columns and axes 1.2 MFLOP a row.
#pragma once

#include "ann/byte_codes.h"
#include "ann/encode.cuh"
#include "common/tensor_core.cuh"
#include "common/warp.cuh"

namespace ec::cuda::ann {

// Some of the rows, on their way.
struct TurnedRows {
  int64_t first, count;
  float* centred;  // [count][padded]
  float* numbers;  // [count][stride]
  int padded, stride;
};

// A warp for each row, in turns.
__global__ void __launch_bounds__(kRowThreads, 1)
    centre_rows(const __grid_constant__ IndexRows rows, const __grid_constant__ ByteCodes codes,
                const __grid_constant__ TurnedRows turned) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kRowWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarpSize; i < turned.count;
       i += warps) {
    const int64_t slot = turned.first + i;
    const AnyRow row(rows, slot);
    const bool unit = rows.metric == Metric::kCosine;
    double length = 0.0, square = 0.0;
#pragma unroll 1
    for (int k = lane; unit && k < rows.columns; k += kWarpSize) {
      const auto x = static_cast<double>(row[k]);
      length += x * x;
    }
    if (unit) length = warp_sum(length);
    const bool scaled = length > 0.0;
    const double inverse = scaled ? 1.0 / sqrt(length) : 1.0;
#pragma unroll 1
    for (int k = lane; k < turned.padded; k += kWarpSize) {
      float x = 0.0f;
      if (k < rows.columns) {
        x = row[k];
        if (scaled) x = static_cast<float>(static_cast<double>(x) * inverse);
        x -= rows.mean[k];
      }
      turned.centred[i * turned.padded + k] = x;
      square += static_cast<double>(x) * static_cast<double>(x);
    }
    square = warp_sum(square);
    if (lane == 0) codes.squares[slot] = static_cast<float>(square);
  }
}

constexpr int kTurnTile = 128;  // rows, and axes, of a block
constexpr int kTurnSide = 16;   // threads along each
constexpr int kTurnThreads = kTurnSide * kTurnSide;
constexpr int kTurnEach = kTurnTile / kTurnSide;
constexpr int kTurnStages = 3;
constexpr int kTurnPitch = kAxisStep + 4;  // so that rows side by side lie in other banks

struct TurnShared {
  struct Stage {
    float rows[kTurnTile * kTurnPitch], axes[kTurnTile * kTurnPitch];
  };
  Stage stages[kTurnStages];
};

// The products of a tile of rows with a tile of axes. x: tiles of axes, fastest, times tiles of rows.
class Turn {
 public:
  __device__ Turn(const ByteCodes& codes, const TurnedRows& turned, TurnShared& shared)
      : codes_(codes),
        turned_(turned),
        shared_(shared),
        thread_(static_cast<int>(threadIdx.x)),
        steps_(turned.padded / kAxisStep) {
    const int64_t tiles = (codes.dims + kTurnTile - 1) / kTurnTile;
    const int64_t tile = blockIdx.x / tiles;
    first_row_ = tile * kTurnTile;
    first_axis_ = static_cast<int>(blockIdx.x - tile * tiles) * kTurnTile;
  }

  __device__ void run() {
    float sums[kTurnEach][kTurnEach] = {};
#pragma unroll 1
    for (int step = 0; step < kTurnStages - 1; ++step) copy_stage(step);
    for (int step = 0; step < steps_; ++step) {
      async_wait<kTurnStages - 2>();
      __syncthreads();  // all have their copies, and all are done with the stage that is filled next
      copy_stage(step + kTurnStages - 1);
      multiply(shared_.stages[step % kTurnStages], sums);
    }
    async_wait<0>();  // of groups that are empty
    store(sums);
  }

 private:
  __device__ void copy_stage(int step) {
    constexpr int kTurnPieces = kAxisStep / 4;
    if (step < steps_) {
      TurnShared::Stage& stage = shared_.stages[step % kTurnStages];
#pragma unroll
      for (int part = 0; part < kTurnTile * kTurnPieces / kTurnThreads; ++part) {
        const int number = thread_ + part * kTurnThreads;
        const int row = number / kTurnPieces, piece = number % kTurnPieces;
        const int to = row * kTurnPitch + 4 * piece, column = step * kAxisStep + 4 * piece;
        const bool present = first_row_ + row < turned_.count, there = first_axis_ + row < codes_.dims;
        const int64_t from_row = present ? first_row_ + row : 0;
        const int64_t from_axis = there ? first_axis_ + row : 0;
        async_copy(stage.rows + to, turned_.centred + from_row * turned_.padded + column, present);
        async_copy(stage.axes + to, codes_.axes + from_axis * turned_.padded + column, there);
      }
    }
    async_commit();  // a group each time, so that waiting counts right
  }

  __device__ void multiply(const TurnShared::Stage& stage, float (&sums)[kTurnEach][kTurnEach]) const {
    const float* rows = stage.rows + thread_ / kTurnSide * kTurnPitch;
    const float* axes = stage.axes + thread_ % kTurnSide * kTurnPitch;
#pragma unroll 1
    for (int k = 0; k < kAxisStep; k += kTogether) {
      float row[kTurnEach][kTogether];
#pragma unroll
      for (int i = 0; i < kTurnEach; ++i) load_four(rows + i * kTurnSide * kTurnPitch + k, row[i]);
#pragma unroll
      for (int j = 0; j < kTurnEach; ++j) {
        float axis[kTogether];
        load_four(axes + j * kTurnSide * kTurnPitch + k, axis);
#pragma unroll
        for (int part = 0; part < kTogether; ++part)
#pragma unroll
          for (int i = 0; i < kTurnEach; ++i) sums[i][j] = __fmaf_rn(row[i][part], axis[part], sums[i][j]);
      }
    }
  }

  __device__ void store(const float (&sums)[kTurnEach][kTurnEach]) const {
#pragma unroll
    for (int i = 0; i < kTurnEach; ++i) {
      const int64_t row = first_row_ + thread_ / kTurnSide + i * kTurnSide;
      if (row >= turned_.count) continue;
#pragma unroll
      for (int j = 0; j < kTurnEach; ++j) {
        const int axis = first_axis_ + thread_ % kTurnSide + j * kTurnSide;
        if (axis < codes_.dims) turned_.numbers[row * turned_.stride + axis] = sums[i][j];
      }
    }
  }

  const ByteCodes& codes_;
  const TurnedRows& turned_;
  TurnShared& shared_;
  const int thread_, steps_;
  int64_t first_row_;
  int first_axis_;
};

__global__ void __launch_bounds__(kTurnThreads, 2)
    turn_rows(const __grid_constant__ ByteCodes codes, const __grid_constant__ TurnedRows turned) {
  Turn(codes, turned, shared_memory<TurnShared>()).run();
}

constexpr float kLeastCoded = 1e-35f;  // whose step has an inverse, as on the CPU

// Bytes of some numbers, zero up to `padded`, which is a multiple of four; what a step is. A warp.
__device__ __forceinline__ float write_bytes(const float* numbers, int count, int padded, uint8_t* bytes,
                                             int lane) {
  float largest = 0.0f;
#pragma unroll 1
  for (int k = lane; k < count; k += kWarpSize) largest = fmaxf(largest, fabsf(numbers[k]));
  largest = warp_max(largest);
  const float scale = largest > kLeastCoded ? largest / 127.0f : 0.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
#pragma unroll 1
  for (int at = 4 * lane; at < padded; at += 4 * kWarpSize) {
    unsigned word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float steps = 128.0f;
      if (at + i < count) steps = numbers[at + i] * inverse + 128.5f;  // positive: cut off is rounded
      word |= static_cast<unsigned>(static_cast<int>(steps < 255.0f ? steps : 255.0f)) << (8 * i);
    }
    *reinterpret_cast<unsigned*>(bytes + at) = word;
  }
  return scale;
}

// In eight parts, as the CPU adds them. A warp.
__device__ __forceinline__ float length_of(const float* numbers, int count, int lane) {
  constexpr int kParts = 8;
  const int whole = count / kParts * kParts;
  float part = 0.0f, square = 0.0f;
  for (int k = lane; lane < kParts && k < whole; k += kParts) part += numbers[k] * numbers[k];
#pragma unroll 1
  for (int k = whole; k < count; ++k) square += numbers[k] * numbers[k];
  for (int i = 0; i < kParts; ++i) square += __shfl_sync(kAllLanes, part, i);
  return sqrtf(square);
}

// A warp for each row.
__global__ void __launch_bounds__(kRowThreads, 1)
    write_codes(const __grid_constant__ ByteCodes codes, const __grid_constant__ TurnedRows turned,
                bool has_offset) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarpSize;
  if (i >= turned.count) return;
  const int64_t slot = turned.first + i;
  const float* numbers = turned.numbers + i * turned.stride;
  const int in_head = codes.head_numbers(), in_tail = codes.dims - in_head;
  uint8_t* head = codes.heads + slot * codes.head_bytes;
  float4 factors = {0.0f, has_offset ? -0.5f * codes.squares[slot] : 0.0f, 0.0f, 0.0f};
  factors.x = write_bytes(numbers, in_head, codes.head_room(), head, lane);
  if (codes.tail_bytes > 0) {
    uint8_t* tail = codes.tails + slot * codes.tail_bytes;
    factors.z = write_bytes(numbers + in_head, in_tail, codes.tail_bytes, tail, lane);
    factors.w = length_of(numbers + in_head, in_tail, lane);
  }
  if (lane == 0) *reinterpret_cast<float4*>(head + codes.head_room()) = factors;
}

}  // namespace ec::cuda::ann
