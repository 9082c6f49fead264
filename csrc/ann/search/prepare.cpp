// SPDX-License-Identifier: Apache-2.0
#include "ann/search/prepare.h"

#include <cmath>
#include <new>

namespace ec::ann {

PreparedQueries::PreparedQueries(const IndexData& index, const float* queries, const int64_t* order,
                                 int64_t count, Scratch& scratch)
    : index_(index), count_(count), scratch_(scratch) {
  place_.fill(-1);
  const int64_t dim = index.dim;
  if (scratch.unit_queries.size() < kQueryBlock * dim &&
      !scratch.unit_queries.allocate(kQueryBlock * dim)) {
    throw std::bad_alloc();
  }
  for (int64_t i = 0; i < count; ++i) {
    const float* from = queries + order[i] * dim;
    float* to = scratch.unit_queries.data() + i * dim;
    double scale = 1.0;
    if (index.metric == Metric::kCosine) {
      double parts[4] = {};
      int64_t k = 0;
      for (; k + 4 <= dim; k += 4) {
        for (int j = 0; j < 4; ++j) parts[j] += static_cast<double>(from[k + j]) * from[k + j];
      }
      for (; k < dim; ++k) parts[0] += static_cast<double>(from[k]) * from[k];
      const double square = (parts[0] + parts[1]) + (parts[2] + parts[3]);
      scale = square > 0.0 ? 1.0 / std::sqrt(square) : 0.0;
    }
    for (int64_t k = 0; k < dim; ++k) to[k] = static_cast<float>(from[k] * scale);
  }
}

void PreparedQueries::encode(const int64_t* which, int64_t number) {
  if (index_.codec == nullptr || number == 0) return;
  const Codec& codec = *index_.codec;
  const int64_t length = codec.shape().head_bytes + codec.shape().tail_bytes;
  scratch_.codes.resize(kQueryBlock);
  if (!codec.prepare(scratch_.codec) || (scratch_.query_bytes.size() < kQueryBlock * length &&
                                         !scratch_.query_bytes.allocate(kQueryBlock * length))) {
    throw std::bad_alloc();
  }
  codec.encode_queries(*ann_raw_kernels(current_isa()), scratch_.unit_queries.data(), which, number,
                       scratch_.codec, scratch_.query_bytes.data(), scratch_.codes.data());
  for (int64_t i = 0; i < number; ++i) place_[static_cast<size_t>(which[i])] = i;
}

void PreparedQueries::encode_all() {
  int64_t which[kQueryBlock];
  for (int64_t i = 0; i < count_; ++i) which[i] = i;
  encode(which, count_);
}

}  // namespace ec::ann
