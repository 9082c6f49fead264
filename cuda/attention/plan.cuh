// SPDX-License-Identifier: Apache-2.0
// What comes before and beside the kernels of attention: which tokens are places (sequences.cuh), and the
// numbers of those that are none.
#pragma once

#include "attention/layout.h"
#include "common/behind.cuh"

namespace ec::cuda {

constexpr int kLookedAt = 8;       // tokens of a lane at once
constexpr int kCountedAtOnce = 8;  // sequences of a thread

// How many tokens lie before the first that counts, or behind the last one: all `length` where none does.
// By a warp.
__device__ __forceinline__ int64_t count_missing(const AttentionProblem& problem,
                                                 const Sequences& sequences, int64_t b, int64_t length,
                                                 bool behind) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int64_t base = 0; base < length; base += kLookedAt * kWarpSize) {
    bool own[kLookedAt];
#pragma unroll
    for (int i = 0; i < kLookedAt; ++i) {
      const int64_t at = base + i * kWarpSize + lane;
      float offset;
      own[i] = at < length && kept(problem, sequences, b, behind ? length - 1 - at : at, &offset);
    }
#pragma unroll
    for (int i = 0; i < kLookedAt; ++i) {
      const unsigned counts = __ballot_sync(kAllLanes, own[i]);
      if (counts != 0) return base + i * kWarpSize + __ffs(counts) - 1;
    }
  }
  return length;
}

// firsts[b], counts[b]: from the first to the last token of a sequence that counts. A warp each.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    find_ranges(AttentionProblem problem, Sequences sequences, int64_t* firsts, int64_t* counts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kAttentionWarps + threadIdx.x / kWarpSize;
  if (b >= sequences.count) return;
  int64_t length = sequences.room(b);
  if (sequences.offsets == nullptr && problem.lengths != nullptr)
    length = max(int64_t{0}, min(problem.lengths[b], length));
  const int64_t first = count_missing(problem, sequences, b, length, false);
  const bool none = first == length;
  const int64_t behind = none ? 0 : count_missing(problem, sequences, b, length, true);
  if (lane != 0) return;
  firsts[b] = none ? 0 : first;
  counts[b] = none ? 0 : length - behind - first;
}

// begins[b] = the sum of the counts before b, each taken as at most `most`. By one block, whose threads
// have several side by side: how often memory is waited for is what takes time.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    add_counts(const int64_t* counts, int64_t count, int64_t most, int64_t* begins) {
  wait_for_kernel_before();
  int64_t* of_warps = shared_array<int64_t>(kAttentionWarps);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  int64_t before = 0;
  for (int64_t base = 0; base < count; base += kCountedAtOnce * kAttentionThreads) {
    const int64_t first = base + kCountedAtOnce * threadIdx.x;
    int64_t own[kCountedAtOnce], sum = 0;
#pragma unroll
    for (int i = 0; i < kCountedAtOnce; ++i) own[i] = first + i < count ? counts[first + i] : 0;
#pragma unroll
    for (int64_t& n : own) sum += n = max(int64_t{0}, min(n, most));
    const int64_t of_thread = sum;
    for (int step = 1; step < kWarpSize; step *= 2) {  // to the sum of the lanes up to this one
      const int64_t other = __shfl_sync(kAllLanes, sum, max(0, lane - step));
      sum += lane >= step ? other : 0;
    }
    if (lane == kWarpSize - 1) of_warps[warp] = sum;
    __syncthreads();
    int64_t of_block = 0;
    for (int i = 0; i < kAttentionWarps; ++i) {
      if (i == warp) sum += of_block;
      of_block += of_warps[i];
    }
    int64_t begin = before + sum - of_thread;
#pragma unroll
    for (int i = 0; i < kCountedAtOnce; ++i) {
      if (first + i < count) begins[first + i] = begin;
      begin += own[i];
    }
    before += of_block;
    __syncthreads();
  }
  if (threadIdx.x == 0) begins[count] = before;
}

// A block for each sequence (blockIdx.x, and on) and share of its tokens (blockIdx.y).
static __global__ void __launch_bounds__(kAttentionThreads, 1) fill_gaps(Sequences sequences, Gaps gaps) {
  for (int64_t b = blockIdx.x; b < sequences.count; b += gridDim.x) {
    const int64_t first = sequences.first(b), last = first + sequences.begin(b + 1) - sequences.begin(b);
    const int64_t room = sequences.room(b), missing = room - (last - first);
    const int64_t from = missing * blockIdx.y / gridDim.y, to = missing * (blockIdx.y + 1) / gridDim.y;
    const auto token = [&](int64_t i) { return i < first ? i : i + last - first; };
    const int64_t token_origin = sequences.token_origin(b), score_origin = sequences.score_origin(b);
    for (int a = 0; a < 2; ++a) {
      if (gaps.rows[a] != nullptr)
        for (int64_t i = from; i < to; ++i) {
          unsigned char* row = gaps.rows[a] + (token_origin + token(i)) * gaps.row_bytes[a];
          for (int64_t k = 2 * threadIdx.x; k < gaps.row_bytes[a]; k += 2 * kAttentionThreads)
            *reinterpret_cast<uint16_t*>(row + k) = 0;
        }
      if (gaps.like_scores[a] != nullptr)
        for (int64_t j = 0; j < sequences.heads; ++j)
          for (int64_t i = from + threadIdx.x; i < to; i += kAttentionThreads)
            gaps.like_scores[a][score_origin + j * sequences.tokens + token(i)] = gaps.value[a];
    }
    if (gaps.like_tokens != nullptr)
      for (int64_t i = from + threadIdx.x; i < to; i += kAttentionThreads)
        gaps.like_tokens[token_origin + token(i)] = 0.0f;
  }
}

// What no sequence has: of ragged tokens those before the first sequence and behind the last one. Zeros.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    fill_outside(Sequences sequences, Gaps gaps) {
  const int64_t head = sequences.offset(0), tail = sequences.offset(sequences.count);
  const int64_t outside = head + max(int64_t{0}, sequences.tokens - tail);
  for (int64_t i = blockIdx.x; i < outside; i += gridDim.x) {
    const int64_t token = i < head ? i : tail + i - head;
    for (int a = 0; a < 2; ++a) {
      if (gaps.rows[a] != nullptr)
        for (int64_t k = 2 * threadIdx.x; k < gaps.row_bytes[a]; k += 2 * kAttentionThreads)
          *reinterpret_cast<uint16_t*>(gaps.rows[a] + token * gaps.row_bytes[a] + k) = 0;
      if (gaps.like_scores[a] != nullptr)
        for (int64_t j = threadIdx.x; j < sequences.heads; j += kAttentionThreads)
          gaps.like_scores[a][j * sequences.tokens + token] = 0.0f;
    }
    if (gaps.like_tokens != nullptr && threadIdx.x == 0) gaps.like_tokens[token] = 0.0f;
  }
}

}  // namespace ec::cuda
