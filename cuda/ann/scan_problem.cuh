// SPDX-License-Identifier: Apache-2.0
// What a scan compares, and what a block of it takes: what scans of every kind have in common.
//
// Tiles are of queries of one filter, and of the rows that pass it; or, where nearly every query has a
// filter of its own and many rows pass, of any queries and of all rows, as they lie, whose bits are asked.
#pragma once

#include "ann/filters.h"
#include "ann/keys.cuh"
#include "ann/passing.cuh"
#include "ann/queries.cuh"
#include "common/product_tiles.cuh"

namespace ec::cuda::ann {

struct ScanProblem {
  IndexRows index;
  Queries queries;
  PassingLists passing;
  Key* lists;  // [position][places][kept]
  int kept;
  int64_t places;         // lists of each query, of which each block has one; the others are empty
  int64_t segments;       // blocks that share the rows, no more than places
  const int* needs_scan;  // [position]: tiles without any such are left out; null: none is
  const int* by_bits;     // whether tiles are of any queries; null: they are not
  const unsigned* bits;   // of the filters, as filters.h says
  int64_t words;
  const unsigned* alive;  // those of queries without a filter; null: all rows pass

  __device__ KeyList list(int64_t position, int64_t segment) const {
    return {lists + (position * places + segment) * kept, kept};
  }
};

// What a score can be at most (index.h). Not a number for rows and queries that are to get nowhere.
__device__ __forceinline__ float bound_of(float product, float offset, float norm, float reach) {
  return product + __fmaf_rn(norm, reach, offset);
}

// A block's share, one way through it being of tiles of `tile_rows` rows: a tile of queries, and every
// `segments`th tile of the rows. x: segments, fastest, times tiles of queries.
template <bool kByBits>
struct ScanShare {
  // few_rows: of a tile where blocks have no more than two of these, lest some have nothing; 0: of no tile.
  __device__ ScanShare(const ScanProblem& problem, int many_rows, int few_rows) {
    const int64_t tile = blockIdx.x / problem.segments;
    segment = blockIdx.x - tile * problem.segments;
    const int32_t* firsts = kByBits ? nullptr : problem.queries.firsts;
    first_query = firsts == nullptr ? tile * kTile : firsts[tile];
    const int64_t end = firsts == nullptr ? min(problem.queries.count, first_query + kTile)
                                          : static_cast<int64_t>(firsts[tile + 1]);
    queries = static_cast<int>(end - first_query);
    filter = kByBits ? -1 : problem.queries.filter_of(first_query);
    rows = kByBits ? problem.index.rows : problem.passing.count(filter);
    is_listed = !kByBits && (filter >= 0 || problem.passing.every != nullptr);
    tile_rows = few_rows > 0 && is_listed && rows <= 2 * problem.segments * few_rows ? few_rows : many_rows;
    const int64_t row_tiles = (rows + tile_rows - 1) / tile_rows;
    turns = row_tiles > segment ? (row_tiles - segment - 1) / problem.segments + 1 : 0;
  }

  __device__ int64_t first_row(const ScanProblem& problem, int64_t turn) const {
    return (segment + turn * problem.segments) * tile_rows;
  }

  // Whether this scan is the one to be made, and a query of the tile needs it. All threads of the block
  // get the same answer.
  __device__ bool is_wanted(const ScanProblem& problem, int& wanted) const {
    if (problem.by_bits != nullptr && (*problem.by_bits != 0) != kByBits) return false;
    if (problem.needs_scan == nullptr) return true;
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread == 0) wanted = 0;
    __syncthreads();
    if (thread < queries && problem.needs_scan[first_query + thread] != 0) wanted = 1;
    __syncthreads();
    return wanted != 0;
  }

  // The lists of a query begin empty, those of places that no block has too. A warp.
  __device__ void clear_lists(const ScanProblem& problem, int query, int lane) const {
    for (int64_t place = segment; place < problem.places; place += problem.segments)
      problem.list(first_query + query, place).clear(lane);
  }

  // The slot of row number i.
  __device__ uint32_t slot(const ScanProblem& problem, int64_t i) const {
    return kByBits ? static_cast<uint32_t>(i) : problem.passing.slot(filter, i);
  }

  // What rows pass for a query that is there; null: all.
  __device__ const unsigned* bits_of(const ScanProblem& problem, int query) const {
    const int own = problem.queries.filter_of(first_query + query);
    return own < 0 ? problem.alive : problem.bits + own * problem.words;
  }
  __device__ bool passes(const ScanProblem& problem, int query, uint32_t slot) const {
    const unsigned* bits = kByBits ? bits_of(problem, query) : nullptr;
    return bits == nullptr || (bits[slot / kWordBits] >> (slot % kWordBits) & 1u) != 0;
  }

  int tile_rows, queries, filter;
  bool is_listed;  // whether rows are those of a list
  int64_t segment, first_query, rows, turns;
};

}  // namespace ec::cuda::ann
