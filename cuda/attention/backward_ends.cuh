// SPDX-License-Identifier: Apache-2.0
// What comes before the walk of the backward, and after it.
#pragma once

#include "attention/backward_tile.cuh"
#include "attention/half_products.cuh"
#include "attention/parts.cuh"
#include "attention/rest.cuh"
#include "common/behind.cuh"

namespace ec::cuda {

// The part of this lane of out[row] . grad[row], and in *largest of the largest of grad; rows are whole
// vectors of four numbers. Whether there is a rest is known, so that all loads are under way together.
template <bool kRest, class T>
__device__ __forceinline__ double multiply_rows(const T* out, const int8_t* rest, const T* grad,
                                                int64_t columns, int dropped, float* largest) {
  double product = 0.0;
#pragma unroll 4
  for (int64_t k = kTogether * (threadIdx.x % kWarpSize); k < columns; k += kTogether * kWarpSize) {
    float numbers[kTogether], of_grad[kTogether];
    load_four(grad + k, of_grad);
    if constexpr (kRest)
      load_with_rest(out + k, rest + k, numbers);
    else
      load_four(out + k, numbers);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const float number = with_digits_dropped(of_grad[i], dropped);
      product = __fma_rn(static_cast<double>(numbers[i]), static_cast<double>(number), product);
      *largest = fmaxf(*largest, fabsf(number));
    }
  }
  return product;
}

// The same of rows of any kind that lie anyhow.
__device__ __forceinline__ double multiply_any_rows(const BackwardCall& call, int64_t row, int64_t origin,
                                                    float* largest) {
  const AttentionGradient& gradient = call.gradient;
  const int64_t columns = call.problem.value_columns;
  const Numbers out = {gradient.out, {}, gradient.out_kind};
  double product = 0.0;
  for (int64_t k = threadIdx.x % kWarpSize; k < columns; k += kWarpSize) {
    const int64_t at = row * columns + k;
    double number = number_at(out, at);
    if (gradient.rest != nullptr)
      number = gradient.out_kind == NumberKind::kFloat16
                   ? with_rest(static_cast<const Half*>(gradient.out)[at], gradient.rest[at])
                   : with_rest(static_cast<const BFloat*>(gradient.out)[at], gradient.rest[at]);
    double of_grad = number_at(gradient.grad_out, origin + k);
    if (call.grad_dropped > 0)
      of_grad = static_cast<double>(with_digits_dropped(static_cast<float>(of_grad), call.grad_dropped));
    product = __fma_rn(number, of_grad, product);
    *largest = fmaxf(*largest, fabsf(static_cast<float>(of_grad)));
  }
  return product;
}

__device__ __forceinline__ double multiply_out(const BackwardCall& call, int64_t row, int64_t origin,
                                               float* largest) {
  const AttentionGradient& gradient = call.gradient;
  const NumberKind kind = gradient.out_kind;
  const int64_t columns = call.problem.value_columns, at = row * columns;
  const uintptr_t places = reinterpret_cast<uintptr_t>(gradient.out) |
                           reinterpret_cast<uintptr_t>(gradient.grad_out.data) |
                           reinterpret_cast<uintptr_t>(gradient.rest) * kTogether;
  if (kind != gradient.grad_out.kind || kind == NumberKind::kFloat64 || places % 16 != 0 ||
      (columns | origin) % kTogether != 0)
    return multiply_any_rows(call, row, origin, largest);
  const int8_t* rest = gradient.rest == nullptr ? nullptr : gradient.rest + at;
  const auto rows = [&](auto number) {
    using T = decltype(number);
    const T* out = static_cast<const T*>(gradient.out) + at;
    const T* grad = static_cast<const T*>(gradient.grad_out.data) + origin;
    if constexpr (sizeof(T) == 2) {  // there is none of float32
      if (rest != nullptr) return multiply_rows<true>(out, rest, grad, columns, call.grad_dropped, largest);
    }
    return multiply_rows<false>(out, rest, grad, columns, call.grad_dropped, largest);
  };
  return kind == NumberKind::kFloat32   ? rows(float{})
         : kind == NumberKind::kFloat16 ? rows(Half{})
                                        : rows(BFloat{});
}

// Whether a sequence is sharp (backward_tile.cuh). By a warp.
__device__ __forceinline__ bool is_sharp(const BackwardCall& call, int64_t b) {
  bool sharp = call.gradient.grad_weights != nullptr;
  for (int64_t j = threadIdx.x % kWarpSize; j < call.problem.heads; j += kWarpSize) {
    const float size = fabsf(call.gradient.lse[b * call.problem.heads + j]);
    sharp = sharp || (size > kSharpLse && size <= kLargestFloat);
  }
  return __any_sync(kAllLanes, sharp) != 0;
}

// The power of the query of row b * heads + j, or of head j where it is that of all sequences. By a warp.
__device__ __forceinline__ float query_power(const BackwardCall& call, int64_t row) {
  const Numbers& query = call.problem.query;
  const int64_t origin =
      row / call.problem.heads * query.stride[0] + row % call.problem.heads * query.stride[2];
  float largest = 0.0f;
  for (int64_t k = threadIdx.x % kWarpSize; k < call.problem.key_columns; k += kWarpSize)
    largest = fmaxf(largest, fabsf(static_cast<float>(number_at(query, origin + k * query.stride[1]))));
  return power_for(warp_max(largest));
}

// row_term[b][j] = h_j - S_j . G_j, and which sequences are sharp; powers of rows where they are scaled. A
// warp each, and on. Nobody has had a turn.
// Numerics: float64.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    prepare_backward(const __grid_constant__ BackwardCall call) {
  let_next_begin();
  const int64_t heads = call.problem.heads, rows = call.sequences.count * heads;
  const AttentionGradient& gradient = call.gradient;
  const bool first = threadIdx.x % kWarpSize == 0;
  if (call.slots.turns != nullptr && blockIdx.x == 0) {
    if (threadIdx.x == 0) *call.slots.started = 0;
    for (int64_t i = threadIdx.x; i < kClusterBlocks * call.slots.queries; i += kAttentionThreads)
      call.slots.turns[i] = 0;
  }
  for (int64_t row = blockIdx.x * int64_t{kAttentionWarps} + threadIdx.x / kWarpSize; row < rows;
       row += int64_t{gridDim.x} * kAttentionWarps) {
    const int64_t b = row / heads, j = row % heads;
    const Numbers& grad_out = gradient.grad_out;
    float largest = 0.0f;
    const double product =
        warp_sum(multiply_out(call, row, b * grad_out.stride[0] + j * grad_out.stride[1], &largest));
    if (first)
      call.terms.row_term[row] =
          static_cast<float>(static_cast<double>(gradient_of_lse(gradient, b, j)) - product);
    if (call.terms.grad_powers != nullptr) {
      const float power = power_for(warp_max(largest));
      if (first) call.terms.grad_powers[row] = power;
      if (row < heads || call.problem.query_per_sequence) {
        const float of_query = query_power(call, row);
        if (first) call.terms.query_powers[row] = of_query;
      }
    }
    if (j != 0) continue;
    const bool sharp = is_sharp(call, b);
    if (first) call.terms.sharp[b] = sharp ? 1 : 0;
  }
}

// Gradients of the query of all sequences from the slots of the blocks that had tokens. A block has some
// columns of all heads' rows, as if they were one.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    add_query_sums(const __grid_constant__ BackwardCall call, int64_t blocks) {
  wait_for_kernel_before();
  float* shared = shared_array<float>(kPartNumbers);
  const Share share(call.sequences, blocks);
  const auto numbers = static_cast<int>(call.problem.heads * call.problem.key_columns);
  const int first = static_cast<int>(blockIdx.x) * kPartColumns;
  float sums[kTogether];
  add_parts(
      min(call.slots.queries, (share.total + share.size - 1) / share.size), first, numbers,
      [&](int64_t slot) { return call.slots.query + slot * numbers; }, [](int64_t) { return 1.0f; }, shared,
      sums);
  if (threadIdx.x >= kWarpSize) return;
  for (int i = 0, k = first + kTogether * static_cast<int>(threadIdx.x); i < kTogether; ++i, ++k)
    if (k < numbers) call.gradient.grad_query[k] = sums[i];
}

// Of cut sequences (blockIdx.x: see cut_sequence): temperatures, and queries of their own (a share of their
// numbers each, blockIdx.y), from their slots in order.
static __global__ void __launch_bounds__(kAttentionThreads, 1)
    merge_gradients(const __grid_constant__ BackwardCall call, int64_t blocks) {
  wait_for_kernel_before();
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
