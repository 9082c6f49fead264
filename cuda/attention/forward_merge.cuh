// SPDX-License-Identifier: Apache-2.0
// What is left to do of the forward when all tokens have been walked.
#pragma once

#include "attention/forward_tile.cuh"

namespace ec::cuda {

// The results of cut sequences from their slots (blockIdx.x: see cut_sequence), a share of the numbers each
// (blockIdx.y).
template <class T>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    merge_slots(const __grid_constant__ ForwardCall call, int64_t blocks) {
  const Share share(call.sequences, blocks);
  const int64_t b = cut_sequence(call.sequences, share, blockIdx.x);
  if (b >= call.sequences.count) return;
  const Slots slots(call.sequences, share, b);
  const int64_t heads = call.problem.heads;
  const int columns = static_cast<int>(call.problem.value_columns), pairs = (columns + 1) / 2;
  for (int64_t i = blockIdx.y * kAttentionThreads + threadIdx.x; i < heads * pairs;
       i += static_cast<int64_t>(gridDim.y) * kAttentionThreads) {
    const int64_t j = i / pairs;
    const int k = static_cast<int>(i % pairs) * 2;
    const float inverse = inverse_temperature(call.problem, b, j);
    float reference = -HUGE_VALF;
    for (int64_t part = 0; part < slots.count; ++part) {
      const int64_t at = slots[part] * heads + j;
      if (call.slots.total[at] != 0.0) reference = fmaxf(reference, call.slots.reference[at]);
    }
    double total = 0.0, rounded_total = 0.0;
    float sums[2] = {};
    for (int64_t part = 0; part < slots.count; ++part) {
      const int64_t at = slots[part] * heads + j;
      const double of_part = call.slots.total[at];
      if (of_part == 0.0) continue;
      const float own = call.slots.reference[at];
      const float shrink = own == reference ? 1.0f : expf((own - reference) * inverse);
      total += static_cast<double>(shrink) * of_part;
      rounded_total += static_cast<double>(shrink) * call.slots.rounded_total[at];
      const float* pooled = call.slots.pooled + at * columns + k;
      sums[0] = __fmaf_rn(shrink, pooled[0], sums[0]);
      if (k + 1 < columns) sums[1] = __fmaf_rn(shrink, pooled[1], sums[1]);
    }
    const float scale = finish_head(call, b * heads + j, total, rounded_total, reference, inverse, k == 0);
    write_out<T>(call, b * heads + j, k, sums[0] * scale, sums[1] * scale);
  }
}

// From f to the weights, in place. blockIdx.x: sequences, blockIdx.y: shares of their tokens.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    finish_weights(const __grid_constant__ ForwardCall call) {
  for (int64_t b = blockIdx.x; b < call.sequences.count; b += gridDim.x) {
    const int64_t room = call.sequences.room(b), heads = call.problem.heads;
    for (int64_t j = 0; j < heads; ++j) {
      const float reference = call.final_reference[b * heads + j], scale = call.final_scale[b * heads + j];
      const float inverse = inverse_temperature(call.problem, b, j);
      float* row = call.result.weights + call.sequences.score_origin(b) + j * call.sequences.tokens;
      for (int64_t t = blockIdx.y * kAttentionThreads + threadIdx.x; t < room;
           t += static_cast<int64_t>(gridDim.y) * kAttentionThreads)
        row[t] = expf((row[t] - reference) * inverse) * scale;
    }
  }
}

}  // namespace ec::cuda
