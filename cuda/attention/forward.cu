// SPDX-License-Identifier: Apache-2.0
#include "attention/forward.cuh"
#include "attention/forward_clusters.cuh"
#include "attention/forward_merge.cuh"
#include "attention/hopper/hopper_forward.h"
#include "attention/layout.h"

namespace ec::cuda {
namespace {

constexpr float kMostBoundedHalf = 4.0f;   // exp(-2 * 4) is a normal number of float16
constexpr int64_t kMostMergeBlocks = 256;  // of a sequence

// One call, laid out.
struct ForwardLayout {
  ForwardLayout(const AttentionProblem& problem, const AttentionResult& result, int multiprocessors,
                void* workspace)
      : arena(workspace), plan(problem, arena) {
    call.problem = problem;
    call.result = result;
    call.sequences = plan.sequences;
    fit = choose_hopper() || choose_block() || choose_clusters() || choose_groups() || choose_plain();
    call.most_bounded = most_bounded();
    const int64_t each = kind == Kind::kHopper   ? hopper.blocks_each
                         : tensor() && !narrow() ? 1
                                                 : blocks_each(call.memory.shared_bytes, most_shared);
    const int64_t least = kind == Kind::kHopper ? kLeastHopperShare : kLeastShare;
    blocks = max(int64_t{1}, min(ceiling(most_places(problem), least), each * multiprocessors / groups));
    const int64_t slots = 2 * blocks, rows = slots * problem.heads;
    const int64_t slot_numbers =
        kind == Kind::kHopper ? hopper.slot_numbers : problem.heads * problem.value_columns;
    call.slots = {arena.take<float>(slots * slot_numbers), arena.take<float>(rows),
                  arena.take<double>(rows), arena.take<double>(rows)};
    if (result.weights != nullptr) {
      call.final_reference = arena.take<float>(problem.sequences * problem.heads);
      call.final_scale = arena.take<float>(problem.sequences * problem.heads);
    }
    call.memory.blocks =
        arena.take<unsigned char>(blocks * groups * static_cast<int64_t>(call.memory.block_bytes));
  }

  // Places of what both kinds of kernel need, the most used first.
  BlockArena place_common(int tokens, int stages, int product_slots, int64_t rows, bool halves = false) {
    call.tile = tile_shape(call.problem, tokens, stages, call.problem.query.data != nullptr, 0);
    if (halves) {
      for (int i = 0; i < kClusterBlocks; ++i) call.halves[i] = half_of(call.problem, call.tile, 0, i);
      call.tile = call.halves[0];
    }
    BlockArena block(most_shared);
    call.walk = block.take<TileWalk>(1);
    call.stages = block.take<unsigned char>(static_cast<int64_t>(stages) * call.tile.stage_bytes);
    call.squares = block.take<double>(kAttentionWarps * kWarpSize);
    call.scores = block.take<float>(product_slots * rows * kScoreStride);
    call.states = block.take<HeadState>(rows);
    return block;
  }
  int pool_columns() const {
    return call.tile.values.columns == 0 ? call.tile.keys.padded : call.tile.values.padded;
  }

  // Weights relative to the bound 1 must stay normal numbers of the kind in which they are pooled.
  float most_bounded() const {
    const AttentionProblem& problem = call.problem;
    if (problem.mask.data != nullptr) return 0.0f;
    if (problem.activation == Activation::kNone && problem.norm == HeadNorm::kNone) return 0.0f;
    return tensor() && problem.key.kind == NumberKind::kFloat16
               ? kMostBoundedHalf
               : static_cast<float>(1.0 / kLeastBoundedTemperature);
  }

  bool tensor() const { return kind != Kind::kPlain; }
  // Whether there are as many heads as tensor cores take, and no more columns of the values than `most`.
  bool tensor_heads(int64_t most_columns) const {
    const AttentionProblem& problem = call.problem;
    return problem.key.kind != NumberKind::kFloat32 && problem.query.data != nullptr &&
           problem.heads >= kLeastTensorHeads && problem.heads <= kMostTensorHeads &&
           problem.value_columns <= most_columns;
  }
  int head_rows() const { return call.problem.heads <= 16 ? 16 : call.problem.heads <= 32 ? 32 : 64; }

  // What a block multiplies with on tensor cores, behind what is common.
  void place_tensor(BlockArena& block, int factor_stride, int64_t pooled_rows) {
    call.factor = block.take<BFloat>(int64_t{head_rows()} * factor_stride);
    call.weights = block.take<BFloat>(pooled_rows * kScoreStride);
    call.scale = block.take<float>(head_rows());
  }

  // Whether the kernel leaves registers for a second block.
  bool narrow() const {
    return kind == Kind::kBlocks && head_rows() <= 16 * kNarrowTiles &&
           call.problem.value_columns <= kNarrowPairs * kDrainColumns;
  }

  bool fit_blocks(int group, int tokens, int stages) {
    BlockArena block = place_common(tokens, stages, kColumnParts, head_rows());
    place_tensor(block, call.tile.keys.stride, group);
    call.memory = block.memory();
    groups = head_rows() / group;
    kind = block.all_shared() ? Kind::kBlocks : Kind::kPlain;
    return tensor();
  }
  // Blocks that pool `group` heads each, and score all; two of them together where that fits.
  bool fit_groups(int group) {
    for (const int stages : {3, 2})
      if (fit_blocks(group, kMostTileTokens, stages) && narrow() &&
          blocks_each(call.memory.shared_bytes, most_shared) == 2)
        return true;
    for (const int tokens : {32, 16})
      for (const int stages : {3, 2})
        if (fit_blocks(group, tokens, stages)) return true;
    groups = 1;
    return false;
  }
  bool choose_hopper() {
    if (call.problem.hopper) hopper = fit_hopper_forward(call.problem, most_shared);
    if (!hopper.fits) return false;
    kind = Kind::kHopper;
    groups = hopper.blocks;
    return true;
  }
  bool choose_block() {
    const int rows = head_rows();
    return tensor_heads(rows == 16 ? 2048 : rows == 32 ? 1024 : 512) && fit_groups(rows);
  }
  bool choose_groups() {
    return tensor_heads(1024) && head_rows() == 64 &&
           fit_groups(call.problem.value_columns <= 768 ? 32 : 16);
  }

  bool choose_clusters() {
    if (!call.problem.clusters || !tensor_heads(1024) || head_rows() != 64) return false;
    for (const int tokens : {32, 16}) {
      for (const int stages : {4, 3}) {
        BlockArena block = place_common(tokens, stages, kHalfParts, kClusterHeads, true);
        place_tensor(block, call.tile.keys.stride, 2 * kClusterHeads);
        call.received = block.take<Received>(1);
        call.memory = block.memory();
        const RowShape& values = call.tile.values.columns == 0 ? call.tile.keys : call.tile.values;
        const bool drains = values.numbers(tokens) * 2 >= kDrainNumbers * 4;
        if (!block.all_shared() || !drains) continue;
        groups = kClusterBlocks;
        kind = Kind::kClusters;
        return true;
      }
    }
    return false;
  }

  bool choose_plain() {
    const int64_t rows = round_up(call.problem.heads, kGroup);
    // First where all is near; then where only the tokens are.
    for (const bool all : {true, false}) {
      for (const int tokens : {32, 16, 8, 4}) {
        for (const int stages : {3, 2, 1}) {
          if (stages == 1 && (all || tokens > 4)) continue;
          BlockArena block = place_common(tokens, stages, 1, rows);
          call.totals = block.take<float>(rows * kWarpSize);
          call.pooled = block.take<float>(call.problem.heads * pool_columns());
          call.factor =
              block.take<float>(call.problem.query.data == nullptr ? 0 : rows * call.tile.keys.padded);
          call.memory = block.memory();
          if (all ? block.all_shared() && tokens >= 8 : call.stages.shared && call.squares.shared)
            return true;
        }
      }
    }
    return false;
  }

  const size_t most_shared = most_shared_bytes();
  Arena arena;
  Plan plan;
  ForwardCall call = {};
  HopperFit hopper;
  enum class Kind { kPlain, kBlocks, kClusters, kHopper } kind = Kind::kPlain;
  bool fit = false;
  int64_t blocks = 1;  // that share the tokens
  int64_t groups = 1;  // of heads or columns, with blocks of their own
};

template <class Kernel>
void launch_attend(Kernel* kernel, const ForwardLayout& layout, Stream stream) {
  allow_shared(kernel, layout.call.memory.shared_bytes);
  const Dim3 grid{static_cast<unsigned>(layout.blocks), static_cast<unsigned>(layout.groups), 1};
  if (layout.kind == ForwardLayout::Kind::kClusters)
    EC_LAUNCH_CLUSTERS(kernel, (Dim3{1, kClusterBlocks, 1}), grid, kAttentionThreads,
                       layout.call.memory.shared_bytes, stream, layout.call);
  else if (layout.plan.begins == nullptr)  // this is the first kernel of its call
    EC_LAUNCH(kernel, grid, kAttentionThreads, layout.call.memory.shared_bytes, stream, layout.call);
  else
    EC_LAUNCH_BEHIND(kernel, grid, kAttentionThreads, layout.call.memory.shared_bytes, stream, layout.call);
}

template <class T>
void launch_tensor(const ForwardLayout& layout, Stream stream) {
  const int columns = layout.pool_columns();
  const int64_t heads = layout.call.problem.heads;
  if (layout.kind == ForwardLayout::Kind::kHopper)
    run_hopper_forward(layout.call, layout.hopper, layout.blocks, stream);
  else if (layout.kind == ForwardLayout::Kind::kClusters)
    launch_attend(columns <= 384 ? attend_clusters<T, 3> : attend_clusters<T, 4>, layout, stream);
  else if (heads <= 16)
    launch_attend(columns <= 384    ? attend_tensor<T, 1, 1, 3>
                  : columns <= 768  ? attend_tensor<T, 1, 1, 6>
                  : columns <= 1024 ? attend_tensor<T, 1, 1, 8>
                                    : attend_tensor<T, 1, 1, 16>,
                  layout, stream);
  else if (heads <= 32)
    launch_attend(columns <= 384   ? attend_tensor<T, 2, 2, 3>
                  : columns <= 768 ? attend_tensor<T, 2, 2, 6>
                                   : attend_tensor<T, 2, 2, 8>,
                  layout, stream);
  else if (layout.groups == 1)
    launch_attend(columns <= 384 ? attend_tensor<T, 4, 4, 3> : attend_tensor<T, 4, 4, 4>, layout, stream);
  else
    launch_attend(columns <= 768 ? attend_tensor<T, 4, 2, 6> : attend_tensor<T, 4, 1, 8>, layout, stream);
}

template <class T>
void launch_merge(const ForwardLayout& layout, Stream stream) {
  const AttentionProblem& problem = layout.call.problem;
  if (layout.kind == ForwardLayout::Kind::kHopper)
    return run_hopper_merge(layout.call, layout.blocks, stream);
  const int64_t items = problem.heads * ((problem.value_columns + kPartColumns - 1) / kPartColumns);
  // Where sequences have few parts, a warp has an item.
  const int64_t each = layout.blocks / problem.sequences < kWarpSize ? kAttentionWarps : 1;
  const Dim3 grid{static_cast<unsigned>(min(layout.blocks, problem.sequences)),
                  static_cast<unsigned>(min(ceiling(items, each), kMostMergeBlocks)), 1};
  const size_t numbers = static_cast<size_t>(kPartNumbers + kAttentionWarps + layout.blocks);
  EC_LAUNCH_BEHIND(merge_slots<T>, grid, kAttentionThreads, numbers * sizeof(float), stream, layout.call,
                   layout.blocks);
}

}  // namespace

size_t attention_forward_workspace_bytes(const AttentionProblem& problem, const AttentionResult& result,
                                         int multiprocessors) {
  return ForwardLayout(problem, result, multiprocessors, nullptr).arena.used();
}

bool run_attention_forward(const AttentionProblem& problem, const AttentionResult& result,
                           int multiprocessors, void* workspace, Stream stream) {
  if (problem.sequences == 0) return true;
  const ForwardLayout layout(problem, result, multiprocessors, workspace);
  if (!layout.fit) return false;
  layout.plan.run(problem, stream);
  with_numbers(problem.key.kind, [&](auto number) {
    using T = decltype(number);
    if constexpr (sizeof(T) == 2) {
      if (layout.tensor()) launch_tensor<T>(layout, stream);
    }
    if (!layout.tensor()) launch_attend(attend_plain<T>, layout, stream);
    if (layout.blocks > 1) launch_merge<T>(layout, stream);
  });
  Gaps gaps = {};
  gaps.like_scores[0] = result.scores;
  gaps.like_scores[1] = result.weights;
  gaps.value[1] = -HUGE_VALF;
  if (result.scores != nullptr || result.weights != nullptr) run_fill_gaps(layout.plan, gaps, stream);
  if (result.weights != nullptr) {
    const auto across = static_cast<unsigned>(min(problem.sequences, int64_t{1024}));
    const auto along = static_cast<unsigned>(max(int64_t{1}, min(int64_t{32}, 1024 / problem.sequences)));
    EC_LAUNCH(finish_weights, (Dim3{across, along, 1}), kAttentionThreads, 0, stream, layout.call);
  }
  return !launches_failed();
}

}  // namespace ec::cuda
