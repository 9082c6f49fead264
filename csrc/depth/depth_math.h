// SPDX-License-Identifier: Apache-2.0
// Formulas of statistical depth, shared by the CPU and CUDA.
//
// TTE depth (Seegmiller and Preum, "Statistical Depth for Ranking and Characterizing Transformer-Based
// Text Embeddings", EMNLP 2023, arXiv 2310.15010): D(x, F) = sup delta - E_{H ~ F}[delta(x, H)] for a
// bounded distance delta. With c = cos(x, H):
//   cosine  delta = 1 - c          D = 2 - E[delta]
//   chord   delta = sqrt(2 - 2 c)  D = 2 - E[delta]
//   arc     delta = arccos c       D = pi - E[delta]   (Pandolfo, Paindaveine and Porzio 2018)
// L2 depth (Mosler 2013): D = 1 / (1 + E|x - H|).
// Where a row is scored in its own corpus it is left out of the expectation.
#pragma once

#include <cmath>

#include "core/hd.h"

namespace ec {

enum class PairMetric : int { kChord = 0, kArc = 1, kL2 = 2 };
constexpr int kPairMetricCount = 3;

constexpr double kPi = 3.14159265358979323846;

// arccos(c) = sqrt(1 - c) P(c) on [0, 1]: minimax, absolute error of arccos at most 8.8e-8, with float
// coefficients and arithmetic 2.8e-7.
constexpr int kArcDegree = 6;
constexpr float kArcCoefficient[kArcDegree + 1] = {1.5707963f,   -0.21459109f,   0.08883589f, -0.04919744f,
                                                   0.027762918f, -0.0120033985f, 0.002611722f};

// Distance of two unit vectors (or, for L2, of any two) from the squared norm of their difference.
EC_HD double pair_distance(PairMetric metric, double squared_difference) {
  const double chord = std::sqrt(squared_difference);
  if (metric != PairMetric::kArc) return chord;
  return 2.0 * std::asin(chord < 2.0 ? 0.5 * chord : 1.0);
}

// d delta / d c at c, for the linear correction of reduced precision. Requires: |c| < 1.
EC_HD double pair_slope(PairMetric metric, double c) {
  return metric == PairMetric::kArc ? -1.0 / std::sqrt(1.0 - c * c) : -1.0 / std::sqrt(2.0 - 2.0 * c);
}

// Largest distance that two unit vectors can have.
EC_HD double pair_bound(PairMetric metric) { return metric == PairMetric::kArc ? kPi : 2.0; }

EC_HD double depth_of_mean_distance(PairMetric metric, double mean_distance) {
  if (metric == PairMetric::kL2) return 1.0 / (1.0 + mean_distance);
  return pair_bound(metric) - mean_distance;
}

}  // namespace ec
