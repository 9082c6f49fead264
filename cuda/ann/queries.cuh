// SPDX-License-Identifier: Apache-2.0
// Queries as scans have them; see prepare_queries.cuh.
#pragma once

#include "ann/encode.cuh"
#include "common/behind.cuh"

namespace ec::cuda::ann {

// Of a query.
struct QueryFacts {
  // l2: |q - mean|^2, else q . mean: what a distance has beside the score. Of codes: cosine as l2.
  double part;
  float reach;  // NaN for a query that has no answer
  int unanswered;
};

// Queries in the order in which blocks take them.
struct Queries {
  AnyRows given;
  int64_t count;         // positions
  const int32_t* order;  // of each position its query; null: the same
  const int32_t* which;  // of each position its filter, -1: every living row; null: `filter` for all
  int filter;
  // Positions [firsts[t], firsts[t + 1]), kTile at most and of one filter, are a tile; null: kTile each.
  const int32_t* firsts;
  int64_t tiles;
  float* vectors;  // [count][columns]
  BFloat* codes;   // [count][padded]
  QueryFacts* facts;

  __device__ int64_t number(int64_t position) const {
    return order == nullptr ? position : order[position];
  }
  __device__ int filter_of(int64_t position) const { return which == nullptr ? filter : which[position]; }
};

// What may be lost to numbers below the normal ones.
__device__ __forceinline__ double underflow_loss(int padded) {
  return static_cast<double>(padded) * 2.4e-38;
}

}  // namespace ec::cuda::ann
