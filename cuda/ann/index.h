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
//
// Of an index that has not kept its vectors there are the codes of the CPU (csrc/ann/codes.h): bytes, which
// stand for what x - mean is along some axes, and |x - mean|^2. c is what the bytes stand for, and queries
// are turned to the axes, for cosine too less the mean:
//   l2, cosine: c . q - |x - mean|^2 / 2      ip: c . q
// From these scores come the distances too, as on the CPU.
#pragma once

#include <type_traits>

#include "common/numbers.cuh"

namespace ec::cuda::ann {

enum class Metric { kCosine = 0, kInnerProduct = 1, kL2 = 2 };

// How vectors are kept. Numbers are those of VectorDtype (csrc/ann/raw_kernels.h).
enum class RowKind { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kInt8 = 3, kCodes = 4 };

// A number of a row of codes: 128 is zero.
struct CodeByte {
  uint8_t byte;
};

constexpr int kCodeStep = 32;  // what the columns of codes are padded to a multiple of

// What codes have beside their bytes.
struct CodeFactors {
  const float* scales;  // [rows][2]: of the first head_columns numbers, and of the others
  const float* axes;    // [columns][query_columns]
  int head_columns;
  int query_columns;  // of queries, before they are turned
};

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
  float* offsets;      // of codes they are given
  float* norms;
  float* roughness;  // one number: the most that rounding to bf16 moves any c, for each unit of |c|
  CodeFactors coded = {};
};

__device__ __forceinline__ float to_float(int8_t a) { return static_cast<float>(a); }
using ec::cuda::to_float;

// A row's numbers.
template <class T>
struct Row {
  __device__ Row(const IndexRows& index, int64_t slot)
      : numbers(static_cast<const T*>(index.vectors) + slot * index.stride) {}
  __device__ float operator[](int k) const { return to_float(numbers[k]); }

  const T* numbers;
};
template <>
struct Row<CodeByte> {
  __device__ Row(const IndexRows& index, int64_t slot)
      : bytes(static_cast<const uint8_t*>(index.vectors) + slot * index.stride),
        head(index.coded.scales[2 * slot]),
        tail(index.coded.scales[2 * slot + 1]),
        head_columns(index.coded.head_columns) {}
  __device__ float operator[](int k) const {
    return (k < head_columns ? head : tail) * static_cast<float>(static_cast<int>(bytes[k]) - 128);
  }

  const uint8_t* bytes;
  float head, tail;
  int head_columns;
};

// A row's numbers, of any kind but codes: for passes that memory bounds, where one kernel does for all.
struct AnyRow {
  __device__ AnyRow(const IndexRows& index, int64_t slot) : index(index), start(slot * index.stride) {}
  __device__ float operator[](int k) const {
    const int64_t at = start + k;
    switch (index.kind) {
      case RowKind::kFloat32:
        return static_cast<const float*>(index.vectors)[at];
      case RowKind::kFloat16:
        return to_float(static_cast<const Half*>(index.vectors)[at]);
      case RowKind::kBFloat16:
        return to_float(static_cast<const BFloat*>(index.vectors)[at]);
      default:
        return to_float(static_cast<const int8_t*>(index.vectors)[at]);
    }
  }

  const IndexRows& index;
  int64_t start;
};

template <class T>
constexpr bool kIsCoded = std::is_same_v<T, CodeByte>;

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
    case RowKind::kCodes:
      return body(CodeByte{});
    default:
      return body(int8_t{});
  }
}

}  // namespace ec::cuda::ann
