// SPDX-License-Identifier: Apache-2.0
// Rows in registers: each lane of a warp holds some pieces of 16 bytes of a row. Piece v of a lane begins
// at column (v * kWarpSize + lane) * kPieceNumbers<T> of the part of the row that the warp holds.
#pragma once

#include "common/workspace.h"
#include "depth/unit_rows.cuh"

namespace ec::cuda {

template <class T>
constexpr int kPieceNumbers = 16 / static_cast<int>(sizeof(T));
template <class T>
constexpr int kWarpPieceColumns = kWarpSize * kPieceNumbers<T>;  // that pieces of all lanes hold

// Pieces that a lane loads before it waits for the first: 4 KB of a warp.
constexpr int kPiecesTogether = 8;
// That hold a row, or a strip of one: 1024 columns.
template <class T>
constexpr int kMostPieces = 1024 / kWarpPieceColumns<T>;

// Of so many pieces each, that a warp loads at once.
template <int kPieces>
constexpr int kRowsTogether = kPieces < kPiecesTogether ? kPiecesTogether / kPieces : 1;

struct Piece {
  unsigned words[4];
};

template <class T>
__device__ __forceinline__ const T* row_of(const AnyRows& rows, int64_t i) {
  return static_cast<const T*>(rows.data) + i * rows.stride;
}

// Columns [at, at + kPieceNumbers) of a row, zeros beyond its end. kWhole: whole_pieces holds.
template <bool kWhole>
__device__ __forceinline__ Piece load_piece(const float* row, int at, int columns) {
  Piece piece = {};
  if (kWhole) {
    if (at < columns) {
      const uint4 words = *reinterpret_cast<const uint4*>(row + at);
      piece = {{words.x, words.y, words.z, words.w}};
    }
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) piece.words[k] = at + k < columns ? __float_as_uint(row[at + k]) : 0u;
  }
  return piece;
}
template <bool kWhole, class Short>
__device__ __forceinline__ Piece load_piece(const Short* row, int at, int columns) {
  Piece piece = {};
  if (kWhole) {
    if (at < columns) {
      const uint4 words = *reinterpret_cast<const uint4*>(row + at);
      piece = {{words.x, words.y, words.z, words.w}};
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const unsigned bits = at + k < columns ? row[at + k].bits : 0u;
      piece.words[k / 2] |= bits << (k % 2 * 16);
    }
  }
  return piece;
}

__device__ __forceinline__ float number_of(const Piece& piece, int k, float) {
  return __uint_as_float(piece.words[k]);
}
template <class Short>
__device__ __forceinline__ float number_of(const Piece& piece, int k, Short) {
  return to_float(Short{static_cast<uint16_t>(piece.words[k / 2] >> (k % 2 * 16))});
}

// The same, of which the compiler knows nothing: what it has made of it is made again, not kept.
__device__ __forceinline__ void make_anew(Piece& piece) {
#if defined(__CUDACC__)
#pragma unroll
  for (int k = 0; k < 4; ++k) asm volatile("" : "+r"(piece.words[k]));
#else
  (void)piece;
#endif
}

template <class T>
__device__ __forceinline__ float square_of(const Piece& piece) {
  float square = 0.0f;
#pragma unroll
  for (int k = 0; k < kPieceNumbers<T>; ++k) square += number_of(piece, k, T{}) * number_of(piece, k, T{});
  return square;
}

// Of a row wider than what a warp holds, in the order of its columns.
template <class T, bool kWhole>
__device__ __forceinline__ Scaling scaling_of_wide(const T* row, int columns) {
  float square = 0.0f;
  for (int at = static_cast<int>(threadIdx.x) % kWarpSize * kPieceNumbers<T>; at < columns;
       at += kWarpPieceColumns<T>)
    square += square_of<T>(load_piece<kWhole>(row, at, columns));
  return scaling_of<kWhole>(row, columns, warp_sum(square));
}

// Whether rows begin where a piece can be loaded at once, and have a whole number of pieces.
inline bool whole_pieces(const AnyRows& rows) {
  const int64_t size = rows.kind == NumberKind::kFloat32 ? 4 : 2, numbers = 16 / size;
  return rows.columns % numbers == 0 && rows.stride % numbers == 0 &&
         reinterpret_cast<uintptr_t>(rows.data) % 16 == 0;
}

inline int piece_numbers(NumberKind kind) { return kind == NumberKind::kFloat32 ? 4 : 8; }

// Calls body(a number of the rows' kind, pieces of a lane as an integral constant, whether pieces are
// whole): as many pieces as a row has, of what is not whole or wider than 1024 columns the most.
template <int kCount>
struct PieceCount {
  static constexpr int value = kCount;
};
template <bool kIs>
struct Whole {
  static constexpr bool value = kIs;
};
template <class Body>
void with_pieces(const AnyRows& rows, const Body& body) {
  with_numbers(rows.kind, [&](auto number) {
    using T = decltype(number);
    const int64_t pieces = ceiling(rows.columns, kWarpPieceColumns<T>);
    if (!whole_pieces(rows))
      body(number, PieceCount<kMostPieces<T>>{}, Whole<false>{});
    else if (pieces <= 1)
      body(number, PieceCount<1>{}, Whole<true>{});
    else if (pieces <= 2)
      body(number, PieceCount<2>{}, Whole<true>{});
    else if (pieces <= 4 || kMostPieces<T> == 4)
      body(number, PieceCount<4>{}, Whole<true>{});
    else
      body(number, PieceCount<kMostPieces<T>>{}, Whole<true>{});
  });
}

}  // namespace ec::cuda
