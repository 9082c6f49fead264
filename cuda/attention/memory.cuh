// SPDX-License-Identifier: Apache-2.0
// What a block keeps while it walks its tokens: in shared memory, or, where that is full, in a part of the
// workspace that only this block uses.
#pragma once

#include "attention/stage.cuh"

namespace ec::cuda {

struct Place {
  int64_t at;
  bool shared;
};

struct BlockMemory {
  size_t shared_bytes, block_bytes;
  unsigned char* blocks;  // block_bytes for each block

  template <class T>
  __device__ T* find(const Place& place, unsigned char* shared) const {
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

// to[j][k] of `rows` heads, zeros beyond those and the columns that there are. By all threads.
template <class F>
__device__ __forceinline__ void load_query(const AttentionProblem& problem, int64_t b, int rows, int padded,
                                           int stride, F* to) {
  const Numbers& query = problem.query;
  const int64_t origin = problem.query_per_sequence ? b * query.stride[0] : 0;
  for (int i = static_cast<int>(threadIdx.x); i < rows * padded; i += kAttentionThreads) {
    const int k = i / rows, j = i % rows;  // heads of a column lie together as a rule
    const bool there = j < problem.heads && k < problem.key_columns;
    const double number =
        there ? number_at(query, origin + k * query.stride[1] + j * query.stride[2]) : 0.0;
    to[static_cast<int64_t>(j) * stride + k] = rounded(static_cast<float>(number), F{});
  }
}

}  // namespace ec::cuda
