// SPDX-License-Identifier: Apache-2.0
// How vectors become codes: the trained mean and basis, and what they are applied to.
#pragma once

#include <vector>

#include "ann/codes.h"
#include "ann/kernels.h"
#include "ann/raw_kernels.h"
#include "core/workspace.h"

namespace ec {
namespace ann {

enum class Metric { kCosine = 0, kInnerProduct = 1, kL2 = 2 };

// What applies a codec to rows, one per worker.
struct CodecScratch {
  AlignedBuffer<float> rows;     // [kCodecBlock][dim], as floats, unit for cosine, centred
  AlignedBuffer<float> numbers;  // [kCodecBlock][columns]
};
constexpr int64_t kCodecBlock = 64;

class Codec {
 public:
  // basis: [code_dims][dim], orthonormal rows. Throws bad_alloc.
  Codec(const CodeShape& shape, Metric metric, const float* mean, const float* basis);

  const CodeShape& shape() const { return shape_; }
  Metric metric() const { return metric_; }
  const float* mean() const { return mean_.data(); }
  // The basis as given.
  std::vector<float> basis() const;
  int64_t size_bytes() const {
    return (mean_.size() + basis_.size()) * static_cast<int64_t>(sizeof(float));
  }

  // Codes of rows [0, count), count <= kCodecBlock. heads and tails point at the first row's. norms may be
  // null.
  void encode_rows(const AnnRawKernels& kernels, const VectorKernels& vectors, const void* rows,
                   int64_t row_bytes, int64_t count, CodecScratch& scratch, uint8_t* heads, uint8_t* tails,
                   float* norms) const;
  // Codes of queries which[0] ... which[count - 1] of dim floats each (unit vectors for cosine), count <=
  // kCodecBlock, one after the other; bytes: head_bytes + tail_bytes each.
  void encode_queries(const AnnRawKernels& kernels, const float* queries, const int64_t* which,
                      int64_t count, CodecScratch& scratch, int8_t* bytes, QueryCode* codes) const;
  // What a row's code stands for, dim floats: the row but for rounding and axes that were left out.
  void decode_row(const uint8_t* head, const uint8_t* tail, float* row) const;
  bool prepare(CodecScratch& scratch) const;  // false: not enough memory

 private:
  // Where axis j has its number of dimension k: panels of kProjectColumns axes, dimension by dimension.
  int64_t place(int64_t j, int64_t k) const {
    return (j / kProjectColumns * shape_.dim + k) * kProjectColumns + j % kProjectColumns;
  }

  CodeShape shape_;
  Metric metric_;
  int64_t columns_;  // code_dims, padded
  AlignedBuffer<float> mean_;
  AlignedBuffer<float> basis_;  // by place()
};

}  // namespace ann
}  // namespace ec
