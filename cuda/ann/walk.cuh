// SPDX-License-Identifier: Apache-2.0
// Walks through the graph, a block for each query: from rows of an even spread to their nearest neighbours.
//
// Rows that do not pass are bridges. A query whose pool holds too few that pass, be it that the rows near
// it are filtered out or that it has met more rows than it can note, is scanned instead: filters cost no
// recall wherever they let rows pass.
//
// What a walk notes and keeps are sets, so that the order in which threads come does not matter.
#pragma once

#include "ann/scan.cuh"
#include "ann/walk.h"

namespace ec::cuda::ann {

constexpr int kWalkThreads = 128;
constexpr int kWalkWarps = kWalkThreads / kWarpSize;
constexpr int kParents = kWalkThreads / kDegree;  // rows whose neighbours are looked at together
constexpr int kSeenForEach = 32;                  // places for rows met, for each row of the pool
constexpr uint32_t kNoLink = 0xffffffffu;

struct WalkProblem {
  ScanProblem scan;
  ScanProblem entries;  // of which the lists are the entries nearest to each query
  Graph graph;
  int k;
  int most_pool;
  int* needs_scan;  // [position]
  int* met;         // [position]: rows that were scored; null: nobody asks
};

struct WalkShared {
  Key fresh[kWalkThreads];       // better than the last of the pool
  uint32_t slots[kWalkThreads];  // met for the first time
  uint32_t parents[kParents];
  int fresh_count, slot_count, seen_count;
  int parent_count;   // -1: more rows were met than can be noted
  int passing_count;  // rows of the pool
};

// Keys whose lowest bit says that the row's neighbours have not been looked at. Orders as other keys do.
__device__ __forceinline__ Key walk_key(Key key) {
  return key == 0 ? 0 : (key & 0xffffffff00000000ull) | (key << 1 & 0xfffffffeull) | 1u;
}
__device__ __forceinline__ uint32_t walk_slot(Key key) { return ~static_cast<uint32_t>(key) >> 1; }

__host__ __device__ inline size_t walk_shared_bytes(int pool) {
  return sizeof(WalkShared) + static_cast<size_t>(pool) * (sizeof(Key) + kSeenForEach * sizeof(uint32_t));
}

class Walk {
 public:
  __device__ Walk(const WalkProblem& problem, int64_t position, int pool)
      : problem_(problem),
        position_(position),
        thread_(static_cast<int>(threadIdx.x)),
        lane_(thread_ % kWarpSize),
        warp_(thread_ / kWarpSize),
        places_(pool * kSeenForEach) {
    auto* memory = shared_array<unsigned char>(walk_shared_bytes(problem.most_pool));
    shared_ = reinterpret_cast<WalkShared*>(memory);
    pool_ = {reinterpret_cast<Key*>(memory + sizeof(WalkShared)), pool};
    seen_ = reinterpret_cast<uint32_t*>(memory + sizeof(WalkShared) +
                                        static_cast<size_t>(problem.most_pool) * sizeof(Key));
  }

  // Rows met. Of run().
  __device__ int met() const { return shared_->seen_count; }
  // Whether enough rows that pass were found, which are then in the first list.
  __device__ bool run() {
    start();
    for (;;) {
      if (warp_ == 0) choose_parents();
      __syncthreads();
      if (shared_->parent_count < 0) return false;
      if (shared_->parent_count == 0) break;
      if (warp_ < shared_->parent_count) {
        const uint32_t slot =
            problem_.graph.links[static_cast<int64_t>(shared_->parents[warp_]) * kDegree + lane_];
        if (slot != kNoLink && note(slot)) shared_->slots[atomicAdd(&shared_->slot_count, 1)] = slot;
      }
      __syncthreads();
      score();
      __syncthreads();
      if (warp_ != 0) continue;
      for (int i = 0; i < shared_->fresh_count; i += kWarpSize)
        pool_.insert(sort_warp(i + lane_ < shared_->fresh_count ? shared_->fresh[i + lane_] : 0, lane_), 0,
                     lane_);
      __syncwarp();
    }
    return finish();
  }

 private:
  __device__ void start() {
    for (int64_t place = warp_; place < problem_.scan.places; place += kWalkWarps)
      problem_.scan.list(position_, place).clear(lane_);
    for (int i = thread_; i < places_; i += kWalkThreads) seen_[i] = kNoLink;
    if (thread_ == 0) shared_->seen_count = 0;
    if (warp_ == 0) {
      pool_.clear(lane_);
      for (int64_t segment = 0; segment < problem_.entries.segments; ++segment) {
        const KeyList list = problem_.entries.list(position_, segment);
        for (int at = 0; at < list.kept; at += kWarpSize)
          pool_.insert(walk_key(list.keys[at + lane_]), at, lane_);
      }
    }
    __syncthreads();
    for (int i = thread_; i < pool_.kept; i += kWalkThreads)
      if (pool_.keys[i] != 0) note(walk_slot(pool_.keys[i]));
    __syncthreads();
  }

  // The best rows whose neighbours have not been looked at. A warp.
  __device__ void choose_parents() {
    int found = 0;
    for (int at = 0; at < pool_.kept && found < kParents; at += kWarpSize) {
      const Key key = pool_.keys[at + lane_];
      const unsigned open = __ballot_sync(kAllLanes, (key & 1) != 0 ? 1 : 0);
      const int place = found + __popc(open & ((1u << lane_) - 1));
      if ((key & 1) != 0 && place < kParents) {
        shared_->parents[place] = walk_slot(key);
        pool_.keys[at + lane_] = key - 1;
      }
      found += __popc(open);
    }
    if (lane_ != 0) return;
    const bool has_room = shared_->seen_count <= places_ * 3 / 4 - kWalkThreads;
    shared_->parent_count = has_room ? min(found, kParents) : -1;
    shared_->slot_count = shared_->fresh_count = 0;
  }

  // Whether a row is met for the first time. Requires: room, which choose_parents sees to.
  __device__ bool note(uint32_t slot) {
    for (uint32_t at = slot * 2654435769u >> 7;; ++at) {
      const uint32_t before = atomicCAS(seen_ + at % static_cast<uint32_t>(places_), kNoLink, slot);
      if (before == slot) return false;
      if (before != kNoLink) continue;
      atomicAdd(&shared_->seen_count, 1);
      return true;
    }
  }

  __device__ void score() {
    const IndexRows& index = problem_.scan.index;
    const BFloat* query = problem_.scan.queries.codes + position_ * index.padded;
    const float reach = problem_.scan.queries.facts[position_].reach;
    const Key last = pool_.keys[pool_.kept - 1];
    for (int i = warp_; i < shared_->slot_count; i += kWalkWarps) {
      const uint32_t slot = shared_->slots[i];
      const BFloat* code = index.codes + static_cast<int64_t>(slot) * index.padded;
      float sum = 0.0f;
      for (int k = lane_ * kTogether; k < index.padded; k += kWarpSize * kTogether) {
        float a[kTogether], b[kTogether];
        load_four(code + k, a);
        load_four(query + k, b);
        for (int j = 0; j < kTogether; ++j) sum = __fmaf_rn(a[j], b[j], sum);
      }
      const float bound = bound_of(warp_sum(sum), index.offsets[slot], index.norms[slot], reach);
      const Key key = walk_key(key_of(bound, slot));
      if (lane_ == 0 && bound == bound && key > last)
        shared_->fresh[atomicAdd(&shared_->fresh_count, 1)] = key;
    }
  }

  __device__ bool passes(int filter, uint32_t slot) const {
    const ScanProblem& scan = problem_.scan;
    const unsigned* bits = filter < 0 ? problem_.graph.alive : scan.bits + filter * scan.words;
    return bits == nullptr || (bits[slot / kWordBits] >> (slot % kWordBits) & 1u) != 0;
  }

  // Rows of the pool that pass go to the first list. All threads get the same answer.
  __device__ bool finish() {
    if (warp_ == 0) {
      const int filter = problem_.scan.queries.filter_of(position_);
      const KeyList list = problem_.scan.list(position_, 0);
      int found = 0;
      for (int at = 0; at < pool_.kept; at += kWarpSize) {
        const Key key = pool_.keys[at + lane_];
        const bool passing = key != 0 && passes(filter, walk_slot(key));
        const unsigned all = __ballot_sync(kAllLanes, passing ? 1 : 0);
        const int place = found + __popc(all & ((1u << lane_) - 1));
        if (passing && place < list.kept)
          list.keys[place] = (key & 0xffffffff00000000ull) | static_cast<Key>(~walk_slot(key));
        found += __popc(all);
      }
      if (lane_ == 0) shared_->passing_count = found;
    }
    __syncthreads();
    return shared_->passing_count >= problem_.graph.plan.enough(problem_.k);
  }

  const WalkProblem& problem_;
  const int64_t position_;
  const int thread_, lane_, warp_, places_;
  WalkShared* shared_;
  KeyList pool_;
  uint32_t* seen_;
};

// A block for each position.
__global__ void __launch_bounds__(kWalkThreads, 1) walk_graph(const __grid_constant__ WalkProblem problem) {
  begin_behind();
  const int64_t position = blockIdx.x;
  const Queries& queries = problem.scan.queries;
  const int pool = problem.graph.plan.pool(problem.scan.passing.count(queries.filter_of(position)));
  bool scanned = pool == 0;
  // Of a query without an answer, no entry has a bound, and nothing is found, by whatever way.
  if (!scanned) {
    Walk walk(problem, position, pool);
    scanned = !walk.run();
    if (threadIdx.x == 0 && problem.met != nullptr) problem.met[position] = walk.met();
  }
  if (threadIdx.x == 0) problem.needs_scan[position] = scanned ? 1 : 0;
}

}  // namespace ec::cuda::ann
