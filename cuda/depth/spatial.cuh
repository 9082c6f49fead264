// SPDX-License-Identifier: Apache-2.0
// Spatial depth on the GPU: D(x, F) = 1 - |E[(x - X) / |x - X|]|, where a difference of zero counts 0.
//
// With w_j / |x - X_j| = W_j the sum is x sum W_j - sum W_j X_j: two products, as in attention. A block
// goes with one tile of rows through segments of the corpus. For each tile of the corpus it makes the
// products of rows, takes W of them, holds it in shared memory, and multiplies it with the columns of the
// corpus, kTile at a time; those sums do not fit in registers, and are added to the block's vectors in
// memory (the second cache, mostly). Nothing is computed twice, and no matrix of pairs is made. Pairs whose
// product has lost the distance have W = 0 and are added from the difference of their rows.
//
// Groups are either split, and then each slot (blockIdx.x / row_tiles) has one segment, whose vectors
// finish_spatial adds up; or more than there are slots, and then a slot has several segments, each a whole
// group, which it finishes itself, one after the other.
//
// Numerics: rows and W as two bf16 numbers each, some 2^-18 of them lost, which is as if points and weights
// were others near by; vectors of a tile on the tensor cores, of a segment in float32, beyond in float64.
#pragma once

#include "depth/shifted_rows.cuh"
#include "depth/tiles.cuh"

namespace ec::cuda {

constexpr int kRowStages = 2, kColumnStages = 4, kColumnPieces = kTile * 2 / 16;

// kStep rows of the corpus, kTile columns of them.
struct ColumnStage {
  BFloat numbers[kStep * kTile];
};
// W of a tile: rounded, then the rest of that.
struct TileWeights {
  BFloat rounded[kTile * kTile], rest[kTile * kTile];
};
// 99 KB, which all devices from compute capability 8.0 on have, are not exceeded.
struct SpatialShared {
  union {
    Stage rows[kRowStages];
    ColumnStage columns[kColumnStages];
  };
  TileWeights weights;
  NearPairs near;
};
static_assert(sizeof(SpatialShared) <= size_t{99} << 10, "too much for some devices");

// What comes of the sums.
struct SpatialFinish {
  PackedRows rows;
  Groups groups;
  int64_t count;         // of rows
  bool own;              // the rows are the corpus, in its order, and left out of their own groups
  const float* squares;  // of the rows: NaN for a bad one
  const float* own_weights;
  const double* totals;
  float* vectors;       // [slot][row][padded]: sum W_j X_j
  double* weight_sums;  // [slot][row]: sum W_j
  Depths depths;
};

struct SpatialProblem {
  PackedRows others;
  AnyRows given_rows, given_others;
  Segments segments;  // with arrays: to count them out takes registers that there are not
  int64_t slots, row_tiles;
  const float *other_squares, *weights;
  Move move;
  SpatialFinish finish;

  __device__ bool splits() const { return slots == segments.count; }
};

// Depth of one row in one group, whose sums are those of slots [first, last); by a warp.
__device__ __forceinline__ void finish_row(const SpatialFinish& finish, int64_t i, int64_t group,
                                           int64_t first, int64_t last) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, padded = finish.rows.padded;
  const BFloat* row = finish.rows.numbers + i * finish.rows.stride();
  const int64_t to = finish.own ? finish.groups.row(i) : i;
  double weight = finish.totals[group], weight_sum = 0.0, square = 0.0;
  if (finish.own && finish.groups.group_of(i) == group)
    weight -= static_cast<double>(finish.own_weights[i]);
  if (!(weight > 0.0)) {  // of a group without rows there are no sums
    if (lane == 0) finish.depths.store(to, group, not_a_number());
    return;
  }
  for (int64_t slot = first; slot < last; ++slot) weight_sum += finish.weight_sums[slot * finish.count + i];
  for (int k = lane; k < padded; k += kWarpSize) {
    double sum = 0.0;
    for (int64_t slot = first; slot < last; ++slot)
      sum += static_cast<double>(finish.vectors[(slot * finish.count + i) * padded + k]);
    const float number = to_float(row[k]) + to_float(row[padded + k]);
    const double difference = static_cast<double>(number) * weight_sum - sum;
    square += difference * difference;
  }
  square = warp_sum(square);
  if (lane != 0) return;
  const bool known = is_number(finish.squares[i]);
  finish.depths.store(to, group, known ? fmax(0.0, 1.0 - sqrt(square) / weight) : not_a_number());
}

__device__ __forceinline__ int column_place_of(int row, int piece) {
  return row * kTile + (piece ^ (row & 7)) * 8;
}

// Part `number` (of 8) of what the second product of a tile reads for columns [at, at + kTile): the rests
// of kStep rows of the corpus at a time, then those rows rounded.
__device__ __forceinline__ void copy_columns(const PackedRows& from, int64_t first, int64_t end, int at,
                                             int number, ColumnStage& to) {
  const int64_t begin = first + number % kColumnStages * kStep;
  for (int i = static_cast<int>(threadIdx.x); i < kStep * kColumnPieces; i += kPairThreads) {
    const int row = i / kColumnPieces, piece = i % kColumnPieces;
    const bool present = begin + row < end;
    const BFloat* source = from.numbers + (present ? begin + row : first) * from.stride() +
                           (number < kColumnStages ? from.padded : 0) + at + piece * 8;
    async_copy(to.numbers + column_place_of(row, piece), source, present);
  }
}

// weights (rows x kStep others from first_other on) . stage, added to the sums of the warp.
__device__ __forceinline__ void multiply_columns(const BFloat* weights, int first_other,
                                                 const ColumnStage& stage, int warp_row, int warp_column,
                                                 TileSums& c) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int k = 0; k < kStep / 16; ++k) {
    FragmentA a[kRowFragments];
    FragmentB b[kOtherFragments];
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)
      load_matrices(
          weights + column_place_of(warp_row + 16 * i + lane % 16, first_other / 8 + 2 * k + lane / 16),
          a[i].pairs);
#pragma unroll
    for (int j = 0; j < kOtherFragments; j += 2) {
      // Matrices: 8 rows of the corpus, the next 8, then the same of the next 8 columns.
      unsigned pairs[4];
      load_matrices_transposed(
          stage.numbers + column_place_of(16 * k + lane % 16, warp_column / 8 + j + lane / 16), pairs);
      b[j] = {{pairs[0], pairs[1]}};
      b[j + 1] = {{pairs[2], pairs[3]}};
    }
#pragma unroll
    for (int i = 0; i < kRowFragments; ++i)
#pragma unroll
      for (int j = 0; j < kOtherFragments; ++j) multiply_add(a[i], b[j], c[i][j]);
  }
}

// The products of a tile of rows and one of the corpus.
__device__ __forceinline__ void multiply_rows(const SpatialProblem& problem, SpatialShared& shared,
                                              int64_t first_row, int64_t first_other, int64_t end,
                                              TileSums& c) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int steps = problem.others.steps();
  const auto copy_stage = [&](int step) {
    if (step < steps)
      copy_step(problem.finish.rows, first_row, problem.finish.count, problem.others, first_other, end,
                step, shared.rows[step % kRowStages]);
    async_commit();
  };
  __syncthreads();  // what was read of the stages before
  copy_stage(0);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    async_wait<0>();
    __syncthreads();
    copy_stage(step + 1);
    multiply_stage(shared.rows[step % kRowStages], first_row_of(warp), first_other_of(warp), c);
  }
  async_wait<0>();
}

// W of the tile's products into shared memory.
__device__ __forceinline__ void store_weights(const SpatialProblem& problem, SpatialShared& shared,
                                              int64_t first_row, int64_t first_other, int64_t end,
                                              const TileSums& c) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int warp_row = first_row_of(warp), warp_other = first_other_of(warp);
  const TileEdges edges = edges_of(first_row, problem.finish.count, first_other, end, problem.finish.own);
  float weights[2 * kOtherFragments], squares[2 * kOtherFragments];
#pragma unroll
  for (int j = 0; j < 2 * kOtherFragments; ++j) {
    const int other = warp_other + other_in_warp(j / 2, j % 2, lane);
    weights[j] = other < edges.others ? problem.weights[first_other + other] : 0.0f;
    squares[j] = other < edges.others ? problem.other_squares[first_other + other] : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 2 * kRowFragments; ++i) {
    const int row = warp_row + row_in_warp(i / 2, i % 2, lane);
    const float own_square = row < edges.rows ? problem.finish.squares[first_row + row] : 0.0f;
#pragma unroll
    for (int j = 0; j < kOtherFragments; ++j) {
      unsigned rounded[2], rest[2];
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int other = warp_other + other_in_warp(j, part, lane);
        const float product = c[i / 2][j].numbers[2 * (i % 2) + part],
                    both = own_square + squares[2 * j + part], wanted = weights[2 * j + part];
        // Where one of these is NaN so is the depth, whatever is added here.
        bool counts = edges.count(row, other) && is_number(both) && is_number(wanted);
        if (counts && is_near_moved(product, both)) {
          mark_near(shared.near, row, other);
          counts = false;
        }
        const float weight = counts ? wanted * rsqrtf(both - 2.0f * product) : 0.0f;
        rounded[part] = bfloat_bits(weight);
        rest[part] = bfloat_bits(weight - __uint_as_float(rounded[part] << 16));
      }
      const int other = warp_other + other_in_warp(j, 0, lane);
      const int place = column_place_of(row, other / 8) + other % 8;
      *reinterpret_cast<unsigned*>(shared.weights.rounded + place) = rounded[0] | rounded[1] << 16;
      *reinterpret_cast<unsigned*>(shared.weights.rest + place) = rest[0] | rest[1] << 16;
    }
  }
}

// Adds W, as it was stored, to its sums for rows that are there.
__device__ __forceinline__ void add_weight_sums(const TileWeights& weights, double* sums, int rows,
                                                bool first) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x) / kWarpSize; row < rows; row += kPairWarps) {
    const int at = row * kTile + lane * kTogether;
    float rounded[kTogether], rest[kTogether];
    load_four(weights.rounded + at, rounded);
    load_four(weights.rest + at, rest);
    float sum = 0.0f;
    for (int k = 0; k < kTogether; ++k) sum += rounded[k] + rest[k];
    sum = warp_sum(sum);
    if (lane == 0) sums[row] = (first ? 0.0 : sums[row]) + static_cast<double>(sum);
  }
}

// Adds what a warp has summed up to vectors (of its first row and column), for rows that are there.
__device__ __forceinline__ void add_vectors(float* vectors, int padded, int rows, bool first,
                                            const TileSums& c) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int i = 0; i < 2 * kRowFragments; ++i) {
    const int row = row_in_warp(i / 2, i % 2, lane);
    if (row >= rows) continue;
#pragma unroll
    for (int j = 0; j < kOtherFragments; ++j) {
      float2* to = reinterpret_cast<float2*>(vectors + row * padded + other_in_warp(j, 0, lane));
      const float2 before = first ? float2{0.0f, 0.0f} : *to;
      *to = float2{before.x + c[i / 2][j].numbers[2 * (i % 2)],
                   before.y + c[i / 2][j].numbers[2 * (i % 2) + 1]};
    }
  }
}

// W . the tile of the corpus, into the vectors of the slot.
__device__ __forceinline__ void multiply_weights(const SpatialProblem& problem, SpatialShared& shared,
                                                 int64_t slot, int64_t first_row, int64_t first_other,
                                                 int64_t end, bool first) {
  constexpr int kParts = 2 * kColumnStages;  // of a slice of kTile columns
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int all = problem.others.padded / kTile * kParts;
  const auto copy_stage = [&](int number) {
    if (number < all)
      copy_columns(problem.others, first_other, end, number / kParts * kTile, number % kParts,
                   shared.columns[number % kColumnStages]);
    async_commit();
  };
  const int64_t warp_row = first_row + first_row_of(warp), count = problem.finish.count;
  const int rows = static_cast<int>(max(int64_t{0}, min(int64_t{kWarpRows}, count - warp_row)));
  float* vectors =
      problem.finish.vectors + (slot * count + warp_row) * problem.others.padded + first_other_of(warp);
  for (int i = 0; i < kColumnStages - 1; ++i) copy_stage(i);
  for (int slice = 0; slice < all; slice += kParts) {
    TileSums c = {};
#pragma unroll 1
    for (int part = 0; part < kParts; ++part) {
      const int number = slice + part, other = part % kColumnStages * kStep;
      async_wait<kColumnStages - 2>();
      __syncthreads();
      copy_stage(number + kColumnStages - 1);
      const ColumnStage& stage = shared.columns[number % kColumnStages];
      if (part >= kColumnStages)
        multiply_columns(shared.weights.rest, other, stage, first_row_of(warp), first_other_of(warp), c);
      multiply_columns(shared.weights.rounded, other, stage, first_row_of(warp), first_other_of(warp), c);
    }
    add_vectors(vectors + slice / kParts * kTile, problem.others.padded, rows, first, c);
  }
  async_wait<0>();
}

// Adds w (X - x) / |X - x| of near pairs to the vectors.
__device__ __forceinline__ void add_near(const SpatialProblem& problem, NearPairs& near, int64_t slot,
                                         int64_t first_row, int64_t first_other) {
  const SpatialFinish& finish = problem.finish;
  measure_near<1>(near, [&](int row_of_tile, const int(&other_of_tile)[1], int) {
    const int64_t i = first_row + row_of_tile, j = first_other + other_of_tile[0];
    const int64_t row = finish.own ? finish.groups.row(i) : i, other = finish.groups.row(j);
    const Difference found = difference_of(problem.given_others, other, problem.given_rows, row);
    if (found.length == 0.0) return;
    const double scale = static_cast<double>(problem.weights[j]) / found.length;
    float* vector = finish.vectors + (slot * finish.count + i) * finish.rows.padded;
#pragma unroll 1
    for (int64_t k = threadIdx.x % kWarpSize; k < problem.given_rows.columns; k += kWarpSize) {
      const double difference =
          problem.given_others.wide_number(other, k) - problem.given_rows.wide_number(row, k);
      vector[k] += static_cast<float>(ldexp(difference, -found.exponent) * scale);
    }
  });
}

static __global__ void __launch_bounds__(kPairThreads, 1)
    sum_directions(const __grid_constant__ SpatialProblem problem) {
  SpatialShared& shared = shared_memory<SpatialShared>();
  const SpatialFinish& finish = problem.finish;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int64_t slot = blockIdx.x / problem.row_tiles;
  const int64_t first_row = (blockIdx.x - slot * problem.row_tiles) * kTile;
  clear_near(shared.near);
  const int64_t last_segment = problem.segments.count * (slot + 1) / problem.slots;
  for (int64_t s = problem.segments.count * slot / problem.slots; s < last_segment; ++s) {
    const Segment segment = problem.segments.all[s];
    for (int64_t other = segment.begin; other < segment.end; other += kTile) {
      TileSums c = {};
      multiply_rows(problem, shared, first_row, other, segment.end, c);
      store_weights(problem, shared, first_row, other, segment.end, c);
      __syncthreads();
      const bool first = other == segment.begin;
      const auto rows = static_cast<int>(min(int64_t{kTile}, finish.count - first_row));
      add_weight_sums(shared.weights, finish.weight_sums + slot * finish.count + first_row, rows, first);
      multiply_weights(problem, shared, slot, first_row, other, segment.end, first);
      if (shared.near.any == 0) continue;
      __syncthreads();
      add_near(problem, shared.near, slot, first_row, other);
    }
    if (problem.splits()) continue;
    __syncthreads();  // what the block has written of its rows
    for (int i = warp; i < kTile && first_row + i < finish.count; i += kPairWarps)
      finish_row(finish, first_row + i, segment.group, slot, slot + 1);
    __syncthreads();
  }
}

// Where groups are split: a warp for each group and row, rows fastest.
static __global__ void __launch_bounds__(kPairThreads, 1)
    finish_spatial(const __grid_constant__ SpatialFinish finish,
                   const __grid_constant__ Segments segments) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kPairThreads + threadIdx.x) / kWarpSize;
  const int64_t group = at / finish.count;
  if (group >= finish.groups.count) return;
  finish_row(finish, at - group * finish.count, group, segments.begin(group), segments.end(group));
}

}  // namespace ec::cuda
