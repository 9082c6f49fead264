// SPDX-License-Identifier: Apache-2.0
// AMX beside AVX-512: eight tile registers of 16 lines of 64 bytes, and products of tiles of bf16 and int8.
//
// A tile of sums has a line for each line of `a` and a column for each column of `b`; a line of `a` holds
// 32 numbers, and of `b`, line i holds numbers 2 i and 2 i + 1 of each of 16 columns, as 32-bit groups.
#pragma once

#include "simd/avx512dot.h"
#include "simd/transpose.h"

namespace ec {
namespace EC_ISA {

constexpr int kTiles = 8;
constexpr int kTileLines = 16;
constexpr int kTileBytes = 64;

// Lines of the tiles, and their numbers of 32 bits, as the processor reads them.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t lines[16] = {};

  TileShapes() {
    for (int i = 0; i < kTiles; ++i) set(i, kTileLines);
  }
  void set(int tile, int64_t count, int64_t numbers = kTileLines) {
    bytes[tile] = static_cast<uint16_t>(4 * numbers);
    lines[tile] = static_cast<uint8_t>(count);
  }
};

// Tiles between this and release_tiles() alone; all are zero at first.
static inline void shape_tiles(const TileShapes& shapes) {
  asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
}
static inline void release_tiles() { asm volatile("tilerelease" ::: "memory"); }

// The intrinsics take numbers of tiles as text alone, which a template does not have. stride: in bytes.
template <int kTile>
static inline void clear_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
static inline void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
static inline void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
}
// sum += a b. Numerics: float32, ties to even, numbers and sums below 2^-126 are 0.
template <int kSum, int kA, int kB>
static inline void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

// The same of int8, four numbers in a group, summed in int32.
template <int kSum, int kA, int kB>
static inline void multiply_int8_tiles() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

// The first numbers of a line, as many as there are; zeros behind them.
static inline VI load_first(const uint16_t* from, int64_t count) {
  const __mmask32 mask = count >= 32 ? ~__mmask32{0} : count <= 0 ? 0 : (__mmask32{1} << count) - 1;
  return _mm512_maskz_loadu_epi16(mask, from);
}

// to[i][j] = from[j][i], of 16 x 16 numbers of 32 bits. lines: those of `from` that there are, the others
// are zero; written: lines of `to`. Strides in numbers.
static inline void transpose_tile(const void* from, int64_t stride, int64_t lines, void* to,
                                  int64_t to_stride, int64_t written) {
  const uint32_t* line = static_cast<const uint32_t*>(from);
  uint32_t* to_line = static_cast<uint32_t*>(to);
  VF a[kTileLines];
  _Pragma("GCC unroll 16") for (int i = 0; i < kTileLines; ++i) a[i] =
      as_float(i < lines ? load_int(line + i * stride) : zero_int());
  transpose(a);
  _Pragma("GCC unroll 16") for (int i = 0; i < kTileLines; ++i) if (i < written)
      store_int(to_line + i * to_stride, as_int(a[i]));
}

}  // namespace EC_ISA
}  // namespace ec
