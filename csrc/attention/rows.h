// SPDX-License-Identifier: Apache-2.0
// Keys, values, gradients and factors as the kernels want them: rows of Real, their columns padded with
// zeros to a multiple of the lanes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "attention/kernels.h"
#include "attention/problem.h"
#include "product/rows.h"

namespace ec {

// The kernels of one call.
struct AttentionRun {
  const AttentionKernels* tokens;
  const AttentionScoreKernels* scores;
  const BFloatKernels* bfloat;  // null where rows are not bf16
  const RowKernels* rows;

  static AttentionRun of(Isa isa, bool bfloat) {
    return {attention_kernels(isa), attention_scores_kernels(isa),
            bfloat ? attention_bfloat_kernels(isa) : nullptr, row_kernels(isa)};
  }
};

// The kernels for rows of a dtype, and for the scores that come of them.
template <class Row>
struct KernelsOf;
template <>
struct KernelsOf<float> {
  static const TokenKernels<float>& tokens(const AttentionRun& run) { return run.tokens->tokens_float; }
  static const ScoreKernels<float>& scores(const AttentionRun& run) { return run.scores->scores_float; }
  static constexpr ec_dtype kDtype = EC_FLOAT32;
};
template <>
struct KernelsOf<double> {
  static const TokenKernels<double>& tokens(const AttentionRun& run) { return run.tokens->tokens_double; }
  static const ScoreKernels<double>& scores(const AttentionRun&) { return double_score_kernels(); }
  static constexpr ec_dtype kDtype = EC_FLOAT64;
};
// Where the instruction set multiplies bf16.
template <>
struct KernelsOf<uint16_t> {
  static const TokenKernels<uint16_t>& tokens(const AttentionRun& run) { return run.bfloat->tokens; }
  static const ScoreKernels<float>& scores(const AttentionRun& run) { return run.scores->scores_float; }
  static constexpr ec_dtype kDtype = EC_BFLOAT16;
};

// to += scale * row, and to = scale * row (which may be the same).
inline void add_scaled_row(const RowKernels& kernels, const float* row, float scale, int64_t count,
                           float* to) {
  kernels.add_scaled(row, scale, count, to);
}
inline void add_scaled_row(const RowKernels&, const double* row, double scale, int64_t count, double* to) {
  for (int64_t i = 0; i < count; ++i) to[i] += scale * row[i];
}
inline void scale_row(const RowKernels& kernels, const float* row, float scale, int64_t count, float* to) {
  kernels.shift_scale(row, nullptr, scale, count, to);
}
inline void scale_row(const RowKernels&, const double* row, double scale, int64_t count, double* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = scale * row[i];
}

inline int64_t dtype_size(ec_dtype dtype) { return dtype == EC_FLOAT64 ? 8 : dtype == EC_FLOAT32 ? 4 : 2; }

inline const void* element_pointer(const void* data, ec_dtype dtype, int64_t element) {
  return static_cast<const char*>(data) + element * dtype_size(dtype);
}
inline void* element_pointer(void* data, ec_dtype dtype, int64_t element) {
  return static_cast<char*>(data) + element * dtype_size(dtype);
}

// One contiguous row of any dtype as Real, padded with zeros.
inline void read_row(const RowKernels& kernels, const void* row, ec_dtype dtype, int64_t columns,
                     int64_t padded, float* to) {
  kernels.convert(row, dtype, columns, to);
  std::fill(to + columns, to + padded, 0.0f);
}
inline void read_row(const RowKernels&, const void* row, ec_dtype dtype, int64_t columns, int64_t padded,
                     double* to) {
  const ec_array array = {row, {0, 0, 0}, dtype};
  if (dtype == EC_FLOAT64) {
    std::memcpy(to, row, static_cast<size_t>(columns) * sizeof(double));
  } else {
    for (int64_t i = 0; i < columns; ++i) to[i] = array_value(array, i);
  }
  std::fill(to + columns, to + padded, 0.0);
}
// Requires: the row is bf16.
inline void read_row(const RowKernels&, const void* row, ec_dtype, int64_t columns, int64_t padded,
                     uint16_t* to) {
  std::memcpy(to, row, static_cast<size_t>(columns) * sizeof(uint16_t));
  std::fill(to + columns, to + padded, uint16_t{0});
}

inline void write_row(const ConvertKernels& kernels, const float* from, int64_t columns, ec_dtype dtype,
                      void* to) {
  if (dtype == EC_FLOAT16)
    kernels.to_half(from, columns, static_cast<uint16_t*>(to));
  else if (dtype == EC_BFLOAT16)
    kernels.to_bfloat(from, columns, static_cast<uint16_t*>(to));
  else
    std::memcpy(to, from, static_cast<size_t>(columns) * sizeof(float));
}
inline void write_row(const ConvertKernels&, const double* from, int64_t columns, ec_dtype, void* to) {
  std::memcpy(to, from, static_cast<size_t>(columns) * sizeof(double));
}
inline void write_row(const ConvertKernels&, const uint16_t* from, int64_t columns, ec_dtype, void* to) {
  std::memcpy(to, from, static_cast<size_t>(columns) * sizeof(uint16_t));
}

// The rows of one block: where the array holds such rows in whole vectors they are used in place, else they
// are converted into scratch[kBlockTokens][padded].
template <class Row>
class BlockRows {
 public:
  BlockRows(const AttentionRun& run, const ec_attention_problem& problem, const ec_array& array,
            int64_t columns, int64_t padded)
      : run_(run), layout_(problem), array_(array), columns_(columns), padded_(padded) {}

  bool in_place() const { return array_.dtype == KernelsOf<Row>::kDtype && columns_ == padded_; }

  // What is to be fetched before the block that `rows` was filled for: nothing where rows are converted.
  RowsAhead ahead(const Row* const* rows, int64_t tokens) const {
    if (!in_place()) return {};
    return {reinterpret_cast<const void* const*>(rows), tokens};
  }

  // rows[0 .. tokens, rounded up to kTokenPadding), where the last ones are zeros[padded]: a weight of 0
  // times an infinite number would not be 0.
  void point(int64_t sequence, const Block& block, const Row* zeros, Row* scratch, const Row** rows) const {
    const int64_t origin = layout_.origin(array_.stride, sequence);
    for (int64_t t = 0; t < block.tokens; ++t) {
      const void* row =
          element_pointer(array_.data, array_.dtype, origin + block.token[t] * array_.stride[1]);
      if (in_place()) {
        rows[t] = static_cast<const Row*>(row);
      } else {
        read_row(*run_.rows, row, array_.dtype, columns_, padded_, scratch + t * padded_);
        rows[t] = scratch + t * padded_;
      }
    }
    const int64_t end = round_up(block.tokens, kTokenPadding);
    for (int64_t t = block.tokens; t < end; ++t) rows[t] = zeros;
  }

 private:
  const AttentionRun& run_;
  Layout layout_;
  const ec_array& array_;
  int64_t columns_, padded_;
};

// The factor of one sequence as [heads, rounded up to kHeadPadding], rows of zeros behind their columns and
// `stride` apart.
template <class Real>
void pack_factor(const ec_attention_problem& problem, int64_t sequence, int64_t stride, Real* to);

}  // namespace ec
