// SPDX-License-Identifier: Apache-2.0
// The best rows of 16 queries, from the products of tiles as a warp has them (common/hopper_tiles.cuh):
// lane l has products of queries l / 4 and l / 4 + 8, so that no other warp has to do with a query of this
// one, and nothing waits for other warps.
//
// Nearly all bounds are below the bars of their queries, which is three instructions each. What is not is
// put aside, in the order of the products; the lists of four queries are sorted in step. The first tile has
// its bars from itself (first_bars.cuh). Nothing here depends on when a warp comes.
#pragma once

#include "ann/hopper/first_bars.cuh"
#include "ann/scan_problem.cuh"
#include "common/hopper_tiles.cuh"

namespace ec::cuda::ann {

constexpr int kScanRows = kWideColumns;  // of a tile
constexpr int kWarpQueries = 16;
constexpr int kAside = 26;        // keys of a query that are put aside
constexpr int kSortedAtOnce = 4;  // queries
constexpr int kTaken = 16;        // products that a lane looks at together
static_assert(kAside < kWarpSize && kTaken <= 32, "one for each lane, or bit");

// What bounds take of the rows of a tile; those beyond the last have no number for an offset.
struct TileFacts {
  float4 pairs[kScanRows / 2];  // offsets of two rows, and their norms
  uint2 slots[kScanRows / 2];
};

struct WarpKeys {
  Key keys[kWarpQueries][kAside];
};

__device__ __forceinline__ unsigned any_lane(unsigned bits) {
#if defined(__CUDACC__)
  return __reduce_or_sync(kAllLanes, bits);
#else
  for (int step = kWarpSize / 2; step > 0; step /= 2) bits |= __shfl_xor_sync(kAllLanes, bits, step);
  return bits;
#endif
}

template <bool kByBits>
class BestRows {
 public:
  // Of queries [first, first + kWarpQueries) of the tile, as far as there are any.
  __device__ BestRows(const ScanProblem& problem, const ScanShare<kByBits>& share, int first,
                      const TileFacts& facts, WarpKeys& aside)
      : problem_(problem),
        share_(share),
        first_(first),
        facts_(facts),
        aside_(aside),
        lane_(static_cast<int>(threadIdx.x) % kWarpSize) {
    for (int query = first; query < min(first + kWarpQueries, share.queries); ++query)
      share.clear_lists(problem, query, lane_);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = first + lane_ / 4 + 8 * half;
      const bool there = query < share.queries;
      counts_[half] = 0;
      lasts_[half] = 0;
      bars_[half] = __uint_as_float(there ? 0xff800000u : 0x7fc00000u);  // NaN: nothing gets in
      reaches_[half] = there ? problem.queries.facts[share.first_query + query].reach : 0.0f;
    }
  }

  // Makes what does not pass no number, so that it gets nowhere. bits: of query lane / 2, for the first
  // half of the tile's rows or the other one, as the lane is even or odd.
  template <int kNumbers>
  __device__ __forceinline__ void leave_out(float (&c)[kNumbers], const uint4& bits) const {
    static_assert(kTaken == 2 * kWordBits / 4, "a part has the rows of a word, by four lanes");
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
    const float nowhere = __uint_as_float(0x7fc00000u);
#pragma unroll
    for (int part = 0; part < kNumbers / kTaken; ++part) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int from = lane_ / 4 * 2 + 16 * half + part / 4;
        const unsigned own = __shfl_sync(kAllLanes, words[part % 4], from) >> lane_ % 4 * 2;
#pragma unroll
        for (int i = 0; i < kTaken; ++i) {
          const bool passes = (own >> (i / 4 * 8 + i % 2) & 1u) != 0;
          if (i / 2 % 2 == half && !passes) c[part * kTaken + i] = nowhere;
        }
      }
    }
  }

  // Looks at the products of a tile of which the facts are there.
  template <int kNumbers>
  __device__ __forceinline__ void offer(const float (&c)[kNumbers], bool is_first) {
    constexpr int kParts = kNumbers / kTaken;
    static_assert(kParts * kTaken == kNumbers && kParts <= 8, "as take has them");
    if (is_first)
      find_bars<kNumbers>([&](int lane, int i) { return bound(c[i], lane, 0, i); }, lane_, problem_.kept,
                          bars_);
    unsigned parts = 0;  // that have a bound which is not below its bar
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      float highest[2];  // of each query
#pragma unroll
      for (int i = 0; i < kTaken; ++i) {
        const float own = bound(c[part * kTaken + i], lane_, part, i);
        highest[i / 2 % 2] = i < 4 && i % 2 == 0 ? own : fmaxf(highest[i / 2 % 2], own);
      }
      const bool some = highest[0] >= bars_[0] || highest[1] >= bars_[1];
      parts |= __any_sync(kAllLanes, some ? 1 : 0) != 0 ? 1u << part : 0u;
    }
#pragma unroll 1
    for (; parts != 0; parts &= parts - 1) {
      const int part = __ffs(static_cast<int>(parts)) - 1;
      float taken[kTaken];
      take<kParts>(c, part, taken);
      put_aside(taken, part);
    }
  }

  // Sorts in what is left.
  __device__ __forceinline__ void finish() { sort_those_of(1); }

 private:
  // Of product i of a lane's, counted from the first of a part: the pair of rows that it is of one.
  static __device__ __forceinline__ int place_of(int lane, int part, int i) {
    return part * kTaken + i / 4 * 4 + lane % 4;
  }

  __device__ __forceinline__ float bound(float product, int lane, int part, int i) const {
    const float4 pair = facts_.pairs[place_of(lane, part, i)];
    return i % 2 == 0 ? bound_of(product, pair.x, pair.z, reaches_[i / 2 % 2])
                      : bound_of(product, pair.y, pair.w, reaches_[i / 2 % 2]);
  }
  __device__ __forceinline__ uint32_t slot(int part, int i) const {
    const uint2 slots = facts_.slots[place_of(lane_, part, i)];
    return i % 2 == 0 ? slots.x : slots.y;
  }

  // There is no other way to an element of an array in registers that is known at run time.
  template <int kParts>
  static __device__ __forceinline__ void take(const float (&c)[kParts * kTaken], int part,
                                              float (&taken)[kTaken]) {
    switch (part) {
      case 0:
        return copy<0, kParts>(c, taken);
      case 1:
        return copy<1, kParts>(c, taken);
      case 2:
        return copy<2, kParts>(c, taken);
      case 3:
        return copy<3, kParts>(c, taken);
      case 4:
        return copy<4, kParts>(c, taken);
      case 5:
        return copy<5, kParts>(c, taken);
      case 6:
        return copy<6, kParts>(c, taken);
      default:
        return copy<7, kParts>(c, taken);
    }
  }
  template <int kPart, int kParts>
  static __device__ __forceinline__ void copy(const float (&c)[kParts * kTaken], float (&taken)[kTaken]) {
#pragma unroll
    for (int i = 0; i < kTaken; ++i) taken[i] = c[kPart % kParts * kTaken + i];
  }

  // Keys are compared and not bounds, of which many may be the same.
  __device__ __forceinline__ void put_aside(const float (&taken)[kTaken], int part) {
    unsigned waiting = 0;  // a bit for each that may get into a list
#pragma unroll
    for (int i = 0; i < kTaken; ++i) {
      const int half = i / 2 % 2;
      if (bound(taken[i], lane_, part, i) >= bars_[half]) waiting |= 1u << i;
    }
    for (;;) {
      const unsigned some = any_lane(waiting);
      if (some == 0) return;
#pragma unroll
      for (int i = 0; i < kTaken; ++i) {
        if ((some >> i & 1u) == 0) continue;  // of all lanes
        const Key key = key_of(bound(taken[i], lane_, part, i), slot(part, i));
        if (!put_aside(key, i / 2 % 2, (waiting >> i & 1u) != 0)) waiting &= ~(1u << i);
      }
      if (__any_sync(kAllLanes, waiting != 0 ? 1 : 0) != 0) sort_those_of(kAside);
    }
  }

  // Of the lanes that are `asking`. Whether it still waits, there being no room. All lanes.
  __device__ __forceinline__ bool put_aside(Key key, int half, bool asking) {
    asking = asking && key > lasts_[half];
    const unsigned all = __ballot_sync(kAllLanes, asking ? 1 : 0);
    const unsigned of_query = all >> lane_ / 4 * 4 & 0xfu;
    const int at = counts_[half] + __popc(of_query & ((1u << lane_ % 4) - 1));
    const bool has_room = at < kAside;
    if (asking && has_room) aside_.keys[lane_ / 4 + 8 * half][at] = key;
    counts_[half] = min(kAside, counts_[half] + __popc(of_query));
    return asking && !has_room;
  }

  // Of groups of queries with one that has put aside so many.
  __device__ __forceinline__ void sort_those_of(int least) {
    __syncwarp();  // what lanes put aside is there for all
#pragma unroll 1
    for (int group = 0; group < kWarpQueries / kSortedAtOnce; ++group) {
      const int count = group < 2 ? counts_[0] : counts_[1];
      const bool is_full = lane_ / 16 == group % 2 && count >= least;
      if (__any_sync(kAllLanes, is_full ? 1 : 0) != 0) sort_in(group, count);
    }
    __syncwarp();  // it is read, and may be written over
  }

  // Of the warp's queries.
  __device__ __forceinline__ bool is_there(int query) const { return first_ + query < share_.queries; }
  // The lane's own, of places [at, at + the warp) of a list.
  __device__ __forceinline__ Key* place(int query, int at) const {
    return problem_.list(share_.first_query + first_ + query, share_.segment).keys + at + lane_;
  }

  // What queries [4 group, + 4) have put aside goes to their lists. count: of the lane's own query of
  // these.
  __device__ __forceinline__ void sort_in(int group, int count) {
    Key keys[kSortedAtOnce], tails[kSortedAtOnce];
    const int kept = problem_.kept;
#pragma unroll
    for (int i = 0; i < kSortedAtOnce; ++i) {
      const int query = group * kSortedAtOnce + i;
      const int many = __shfl_sync(kAllLanes, count, query % 8 * 4);
      keys[i] = lane_ < many ? aside_.keys[query][lane_] : 0;
      tails[i] = 0;
    }
    sort_warp(keys, lane_);
    int at = (begun_ >> group & 1u) == 0 ? begin(keys, group) : 0;
#pragma unroll 1
    for (; at < kept; at += kWarpSize) {
      if (__any_sync(kAllLanes, (keys[0] | keys[1] | keys[2] | keys[3]) != 0 ? 1 : 0) == 0) break;
      insert(keys, tails, group, at);
    }
#pragma unroll
    for (int i = 0; i < kSortedAtOnce; ++i) {
      const int query = group * kSortedAtOnce + i;
      if (at < kept && is_there(query)) tails[i] = *place(query, kept - kWarpSize);
      const Key last = __shfl_sync(kAllLanes, tails[i], kWarpSize - 1);
      const float bar = bound_of(last);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool own = lane_ / 4 + 8 * half == query;
        counts_[half] = own ? 0 : counts_[half];
        lasts_[half] = own ? last : lasts_[half];
        bars_[half] = own && last != 0 ? bar : bars_[half];
      }
    }
  }

  // Keys that are the first of their lists, which they do not fill: so many are not put aside.
  __device__ __forceinline__ int begin(const Key (&keys)[kSortedAtOnce], int group) {
    begun_ |= 1u << group;
#pragma unroll
    for (int i = 0; i < kSortedAtOnce; ++i) {
      const int query = group * kSortedAtOnce + i;
      if (is_there(query)) *place(query, 0) = keys[i];
    }
    return problem_.kept;
  }

  // Keys into places [at, at + the warp) of their lists; what they push out takes their place.
  __device__ __forceinline__ void insert(Key (&keys)[kSortedAtOnce], Key (&tails)[kSortedAtOnce], int group,
                                         int at) {
    Key pushed[kSortedAtOnce];
#pragma unroll
    for (int i = 0; i < kSortedAtOnce; ++i) {
      const int query = group * kSortedAtOnce + i;
      tails[i] = is_there(query) ? *place(query, at) : 0;
    }
#pragma unroll
    for (int i = 0; i < kSortedAtOnce; ++i) {
      // Both sorted, one of them backwards: the greater of each pair are the best of all.
      const Key other = __shfl_sync(kAllLanes, keys[i], kWarpSize - 1 - lane_), mine = tails[i];
      const bool greater = other > mine;
      tails[i] = greater ? other : mine;
      pushed[i] = greater ? mine : other;
    }
    merge_warp(tails, lane_);
    merge_warp(pushed, lane_);
#pragma unroll
    for (int i = 0; i < kSortedAtOnce; ++i) {
      const int query = group * kSortedAtOnce + i;
      if (is_there(query)) *place(query, at) = tails[i];
      keys[i] = pushed[i];
    }
  }

  const ScanProblem& problem_;
  const ScanShare<kByBits>& share_;
  const int first_;
  const TileFacts& facts_;
  WarpKeys& aside_;
  const int lane_;
  // Of the lane's two queries: how many are put aside, what a key must be above to get in, what a bound
  // must not be below for that, and what rounding may take.
  int counts_[2];
  Key lasts_[2];
  float bars_[2], reaches_[2];
  unsigned begun_ = 0;  // a bit for each group of queries whose lists are not empty
};

}  // namespace ec::cuda::ann
