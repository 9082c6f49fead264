// SPDX-License-Identifier: Apache-2.0
#include "attention/layout.h"

#include "attention/plan.cuh"

namespace ec::cuda {

constexpr int64_t kGapBlocks = 4096;
constexpr int64_t kOutsideBlocks = 264;  // seldom there is anything

Plan::Plan(const AttentionProblem& problem, Arena& arena) {
  const bool ragged = problem.offsets != nullptr;
  const bool masked = problem.keep != nullptr || problem.mask.data != nullptr;
  const bool planned = masked || (!ragged && problem.lengths != nullptr);
  if (planned) begins = arena.take<int64_t>(problem.sequences + 1);
  if (masked) firsts = arena.take<int64_t>(problem.sequences);
  if (masked) counts = arena.take<int64_t>(problem.sequences);
  sequences = {problem.sequences, problem.tokens, problem.heads, problem.offsets, begins, firsts};
}

void Plan::run(const AttentionProblem& problem, Stream stream) const {
  if (begins == nullptr) return;
  if (counts != nullptr) {
    const Sequences all = {sequences.count,   sequences.tokens, sequences.heads,
                           sequences.offsets, nullptr,          nullptr};
    const auto blocks = static_cast<unsigned>((sequences.count + kAttentionWarps - 1) / kAttentionWarps);
    EC_LAUNCH(find_ranges, blocks, kAttentionThreads, 0, stream, problem, all, firsts, counts);
  }
  const auto* of_sequences = counts == nullptr ? problem.lengths : counts;
  constexpr size_t kShared = kAttentionWarps * sizeof(int64_t);
  if (counts == nullptr)
    EC_LAUNCH(add_counts, 1, kAttentionThreads, kShared, stream, of_sequences, sequences.count,
              sequences.tokens, begins);
  else
    EC_LAUNCH_BEHIND(add_counts, 1, kAttentionThreads, kShared, stream, of_sequences, sequences.count,
                     sequences.tokens, begins);
}

void run_fill_gaps(const Plan& plan, const Gaps& gaps, Stream stream) {
  const int64_t count = plan.sequences.count;
  if (count == 0) return;
  if (plan.sequences.offsets != nullptr) {
    const auto blocks = static_cast<unsigned>(max(int64_t{1}, min(plan.sequences.tokens, kOutsideBlocks)));
    EC_LAUNCH(fill_outside, blocks, kAttentionThreads, 0, stream, plan.sequences, gaps);
  }
  if (!plan.has_gaps()) return;
  const auto across = static_cast<unsigned>(min(count, kGapBlocks));
  const auto along = static_cast<unsigned>(max(int64_t{1}, min(int64_t{64}, kGapBlocks / 8 / count)));
  EC_LAUNCH(fill_gaps, (Dim3{across, along, 1}), kAttentionThreads, 0, stream, plan.sequences, gaps);
}

RowShape row_shape(const Numbers& rows, int64_t columns, bool staged) {
  if (!staged) return {0, 0, 0, 0};
  const int64_t bytes = number_bytes(rows.kind), padded = round_up(columns, 16);
  // All rows begin and end on a multiple of what these have in common.
  const uint64_t places = reinterpret_cast<uintptr_t>(rows.data) |
                          static_cast<uint64_t>((columns | rows.stride[0] | rows.stride[1]) * bytes);
  const int piece_bytes = places % 16 == 0 ? 16 : places % 8 == 0 ? 8 : places % 4 == 0 ? 4 : 0;
  return {static_cast<int>(columns), static_cast<int>(padded), static_cast<int>(padded + 16 / bytes),
          piece_bytes};
}

int stage_bytes(const AttentionProblem& problem, const TileShape& tile, int64_t saved_heads) {
  const int64_t rows = tile.keys.numbers(tile.tokens) + tile.values.numbers(tile.tokens);
  return static_cast<int>(round_up(
      rows * number_bytes(problem.key.kind) + (kMostTileTokens + saved_heads * tile.tokens) * 4, 128));
}

TileShape tile_shape(const AttentionProblem& problem, int tokens, int stages, bool keys,
                     int64_t saved_heads) {
  const bool shared = problem.value.data == nullptr;
  TileShape tile = {tokens, stages, row_shape(problem.key, problem.key_columns, shared || keys),
                    row_shape(problem.value, problem.value_columns, !shared), 0};
  tile.stage_bytes = stage_bytes(problem, tile, saved_heads);
  return tile;
}

TileShape half_of(const AttentionProblem& problem, const TileShape& all, int64_t saved_heads, int i) {
  TileShape half = all;
  const int64_t bytes = number_bytes(problem.key.kind);
  for (RowShape* rows : {&half.keys, &half.values}) {
    if (rows->columns == 0) continue;
    const int middle = static_cast<int>(round_up(rows->padded / 2, 16));
    const int columns = min(rows->columns, middle);
    rows->first = i * middle;
    rows->columns = i == 0 ? columns : rows->columns - columns;
    rows->padded = i == 0 ? middle : rows->padded - middle;
    rows->stride = static_cast<int>(middle + 16 / bytes);
  }
  half.stage_bytes = stage_bytes(problem, half, saved_heads);
  half.kept = 1;
  return half;
}

int64_t most_places(const AttentionProblem& problem) {
  return problem.offsets != nullptr ? problem.tokens : problem.sequences * problem.tokens;
}

}  // namespace ec::cuda
