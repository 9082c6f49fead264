// SPDX-License-Identifier: Apache-2.0
// What is left to do of the forward when all tokens have been walked.
#pragma once

#include "attention/forward_tile.cuh"
#include "attention/parts.cuh"
#include "common/behind.cuh"

namespace ec::cuda {

// Of a head over all parts of a sequence: sums of weights, relative to the reference.
struct PartWeights {
  double total, rounded_total;
  float reference;
};

// The sums of head j of a cut sequence, and scales[part] that its parts count by. By all threads; of_warps:
// a number each.
__device__ __forceinline__ PartWeights weigh_parts(const ForwardCall& call, const Slots& slots, int64_t j,
                                                   float inverse, float* of_warps, float* scales) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t heads = call.problem.heads;
  float largest = -HUGE_VALF;
  for (int64_t part = threadIdx.x; part < slots.count; part += kAttentionThreads) {
    const int64_t at = slots[part] * heads + j;
    if (call.slots.total[at] != 0.0) largest = fmaxf(largest, call.slots.reference[at]);
  }
  largest = warp_max(largest);
  if (lane == 0) of_warps[threadIdx.x / kWarpSize] = largest;
  __syncthreads();
  for (int i = 0; i < kAttentionWarps; ++i) largest = fmaxf(largest, of_warps[i]);
  // Each warp all of them: the sums of all are the same.
  double total = 0.0, rounded_total = 0.0;
  for (int64_t part = lane; part < slots.count; part += kWarpSize) {
    const int64_t at = slots[part] * heads + j;
    const double of_part = call.slots.total[at];
    const float own = call.slots.reference[at];
    const float scale = part_scale(of_part, own, largest, inverse);
    total += static_cast<double>(scale) * of_part;
    rounded_total += static_cast<double>(scale) * call.slots.rounded_total[at];
    if (threadIdx.x < kWarpSize) scales[part] = scale;
  }
  __syncthreads();
  return {warp_sum(total), warp_sum(rounded_total), largest};
}

// Four columns of head j of a cut sequence, from their sums over its parts.
template <class T>
__device__ __forceinline__ void finish_columns(const ForwardCall& call, int64_t row, int k,
                                               const PartWeights& weights, float inverse,
                                               const float (&sums)[kTogether]) {
  const float scale =
      finish_head(call, row, weights.total, weights.rounded_total, weights.reference, inverse, k == 0);
  write_out<T>(call, row, k, sums[0] * scale, sums[1] * scale);
  write_out<T>(call, row, k + 2, sums[2] * scale, sums[3] * scale);
}

// Columns [first, first + kPartColumns) of head j, by a warp: of parts that are no more than its lanes.
template <class T>
__device__ __forceinline__ void merge_few(const ForwardCall& call, const Slots& slots, int64_t b, int64_t j,
                                          int first) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t heads = call.problem.heads;
  const int columns = static_cast<int>(call.problem.value_columns), k = first + kTogether * lane;
  const float inverse = inverse_temperature(call.problem, b, j);
  const bool there = lane < slots.count;
  const int64_t at = slots[there ? lane : 0] * heads + j;
  const double total = there ? call.slots.total[at] : 0.0;
  const float own = call.slots.reference[at];
  const float largest = warp_max(total == 0.0 ? -HUGE_VALF : own);
  const float scale = part_scale(total, own, largest, inverse);
  const auto times = static_cast<double>(scale);
  const PartWeights weights = {warp_sum(times * total),
                               warp_sum(there ? times * call.slots.rounded_total[at] : 0.0), largest};
  const bool whole = columns % kTogether == 0;
  float sums[kTogether] = {};
#pragma unroll 2
  for (int64_t part = 0; part < slots.count; ++part) {
    const float* row = call.slots.pooled + (slots[part] * heads + j) * columns;
    float numbers[kTogether];
    if (whole)
      load_columns<true>(row, k, columns, numbers);
    else
      load_columns<false>(row, k, columns, numbers);
    const float of_part = __shfl_sync(kAllLanes, scale, static_cast<int>(part));
#pragma unroll
    for (int i = 0; i < kTogether; ++i) sums[i] = __fmaf_rn(of_part, numbers[i], sums[i]);
  }
  finish_columns<T>(call, b * heads + j, k, weights, inverse, sums);
}

// The results of cut sequences from their slots (blockIdx.x: see cut_sequence), some heads and columns each
// (blockIdx.y, and on): a warp has them where the parts are few, else the block.
template <class T>
__global__ void __launch_bounds__(kAttentionThreads, 3)  // most blocks have little to do, and wait
    merge_slots(const __grid_constant__ ForwardCall call, int64_t blocks) {
  wait_for_kernel_before();
  const Share share(call.sequences, blocks);
  const int64_t b = cut_sequence(call.sequences, share, blockIdx.x);
  if (b >= call.sequences.count) return;
  float* shared = shared_array<float>(static_cast<size_t>(kPartNumbers + kAttentionWarps + blocks));
  float *of_warps = shared + kPartNumbers, *scales = of_warps + kAttentionWarps;
  const Slots slots(call.sequences, share, b);
  const int64_t heads = call.problem.heads;
  const int columns = static_cast<int>(call.problem.value_columns);
  const int64_t strips = (columns + kPartColumns - 1) / kPartColumns;
  if (slots.count <= kWarpSize) {
    for (int64_t item = blockIdx.y * kAttentionWarps + threadIdx.x / kWarpSize; item < heads * strips;
         item += gridDim.y * kAttentionWarps)
      merge_few<T>(call, slots, b, item / strips, static_cast<int>(item % strips) * kPartColumns);
    return;
  }
  for (int64_t item = blockIdx.y; item < heads * strips; item += gridDim.y) {
    const int64_t j = item / strips;
    const int first = static_cast<int>(item % strips) * kPartColumns;
    const float inverse = inverse_temperature(call.problem, b, j);
    const PartWeights weights = weigh_parts(call, slots, j, inverse, of_warps, scales);
    float sums[kTogether];
    add_parts(
        slots.count, first, columns,
        [&](int64_t part) { return call.slots.pooled + (slots[part] * heads + j) * columns; },
        [&](int64_t part) { return scales[part]; }, shared, sums);
    if (threadIdx.x >= kWarpSize) continue;
    finish_columns<T>(call, b * heads + j, first + kTogether * static_cast<int>(threadIdx.x), weights,
                      inverse, sums);
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
