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
  clear(bits, static_cast<size_t>(filter_words(rows)) * sizeof(unsigned), stream);
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

bool run_list(const unsigned* bits, int64_t filters, int64_t rows, uint32_t* slots, int64_t stride,
              int64_t* counts, void* workspace, Stream stream) {
  if (filters == 0) return true;
  const int64_t chunks = filter_words(rows) / kChunkWords;
  if (chunks == 0) {
    clear(counts, static_cast<size_t>(filters) * sizeof(int64_t), stream);
    return !launches_failed();
  }
  auto* of_chunks = static_cast<int64_t*>(workspace);
  const Dim3 grid{static_cast<unsigned>(chunks), static_cast<unsigned>(min(filters, kMostAside)), 1};
  EC_LAUNCH(count_chunks, grid, kFilterThreads, sizeof(SumsShared), stream, bits, filters, chunks,
            of_chunks);
  if (slots == nullptr)
    EC_LAUNCH(add_chunks, static_cast<unsigned>(filters), kFilterThreads, sizeof(SumsShared), stream,
              chunks, of_chunks, counts);
  else
    EC_LAUNCH(list_slots, grid, kFilterThreads, sizeof(SumsShared), stream, bits, filters, chunks,
              of_chunks, slots, stride, counts);
  return !launches_failed();
}

}  // namespace ec::cuda::ann
