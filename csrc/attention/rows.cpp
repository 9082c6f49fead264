// SPDX-License-Identifier: Apache-2.0
#include "attention/rows.h"

namespace ec {
namespace {

constexpr int64_t kColumnBlock = 64;  // columns of the factor that stay in the cache while heads pass

template <class Number>
struct Plain {
  const Number* numbers;
  Number operator()(int64_t element) const { return numbers[element]; }
};
struct BFloat {
  const uint16_t* numbers;
  float operator()(int64_t element) const {
    const uint32_t wide = static_cast<uint32_t>(numbers[element]) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
};
struct AnyDtype {
  ec_array array;
  double operator()(int64_t element) const { return array_value(array, element); }
};

template <class Real, class Read>
void transpose(const Read& read, int64_t column_stride, int64_t head_stride, int64_t heads, int64_t columns,
               int64_t stride, Real* to) {
  for (int64_t start = 0; start < columns; start += kColumnBlock) {
    const int64_t end = std::min(start + kColumnBlock, columns);
    for (int64_t j = 0; j < heads; ++j)
      for (int64_t k = start; k < end; ++k)
        to[j * stride + k] = static_cast<Real>(read(j * head_stride + k * column_stride));
  }
}

}  // namespace

template <class Real>
void pack_factor(const ec_attention_problem& problem, int64_t sequence, int64_t stride, Real* to) {
  const ec_array& query = problem.query;
  const int64_t heads = problem.heads, columns = problem.key_columns;
  const int64_t start = problem.query_per_sequence != 0 ? sequence * query.stride[0] : 0;
  const void* data = element_pointer(query.data, query.dtype, start);
  const int64_t by_column = query.stride[1], by_head = query.stride[2];
  if (query.dtype == EC_FLOAT32)
    transpose(Plain<float>{static_cast<const float*>(data)}, by_column, by_head, heads, columns, stride,
              to);
  else if (query.dtype == EC_BFLOAT16)
    transpose(BFloat{static_cast<const uint16_t*>(data)}, by_column, by_head, heads, columns, stride, to);
  else
    transpose(AnyDtype{{data, {0, 0, 0}, query.dtype}}, by_column, by_head, heads, columns, stride, to);
  for (int64_t j = 0; j < heads; ++j) std::fill(to + j * stride + columns, to + (j + 1) * stride, Real{0});
  std::fill(to + heads * stride, to + round_up(heads, kHeadPadding) * stride, Real{0});
}
template void pack_factor(const ec_attention_problem&, int64_t, int64_t, float*);
template void pack_factor(const ec_attention_problem&, int64_t, int64_t, double*);

}  // namespace ec
