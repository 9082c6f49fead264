// SPDX-License-Identifier: Apache-2.0
// What a block of the backward multiplies with, pools into, and writes the gradients of tokens from: what
// is the same with tensor cores (backward_tensor_pool.cuh) and without, and that without.
#pragma once

#include "attention/backward_tile.cuh"
#include "attention/plain_products.cuh"

namespace ec::cuda {

// How the rows of grad_out and of the query lie in a pool; powers: see HeadRows.
struct FactorShape {
  int rows;
  RowShape grad, query;
  const float *grad_powers, *query_powers;
  int power_step;
};

// d loss / d out of a sequence, and (where `with_query`) its query: zeros beyond what there is. By all
// threads. In a loop, so that there is one code for both.
template <int kAtOnce = 4, class F>
__device__ __forceinline__ void load_factors(const BackwardCall& call, int64_t b, const FactorShape& shape,
                                             bool with_query, F* grad_to, F* query_to) {
  const Numbers &grad = call.gradient.grad_out, &query = call.problem.query;
  const auto heads = static_cast<int>(call.problem.heads);
#pragma unroll 1
  for (int which = 0; which < (with_query ? 2 : 1); ++which) {
    const bool first = which == 0;
    const HeadRows rows = {first ? grad.stride[1] : query.stride[2],
                           first ? 1 : query.stride[1],
                           heads,
                           first ? shape.grad.columns : shape.query.columns,
                           first ? shape.grad_powers : shape.query_powers,
                           shape.power_step};
    const Numbers from = {first ? grad.data : query.data, {}, first ? grad.kind : query.kind};
    const int64_t of_sequence = first                             ? b * grad.stride[0]
                                : call.problem.query_per_sequence ? b * query.stride[0]
                                                                  : 0;
    const int64_t origin =
        of_sequence + (first ? shape.grad.first : shape.query.first) * rows.column_stride;
    load_rows<kAtOnce>(from, origin, rows, shape.rows, first ? shape.grad.padded : shape.query.padded,
                       first ? shape.grad.stride : shape.query.stride, first ? grad_to : query_to);
  }
}

// The factor for the keys, with rows `gap` numbers apart.
__device__ __forceinline__ RowShape key_factor_shape(const AttentionProblem& problem, int gap) {
  const auto columns = static_cast<int>(problem.key_columns);
  const int padded = (columns + 15) / 16 * 16;
  return {columns, padded, padded + gap, 0};
}

// Which products make the gradient of which rows.
struct SpreadTerms {
  unsigned char* rows;  // of token 0 of the sequence, from the first of the columns on
  int columns;
  int64_t apart;               // rows, in numbers
  bool of_weights, of_scores;  // A' G, dz' q
  bool accumulate;

  template <class T>
  __device__ T* row(int64_t t) const {
    return reinterpret_cast<T*>(rows) + t * apart;
  }
};
// Of the keys (which 0), and of values that are others (1): these columns of theirs.
template <class T>
__device__ __forceinline__ SpreadTerms spread_terms(const BackwardCall& call, int64_t b, int which,
                                                    int first, int columns) {
  const bool shared = call.problem.value.data == nullptr, keys = which == 0;
  const int64_t apart = keys ? call.problem.key_columns : call.problem.value_columns;
  T* rows = static_cast<T*>(keys ? call.gradient.grad_key : shared ? nullptr : call.gradient.grad_value);
  if (rows != nullptr) rows += call.sequences.token_origin(b) * apart + first;
  return {reinterpret_cast<unsigned char*>(rows), columns, apart, shared || !keys, keys && call.scored(),
          keys && call.gradient.accumulate};
}

template <class T>
class PlainGradientPool {
 public:
  static constexpr bool kScaled = false, kShared = false;
  static constexpr int kOwnHeads = 0, kHeadLanes = kWarpSize;

  __device__ PlainGradientPool(const BackwardCall& call, unsigned char* shared)
      : tile_(call.tile),
        heads_(static_cast<int>(call.problem.heads)),
        rows_((heads_ + kGroup - 1) / kGroup * kGroup),
        values_(call.tile.values.columns == 0 ? call.tile.keys : call.tile.values),
        keys_(key_factor_shape(call.problem, 0)),
        gradient_(call.memory.find<float>(call.value_factor, shared)),
        query_(call.memory.find<float>(call.query_factor, shared)),
        sums_(call.memory.find<float>(call.query_sums, shared)),
        weights_(call.memory.find<float>(call.weights, shared)),
        gradients_(call.memory.find<float>(call.products, shared)),
        wants_query_(call.wants_query()) {}

  __device__ int rows() const { return heads_; }
  __device__ bool writes(int) const { return true; }
  __device__ void load(const BackwardCall& call, int64_t b, HeadGradient*, bool with_query) {
    RowShape grad = values_;
    grad.stride = grad.padded;
    load_factors(call, b, {rows_, grad, keys_, nullptr, nullptr, 0}, with_query, gradient_, query_);
  }
  __device__ void clear() {
    if (!wants_query_) return;
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * keys_.padded; i += kAttentionThreads)
      sums_[i] = 0.0f;
  }
  __device__ void multiply(const T* values) const {
    multiply_plain(values, values_, tile_.tokens, gradient_, heads_, gradients_);
  }
  __device__ float product(int, int j, int lane) const { return gradients_[j * kScoreStride + lane]; }
  // They are where they are taken from.
  __device__ void put(OwnNumbers<0>&, OwnNumbers<0>&, Across&, HeadGradient*) const {}
  __device__ void add(const T* keys, const HeadGradient*) {
    pool_plain(gradients_, nullptr, 0, keys, tile_.keys, tile_.tokens, heads_, sums_);
  }
  __device__ void spread(const BackwardCall& call, const TileHeader& header, const Across&) const {
#pragma unroll 1
    for (int which = 0; which < 2; ++which)
      spread_rows(spread_terms<T>(call, header.piece.sequence, which, 0,
                                  which == 0 ? keys_.columns : values_.columns),
                  header);
  }
  template <class Put>
  __device__ void each(const Put& put) const {
    const int pairs = keys_.padded / 2;
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * pairs; i += kAttentionThreads) {
      const int j = i / pairs, k = i % pairs * 2;
      const float* from = sums_ + static_cast<int64_t>(j) * keys_.padded + k;
      put(j, k, from[0], from[1]);
    }
  }

 private:
  // sums[u][v] += the sum over heads of factor[j][k + v] * tile[j][t + u].
  __device__ void add_products(const float* tile, const float* factor, int padded, int t, int k,
                               float (&sums)[kGroup][kTogether]) const {
#pragma unroll 2
    for (int j = 0; j < heads_; ++j) {
      float numbers[kTogether], of_token[kGroup];
      load_four(factor + static_cast<int64_t>(j) * padded + k, numbers);
      load_four(tile + j * kScoreStride + t, of_token);
#pragma unroll
      for (int u = 0; u < kGroup; ++u)
#pragma unroll
        for (int v = 0; v < kTogether; ++v) sums[u][v] = __fmaf_rn(of_token[u], numbers[v], sums[u][v]);
    }
  }
  __device__ void spread_rows(const SpreadTerms& terms, const TileHeader& header) const {
    if (terms.rows == nullptr) return;
    const int padded = (terms.columns + 15) / 16 * 16;
    const int vectors = padded / kTogether, items = vectors * (tile_.tokens / kGroup);
#pragma unroll 1
    for (int item = static_cast<int>(threadIdx.x); item < items; item += kAttentionThreads) {
      const int k = item % vectors * kTogether, t = item / vectors * kGroup;
      float sums[kGroup][kTogether] = {};
      if (terms.of_weights) add_products(weights_, gradient_, padded, t, k, sums);
      if (terms.of_scores) add_products(gradients_, query_, padded, t, k, sums);
      const int64_t token = header.first + t;
      T* row = terms.template row<T>(token) + k;
#pragma unroll
      for (int u = 0; u < kGroup; ++u, row += terms.columns)
        if (token + u < header.piece.last) put_four(terms, k, sums[u], row);
    }
  }
  __device__ void put_four(const SpreadTerms& terms, int k, const float (&sums)[kTogether], T* to) const {
    if (!terms.accumulate && terms.columns % kTogether == 0 &&
        reinterpret_cast<uintptr_t>(terms.rows) % (kTogether * sizeof(T)) == 0) {
      if (k < terms.columns) store_four(sums, to);
      return;
    }
#pragma unroll
    for (int v = 0; v < kTogether; ++v)
      if (k + v < terms.columns)
        to[v] = rounded((terms.accumulate ? to_float(to[v]) : 0.0f) + sums[v], T{});
  }

  const TileShape& tile_;
  const int heads_, rows_;
  const RowShape& values_;
  const RowShape keys_;
  float *gradient_, *query_, *sums_, *weights_, *gradients_;
  const bool wants_query_;
};

}  // namespace ec::cuda
