// SPDX-License-Identifier: Apache-2.0
// Sums of chord and arc distances (depth_math.h) for every pair of rows, on Hopper. What is summed, and
// what becomes of it, is as in pairwise.cuh; here is another way to the same sums.
//
// A block stays on its multiprocessor and takes one item after another: a tile of 192 rows, and every so
// many'th tile of 256 rows of the corpus. Bulk copies fill a ring of stages (64 columns of both tiles);
// three warpgroups, of 64 rows each, multiply from the same stages and take distances of the products in
// their registers. They are not kept in step: while one takes distances the others multiply, as far ahead
// of it as the ring is long; a pause at the start sets them apart. The warp that is the last to be done
// with a stage has it filled again, so that none does nothing but copy: registers are for 12 warps and no
// more.
//
// What bounds it, per multiprocessor and cycle: the tensor cores take 192 x 256 x 64 products in 1536
// cycles; in that time 56 KB come in (37 bytes a cycle; tiles of 128 x 256 would need 48, and the L2 cache
// gives little more), and products read 80 bytes of shared memory of the 128 that it gives. Distances are
// some 14 instructions a pair, for 1024 columns 2000 of 8192 cycles of a warpgroup's product, hidden behind
// those of the others.
//
// Numerics: sums over the 64 columns that a thread has of a tile in float32, from there on in float64, in
// one order. Summed is what a distance falls short of that of c = 0, of which the sum is known: pairs that
// are to count for nothing have c = 0. Memory: dynamic shared, kHopperSharedBytes.
#pragma once

#include "depth/hopper/panels.cuh"
#include "depth/pairwise.cuh"

namespace ec::cuda {

constexpr int kRowPanels = 3;  // of a tile, one for each warpgroup
constexpr int kTileRows = kRowPanels * kPanelRows, kTileOthers = kProductColumns;
constexpr int kRingStages = 4;
constexpr int kHopperThreads = kRowPanels * kGroupThreads, kHopperWarps = kHopperThreads / kWarpSize;
constexpr unsigned kPauseNanoseconds = 500;  // about what a stage takes a warpgroup that is alone

struct RingStage {
  BFloat rows[kTileRows * kPanelColumns], others[kTileOthers * kPanelColumns];
};
// The stage to be copied next; product: 0 x1 y1, 1 x1 y2, 2 x2 y1.
struct NextStage {
  int item, row_tile, tile, product, block;
};
struct HopperShared {
  RingStage stages[kRingStages];
  CopyBarrier full[kRingStages];
  unsigned done[kRingStages];  // warps, with what the stage holds
  NextStage next;              // the last one of them has it
};
// The stages begin on kSwizzleBytes, where shared memory may not.
constexpr size_t kHopperSharedBytes = sizeof(HopperShared) + kSwizzleBytes;

struct HopperSide {
  Panels panels;
  const Scaling* scalings;
  AnyRows given;
};

struct HopperProblem {
  HopperSide rows, others;  // with the same parts and blocks
  const float* weights;     // of the others, 0 beyond the last one up to a whole tile; null: 1 each
  bool leave_out;           // row i is the i-th of the others, and not counted
  int row_tiles, other_tiles, shares;  // row_tiles * shares is an int
  // [shares][rows][2]: over the share, of weight * (distance of c = 0 - distance), and of weight * c~.
  double* sums;
};

// Of an item: its tile of rows, and its share, the tiles share, share + shares, ... of the corpus. The
// share moves on from one tile of rows to the next, so that no block gets the longer ones alone.
__device__ __forceinline__ int row_tile_of(const HopperProblem& problem, int item) {
  return item / problem.shares;
}
__device__ __forceinline__ int share_of(const HopperProblem& problem, int item) {
  return (item % problem.shares + item / problem.shares) % problem.shares;
}
__device__ __forceinline__ int products_of_tile(const HopperProblem& problem) {
  return problem.rows.panels.parts == 2 ? 3 : 1;
}

// Position in the ring of stages.
struct RingPlace {
  int slot = 0;
  unsigned turn = 0;  // parity of the phase of `full` in which the stage is filled

  __device__ __forceinline__ void advance() {
    if (++slot < kRingStages) return;
    slot = 0;
    turn ^= 1u;
  }
};

// What c~ = 0 stands for.
template <PairMetric kMetric>
EC_HD constexpr double middle_distance() {
  return kMetric == PairMetric::kArc ? kPi / 2.0 : 1.41421356237309505;
}

constexpr int kAbreast = 8;  // numbers whose distances are taken together, so that none waits for itself

// middle_distance - distance, of c in [-1, 1] and a little beyond; exactly 0 for 0.
template <PairMetric kMetric>
__device__ __forceinline__ void shortfalls_at(const float (&c)[kAbreast], float (&shortfalls)[kAbreast]) {
  if (kMetric == PairMetric::kChord) {
#pragma unroll
    for (int i = 0; i < kAbreast; ++i)
      shortfalls[i] = near_root(2.0f) - near_root(fabsf(__fmaf_rn(-2.0f, c[i], 2.0f)));
    return;
  }
  // Numbers of its own: device code has no way to an array of the host.
  constexpr float coefficient[kArcDegree + 1] = {kArcCoefficient[0], kArcCoefficient[1], kArcCoefficient[2],
                                                 kArcCoefficient[3], kArcCoefficient[4], kArcCoefficient[5],
                                                 kArcCoefficient[6]};
  float p[kAbreast], root[kAbreast];
#pragma unroll
  for (int i = 0; i < kAbreast; ++i)
    p[i] = coefficient[kArcDegree], root[i] = near_root(fabsf(1.0f - fabsf(c[i])));
#pragma unroll
  for (int degree = kArcDegree - 1; degree >= 0; --degree)
#pragma unroll
    for (int i = 0; i < kAbreast; ++i) p[i] = __fmaf_rn(p[i], fabsf(c[i]), coefficient[degree]);
#pragma unroll
  for (int i = 0; i < kAbreast; ++i) {
    const float shortfall = __fmaf_rn(-root[i], p[i], coefficient[0]);
    shortfalls[i] = __uint_as_float(__float_as_uint(shortfall) ^ (__float_as_uint(c[i]) & 0x80000000u));
  }
}

// The largest |c| of a thread.
__device__ __forceinline__ float largest_of(const float (&c)[kThreadNumbers]) {
  float largest[kAbreast] = {};
#pragma unroll
  for (int i = 0; i < kThreadNumbers; ++i)
    largest[i % kAbreast] = fmaxf(largest[i % kAbreast], fabsf(c[i]));
#pragma unroll
  for (int step = kAbreast / 2; step > 0; step /= 2)
#pragma unroll
    for (int i = 0; i < step; ++i) largest[i] = fmaxf(largest[i], largest[i + step]);
  return largest[0];
}

// |x - y|^2 or |x + y|^2 of unit rows, the smaller one, and which (sign of c).
struct MeasuredPair {
  float square, sign;
};
__device__ __forceinline__ MeasuredPair measure_pair(const HopperProblem& problem, int i, int j) {
  const Scaling of_row = problem.rows.scalings[i], of_other = problem.others.scalings[j];
  float minus = 0.0f, plus = 0.0f;
#pragma unroll 1
  for (int k = static_cast<int>(threadIdx.x) % kWarpSize; k < problem.rows.given.columns; k += kWarpSize) {
    const float a = of_row.unit(problem.rows.given.number(i, k)),
                b = of_other.unit(problem.others.given.number(j, k));
    minus += (a - b) * (a - b);
    plus += (a + b) * (a + b);
  }
  minus = warp_sum(minus);
  plus = warp_sum(plus);
  return minus <= plus ? MeasuredPair{minus, 1.0f} : MeasuredPair{plus, -1.0f};
}

constexpr int kNearWords = kThreadNumbers / 32;

// What lane l of a warp keeps: of row l / 4 + 8 (l % 4 / 2) of its 16 rows the sum of distances (l even) or
// that of products (l odd).
__device__ __forceinline__ int kept_row(int lane) { return lane / 4 + lane % 4 / 2 * 8; }

// Pairs that bf16 cannot tell apart, measured from the given rows by all lanes; a bit of near: one number
// of this thread. Adds what a lane keeps.
template <PairMetric kMetric>
__device__ __forceinline__ void add_near_pairs(const HopperProblem& problem, int first_row, int first_other,
                                               const unsigned (&near)[kNearWords], double& sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int word = 0; word < kNearWords; ++word) {
    unsigned bits = near[word];
#pragma unroll 1
    for (;;) {
      const unsigned lanes = __ballot_sync(kAllLanes, bits != 0);
      if (lanes == 0) break;
      const int from = __ffs(static_cast<int>(lanes)) - 1;
      const int number = 32 * word + __ffs(static_cast<int>(__shfl_sync(kAllLanes, bits, from))) - 1;
      if (lane == from) bits &= bits - 1;
      const int row = from / 4 + number / 2 % 2 * 8,
                other = first_other + number / 4 * 8 + from % 4 * 2 + number % 2;
      if (problem.leave_out && first_row + row == other) continue;
      const MeasuredPair pair = measure_pair(problem, first_row + row, other);
      if (row != kept_row(lane)) continue;
      const double distance = static_cast<double>(distance_of<kMetric>(pair.square, pair.sign));
      const double weight = problem.weights == nullptr ? 1.0 : static_cast<double>(problem.weights[other]);
      sum += weight * (lane % 2 == 0 ? middle_distance<kMetric>() - distance
                                     : static_cast<double>(pair.sign * (1.0f - 0.5f * pair.square)));
    }
  }
}

// Of parts that four lanes have of two rows, the sum that this lane keeps.
__device__ __forceinline__ float gather(const float (&distances)[2], const float (&products)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const bool odd = lane % 2 != 0, second = lane / 2 % 2 != 0;
  float kept[2];
  for (int half = 0; half < 2; ++half)
    kept[half] = (odd ? products[half] : distances[half]) +
                 __shfl_xor_sync(kAllLanes, odd ? distances[half] : products[half], 1);
  return (second ? kept[1] : kept[0]) + __shfl_xor_sync(kAllLanes, second ? kept[0] : kept[1], 2);
}

// Sums over the numbers of a thread, but for those beyond near_limit, of which bits are set in near.
// kSomeNear: false where there are none.
template <PairMetric kMetric, bool kWeighted, bool kSomeNear>
__device__ __forceinline__ float add_numbers(const float (&c)[kThreadNumbers], const float* weights,
                                             float near_limit, unsigned (&near)[kNearWords]) {
  float distances[2] = {}, products[2] = {};
#pragma unroll
  for (int first = 0; first < kThreadNumbers; first += kAbreast) {
    float numbers[kAbreast], shortfalls[kAbreast];
#pragma unroll
    for (int i = 0; i < kAbreast; ++i) {
      const bool is_near = kSomeNear && fabsf(c[first + i]) > near_limit;
      numbers[i] = is_near ? 0.0f : c[first + i];
      if (is_near) near[(first + i) / 32] |= 1u << (first + i) % 32;
    }
    shortfalls_at<kMetric>(numbers, shortfalls);
#pragma unroll
    for (int i = 0; i < kAbreast; i += 4) {
      float2 both = {1.0f, 1.0f};
      if (kWeighted) both = *reinterpret_cast<const float2*>(weights + (first + i) * 2);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = i + 2 * half;
        if (kWeighted) {
          distances[half] = __fmaf_rn(both.x, shortfalls[at], distances[half]);
          distances[half] = __fmaf_rn(both.y, shortfalls[at + 1], distances[half]);
          products[half] = __fmaf_rn(both.x, numbers[at], products[half]);
          products[half] = __fmaf_rn(both.y, numbers[at + 1], products[half]);
        } else {
          distances[half] += shortfalls[at] + shortfalls[at + 1];
          products[half] += numbers[at] + numbers[at + 1];
        }
      }
    }
  }
  return gather(distances, products);
}

// The products of a tile, 16 rows of a warp, added to what its lanes keep.
template <PairMetric kMetric, bool kWeighted>
__device__ __forceinline__ void add_tile(const HopperProblem& problem, float near_limit, int first_row,
                                         int first_other, const float (&c)[kThreadNumbers], double& sum) {
  const float* weights = kWeighted ? problem.weights + first_other + threadIdx.x % 4 * 2 : nullptr;
  unsigned near[kNearWords] = {};
  if (!__any_sync(kAllLanes, largest_of(c) > near_limit)) {
    sum += static_cast<double>(add_numbers<kMetric, kWeighted, false>(c, weights, near_limit, near));
  } else {
    sum += static_cast<double>(add_numbers<kMetric, kWeighted, true>(c, weights, near_limit, near));
    add_near_pairs<kMetric>(problem, first_row, first_other, near, sum);
  }
}

// By one thread: has a stage filled with what comes next, if there is more. Short, for the warp waits.
__device__ __forceinline__ void copy_next(const HopperProblem& problem, HopperShared& shared, int slot) {
  NextStage next = shared.next;
  if (next.item >= problem.row_tiles * problem.shares) return;
  RingStage& stage = shared.stages[slot];
  CopyBarrier& full = shared.full[slot];
  arrive_and_expect(full, sizeof(RingStage));
  bulk_copy(stage.rows, problem.rows.panels.block(next.row_tile, next.product == 2, next.block),
            sizeof stage.rows, full);
  bulk_copy(stage.others, problem.others.panels.block(next.tile, next.product == 1, next.block),
            sizeof stage.others, full);
  if (++next.block == problem.rows.panels.blocks) {
    next.block = 0;
    if (++next.product == products_of_tile(problem)) {
      next.product = 0;
      next.tile += problem.shares;
      if (next.tile >= problem.other_tiles) {
        next.item += static_cast<int>(gridDim.x);
        next.row_tile = row_tile_of(problem, next.item);
        next.tile = share_of(problem, next.item);
      }
    }
  }
  shared.next = next;
}

// By a lane of each warp, when its warp has multiplied what a stage holds. The last one is alone with
// shared.next: it is one of those that the next stage has to wait for.
__device__ __forceinline__ void leave_stage(const HopperProblem& problem, HopperShared& shared, int slot) {
  if (count_up_to(shared.done[slot], kHopperWarps - 1)) copy_next(problem, shared, slot);
}

// By a warpgroup: has the products of a stage made, the first of a tile, or others added to those.
template <bool kFirst>
__device__ __forceinline__ void multiply_stage(HopperShared& shared, RingPlace& place,
                                               float (&c)[kThreadNumbers]) {
  const RingStage& stage = shared.stages[place.slot];
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  wait_for_phase(shared.full[place.slot], place.turn);
  const uint64_t rows = tile_descriptor(shared_address(stage.rows + group * kPanelNumbers)),
                 others = tile_descriptor(shared_address(stage.others));
  products_fence();
  if (kFirst)
    multiply_tiles(c, rows, others);
  else
    multiply_add_tiles(c, rows, others);
#pragma unroll
  for (int k = 1; k < kPanelColumns / kProductSteps; ++k)
    multiply_add_tiles(c, rows + k * kNextStep, others + k * kNextStep);
  products_commit();
  place.advance();
}

// By a warpgroup: the products of one tile, and the stages given back.
__device__ __forceinline__ void multiply_tile(const HopperProblem& problem, HopperShared& shared,
                                              RingPlace& place, float (&c)[kThreadNumbers]) {
  const bool first_lane = threadIdx.x % kWarpSize == 0;
  int before = place.slot;
  multiply_stage<true>(shared, place, c);
  for (int steps = problem.rows.panels.blocks * products_of_tile(problem); steps > 1; --steps) {
    const int slot = place.slot;
    multiply_stage<false>(shared, place, c);
    products_wait<1>();  // those of the stage before are made, and it is free
    if (first_lane) leave_stage(problem, shared, before);
    before = slot;
  }
  products_end(c);
  if (first_lane) leave_stage(problem, shared, before);
}

// Barriers, and the first stages. By one thread.
__device__ __forceinline__ void start_ring(const HopperProblem& problem, HopperShared& shared) {
  for (int i = 0; i < kRingStages; ++i) {
    init_barrier(shared.full[i], 1);
    shared.done[i] = 0;
  }
  publish_barriers();
  const int item = static_cast<int>(blockIdx.x);
  shared.next = {item, row_tile_of(problem, item), share_of(problem, item), 0, 0};
#pragma unroll 1
  for (int i = 0; i < kRingStages; ++i) copy_next(problem, shared, i);
}

template <PairMetric kMetric, bool kWeighted>
__global__ void __launch_bounds__(kHopperThreads, 1) sum_pair_tiles(const HopperProblem problem) {
#if EC_HOPPER_CODE
  unsigned char* memory = shared_array<unsigned char>(kHopperSharedBytes);
  HopperShared& shared = *reinterpret_cast<HopperShared*>(
      memory + (kSwizzleBytes - shared_address(memory) % kSwizzleBytes) % kSwizzleBytes);
  if (threadIdx.x == 0) start_ring(problem, shared);
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  __nanosleep(kPauseNanoseconds * (threadIdx.x / kGroupThreads));
  const float near_limit = problem.rows.panels.parts == 2 ? kStrictNearLimit : kNearLimit;
  RingPlace place;
  for (int item = static_cast<int>(blockIdx.x); item < problem.row_tiles * problem.shares;
       item += static_cast<int>(gridDim.x)) {
    const int share = share_of(problem, item),
              first_row = row_tile_of(problem, item) * kTileRows + warp * 16;
    double sum = 0.0;
    for (int tile = share; tile < problem.other_tiles; tile += problem.shares) {
      float c[kThreadNumbers];
      multiply_tile(problem, shared, place, c);
      add_tile<kMetric, kWeighted>(problem, near_limit, first_row, tile * kTileOthers, c, sum);
    }
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize, row = first_row + kept_row(lane);
    const int64_t count = problem.rows.given.count;
    if (row < count) problem.sums[(share * count + row) * 2 + lane % 2] = sum;
  }
#endif
}

// sums of the shares to those that finish_pairs takes, as of one share. total: of the weights, of which a
// row leaves its own out where it must.
static __global__ void __launch_bounds__(256, 1)
    add_shares(HopperProblem problem, double middle, const double* total, const float* own_weights,
               PairSums* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x,
                count = problem.rows.given.count;
  if (i >= count) return;
  double weight = *total, distances = 0.0, products = 0.0;
  if (problem.leave_out) weight -= own_weights == nullptr ? 1.0 : static_cast<double>(own_weights[i]);
  for (int64_t share = 0; share < problem.shares; ++share) {
    distances += problem.sums[(share * count + i) * 2];
    products += problem.sums[(share * count + i) * 2 + 1];
  }
  to[i] = {middle * weight - distances, products};
}

}  // namespace ec::cuda
