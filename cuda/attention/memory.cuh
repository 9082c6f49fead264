// SPDX-License-Identifier: Apache-2.0
// What a block keeps while it walks its tokens: in shared memory, or, where that is full, in a part of the
// workspace that only this block uses.
#pragma once

#include <type_traits>

#include "attention/powers.cuh"
#include "attention/stage.cuh"

namespace ec::cuda {

struct Place {
  int64_t at;
  bool shared;
};

struct BlockMemory {
  size_t shared_bytes, block_bytes;
  unsigned char* blocks;  // block_bytes for each block

  // kShared: all that the block has is in shared memory, which the compiler is to know: such addresses are
  // shorter, and so are the instructions.
  template <class T, bool kShared = false>
  __device__ T* find(const Place& place, unsigned char* shared) const {
    if constexpr (kShared) return reinterpret_cast<T*>(shared + place.at);
    unsigned char* own = blocks + (blockIdx.y * gridDim.x + blockIdx.x) * block_bytes;
    return reinterpret_cast<T*>((place.shared ? shared : own) + place.at);
  }
};

// Hands out places until the shared memory is full, what comes first first.
class BlockArena {
 public:
  explicit BlockArena(size_t most_shared) : most_(most_shared) {}
  template <class T>
  Place take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + kBoundary - 1) / kBoundary * kBoundary;
    const bool shared = shared_ + bytes <= most_;
    size_t& used = shared ? shared_ : own_;
    const Place place = {static_cast<int64_t>(used), shared};
    used += bytes;
    return place;
  }
  bool all_shared() const { return own_ == 0; }
  BlockMemory memory() const { return {shared_, own_, nullptr}; }

 private:
  static constexpr size_t kBoundary = 128;

  size_t most_, shared_ = 0, own_ = 0;
};

__device__ __forceinline__ float inverse_temperature(const AttentionProblem& problem, int64_t b,
                                                     int64_t j) {
  const Numbers& array = problem.temperature;
  const double t = array.data == nullptr ? problem.fixed_temperature
                                         : number_at(array, b * array.stride[0] + j * array.stride[1]);
  return static_cast<float>(fmin(1.0 / t, 1e37));
}

// A factor in the memory of the device, a row for each head.
struct HeadRows {
  int64_t head_stride, column_stride;  // in numbers
  int heads, columns;
  // Of head j number j * power_step: what its numbers are divided by, a power of two. Null: nothing.
  const float* powers = nullptr;
  int power_step = 0;
};

// Bits of numbers of 16 bits are loaded alike, whatever their kind: factors have many, and code for each
// would be most of a kernel.
__device__ __forceinline__ float float_of_bits(uint16_t bits, bool half) {
  return half ? to_float(Half{bits}) : to_float(BFloat{bits});
}
__device__ __forceinline__ float float_of_bits(float number, bool) { return number; }
__device__ __forceinline__ float float_of_bits(double number, bool) { return static_cast<float>(number); }

// Four numbers that lie together, as they are asked for: their kind is looked at when all are there that
// are asked for at once, else each would be waited for.
template <class N>
using FourBits = std::conditional_t<sizeof(N) == sizeof(uint16_t), uint2, float4>;
__device__ __forceinline__ float number_of(const uint2& four, int i, bool half) {
  return float_of_bits(static_cast<uint16_t>((i < 2 ? four.x : four.y) >> 16 * (i % 2)), half);
}
__device__ __forceinline__ float number_of(const float4& four, int i, bool) {
  return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
}

template <class F>
__device__ __forceinline__ void put_factor(const HeadRows& rows, int j, float number, F* to) {
  *to = rounded(rows.powers == nullptr ? number : number * inverse_power(rows.powers[j * rows.power_step]),
                F{});
}

// kAtOnce numbers of a thread are under way at a time.
template <int kAtOnce, class N, class F>
__device__ __forceinline__ void load_numbers_of(const N* from, const HeadRows& rows, int all_rows,
                                                int padded, int stride, bool half, F* to) {
  // What lies together is read by threads side by side.
  const bool by_heads = rows.head_stride <= rows.column_stride;
  const int across = by_heads ? all_rows : padded, count = all_rows * padded;
#pragma unroll 1
  for (int base = static_cast<int>(threadIdx.x); base < count; base += kAtOnce * kAttentionThreads) {
    N numbers[kAtOnce];
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int i = base + n * kAttentionThreads, inner = i % across, outer = i / across;
      const int j = by_heads ? inner : outer, k = by_heads ? outer : inner;
      const bool there = j < rows.heads && k < rows.columns;
      numbers[n] = there ? from[j * rows.head_stride + k * rows.column_stride] : N{};
    }
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int i = base + n * kAttentionThreads, inner = i % across, outer = i / across;
      const int j = by_heads ? inner : outer, k = by_heads ? outer : inner;
      if (i < count)
        put_factor(rows, j, float_of_bits(numbers[n], half), to + static_cast<int64_t>(j) * stride + k);
    }
  }
}

// The same in vectors of four numbers along the heads or the columns, of which there are multiples of four.
template <int kAtOnce, class N, class F>
__device__ __forceinline__ void load_vectors_of(const N* from, const HeadRows& rows, int all_rows,
                                                int padded, int stride, bool half, F* to) {
  const bool by_heads = rows.head_stride == 1;
  const int vectors = (by_heads ? all_rows : padded) / kTogether, count = by_heads ? padded : all_rows;
  const int last = by_heads ? rows.heads : rows.columns, end = by_heads ? rows.columns : rows.heads;
  const int64_t apart = by_heads ? rows.column_stride : rows.head_stride;
#pragma unroll 1
  for (int base = static_cast<int>(threadIdx.x); base < vectors * count;
       base += kAtOnce * kAttentionThreads) {
    FourBits<N> numbers[kAtOnce];
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int i = base + n * kAttentionThreads, inner = i % vectors * kTogether, outer = i / vectors;
      const bool there = inner < last && outer < end;
      numbers[n] =
          there ? *reinterpret_cast<const FourBits<N>*>(from + outer * apart + inner) : FourBits<N>{};
    }
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int i = base + n * kAttentionThreads, inner = i % vectors * kTogether, outer = i / vectors;
      if (outer >= count) continue;
#pragma unroll
      for (int v = 0; v < kTogether; ++v) {
        const int j = by_heads ? inner + v : outer, k = by_heads ? outer : inner + v;
        put_factor(rows, j, number_of(numbers[n], v, half), to + static_cast<int64_t>(j) * stride + k);
      }
    }
  }
}

// Whether rows can be read in such vectors.
template <class N>
__device__ __forceinline__ bool in_vectors(const N* from, const HeadRows& rows) {
  const bool by_heads = rows.head_stride == 1;
  if (!by_heads && rows.column_stride != 1) return false;
  const int64_t apart = by_heads ? rows.column_stride : rows.head_stride;
  const int along = by_heads ? rows.heads : rows.columns;
  return along % kTogether == 0 && apart % kTogether == 0 &&
         reinterpret_cast<uintptr_t>(from) % (kTogether * sizeof(N)) == 0;
}

template <int kAtOnce, class N, class F>
__device__ __forceinline__ void load_factor(const N* from, const HeadRows& rows, int all_rows, int padded,
                                            int stride, bool half, F* to) {
  if (in_vectors(from, rows))
    load_vectors_of<kAtOnce>(from, rows, all_rows, padded, stride, half, to);
  else
    load_numbers_of<kAtOnce>(from, rows, all_rows, padded, stride, half, to);
}

// to[j][k] of `all_rows` heads, zeros beyond those and the columns that there are. By all threads.
template <int kAtOnce = 4, class F>
__device__ __forceinline__ void load_rows(const Numbers& numbers, int64_t origin, const HeadRows& rows,
                                          int all_rows, int padded, int stride, F* to) {
  if (numbers.kind == NumberKind::kFloat64)
    load_numbers_of<1>(static_cast<const double*>(numbers.data) + origin, rows, all_rows, padded, stride,
                       false, to);
  else if (numbers.kind == NumberKind::kFloat32)
    load_factor<kAtOnce>(static_cast<const float*>(numbers.data) + origin, rows, all_rows, padded, stride,
                         false, to);
  else
    load_factor<kAtOnce>(static_cast<const uint16_t*>(numbers.data) + origin, rows, all_rows, padded,
                         stride, numbers.kind == NumberKind::kFloat16, to);
}

template <int kAtOnce = 4, class F>
__device__ __forceinline__ void load_query(const AttentionProblem& problem, int64_t b, int rows, int padded,
                                           int stride, F* to) {
  const Numbers& query = problem.query;
  load_rows<kAtOnce>(query, problem.query_per_sequence ? b * query.stride[0] : 0,
                     {query.stride[2], query.stride[1], static_cast<int>(problem.heads),
                      static_cast<int>(problem.key_columns)},
                     rows, padded, stride, to);
}

}  // namespace ec::cuda
