// SPDX-License-Identifier: Apache-2.0
// Maps by which Hopper's copy engine finds tiles of arrays of rows of numbers of 16 bits.
#pragma once

#include <cstdint>

#include "common/numbers.cuh"

#if !defined(__CUDACC__)
#include "emulation/hopper.h"
#endif

namespace ec::cuda {

// Arrays of one shape, each of rows of numbers of 16 bits that lie side by side; strides in numbers. Rows
// begin on 16 bytes.
struct TiledArrays {
  const void* numbers;
  int64_t columns, rows, row_stride, arrays, array_stride;
};

#if defined(__CUDACC__)

// A CUtensorMap, which the driver fills in. It is passed as a parameter of a kernel.
struct alignas(128) TileMap {
  uint64_t words[16];
};

// This library does not link the driver: its function is looked up, and its numbers are those of cuda.h.
using EncodeTiled = int (*)(TileMap*, int, uint32_t, const void*, const uint64_t*, const uint64_t*,
                            const uint32_t*, const uint32_t*, int, int, int, int);
inline EncodeTiled find_encode_tiled() {
  constexpr unsigned kVersion = 12000;  // of the driver's interface
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, kVersion,
                                                            cudaEnableDefault, &result);
  const bool is_there = code == cudaSuccess && result == cudaDriverEntryPointSuccess;
  return is_there ? reinterpret_cast<EncodeTiled>(found) : nullptr;
}
// Tiles of 64 columns and `tile_rows` rows, at most 256, whose pieces are swapped by 128 bytes; of the
// first `axes` axes.
inline bool make_tile_map(const TiledArrays& of, int axes, int tile_rows, TileMap* map) {
  static const EncodeTiled encode = find_encode_tiled();
  constexpr int kBFloat16 = 9, kNotInterleaved = 0, kSwizzle128 = 3, kPromote256 = 3, kZerosBeyond = 0;
  const uint64_t sizes[3] = {static_cast<uint64_t>(of.columns), static_cast<uint64_t>(of.rows),
                             static_cast<uint64_t>(of.arrays)};
  const uint64_t stride_bytes[2] = {static_cast<uint64_t>(of.row_stride) * sizeof(BFloat),
                                    static_cast<uint64_t>(of.array_stride) * sizeof(BFloat)};
  const uint32_t tile[3] = {64, static_cast<uint32_t>(tile_rows), 1}, steps[3] = {1, 1, 1};
  const bool made = encode != nullptr &&
                    encode(map, kBFloat16, static_cast<uint32_t>(axes), of.numbers, sizes, stride_bytes,
                           tile, steps, kNotInterleaved, kSwizzle128, kPromote256, kZerosBeyond) == 0;
  if (!made) note(encode == nullptr ? cudaErrorNotSupported : cudaErrorInvalidValue);
  return made;
}

#else

using TileMap = emulation::TileMap;
inline bool make_tile_map(const TiledArrays& of, int axes, int tile_rows, TileMap* map) {
  *map = {of.numbers,      of.columns, of.rows, of.row_stride, axes == 3 ? of.arrays : 1,
          of.array_stride, tile_rows};
  return true;
}

#endif

// Of one array, whose rows lie one after another.
inline bool make_tile_map(const BFloat* numbers, int64_t rows, int64_t columns, int tile_rows,
                          TileMap* map) {
  return make_tile_map(TiledArrays{numbers, columns, rows, columns, 1, rows * columns}, 2, tile_rows, map);
}
// Of several, for copies that say which.
inline bool make_tile_map(const TiledArrays& arrays, int tile_rows, TileMap* map) {
  return make_tile_map(arrays, 3, tile_rows, map);
}

}  // namespace ec::cuda
