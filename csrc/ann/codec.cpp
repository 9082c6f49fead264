// SPDX-License-Identifier: Apache-2.0
#include "ann/codec.h"

#include <cmath>
#include <cstring>
#include <new>

namespace ec {
namespace ann {
namespace {

void scale_to_unit(float* row, int64_t dim) {
  double square = 0.0;
  for (int64_t k = 0; k < dim; ++k) square += static_cast<double>(row[k]) * row[k];
  if (!(square > 0.0)) return;
  const double inverse = 1.0 / std::sqrt(square);
  for (int64_t k = 0; k < dim; ++k) row[k] = static_cast<float>(row[k] * inverse);
}

// In parts that do not wait for each other.
float square_of(const float* numbers, int64_t count) {
  float parts[8] = {};
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) {
    for (int i = 0; i < 8; ++i) parts[i] += numbers[k + i] * numbers[k + i];
  }
  float square = 0.0f;
  for (; k < count; ++k) square += numbers[k] * numbers[k];
  for (const float part : parts) square += part;
  return square;
}

float length_of(const float* numbers, int64_t count) { return std::sqrt(square_of(numbers, count)); }

// Unsigned codes to signed ones in place, zeros from count to padded. Returns 128 times their sum.
int32_t make_signed(uint8_t* bytes, int64_t count, int64_t padded) {
  int32_t sum = 0;
  for (int64_t k = 0; k < count; ++k) {
    bytes[k] ^= 0x80;
    sum += static_cast<int8_t>(bytes[k]);
  }
  for (int64_t k = count; k < padded; ++k) bytes[k] = 0;
  return 128 * sum;
}

}  // namespace

Codec::Codec(const CodeShape& shape, Metric metric, const float* mean, const float* basis)
    : shape_(shape), metric_(metric), columns_(round_up(shape.code_dims, kProjectColumns)) {
  if (!mean_.allocate(shape.dim) || !basis_.allocate(shape.dim * columns_)) throw std::bad_alloc();
  std::memcpy(mean_.data(), mean, static_cast<size_t>(shape.dim) * sizeof(float));
  std::memset(basis_.data(), 0, static_cast<size_t>(basis_.size()) * sizeof(float));
  for (int64_t j = 0; j < shape.code_dims; ++j) {
    for (int64_t k = 0; k < shape.dim; ++k) basis_[place(j, k)] = basis[j * shape.dim + k];
  }
}

std::vector<float> Codec::basis() const {
  std::vector<float> rows(static_cast<size_t>(shape_.code_dims * shape_.dim));
  for (int64_t j = 0; j < shape_.code_dims; ++j) {
    for (int64_t k = 0; k < shape_.dim; ++k) {
      rows[static_cast<size_t>(j * shape_.dim + k)] = basis_[place(j, k)];
    }
  }
  return rows;
}

bool Codec::prepare(CodecScratch& scratch) const {
  return (scratch.rows.size() >= kCodecBlock * shape_.dim ||
          scratch.rows.allocate(kCodecBlock * shape_.dim)) &&
         (scratch.numbers.size() >= kCodecBlock * columns_ ||
          scratch.numbers.allocate(kCodecBlock * columns_));
}

void Codec::encode_rows(const AnnRawKernels& kernels, const VectorKernels& vectors, const void* rows,
                        int64_t row_bytes, int64_t count, CodecScratch& scratch, uint8_t* heads,
                        uint8_t* tails, float* norms) const {
  const int64_t dim = shape_.dim, in_head = shape_.head_numbers();
  float squares[kCodecBlock];
  for (int64_t i = 0; i < count; ++i) {
    float* row = scratch.rows.data() + i * dim;
    vectors.widen(static_cast<const char*>(rows) + i * row_bytes, dim, row);
    if (metric_ == Metric::kCosine) scale_to_unit(row, dim);
    double square = 0.0;
    for (int64_t k = 0; k < dim; ++k) {
      row[k] -= mean_[k];
      square += static_cast<double>(row[k]) * row[k];
    }
    squares[i] = static_cast<float>(square);
    if (norms != nullptr) norms[i] = squares[i];
  }
  kernels.project(scratch.rows.data(), count, basis_.data(), dim, columns_, scratch.numbers.data());
  for (int64_t i = 0; i < count; ++i) {
    const float* numbers = scratch.numbers.data() + i * columns_;
    const int64_t head = in_head < shape_.code_dims ? in_head : shape_.code_dims;
    uint8_t* to = heads + i * shape_.head_bytes;
    RowFactors factors = {0.0f, metric_ == Metric::kInnerProduct ? 0.0f : -0.5f * squares[i], 0.0f, 0.0f};
    factors.head_scale = kernels.quantise(numbers, head, in_head, to);
    if (shape_.tail_bytes > 0) {
      const int64_t tail = shape_.code_dims - head;
      factors.tail_scale =
          kernels.quantise(numbers + head, tail, shape_.tail_bytes, tails + i * shape_.tail_bytes);
      factors.tail_norm = length_of(numbers + head, tail);
    }
    std::memcpy(to + in_head, &factors, sizeof factors);
  }
}

void Codec::encode_queries(const AnnRawKernels& kernels, const float* queries, const int64_t* which,
                           int64_t count, CodecScratch& scratch, int8_t* bytes, QueryCode* codes) const {
  const int64_t dim = shape_.dim, in_head = shape_.head_numbers();
  const int64_t length = shape_.head_bytes + shape_.tail_bytes;
  const bool centred = metric_ != Metric::kInnerProduct;
  float* rows = scratch.rows.data();
  for (int64_t i = 0; i < count; ++i) {
    const float* from = queries + which[i] * dim;
    for (int64_t k = 0; k < dim; ++k) rows[i * dim + k] = centred ? from[k] - mean_[k] : from[k];
  }
  kernels.project(rows, count, basis_.data(), dim, columns_, scratch.numbers.data());
  for (int64_t i = 0; i < count; ++i) {
    const float* numbers = scratch.numbers.data() + i * columns_;
    const int64_t head = in_head < shape_.code_dims ? in_head : shape_.code_dims;
    auto* to = reinterpret_cast<uint8_t*>(bytes + i * length);
    QueryCode& code = codes[i];
    code = {bytes + i * length, 0.0f, 0.0f, 0, 0, 0.0f, 0.0f};
    code.square = square_of(rows + i * dim, dim);
    code.head_scale = kernels.quantise(numbers, head, in_head, to);
    code.head_bias = make_signed(to, in_head, shape_.head_bytes);
    if (shape_.tail_bytes == 0) continue;
    const int64_t tail = shape_.code_dims - head;
    code.tail_scale = kernels.quantise(numbers + head, tail, shape_.tail_bytes, to + shape_.head_bytes);
    code.tail_bias = make_signed(to + shape_.head_bytes, shape_.tail_bytes, shape_.tail_bytes);
    code.tail_norm = length_of(numbers + head, tail);
  }
}

void Codec::decode_row(const uint8_t* head, const uint8_t* tail, float* row) const {
  const RowFactors& factors = factors_of(head, shape_);
  const int64_t in_head = shape_.head_numbers();
  std::vector<float> numbers(static_cast<size_t>(shape_.code_dims));
  for (int64_t j = 0; j < shape_.code_dims; ++j) {
    const int byte = j < in_head ? head[j] : tail[j - in_head];
    const float scale = j < in_head ? factors.head_scale : factors.tail_scale;
    numbers[static_cast<size_t>(j)] = scale * static_cast<float>(byte - 128);
  }
  for (int64_t k = 0; k < shape_.dim; ++k) {
    float sum = mean_[k];
    for (int64_t j = 0; j < shape_.code_dims; ++j)
      sum += basis_[place(j, k)] * numbers[static_cast<size_t>(j)];
    row[k] = sum;
  }
}

}  // namespace ann
}  // namespace ec
