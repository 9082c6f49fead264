// SPDX-License-Identifier: Apache-2.0
// The results of sequences that blocks of Hopper have cut, from their slots (panel_slots.cuh). A block has
// eight heads: warp w weighs the parts of head w, while all that its threads add up is on its way. Of many
// parts a half of a warp has every sixteenth, of few a thread has all. The order in which they are added
// depends on their number alone.
//
// For one sequence nothing hides how long this takes: memory is waited for once, and blocks come to the
// device while the kernel before still runs (common/behind.cuh).
#pragma once

#include "attention/forward_tile.cuh"
#include "attention/hopper/panel_slots.cuh"
#include "common/behind.cuh"

namespace ec::cuda {

constexpr int kAheadParts = 9;                 // of a thread, under way at once
constexpr int kFewParts = kAheadParts;         // of which a thread has all
constexpr int kSpreadThreads = kWarpSize / 2;  // that have numbers side by side of one of many parts
constexpr int kKeptParts = 5;                  // of a lane that weighs: those of 160
static_assert(kAttentionWarps == kFragmentHeads, "a warp weighs a head");

struct MergeMemory {
  float pooled[kAttentionWarps][kSpreadThreads][4];  // sums over the parts of a warp
  float times[kFragmentHeads];                       // what is left to multiply the sums of a head by

  // Behind it, of as many parts as there are: what numbers of a head count by.
  __device__ float* scales(int64_t part) {
    return reinterpret_cast<float*>(this + 1) + part * kFragmentHeads;
  }
};

// A cut sequence, and the numbers of its slots; all of it is known before memory may be read, where the
// host knows how long sequences are.
struct CutSequence {
  __device__ CutSequence(const Sequences& sequences, const Share& share, int64_t of)
      : CutSequence(Slots(sequences, share, of), of) {}
  __device__ CutSequence(const Slots& slots, int64_t of)
      : b(of), first(static_cast<int>(slots.first)), count(static_cast<int>(slots.count)) {}
  __device__ int slot(int part) const { return 2 * (first + part) + (part == 0 ? 1 : 0); }
  __device__ bool is_few() const { return count <= kFewParts; }

  int64_t b;
  int first, count;
};

// What a part of a head counts by.
struct PartWeight {
  double total, rounded_total;
  float reference;
};

// This lane's parts of a head: asked for before anything else is.
struct HeadParts {
  __device__ HeadParts(const ForwardCall& call, const CutSequence& sequence, int head)
      : call_(call), sequence_(sequence), heads_(static_cast<int>(call.problem.heads)) {
    j_ = min(head, heads_ - 1);
#pragma unroll
    for (int i = 0; i < kKeptParts; ++i) kept_[i] = at(i * kWarpSize + lane());
  }
  // body(part, its numbers) of this lane's parts, in their order.
  template <class Body>
  __device__ void each(const Body& body) const {
#pragma unroll
    for (int i = 0; i < kKeptParts; ++i) {
      const int part = i * kWarpSize + lane();
      body(part, part < sequence_.count ? kept_[i] : PartWeight{});
    }
#pragma unroll 1
    for (int part = kKeptParts * kWarpSize + lane(); part < sequence_.count; part += kWarpSize)
      body(part, at(part));
  }
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }

 private:
  // Beyond the last what that has, which nobody waits for.
  __device__ PartWeight at(int part) const {
    const int row = sequence_.slot(min(part, sequence_.count - 1)) * heads_ + j_;
    return {call_.slots.total[row], call_.slots.rounded_total[row], call_.slots.reference[row]};
  }

  const ForwardCall& call_;
  const CutSequence& sequence_;
  int heads_, j_;
  PartWeight kept_[kKeptParts];
};

// The scales of this warp's head. Returns its reference.
__device__ __forceinline__ float weigh_head(const HeadParts& parts, const CutSequence& sequence,
                                            float inverse, MergeMemory& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  float largest = -HUGE_VALF;
  parts.each([&](int, const PartWeight& part) {
    if (part.total != 0.0) largest = fmaxf(largest, part.reference);
  });
  largest = warp_max(largest);
  parts.each([&](int number, const PartWeight& part) {
    if (number < sequence.count)
      shared.scales(number)[warp] = part_scale(part.total, part.reference, largest, inverse);
  });
  return largest;
}

// The sums of its weights. Requires: the scales are there.
__device__ __forceinline__ PartWeight sum_head(const HeadParts& parts, const CutSequence& sequence,
                                               float reference, MergeMemory& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  PartWeight sum = {0.0, 0.0, reference};
  parts.each([&](int number, const PartWeight& part) {
    const auto scale = static_cast<double>(number < sequence.count ? shared.scales(number)[warp] : 0.0f);
    sum.total += scale * part.total;
    sum.rounded_total += scale * part.rounded_total;
  });
  sum.total = warp_sum(sum.total);
  sum.rounded_total = warp_sum(sum.rounded_total);
  if (HeadParts::lane() == 0)
    shared.times[warp] = sum.total == 0.0 ? 0.0f : static_cast<float>(1.0 / sum.rounded_total);
  return sum;
}

__device__ __forceinline__ float lane_sum(float value, int lanes) {
  return value + __shfl_xor_sync(kAllLanes, value, lanes);
}

// The sums of each half warp to where warp 0 finds them, and there those of all.
__device__ __forceinline__ void put_half_warps(MergeMemory& shared, float (&sums)[4]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = HeadParts::lane();
#pragma unroll
  for (float& sum : sums) sum = lane_sum(sum, kSpreadThreads);
  if (lane < kSpreadThreads) store_four(sums, shared.pooled[warp][lane]);
}
__device__ __forceinline__ void add_half_warps(const MergeMemory& shared, float (&sums)[4]) {
  constexpr int kHalf = kAttentionWarps / 2;
  const int lane = HeadParts::lane();
  for (float& sum : sums) sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kHalf; ++w) {
    float others[4];
    load_four(shared.pooled[lane / kSpreadThreads * kHalf + w][lane % kSpreadThreads], others);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] += others[i];
  }
#pragma unroll
  for (float& sum : sums) sum = lane_sum(sum, kSpreadThreads);
}

// The four numbers at place `element` of a fragment to the results: of neighbours in the columns one writes
// one head, and one the other. By whole warps.
template <class T>
__device__ __forceinline__ void write_fragment(const ForwardCall& call, const MergeMemory& shared,
                                               int64_t b, int panel, int group, int element, bool writes,
                                               float (&sums)[4]) {
  const int of_group = element % 4 * 2, row = element % kWarpSize / 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] *= shared.times[of_group + i % 2];
  const bool odd = row % 2 != 0;
  const float first = __shfl_xor_sync(kAllLanes, odd ? sums[0] : sums[1], 4),
              second = __shfl_xor_sync(kAllLanes, odd ? sums[2] : sums[3], 4);
  const int64_t heads = call.problem.heads, j = group * kFragmentHeads + of_group + (odd ? 1 : 0);
  if (!writes || j >= heads) return;
  const int k = panel * kPanelColumns + element / kWarpSize * 16 + (row & ~1);
  write_out<T>(call, b * heads + j, k, odd ? first : sums[0], odd ? sums[1] : first);
  write_out<T>(call, b * heads + j, k + 8, odd ? second : sums[2], odd ? sums[3] : second);
}

// Eight heads of some columns of a cut sequence. waited: whether memory may be read.
template <class T>
__device__ __forceinline__ void merge_fragments(const ForwardCall& call, const PanelSlots& layout,
                                                const CutSequence& sequence, int group, int item,
                                                bool waited, MergeMemory& shared) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize;
  const int across = sequence.is_few() ? kAttentionThreads : kSpreadThreads,
            step = kAttentionThreads / across, place = item * across + thread % across;
  const int panel = place / kGroupThreads, element = place % kGroupThreads;
  const bool there = panel < layout.panels;
  // Slots of parts are two apart, but that of the first lies one further.
  const int64_t of_slot = layout.numbers(), apart = 2 * step * of_slot;
  const float* from =
      call.slots.pooled + layout.fragment(2 * sequence.first, there ? panel : 0, group) + 4 * element;
  int part = thread / across;
  const float* next = from + part * 2 * of_slot;
  if (!waited) wait_for_kernel_before();
  const HeadParts parts(call, sequence, group * kFragmentHeads + warp);
  PartWeight head = {};
  float sums[4] = {};
#pragma unroll 1
  for (bool weighed = false; !weighed || part < sequence.count; part += kAheadParts * step) {
    float ahead[kAheadParts][4];
#pragma unroll
    for (int i = 0; i < kAheadParts; ++i) {
      if (part + i * step < sequence.count)
        load_four(i == 0 && part == 0 ? next + of_slot : next, ahead[i]);
      next += apart;
    }
    if (!weighed) {  // the first time, of all threads
      const int j = group * kFragmentHeads + warp;
      const float inverse =
          inverse_temperature(call.problem, sequence.b, min(int64_t{j}, call.problem.heads - 1));
      const float reference = weigh_head(parts, sequence, inverse, shared);
      __syncthreads();
      head = sum_head(parts, sequence, reference, shared);
      weighed = true;
    }
#pragma unroll
    for (int i = 0; i < kAheadParts; ++i) {
      if (part + i * step >= sequence.count) continue;
      const float* scales = shared.scales(part + i * step) + element % 4 * 2;
#pragma unroll
      for (int n = 0; n < 4; ++n) sums[n] = __fmaf_rn(scales[n % 2], ahead[i][n], sums[n]);
    }
  }
  __syncwarp();
  const bool few = sequence.is_few();
  if (!few) put_half_warps(shared, sums);
  __syncthreads();
  if (!few && warp == 0) add_half_warps(shared, sums);
  if (few || warp == 0)
    write_fragment<T>(call, shared, sequence.b, panel, group, element, there && thread < across, sums);
  const int64_t j = group * kFragmentHeads + warp;
  if (item == 0 && HeadParts::lane() == 0 && j < call.problem.heads)
    finish_head(call, sequence.b * call.problem.heads + j, head.total, head.rounded_total, head.reference,
                inverse_temperature(call.problem, sequence.b, j), true);
}

// blockIdx.x: see cut_sequence; blockIdx.y, and on: eight heads and some columns.
template <class T>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    merge_panels(const __grid_constant__ ForwardCall call, PanelSlots layout, int64_t blocks) {
  const Sequences& sequences = call.sequences;
  bool waited = sequences.begins != nullptr || sequences.offsets != nullptr;
  if (waited) wait_for_kernel_before();
  const Share share(sequences, blocks);
  const int64_t b = cut_sequence(sequences, share, blockIdx.x);
  MergeMemory& shared = *shared_array<MergeMemory>(1);
  if (b < sequences.count) {
    const CutSequence sequence(sequences, share, b);
    const int across = sequence.is_few() ? kAttentionThreads : kSpreadThreads;
    const int each = (layout.panels * kGroupThreads + across - 1) / across;
#pragma unroll 1
    for (int item = static_cast<int>(blockIdx.y); item < layout.groups * each;
         item += static_cast<int>(gridDim.y)) {
      merge_fragments<T>(call, layout, sequence, item / each, item % each, waited, shared);
      waited = true;
      __syncthreads();  // all are done with what they share
    }
  }
  if (!waited) wait_for_kernel_before();
}

}  // namespace ec::cuda
