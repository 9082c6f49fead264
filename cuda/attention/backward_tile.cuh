// SPDX-License-Identifier: Apache-2.0
// What the kernels of the backward share: the call, what is known of each head, and the gradients of the
// scores of one tile.
//
// Where the logarithm of a sum of weights is far from 0 all the weight may be on a few tokens: ds is then
// the difference of equal numbers, and weights made again from a rounded lse may not sum to 1. Of such
// sharp sequences the sums of A and of A dA are taken first, by a walk of their own; so they are where
// weights have gradients of their own.
#pragma once

#include "attention/own_heads.cuh"

namespace ec::cuda {

constexpr float kSharpLse = 64.0f;
constexpr float kLargestFloat = 3.4028235e38f;

// [sequence][head], or [sequence]; made by prepare_backward.
struct BackwardTerms {
  float* row_term;  // h_j - S_j . G_j
  int* sharp;       // [sequence]
  double* sums;     // [sequence][head][2]: of A, of A dA, of sharp sequences that are not cut
  // Of float16 on tensor cores, else null: powers.cuh, of the rows of grad_out and of the query.
  float* grad_powers;   // [sequence][head]
  float* query_powers;  // [sequence, or 1][head]
};

// Of parts of sequences, and (query of all sequences) of blocks.
struct BackwardSlots {
  double* sums;        // [slot][head][2], as above
  double* score_sums;  // [slot][head]
  float* query;        // [slot, or one of `queries`][head][key column]
  int64_t queries;     // those of a query of all sequences
  // Where there are fewer of them than blocks: how many blocks have started, and [block of the cluster]
  // [queries] whose turn it is.
  int *started, *turns;
};

struct BackwardCall {
  AttentionProblem problem;
  AttentionGradient gradient;
  Sequences sequences;
  TileShape tile;
  TileShape halves[2];  // of the blocks of a cluster, where they are in clusters: `tile` is the first
  BlockMemory memory;
  Place number, walk, stages, states, scores, products, weights, gradients, pooled, across;
  Place value_factor, query_factor, query_sums;
  Place received;  // in clusters
  BackwardTerms terms;
  BackwardSlots slots;
  // Digits that grad_out has more than the tokens, where it is rounded to their kind: of float32's 24.
  int grad_dropped;

  __device__ bool scored() const { return problem.query.data != nullptr; }
  __device__ bool wants_query() const { return scored() && gradient.grad_query != nullptr; }
};

__device__ __forceinline__ float gradient_of_lse(const AttentionGradient& gradient, int64_t b, int64_t j) {
  const Numbers& array = gradient.grad_lse;
  if (array.data == nullptr) return 0.0f;
  return static_cast<float>(number_at(array, b * array.stride[0] + j * array.stride[1]));
}

// What scores are summed up from for the gradient of the temperature: those of a sharp head are all but
// equal where they have weight.
__device__ __forceinline__ float score_origin_of(float lse) {
  return fabsf(lse) > kSharpLse && fabsf(lse) <= kLargestFloat ? lse : 0.0f;
}

// d loss / d T from the sum of ds (s - origin); ds sums to d loss / d lse.
__device__ __forceinline__ float temperature_gradient(const BackwardCall& call, int64_t b, int64_t j,
                                                      double sum) {
  const Numbers& array = call.problem.temperature;
  const double t = array.data == nullptr ? call.problem.fixed_temperature
                                         : number_at(array, b * array.stride[0] + j * array.stride[1]);
  const float origin = score_origin_of(call.gradient.lse[b * call.problem.heads + j]);
  const double of_origin =
      static_cast<double>(origin) * static_cast<double>(gradient_of_lse(call.gradient, b, j));
  // Sums over heads and sequences stay finite.
  const double most = static_cast<double>(kLargestFloat / (1 << 24)), found = -(sum + of_origin) / t;
  return static_cast<float>(found > most ? most : found < -most ? -most : found);
}

// Of each head while a sequence is walked.
struct HeadGradient {
  double score_sum, weight_sum, product_sum;
  float inverse, lse, correction, row_term, origin;
  float grad_power, query_power;
  float power;  // of dz of a tile
};

// The correction and the row term of a head of a sharp sequence.
__device__ __forceinline__ void correct_head(const BackwardCall& call, const Share& share,
                                             const Piece& piece, int j, HeadGradient& state) {
  const int64_t heads = call.problem.heads, b = piece.sequence;
  double weight = 0.0, product = 0.0;
  if (piece.whole()) {
    weight = call.terms.sums[2 * (b * heads + j)];
    product = call.terms.sums[2 * (b * heads + j) + 1];
  } else {
    const Slots slots(call.sequences, share, b);
    for (int64_t part = 0; part < slots.count; ++part) {
      weight += call.slots.sums[2 * (slots[part] * heads + j)];
      product += call.slots.sums[2 * (slots[part] * heads + j) + 1];
    }
  }
  if (weight == 0.0) return;  // no token has a finite score
  state.correction = static_cast<float>(1.0 / weight);
  state.row_term =
      static_cast<float>(static_cast<double>(gradient_of_lse(call.gradient, b, j)) - product / weight);
}

// Of `rows` heads; those that there are not have no weights. sums: the walk over sharp sequences, for what
// the other corrects by.
__device__ __forceinline__ void begin_heads(const BackwardCall& call, const Share& share,
                                            const Piece& piece, int rows, bool sums, HeadGradient* states) {
  const int64_t heads = call.problem.heads, b = piece.sequence;
  for (int j = static_cast<int>(threadIdx.x); j < rows; j += kAttentionThreads) {
    HeadGradient state = {0.0, 0.0, 0.0, 0.0f, HUGE_VALF, 0.0f, 0.0f, 0.0f, 1.0f, 1.0f, 1.0f};
    if (j < heads) {
      const float given = call.gradient.lse[b * heads + j];
      // A head without a finite score has no weights: exp(s - infinity) is 0 whatever s is.
      state.lse = given == -HUGE_VALF ? HUGE_VALF : given;
      state.origin = score_origin_of(given);
      state.inverse = inverse_temperature(call.problem, b, j);
      state.correction = 1.0f;
      state.row_term = sums ? 0.0f : call.terms.row_term[b * heads + j];
      if (!sums && call.terms.sharp[b] != 0) correct_head(call, share, piece, j, state);
      if (call.terms.grad_powers != nullptr) {
        state.grad_power = call.terms.grad_powers[b * heads + j];
        state.query_power =
            call.terms.query_powers[call.problem.query_per_sequence ? b * heads + j : int64_t{j}];
      }
    }
    states[j] = state;
  }
}

// What the warps tell each other of each token: [warp][lane].
struct Across {
  double squares[kAttentionWarps * kWarpSize];
  float along[kAttentionWarps * kWarpSize], mask[kAttentionWarps * kWarpSize];

  // In the same places, when all threads have the squares, and then those others: the largest of a warp's
  // heads, and powers (powers.cuh) [lane].
  __device__ float* largest_weight() { return reinterpret_cast<float*>(squares); }
  __device__ float* largest_gradient() { return largest_weight() + kAttentionWarps * kWarpSize; }
  __device__ float* weight_power() { return along; }
  __device__ const float* weight_power() const { return along; }
  __device__ float* gradient_power() { return mask; }
  __device__ const float* gradient_power() const { return mask; }
};

__device__ __forceinline__ float sum_across(const float* of_warps) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kAttentionWarps; ++i) sum += of_warps[i * kWarpSize + threadIdx.x % kWarpSize];
  return sum;
}

// body(i, j) of the heads of this thread.
template <class Pool, class Body>
__device__ __forceinline__ void for_pool_heads(int heads, const Body& body) {
  for_own_heads<Pool::kOwnHeads, Pool::kOwnHeads * kAttentionThreads / Pool::kHeadLanes, Pool::kHeadLanes>(
      heads, 0, body);
}

// a of the heads of this thread into `own`; returns 1 / |a|, and in *passed 0 where a token has no
// direction and passes nothing back.
template <class Pool>
__device__ __forceinline__ float activate_tile(const BackwardCall& call, int64_t b, const TileToken& token,
                                               const float* saved, OwnNumbers<Pool::kOwnHeads>& own,
                                               double* squares, float* passed) {
  const int heads = static_cast<int>(call.problem.heads), tokens = call.tile.tokens;
  const float* of_lane = saved + min(token.lane, tokens - 1);
  double square = 0.0;
  for_pool_heads<Pool>(heads, [&](int i, int j) {
    const float z = call.scored() && j < heads ? of_lane[j * tokens] : 0.0f;
    const float a = activated(call.problem, call.sequences, b, token, j, z);
    own(i, j) = a;
    square += static_cast<double>(a) * static_cast<double>(a);
  });
  return inverse_length(call.problem, token_sum<Pool::kHeadLanes>(square), squares, passed);
}

// A of this lane's token, from a score.
__device__ __forceinline__ float weight_again(const TileToken& token, const HeadGradient& state,
                                              float score) {
  // The difference is rounded as lse itself was: huge equal scores cancel.
  const float difference = score - state.lse;
  const float exponent = difference > 0.0f ? 0.0f : difference;  // NaN stays
  return token.counts() ? expf(exponent) * state.correction : 0.0f;
}

// dA of this lane's token: its product, and the weights' own gradient.
template <class Pool>
__device__ __forceinline__ float weight_gradient(const BackwardCall& call, const TileToken& token, int j,
                                                 const HeadGradient& state, float sum) {
  if (Pool::kScaled) sum *= state.grad_power;
  if (call.gradient.grad_weights != nullptr && token.there && j < call.problem.heads)
    sum += call.gradient.grad_weights[token.place + j * call.sequences.tokens];
  return token.counts() ? sum : 0.0f;
}

// From the pool's products and saved scores to the weights and dz of a tile, which the pool takes, and to
// what is wanted of each token. scores, weights, gradients: scratch [head][kScoreStride].
template <class Pool>
__device__ __forceinline__ void differentiate_tile(const BackwardCall& call, const TileHeader& header,
                                                   const float* offsets, const float* saved, float* scores,
                                                   float* weights, float* gradients, Across& across,
                                                   HeadGradient* states, Pool& pool) {
  constexpr int kOwn = Pool::kOwnHeads, kLanes = Pool::kHeadLanes;
  const AttentionProblem& problem = call.problem;
  const AttentionGradient& gradient = call.gradient;
  const int thread = static_cast<int>(threadIdx.x), heads = static_cast<int>(problem.heads);
  const int64_t b = header.piece.sequence;
  const TileToken token(call.sequences, header, call.tile.tokens, offsets, thread % kLanes);
  const bool normed = problem.norm == HeadNorm::kL2, bent = problem.activation == Activation::kTanh;
  OwnNumbers<kOwn> own(scores), own_weights(weights), own_gradients(gradients);
  float passed;
  const float length = activate_tile<Pool>(call, b, token, saved, own, across.squares, &passed);
  float along = 0.0f, of_mask = 0.0f;
  for_pool_heads<Pool>(heads, [&](int i, int j) {
    const float f = own(i, j) * length, score = (f + token.offset) * states[j].inverse;
    const float weight = weight_again(token, states[j], score);
    const float of_weight =
        weight_gradient<Pool>(call, token, j, states[j], pool.product(i, j, token.lane));
    const float ds = token.counts() ? weight * (of_weight + states[j].row_term) : 0.0f;
    const float df = ds * states[j].inverse;
    own_weights(i, j) = weight;
    own_gradients(i, j) = df;
    along = __fmaf_rn(f, df, along);
    of_mask += df;
    if (gradient.grad_temperature != nullptr) {
      // Where a score is -infinity its weight is 0, and so is the product.
      const float above = score - states[j].origin;
      const float sum =
          head_sum<kLanes>(token.counts() ? ds * (above < -kLargestFloat ? -kLargestFloat : above) : 0.0f);
      if (token.lane == 0) states[j].score_sum += static_cast<double>(sum);
    }
  });
  if (normed || gradient.grad_mask != nullptr) {
    across.along[thread] = token_sum<kLanes>(along);
    across.mask[thread] = token_sum<kLanes>(of_mask);
    __syncthreads();
    along = sum_across(across.along);
    of_mask = sum_across(across.mask);
  }
  for_pool_heads<Pool>(heads, [&](int i, int j) {
    const float a = own(i, j);
    float dz = own_gradients(i, j);
    if (normed) dz = (dz - a * length * along) * passed;
    if (bent) dz *= 1.0f - a * a;
    dz = token.counts() ? dz : 0.0f;
    if (token.there && gradient.grad_bias != nullptr && j < heads && pool.writes(j))
      gradient.grad_bias[token.place + j * call.sequences.tokens] = dz;
    own_gradients(i, j) = dz;
  });
  pool.put(own_weights, own_gradients, across, states);
  if (thread < kLanes && token.there && gradient.grad_mask != nullptr && pool.writes(0))
    gradient.grad_mask[call.sequences.token_origin(b) + token.t] = of_mask;
}

// Sums of A and of A dA over a tile, added to those of the heads: [head][2].
template <class Pool>
__device__ __forceinline__ void sum_tile(const BackwardCall& call, const TileHeader& header,
                                         const float* offsets, const float* saved, float* scores,
                                         Across& across, HeadGradient* states, const Pool& pool) {
  constexpr int kLanes = Pool::kHeadLanes;
  const int heads = static_cast<int>(call.problem.heads);
  const TileToken token(call.sequences, header, call.tile.tokens, offsets,
                        static_cast<int>(threadIdx.x) % kLanes);
  OwnNumbers<Pool::kOwnHeads> own(scores);
  float passed;
  const float length =
      activate_tile<Pool>(call, header.piece.sequence, token, saved, own, across.squares, &passed);
  for_pool_heads<Pool>(heads, [&](int i, int j) {
    const float score = (own(i, j) * length + token.offset) * states[j].inverse;
    const auto weight = static_cast<double>(weight_again(token, states[j], score));
    const auto of_weight = static_cast<double>(
        weight_gradient<Pool>(call, token, j, states[j], pool.product(i, j, token.lane)));
    const double sum = head_sum<kLanes>(weight),
                 product_sum = head_sum<kLanes>(token.counts() ? weight * of_weight : 0.0);
    if (token.lane != 0 || j >= heads) return;
    states[j].weight_sum += sum;
    states[j].product_sum += product_sum;
  });
}

}  // namespace ec::cuda
