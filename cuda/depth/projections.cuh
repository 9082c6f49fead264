// SPDX-License-Identifier: Apache-2.0
// Rows along single directions: their projections, and those of each group in order.
//
// A projection is a float64 sum over the columns of a row moved to the bulk of the corpus and scaled to its
// size (Move, shifted_rows.cuh), rounded to float32: equal rows have equal projections, wherever they
// stand. It is kept as an unsigned integer, in the order of the floats, so that what follows is exact.
// Memory: keys[direction][row or position].
#pragma once

#include "depth/moments.cuh"

namespace ec::cuda {

__device__ __forceinline__ unsigned key_of(float value) {
  const unsigned bits = __float_as_uint(value + 0.0f);  // of -0 as of 0
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float value_of(unsigned key) {
  return __uint_as_float(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

// Rows so far out that float64 cannot move them end there: differences of projections are numbers still.
constexpr double kFurthestProjection = 8.5e37;

// Rows first .. first + many as i, columns as k. A number that is none makes its row NaN.
struct ProjectedRows {
  static constexpr bool kAcross = false;
  AnyRows rows;
  Groups groups;
  Move move;
  int64_t first, many;

  __device__ int64_t count(int64_t) const { return many; }
  __device__ int64_t depth(int64_t) const { return rows.columns; }
  __device__ double number(int64_t, int64_t i, int64_t k) const {
    const double number = rows.wide_number(groups.row(first + i), k);
    if (!is_finite(number)) return not_a_number();
    const double moved = (number - move.center[k]) * power_of_two(move.exponent());
    return fmax(-kFurthestOut, fmin(kFurthestOut, moved));
  }
};

struct ProjectionKeys {
  static constexpr bool kSymmetric = false;
  unsigned* keys;
  int64_t stride;

  __device__ void store(int64_t, int64_t i, int64_t j, double sum) const {
    const double near = fmax(-kFurthestProjection, fmin(kFurthestProjection, sum));
    keys[j * stride + i] = key_of(static_cast<float>(near));
  }
};

// ---- order ----------------------------------------------------------------------------------------

constexpr int kSortThreads = 256, kSortWarps = kSortThreads / kWarpSize;
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
static_assert(kDigits == kSortThreads, "each thread adds up one digit");

struct SortShared {
  unsigned next[kSortWarps][kDigits];  // how many, then where the next one of a warp goes
  unsigned of_warps[kSortWarps];
  int alone;  // whether all keys have one digit
};

// The groups of a pass, whose keys are sorted in place of where they stand. With indices, places[i] says
// which position of its group the i-th key came from.
struct SortProblem {
  const unsigned* keys;  // [direction][position - first_key]
  int64_t stride, first_key;
  const int64_t* starts;
  int64_t first_group, first_position;
  unsigned *sorted, *other;         // [direction][position - first_position]
  unsigned *places, *other_places;  // the same, or null
  int64_t sorted_stride;
};

// The sum over the lanes before, without the lane's own.
__device__ __forceinline__ unsigned sum_before(unsigned own) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  unsigned sum = own;
  for (int step = 1; step < kWarpSize; step *= 2) {
    const unsigned other = __shfl_sync(kAllLanes, sum, max(lane - step, 0));
    if (lane >= step) sum += other;
  }
  return sum - own;
}

// Lanes with the same digit; those that are not `used` have none.
__device__ __forceinline__ unsigned lanes_alike(unsigned digit, bool used) {
  unsigned alike = __ballot_sync(kAllLanes, used);
#pragma unroll
  for (int bit = 0; bit < kDigitBits; ++bit) {
    const bool set = (digit >> bit & 1u) != 0;
    const unsigned others = __ballot_sync(kAllLanes, set);
    alike &= set ? others : ~others;
  }
  return alike;
}

// Keys of a block's pass over one digit.
struct DigitPass {
  const unsigned* from;
  unsigned* to;
  const unsigned* from_places;  // null: each its own number
  unsigned* to_places;          // null: not kept
  int64_t begin, end;           // of the warp
  int shift;

  __device__ unsigned digit(unsigned key) const { return key >> shift & (kDigits - 1u); }
};

// next[warp][digit] = where the first key with that digit of the warp goes. Returns whether all have one
// digit, which leaves their order.
__device__ __forceinline__ bool count_digits(const DigitPass& pass, int64_t count, SortShared& shared) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  for (int w = 0; w < kSortWarps; ++w) shared.next[w][thread] = 0;
  if (thread == 0) shared.alone = 0;
  __syncthreads();
  for (int64_t i = pass.begin + lane; i < pass.end; i += kWarpSize)
    atomicAdd(&shared.next[warp][pass.digit(pass.from[i])], 1u);
  __syncthreads();
  unsigned all = 0;
  for (int w = 0; w < kSortWarps; ++w) all += shared.next[w][thread];
  if (all == count) shared.alone = 1;
  const unsigned before = sum_before(all);
  if (lane == kWarpSize - 1) shared.of_warps[warp] = before + all;
  __syncthreads();
  unsigned at = before;
  for (int w = 0; w < warp; ++w) at += shared.of_warps[w];
  for (int w = 0; w < kSortWarps; ++w) {
    const unsigned own = shared.next[w][thread];
    shared.next[w][thread] = at;
    at += own;
  }
  __syncthreads();
  return shared.alone != 0;
}

__device__ __forceinline__ void move_keys(const DigitPass& pass, SortShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  for (int64_t base = pass.begin; base < pass.end; base += kWarpSize) {
    const int64_t i = base + lane;
    const bool used = i < pass.end;
    const unsigned key = used ? pass.from[i] : 0u, digit = pass.digit(key);
    const unsigned alike = lanes_alike(digit, used), before = alike & ((1u << lane) - 1u);
    const unsigned first = used ? shared.next[warp][digit] : 0u;
    __syncwarp();
    if (used && before == 0) shared.next[warp][digit] = first + static_cast<unsigned>(__popc(alike));
    __syncwarp();
    if (!used) continue;
    const unsigned at = first + static_cast<unsigned>(__popc(before));
    pass.to[at] = key;
    if (pass.to_places != nullptr)
      pass.to_places[at] = pass.from_places == nullptr ? static_cast<unsigned>(i) : pass.from_places[i];
  }
}

// Radix sort, least digit first: a block for each group (x) and direction (y). Each warp moves a part that
// lies together, in its order, so that equal digits keep theirs.
// Memory: shared, SortShared.
static __global__ void __launch_bounds__(kSortThreads, 1) sort_keys(SortProblem problem) {
  SortShared& shared = shared_memory<SortShared>();
  const int64_t group = problem.first_group + blockIdx.x, direction = blockIdx.y;
  const int64_t begin = problem.starts[group], count = problem.starts[group + 1] - begin;
  const int64_t to = direction * problem.sorted_stride + begin - problem.first_position;
  unsigned *sorted = problem.sorted + to, *other = problem.other + to;
  const bool placed = problem.places != nullptr;
  unsigned *places = placed ? problem.places + to : nullptr,
           *other_places = placed ? problem.other_places + to : nullptr;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int64_t each = (count + kSortThreads - 1) / kSortThreads * kWarpSize;
  DigitPass pass = {problem.keys + direction * problem.stride + begin - problem.first_key,
                    other,
                    nullptr,
                    other_places,
                    min(count, warp * each),
                    min(count, (warp + 1) * each),
                    0};
  for (; pass.shift < 32; pass.shift += kDigitBits) {
    const bool alone = count_digits(pass, count, shared);
    if (!alone) move_keys(pass, shared);
    __syncthreads();
    if (alone) continue;
    // To and fro: all four digits end in `sorted`.
    const bool back = pass.to == other;
    pass.from = pass.to, pass.from_places = pass.to_places;
    pass.to = back ? sorted : other, pass.to_places = back ? places : other_places;
  }
  if (pass.from == sorted) return;
  for (int64_t i = threadIdx.x; i < count; i += kSortThreads) {
    sorted[i] = pass.from[i];
    if (placed) places[i] = pass.from_places == nullptr ? static_cast<unsigned>(i) : pass.from_places[i];
  }
}

// How many of count sorted keys are below, or with kOrEqual at most, the given one.
template <bool kOrEqual>
__device__ __forceinline__ int64_t keys_below(const unsigned* keys, int64_t count, unsigned key) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    const bool below = kOrEqual ? keys[middle] <= key : keys[middle] < key;
    low = below ? middle + 1 : low;
    high = below ? high : middle;
  }
  return low;
}

}  // namespace ec::cuda
