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

// Words of bits that a warp finds at once, so that what a step asks for is read once for many rows: a lane
// has one slot of each.
constexpr int kWordsAtOnce = 8;
constexpr unsigned kAllSlots = (1u << kWordsAtOnce) - 1;
constexpr int kStackBits = 32;  // of each slot

// What a lane's slots have passed: a stack of sets of slots, one behind the other in a long number.
class SlotStack {
 public:
  __device__ __forceinline__ unsigned top() const { return parts_[0] & kAllSlots; }
  __device__ __forceinline__ void push(unsigned slots) {
#pragma unroll
    for (int i = kParts - 1; i > 0; --i)
      parts_[i] = parts_[i] << kWordsAtOnce | parts_[i - 1] >> (32 - kWordsAtOnce);
    parts_[0] = parts_[0] << kWordsAtOnce | slots;
  }
  __device__ __forceinline__ void invert() { parts_[0] ^= kAllSlots; }
  // The two sets at the top become one.
  __device__ __forceinline__ void intersect() {
    const unsigned slots = pop();
    parts_[0] &= slots | ~kAllSlots;
  }
  __device__ __forceinline__ void unite() {
    const unsigned slots = pop();
    parts_[0] |= slots;
  }

 private:
  __device__ __forceinline__ unsigned pop() {
    const unsigned slots = top();
#pragma unroll
    for (int i = 0; i < kParts - 1; ++i)
      parts_[i] = parts_[i] >> kWordsAtOnce | parts_[i + 1] << (32 - kWordsAtOnce);
    parts_[kParts - 1] >>= kWordsAtOnce;
    return slots;
  }

  static constexpr int kParts = kStackBits * kWordsAtOnce / 32;
  unsigned parts_[kParts] = {};
};

// A lane's slots, kWordBits apart, and which of them pass.
class LaneSlots {
 public:
  __device__ LaneSlots(const FilterPrograms& programs, int64_t first_word, int lane)
      : programs_(programs), first_(first_word * kWordBits + lane) {
#pragma unroll
    for (int i = 0; i < kWordsAtOnce; ++i) {
      const bool there = slot(i) < programs.rows;
      const bool living =
          there && (programs.alive == nullptr || (programs.alive[first_word + i] >> lane & 1u) != 0);
      living_ |= living ? 1u << i : 0u;
    }
  }

  // A bit for each.
  __device__ __forceinline__ unsigned pass(int64_t program) {
    SlotStack stack;
    const int64_t end = programs_.starts[program + 1];
    for (int64_t i = programs_.starts[program]; i < end; ++i) {
      const Step step = programs_.steps[i];
      switch (step.kind) {
        case StepKind::kNot:
          stack.invert();
          break;
        case StepKind::kAnd:
          stack.intersect();
          break;
        case StepKind::kOr:
          stack.unite();
          break;
        default:
          stack.push(pass_one(step));
      }
    }
    return stack.top() & living_;
  }

 private:
  __device__ int64_t slot(int i) const { return first_ + i * kWordBits; }

  // Of a step that pushes.
  __device__ __forceinline__ unsigned pass_one(const Step& step) {
    switch (step.kind) {
      case StepKind::kPushFalse:
        return 0;
      case StepKind::kPushTrue:
        return kAllSlots;
      case StepKind::kPushInterval:
        load_keys(step.column);
        return there_ & those([&](int i) { return step.first <= keys_[i] && keys_[i] <= step.last; });
      case StepKind::kPushPoints:
        load_keys(step.column);
        return those([&](int i) {
          return (there_ >> i & 1u) != 0 && is_one_of(programs_.constants, step.first, step.last, keys_[i]);
        });
      default:
        return pass_column(step, programs_.columns[step.column]);
    }
  }
  __device__ __forceinline__ unsigned pass_column(const Step& step, const Column& column) const {
    return those([&](int i) {
      if ((living_ >> i & 1u) == 0) return false;
      if (step.kind == StepKind::kPushNull) return column.is_null(slot(i));
      if (step.kind == StepKind::kPushNotNull) return !column.is_null(slot(i));
      return codes_pass(step, column, programs_.constants, slot(i));
    });
  }

  // Keys stay for the steps after, and for other programs: those of a batch often ask for one column.
  __device__ __forceinline__ void load_keys(int64_t column) {
    if (column == loaded_) return;
    const Column& from = programs_.columns[column];
#pragma unroll
    for (int i = 0; i < kWordsAtOnce; ++i) keys_[i] = (living_ >> i & 1u) != 0 ? from.keys[slot(i)] : 0;
    there_ = from.nulls == nullptr
                 ? living_
                 : those([&](int i) { return (living_ >> i & 1u) != 0 && from.nulls[slot(i)] == 0; });
    loaded_ = column;
  }

  template <class Test>
  static __device__ __forceinline__ unsigned those(const Test& passes) {
    unsigned found = 0;
#pragma unroll
    for (int i = 0; i < kWordsAtOnce; ++i) found |= passes(i) ? 1u << i : 0u;
    return found;
  }

  const FilterPrograms& programs_;
  const int64_t first_;
  unsigned living_ = 0, there_ = 0;  // a bit for each slot; there: its key is not null
  int64_t loaded_ = -1;              // the column of the keys
  int64_t keys_[kWordsAtOnce];
};

// Bits of all lanes' slots to their words.
__device__ __forceinline__ void write_words(unsigned passing, int lane, unsigned* words) {
  unsigned own = 0;
#pragma unroll
  for (int i = 0; i < kWordsAtOnce; ++i) {
    const unsigned found = __ballot_sync(kAllLanes, static_cast<int>(passing >> i & 1u));
    own = lane == i ? found : own;
  }
  if (lane < kWordsAtOnce) words[lane] = own;
}

// A warp for kWordsAtOnce words; y: programs in turns.
__global__ void __launch_bounds__(kFilterThreads, 1)
    evaluate_programs(const __grid_constant__ FilterPrograms programs) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kFilterThreads / kWarpSize;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x) / kWarpSize;
  for (int64_t word = first * kWordsAtOnce; word < programs.words; word += warps * kWordsAtOnce) {
    LaneSlots slots(programs, word, lane);
    for (int64_t program = blockIdx.y; program < programs.count; program += gridDim.y)
      write_words(slots.pass(program), lane, programs.bits + program * programs.words + word);
  }
}

__device__ __forceinline__ void mark(unsigned* bits, uint32_t slot) {
  atomicOr(bits + slot / kWordBits, 1u << (slot % kWordBits));
}

// Rows of a mask that are in the order of their slots: all words are written. A warp for kWordsAtOnce.
__global__ void __launch_bounds__(kFilterThreads, 1)
    mark_mask_in_order(const uint8_t* mask, int64_t stride, int64_t count, int64_t words, unsigned* bits) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kFilterThreads / kWarpSize;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x) / kWarpSize;
  for (int64_t word = first * kWordsAtOnce; word < words; word += warps * kWordsAtOnce) {
    unsigned passing = 0;
#pragma unroll
    for (int i = 0; i < kWordsAtOnce; ++i) {
      const int64_t slot = (word + i) * kWordBits + lane;
      passing |= slot < count && mask[slot * stride] != 0 ? 1u << i : 0u;
    }
    write_words(passing, lane, bits + word);
  }
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
