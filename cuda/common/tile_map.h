// SPDX-License-Identifier: Apache-2.0
// Maps by which Hopper's copy engine finds tiles of an array of rows of bf16.
#pragma once

#include <cstdint>

#include "common/numbers.cuh"

#if !defined(__CUDACC__)
#include "emulation/hopper.h"
#endif

namespace ec::cuda {

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
// Of `rows` rows of `columns` numbers, one after another, on 16 bytes each; tiles of 64 columns and
// `tile_rows` rows, at most 256, whose pieces are swapped by 128 bytes.
inline bool make_tile_map(const BFloat* numbers, int64_t rows, int64_t columns, int tile_rows,
                          TileMap* map) {
  static const EncodeTiled encode = find_encode_tiled();
  constexpr int kBFloat16 = 9, kNotInterleaved = 0, kSwizzle128 = 3, kPromote256 = 3, kZerosBeyond = 0;
  const uint64_t sizes[2] = {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)};
  const uint64_t stride_bytes[1] = {static_cast<uint64_t>(columns) * sizeof(BFloat)};
  const uint32_t tile[2] = {64, static_cast<uint32_t>(tile_rows)}, steps[2] = {1, 1};
  const bool made =
      encode != nullptr && encode(map, kBFloat16, 2, numbers, sizes, stride_bytes, tile, steps,
                                  kNotInterleaved, kSwizzle128, kPromote256, kZerosBeyond) == 0;
  if (!made) note(encode == nullptr ? cudaErrorNotSupported : cudaErrorInvalidValue);
  return made;
}

#else

using TileMap = emulation::TileMap;
inline bool make_tile_map(const BFloat* numbers, int64_t rows, int64_t columns, int tile_rows,
                          TileMap* map) {
  *map = {numbers, rows, columns, tile_rows};
  return true;
}

#endif

}  // namespace ec::cuda
