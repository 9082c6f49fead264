// SPDX-License-Identifier: Apache-2.0
// Elementwise steps on a tile of scores, tokens in the lanes; see kernels.h for what each does.
#include "attention/kernels.h"

#include EC_ISA_HEADER
#include "core/isa_table.h"

#define EC_UNROLL _Pragma("GCC unroll 8")

namespace ec {
namespace EC_ISA {

constexpr float kInfinity = __builtin_inff();
constexpr float kLargest = 3.4028235e38f;
constexpr float kLeastScale = 1e-36f;  // its inverse is a normal number
constexpr float kLeastLength = static_cast<float>(kLeastNorm);

// 2^x, 0 below 2^-126. Requires: x <= 127. min and max give their second operand where one is NaN, on
// x86-64 and (being NaN itself) elsewhere, so that NaN stays.
static inline VF exp2_of(VF x) {
  const VF least = set1(-126.0f);
  const VM tiny = greater(least, x);
  const VF clamped = max(least, x);
  const VF whole = to_float(round_to_int(clamped));
  const VF rest = sub(clamped, whole);
  VF p = set1(kExp2Coefficient[kExp2Degree]);
  EC_UNROLL for (int i = kExp2Degree - 1; i >= 0; --i) p = fma(p, rest, set1(kExp2Coefficient[i]));
  // The bits of 2^whole: (whole + 127) 2^23, exact in float.
  const VI power = round_to_int(mul(add(whole, set1(127.0f)), set1(8388608.0f)));
  return zero_where(tiny, mul(p, as_float(power)));
}

static inline VF tanh_of(VF z) {
  const VF square = mul(z, z);
  VF p = set1(kTanhCoefficient[kTanhDegree]);
  EC_UNROLL for (int i = kTanhDegree - 1; i >= 0; --i) p = fma(p, square, set1(kTanhCoefficient[i]));
  const VF small = fma(mul(z, square), p, z);
  const VF clamped = max(set1(-kTanhOne), min(set1(kTanhOne), z));
  const VF power = exp2_of(mul(clamped, set1(static_cast<float>(2.0 * kLog2E))));
  const VF large = sub(set1(1.0f), div(set1(2.0f), add(power, set1(1.0f))));
  return select(greater(abs(z), set1(kTanhSmall)), large, small);
}

// All bits where the column of the lane is in [0, tokens - at).
static inline VM valid_lanes(int64_t tokens, int64_t at) {
  const int64_t left = tokens - at;
  return mask_from_bits(left >= kLanes ? (1u << (kLanes - 1) << 1) - 1u : (1u << left) - 1u);
}

// 1 / max(|a|, kLeastNorm) over the heads of kLanes tokens. Without tanh, a may be of any size: its
// largest magnitude is taken out first, so that squares neither overflow nor vanish.
static inline VF inverse_norm(const ScoreRules& rules, const float* tile) {
  VF largest = set1(1.0f);
  if (rules.activation == Activation::kNone) {
    largest = set1(kLeastScale);
    for (int64_t j = 0; j < rules.heads; ++j) largest = max(largest, abs(load(tile + j * kBlockTokens)));
  }
  const VF scale = div(set1(1.0f), largest);
  VF squares = zero();
  for (int64_t j = 0; j < rules.heads; ++j) {
    const VF a = mul(load(tile + j * kBlockTokens), scale);
    squares = fma(a, a, squares);
  }
  return div(set1(1.0f), max(set1(kLeastLength), mul(largest, sqrt(squares))));
}

static void apply(const ScoreRules& rules, int64_t at, float* tile, VF* inverse) {
  if (rules.activation == Activation::kTanh)
    for (int64_t j = 0; j < rules.heads; ++j) {
      float* p = tile + j * kBlockTokens + at;
      store(p, tanh_of(load(p)));
    }
  if (rules.norm != HeadNorm::kL2) return;
  *inverse = inverse_norm(rules, tile + at);
  for (int64_t j = 0; j < rules.heads; ++j) {
    float* p = tile + j * kBlockTokens + at;
    store(p, mul(load(p), *inverse));
  }
}

static void activate(const ScoreRules& rules, const float* mask, float* tile) {
  for (int64_t at = 0; at < rules.tokens; at += kLanes) {
    VF inverse;
    apply(rules, at, tile, &inverse);
    const VM valid = valid_lanes(rules.tokens, at);
    const VF offset = mask == nullptr ? zero() : load(mask + at);
    for (int64_t j = 0; j < rules.heads; ++j) {
      float* p = tile + j * kBlockTokens + at;
      store(p, select(valid, add(load(p), offset), set1(-kInfinity)));
    }
  }
}

static void largest(const ScoreRules& rules, const float* tile, float* largest) {
  for (int64_t j = 0; j < rules.heads; ++j) {
    VF most = set1(-kInfinity);
    for (int64_t at = 0; at < rules.tokens; at += kLanes)
      most = max(load(tile + j * kBlockTokens + at), most);
    float lane[kLanes];
    store(lane, most);
    float value = lane[0];
    for (int i = 1; i < kLanes; ++i) value = lane[i] > value ? lane[i] : value;
    largest[j] = value;
  }
}

static void weigh(const ScoreRules& rules, const float* inverse_temperature, const float* reference,
                  const float* tile, float* weights, double* total) {
  for (int64_t j = 0; j < rules.heads; ++j) {
    const VF scale = set1(inverse_temperature[j] * static_cast<float>(kLog2E));
    const VF start = set1(reference[j]);
    VF sum = zero();
    for (int64_t at = 0; at < rules.tokens; at += kLanes) {
      const VF f = load(tile + j * kBlockTokens + at);
      const VF weight = exp2_of(mul(sub(f, start), scale));
      store(weights + j * kBlockTokens + at, weight);
      sum = add(sum, weight);
    }
    total[j] += sum_wide(sum);
  }
}

// ---- backward -------------------------------------------------------------------------------------

// From df (in gradient) to dz for kLanes tokens. along: f . df over the heads; inverse: 1 / |a|.
static inline void through_score(const ScoreRules& rules, int64_t at, VF along, VF inverse,
                                 const float* tile, float* gradient) {
  const bool normed = rules.norm == HeadNorm::kL2, bent = rules.activation == Activation::kTanh;
  // A token without a direction passes nothing back.
  const VF passed = select(greater(set1(1.0f / kLeastLength), inverse), inverse, zero());
  const VF length = div(set1(1.0f), inverse);
  for (int64_t j = 0; j < rules.heads; ++j) {
    const VF f = load(tile + j * kBlockTokens + at);
    float* g = gradient + j * kBlockTokens + at;
    VF dz = load(g);
    if (normed) dz = mul(fnma(f, along, dz), passed);
    if (bent) {
      const VF a = normed ? mul(f, length) : f;
      dz = mul(dz, fnma(a, a, set1(1.0f)));
    }
    store(g, select(valid_lanes(rules.tokens, at), dz, zero()));
  }
}

static void backward(const ScoreRules& rules, const HeadTerms<float>& heads, const float* mask, float* tile,
                     float* gradient, float* weights, float* score_lanes, float* mask_gradient) {
  for (int64_t at = 0; at < rules.tokens; at += kLanes) {
    VF inverse = set1(1.0f);
    apply(rules, at, tile, &inverse);
    const VM valid = valid_lanes(rules.tokens, at);
    const VF offset = mask == nullptr ? zero() : load(mask + at);
    VF along = zero(), mask_sum = zero();
    for (int64_t j = 0; j < rules.heads; ++j) {
      const VF f = load(tile + j * kBlockTokens + at);
      const VF score = add(f, offset), scale = set1(heads.inverse_temperature[j]);
      // Product and difference are rounded one by one, as lse itself was: huge equal scores cancel.
      const VF exponent = min(zero(), sub(mul(score, scale), set1(heads.lse[j])));
      const VF again = exp2_of(mul(exponent, set1(static_cast<float>(kLog2E))));
      const VF weight = select(valid, mul(again, set1(heads.correction[j])), zero());
      float* g = gradient + j * kBlockTokens + at;
      const VF ds = select(valid, mul(weight, add(load(g), set1(heads.row_term[j]))), zero());
      const VF df = mul(ds, scale);
      mask_sum = add(mask_sum, df);
      along = fma(f, df, along);
      store(weights + j * kBlockTokens + at, weight);
      store(g, df);
      if (score_lanes != nullptr) {
        float* lanes = score_lanes + j * kScoreLanes;
        // Where a score is -infinity its weight is 0, and so is the product.
        store(lanes, fma(ds,
                         select(valid, max(set1(-kLargest), sub(mul(score, scale), set1(heads.origin[j]))),
                                zero()),
                         load(lanes)));
      }
    }
    through_score(rules, at, along, inverse, tile, gradient);
    if (mask_gradient != nullptr) store(mask_gradient + at, mask_sum);
  }
}

static const AttentionScoreKernels kTable = {{activate, largest, weigh, backward}};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(AttentionScoreKernels, attention_scores)
