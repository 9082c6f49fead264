// SPDX-License-Identifier: Apache-2.0
// AVX-512 F/BW/DQ/VL: 16 lanes. Without the dot-product extensions bf16 and int8 are widened.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace ec {
namespace EC_ISA {

using VF = __m512;
using VI = __m512i;
using VM = __mmask16;
// Sums of int8 products. Not VI: gcc 12 keeps an array of VI in memory instead of registers.
using VS = __v16si;

constexpr int kLanes = 16;
constexpr int kTileRows = 8;     // rows of a register tile
constexpr int kTileVectors = 3;  // vectors of columns of a register tile: 24 accumulators of 32 registers

static inline VF zero() { return _mm512_setzero_ps(); }
static inline VF set1(float a) { return _mm512_set1_ps(a); }
static inline VF load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, VF a) { _mm512_storeu_ps(p, a); }
static inline VF add(VF a, VF b) { return _mm512_add_ps(a, b); }
static inline VF sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
static inline VF mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
static inline VF div(VF a, VF b) { return _mm512_div_ps(a, b); }
static inline VF fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
static inline VF fnma(VF a, VF b, VF c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
static inline VF min(VF a, VF b) { return _mm512_min_ps(a, b); }
static inline VF max(VF a, VF b) { return _mm512_max_ps(a, b); }
static inline VF abs(VF a) { return _mm512_abs_ps(a); }
static inline VF sqrt(VF a) { return _mm512_sqrt_ps(a); }
// 1/sqrt(a) to about one unit in the last place. Requires a > 0 and normal.
static inline VF rsqrt(VF a) {
  const VF y = _mm512_rsqrt14_ps(a);
  const VF h = _mm512_mul_ps(_mm512_set1_ps(0.5f), y);
  const VF e = _mm512_fnmadd_ps(_mm512_mul_ps(a, y), h, _mm512_set1_ps(0.5f));
  return _mm512_fmadd_ps(y, e, y);
}
// Sum of the lanes, added in float64.
static inline double sum_wide(VF a) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
  return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

// a, in a register: gcc would otherwise load it again for each use.
static inline VF held(VF a) {
  asm("" : "+v"(a));
  return a;
}
// Lane i of the result: the sum of the lanes of a[i].
static inline VF sum_each(const VF (&a)[kLanes]) {
  VF quads[4];  // lane 4 q + i: the sum over quad q of a[4 n + i]
  _Pragma("GCC unroll 4") for (int n = 0; n < 4; ++n) {
    const VF* from = a + 4 * n;
    const VF low =
        _mm512_add_ps(_mm512_unpacklo_ps(from[0], from[1]), _mm512_unpackhi_ps(from[0], from[1]));
    const VF high =
        _mm512_add_ps(_mm512_unpacklo_ps(from[2], from[3]), _mm512_unpackhi_ps(from[2], from[3]));
    const __m512d x = _mm512_castps_pd(low), y = _mm512_castps_pd(high);
    quads[n] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  const VF first = _mm512_add_ps(_mm512_shuffle_f32x4(quads[0], quads[1], 0x88),
                                 _mm512_shuffle_f32x4(quads[0], quads[1], 0xdd));
  const VF second = _mm512_add_ps(_mm512_shuffle_f32x4(quads[2], quads[3], 0x88),
                                  _mm512_shuffle_f32x4(quads[2], quads[3], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88),
                       _mm512_shuffle_f32x4(first, second, 0xdd));
}
// Numbers of a and b in turn: those of their lower halves, and of their upper ones.
static inline void interleave(VF a, VF b, VF* low, VF* high) {
  const VI index = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  *low = _mm512_permutex2var_ps(a, index, b);
  *high = _mm512_permutex2var_ps(a, _mm512_add_epi32(index, _mm512_set1_epi32(8)), b);
}
// A store that leaves the caches alone. Requires: p on a cache line; fence() before another thread reads.
static inline void stream(float* p, VF a) { _mm512_stream_ps(p, a); }
static inline void fence() { _mm_sfence(); }

static inline VM greater(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline unsigned mask_bits(VM m) { return m; }
static inline VM mask_from_bits(unsigned bits) { return static_cast<VM>(bits); }
static inline VF select(VM m, VF if_set, VF if_clear) { return _mm512_mask_blend_ps(m, if_clear, if_set); }
static inline VF zero_where(VM m, VF a) { return _mm512_maskz_mov_ps(static_cast<VM>(~m), a); }

static inline VI load_int(const void* p) { return _mm512_loadu_si512(p); }
static inline void store_int(void* p, VI a) { _mm512_storeu_si512(p, a); }
static inline void stream_int(void* p, VI a) { _mm512_stream_si512(static_cast<VI*>(p), a); }  // as stream
static inline VI zero_int() { return _mm512_setzero_si512(); }
static inline VI set1_int(int32_t a) { return _mm512_set1_epi32(a); }
static inline VI add_int(VI a, VI b) { return _mm512_add_epi32(a, b); }
static inline VI sub_int(VI a, VI b) { return _mm512_sub_epi32(a, b); }
static inline VF as_float(VI a) { return _mm512_castsi512_ps(a); }
static inline VI as_int(VF a) { return _mm512_castps_si512(a); }
static inline VF to_float(VI a) { return _mm512_cvtepi32_ps(a); }
static inline VI round_to_int(VF a) { return _mm512_cvtps_epi32(a); }

// Nearest bf16 number, ties to even, as a float.
static inline VF round_to_bfloat(VF a) {
  const VI bits = _mm512_castps_si512(a);
  const VI odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const VI sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// kLanes numbers of each dtype as floats.
static inline VF load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline VF load_bfloat(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline VF load_double(const double* p) {
  const __m256 low = _mm512_cvtpd_ps(_mm512_loadu_pd(p));
  const __m256 high = _mm512_cvtpd_ps(_mm512_loadu_pd(p + 8));
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

// kLanes floats rounded to a dtype, ties to even; NaN stays NaN.
static inline void store_half(uint16_t* p, VF a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void store_bfloat(uint16_t* p, VF a) {
  const VI rounded = _mm512_srli_epi32(_mm512_castps_si512(round_to_bfloat(a)), 16);
  const VI bits =
      _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bits));
}

// Dot-product steps on 32-bit groups. A group of b comes from a packed panel, a group of a is broadcast
// from another (or the same) panel.
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
constexpr int kInt8Group = 4;  // int8 numbers in a 32-bit group

#define EC_BFLOAT_PRODUCTS 1
static inline VF dot_bfloat_pairs(VF acc, VI a, VI b) {
  return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}
// Group i of low and high: numbers i of a and b, and numbers kLanes + i.
static inline void interleave_bfloat(VI a, VI b, VI* low, VI* high) {
  const VI index = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
                                    6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  *low = _mm512_permutex2var_epi16(a, index, b);
  *high = _mm512_permutex2var_epi16(a, _mm512_add_epi16(index, _mm512_set1_epi16(16)), b);
}
// Both rounded to bf16, ties to even: the numbers of low, then those of high. What is below 2^-126 is 0.
static inline VI round_bfloat_pairs(VF low, VF high) { return (VI)_mm512_cvtne2ps_pbh(high, low); }
static inline VI broadcast_group(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
// VPDPBUSD wants one side unsigned: a + 128 is used, and kInt8Bias times the sum of b taken off later.
constexpr int kInt8Bias = 128;
static inline VI broadcast_int8_group(const uint32_t* p) {
  return _mm512_xor_si512(_mm512_set1_epi32(static_cast<int>(*p)),
                          _mm512_set1_epi32(static_cast<int>(0x80808080u)));
}
static inline VS dot_int8(VS acc, VI a, VI b) { return (VS)_mm512_dpbusd_epi32((VI)acc, a, b); }
#else
constexpr int kInt8Group = 2;  // held as int16 numbers
constexpr int kInt8Bias = 0;

static inline VF dot_bfloat_pairs(VF acc, VI a, VI b) {
  const VI high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  acc = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                        _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), acc);
  return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                         _mm512_castsi512_ps(_mm512_and_si512(b, high)), acc);
}
static inline VI broadcast_group(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
static inline VI broadcast_int8_group(const uint32_t* p) { return broadcast_group(p); }
static inline VS dot_int8(VS acc, VI a, VI b) {
  return (VS)_mm512_add_epi32((VI)acc, _mm512_madd_epi16(a, b));
}
#endif

// Sums of products of kByteStep bytes of a and signed bytes of b, spread over the lanes. Bytes of a count
// from 0, or from 128 where kBytesFromMiddle; those of b are not -128.
constexpr bool kBytesFromMiddle = false;
constexpr int kByteStep = 64;
static inline VS dot_bytes(VS acc, const uint8_t* a, const int8_t* b) {
#if defined(__AVX512VNNI__)
  return (VS)_mm512_dpbusd_epi32((VI)acc, load_int(a), load_int(b));
#else
  for (int i = 0; i < kByteStep; i += 32) {
    const VI x = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + i)));
    const VI y = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i)));
    acc = (VS)_mm512_add_epi32((VI)acc, _mm512_madd_epi16(x, y));
  }
  return acc;
#endif
}

}  // namespace EC_ISA
}  // namespace ec
