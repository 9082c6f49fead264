// SPDX-License-Identifier: Apache-2.0
// aarch64 NEON: 4 lanes. With the dot-product and bf16 extensions their instructions are used.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

namespace ec {
namespace EC_ISA {

using VF = float32x4_t;
using VI = int32x4_t;
using VM = uint32x4_t;  // all bits of a lane set or clear
using VS = int32x4_t;   // sums of int8 products

constexpr int kLanes = 4;
constexpr int kTileRows = 8;     // rows of a register tile
constexpr int kTileVectors = 2;  // vectors of columns of a register tile: 16 accumulators of 32 registers

static inline VF zero() { return vdupq_n_f32(0.0f); }
static inline VF set1(float a) { return vdupq_n_f32(a); }
static inline VF load(const float* p) { return vld1q_f32(p); }
static inline void store(float* p, VF a) { vst1q_f32(p, a); }
static inline VF add(VF a, VF b) { return vaddq_f32(a, b); }
static inline VF sub(VF a, VF b) { return vsubq_f32(a, b); }
static inline VF mul(VF a, VF b) { return vmulq_f32(a, b); }
static inline VF div(VF a, VF b) { return vdivq_f32(a, b); }
static inline VF fma(VF a, VF b, VF c) { return vfmaq_f32(c, a, b); }   // a b + c
static inline VF fnma(VF a, VF b, VF c) { return vfmsq_f32(c, a, b); }  // c - a b
static inline VF min(VF a, VF b) { return vminq_f32(a, b); }
static inline VF max(VF a, VF b) { return vmaxq_f32(a, b); }
static inline VF abs(VF a) { return vabsq_f32(a); }
static inline VF sqrt(VF a) { return vsqrtq_f32(a); }
// 1/sqrt(a) to about one unit in the last place. Requires a > 0 and normal.
static inline VF rsqrt(VF a) { return vdivq_f32(vdupq_n_f32(1.0f), vsqrtq_f32(a)); }
// Sum of the lanes, added in float64.
static inline double sum_wide(VF a) {
  return vaddvq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a)));
}

// a, in a register: gcc would otherwise load it again for each use.
static inline VF held(VF a) {
  asm("" : "+w"(a));
  return a;
}
// Lane i of the result: the sum of the lanes of a[i].
static inline VF sum_each(const VF (&a)[kLanes]) {
  return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3]));
}
// Numbers of a and b in turn: those of their lower halves, and of their upper ones.
static inline void interleave(VF a, VF b, VF* low, VF* high) {
  *low = vzip1q_f32(a, b);
  *high = vzip2q_f32(a, b);
}
// A store that need not be kept in the caches; fence() before another thread reads.
static inline void stream(float* p, VF a) { vst1q_f32(p, a); }
static inline void fence() {}

static inline VM greater(VF a, VF b) { return vcgtq_f32(a, b); }
static inline unsigned mask_bits(VM m) {
  static const uint32_t kBit[4] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(m, vld1q_u32(kBit)));
}
static inline VM mask_from_bits(unsigned bits) {
  static const uint32_t kBit[4] = {1, 2, 4, 8};
  const uint32x4_t lane = vld1q_u32(kBit);
  return vceqq_u32(vandq_u32(vdupq_n_u32(bits), lane), lane);
}
static inline VF select(VM m, VF if_set, VF if_clear) { return vbslq_f32(m, if_set, if_clear); }
static inline VF zero_where(VM m, VF a) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), m));
}

static inline VI load_int(const void* p) { return vld1q_s32(static_cast<const int32_t*>(p)); }
static inline void store_int(void* p, VI a) { vst1q_s32(static_cast<int32_t*>(p), a); }
static inline void stream_int(void* p, VI a) { store_int(p, a); }  // as stream
static inline VI zero_int() { return vdupq_n_s32(0); }
static inline VI set1_int(int32_t a) { return vdupq_n_s32(a); }
static inline VI add_int(VI a, VI b) { return vaddq_s32(a, b); }
static inline VI sub_int(VI a, VI b) { return vsubq_s32(a, b); }
static inline VF as_float(VI a) { return vreinterpretq_f32_s32(a); }
static inline VI as_int(VF a) { return vreinterpretq_s32_f32(a); }
static inline VF to_float(VI a) { return vcvtq_f32_s32(a); }
static inline VI round_to_int(VF a) { return vcvtnq_s32_f32(a); }

// Nearest bf16 number, ties to even, as a float.
static inline VF round_to_bfloat(VF a) {
  const uint32x4_t bits = vreinterpretq_u32_f32(a);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t sum = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
  return vreinterpretq_f32_u32(vandq_u32(sum, vdupq_n_u32(0xffff0000u)));
}

// kLanes numbers of each dtype as floats.
static inline VF load_half(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline VF load_bfloat(const uint16_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline VF load_double(const double* p) {
  return vcombine_f32(vcvt_f32_f64(vld1q_f64(p)), vcvt_f32_f64(vld1q_f64(p + 2)));
}

// kLanes floats rounded to a dtype, ties to even; NaN stays NaN.
static inline void store_half(uint16_t* p, VF a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }
static inline void store_bfloat(uint16_t* p, VF a) {
  const uint32x4_t rounded = vreinterpretq_u32_f32(round_to_bfloat(a));
  const uint32x4_t bits = vbslq_u32(vceqq_f32(a, a), rounded, vdupq_n_u32(0x7fc00000u));
  vst1_u16(p, vshrn_n_u32(bits, 16));
}

// Dot-product steps on 32-bit groups.
constexpr int kInt8Bias = 0;

static inline VI broadcast_group(const uint32_t* p) { return vdupq_n_s32(static_cast<int32_t>(*p)); }
static inline VI broadcast_int8_group(const uint32_t* p) { return broadcast_group(p); }

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define EC_BFLOAT_PRODUCTS 1
// Group i of low and high: numbers i of a and b, and numbers kLanes + i.
static inline void interleave_bfloat(VI a, VI b, VI* low, VI* high) {
  const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
  *low = vreinterpretq_s32_s16(vzip1q_s16(x, y));
  *high = vreinterpretq_s32_s16(vzip2q_s16(x, y));
}
// Both rounded to bf16, ties to even: the numbers of low, then those of high.
static inline VI round_bfloat_pairs(VF low, VF high) {
  return vreinterpretq_s32_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high));
}
static inline VF dot_bfloat_pairs(VF acc, VI a, VI b) {
  return vbfdotq_f32(acc, vreinterpretq_bf16_s32(a), vreinterpretq_bf16_s32(b));
}
#else
static inline VF dot_bfloat_pairs(VF acc, VI a, VI b) {
  const VI high = vdupq_n_s32(static_cast<int32_t>(0xffff0000u));
  acc = fma(vreinterpretq_f32_s32(vshlq_n_s32(a, 16)), vreinterpretq_f32_s32(vshlq_n_s32(b, 16)), acc);
  return fma(vreinterpretq_f32_s32(vandq_s32(a, high)), vreinterpretq_f32_s32(vandq_s32(b, high)), acc);
}
#endif

#if defined(__ARM_FEATURE_DOTPROD)
constexpr int kInt8Group = 4;
static inline VS dot_int8(VS acc, VI a, VI b) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
}
#else
constexpr int kInt8Group = 2;  // held as int16 pairs
static inline VS dot_int8(VS acc, VI a, VI b) {
  const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y));
  return vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(x, y)));
}
#endif

// Sums of products of kByteStep bytes of a and signed bytes of b, spread over the lanes. Bytes of a count
// from 0, or from 128 where kBytesFromMiddle; those of b are not -128.
constexpr bool kBytesFromMiddle = false;
constexpr int kByteStep = 64;
static inline VS dot_bytes(VS acc, const uint8_t* a, const int8_t* b) {
  for (int i = 0; i < kByteStep; i += 16) {
    const uint8x16_t x = vld1q_u8(a + i);
    const int8x16_t y = vld1q_s8(b + i);
#if defined(__ARM_FEATURE_DOTPROD)
    // x = (x - 128) + 64 + 64
    acc = vdotq_s32(acc, vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80))), y);
    acc = vdotq_s32(vdotq_s32(acc, vdupq_n_s8(64), y), vdupq_n_s8(64), y);
#else
    const int16x8_t x_low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
    const int16x8_t x_high = vreinterpretq_s16_u16(vmovl_high_u8(x));
    const int16x8_t y_low = vmovl_s8(vget_low_s8(y)), y_high = vmovl_high_s8(y);
    acc = vmlal_high_s16(vmlal_s16(acc, vget_low_s16(x_low), vget_low_s16(y_low)), x_low, y_low);
    acc = vmlal_high_s16(vmlal_s16(acc, vget_low_s16(x_high), vget_low_s16(y_high)), x_high, y_high);
#endif
  }
  return acc;
}

}  // namespace EC_ISA
}  // namespace ec
