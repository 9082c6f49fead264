// SPDX-License-Identifier: Apache-2.0
// What the kernels of the backward share: the call, what is known of each head, and the gradients of the
// scores of one tile.
//
// Where the logarithm of a sum of weights is far from 0 all the weight may be on a few tokens: ds is then
// the difference of equal numbers, and weights made again from a rounded lse may not sum to 1. Of such
// sharp sequences the sums of A and of A dA are taken first, by a walk of their own; so they are where
// weights have gradients of their own.
#pragma once

#include "attention/memory.cuh"

namespace ec::cuda {

constexpr float kSharpLse = 64.0f;
constexpr float kLargestFloat = 3.4028235e38f;

// [sequence][head], or [sequence]; made by prepare_backward.
struct BackwardTerms {
  float* row_term;  // h_j - S_j . G_j
  int* sharp;       // [sequence]
  double* sums;     // [sequence][head][2]: of A, of A dA, of sharp sequences that are not cut
};

// Of parts of sequences, and (query of all sequences) of blocks.
struct BackwardSlots {
  double* sums;          // [slot][head][2], as above
  double* score_sums;    // [slot][head]
  float* query;          // [slot, or block][head][key column]
};

struct BackwardCall {
  AttentionProblem problem;
  AttentionGradient gradient;
  Sequences sequences;
  TileShape tile;
  BlockMemory memory;
  Place stages, states, scores, products, weights, gradients, across;
  Place value_factor, query_factor, query_sums;
  BackwardTerms terms;
  BackwardSlots slots;

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

// Numbers of each head while a sequence is walked.
struct GradientStates {
  double *score_sum, *weight_sum, *product_sum;
  float *inverse, *lse, *correction, *row_term, *origin;

  static int64_t bytes(int64_t heads) { return heads * (3 * sizeof(double) + 5 * sizeof(float)); }
  __device__ GradientStates(void* memory, int64_t heads)
      : score_sum(static_cast<double*>(memory)),
        weight_sum(score_sum + heads),
        product_sum(weight_sum + heads),
        inverse(reinterpret_cast<float*>(product_sum + heads)),
        lse(inverse + heads),
        correction(lse + heads),
        row_term(correction + heads),
        origin(row_term + heads) {}

  // first_walk: of sharp sequences, over what begin would correct by.
  __device__ void begin(const BackwardCall& call, const Share& share, const Piece& piece, bool first_walk) {
    const int64_t heads = call.problem.heads, b = piece.sequence;
    for (int j = static_cast<int>(threadIdx.x); j < heads; j += kAttentionThreads) {
      const float given = call.gradient.lse[b * heads + j];
      // A head without a finite score has no weights: exp(s - infinity) is 0 whatever s is.
      lse[j] = given == -HUGE_VALF ? HUGE_VALF : given;
      origin[j] = score_origin_of(given);
      inverse[j] = inverse_temperature(call.problem, b, j);
      correction[j] = 1.0f;
      row_term[j] = first_walk ? 0.0f : call.terms.row_term[b * heads + j];
      score_sum[j] = weight_sum[j] = product_sum[j] = 0.0;
      if (!first_walk && call.terms.sharp[b] != 0 && piece.last > piece.first) correct(call, share, piece, j);
    }
  }

 private:
  __device__ void correct(const BackwardCall& call, const Share& share, const Piece& piece, int j) {
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
    correction[j] = static_cast<float>(1.0 / weight);
    row_term[j] =
        static_cast<float>(static_cast<double>(gradient_of_lse(call.gradient, b, j)) - product / weight);
  }
};

// This lane's token of a tile.
struct TileToken {
  __device__ TileToken(const BackwardCall& call, const Piece& piece, int64_t first, const float* offsets)
      : lane(static_cast<int>(threadIdx.x) % kWarpSize), t(first + lane) {
    there = lane < call.tile.tokens && t < piece.last;
    offset = there ? offsets[lane] : -HUGE_VALF;
    counts = offset != -HUGE_VALF;
    place = call.sequences.score_origin(piece.sequence) + t;
  }

  int lane;
  int64_t t;
  int64_t place;  // in arrays like scores, of head 0
  float offset;
  bool there, counts;
};

// What the warps tell each other of each token: [warp][lane].
struct Across {
  double squares[kAttentionWarps][kWarpSize];
  float along[kAttentionWarps][kWarpSize], mask[kAttentionWarps][kWarpSize];
};

// scores[j][t] = a of the heads of this warp; returns 1 / |a|, and 0 in *passed where a token has no
// direction and passes nothing back.
__device__ __forceinline__ float activate_tile(const BackwardCall& call, const Piece& piece,
                                               const TileToken& token, const float* saved, float* scores,
                                               Across& across, float* passed) {
  const AttentionProblem& problem = call.problem;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int64_t bias =
      call.sequences.origin(problem.bias.stride, piece.sequence) + token.t * problem.bias.stride[1];
  double square = 0.0;
  for (int j = warp; j < problem.heads; j += kAttentionWarps) {
    float a = call.scored() ? saved[j * kScoreStride + token.lane] : 0.0f;
    if (token.counts && problem.bias.data != nullptr)
      a += static_cast<float>(number_at(problem.bias, bias + j * problem.bias.stride[2]));
    if (problem.activation == Activation::kTanh) a = tanhf(a);
    scores[j * kScoreStride + token.lane] = a;
    square += static_cast<double>(a) * static_cast<double>(a);
  }
  *passed = 1.0f;
  if (problem.norm != HeadNorm::kL2) return 1.0f;
  across.squares[warp][token.lane] = square;
  __syncthreads();
  square = 0.0;
  for (int i = 0; i < kAttentionWarps; ++i) square += across.squares[i][token.lane];
  const double norm = sqrt(square);
  const float length = static_cast<float>(1.0 / fmax(kLeastNorm, norm));
  *passed = norm > kLeastNorm ? length : 0.0f;
  return length;
}

// A of this lane's token, from a.
__device__ __forceinline__ float weight_again(const TileToken& token, const GradientStates& states, int j,
                                              float f, float* score) {
  // Product and difference are rounded one by one, as lse itself was: huge equal scores cancel.
  *score = (f + token.offset) * states.inverse[j];
  const float difference = *score - states.lse[j];
  const float exponent = difference > 0.0f ? 0.0f : difference;  // NaN stays
  return token.counts ? expf(exponent) * states.correction[j] : 0.0f;
}

// dA of this lane's token: the sum of what the products' slots have, and the weights' own gradient.
__device__ __forceinline__ float weight_gradient(const BackwardCall& call, const TileToken& token, int j,
                                                 const float* products, int product_slots, int slot_numbers) {
  float sum = 0.0f;
  if (!token.counts) return sum;
  for (int slot = 0; slot < product_slots; ++slot)
    sum += products[slot * slot_numbers + j * kScoreStride + token.lane];
  if (call.gradient.grad_weights != nullptr)
    sum += call.gradient.grad_weights[token.place + j * call.sequences.tokens];
  return sum;
}

// From dA (products[slot][head][token]) and saved scores to the weights and dz of a tile, which put(j,
// weight, dz) takes, and to what is wanted of each token. scores: scratch [head][kScoreStride].
template <class Put>
__device__ __forceinline__ void differentiate_tile(const BackwardCall& call, const Piece& piece,
                                                   int64_t first, const float* offsets, const float* saved,
                                                   int product_slots, int slot_numbers, float* products,
                                                   float* weights, float* scores, Across& across,
                                                   const GradientStates& states, const Put& put) {
  const AttentionProblem& problem = call.problem;
  const AttentionGradient& gradient = call.gradient;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const TileToken token(call, piece, first, offsets);
  const bool normed = problem.norm == HeadNorm::kL2, bent = problem.activation == Activation::kTanh;
  float passed;
  const float length = activate_tile(call, piece, token, saved, scores, across, &passed);
  float along = 0.0f, of_mask = 0.0f;
  for (int j = warp; j < problem.heads; j += kAttentionWarps) {
    const int at = j * kScoreStride + token.lane;
    const float f = scores[at] * length;
    float score;
    const float weight = weight_again(token, states, j, f, &score);
    const float of_weight = weight_gradient(call, token, j, products, product_slots, slot_numbers);
    const float ds = token.counts ? weight * (of_weight + states.row_term[j]) : 0.0f;
    const float df = ds * states.inverse[j];
    weights[at] = weight;
    products[at] = df;
    along = __fmaf_rn(f, df, along);
    of_mask += df;
    if (gradient.grad_temperature == nullptr) continue;
    // Where a score is -infinity its weight is 0, and so is the product.
    const float above = score - states.origin[j];
    const float sum = warp_sum(token.counts ? ds * (above < -kLargestFloat ? -kLargestFloat : above) : 0.0f);
    if (token.lane == 0) states.score_sum[j] += static_cast<double>(sum);
  }
  if (normed || gradient.grad_mask != nullptr) {
    across.along[warp][token.lane] = along;
    across.mask[warp][token.lane] = of_mask;
    __syncthreads();
    along = of_mask = 0.0f;
    for (int i = 0; i < kAttentionWarps; ++i) {
      along += across.along[i][token.lane];
      of_mask += across.mask[i][token.lane];
    }
  }
  for (int j = warp; j < problem.heads; j += kAttentionWarps) {
    const int at = j * kScoreStride + token.lane;
    const float a = scores[at];
    float dz = products[at];
    if (normed) dz = (dz - a * length * along) * passed;
    if (bent) dz *= 1.0f - a * a;
    dz = token.counts ? dz : 0.0f;
    if (token.there && gradient.grad_bias != nullptr)
      gradient.grad_bias[token.place + j * call.sequences.tokens] = dz;
    put(j, weights[at], dz);
  }
  if (warp == 0 && token.there && gradient.grad_mask != nullptr)
    gradient.grad_mask[call.sequences.token_origin(piece.sequence) + token.t] = of_mask;
}

// The sums of A and of A dA of a tile, added to those of the states.
__device__ __forceinline__ void sum_tile(const BackwardCall& call, const Piece& piece, int64_t first,
                                         const float* offsets, const float* saved, int product_slots,
                                         int slot_numbers, const float* products, float* scores,
                                         Across& across, const GradientStates& states) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const TileToken token(call, piece, first, offsets);
  float passed;
  const float length = activate_tile(call, piece, token, saved, scores, across, &passed);
  for (int j = warp; j < call.problem.heads; j += kAttentionWarps) {
    float score;
    const float weight =
        weight_again(token, states, j, scores[j * kScoreStride + token.lane] * length, &score);
    const float of_weight = weight_gradient(call, token, j, products, product_slots, slot_numbers);
    const double sum = warp_sum(static_cast<double>(weight));
    const double product_sum =
        warp_sum(token.counts ? static_cast<double>(weight) * static_cast<double>(of_weight) : 0.0);
    if (token.lane != 0) continue;
    states.weight_sum[j] += sum;
    states.product_sum[j] += product_sum;
  }
}

}  // namespace ec::cuda
