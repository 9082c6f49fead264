// SPDX-License-Identifier: Apache-2.0
// Filters to bits. All rows of a warp take the same step of a program.
#pragma once

#include "ann/filters.h"
#include "common/warp.cuh"

namespace ec::cuda::ann {

// Whether a value is one of constants [first, last), which ascend.
__device__ __forceinline__ bool is_one_of(const int64_t* constants, int64_t first, int64_t last,
                                          int64_t value) {
  const int64_t end = last;
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    if (constants[middle] < value)
      first = middle + 1;
    else
      last = middle;
  }
  return first < end && constants[first] == value;
}

__device__ __forceinline__ bool code_passes(const Step& step, const int64_t* constants, int32_t code) {
  if (step.kind == StepKind::kPushCode) return code == step.first;
  return code >= 0 && is_one_of(constants, step.first, step.last, code);
}

__device__ __forceinline__ bool codes_pass(const Step& step, const Column& column, const int64_t* constants,
                                           int64_t slot) {
  if (column.kind == kCategory) return code_passes(step, constants, column.codes[slot]);
  for (int64_t i = column.offsets[slot]; i < column.offsets[slot + 1]; ++i)
    if (code_passes(step, constants, column.codes[i])) return true;
  return false;
}

__device__ __forceinline__ bool key_passes(const Step& step, const Column& column, const int64_t* constants,
                                           int64_t slot) {
  if (column.nulls != nullptr && column.nulls[slot] != 0) return false;
  const int64_t key = column.keys[slot];
  if (step.kind == StepKind::kPushInterval) return step.first <= key && key <= step.last;
  return is_one_of(constants, step.first, step.last, key);
}

// Of a step of a column.
__device__ __forceinline__ bool row_passes(const Step& step, const FilterPrograms& programs, int64_t slot) {
  const Column& column = programs.columns[step.column];
  switch (step.kind) {
    case StepKind::kPushNull:
      return column.is_null(slot);
    case StepKind::kPushNotNull:
      return !column.is_null(slot);
    case StepKind::kPushCode:
    case StepKind::kPushCodes:
      return codes_pass(step, column, programs.constants, slot);
    default:
      return key_passes(step, column, programs.constants, slot);
  }
}

// The stack after a step; its top is the lowest bit.
__device__ __forceinline__ unsigned stack_after(const Step& step, const FilterPrograms& programs,
                                                unsigned stack, int64_t slot) {
  switch (step.kind) {
    case StepKind::kPushFalse:
      return stack << 1;
    case StepKind::kPushTrue:
      return stack << 1 | 1u;
    case StepKind::kNot:
      return stack ^ 1u;
    case StepKind::kAnd:
      return stack >> 1 & ((stack & 1u) | ~1u);
    case StepKind::kOr:
      return stack >> 1 | (stack & 1u);
    default:
      return stack << 1 | (row_passes(step, programs, slot) ? 1u : 0u);
  }
}

// A warp for each word; y: programs in turns.
__global__ void __launch_bounds__(kFilterThreads, 1)
    evaluate_programs(const __grid_constant__ FilterPrograms programs) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kFilterThreads / kWarpSize;
  for (int64_t program = blockIdx.y; program < programs.count; program += gridDim.y) {
    for (int64_t word = (static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x) / kWarpSize;
         word < programs.words; word += warps) {
      const int64_t slot = word * kWordBits + lane;
      bool passes = slot < programs.rows;
      if (passes && programs.alive != nullptr) passes = (programs.alive[word] >> lane & 1u) != 0;
      if (passes) {
        unsigned stack = 0;
        for (int64_t i = programs.starts[program]; i < programs.starts[program + 1]; ++i)
          stack = stack_after(programs.steps[i], programs, stack, slot);
        passes = (stack & 1u) != 0;
      }
      const unsigned found = __ballot_sync(kAllLanes, passes ? 1 : 0);
      if (lane == 0) programs.bits[program * programs.words + word] = found;
    }
  }
}

__device__ __forceinline__ void mark(unsigned* bits, uint32_t slot) {
  atomicOr(bits + slot / kWordBits, 1u << (slot % kWordBits));
}

// Rows of a mask: mask[i * stride] is of slot order[i].
__global__ void __launch_bounds__(kFilterThreads, 1)
    mark_mask(const uint8_t* mask, int64_t stride, const uint32_t* order, int64_t count, unsigned* bits) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kFilterThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x; i < count; i += threads)
    if (mask[i * stride] != 0) mark(bits, order[i]);
}

// Ids that are not there pass nothing.
__global__ void __launch_bounds__(kFilterThreads, 1)
    mark_ids(const int64_t* ids, int64_t count, IdTable table, unsigned* bits) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kFilterThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x; i < count;
       i += threads) {
    int64_t first = 0, last = table.count;
    while (first < last) {
      const int64_t middle = first + (last - first) / 2;
      if (table.ids[middle] < ids[i])
        first = middle + 1;
      else
        last = middle;
    }
    if (first < table.count && table.ids[first] == ids[i]) mark(bits, table.slots[first]);
  }
}

// Bits of filters from where they are to one behind the other. y: filters in turns.
__global__ void __launch_bounds__(kFilterThreads, 1)
    gather_bits(const unsigned* const* sources, int64_t filters, int64_t words, unsigned* bits) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kFilterThreads;
  for (int64_t filter = blockIdx.y; filter < filters; filter += gridDim.y)
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x; i < words;
         i += threads)
      bits[filter * words + i] = sources[filter][i];
}

}  // namespace ec::cuda::ann
