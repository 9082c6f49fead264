// SPDX-License-Identifier: Apache-2.0
// Unit rows, packed and summed in one pass: each row is read once (rows wider than 1024 columns, once and
// again from the cache for each strip of so many, blockIdx.y).
//
// Numerics: unit rows in float32, all sums in float64, so that a row with most of the weight does not cost
// the others their digits. Rows whose squares leave the range of float32 are scaled first. A row of zeros,
// or with a number that is not finite, makes the sums NaN, and so all depths in its group.
#pragma once

#include "depth/preparation.h"
#include "depth/row_pieces.cuh"

namespace ec::cuda {

constexpr int kPreparationThreads = kPreparationWarps * kWarpSize;

// Two numbers as bf16, and what that leaves of them.
__device__ __forceinline__ void split_pair(float low, float high, unsigned& bits, unsigned& rest) {
  bits = pair_bits(low, high, BFloat{});
  rest = pair_bits(low - __uint_as_float(bits << 16), high - __uint_as_float(bits & 0xffff0000u), BFloat{});
}
__device__ __forceinline__ void store_words(const unsigned (&words)[2], BFloat* to) {
  *reinterpret_cast<uint2*>(to) = uint2{words[0], words[1]};
}
__device__ __forceinline__ void store_words(const unsigned (&words)[4], BFloat* to) {
  *reinterpret_cast<uint4*>(to) = uint4{words[0], words[1], words[2], words[3]};
}

// Numbers of a unit row from column `at` on.
template <int kNumbers>
__device__ __forceinline__ void pack(const Packing& packing, int64_t i, int64_t count, int at,
                                     const float (&unit)[kNumbers]) {
  unsigned bits[kNumbers / 2], rest[kNumbers / 2];
#pragma unroll
  for (int k = 0; k < kNumbers / 2; ++k) split_pair(unit[2 * k], unit[2 * k + 1], bits[k], rest[k]);
  if (packing.rows != nullptr && i < count && at < packing.padded) {
    BFloat* to = packing.rows + i * (packing.split ? 2 * packing.padded : packing.padded) + at;
    store_words(bits, to);
    if (packing.split) store_words(rest, to + packing.padded);
  }
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const Panels& panels = packing.panels[side];
    if (panels.numbers == nullptr || i >= panels.rows() || at >= panels.blocks * kPanelColumns) continue;
    const int tile = static_cast<int>(i) / panels.tile_rows,
              place =
                  place_in_panel(static_cast<int>(i) - tile * panels.tile_rows, at % kPanelColumns / 8) +
                  at % 8;
    store_words(bits, panels.block(tile, 0, at / kPanelColumns) + place);
    if (panels.parts == 2) store_words(rest, panels.block(tile, 1, at / kPanelColumns) + place);
  }
}

// Sums of the warps, added warp by warp so that their order is one. All threads of the block.
// Memory: shared, a double for each column of the strip.
template <int kPieces, int kNumbers>
__device__ __forceinline__ void store_partial(const double (&sum)[kPieces][kNumbers], int width,
                                              double* to) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  double* of_block = shared_array<double>(static_cast<size_t>(width));
  for (int turn = 0; turn < kPreparationWarps; ++turn) {
    if (turn == warp) {
#pragma unroll
      for (int v = 0; v < kPieces; ++v)
#pragma unroll
        for (int k = 0; k < kNumbers; ++k) {
          const int at = (v * kWarpSize + lane) * kNumbers + k;
          if (at < width) of_block[at] = turn == 0 ? sum[v][k] : of_block[at] + sum[v][k];
        }
    }
    __syncthreads();
  }
  for (int at = thread; at < width; at += kPreparationThreads) to[at] = of_block[at];
}

__device__ __forceinline__ void begin_sums(const Preparation& given) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * gridDim.y * kPreparationThreads,
                first = (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * kPreparationThreads +
                        threadIdx.x;
  for (int64_t i = first; i < given.zero_count; i += step) given.zeros[i] = 0;
  if (first != 0 || given.scale == nullptr) return;
  int exponent = 0;
  const double total =
      given.total == nullptr ? static_cast<double>(given.sides[0].rows.count) : *given.total;
  if (total > 0.0) frexp(total, &exponent);
  *given.scale = ldexp(1.0, 61 - exponent);  // sums are less than 2 total
}

// Loads some rows of a warp, zeros from `present` on.
template <class T, int kPieces, bool kWhole, int kRows>
__device__ __forceinline__ void load_rows(const PreparedSide& side, int64_t i, int present, int first,
                                          Piece (&pieces)[kRows][kPieces]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const T* row = row_of<T>(side.rows, r < present ? side.groups.row(i + r) : 0);
#pragma unroll
    for (int v = 0; v < kPieces; ++v)
      pieces[r][v] = load_piece<kWhole>(row, first + v * kWarpPieceColumns<T>,
                                        r < present ? static_cast<int>(side.rows.columns) : 0);
  }
}

// kPacks: unit rows are kept. Else loads are all there is to wait for, and 12 warps at least, with 4 KB
// under way each, have the registers for their sums.
template <class T, int kPieces, bool kWhole, bool kPacks>
__global__ void __launch_bounds__(kPreparationThreads, kWhole && !kPacks ? 3 : 1)
    prepare_rows(const __grid_constant__ Preparation given) {
  constexpr int kNumbers = kPieceNumbers<T>, kRows = kRowsTogether<kPieces>;
  begin_sums(given);
  const int64_t first_blocks = given.sides[0].segments.count;
  const bool second = blockIdx.x >= first_blocks;
  const PreparedSide& side = given.sides[second ? 1 : 0];
  const int64_t number = blockIdx.x - (second ? first_blocks : 0);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize, columns = static_cast<int>(side.rows.columns);
  const int strip = static_cast<int>(blockIdx.y) * kPieces * kWarpPieceColumns<T>;
  const int64_t count = side.rows.count;
  const Segment segment = side.segments.segment(number);
  const int positions = static_cast<int>(segment.end - segment.begin),
            present = static_cast<int>(min(segment.end, count) - segment.begin);
  const int first = strip + lane * kNumbers;
  double sum[kPieces][kNumbers] = {};
  for (int at = warp * kRows; at < positions; at += kPreparationWarps * kRows) {
    const int64_t i = segment.begin + at;
    Piece pieces[kRows][kPieces];
    load_rows<T, kPieces, kWhole>(side, i, present - at, first, pieces);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (at + r >= positions) break;
      const bool there = at + r < present;
      Scaling scaling = {0.0f, 0.0f};  // rows that fill up are zeros
      if (there) {
        const T* row = row_of<T>(side.rows, side.groups.row(i + r));
        if (gridDim.y > 1) {
          scaling = scaling_of_wide<T, kWhole>(row, columns);
        } else {
          float square = 0.0f;
#pragma unroll
          for (int v = 0; v < kPieces; ++v) square += square_of<T>(pieces[r][v]);
          scaling = scaling_of<kWhole>(row, columns, warp_sum(square));
        }
        if (kPacks && lane == 0 && blockIdx.y == 0 && side.packing.scalings != nullptr)
          side.packing.scalings[i + r] = scaling;
      }
      const double weight = !there                    ? 0.0
                            : side.weights == nullptr ? 1.0
                                                      : static_cast<double>(side.weights[i + r]);
#pragma unroll
      for (int v = 0; v < kPieces; ++v) {
        make_anew(pieces[r][v]);  // else units of all pieces would be there at once
        float unit[kNumbers];
#pragma unroll
        for (int k = 0; k < kNumbers; ++k) {
          unit[k] = scaling.unit(number_of(pieces[r][v], k, T{}));
          sum[v][k] = __fma_rn(weight, static_cast<double>(unit[k]), sum[v][k]);
          unit[k] = scaling.known() ? unit[k] : 0.0f;
        }
        if (kPacks) pack(side.packing, i + r, count, first + v * kWarpPieceColumns<T>, unit);
      }
    }
  }
  if (side.partial == nullptr) return;
  const int width = min(columns - strip, kPieces * kWarpPieceColumns<T>);
  store_partial(sum, width, side.partial + number * columns + strip);
}

}  // namespace ec::cuda
