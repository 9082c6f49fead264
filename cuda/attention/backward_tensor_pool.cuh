// SPDX-License-Identifier: Apache-2.0
// The pool of the backward with tensor cores, for tokens of 16 bits.
//
// Of float16 what is multiplied is divided by powers of two first, which are taken out of the float32 sums
// again: rows of G and q by powers p_j and r_j of their own. For the gradients of the tokens, which sum
// over the heads, a token has a power for A_tj p_j and one for dz_tj r_j (one for both where the keys are
// the values, as they go to the same sums); for that of the query, which sums over the tokens, a head has
// one for the dz of a tile, beside the first. So there is neither overflow nor underflow whatever the size
// of the gradients: numbers lose the 2^-12 of float16 each, or 2^-37 of the largest of their row.
#pragma once

#include <type_traits>

#include "attention/backward_pools.cuh"
#include "attention/half_products.cuh"

namespace ec::cuda {

// At most 16 kHeadTiles heads, 128 kPairs columns of the keys, and kTokens a tile. kHalf: of a block of a
// cluster, which has half of the columns (backward_clusters.cuh).
template <class T, int kHeadTiles, int kPairs, int kTokens, bool kHalf = false>
class TensorGradientPool {
 public:
  static constexpr bool kScaled = std::is_same_v<T, Half>, kShared = true;
  static constexpr int kRows = 16 * kHeadTiles;
  // Rows of 48 or 80 bytes: matrices of 8 of them meet in no bank.
  static constexpr int kProductStride = kTokens + 8, kTileStride = kTokens + 8;
  static constexpr int kProductSlots = kHalf ? kHalfParts : kColumnParts;
  static constexpr int kSlotNumbers = kRows * kProductStride;
  static constexpr int kHeadLanes = kHalf ? kTokens : kWarpSize;
  static constexpr int kOwnHeads = kRows * kHeadLanes / kAttentionThreads;
  static constexpr int kAtOnce = kHeadTiles * kPairs >= 12 ? 2 : 4;  // registers are for sums
  static constexpr int kSteps = kTokens / 16;
  static constexpr int kSpreadSteps = kHeadTiles > 2 ? 1 : kSteps;  // at once

  __device__ TensorGradientPool(const BackwardCall& call, unsigned char* shared)
      : tile_(kHalf ? call.halves[blockIdx.y] : call.tile),
        heads_(static_cast<int>(call.problem.heads)),
        values_(tile_.values.columns == 0 ? tile_.keys : tile_.values),
        keys_(kHalf ? tile_.keys : key_factor_shape(call.problem, 8)),
        shared_(call.problem.value.data == nullptr),
        gradient_(call.memory.find<T, kShared>(call.value_factor, shared)),
        query_(call.memory.find<T, kShared>(call.query_factor, shared)),
        weights_(call.memory.find<T, kShared>(call.gradients, shared)),
        dz_(weights_ + kRows * kTileStride),
        pooled_(kScaled ? call.memory.find<T, kShared>(call.pooled, shared) : dz_),
        products_(call.memory.find<float, kShared>(call.products, shared)) {}

  __device__ int rows() const { return kRows; }
  __device__ bool writes(int) const { return true; }
  // Requires: the states are seen by all threads where numbers are scaled.
  __device__ void load(const BackwardCall& call, int64_t b, HeadGradient* states, bool with_query) {
    const FactorShape shape = {kRows,
                               values_,
                               keys_,
                               kScaled ? &states->grad_power : nullptr,
                               kScaled ? &states->query_power : nullptr,
                               static_cast<int>(sizeof(HeadGradient) / sizeof(float))};
    load_factors<kAtOnce>(call, b, shape, with_query, gradient_, query_);
  }
  __device__ void clear() {
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h)
#pragma unroll
      for (int i = 0; i < 2 * kPairs; ++i) sums_[h][i] = {};
  }
  __device__ void multiply(const T* values) const {
    if constexpr (kHalf)
      multiply_half<T, kTokens / 8, kProductStride>(values, values_, gradient_, nullptr, products_);
    else
      multiply_tensor<T, kHeadTiles, kProductStride>(values, values_, tile_.tokens, gradient_, nullptr,
                                                     products_);
  }
  __device__ float product(int, int j, int lane) const {
    float sum = 0.0f;
#pragma unroll
    for (int slot = 0; slot < kProductSlots; ++slot)
      sum += products_[slot * kSlotNumbers + j * kProductStride + lane % kTokens];
    return sum;
  }
  // Weights and dz of this thread's token and heads, to the tiles that are multiplied.
  __device__ void put(OwnNumbers<kOwnHeads>& weights, OwnNumbers<kOwnHeads>& gradients, Across& across,
                      HeadGradient* states) const {
    if constexpr (kScaled)
      put_scaled(weights, gradients, across, states);
    else
      for_pool_heads<TensorGradientPool>(kRows, [&](int i, int j) {
        put_number(weights_, j, weights(i, j));
        put_number(dz_, j, gradients(i, j));
      });
  }
  __device__ void add(const T* keys, const HeadGradient* states) { pool_gradients(keys, states); }
  __device__ void spread(const BackwardCall& call, const TileHeader& header, const Across& across) const {
#pragma unroll 1
    for (int which = 0; which < 2; ++which) {
      const SpreadTerms terms =
          spread_terms<T>(call, header.piece.sequence, which, which == 0 ? keys_.first : values_.first,
                          which == 0 ? keys_.columns : values_.columns);
      if (terms.rows == nullptr) continue;
#pragma unroll 1
      for (int step = 0; step < kSteps; step += kSpreadSteps)
        spread_rows(terms, header, which == 0 ? across.gradient_power() : across.weight_power(), step);
    }
  }
  template <class Put>
  __device__ void each(const Put& put) const {
    constexpr int kTiles = kHeadTiles * kDrainNumbers <= kProductSlots * kSlotNumbers ? kHeadTiles : 1;
    static_assert(kTiles * kDrainNumbers <= kProductSlots * kSlotNumbers, "there is room");
    each_sum<kHeadTiles, kPairs, kTiles>(
        sums_, heads_, keys_.padded, products_,
        [&](int j, int k, float a, float b) { put(j, keys_.first + k, a, b); });
  }

 private:
  static __device__ void put_number(T* tile, int j, float number) {
    const int lane = static_cast<int>(threadIdx.x) % kHeadLanes;
    if (kTokens == kHeadLanes || lane < kTokens) tile[j * kTileStride + lane] = rounded(number, T{});
  }
  // By all threads, when all have what they need of `across`.
  __device__ void put_scaled(OwnNumbers<kOwnHeads>& weights, OwnNumbers<kOwnHeads>& gradients,
                             Across& across, HeadGradient* states) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    float largest_weight = 0.0f, largest_gradient = 0.0f;
    for_pool_heads<TensorGradientPool>(kRows, [&](int i, int j) {
      const float dz = gradients(i, j), power = power_for(head_max<kHeadLanes>(fabsf(dz)));
      put_number(pooled_, j, dz * inverse_power(power));
      if (lane % kHeadLanes == 0) states[j].power = power;
      weights(i, j) *= states[j].grad_power;
      gradients(i, j) *= states[j].query_power;
      largest_weight = fmaxf(largest_weight, fabsf(weights(i, j)));
      largest_gradient = fmaxf(largest_gradient, fabsf(gradients(i, j)));
    });
    across.largest_weight()[warp * kWarpSize + lane] = token_max<kHeadLanes>(largest_weight);
    across.largest_gradient()[warp * kWarpSize + lane] = token_max<kHeadLanes>(largest_gradient);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kAttentionWarps; ++i) {
      largest_weight = fmaxf(largest_weight, across.largest_weight()[i * kWarpSize + lane]);
      largest_gradient = fmaxf(largest_gradient, across.largest_gradient()[i * kWarpSize + lane]);
    }
    if (shared_) largest_weight = largest_gradient = fmaxf(largest_weight, largest_gradient);
    const float of_weights = power_for(largest_weight), of_gradients = power_for(largest_gradient);
    if (warp == 0) {
      across.weight_power()[lane] = of_weights;
      across.gradient_power()[lane] = of_gradients;
    }
    for_pool_heads<TensorGradientPool>(kRows, [&](int i, int j) {
      put_number(weights_, j, weights(i, j) * inverse_power(of_weights));
      put_number(dz_, j, gradients(i, j) * inverse_power(of_gradients));
    });
  }

  // sums of this warp's columns += dz of the tile, of each head times its power, * keys.
  __device__ void pool_gradients(const T* keys, const HeadGradient* states) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const RowShape& shape = tile_.keys;
    FragmentA a[kSteps][kHeadTiles];
    float powers[kHeadTiles][2];
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h) {
      for (int t = 0; t < kSteps; ++t)
        load_matrices(pooled_ + (16 * h + lane % 16) * kTileStride + 16 * t + lane / 16 * 8, a[t][h].pairs);
      for (int half = 0; half < 2; ++half) powers[h][half] = states[16 * h + lane / 4 + 8 * half].power;
    }
    const T* rows = keys + lane % 16 * shape.stride + lane / 16 * 8;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int k = (warp + kAttentionWarps * i) * kPairColumns;
      if (k >= shape.padded) continue;
      FragmentC of_tile[kHeadTiles][2] = {};
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
        if (16 * t >= tile_.tokens) continue;
        unsigned pairs[4];
        load_matrices_transposed(rows + 16 * t * shape.stride + k, pairs);
        const FragmentB b[2] = {{{pairs[0], pairs[1]}}, {{pairs[2], pairs[3]}}};
#pragma unroll
        for (int h = 0; h < kHeadTiles; ++h)
#pragma unroll
          for (int n = 0; n < 2; ++n)
            multiply_add(a[t][h], b[n], kScaled ? of_tile[h][n] : sums_[h][2 * i + n], T{});
      }
      if constexpr (kScaled) {
#pragma unroll
        for (int h = 0; h < kHeadTiles; ++h)
#pragma unroll
          for (int n = 0; n < 8; ++n) {
            float& sum = sums_[h][2 * i + n / 4].numbers[n % 4];
            sum = __fmaf_rn(powers[h][n % 4 / 2], of_tile[h][n / 4].numbers[n % 4], sum);
          }
      }
    }
  }

  // Some tokens of the tiles of weights or dz, as rows.
  using Transposed = FragmentA[kSpreadSteps][kHeadTiles];
  __device__ void load_transposed(const T* tile, int step, Transposed& to) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int t = 0; t < kSpreadSteps; ++t)
#pragma unroll
      for (int h = 0; h < kHeadTiles; ++h)  // matrices: 8 heads, their second 8 tokens, then the next heads
        load_matrices_transposed(
            tile + (16 * h + lane % 8 + lane / 16 * 8) * kTileStride + 16 * (step + t) + lane / 8 % 2 * 8,
            to[t][h].pairs);
  }
  // Of these tokens and 16 columns: sums += tile' factor.
  __device__ void add_products(const Transposed& tile, const T* factor, int stride, int k,
                               FragmentC (&sums)[kSpreadSteps][2]) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int h = 0; h < kHeadTiles; ++h) {
      unsigned pairs[4];
      load_matrices_transposed(factor + (16 * h + lane % 16) * stride + k + lane / 16 * 8, pairs);
#pragma unroll
      for (int t = 0; t < kSpreadSteps; ++t) {
        multiply_add(tile[t][h], {{pairs[0], pairs[1]}}, sums[t][0], T{});
        multiply_add(tile[t][h], {{pairs[2], pairs[3]}}, sums[t][1], T{});
      }
    }
  }
  // powers: of each token, by which sums are to be multiplied where they are scaled.
  __device__ void spread_rows(const SpreadTerms& terms, const TileHeader& header, const float* powers,
                              int step) const {
    const int padded = (terms.columns + 15) / 16 * 16;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int64_t first = header.first + 16 * step;
    // Tokens that there are from the first of these on, and those of this lane in pieces.
    const int there =
        static_cast<int>(min(header.piece.last - header.first, int64_t{tile_.tokens})) - 16 * step;
    const int of_lane = lane / 4 + lane % 4 / 2 * 8;
    T* pieces = terms.template row<T>(first + of_lane) + lane % 2 * 8;
    const bool in_pieces =
        !terms.accumulate && terms.apart % 8 == 0 && reinterpret_cast<uintptr_t>(terms.rows) % 16 == 0;
    Transposed weights = {}, scores = {};
    if (terms.of_weights) load_transposed(weights_, step, weights);
    if (terms.of_scores) load_transposed(dz_, step, scores);
#pragma unroll 1
    for (int k = warp * kPairColumns; k < padded; k += kAttentionWarps * kPairColumns) {
      FragmentC sums[kSpreadSteps][2] = {};
      if (terms.of_weights) add_products(weights, gradient_, values_.stride, k, sums);
      if (terms.of_scores) add_products(scores, query_, keys_.stride, k, sums);
#pragma unroll
      for (int t = 0; t < kSpreadSteps; ++t) {
        if (16 * t >= there) continue;
        if (kScaled) scale_rows(powers + 16 * (step + t), sums[t]);
        if (in_pieces)
          put_piece(pieces + 16 * t * terms.apart + k,
                    16 * t + of_lane < there && k + lane % 2 * 8 < terms.columns, sums[t]);
        else
          put_numbers(terms, first + 16 * t, there - 16 * t, k, sums[t]);
      }
      __syncwarp();  // before they multiply together again
    }
  }
  static __device__ void scale_rows(const float* powers, FragmentC (&sums)[2]) {
    const int row = static_cast<int>(threadIdx.x) % kWarpSize / 4;
    const float times[2] = {powers[row], powers[row + 8]};
#pragma unroll
    for (int n = 0; n < 8; ++n) sums[n / 4].numbers[n % 4] *= times[n % 4 / 2];
  }
  // Pieces of 16 bytes: a lane gets 8 columns of a row from those beside it.
  static __device__ void put_piece(T* to, bool there, const FragmentC (&sums)[2]) {
    unsigned words[4];  // of a row and 8 columns each, in the order of the lanes that will have them
#pragma unroll
    for (int i = 0; i < 4; ++i)
      words[i] = pair_bits(sums[i % 2].numbers[i / 2 * 2], sums[i % 2].numbers[i / 2 * 2 + 1], T{});
    transpose_words(words);
    if (there) *reinterpret_cast<uint4*>(to) = uint4{words[0], words[1], words[2], words[3]};
  }
  // Number by number, of `there` rows.
  static __device__ void put_numbers(const SpreadTerms& terms, int64_t first, int there, int column,
                                     const FragmentC (&sums)[2]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int t = lane / 4 + i / 2 % 2 * 8, k = column + 2 * (lane % 4) + i / 4 * 8 + i % 2;
      if (t >= there || k >= terms.columns) continue;
      T* to = terms.template row<T>(first + t) + k;
      const float before = terms.accumulate ? to_float(*to) : 0.0f;
      *to = rounded(before + sums[i / 4].numbers[i % 4], T{});
    }
  }

  const TileShape& tile_;
  const int heads_;
  const RowShape& values_;
  const RowShape keys_;
  const bool shared_;  // the keys are the values
  T *gradient_, *query_, *weights_, *dz_, *pooled_;
  float* products_;
  FragmentC sums_[kHeadTiles][2 * kPairs];
};

}  // namespace ec::cuda
