// SPDX-License-Identifier: Apache-2.0
#include "ann/filters.cuh"

#include "ann/ann.h"
#include "ann/listing.cuh"

namespace ec::cuda::ann {
namespace {

constexpr int64_t kMostBlocks = 4096;  // of a kernel that goes round
constexpr int64_t kMostAside = 65535;  // blocks along y

unsigned blocks_for(int64_t items, int64_t each) {
  return static_cast<unsigned>(max(int64_t{1}, min(kMostBlocks, ceiling(items, each))));
}

// Chunks that a block counts, and lists where there are blocks enough all the same.
constexpr int64_t kCountedTogether = kFilterThreads / kWarpSize, kListedTogether = 8;

int64_t chunks_of(int64_t rows) { return filter_words(rows) / kChunkWords; }

Dim3 grid_of(const Listing& lists, int64_t chunks, int64_t together) {
  return {static_cast<unsigned>(ceiling(chunks, together)),
          static_cast<unsigned>(min(lists.filters, kMostAside)), 1};
}

}  // namespace

int64_t filter_words(int64_t rows) { return ceiling(rows, int64_t{kChunkWords} * kWordBits) * kChunkWords; }

bool run_programs(const FilterPrograms& programs, Stream stream) {
  if (programs.count == 0 || programs.words == 0) return true;
  static_assert(kChunkWords % kWordsAtOnce == 0, "a warp has whole groups of words");
  const unsigned across = blocks_for(programs.words / kWordsAtOnce, kFilterThreads / kWarpSize);
  // A warp has many programs for its words, where there are blocks enough without.
  const auto aside = static_cast<unsigned>(min(programs.count, max(int64_t{1}, kMostBlocks / across)));
  EC_LAUNCH(evaluate_programs, (Dim3{across, aside, 1}), kFilterThreads, 0, stream, programs);
  return !launches_failed();
}

bool run_mark_mask(const uint8_t* mask, int64_t stride, const uint32_t* order, int64_t count, int64_t rows,
                   unsigned* bits, Stream stream) {
  if (rows == 0) return true;
  const int64_t words = filter_words(rows);
  if (order == nullptr) {
    EC_LAUNCH(mark_mask_in_order, blocks_for(words / kWordsAtOnce, kFilterThreads / kWarpSize),
              kFilterThreads, 0, stream, mask, stride, min(count, rows), words, bits);
    return !launches_failed();
  }
  clear(bits, static_cast<size_t>(words) * sizeof(unsigned), stream);
  if (count > 0)
    EC_LAUNCH(mark_mask, blocks_for(count, kFilterThreads), kFilterThreads, 0, stream, mask, stride, order,
              count, bits);
  return !launches_failed();
}

bool run_mark_ids(const int64_t* ids, int64_t count, const IdTable& table, int64_t rows, unsigned* bits,
                  Stream stream) {
  if (rows == 0) return true;
  clear(bits, static_cast<size_t>(filter_words(rows)) * sizeof(unsigned), stream);
  if (count > 0)
    EC_LAUNCH(mark_ids, blocks_for(count, kFilterThreads), kFilterThreads, 0, stream, ids, count, table,
              bits);
  return !launches_failed();
}

bool run_gather(const unsigned* const* sources, int64_t filters, int64_t rows, unsigned* bits,
                Stream stream) {
  const int64_t words = filter_words(rows);
  if (filters == 0 || words == 0) return true;
  const Dim3 grid{blocks_for(words, kFilterThreads), static_cast<unsigned>(min(filters, kMostAside)), 1};
  EC_LAUNCH(gather_bits, grid, kFilterThreads, 0, stream, sources, filters, words, bits);
  return !launches_failed();
}

size_t list_workspace_bytes(int64_t filters, int64_t rows) {
  return static_cast<size_t>(filters * filter_words(rows) / kChunkWords) * sizeof(int64_t);
}

bool run_list(const Listing& lists, Stream stream) {
  if (lists.filters == 0) return true;
  if (lists.rows == 0) {
    clear(lists.counts, static_cast<size_t>(lists.filters) * sizeof(int64_t), stream);
    return !launches_failed();
  }
  const int64_t chunks = chunks_of(lists.rows);
  EC_LAUNCH(count_chunks, grid_of(lists, chunks, kCountedTogether), kFilterThreads, 0, stream, lists.bits,
            lists.filters, chunks, lists.of_chunks);
  if (lists.slots == nullptr)
    launch_counts(lists, stream);
  else
    launch_slots(lists, stream);
  return !launches_failed();
}

void launch_chunk_counts(const Listing& lists, Stream stream) {
  const int64_t chunks = chunks_of(lists.rows);
  EC_LAUNCH_BEHIND(count_chunks, grid_of(lists, chunks, kCountedTogether), kFilterThreads, 0, stream,
                   lists.bits, lists.filters, chunks, lists.of_chunks);
}

void launch_counts(const Listing& lists, Stream stream) {
  EC_LAUNCH_BEHIND(add_chunks, static_cast<unsigned>(lists.filters), kFilterThreads, sizeof(SumsShared),
                   stream, chunks_of(lists.rows), lists.of_chunks, lists.counts);
}

void launch_slots(const Listing& lists, Stream stream) {
  const int64_t chunks = chunks_of(lists.rows);
  const int64_t together = lists.filters * chunks > kMostBlocks ? kListedTogether : 1;
  EC_LAUNCH_BEHIND(list_slots, grid_of(lists, chunks, together), kFilterThreads, sizeof(SumsShared), stream,
                   lists, chunks, together);
}

}  // namespace ec::cuda::ann
