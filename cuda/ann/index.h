// SPDX-License-Identifier: Apache-2.0
// An index on the device, as its kernels see it.
//
// Rows are compared by codes first: c = x - mean (of the unit row for cosine) in bf16. A query q, for l2
// less the mean too, has with a row the score
//   l2: c . q - |c|^2 / 2        cosine and ip: c . q
// which is the greater the nearer the row. What kernels rank by is never less than that score:
//   bound = codes' product + offset + norm * reach
// with |c| the row's norm and reach, of the query, what rounding may take from the product for each unit of
// it. So the row of the least kept bound says how near any row that was left out can be.
#pragma once

#include "common/numbers.cuh"

namespace ec::cuda::ann {

enum class Metric { kCosine = 0, kInnerProduct = 1, kL2 = 2 };

// How vectors are kept. Numbers are those of VectorDtype (csrc/ann/raw_kernels.h).
enum class RowKind { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kInt8 = 3 };

constexpr int kCodeStep = 32;  // what the columns of codes are padded to a multiple of

struct IndexRows {
  Metric metric;
  RowKind kind;
  int64_t rows;    // slots, dead ones included
  int64_t stride;  // numbers between vectors
  int columns, padded;
  const void* vectors;         // of columns numbers each
  const float* inverse_norms;  // cosine: 1 / |x|
  const float* mean;
  const int64_t* ids;  // of the slots
  BFloat* codes;       // [rows][padded]
  float* offsets;
  float* norms;
  float* roughness;  // one number: the most that rounding to bf16 moves any c, for each unit of |c|
};

__device__ __forceinline__ float to_float(int8_t a) { return static_cast<float>(a); }
using ec::cuda::to_float;

// Calls body with a number of that kind.
template <class Body>
void with_rows(RowKind kind, const Body& body) {
  switch (kind) {
    case RowKind::kFloat32:
      return body(float{});
    case RowKind::kFloat16:
      return body(Half{});
    case RowKind::kBFloat16:
      return body(BFloat{});
    default:
      return body(int8_t{});
  }
}

}  // namespace ec::cuda::ann
