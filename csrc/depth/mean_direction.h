// SPDX-License-Identifier: Apache-2.0
// Sums of unit rows and cosines against them: all that cosine depth needs, in O((n + m) d), and what the
// linear correction of reduced precision needs (the mean cosine of every row, exact).
#pragma once

#include <cstdint>

#include "core/dispatch.h"
#include "core/workspace.h"
#include "product/matrix_rows.h"

namespace ec {

// The rows of a corpus, its weights and its groups. Null weights are all 1, null labels one group.
struct CorpusParts {
  const float* weights = nullptr;
  const int32_t* labels = nullptr;
  int64_t groups = 1;

  double weight(int64_t row) const { return weights == nullptr ? 1.0 : static_cast<double>(weights[row]); }
  // Whether the weight is so large that float32 sums with it would lose the other rows.
  bool dwarfs(int64_t row, double mean_weight) const { return weight(row) > 32.0 * mean_weight; }
  double mean_weight(int64_t rows) const {
    double total = 0.0;
    for (int64_t row = 0; weights != nullptr && row < rows; ++row) total += weight(row);
    return weights == nullptr ? 1.0 : total / static_cast<double>(rows);
  }
  int64_t group(int64_t row) const { return labels == nullptr ? 0 : labels[row]; }
};

struct RunOptions {
  Isa isa;
  int threads;
  const ec_monitor* monitor;
};

// sums[groups][columns] = sum of weight * (row / |row|), weight_totals[groups] = sum of weights.
ec_status sum_directions(const MatrixRows& rows, const CorpusParts& parts, const RunOptions& run,
                         double* sums, double* weight_totals, FirstFault* fault);

// cosine_sums[n][groups] = sum over the group of weight * cos(row, member) = (row / |row|) . sums[group].
// With own_parts the rows are the corpus itself and each is left out of its own group.
ec_status sum_cosines(const MatrixRows& rows, const double* sums, int64_t groups,
                      const CorpusParts* own_parts, const RunOptions& run, double* cosine_sums,
                      FirstFault* fault);

}  // namespace ec
