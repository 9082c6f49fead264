// SPDX-License-Identifier: Apache-2.0
// Products of matrices in float64: for depths whose inverses and ranks would lose what float32 leaves of
// their sums.
//
// to(batch, i, j) = sum over k of a(i, k) b(j, k), for each batch (blockIdx.z). Every sum runs over k in
// one order, wherever in a tile it stands: equal rows give equal bits.
//
// Operands are structs with
//   count(batch), depth(batch)   how many i or j, how many k
//   number(batch, i, k)          within these
//   kAcross                      whether neighbours in memory are of neighbouring i; else of neighbouring k
// and what takes the result has store(batch, i, j, sum), called by neighbouring lanes for neighbouring i,
// and kSymmetric: tiles with all i < all j are left out.
#pragma once

#include "common/warp.cuh"

namespace ec::cuda {

constexpr int kWideTile = 64, kWideDepth = 16, kWideThreads = 256;
constexpr int kWideSide = 16;                     // threads along each side of a tile
constexpr int kWideEach = kWideTile / kWideSide;  // sums of a thread along each side

struct WideShared {
  // One more, so that neither way of writing meets a bank twice.
  double a[kWideDepth][kWideTile + 1], b[kWideDepth][kWideTile + 1];
};

// Which number of an operand's tile a thread moves in its turn-th step.
template <bool kAcross>
struct WideTurn {
  int i, k;
  __device__ explicit WideTurn(int turn) {
    const int thread = static_cast<int>(threadIdx.x);
    i = kAcross ? thread % kWideTile : thread / kWideDepth + turn * (kWideThreads / kWideDepth);
    k = kAcross ? thread / kWideTile + turn * (kWideThreads / kWideTile) : thread % kWideDepth;
  }
};
constexpr int kWideTurns = kWideTile * kWideDepth / kWideThreads;

template <class Operand>
__device__ __forceinline__ void fetch_wide(const Operand& from, int64_t batch, int64_t first, int64_t begin,
                                           double (&numbers)[kWideTurns]) {
#pragma unroll
  for (int turn = 0; turn < kWideTurns; ++turn) {
    const WideTurn<Operand::kAcross> at(turn);
    const bool inside = first + at.i < from.count(batch) && begin + at.k < from.depth(batch);
    numbers[turn] = inside ? from.number(batch, first + at.i, begin + at.k) : 0.0;
  }
}
template <class Operand>
__device__ __forceinline__ void put_wide(const double (&numbers)[kWideTurns],
                                         double (&tile)[kWideDepth][kWideTile + 1]) {
#pragma unroll
  for (int turn = 0; turn < kWideTurns; ++turn) {
    const WideTurn<Operand::kAcross> at(turn);
    tile[at.k][at.i] = numbers[turn];
  }
}

// Blocks: tiles of i, then of j.
// Memory: shared, WideShared.
template <class A, class B, class To>
__global__ void __launch_bounds__(kWideThreads, 2) multiply_wide(A a, B b, To to, int64_t tiles) {
  const int64_t batch = blockIdx.z, tile_i = blockIdx.x % tiles, tile_j = blockIdx.x / tiles;
  if (To::kSymmetric && tile_i < tile_j) return;
  WideShared& shared = shared_memory<WideShared>();
  const int64_t first_i = tile_i * kWideTile, first_j = tile_j * kWideTile, depth = a.depth(batch);
  const int own_i = static_cast<int>(threadIdx.x) % kWideSide,
            own_j = static_cast<int>(threadIdx.x) / kWideSide;
  double sums[kWideEach][kWideEach] = {}, next_a[kWideTurns], next_b[kWideTurns];
  fetch_wide(a, batch, first_i, 0, next_a);
  fetch_wide(b, batch, first_j, 0, next_b);
  for (int64_t begin = 0; begin < depth; begin += kWideDepth) {
    __syncthreads();
    put_wide<A>(next_a, shared.a);
    put_wide<B>(next_b, shared.b);
    __syncthreads();
    if (begin + kWideDepth < depth) {
      fetch_wide(a, batch, first_i, begin + kWideDepth, next_a);
      fetch_wide(b, batch, first_j, begin + kWideDepth, next_b);
    }
#pragma unroll
    for (int k = 0; k < kWideDepth; ++k) {
      double left[kWideEach], right[kWideEach];
#pragma unroll
      for (int e = 0; e < kWideEach; ++e) {
        left[e] = shared.a[k][own_i + e * kWideSide];
        right[e] = shared.b[k][own_j + e * kWideSide];
      }
#pragma unroll
      for (int i = 0; i < kWideEach; ++i)
#pragma unroll
        for (int j = 0; j < kWideEach; ++j) sums[i][j] = __fma_rn(left[i], right[j], sums[i][j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kWideEach; ++j) {
#pragma unroll
    for (int i = 0; i < kWideEach; ++i) {
      const int64_t at_i = first_i + own_i + i * kWideSide, at_j = first_j + own_j + j * kWideSide;
      if (at_i < a.count(batch) && at_j < b.count(batch)) to.store(batch, at_i, at_j, sums[i][j]);
    }
  }
}

// Matrices [batch][i][k], or where neighbours are of neighbouring i, [batch][k][i].
template <bool kNeighboursAcross>
struct WideMatrix {
  static constexpr bool kAcross = kNeighboursAcross;
  const double* data;
  int64_t rows, columns;  // i and k
  int64_t stride;         // between rows of memory
  int64_t batch_stride;

  __device__ int64_t count(int64_t) const { return rows; }
  __device__ int64_t depth(int64_t) const { return columns; }
  __device__ double number(int64_t batch, int64_t i, int64_t k) const {
    return data[batch * batch_stride + (kAcross ? k * stride + i : i * stride + k)];
  }
};

// Results [batch][j][i].
struct WideResult {
  static constexpr bool kSymmetric = false;
  double* data;
  int64_t stride, batch_stride;

  __device__ void store(int64_t batch, int64_t i, int64_t j, double sum) const {
    data[batch * batch_stride + j * stride + i] = sum;
  }
};

}  // namespace ec::cuda
