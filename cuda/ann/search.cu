// SPDX-License-Identifier: Apache-2.0
#include "ann/ann.h"
#include "ann/exact.cuh"
#include "ann/explain.cuh"
#include "ann/filters.h"
#include "ann/hopper/hopper_scan.h"
#include "ann/turned.cuh"

namespace ec::cuda::ann {
namespace {

constexpr int64_t kMostBlocks = 0x7fffffff;
constexpr int64_t kMostSegments = 64;
constexpr int64_t kStartTiles = 2;  // that filling a list at first takes as long as

int64_t round_up(int64_t a, int64_t step) { return ceiling(a, step) * step; }

// How many candidates of a query are measured: beyond k as many again, so that all that rounding may have
// put behind others are among them; less where nobody asks for certainty.
int kept_for(int k, bool certain) {
  const int more = certain ? max(44, min(k, 512)) : max(22, min(k / 2, 256));
  return static_cast<int>(round_up(k + more, kWarpSize));
}

// Into how many parts the rows go: so that the last multiprocessor is done early, with lists to fill for
// each part; more parts, and more lists, only where that is 3 % earlier. A multiprocessor has a block at a
// time.
int64_t segments_for(int64_t tiles, int64_t rows, int64_t tile_rows, int multiprocessors) {
  const int64_t row_tiles = max(int64_t{1}, ceiling(rows, tile_rows));
  const int64_t most = min(row_tiles, max(kMostSegments, ceiling(multiprocessors, tiles)));
  int64_t best = 1, earliest = 0;
  for (int64_t segments = 1; segments <= most; ++segments) {
    const int64_t end =
        ceiling(tiles * segments, multiprocessors) * (ceiling(row_tiles, segments) + kStartTiles);
    if (earliest == 0 || end * 100 < earliest * 97) best = segments, earliest = end;
  }
  return best;
}

// One call, laid out.
struct SearchLayout {
  SearchLayout(const SearchProblem& given, int multiprocessors, void* workspace) : arena(workspace) {
    Queries& queries = answers.scan.queries;
    queries = {given.queries, given.count, given.order, given.which, given.filter,
               given.firsts,  given.tiles, nullptr,     nullptr,     nullptr};
    queries.vectors = arena.take<float>(given.count * given.index.columns);
    queries.codes = arena.take<BFloat>(given.count * given.index.padded);
    queries.facts = arena.take<QueryFacts>(given.count);
    ScanProblem& scan = answers.scan;
    scan.index = given.index;
    scan.passing = {given.slots, given.slots_stride, given.counts, given.every, given.every_count};
    scan.bits = given.bits;
    scan.words = filter_words(given.index.rows);
    scan.alive = given.alive;
    scan.kept = kept_for(given.k, given.certain);
    hopper = given.hopper && fits_hopper_scan(given.index);
    tile_rows = hopper ? hopper_scan_rows() : kTile;
    // Tiles of any queries, where those of one filter are more.
    fewest_tiles = ceiling(given.count, kTile);
    const bool has_bits = given.every == nullptr || given.alive != nullptr;
    const bool has_choice = has_bits && given.firsts != nullptr && given.tiles > fewest_tiles;
    if (has_choice) scan.by_bits = chosen = arena.take<int>(1);
    scan.places = scan.segments = segments_of(given, multiprocessors);
    int64_t segments_by_bits = 0;
    if (has_choice) {
      segments_by_bits = segments_for(fewest_tiles, given.index.rows, tile_rows, multiprocessors);
      scan.places = max(scan.segments, segments_by_bits);
    }
    scan.lists = arena.take<Key>(given.count * scan.places * scan.kept);
    answers.k = given.k;
    answers.ids = given.ids;
    answers.distances = given.distances;
    answers.counts = given.found;
    answers.uncertain = given.certain ? arena.take<int>(given.count) : nullptr;
    answers.again = false;
    if (given.graph != nullptr && !given.certain) lay_out_walk(given, multiprocessors);
    by_bits = scan;
    by_bits.segments = segments_by_bits;
    lay_out_lists(given);
  }

  void lay_out_lists(const SearchProblem& given) {
    lists.bits = given.bits;
    lists.filters = given.listed;
    lists.rows = given.index.rows;
    lists.slots = given.slots;
    lists.stride = given.slots_stride;
    lists.counts = given.counts;
    if (given.listed > 0)
      lists.of_chunks =
          static_cast<int64_t*>(arena.take_bytes(list_workspace_bytes(given.listed, given.index.rows)));
    if (!given.certain) lists.unless = chosen;
  }

  // Of a list alone the slots that there is room for are all that can pass; those of a compiled filter do.
  int64_t segments_of(const SearchProblem& given, int multiprocessors) const {
    const bool alone = given.filter >= 0 && given.which == nullptr;
    const int64_t rows = alone ? min(given.index.rows, given.slots_stride) : given.index.rows;
    if (hopper && alone) {
      const int few_rows = hopper_scan_few_rows();
      const int64_t segments = segments_for(given.tiles, rows, few_rows, multiprocessors);
      if (rows <= 2 * segments * few_rows) return segments;
    }
    return segments_for(given.tiles, rows, tile_rows, multiprocessors);
  }

  // Entries are found by a scan of their own.
  void lay_out_walk(const SearchProblem& given, int multiprocessors) {
    ScanProblem& scan = answers.scan;
    for (int i = 0; i < kWidenings && given.graph->plan.base > 0; ++i)
      if (given.graph->plan.least[i] <= given.index.rows)
        walk.most_pool = min(kMostPool, given.graph->plan.base << i);
    if (walk.most_pool == 0) return;
    walk.needs_scan = arena.take<int>(given.count);
    scan.needs_scan = walk.needs_scan;
    walk.scan = scan;
    walk.graph = *given.graph;
    walk.k = given.k;
    walk.met = given.explanations != nullptr ? arena.take<int>(given.count) : nullptr;
    walk.entries = scan;
    walk.entries.needs_scan = walk.entries.by_bits = nullptr;
    walk.entries.queries.which = nullptr;
    walk.entries.queries.filter = -1;
    walk.entries.passing.every = given.graph->entries;
    walk.entries.passing.every_count = given.graph->entry_count;
    walk.entries.kept = kWarpSize;
    walk.entries.segments = segments_for(given.tiles, given.graph->entry_count, tile_rows, multiprocessors);
    walk.entries.places = walk.entries.segments;
    walk.entries.lists = arena.take<Key>(given.count * walk.entries.segments * kWarpSize);
  }

  // Of the largest grid.
  int64_t most_blocks(const SearchProblem& given) const {
    const ScanProblem& scan = answers.scan;
    const int64_t scans = max(given.tiles * scan.segments, fewest_tiles * by_bits.segments);
    const int64_t entries = walk.most_pool > 0 ? given.tiles * walk.entries.segments : 0;
    const int64_t vectors = given.certain ? given.count * scan.places : given.count;
    return max(max(scans, entries), vectors);
  }

  Arena arena;
  AnswerProblem answers = {};
  WalkProblem walk = {};  // most_pool 0: there is none
  int64_t fewest_tiles = 0;
  bool hopper = false;  // scans are those of hopper/
  int64_t tile_rows = 0;
  int* chosen = nullptr;     // whether by bits; null: there is no choice
  ScanProblem by_bits = {};  // the scan in its other way, over the same lists
  Listing lists = {};
};

void launch_preparation(const Queries& queries, const IndexRows& index, Stream stream) {
  const auto blocks = static_cast<unsigned>(ceiling(queries.count, kRowWarps));
  if (index.kind != RowKind::kCodes) {
    EC_LAUNCH(prepare_queries, blocks, kRowThreads, 0, stream, queries, index);
    return;
  }
  constexpr int64_t kMostAside = 65535;  // blocks along y
  const Dim3 turns{static_cast<unsigned>(ceiling(index.columns, kTurnedAxes * kRowWarps)),
                   static_cast<unsigned>(min(kMostAside, ceiling(queries.count, kTurnedQueries))), 1};
  EC_LAUNCH(measure_queries, blocks, kRowThreads, 0, stream, queries, index);
  EC_LAUNCH_BEHIND(turn_queries, turns, kRowThreads, 0, stream, queries, index);
  EC_LAUNCH_BEHIND(code_queries, blocks, kRowThreads, 0, stream, queries, index);
}

// What passes, and whether rows are scanned by bits; then nobody wants the slots, unless queries that are
// uncertain are compared with all of them.
void launch_lists(const SearchLayout& layout, int multiprocessors, Stream stream) {
  const Listing& lists = layout.lists;
  const bool listed = lists.filters > 0 && lists.rows > 0;
  if (listed) launch_chunk_counts(lists, stream);
  if (layout.chosen != nullptr) {
    if (listed) launch_counts(lists, stream);
    EC_LAUNCH_BEHIND(choose_scan, 1, kPairThreads, sizeof(ScanWork), stream, layout.answers.scan,
                     layout.by_bits, multiprocessors, layout.chosen);
  }
  if (listed) launch_slots(lists, stream);
}

template <bool kByBits>
void launch_scan(const ScanProblem& scan, int64_t tiles, bool hopper, Stream stream) {
  if (hopper) return run_hopper_scan(scan, tiles, kByBits, stream);
  allow_shared(scan_codes<kByBits>, sizeof(ScanShared));
  EC_LAUNCH_BEHIND(scan_codes<kByBits>, static_cast<unsigned>(tiles * scan.segments), kPairThreads,
                   sizeof(ScanShared), stream, scan);
}

}  // namespace

bool run_encode(const IndexRows& index, int multiprocessors, Stream stream) {
  clear(index.roughness, sizeof(float), stream);
  const auto blocks = static_cast<unsigned>(
      max(int64_t{1}, min(int64_t{8} * multiprocessors, ceiling(index.rows, kRowWarps))));
  const bool coded = index.kind == RowKind::kCodes;
  EC_LAUNCH(coded ? encode_rows<true> : encode_rows<false>, blocks, kRowThreads, 0, stream, index);
  return !launches_failed();
}

size_t search_workspace_bytes(const SearchProblem& problem, int multiprocessors) {
  return SearchLayout(problem, multiprocessors, nullptr).arena.used();
}

bool run_search(const SearchProblem& problem, int multiprocessors, void* workspace, Stream stream) {
  if (problem.count == 0) return true;
  SearchLayout layout(problem, multiprocessors, workspace);
  const ScanProblem& scan = layout.answers.scan;
  if (layout.most_blocks(problem) > kMostBlocks) return false;
  if (problem.index.rows == 0 && problem.listed > 0)
    clear(problem.counts, static_cast<size_t>(problem.listed) * sizeof(int64_t), stream);
  // Of the kernels from here on each is behind the one before.
  launch_preparation(scan.queries, scan.index, stream);
  launch_lists(layout, multiprocessors, stream);
  if (layout.walk.most_pool > 0) {
    launch_scan<false>(layout.walk.entries, problem.tiles, layout.hopper, stream);
    const size_t shared = walk_shared_bytes(layout.walk.most_pool);
    allow_shared(walk_graph, shared);
    EC_LAUNCH_BEHIND(walk_graph, static_cast<unsigned>(problem.count), kWalkThreads, shared, stream,
                     layout.walk);
  }
  if (layout.chosen != nullptr)
    launch_scan<true>(layout.by_bits, layout.fewest_tiles, layout.hopper, stream);
  launch_scan<false>(scan, problem.tiles, layout.hopper, stream);
  with_rows(scan.index.kind, [&](auto number) {
    using T = decltype(number);
    const auto positions = static_cast<unsigned>(problem.count);
    EC_LAUNCH_BEHIND(write_answers<T>, positions, kPairThreads, sizeof(AnswerShared), stream,
                     layout.answers);
    if (!problem.certain) return;
    AnswerProblem again = layout.answers;
    again.again = true;
    EC_LAUNCH_BEHIND(scan_vectors<T>, static_cast<unsigned>(problem.count * scan.places), kPairThreads,
                     sizeof(ExactShared), stream, again);
    EC_LAUNCH_BEHIND(write_answers<T>, positions, kPairThreads, sizeof(AnswerShared), stream, again);
  });
  if (problem.explanations != nullptr)
    EC_LAUNCH_BEHIND(explain_queries, static_cast<unsigned>(ceiling(problem.count, kExplainThreads)),
                     kExplainThreads, 0, stream, layout.answers, layout.walk, layout.chosen,
                     problem.explanations);
  return !launches_failed();
}

}  // namespace ec::cuda::ann
