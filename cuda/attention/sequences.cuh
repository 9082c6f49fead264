// SPDX-License-Identifier: Apache-2.0
// Where sequences lie, and how the work is cut: all tokens that may count, sequence after sequence, are one
// line of places, of which each block takes an equal share. So blocks are equally busy whatever the lengths
// are, and at most two sequences of a block are cut: what it has of the one it goes on with and of the one
// it begins goes to a slot each, and another kernel adds up the slots of a sequence in their order.
//
// Tokens before the first and after the last that a mask lets count are no places (find_ranges).
#pragma once

#include "attention/attention.h"
#include "common/warp.cuh"

namespace ec::cuda {

constexpr int kAttentionWarps = 8;
constexpr int kAttentionThreads = kAttentionWarps * kWarpSize;
constexpr int kLeastShare = 32;  // places of a block, where there are so many

__device__ __forceinline__ double number_at(const Numbers& numbers, int64_t at) {
  switch (numbers.kind) {
    case NumberKind::kFloat64:
      return static_cast<const double*>(numbers.data)[at];
    case NumberKind::kFloat32:
      return static_cast<double>(static_cast<const float*>(numbers.data)[at]);
    case NumberKind::kFloat16:
      return static_cast<double>(to_float(static_cast<const Half*>(numbers.data)[at]));
    default:
      return static_cast<double>(to_float(static_cast<const BFloat*>(numbers.data)[at]));
  }
}

__device__ __forceinline__ float float_of(double a) { return static_cast<float>(a); }
template <class N>
__device__ __forceinline__ float float_of(N a) {
  return to_float(a);
}

struct Sequences {
  int64_t count, tokens, heads;
  const int64_t* offsets;  // of ragged tokens
  const int64_t* begins;   // [count + 1] places, where they are not plain to see; else null
  const int64_t* firsts;   // [count]: the token of the first place; null: 0

  __device__ int64_t offset(int64_t b) const { return max(int64_t{0}, min(offsets[b], tokens)); }
  // Of its first place among those of all sequences.
  __device__ int64_t begin(int64_t b) const {
    if (begins != nullptr) return begins[b];
    return offsets != nullptr ? offset(b) : b * tokens;
  }
  __device__ int64_t total() const { return begin(count); }
  __device__ int64_t first(int64_t b) const { return firsts == nullptr ? 0 : firsts[b]; }
  // Tokens that there are, counting or not.
  __device__ int64_t room(int64_t b) const {
    return offsets == nullptr ? tokens : max(int64_t{0}, offset(b + 1) - offset(b));
  }
  // Element of token 0 in an array whose first two axes are sequence and token.
  __device__ int64_t origin(const int64_t* stride, int64_t b) const {
    return offsets == nullptr ? b * stride[0] : offset(b) * stride[1];
  }
  // The same in arrays like scores, and (one a token) like grad_mask.
  __device__ int64_t score_origin(int64_t b) const {
    return offsets == nullptr ? b * heads * tokens : offset(b);
  }
  __device__ int64_t token_origin(int64_t b) const { return offsets == nullptr ? b * tokens : offset(b); }
};

// The first sequence that begins at this place or after it, `count` where none does. By all lanes of a
// warp.
__device__ __forceinline__ int64_t first_from(const Sequences& sequences, int64_t place) {
  int64_t low = 0, high = sequences.count;
  if (sequences.begins == nullptr && sequences.offsets == nullptr) {
    const int64_t tokens = sequences.tokens;
    return place <= 0 ? 0 : tokens == 0 ? high : min(high, (place + tokens - 1) / tokens);
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  while (low < high) {
    const int64_t step = (high - low + kWarpSize - 1) / kWarpSize, at = low + lane * step;
    const int before = __popc(__ballot_sync(kAllLanes, at < high && sequences.begin(at) < place));
    high = min(high, low + before * step);
    if (before > 0) low += (before - 1) * step + 1;
  }
  return low;
}

// A block's share of the places.
struct Share {
  __device__ Share(const Sequences& sequences, int64_t blocks)
      : total(sequences.total()),
        size(max(int64_t{kLeastShare}, (total + blocks - 1) / blocks)),
        most(blocks - 1) {}
  // Of the sequences that begin at a place.
  __device__ int64_t owner(int64_t place) const { return min(place / size, most); }

  int64_t total, size;
  int64_t most;  // the last block
};

// What a block has of one sequence.
struct Piece {
  int64_t sequence;
  int64_t first, last;  // tokens of the sequence
  bool begins, ends;    // with the sequence

  __device__ bool whole() const { return begins && ends; }
  // Where a part of a sequence goes.
  __device__ int64_t slot(int64_t block) const { return 2 * block + (begins ? 1 : 0); }
};

// The pieces of a block, in order. Sequences without places are pieces without tokens.
struct PieceWalk {
  PieceWalk() = default;
  // By all lanes of a warp.
  __device__ PieceWalk(const Sequences& sequences, const Share& share, int64_t block)
      : low(block * share.size),
        high(min(low + share.size, share.total)),
        limit(low + share.size + (block == share.most ? 1 : 0)) {
    at = low > share.total ? sequences.count : first_from(sequences, low);
    begin = sequences.begin(at);
    if (low >= share.total || at == 0 || begin <= low) return;
    begin = sequences.begin(--at);  // it has begun before
  }

  __device__ bool next(const Sequences& sequences, Piece& piece) {
    if (at >= sequences.count || begin >= limit) return false;
    const int64_t end = sequences.begin(at + 1), first = sequences.first(at) - begin;
    const int64_t from = max(begin, low), to = max(from, min(end, high));
    piece = {at, first + from, first + to, begin >= low, end <= high};
    ++at;
    begin = end;
    return true;
  }

  int64_t low, high;  // places of the block
  int64_t limit;      // of where its sequences begin: the last has those without places at the end, too
  int64_t at, begin;  // the next sequence
};

// The sequence that a block begins and another goes on with, if there is one; else count. There are fewer
// such sequences than blocks, and fewer than sequences: i counts either.
__device__ __forceinline__ int64_t cut_sequence(const Sequences& sequences, const Share& share, int64_t i) {
  int64_t b = i;
  if (sequences.count > share.most + 1) b = first_from(sequences, (i + 1) * share.size) - 1;
  if (b < 0 || b >= sequences.count) return sequences.count;
  const int64_t begin = sequences.begin(b), end = sequences.begin(b + 1);
  if (end <= begin || share.owner(begin) == share.owner(end - 1)) return sequences.count;
  const bool here = sequences.count <= share.most + 1 || share.owner(begin) == i;
  return here ? b : sequences.count;
}

// The slots of a cut sequence, in order: of its first block, then of all others.
struct Slots {
  __device__ Slots(const Sequences& sequences, const Share& share, int64_t b)
      : first(share.owner(sequences.begin(b))),
        count(share.owner(sequences.begin(b + 1) - 1) - first + 1) {}
  __device__ int64_t operator[](int64_t i) const { return 2 * (first + i) + (i == 0 ? 1 : 0); }

  int64_t first, count;
};

// Whether a token counts, and what is added to its scores. Requires: a place, or within the lengths.
__device__ __forceinline__ bool kept(const AttentionProblem& problem, const Sequences& sequences, int64_t b,
                                     int64_t t, float* offset) {
  *offset = 0.0f;
  bool own = true;
  if (problem.keep != nullptr)
    own = problem.keep[sequences.origin(problem.keep_stride, b) + t * problem.keep_stride[1]] != 0;
  if (problem.mask.data != nullptr) {
    const int64_t at = sequences.origin(problem.mask.stride, b) + t * problem.mask.stride[1];
    *offset = static_cast<float>(number_at(problem.mask, at));
  }
  return own && *offset != -HUGE_VALF;
}

}  // namespace ec::cuda
