// SPDX-License-Identifier: Apache-2.0
// Distances as users see them: cosine 1 - cos, l2 the Euclidean distance, ip the negated inner product.
#pragma once

#include "ann/index_data.h"
#include "ann/search/pool.h"

namespace ec::ann {

// Of the vectors themselves. query: dim floats, unit for cosine. Requires: !index.raw_dropped.
void true_distances(const IndexData& index, const AnnRawKernels& kernels, const uint32_t* slots,
                    int64_t count, const float* query, double* distances);

// Of the codes, from their scores.
void code_distances(const IndexData& index, const Candidate* candidates, size_t count, const float* query,
                    double* distances);

// The score of a row at a true distance, as codes have it.
float score_of_distance(const IndexData& index, const QueryCode& code, const float* query, double distance);

}  // namespace ec::ann
