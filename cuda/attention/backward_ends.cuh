// SPDX-License-Identifier: Apache-2.0
// What comes before the walk of the backward, and after it.
#pragma once

#include "attention/backward_tile.cuh"
#include "attention/parts.cuh"

namespace ec::cuda {

// row_term[b][j] = h_j - S_j . G_j, and which sequences are sharp. A block each, and on; a warp has heads.
// Numerics: float64.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    prepare_backward(const __grid_constant__ BackwardCall call) {
  int* of_warps = shared_array<int>(kAttentionWarps);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const AttentionGradient& gradient = call.gradient;
  const int64_t heads = call.problem.heads, columns = call.problem.value_columns;
  const Numbers out = {gradient.out, {}, gradient.out_kind}, &grad_out = gradient.grad_out;
  for (int64_t b = blockIdx.x; b < call.sequences.count; b += gridDim.x) {
    bool sharp = gradient.grad_weights != nullptr;
    for (int64_t j = warp; j < heads; j += kAttentionWarps) {
      const int64_t row = b * heads + j, origin = b * grad_out.stride[0] + j * grad_out.stride[1];
      double product = 0.0;
      for (int64_t k = lane; k < columns; k += kWarpSize)
        product += number_at(out, row * columns + k) * number_at(grad_out, origin + k);
      product = warp_sum(product);
      const float size = fabsf(gradient.lse[row]);
      sharp = sharp || (size > kSharpLse && size <= kLargestFloat);
      if (lane == 0)
        call.terms.row_term[row] =
            static_cast<float>(static_cast<double>(gradient_of_lse(gradient, b, j)) - product);
    }
    if (lane == 0) of_warps[warp] = sharp ? 1 : 0;
    __syncthreads();
    int any = 0;
    for (int i = 0; i < kAttentionWarps; ++i) any |= of_warps[i];
    if (threadIdx.x == 0) call.terms.sharp[b] = any;
    __syncthreads();
  }
}

// Gradients of the query of all sequences from the sums of the blocks that had tokens. A block has some
// columns of all heads' rows, as if they were one.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    add_query_sums(const __grid_constant__ BackwardCall call, int64_t blocks) {
  float* shared = shared_array<float>(kPartNumbers);
  const Share share(call.sequences, blocks);
  const auto numbers = static_cast<int>(call.problem.heads * call.problem.key_columns);
  const int first = static_cast<int>(blockIdx.x) * kPartColumns;
  float sums[kTogether];
  add_parts(
      min(blocks, (share.total + share.size - 1) / share.size), first, numbers,
      [&](int64_t block) { return call.slots.query + block * numbers; }, [](int64_t) { return 1.0f; },
      shared, sums);
  if (threadIdx.x >= kWarpSize) return;
  for (int i = 0, k = first + kTogether * static_cast<int>(threadIdx.x); i < kTogether; ++i, ++k)
    if (k < numbers) call.gradient.grad_query[k] = sums[i];
}

// Of cut sequences (blockIdx.x: see cut_sequence): temperatures, and queries of their own (a share of their
// numbers each, blockIdx.y), from their slots in order.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    merge_gradients(const __grid_constant__ BackwardCall call, int64_t blocks) {
  float* shared = shared_array<float>(kPartNumbers);
  const Share share(call.sequences, blocks);
  const int64_t b = cut_sequence(call.sequences, share, blockIdx.x);
  if (b >= call.sequences.count) return;
  const Slots slots(call.sequences, share, b);
  const int64_t heads = call.problem.heads, numbers = heads * call.problem.key_columns;
  if (blockIdx.y == 0 && call.gradient.grad_temperature != nullptr)
    for (int64_t j = threadIdx.x; j < heads; j += kAttentionThreads) {
      double sum = 0.0;
      for (int64_t part = 0; part < slots.count; ++part)
        sum += call.slots.score_sums[slots[part] * heads + j];
      call.gradient.grad_temperature[b * heads + j] = temperature_gradient(call, b, j, sum);
    }
  if (!call.wants_query() || !call.problem.query_per_sequence) return;
  for (int64_t first = blockIdx.y * kPartColumns; first < numbers; first += gridDim.y * kPartColumns) {
    float sums[kTogether];
    add_parts(
        slots.count, static_cast<int>(first), static_cast<int>(numbers),
        [&](int64_t part) { return call.slots.query + slots[part] * numbers; },
        [](int64_t) { return 1.0f; }, shared, sums);
    if (threadIdx.x >= kWarpSize) continue;
    const int64_t k = first + kTogether * threadIdx.x;
    for (int i = 0; i < kTogether; ++i)
      if (k + i < numbers) call.gradient.grad_query[b * numbers + k + i] = sums[i];
  }
}

}  // namespace ec::cuda
