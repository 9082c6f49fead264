// SPDX-License-Identifier: Apache-2.0
// What the kernels of the forward share: the call, and the weights of one tile.
#pragma once

#include "attention/memory.cuh"

namespace ec::cuda {

// Numbers of each head while a sequence is walked.
struct HeadStates {
  double *total, *rounded_total;  // of the weights, and of the weights as they were pooled
  float *inverse, *reference, *shrink;

  static int64_t bytes(int64_t heads) { return heads * (2 * sizeof(double) + 3 * sizeof(float)); }
  __device__ HeadStates(void* memory, int64_t heads)
      : total(static_cast<double*>(memory)),
        rounded_total(total + heads),
        inverse(reinterpret_cast<float*>(rounded_total + heads)),
        reference(inverse + heads),
        shrink(reference + heads) {}
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
  BlockMemory memory;
  Place stages, states, squares, scores, factor, pooled;
  Place weights, scale;  // of tensor cores
  ForwardSlots slots;
  // [sequence][head]: what weights that are asked for are made of in the end.
  float *final_reference, *final_scale;
};

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

// Columns k and k + 1 of a row of out; those beyond the last are left out.
template <class T>
__device__ __forceinline__ void write_out(const ForwardCall& call, int64_t row, int k, float a, float b) {
  const int columns = static_cast<int>(call.problem.value_columns);
  T* out = static_cast<T*>(call.result.out) + row * columns + k;
  float* wide = call.result.wide == nullptr ? nullptr : call.result.wide + row * columns + k;
  if (k < columns) {
    out[0] = rounded(a, T{});
    if (wide != nullptr) wide[0] = a;
  }
  if (k + 1 < columns) {
    out[1] = rounded(b, T{});
    if (wide != nullptr) wide[1] = b;
  }
}

// The weights of a tile from its products: scores[slot][head][token]. put(j, weight) takes the weight of
// this lane's token and returns it as rounded.
template <class Put>
__device__ __forceinline__ void weigh_tile(const ForwardCall& call, const Piece& piece, int64_t first,
                                           const float* offsets, int product_slots, int slot_numbers,
                                           float* scores, double* squares, const HeadStates& states,
                                           const Put& put) {
  const AttentionProblem& problem = call.problem;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int heads = static_cast<int>(problem.heads);
  const int64_t t = first + lane, step = call.sequences.tokens;
  const bool there = lane < call.tile.tokens && t < piece.last;
  const float offset = there ? offsets[lane] : -HUGE_VALF;
  const bool counts = offset != -HUGE_VALF;
  const int64_t place = call.sequences.score_origin(piece.sequence) + t;
  const int64_t bias = call.sequences.origin(problem.bias.stride, piece.sequence) + t * problem.bias.stride[1];
  double square = 0.0;
  for (int j = warp; j < heads; j += kAttentionWarps) {
    float* at = scores + j * kScoreStride + lane;
    float a = 0.0f;
    if (counts && problem.query.data != nullptr)
      for (int slot = 0; slot < product_slots; ++slot) a += at[slot * slot_numbers];
    if (there && call.result.scores != nullptr) call.result.scores[place + j * step] = a;
    if (counts && problem.bias.data != nullptr)
      a += static_cast<float>(number_at(problem.bias, bias + j * problem.bias.stride[2]));
    if (problem.activation == Activation::kTanh) a = tanhf(a);
    *at = a;
    square += static_cast<double>(a) * static_cast<double>(a);
  }
  float length = 1.0f;  // inverted
  if (problem.norm == HeadNorm::kL2) {
    squares[warp * kWarpSize + lane] = square;
    __syncthreads();
    square = 0.0;
    for (int i = 0; i < kAttentionWarps; ++i) square += squares[i * kWarpSize + lane];
    length = static_cast<float>(1.0 / fmax(kLeastNorm, sqrt(square)));
  }
  const float slack = kReferenceSlack / 2.0f / static_cast<float>(kLog2E);
  for (int j = warp; j < heads; j += kAttentionWarps) {
    const float f = counts ? scores[j * kScoreStride + lane] * length + offset : -HUGE_VALF;
    if (there && call.result.weights != nullptr) call.result.weights[place + j * step] = f;
    const float inverse = states.inverse[j], largest = warp_max(f);
    float reference = states.reference[j], shrink = 1.0f;
    if ((largest - reference) * inverse > slack) {
      shrink = expf((reference - largest) * inverse);
      reference = largest;
    }
    const float above = f - (reference == -HUGE_VALF ? 0.0f : reference);
    const float weight = counts ? exp2f(above * inverse * static_cast<float>(kLog2E)) : 0.0f;
    const float pooled_weight = put(j, weight);
    const float sum = warp_sum(weight), pooled_sum = warp_sum(pooled_weight);
    if (lane != 0) continue;
    states.reference[j] = reference;
    states.shrink[j] = shrink;
    states.total[j] = states.total[j] * static_cast<double>(shrink) + static_cast<double>(sum);
    states.rounded_total[j] =
        states.rounded_total[j] * static_cast<double>(shrink) + static_cast<double>(pooled_sum);
  }
}

// The state of a sequence without tokens.
__device__ __forceinline__ void begin_states(const AttentionProblem& problem, int64_t b,
                                             const HeadStates& states) {
  for (int j = static_cast<int>(threadIdx.x); j < problem.heads; j += kAttentionThreads) {
    states.inverse[j] = inverse_temperature(problem, b, j);
    states.reference[j] = -HUGE_VALF;
    states.shrink[j] = 1.0f;
    states.total[j] = states.rounded_total[j] = 0.0;
  }
}

}  // namespace ec::cuda
