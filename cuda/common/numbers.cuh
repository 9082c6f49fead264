// SPDX-License-Identifier: Apache-2.0
// Numbers of arrays as floats, four at a time where they lie so.
#pragma once

#include <cstdint>

#include "common/platform.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace ec::cuda {

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

constexpr int kTogether = 4;  // numbers of a vector load

// The nearest 16-bit numbers, ties to even, as the halves of a word; NaN stays NaN.
#if defined(__CUDACC__)
__device__ __forceinline__ unsigned pair_bits(float low, float high, Half) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ unsigned pair_bits(float low, float high, BFloat) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#else
inline unsigned short_bits(float a, Half) {
  const unsigned sign = std::signbit(a) ? 0x8000u : 0u;
  if (a != a) return 0x7fffu;
  const float size = std::fabs(a);
  if (size >= 65520.0f) return sign | 0x7c00u;
  // A carry out of the digits goes to the exponent.
  if (size < 6.103515625e-05f) return sign | static_cast<unsigned>(std::nearbyint(std::ldexp(size, 24)));
  int exponent = 0;
  const float digits = std::frexp(size, &exponent);
  const auto steps = static_cast<unsigned>(std::nearbyint(std::ldexp(digits, 11)));
  return sign | ((static_cast<unsigned>(exponent + 13) << 10) + steps);
}
inline unsigned short_bits(float a, BFloat) {
  if (a != a) return 0x7fffu;
  const unsigned bits = __float_as_uint(a);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
template <class Short>
unsigned pair_bits(float low, float high, Short kind) {
  return short_bits(low, kind) | short_bits(high, kind) << 16;
}
#endif

__device__ __forceinline__ float rounded(float a, float) { return a; }
template <class Short>
__device__ __forceinline__ Short rounded(float a, Short kind) {
  return {static_cast<uint16_t>(pair_bits(a, 0.0f, kind))};
}

#if defined(__CUDACC__)
__device__ __forceinline__ float to_float(Half a) { return __half2float(__ushort_as_half(a.bits)); }
#else
inline float to_float(Half a) {
  const unsigned sign = (a.bits & 0x8000u) << 16, exponent = a.bits >> 10 & 31u, digits = a.bits & 0x3ffu;
  if (exponent == 0) return std::copysign(std::ldexp(static_cast<float>(digits), -24), sign ? -1.0f : 1.0f);
  return __uint_as_float(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | digits << 13);
}
#endif
__device__ __forceinline__ float to_float(BFloat a) {
  return __uint_as_float(static_cast<unsigned>(a.bits) << 16);
}
__device__ __forceinline__ float to_float(float a) { return a; }

__device__ __forceinline__ void load_four(const float* from, float (&to)[kTogether]) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
template <class Short>
__device__ __forceinline__ void load_four(const Short* from, float (&to)[kTogether]) {
  const uint2 four = *reinterpret_cast<const uint2*>(from);
  to[0] = to_float(Short{static_cast<uint16_t>(four.x)});
  to[1] = to_float(Short{static_cast<uint16_t>(four.x >> 16)});
  to[2] = to_float(Short{static_cast<uint16_t>(four.y)});
  to[3] = to_float(Short{static_cast<uint16_t>(four.y >> 16)});
}

__device__ __forceinline__ void store_four(const float (&from)[kTogether], float* to) {
  *reinterpret_cast<float4*>(to) = float4{from[0], from[1], from[2], from[3]};
}
template <class Short>
__device__ __forceinline__ void store_four(const float (&from)[kTogether], Short* to) {
  *reinterpret_cast<uint2*>(to) =
      uint2{pair_bits(from[0], from[1], Short{}), pair_bits(from[2], from[3], Short{})};
}

// Rows of one array, of a kind that is known at run time; the numbers of a row lie side by side.
enum class NumberKind { kFloat32, kFloat16, kBFloat16, kFloat64 };

struct AnyRows {
  const void* data;
  int64_t count, stride, columns;  // stride: in numbers, between rows
  NumberKind kind;

  // Requires: not float64.
  __device__ float number(int64_t i, int64_t k) const {
    const int64_t at = i * stride + k;
    if (kind == NumberKind::kFloat32) return static_cast<const float*>(data)[at];
    if (kind == NumberKind::kFloat16) return to_float(static_cast<const Half*>(data)[at]);
    return to_float(static_cast<const BFloat*>(data)[at]);
  }
  __device__ double wide_number(int64_t i, int64_t k) const {
    if (kind == NumberKind::kFloat64) return static_cast<const double*>(data)[i * stride + k];
    return static_cast<double>(number(i, k));
  }
};

// Columns [at, at + 4) of a row, zeros beyond its end. kWhole: rows begin where four numbers can be loaded
// at once, and have a multiple of four.
template <bool kWhole, class T>
__device__ __forceinline__ void load_columns(const T* row, int at, int columns, float (&to)[kTogether]) {
  if (kWhole) {
    if (at < columns) return load_four(row + at, to);
    for (int i = 0; i < kTogether; ++i) to[i] = 0.0f;
  } else {
    for (int i = 0; i < kTogether; ++i) to[i] = at + i < columns ? to_float(row[at + i]) : 0.0f;
  }
}

}  // namespace ec::cuda
