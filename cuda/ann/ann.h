// SPDX-License-Identifier: Apache-2.0
// Filtered search on the device: what launches its kernels. Nothing here waits.
#pragma once

#include "ann/explain.h"
#include "ann/index.h"
#include "ann/walk.h"
#include "common/workspace.h"

namespace ec::cuda::ann {

struct FilterPrograms;
struct Listing;
struct IdTable;

constexpr int64_t kMostResults = 1024;  // k

// Words of the bits of a filter over so many slots.
int64_t filter_words(int64_t rows);

// Queries and filters of a search, as ScanProblem and PassingLists have them.
struct SearchProblem {
  IndexRows index;
  AnyRows queries;
  int64_t count;
  const int32_t *order, *which, *firsts;
  int filter;
  int64_t tiles;
  int64_t listed;  // filters of which the search makes the lists, in slots and counts; 0: they are there
  uint32_t* slots;
  int64_t slots_stride;
  int64_t* counts;
  const unsigned* bits;   // of the filters, on 16 bytes
  const unsigned* alive;  // bits of living rows; null: all
  const uint32_t* every;
  int64_t every_count;
  int k;
  const Graph* graph;  // null: everything is scanned
  bool certain;        // queries whose candidates may lack a row are compared with all vectors
  bool hopper;         // the device runs the scan of hopper/
  int64_t* ids;
  float* distances;
  int64_t* found;
  Explanation* explanations;  // [query], or null
};

// False: a grid would be too large.
bool run_encode(const IndexRows& index, int multiprocessors, Stream stream);
bool run_programs(const FilterPrograms& programs, Stream stream);
bool run_mark_mask(const uint8_t* mask, int64_t stride, const uint32_t* order, int64_t count, int64_t rows,
                   unsigned* bits, Stream stream);
bool run_mark_ids(const int64_t* ids, int64_t count, const IdTable& table, int64_t rows, unsigned* bits,
                  Stream stream);
// sources: of each filter where its bits are.
bool run_gather(const unsigned* const* sources, int64_t filters, int64_t rows, unsigned* bits,
                Stream stream);
size_t list_workspace_bytes(int64_t filters, int64_t rows);
bool run_list(const Listing& lists, Stream stream);
// Its kernels, each behind another of a call. Requires: rows.
void launch_chunk_counts(const Listing& lists, Stream stream);
void launch_counts(const Listing& lists, Stream stream);  // from those of chunks
void launch_slots(const Listing& lists, Stream stream);   // likewise, and counts with them
size_t search_workspace_bytes(const SearchProblem& problem, int multiprocessors);
bool run_search(const SearchProblem& problem, int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda::ann
