// SPDX-License-Identifier: Apache-2.0
// Elementwise steps in float64, for gradient checks and float64 models; see kernels.h for what each does.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/kernels.h"

namespace ec {
namespace {

constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kLeastScale = 1e-300;  // its inverse is a normal number
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// 1 / max(|a|, kLeastNorm) over the heads of one token.
double inverse_norm(const ScoreRules& rules, const double* column) {
  double largest = kLeastScale;
  for (int64_t j = 0; j < rules.heads; ++j)
    largest = std::max(largest, std::fabs(column[j * kBlockTokens]));
  double squares = 0.0;
  for (int64_t j = 0; j < rules.heads; ++j) {
    const double a = column[j * kBlockTokens] / largest;
    squares += a * a;
  }
  return 1.0 / std::max(largest * std::sqrt(squares), kLeastNorm);
}

// From z to f in one column; gives 1 / |a|.
double apply(const ScoreRules& rules, double* column) {
  if (rules.activation == Activation::kTanh)
    for (int64_t j = 0; j < rules.heads; ++j)
      column[j * kBlockTokens] = std::tanh(column[j * kBlockTokens]);
  if (rules.norm != HeadNorm::kL2) return 1.0;
  const double inverse = inverse_norm(rules, column);
  for (int64_t j = 0; j < rules.heads; ++j) column[j * kBlockTokens] *= inverse;
  return inverse;
}

void activate(const ScoreRules& rules, const double* mask, double* tile) {
  for (int64_t t = 0; t < rules.tokens; ++t) {
    apply(rules, tile + t);
    if (mask == nullptr) continue;
    for (int64_t j = 0; j < rules.heads; ++j) tile[j * kBlockTokens + t] += mask[t];
  }
}

void largest(const ScoreRules& rules, const double* tile, double* largest) {
  for (int64_t j = 0; j < rules.heads; ++j) {
    double most = -kInfinity;
    for (int64_t t = 0; t < rules.tokens; ++t) most = std::max(most, tile[j * kBlockTokens + t]);
    largest[j] = most;
  }
}

void weigh(const ScoreRules& rules, const double* inverse_temperature, const double* reference,
           const double* tile, double* weights, double* total) {
  for (int64_t j = 0; j < rules.heads; ++j)
    for (int64_t t = 0; t < rules.tokens; ++t) {
      const int64_t at = j * kBlockTokens + t;
      weights[at] = std::exp((tile[at] - reference[j]) * inverse_temperature[j]);
      total[j] += weights[at];
    }
}

void backward(const ScoreRules& rules, const HeadTerms<double>& heads, const double* mask, double* tile,
              double* gradient, double* weights, double* score_lanes, double* mask_gradient) {
  const bool normed = rules.norm == HeadNorm::kL2, bent = rules.activation == Activation::kTanh;
  for (int64_t t = 0; t < rules.tokens; ++t) {
    const double inverse = apply(rules, tile + t);
    const double offset = mask == nullptr ? 0.0 : mask[t];
    double along = 0.0, mask_sum = 0.0;
    for (int64_t j = 0; j < rules.heads; ++j) {
      const int64_t at = j * kBlockTokens + t;
      const double score = (tile[at] + offset) * heads.inverse_temperature[j];
      const double exponent = std::min(score - heads.lse[j], 0.0);
      weights[at] = std::exp(exponent) * heads.correction[j];
      const double ds = weights[at] * (gradient[at] + heads.row_term[j]);
      gradient[at] = ds * heads.inverse_temperature[j];
      mask_sum += gradient[at];
      along += tile[at] * gradient[at];
      if (score_lanes != nullptr)
        score_lanes[j * kScoreLanes] += ds * std::max(score - heads.origin[j], -kLargest);
    }
    // A token without a direction passes nothing back.
    const double passed = inverse < 1.0 / kLeastNorm ? inverse : 0.0;
    for (int64_t j = 0; j < rules.heads; ++j) {
      const int64_t at = j * kBlockTokens + t;
      const double f = tile[at], a = normed ? f / inverse : f;
      if (normed) gradient[at] = (gradient[at] - f * along) * passed;
      if (bent) gradient[at] *= 1.0 - a * a;
    }
    if (mask_gradient != nullptr) mask_gradient[t] = mask_sum;
  }
}

const ScoreKernels<double> kTable = {activate, largest, weigh, backward};

}  // namespace

const ScoreKernels<double>& double_score_kernels() { return kTable; }

}  // namespace ec
