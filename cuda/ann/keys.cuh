// SPDX-License-Identifier: Apache-2.0
// Candidates as whole numbers, and lists of the best of them, sorted by warps.
//
// The order of keys is total, so that what is best does not depend on the order in which threads come.
#pragma once

#include <cstdint>

#include "common/warp.cuh"

namespace ec::cuda::ann {

// The bound of a candidate, made to compare as a whole number, above its slot, the smaller the better. 0 is
// no candidate, and comes last.
using Key = unsigned long long;

__device__ __forceinline__ unsigned ordered_bits(float a) {
  const unsigned bits = __float_as_uint(a);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float from_ordered_bits(unsigned bits) {
  return __uint_as_float(bits ^ ((bits >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}
__device__ __forceinline__ Key key_of(float bound, uint32_t slot) {
  return static_cast<Key>(ordered_bits(bound)) << 32 | static_cast<Key>(~slot);
}
__device__ __forceinline__ float bound_of(Key key) {
  return from_ordered_bits(static_cast<unsigned>(key >> 32));
}
__device__ __forceinline__ uint32_t slot_of(Key key) { return ~static_cast<uint32_t>(key); }

// Of bitonic sequences, each of a warp's lanes with one key: greatest first. Several are sorted in step, so
// that none waits for its own exchanges.
template <int kMany>
__device__ __forceinline__ void merge_warp(Key (&keys)[kMany], int lane) {
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
#pragma unroll
    for (int i = 0; i < kMany; ++i) {
      const Key other = __shfl_xor_sync(kAllLanes, keys[i], step);
      keys[i] = (other > keys[i]) == ((lane & step) == 0) ? other : keys[i];
    }
  }
}

// Keys of a warp, greatest first.
template <int kMany>
__device__ __forceinline__ void sort_warp(Key (&keys)[kMany], int lane) {
#pragma unroll
  for (int size = 2; size < kWarpSize; size *= 2) {
#pragma unroll
    for (int step = size / 2; step > 0; step /= 2) {
      const bool greater = ((lane & step) == 0) == ((lane & size) == 0);
#pragma unroll
      for (int i = 0; i < kMany; ++i) {
        const Key other = __shfl_xor_sync(kAllLanes, keys[i], step);
        keys[i] = (other > keys[i]) == greater ? other : keys[i];
      }
    }
  }
  merge_warp(keys, lane);
}
__device__ __forceinline__ Key sort_warp(Key key, int lane) {
  Key keys[1] = {key};
  sort_warp(keys, lane);
  return keys[0];
}

// The best keys of many, greatest first. Each lane keeps to its own places, so that nothing has to wait
// while one warp has the list.
struct KeyList {
  Key* keys;
  int kept;  // a multiple of the warp

  __device__ void clear(int lane) const {
    for (int i = lane; i < kept; i += kWarpSize) keys[i] = 0;
  }
  // How many of the first `most` there are.
  __device__ int length(int most) const {
    if (most == 0 || keys[most - 1] != 0) return most;
    int first = 0, end = most - 1;
    while (first < end) {
      const int middle = (first + end) / 2;
      if (keys[middle] != 0)
        first = middle + 1;
      else
        end = middle;
    }
    return first;
  }
  // What a key must be above to get in.
  __device__ Key last() const { return keys[kept - 1]; }
  // Keys of a warp, greatest first, of which none belongs before `from`. All lanes.
  __device__ void insert(Key key, int from, int lane) const {
    for (int at = from; at < kept; at += kWarpSize) {
      if (__shfl_sync(kAllLanes, key, 0) == 0) return;
      // Both sorted, one of them backwards: the greater of each pair are the best of all.
      const Key mine = keys[at + lane], other = __shfl_sync(kAllLanes, key, kWarpSize - 1 - lane);
      Key parts[2] = {max(mine, other), min(mine, other)};
      merge_warp(parts, lane);
      keys[at + lane] = parts[0];
      key = parts[1];
    }
  }
  // All lanes.
  __device__ void insert_list(const KeyList& others, int lane) const {
    for (int at = 0; at < kept; at += kWarpSize) {
      const Key key = others.keys[at + lane];
      if (__shfl_sync(kAllLanes, key, 0) == 0) return;
      insert(key, at, lane);
    }
  }
};

}  // namespace ec::cuda::ann
