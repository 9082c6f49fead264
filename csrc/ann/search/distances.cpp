// SPDX-License-Identifier: Apache-2.0
#include "ann/search/distances.h"

#include <algorithm>
#include <cmath>

namespace ec::ann {

void true_distances(const IndexData& index, const AnnRawKernels& kernels, const uint32_t* slots,
                    int64_t count, const float* query, double* distances) {
  const VectorKernels& vectors = index.vector_kernels(kernels);
  const auto loop = index.metric == Metric::kL2 ? vectors.square_listed : vectors.dot_listed;
  loop(index.raw.data(), index.row_bytes(), slots, count, query, index.dim, distances);
  for (int64_t i = 0; i < count; ++i) {
    switch (index.metric) {
      case Metric::kCosine:
        distances[i] = std::max(0.0, 1.0 - distances[i] * index.inverse_norms[slots[i]]);
        break;
      case Metric::kInnerProduct:
        distances[i] = -distances[i];
        break;
      case Metric::kL2:
        distances[i] = std::sqrt(distances[i]);
        break;
    }
  }
}

void code_distances(const IndexData& index, const Candidate* candidates, size_t count, const float* query,
                    double* distances) {
  const float* mean = index.codec->mean();
  double from_mean = 0.0, along_mean = 0.0;
  for (int64_t k = 0; k < index.dim; ++k) {
    const double difference = static_cast<double>(query[k]) - mean[k];
    from_mean += difference * difference;
    along_mean += static_cast<double>(query[k]) * mean[k];
  }
  for (size_t i = 0; i < count; ++i) {
    const double score = candidates[i].score;
    const double square = std::max(0.0, from_mean - 2.0 * score);
    distances[i] = index.metric == Metric::kInnerProduct ? -(along_mean + score)
                   : index.metric == Metric::kL2         ? std::sqrt(square)
                                                         : 0.5 * square;
  }
}

float score_of_distance(const IndexData& index, const QueryCode& code, const float* query,
                        double distance) {
  switch (index.metric) {
    case Metric::kCosine:
      return static_cast<float>(0.5 * code.square - distance);
    case Metric::kL2:
      return static_cast<float>(0.5 * (code.square - distance * distance));
    default:
      break;
  }
  const float* mean = index.codec->mean();
  double along_mean = 0.0;
  for (int64_t k = 0; k < index.dim; ++k) along_mean += static_cast<double>(query[k]) * mean[k];
  return static_cast<float>(-distance - along_mean);
}

}  // namespace ec::ann
