// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C: 8 lanes.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace ec {
namespace EC_ISA {

using VF = __m256;
using VI = __m256i;
using VM = __m256;  // all bits of a lane set or clear
// Sums of int8 products. Not VI: gcc 12 keeps an array of VI in memory instead of registers.
using VS = __v8si;

constexpr int kLanes = 8;
constexpr int kTileRows = 4;     // rows of a register tile
constexpr int kTileVectors = 3;  // vectors of columns of a register tile: 12 accumulators of 16 registers

static inline VF zero() { return _mm256_setzero_ps(); }
static inline VF set1(float a) { return _mm256_set1_ps(a); }
static inline VF load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, VF a) { _mm256_storeu_ps(p, a); }
static inline VF add(VF a, VF b) { return _mm256_add_ps(a, b); }
static inline VF sub(VF a, VF b) { return _mm256_sub_ps(a, b); }
static inline VF mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
static inline VF div(VF a, VF b) { return _mm256_div_ps(a, b); }
static inline VF fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }    // a b + c
static inline VF fnma(VF a, VF b, VF c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a b
static inline VF min(VF a, VF b) { return _mm256_min_ps(a, b); }
static inline VF max(VF a, VF b) { return _mm256_max_ps(a, b); }
static inline VF abs(VF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline VF sqrt(VF a) { return _mm256_sqrt_ps(a); }
// 1/sqrt(a) to about one unit in the last place. Requires a > 0 and normal.
static inline VF rsqrt(VF a) { return _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_sqrt_ps(a)); }
// Sum of the lanes, added in float64.
static inline double sum_wide(VF a) {
  const __m256d pairs = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a)),
                                      _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
  const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(pairs), _mm256_extractf128_pd(pairs, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

// a, in a register: gcc would otherwise load it again for each use.
static inline VF held(VF a) {
  asm("" : "+x"(a));
  return a;
}
// Lane i of the result: the sum of the lanes of a[i].
static inline VF sum_each(const VF (&a)[kLanes]) {
  VF halves[2];  // lane 4 h + i: the sum over half h of a[4 n + i]
  _Pragma("GCC unroll 2") for (int n = 0; n < 2; ++n) {
    const VF* from = a + 4 * n;
    const VF low =
        _mm256_add_ps(_mm256_unpacklo_ps(from[0], from[1]), _mm256_unpackhi_ps(from[0], from[1]));
    const VF high =
        _mm256_add_ps(_mm256_unpacklo_ps(from[2], from[3]), _mm256_unpackhi_ps(from[2], from[3]));
    const __m256d x = _mm256_castps_pd(low), y = _mm256_castps_pd(high);
    halves[n] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)),
                              _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
  }
  return _mm256_add_ps(_mm256_permute2f128_ps(halves[0], halves[1], 0x20),
                       _mm256_permute2f128_ps(halves[0], halves[1], 0x31));
}
// Numbers of a and b in turn: those of their lower halves, and of their upper ones.
static inline void interleave(VF a, VF b, VF* low, VF* high) {
  const VF even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);  // of each half
  *low = _mm256_permute2f128_ps(even, odd, 0x20);
  *high = _mm256_permute2f128_ps(even, odd, 0x31);
}
// A store that leaves the caches alone. Requires: p on a cache line; fence() before another thread reads.
static inline void stream(float* p, VF a) { _mm256_stream_ps(p, a); }
static inline void fence() { _mm_sfence(); }

static inline VM greater(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline unsigned mask_bits(VM m) { return static_cast<unsigned>(_mm256_movemask_ps(m)); }
static inline VM mask_from_bits(unsigned bits) {
  const VI lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const VI set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane));
}
static inline VF select(VM m, VF if_set, VF if_clear) { return _mm256_blendv_ps(if_clear, if_set, m); }
static inline VF zero_where(VM m, VF a) { return _mm256_andnot_ps(m, a); }

static inline VI load_int(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline void store_int(void* p, VI a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
static inline VI zero_int() { return _mm256_setzero_si256(); }
static inline VI set1_int(int32_t a) { return _mm256_set1_epi32(a); }
static inline VI add_int(VI a, VI b) { return _mm256_add_epi32(a, b); }
static inline VI sub_int(VI a, VI b) { return _mm256_sub_epi32(a, b); }
static inline VF as_float(VI a) { return _mm256_castsi256_ps(a); }
static inline VI as_int(VF a) { return _mm256_castps_si256(a); }
static inline VF to_float(VI a) { return _mm256_cvtepi32_ps(a); }
static inline VI round_to_int(VF a) { return _mm256_cvtps_epi32(a); }

// Nearest bf16 number, ties to even, as a float.
static inline VF round_to_bfloat(VF a) {
  const VI bits = _mm256_castps_si256(a);
  const VI odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const VI sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

// kLanes numbers of each dtype as floats.
static inline VF load_half(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline VF load_bfloat(const uint16_t* p) {
  const VI wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline VF load_double(const double* p) {
  return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(p + 4)), _mm256_cvtpd_ps(_mm256_loadu_pd(p)));
}

// kLanes floats rounded to a dtype, ties to even; NaN stays NaN.
static inline void store_half(uint16_t* p, VF a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void store_bfloat(uint16_t* p, VF a) {
  const VI rounded = _mm256_srli_epi32(_mm256_castps_si256(round_to_bfloat(a)), 16);
  const VI nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const VI bits = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)));
}

// Dot-product steps on 32-bit groups: bf16 pairs are widened, int8 numbers are held as int16 pairs.
constexpr int kInt8Group = 2;
constexpr int kInt8Bias = 0;

static inline VF dot_bfloat_pairs(VF acc, VI a, VI b) {
  const VI high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  acc = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                        _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)), acc);
  return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(a, high)),
                         _mm256_castsi256_ps(_mm256_and_si256(b, high)), acc);
}
static inline VI broadcast_group(const uint32_t* p) { return _mm256_set1_epi32(static_cast<int>(*p)); }
static inline VI broadcast_int8_group(const uint32_t* p) { return broadcast_group(p); }
static inline VS dot_int8(VS acc, VI a, VI b) {
  return (VS)_mm256_add_epi32((VI)acc, _mm256_madd_epi16(a, b));
}

// Sums of products of kByteStep bytes of a and signed bytes of b, spread over the lanes. Bytes of a count
// from 0, or from 128 where kBytesFromMiddle; those of b are not -128.
//
// The instruction for bytes takes one unsigned side and adds pairs in 16 bits: |b| times a with b's sign,
// whose pairs stay below 2 * 127 * 128.
constexpr bool kBytesFromMiddle = true;
constexpr int kByteStep = 64;
static inline VS dot_bytes(VS acc, const uint8_t* a, const int8_t* b) {
  const VI middle = _mm256_set1_epi8(static_cast<char>(0x80)), one = _mm256_set1_epi16(1);
  for (int i = 0; i < kByteStep; i += 32) {
    const VI x = _mm256_xor_si256(load_int(a + i), middle), y = load_int(b + i);
    const VI pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(y), _mm256_sign_epi8(x, y));
    acc = (VS)_mm256_add_epi32((VI)acc, _mm256_madd_epi16(pairs, one));
  }
  return acc;
}

}  // namespace EC_ISA
}  // namespace ec
