// SPDX-License-Identifier: Apache-2.0
// What kernels use of CUDA, as C++: names that CUDA gives, over the fibers of block.h.
//
// Shared memory is dynamic only (see platform.h), starts unwritten and ends where the launch says.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulation/block.h"

namespace ec::emulation {

// What lane `from` gave.
template <class T>
T exchange(unsigned mask, T value, int from, const Place& place) {
  static_assert(sizeof(T) <= kMostLaneBytes, "a lane gives no more at once");
  const unsigned char* given = meet(mask, &value, sizeof value, place);
  if ((mask >> from & 1u) == 0) refuse("a lane reads from one that is not in the mask", place);
  T found;
  std::memcpy(&found, given + static_cast<size_t>(from) * kMostLaneBytes, sizeof found);
  return found;
}

}  // namespace ec::emulation

extern ec::emulation::Size3 gridDim, blockDim;
extern ec::emulation::Index3 threadIdx, blockIdx;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__

#define EC_HERE \
  ::ec::emulation::Place { file, line }
#define EC_CALLED_FROM const char *file = __builtin_FILE(), int line = __builtin_LINE()

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};

inline void __syncthreads(EC_CALLED_FROM) { ec::emulation::sync_block(EC_HERE); }

inline void __syncwarp(unsigned mask = 0xffffffffu, EC_CALLED_FROM) {
  ec::emulation::exchange(mask, 0, ec::emulation::lane(), EC_HERE);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, EC_CALLED_FROM) {
  const int first = ec::emulation::lane() / width * width;
  return ec::emulation::exchange(mask, value, first + (from & (width - 1)), EC_HERE);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EC_CALLED_FROM) {
  const int own = ec::emulation::lane(), from = own ^ lanes;
  return ec::emulation::exchange(mask, value, from / width <= own / width ? from : own, EC_HERE);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, EC_CALLED_FROM) {
  const int own = ec::emulation::lane(), from = own + static_cast<int>(lanes);
  return ec::emulation::exchange(mask, value, from / width == own / width ? from : own, EC_HERE);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EC_CALLED_FROM) {
  const unsigned char* given = ec::emulation::meet(mask, &predicate, sizeof predicate, EC_HERE);
  unsigned found = 0;
  for (int lane = 0; lane < ec::emulation::kWarpLanes; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    int one;
    std::memcpy(&one, given + static_cast<size_t>(lane) * ec::emulation::kMostLaneBytes, sizeof one);
    found |= one != 0 ? 1u << lane : 0u;
  }
  return found;
}
inline int __any_sync(unsigned mask, int predicate, EC_CALLED_FROM) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}

// Threads take turns at barriers only, so that each of these is whole.
template <class T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}
template <class T>
T atomicMin(T* to, T value) {
  const T before = *to;
  *to = std::min(before, value);
  return before;
}
template <class T>
T atomicMax(T* to, T value) {
  const T before = *to;
  *to = std::max(before, value);
  return before;
}
inline unsigned atomicOr(unsigned* to, unsigned bits) {
  const unsigned before = *to;
  *to |= bits;
  return before;
}
template <class T>
T atomicCAS(T* to, T expected, T value) {
  const T before = *to;
  if (before == expected) *to = value;
  return before;
}
inline unsigned atomicInc(unsigned* to, unsigned last) {
  const unsigned before = *to;
  *to = before >= last ? 0 : before + 1;
  return before;
}
inline void __threadfence() {}

template <class T>
T __ldg(const T* from) {
  return *from;
}

using std::max;
using std::min;

inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline long long __double2ll_rn(double a) { return std::llrint(a); }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline unsigned __float_as_uint(float a) {
  unsigned bits;
  std::memcpy(&bits, &a, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float a;
  std::memcpy(&a, &bits, sizeof a);
  return a;
}
