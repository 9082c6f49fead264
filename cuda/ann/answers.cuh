// SPDX-License-Identifier: Apache-2.0
// From candidates to answers: lists of all places merged, measured, and sorted by distance and id.
#pragma once

#include "ann/distances.cuh"
#include "ann/scan.cuh"

namespace ec::cuda::ann {

constexpr int kMostKept = 2048;                 // candidates of a query
constexpr int64_t kFewPlaces = 4 * kPairWarps;  // where queries are many, and blocks have enough to do
constexpr int64_t kLargestId = 0x7fffffffffffffff;

struct AnswerProblem {
  ScanProblem scan;
  int k;
  int64_t* ids;      // [query][k]
  float* distances;  // [query][k]
  int64_t* counts;   // [query]
  int* uncertain;    // [position], or null: whether a row that was left out may belong to the answer
  bool again;        // only queries that are uncertain
};

struct AnswerShared {
  float distances[kMostKept];
  int64_t ids[kMostKept];
};

// Of bitonic sequences, as merge_warp, but that every other one comes out backwards: so two of them are one
// again.
template <int kMany>
__device__ __forceinline__ void merge_in_turns(Key (&keys)[kMany], int lane) {
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
#pragma unroll
    for (int i = 0; i < kMany; ++i) {
      const Key other = __shfl_xor_sync(kAllLanes, keys[i], step);
      const bool greater = ((lane & step) == 0) == (i % 2 == 0);
      keys[i] = (other > keys[i]) == greater ? other : keys[i];
    }
  }
}

// Lists of a key for each lane, every other one backwards, merged by halves; the last one comes out
// backwards.
template <int kMany>
__device__ __forceinline__ Key merge_all(const Key (&lists)[kMany], int lane) {
  if constexpr (kMany == 1) {
    return lists[0];
  } else {
    Key halves[kMany / 2];
#pragma unroll
    for (int i = 0; i < kMany / 2; ++i) halves[i] = max(lists[2 * i], lists[2 * i + 1]);
    if constexpr (kMany == 2)
      merge_warp(halves, ~lane);
    else
      merge_in_turns(halves, lane);
    return merge_all(halves, lane);
  }
}

// Every kPairWarps'th list from that of place `warp` on into that one, where lists have a key for each
// lane: it stays in registers on the way, and so many at once are read and merged in step.
template <int kAtOnce>
__device__ __forceinline__ void merge_short_lists(const ScanProblem& problem, int64_t position, int lane,
                                                  int warp) {
  if (warp >= problem.places) return;
  const auto load = [&](int64_t first, Key(&lists)[kAtOnce]) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t place = first + i * kPairWarps;
      const int own = i % 2 == 0 ? lane : kWarpSize - 1 - lane;
      lists[i] = place < problem.places ? problem.list(position, place).keys[own] : 0;
    }
  };
  Key best = 0, next[kAtOnce];
  load(warp, next);
  for (int64_t first = warp; first < problem.places; first += kAtOnce * kPairWarps) {
    Key lists[kAtOnce], some = 0;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) lists[i] = next[i], some |= next[i];
    load(first + kAtOnce * kPairWarps, next);
    if (__any_sync(kAllLanes, some != 0 ? 1 : 0) == 0) continue;  // most, where few rows pass
    Key keys[1] = {max(best, merge_all(lists, lane))};
    merge_warp(keys, lane);
    best = keys[0];
  }
  __syncwarp();
  problem.list(position, warp).keys[lane] = best;
}

// The lists of all places into the first. All threads of the block.
__device__ __forceinline__ void merge_places(const ScanProblem& problem, int64_t position, int lane,
                                             int warp) {
  const KeyList own = problem.list(position, warp);
  if (problem.kept == kWarpSize && problem.places > kFewPlaces) {
    merge_short_lists<8>(problem, position, lane, warp);
  } else if (problem.kept == kWarpSize) {
    merge_short_lists<2>(problem, position, lane, warp);
  } else {
    for (int64_t place = warp + kPairWarps; place < problem.places; place += kPairWarps)
      own.insert_list(problem.list(position, place), lane);
  }
  const auto lists = static_cast<int>(min(static_cast<int64_t>(kPairWarps), problem.places));
  for (int step = kPairWarps / 2; step > 0; step /= 2) {
    __syncthreads();
    if (warp < step && warp + step < lists) own.insert_list(problem.list(position, warp + step), lane);
  }
  __syncthreads();
}

// By distance, equal ones by id. size: a power of two.
__device__ __forceinline__ void sort_answers(AnswerShared& shared, int size) {
  for (int block = 2; block <= size; block *= 2) {
    for (int step = block / 2; step > 0; step /= 2) {
      for (int i = static_cast<int>(threadIdx.x); i < size; i += kPairThreads) {
        const int other = i ^ step;
        if (other < i) continue;
        const float a = shared.distances[i], b = shared.distances[other];
        const int64_t id = shared.ids[i], other_id = shared.ids[other];
        const bool after = a > b || (a == b && id > other_id);
        if (after != ((i & block) == 0)) continue;
        shared.distances[i] = b, shared.distances[other] = a;
        shared.ids[i] = other_id, shared.ids[other] = id;
      }
      __syncthreads();
    }
  }
}

// The distances of those of candidates [first, end) that may be no farther than `farthest`; the others are
// left out. A warp has two at a time.
template <class T>
__device__ __forceinline__ void measure_some(const AnswerProblem& problem, int64_t position,
                                             AnswerShared& shared, int first, int end, float farthest,
                                             int lane, int warp) {
  const IndexRows& index = problem.scan.index;
  const KeyList list = problem.scan.list(position, 0);
  const float* query = problem.scan.queries.vectors + position * index.columns;
  const QueryFacts& facts = problem.scan.queries.facts[position];
  const float beyond = __uint_as_float(0x7f800000u);
  for (int at = first + 2 * warp; at < end; at += 2 * kPairWarps) {
    Key keys[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      keys[i] = at + i < list.kept ? list.keys[at + i] : 0;
      // Bounds of codes are no bounds of their distances.
      if (!kIsCoded<T> && keys[i] != 0 && farthest < beyond &&
          nearest_below(index, facts, bound_of(keys[i])) > farthest)
        keys[i] = 0;
    }
    float distances[2] = {beyond, beyond};
    if ((keys[0] | keys[1]) != 0) {
      // Of one that is left out, the other again.
      const uint32_t slots[2] = {slot_of(keys[0] != 0 ? keys[0] : keys[1]),
                                 slot_of(keys[1] != 0 ? keys[1] : keys[0])};
      two_distances<T>(index, query, facts.part, slots, distances, lane);
    }
    if (lane >= 2) continue;
    const Key key = lane == 0 ? keys[0] : keys[1];
    shared.distances[at + lane] = key == 0 ? beyond : lane == 0 ? distances[0] : distances[1];
    shared.ids[at + lane] = key == 0 ? kLargestId : index.ids[slot_of(key)];
  }
}

// The distances of a position's candidates, padded to a power of two, which is returned. The best are
// measured first: what their bounds say is farther than k of them does not belong to the answer.
template <class T>
__device__ __forceinline__ int measure(const AnswerProblem& problem, int64_t position, AnswerShared& shared,
                                       int lane, int warp) {
  constexpr int kStep = 2 * kPairWarps;
  int size = kWarpSize;
  while (size < problem.scan.kept) size *= 2;
  const int best = min(size, (problem.k + kStep - 1) / kStep * kStep);
  const float beyond = __uint_as_float(0x7f800000u);
  measure_some<T>(problem, position, shared, 0, best, beyond, lane, warp);
  __syncthreads();
  float farthest = -beyond;
  for (int i = lane; i < problem.k; i += kWarpSize) {
    const float distance = shared.distances[i];
    farthest = distance == distance ? fmaxf(farthest, distance) : beyond;  // no number tells nothing
  }
  measure_some<T>(problem, position, shared, best, size, warp_max(farthest), lane, warp);
  __syncthreads();
  return size;
}

// A block for each position, four at a time on a multiprocessor.
template <class T>
__global__ void __launch_bounds__(kPairThreads, 4)
    write_answers(const __grid_constant__ AnswerProblem problem) {
  begin_behind();
  AnswerShared& shared = shared_memory<AnswerShared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  const ScanProblem& scan = problem.scan;
  const int64_t position = blockIdx.x;
  if (problem.again && problem.uncertain[position] == 0) return;
  merge_places(scan, position, lane, warp);
  sort_answers(shared, measure<T>(problem, position, shared, lane, warp));

  const int64_t query = scan.queries.number(position);
  const int64_t passing = scan.passing.count(scan.queries.filter_of(position));
  const bool answered = scan.queries.facts[position].unanswered == 0;
  const KeyList list = scan.list(position, 0);
  // Rows that are not finite, which damaged files may have, pass and are no candidates.
  const int count =
      list.length(static_cast<int>(answered ? min(static_cast<int64_t>(problem.k), passing) : 0));
  const float nothing = __uint_as_float(answered ? 0x7f800000u : 0x7fc00000u);
  for (int i = thread; i < problem.k; i += kPairThreads) {
    problem.ids[query * problem.k + i] = i < count ? shared.ids[i] : -1;
    problem.distances[query * problem.k + i] = i < count ? shared.distances[i] : nothing;
  }
  if (thread != 0) return;
  problem.counts[query] = count;
  if (problem.uncertain == nullptr || problem.again) return;
  const Key last = list.last();
  const bool left_out = answered && passing > scan.kept && last != 0;
  problem.uncertain[position] = left_out && !(nearest_below(scan.index, scan.queries.facts[position],
                                                            bound_of(last)) >= shared.distances[count - 1])
                                    ? 1
                                    : 0;
}

}  // namespace ec::cuda::ann
