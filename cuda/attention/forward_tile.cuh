// SPDX-License-Identifier: Apache-2.0
// What the kernels of the forward share: the call, and the weights of one tile.
#pragma once

#include "attention/own_heads.cuh"
#include "attention/rest.cuh"

namespace ec::cuda {

// Of each head while a sequence is walked. Together, so that one address does for all.
struct HeadState {
  double total, rounded_total;  // of the weights, and of the weights as they were pooled
  float inverse, reference, shrink;
};

// What tokens of a part of a sequence amount to; [slot][head], pooled [slot][head][value column].
struct ForwardSlots {
  float *pooled, *reference;
  double *total, *rounded_total;
};

struct ForwardCall {
  AttentionProblem problem;
  AttentionResult result;
  Sequences sequences;
  TileShape tile;
  TileShape halves[2];  // of the blocks of a cluster, where they are in clusters: `tile` is the first
  BlockMemory memory;
  Place walk, stages, states, squares, scores, factor;
  Place pooled, totals;  // without tensor cores
  Place weights, scale;  // with them
  Place received;        // in clusters
  float most_bounded;    // inverse temperature with which scores need no reference but 1; 0: none
  ForwardSlots slots;
  // [sequence][head]: what weights that are asked for are made of in the end.
  float *final_reference, *final_scale;
};

// What a part of a sequence counts by.
__device__ __forceinline__ float part_scale(double of_part, float own, float largest, float inverse) {
  return of_part == 0.0 ? 0.0f : own == largest ? 1.0f : expf((own - largest) * inverse);
}

// From the state of a whole sequence to the numbers of one of its heads; returns what pooled is scaled by.
__device__ __forceinline__ float finish_head(const ForwardCall& call, int64_t row, double total,
                                             double rounded_total, float reference, float inverse,
                                             bool writes) {
  const bool empty = total == 0.0;
  if (writes && call.result.lse != nullptr)
    call.result.lse[row] = empty ? -HUGE_VALF : reference * inverse + static_cast<float>(log(total));
  if (writes && call.final_scale != nullptr) {
    call.final_reference[row] = empty ? 0.0f : reference;
    call.final_scale[row] = empty ? 0.0f : static_cast<float>(1.0 / total);
  }
  return empty ? 0.0f : static_cast<float>(1.0 / rounded_total);
}

template <class Short>
__device__ __forceinline__ void store_two(float a, float b, Short* to) {
  *reinterpret_cast<unsigned*>(to) = pair_bits(a, b, Short{});
}
__device__ __forceinline__ void store_two(float a, float b, float* to) {
  *reinterpret_cast<float2*>(to) = float2{a, b};
}
// The first of two numbers, and the second where there is one; in one piece where that is possible.
template <class N>
__device__ __forceinline__ void store_one_or_two(float a, float b, bool both, N* to) {
  if (both && reinterpret_cast<uintptr_t>(to) % (2 * sizeof(N)) == 0) return store_two(a, b, to);
  to[0] = rounded(a, N{});
  if (both) to[1] = rounded(b, N{});
}

// Columns k and k + 1 of a row of out; those beyond the last are left out.
template <class T>
__device__ __forceinline__ void write_out(const ForwardCall& call, int64_t row, int k, float a, float b) {
  const int columns = static_cast<int>(call.problem.value_columns);
  if (k >= columns) return;
  const bool both = k + 1 < columns;
  const int64_t at = row * columns + k;
  store_one_or_two(a, b, both, static_cast<T*>(call.result.out) + at);
  if (call.result.wide != nullptr) store_one_or_two(a, b, both, call.result.wide + at);
  if (call.result.rest == nullptr) return;
  call.result.rest[at] = rest_of(a, rounded(a, T{}));
  if (both) call.result.rest[at + 1] = rest_of(b, rounded(b, T{}));
}

// Moves the reference of a head whose scores have grown far above it.
__device__ __forceinline__ void raise_reference(float largest, HeadState& state) {
  const float slack = kReferenceSlack / 2.0f / static_cast<float>(kLog2E);
  const float inverse = state.inverse, before = state.reference;
  const bool raised = (largest - before) * inverse > slack;
  state.shrink = raised ? expf((before - largest) * inverse) : 1.0f;
  if (raised) state.reference = largest;
}

// The weight of a number that lies so far above the reference.
__device__ __forceinline__ float power_above(float above, float inverse) {
  return exp2f(above * inverse * static_cast<float>(kLog2E));
}
// Of a number that counts.
__device__ __forceinline__ float power_of(float f, const HeadState& state) {
  const float reference = state.reference;
  return power_above(f - (reference == -HUGE_VALF ? 0.0f : reference), state.inverse);
}

// Of this warp's heads; f: of this lane's token.
template <class Pool>
__device__ __forceinline__ void raise_references(int heads, OwnNumbers<Pool::kOwnHeads>& f,
                                                 HeadState* states, const Pool& pool) {
  for_own_heads<Pool::kPooledHeads, Pool::kRows>(heads, pool.first_head(), [&](int i, int j) {
    const float largest = warp_max(f(i, j));
    if (threadIdx.x % kWarpSize == 0) raise_reference(largest, states[j]);
  });
  __syncwarp();
}

// The weights of a tile from its products. scores: room for those of all heads, [head][kScoreStride].
template <class Pool>
__device__ __forceinline__ void weigh_tile(const ForwardCall& call, const TileHeader& header,
                                           const float* offsets, float* scores, double* squares,
                                           HeadState* states, Pool& pool) {
  constexpr int kOwn = Pool::kOwnHeads;
  const AttentionProblem& problem = call.problem;
  const int heads = static_cast<int>(problem.heads);
  const int64_t step = call.sequences.tokens;
  const TileToken token(call.sequences, header, call.tile.tokens, offsets);
  OwnNumbers<kOwn> own(scores);
  double square = 0.0;
  for_own_heads<kOwn, Pool::kRows>(heads, pool.first_head(), [&](int i, int j) {
    float z = problem.query.data != nullptr ? pool.product(i, j, token.lane) : 0.0f;
    z = token.counts() ? z : 0.0f;
    if (token.there && call.result.scores != nullptr && pool.writes(j))
      call.result.scores[token.place + j * step] = z;
    const float a = activated(problem, call.sequences, header.piece.sequence, token, j, z);
    own(i, j) = a;
    square += static_cast<double>(a) * static_cast<double>(a);
  });
  float passed;
  const float length = inverse_length(problem, square, squares, &passed);
  bool bounded = true;
  for_own_heads<Pool::kPooledHeads, Pool::kRows>(heads, pool.first_head(), [&](int i, int j) {
    float& f = own(i, j);
    f = token.counts() ? f * length + token.offset : -HUGE_VALF;
    if (token.there && call.result.weights != nullptr && pool.writes(j))
      call.result.weights[token.place + j * step] = f;
    bounded = bounded && states[j].inverse <= call.most_bounded;
  });
  if (!bounded) raise_references(heads, own, states, pool);
  for_own_heads<Pool::kPooledHeads, Pool::kRows>(heads, pool.first_head(), [&](int i, int j) {
    pool.put(i, j, token.counts() ? power_of(own(i, j), states[j]) : 0.0f, states[j].shrink);
  });
}

// The state of a sequence without tokens, of heads that there are not too.
__device__ __forceinline__ void begin_states(const ForwardCall& call, int64_t b, int rows,
                                             HeadState* states) {
  for (int j = static_cast<int>(threadIdx.x); j < rows; j += kAttentionThreads) {
    const float inverse = j < call.problem.heads ? inverse_temperature(call.problem, b, j) : 0.0f;
    states[j].inverse = inverse;
    states[j].reference = inverse <= call.most_bounded ? 1.0f : -HUGE_VALF;
    states[j].shrink = 1.0f;
  }
}

}  // namespace ec::cuda
