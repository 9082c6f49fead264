// SPDX-License-Identifier: Apache-2.0
// x86-64 baseline (SSE2): 4 lanes, and fma is a product and a sum with two roundings.
#pragma once

#include <emmintrin.h>
#include <stdint.h>

namespace ec {
namespace EC_ISA {

using VF = __m128;
using VI = __m128i;
using VM = __m128;  // all bits of a lane set or clear
// Sums of int8 products. Not VI: gcc 12 keeps an array of VI in memory instead of registers.
using VS = __v4si;

constexpr int kLanes = 4;
constexpr int kTileRows = 4;     // rows of a register tile
constexpr int kTileVectors = 2;  // vectors of columns of a register tile: 8 accumulators of 16 registers

static inline VF zero() { return _mm_setzero_ps(); }
static inline VF set1(float a) { return _mm_set1_ps(a); }
static inline VF load(const float* p) { return _mm_loadu_ps(p); }
static inline void store(float* p, VF a) { _mm_storeu_ps(p, a); }
static inline VF add(VF a, VF b) { return _mm_add_ps(a, b); }
static inline VF sub(VF a, VF b) { return _mm_sub_ps(a, b); }
static inline VF mul(VF a, VF b) { return _mm_mul_ps(a, b); }
static inline VF div(VF a, VF b) { return _mm_div_ps(a, b); }
static inline VF fma(VF a, VF b, VF c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }   // a b + c
static inline VF fnma(VF a, VF b, VF c) { return _mm_sub_ps(c, _mm_mul_ps(a, b)); }  // c - a b
static inline VF min(VF a, VF b) { return _mm_min_ps(a, b); }
static inline VF max(VF a, VF b) { return _mm_max_ps(a, b); }
static inline VF abs(VF a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
static inline VF sqrt(VF a) { return _mm_sqrt_ps(a); }
// 1/sqrt(a) to about one unit in the last place. Requires a > 0 and normal.
static inline VF rsqrt(VF a) { return _mm_div_ps(_mm_set1_ps(1.0f), _mm_sqrt_ps(a)); }
// Sum of the lanes, added in float64.
static inline double sum_wide(VF a) {
  const __m128d s = _mm_add_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(_mm_movehl_ps(a, a)));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

// a, in a register: gcc would otherwise load it again for each use.
static inline VF held(VF a) {
  asm("" : "+x"(a));
  return a;
}
// Lane i of the result: the sum of the lanes of a[i].
static inline VF sum_each(const VF (&a)[kLanes]) {
  const VF low = _mm_add_ps(_mm_unpacklo_ps(a[0], a[1]), _mm_unpackhi_ps(a[0], a[1]));
  const VF high = _mm_add_ps(_mm_unpacklo_ps(a[2], a[3]), _mm_unpackhi_ps(a[2], a[3]));
  return _mm_add_ps(_mm_movelh_ps(low, high), _mm_movehl_ps(high, low));
}
// Numbers of a and b in turn: those of their lower halves, and of their upper ones.
static inline void interleave(VF a, VF b, VF* low, VF* high) {
  *low = _mm_unpacklo_ps(a, b);
  *high = _mm_unpackhi_ps(a, b);
}
// A store that leaves the caches alone. Requires: p on a cache line; fence() before another thread reads.
static inline void stream(float* p, VF a) { _mm_stream_ps(p, a); }
static inline void fence() { _mm_sfence(); }

static inline VM greater(VF a, VF b) { return _mm_cmpgt_ps(a, b); }
static inline unsigned mask_bits(VM m) { return static_cast<unsigned>(_mm_movemask_ps(m)); }
static inline VM mask_from_bits(unsigned bits) {
  const VI lane = _mm_setr_epi32(1, 2, 4, 8);
  const VI set = _mm_and_si128(_mm_set1_epi32(static_cast<int>(bits)), lane);
  return _mm_castsi128_ps(_mm_cmpeq_epi32(set, lane));
}
static inline VF zero_where(VM m, VF a) { return _mm_andnot_ps(m, a); }
static inline VF select(VM m, VF if_set, VF if_clear) {
  return _mm_or_ps(_mm_and_ps(m, if_set), _mm_andnot_ps(m, if_clear));
}

static inline VI load_int(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
static inline void store_int(void* p, VI a) { _mm_storeu_si128(static_cast<__m128i*>(p), a); }
static inline VI zero_int() { return _mm_setzero_si128(); }
static inline VI set1_int(int32_t a) { return _mm_set1_epi32(a); }
static inline VI add_int(VI a, VI b) { return _mm_add_epi32(a, b); }
static inline VI sub_int(VI a, VI b) { return _mm_sub_epi32(a, b); }
static inline VF as_float(VI a) { return _mm_castsi128_ps(a); }
static inline VI as_int(VF a) { return _mm_castps_si128(a); }
static inline VF to_float(VI a) { return _mm_cvtepi32_ps(a); }
static inline VI round_to_int(VF a) { return _mm_cvtps_epi32(a); }

// Nearest bf16 number, ties to even, as a float.
static inline VF round_to_bfloat(VF a) {
  const VI bits = _mm_castps_si128(a);
  const VI odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
  const VI sum = _mm_add_epi32(_mm_add_epi32(bits, _mm_set1_epi32(0x7fff)), odd);
  return _mm_castsi128_ps(_mm_and_si128(sum, _mm_set1_epi32(static_cast<int>(0xffff0000u))));
}

// kLanes numbers of each dtype as floats. Halves: the exponent is shifted into place and rebased by a
// product, which also makes subnormal halves right; infinities and NaN are patched.
static inline VF load_half(const uint16_t* p) {
  const VI wide =
      _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
  const VI magnitude = _mm_and_si128(wide, _mm_set1_epi32(0x7fff));
  const VI sign = _mm_slli_epi32(_mm_xor_si128(wide, magnitude), 16);
  const VF scaled = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(magnitude, 13)),
                               _mm_castsi128_ps(_mm_set1_epi32((127 + 112) << 23)));
  const VI special =
      _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff)), _mm_set1_epi32(0x7f800000));
  return _mm_castsi128_ps(_mm_or_si128(_mm_or_si128(_mm_castps_si128(scaled), special), sign));
}
static inline VF load_bfloat(const uint16_t* p) {
  const VI raw = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), raw));
}
static inline VF load_double(const double* p) {
  return _mm_movelh_ps(_mm_cvtpd_ps(_mm_loadu_pd(p)), _mm_cvtpd_ps(_mm_loadu_pd(p + 2)));
}

// kLanes floats rounded to a dtype, ties to even; NaN stays NaN. Halves: a float below the normal halves
// is aligned by adding a number whose last place is theirs, the others round on their bits.
static inline void store_half(uint16_t* p, VF a) {
  for (int i = 0; i < kLanes; ++i) {
    float value = reinterpret_cast<const float*>(&a)[i];
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half = 0x7c00u;
    if (magnitude > 0x7f800000u) {
      half = 0x7e00u;
    } else if (magnitude < 0x38800000u) {
      __builtin_memcpy(&value, &magnitude, sizeof value);
      value += 0.5f;
      __builtin_memcpy(&bits, &value, sizeof bits);
      half = bits - 0x3f000000u;
    } else if (magnitude < 0x477ff000u) {
      half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    }
    p[i] = static_cast<uint16_t>(sign | half);
  }
}
static inline void store_bfloat(uint16_t* p, VF a) {
  const VF rounded = round_to_bfloat(a);
  for (int i = 0; i < kLanes; ++i) {
    uint32_t bits, original;
    __builtin_memcpy(&bits, reinterpret_cast<const float*>(&rounded) + i, sizeof bits);
    __builtin_memcpy(&original, reinterpret_cast<const float*>(&a) + i, sizeof original);
    p[i] = static_cast<uint16_t>((original & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : bits >> 16);
  }
}

// Dot-product steps on 32-bit groups: bf16 pairs are widened, int8 numbers are held as int16 pairs.
constexpr int kInt8Group = 2;
constexpr int kInt8Bias = 0;

static inline VF dot_bfloat_pairs(VF acc, VI a, VI b) {
  const VI high = _mm_set1_epi32(static_cast<int>(0xffff0000u));
  acc = fma(_mm_castsi128_ps(_mm_slli_epi32(a, 16)), _mm_castsi128_ps(_mm_slli_epi32(b, 16)), acc);
  return fma(_mm_castsi128_ps(_mm_and_si128(a, high)), _mm_castsi128_ps(_mm_and_si128(b, high)), acc);
}
static inline VI broadcast_group(const uint32_t* p) { return _mm_set1_epi32(static_cast<int>(*p)); }
static inline VI broadcast_int8_group(const uint32_t* p) { return broadcast_group(p); }
static inline VS dot_int8(VS acc, VI a, VI b) { return (VS)_mm_add_epi32((VI)acc, _mm_madd_epi16(a, b)); }

// Sums of products of kByteStep bytes of a and signed bytes of b, spread over the lanes. Bytes of a count
// from 0, or from 128 where kBytesFromMiddle; those of b are not -128.
constexpr bool kBytesFromMiddle = false;
constexpr int kByteStep = 64;
static inline VS dot_bytes(VS acc, const uint8_t* a, const int8_t* b) {
  for (int i = 0; i < kByteStep; i += 16) {
    const VI x = load_int(a + i), y = load_int(b + i);
    const VI low = _mm_madd_epi16(_mm_unpacklo_epi8(x, _mm_setzero_si128()),
                                  _mm_srai_epi16(_mm_unpacklo_epi8(y, y), 8));
    const VI high = _mm_madd_epi16(_mm_unpackhi_epi8(x, _mm_setzero_si128()),
                                   _mm_srai_epi16(_mm_unpackhi_epi8(y, y), 8));
    acc = (VS)_mm_add_epi32((VI)acc, _mm_add_epi32(low, high));
  }
  return acc;
}

}  // namespace EC_ISA
}  // namespace ec
