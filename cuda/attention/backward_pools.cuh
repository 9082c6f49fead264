// SPDX-License-Identifier: Apache-2.0
// What a block of the backward multiplies with, pools into, and writes the gradients of tokens from,
// without and with tensor cores.
#pragma once

#include "attention/backward_tile.cuh"
#include "attention/plain_products.cuh"
#include "attention/tensor_products.cuh"

namespace ec::cuda {

// to[j][k] = d loss / d out of `rows` heads, zeros beyond what there is. By all threads.
template <int kAtOnce = 4, class F>
__device__ __forceinline__ void load_gradient_rows(const BackwardCall& call, int64_t b, int rows,
                                                   int padded, int stride, F* to) {
  const Numbers& grad = call.gradient.grad_out;
  load_rows<kAtOnce>(grad, b * grad.stride[0],
                     {grad.stride[1], 1, static_cast<int>(call.problem.heads),
                      static_cast<int>(call.problem.value_columns)},
                     rows, padded, stride, to);
}

// Which products make the gradient of which rows.
struct SpreadTerms {
  unsigned char* rows;  // of token 0 of the sequence
  int columns;
  bool of_weights, of_scores;  // A' G, dz' q
  bool accumulate;

  template <class T>
  __device__ T* row(int64_t t) const {
    return reinterpret_cast<T*>(rows) + t * columns;
  }
};
// Of the keys (which 0), and of values that are others (1).
template <class T>
__device__ __forceinline__ SpreadTerms spread_terms(const BackwardCall& call, int64_t b, int which) {
  const bool shared = call.problem.value.data == nullptr, keys = which == 0;
  const auto columns = static_cast<int>(keys ? call.problem.key_columns : call.problem.value_columns);
  T* rows = static_cast<T*>(keys ? call.gradient.grad_key : shared ? nullptr : call.gradient.grad_value);
  if (rows != nullptr) rows += call.sequences.token_origin(b) * columns;
  return {reinterpret_cast<unsigned char*>(rows), columns, shared || !keys, keys && call.scored(),
          keys && call.gradient.accumulate};
}

template <class T>
class PlainGradientPool {
 public:
  static constexpr int kProductSlots = 1, kSlotNumbers = 0, kOwnHeads = 0;
  static constexpr int kProductTokens = kMostTileTokens, kProductStride = kScoreStride;

  __device__ PlainGradientPool(const BackwardCall& call, unsigned char* shared)
      : tile_(call.tile),
        heads_(static_cast<int>(call.problem.heads)),
        rows_((heads_ + kGroup - 1) / kGroup * kGroup),
        values_(call.tile.values.columns == 0 ? call.tile.keys : call.tile.values),
        key_padded_((static_cast<int>(call.problem.key_columns) + 15) / 16 * 16),
        gradient_(call.memory.find<float>(call.value_factor, shared)),
        query_(call.memory.find<float>(call.query_factor, shared)),
        sums_(call.memory.find<float>(call.query_sums, shared)),
        weights_(call.memory.find<float>(call.weights, shared)),
        gradients_(call.memory.find<float>(call.products, shared)),
        score_sums_(call.memory.find<float>(call.score_sums, shared)),
        wants_query_(call.wants_query()) {}

  __device__ int rows() const { return heads_; }
  __device__ void load_gradient(const BackwardCall& call, int64_t b) {
    load_gradient_rows(call, b, rows_, values_.padded, values_.padded, gradient_);
  }
  __device__ void load_query(const BackwardCall& call, int64_t b) {
    ec::cuda::load_query(call.problem, b, rows_, key_padded_, key_padded_, query_);
  }
  __device__ void clear() {
    if (!wants_query_) return;
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * key_padded_; i += kAttentionThreads)
      sums_[i] = 0.0f;
  }
  __device__ void clear_scores() {
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * kWarpSize; i += kAttentionThreads)
      score_sums_[i] = 0.0f;
  }
  __device__ void multiply(const T* values) const {
    multiply_plain(values, values_, tile_.tokens, gradient_, heads_, gradients_);
  }
  __device__ void add_score(int, int j, float ds) {
    score_sums_[j * kWarpSize + threadIdx.x % kWarpSize] += ds;
  }
  // Requires: all threads have added theirs.
  __device__ void sum_scores(HeadGradient* states) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    for_own_heads<0, 0>(heads_, 0, [&](int, int j) {
      const double sum = warp_sum(static_cast<double>(score_sums_[j * kWarpSize + lane]));
      if (lane == 0) states[j].score_sum = sum;
    });
  }
  __device__ void put(int j, float weight, float dz) const {
    const int at = j * kScoreStride + static_cast<int>(threadIdx.x) % kWarpSize;
    weights_[at] = weight;
    gradients_[at] = dz;
  }
  __device__ void add(const T* keys) {
    pool_plain(gradients_, nullptr, 0, keys, tile_.keys, tile_.tokens, heads_, sums_);
  }
  __device__ void spread(const BackwardCall& call, const TileHeader& header) const {
#pragma unroll 1
    for (int which = 0; which < 2; ++which)
      spread_rows(spread_terms<T>(call, header.piece.sequence, which), header);
  }
  template <class Put>
  __device__ void each(const Put& put) const {
    const int pairs = key_padded_ / 2;
    for (int i = static_cast<int>(threadIdx.x); i < heads_ * pairs; i += kAttentionThreads) {
      const int j = i / pairs, k = i % pairs * 2;
      const float* from = sums_ + static_cast<int64_t>(j) * key_padded_ + k;
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
  const int key_padded_;
  float *gradient_, *query_, *sums_, *weights_, *gradients_, *score_sums_;
  const bool wants_query_;
};

// With them, of bf16: at most 16 kHeadTiles heads, 128 kPairs columns of the keys, and kTokens a tile.
template <int kHeadTiles, int kPairs, int kTokens>
class TensorGradientPool {
 public:
  static constexpr int kRows = 16 * kHeadTiles;
  static constexpr int kProductTokens = kTokens, kProductStride = kTokens + 8;
  static constexpr int kProductSlots = kColumnParts, kSlotNumbers = kRows * kProductStride;
  static constexpr int kOwnHeads = kRows / kAttentionWarps;
  static constexpr int kAtOnce = kHeadTiles * kPairs >= 16 ? 2 : 4;  // registers are for sums

  __device__ TensorGradientPool(const BackwardCall& call, unsigned char* shared)
      : tile_(call.tile),
        heads_(static_cast<int>(call.problem.heads)),
        values_(call.tile.values.columns == 0 ? call.tile.keys : call.tile.values),
        key_padded_((static_cast<int>(call.problem.key_columns) + 15) / 16 * 16),
        gradient_(call.memory.find<BFloat>(call.value_factor, shared)),
        query_(call.memory.find<BFloat>(call.query_factor, shared)),
        weights_(call.memory.find<BFloat>(call.gradients, shared)),
        dz_(weights_ + kRows * kScoreStride),
        products_(call.memory.find<float>(call.products, shared)) {}

  __device__ int rows() const { return kRows; }
  __device__ int query_stride() const { return key_padded_ + 8; }
  __device__ void load_gradient(const BackwardCall& call, int64_t b) {
    load_gradient_rows<kAtOnce>(call, b, kRows, values_.padded, values_.stride, gradient_);
  }
  __device__ void load_query(const BackwardCall& call, int64_t b) {
    ec::cuda::load_query<kAtOnce>(call.problem, b, kRows, key_padded_, query_stride(), query_);
  }
  __device__ void clear() {
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h)
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) sums_[h][i] = {};
  }
  __device__ void clear_scores() {
#pragma unroll
    for (int i = 0; i < kOwnHeads; ++i) score_sums_[i] = 0.0f;
  }
  __device__ void multiply(const BFloat* values) const {
    multiply_tensor<BFloat, kHeadTiles, kProductStride>(values, values_, tile_.tokens, gradient_, nullptr,
                                                        products_);
  }
  __device__ void add_score(int i, int, float ds) { score_sums_[i] += ds; }
  __device__ void sum_scores(HeadGradient* states) const {
    for_own_heads<kOwnHeads, kRows>(kRows, 0, [&](int i, int j) {
      const double sum = warp_sum(static_cast<double>(score_sums_[i]));
      if (threadIdx.x % kWarpSize == 0) states[j].score_sum = sum;
    });
  }
  __device__ void put(int j, float weight, float dz) const {
    const int at = j * kScoreStride + static_cast<int>(threadIdx.x) % kWarpSize;
    weights_[at] = rounded(weight, BFloat{});
    dz_[at] = rounded(dz, BFloat{});
  }
  __device__ void add(const BFloat* keys) {
    pool_tensor<BFloat, kHeadTiles, kPairs>(dz_, keys, tile_.keys, tile_.tokens, sums_);
  }
  __device__ void spread(const BackwardCall& call, const TileHeader& header) const {
#pragma unroll 1
    for (int which = 0; which < 2; ++which)
      spread_rows(spread_terms<BFloat>(call, header.piece.sequence, which), header);
  }
  template <class Put>
  __device__ void each(const Put& put) const {
    constexpr int kTiles = kHeadTiles * kDrainNumbers <= kProductSlots * kSlotNumbers ? kHeadTiles : 1;
    static_assert(kTiles * kDrainNumbers <= kProductSlots * kSlotNumbers, "there is room");
    each_sum<kHeadTiles, kPairs, kTiles>(sums_, heads_, key_padded_, products_, put);
  }

 private:
  // Of 16 tokens and 16 columns: sums += tile' factor.
  __device__ void add_products(const BFloat* tile, const BFloat* factor, int stride, int t, int k,
                               FragmentC (&sums)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h) {
      FragmentA a;  // matrices: 8 heads, their second 8 tokens, then the next heads
      load_matrices_transposed(
          tile + (16 * h + lane % 8 + lane / 16 * 8) * kScoreStride + t + lane / 8 % 2 * 8, a.pairs);
      unsigned pairs[4];
      load_matrices_transposed(factor + (16 * h + lane % 16) * stride + k + lane / 16 * 8, pairs);
      multiply_add(a, {{pairs[0], pairs[1]}}, sums[0], BFloat{});
      multiply_add(a, {{pairs[2], pairs[3]}}, sums[1], BFloat{});
    }
  }
  __device__ void spread_rows(const SpreadTerms& terms, const TileHeader& header) const {
    if (terms.rows == nullptr) return;
    const int padded = (terms.columns + 15) / 16 * 16;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const bool in_pieces = terms.columns % 8 == 0 && reinterpret_cast<uintptr_t>(terms.rows) % 16 == 0;
    for (int t = 0; t < tile_.tokens; t += 16) {
#pragma unroll 1
      for (int k = warp * kPairColumns; k < padded; k += kAttentionWarps * kPairColumns) {
        FragmentC sums[2] = {};
        if (terms.of_weights) add_products(weights_, gradient_, values_.stride, t, k, sums);
        if (terms.of_scores) add_products(dz_, query_, query_stride(), t, k, sums);
        // Of a row and 8 columns each, in the order of the lanes that will have them.
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          words[i] =
              pair_bits(sums[i % 2].numbers[i / 2 * 2], sums[i % 2].numbers[i / 2 * 2 + 1], BFloat{});
        if (terms.accumulate || !in_pieces) {
          put_numbers(terms, header, header.first + t + lane / 4, k + 2 * (lane % 4), sums);
          __syncwarp();
          continue;
        }
        transpose_words(words);
        const int64_t token = header.first + t + lane / 4 + lane % 4 / 2 * 8;
        const int column = k + lane % 2 * 8;
        if (token < header.piece.last && column < terms.columns)
          *reinterpret_cast<uint4*>(terms.row<BFloat>(token) + column) =
              uint4{words[0], words[1], words[2], words[3]};
        __syncwarp();  // before they multiply together again
      }
    }
  }
  // Number by number, of rows token and token + 8.
  __device__ void put_numbers(const SpreadTerms& terms, const TileHeader& header, int64_t token, int column,
                              const FragmentC (&sums)[2]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int64_t t = token + i / 2 % 2 * 8;
      const int k = column + i / 4 * 8 + i % 2;
      if (t >= header.piece.last || k >= terms.columns) continue;
      BFloat* to = terms.row<BFloat>(t) + k;
      const float before = terms.accumulate ? to_float(*to) : 0.0f;
      *to = rounded(before + sums[i / 4].numbers[i % 4], BFloat{});
    }
  }

  const TileShape& tile_;
  const int heads_;
  const RowShape& values_;
  const int key_padded_;
  BFloat *gradient_, *query_, *weights_, *dz_;
  float* products_;
  float score_sums_[kOwnHeads];  // of this lane's tokens
  FragmentC sums_[kHeadTiles][2 * kPairs];
};

}  // namespace ec::cuda
