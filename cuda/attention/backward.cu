// SPDX-License-Identifier: Apache-2.0
#include "attention/backward_clusters.cuh"
#include "attention/backward_ends.cuh"
#include "attention/gradient_slots.h"
#include "attention/layout.h"

namespace ec::cuda {
namespace {

constexpr int64_t kMostPrepareBlocks = 4096;
constexpr int64_t kMostMergeBlocks = 256;  // of a sequence
constexpr int64_t kMostClusterColumns = 1024;

// Of a tile, for which the kernels with tensor cores have room.
int tensor_tokens(const AttentionProblem& problem) {
  return problem.heads > 16 && problem.key_columns > 768 ? 16 : 32;
}
// Of the keys, whose sums the registers of a block have room for; 0 where there are too many heads.
int64_t most_tensor_columns(int64_t heads) {
  return heads <= 16 ? 1536 : heads <= 32 ? 1024 : heads <= 64 ? 384 : 0;
}

// One call, laid out.
struct BackwardLayout {
  BackwardLayout(const AttentionProblem& problem, const AttentionGradient& gradient, int multiprocessors,
                 void* workspace)
      : arena(workspace), plan(problem, arena) {
    call.problem = problem;
    call.gradient = gradient;
    call.sequences = plan.sequences;
    wants_query = problem.query.data != nullptr && gradient.grad_query != nullptr;
    fit = choose_tensor() || choose_clusters() || choose_plain();
    const int64_t most_each =
        problem.key.kind == NumberKind::kFloat32 ? kPlainGradientBlocks<float> : kPlainGradientBlocks<Half>;
    const int64_t each = tensor() ? 1 : min(most_each, blocks_each(call.memory.shared_bytes, most_shared));
    blocks = max(int64_t{1}, min((most_places(problem) + kLeastShare - 1) / kLeastShare,
                                 each * multiprocessors / halves()));
    const int64_t heads = problem.heads, rows = problem.sequences * heads, slot_rows = 2 * blocks * heads;
    call.terms = {arena.take<float>(rows), arena.take<int>(problem.sequences), arena.take<double>(2 * rows),
                  nullptr, nullptr};
    if (tensor()) take_powers(gradient.grad_out.kind);
    call.slots.sums = arena.take<double>(2 * slot_rows);
    call.slots.score_sums = arena.take<double>(slot_rows);
    call.memory.blocks =
        arena.take<unsigned char>(blocks * halves() * static_cast<int64_t>(call.memory.block_bytes));
    if (wants_query) take_query_slots();
  }

  // What becomes of grad_out for the tensor cores: it is rounded to 16 bits, and those of float16 are
  // scaled.
  void take_powers(NumberKind grad_kind) {
    const AttentionProblem& problem = call.problem;
    const bool half = problem.key.kind == NumberKind::kFloat16;
    if (grad_kind != problem.key.kind && (!half || grad_kind != NumberKind::kBFloat16))
      call.grad_dropped = half ? 13 : 16;
    if (!half) return;
    call.terms.grad_powers = arena.take<float>(problem.sequences * problem.heads);
    call.terms.query_powers =
        arena.take<float>((problem.query_per_sequence ? problem.sequences : 1) * problem.heads);
  }

  void take_query_slots() {
    const AttentionProblem& problem = call.problem;
    const int64_t numbers = problem.heads * problem.key_columns;
    if (problem.query_per_sequence) {
      call.slots.query = arena.take<float>(2 * blocks * numbers);
      return;
    }
    call.slots.queries = count_query_slots(problem, blocks, static_cast<int64_t>(arena.used()));
    call.slots.query = arena.take<float>(call.slots.queries * numbers);
    if (call.slots.queries == blocks) return;
    call.slots.started = arena.take<int>(1);
    call.slots.turns = arena.take<int>(kClusterBlocks * call.slots.queries);
  }

  // Places of what both kinds of kernel need, the most used first.
  BlockArena place_common(int tokens, int stages, int64_t products, int64_t rows, bool halves = false) {
    const AttentionProblem& problem = call.problem;
    const int64_t saved_heads = problem.query.data == nullptr ? 0 : problem.heads;
    call.tile = tile_shape(problem, tokens, stages, wants_query || halves, saved_heads);
    if (halves) {
      for (int i = 0; i < kClusterBlocks; ++i) call.halves[i] = half_of(problem, call.tile, saved_heads, i);
      call.tile = call.halves[0];
    }
    BlockArena block(most_shared);
    call.number = block.take<int64_t>(1);
    call.walk = block.take<TileWalk>(1);
    call.stages = block.take<unsigned char>(static_cast<int64_t>(stages) * call.tile.stage_bytes);
    call.across = block.take<Across>(1);
    call.products = block.take<float>(products);
    call.states = block.take<HeadGradient>(rows);
    return block;
  }
  const RowShape& values() const {
    return call.tile.values.columns == 0 ? call.tile.keys : call.tile.values;
  }
  int64_t key_padded() const { return round_up(call.problem.key_columns, 16); }

  // Whether any sequence may be (backward_tile.cuh), as far as the host knows.
  bool may_be_sharp() const {
    const AttentionProblem& problem = call.problem;
    if (call.gradient.grad_weights != nullptr || problem.mask.data != nullptr ||
        problem.temperature.data != nullptr)
      return true;
    const bool uniform = problem.query.data == nullptr && problem.bias.data == nullptr;
    if (!uniform && problem.activation == Activation::kNone && problem.norm == HeadNorm::kNone) return true;
    // Scores lie in [-1 / T, 1 / T], and their exponentials add up to at most `tokens` times as much.
    return 1.001 / problem.fixed_temperature + log(static_cast<double>(problem.tokens + 1)) >=
           static_cast<double>(kSharpLse);
  }

  bool tensor() const { return kind != Kind::kPlain; }
  int halves() const { return kind == Kind::kClusters ? kClusterBlocks : 1; }

  bool choose_tensor() {
    const AttentionProblem& problem = call.problem;
    if (problem.key.kind == NumberKind::kFloat32 || problem.query.data == nullptr) return false;
    if (problem.heads < kLeastTensorHeads || problem.key_columns > most_tensor_columns(problem.heads))
      return false;
    const int rows = problem.heads <= 16 ? 16 : problem.heads <= 32 ? 32 : 64;
    const int most_tokens = tensor_tokens(problem);
    for (const int tokens : {32, 16}) {
      if (tokens > most_tokens) continue;
      for (const int stages : {3, 2}) {
        BlockArena block = place_common(tokens, stages, kColumnParts * rows * (most_tokens + 8), rows);
        call.value_factor = block.take<Half>(int64_t{rows} * values().stride);
        call.query_factor = block.take<Half>(rows * (key_padded() + 8));
        const int64_t numbers = rows * (most_tokens + 8);
        call.gradients = block.take<Half>(2 * numbers);
        call.pooled = block.take<Half>(problem.key.kind == NumberKind::kFloat16 ? numbers : 0);
        call.memory = block.memory();
        if (!block.all_shared()) continue;
        kind = Kind::kBlocks;
        return true;
      }
    }
    return false;
  }

  bool choose_clusters() {
    const AttentionProblem& problem = call.problem;
    if (!problem.clusters || problem.key.kind == NumberKind::kFloat32 || problem.query.data == nullptr)
      return false;
    // Both blocks have columns of both.
    if (problem.heads <= kClusterHeads / 2 || problem.heads > kClusterHeads || problem.key_columns <= 16 ||
        problem.value_columns <= 16 || problem.key_columns > kMostClusterColumns)
      return false;
    constexpr int kTokens = kClusterGradientTokens, kRows = kClusterHeads;
    constexpr int64_t kNumbers = kRows * (kTokens + 8);
    for (const int stages : {4, 3, 2}) {
      BlockArena block = place_common(kTokens, stages, kHalfParts * kNumbers, kRows, true);
      call.value_factor = block.take<Half>(int64_t{kRows} * values().stride);
      call.query_factor = block.take<Half>(int64_t{kRows} * call.tile.keys.stride);
      if (problem.key.kind == NumberKind::kFloat16) {
        call.gradients = call.products;  // all threads have sent those when weights and dz are put
        call.pooled = block.take<Half>(kNumbers);
      } else {
        call.gradients = block.take<Half>(2 * kNumbers);
      }
      call.received = block.take<ReceivedGradients>(1);
      call.memory = block.memory();
      if (!block.all_shared()) continue;
      kind = Kind::kClusters;
      return true;
    }
    return false;
  }

  bool choose_plain() {
    const int64_t rows = round_up(call.problem.heads, kGroup);
    const bool scored = call.problem.query.data != nullptr;
    // First where all is near; then where only the tokens are.
    for (const bool all : {true, false}) {
      for (const int tokens : {32, 16, 8, 4}) {
        for (const int stages : {3, 2, 1}) {
          if (stages == 1 && (all || tokens > 4)) continue;
          BlockArena block = place_common(tokens, stages, rows * kScoreStride, rows);
          call.scores = block.take<float>(rows * kScoreStride);
          call.weights = block.take<float>(rows * kScoreStride);
          call.query_sums = block.take<float>(wants_query ? call.problem.heads * key_padded() : 0);
          call.value_factor = block.take<float>(rows * values().padded);
          call.query_factor = block.take<float>(scored ? rows * key_padded() : 0);
          call.memory = block.memory();
          if (all ? block.all_shared() && tokens >= 8 : call.stages.shared && call.across.shared)
            return true;
        }
      }
    }
    return false;
  }

  const size_t most_shared = most_shared_bytes();
  Arena arena;
  Plan plan;
  BackwardCall call = {};
  enum class Kind { kPlain, kBlocks, kClusters } kind = Kind::kPlain;
  bool fit = false, wants_query = false;
  int64_t blocks = 1;
};

template <class Kernel>
void launch(Kernel* kernel, const BackwardLayout& layout, Stream stream) {
  const size_t shared_bytes = layout.call.memory.shared_bytes;
  allow_shared(kernel, shared_bytes);
  const Dim3 grid{static_cast<unsigned>(layout.blocks), static_cast<unsigned>(layout.halves()), 1};
  if (layout.kind == BackwardLayout::Kind::kClusters)
    EC_LAUNCH_CLUSTERS(kernel, (Dim3{1, kClusterBlocks, 1}), grid, kAttentionThreads, shared_bytes, stream,
                       layout.call);
  else
    EC_LAUNCH_BEHIND(kernel, grid, kAttentionThreads, shared_bytes, stream, layout.call);
}

// Of the walk over sharp sequences, which has no sums of columns, one serves any number of them.
template <class T, bool kSums>
void launch_tensor(const BackwardLayout& layout, Stream stream) {
  constexpr int kFew = kSums ? 1 : 3, kMany = kSums ? 1 : 4;  // columns of a half
  const AttentionProblem& problem = layout.call.problem;
  if (layout.kind == BackwardLayout::Kind::kClusters)
    launch(layout.call.tile.keys.padded <= 384 ? differentiate_clusters<T, kFew, kSums>
                                               : differentiate_clusters<T, kMany, kSums>,
           layout, stream);
  else if (problem.heads <= 16)
    launch(differentiate_tensor < T, 1, kSums ? 1 : 12, 32, kSums >, layout, stream);
  else if (problem.heads > 32)
    launch(differentiate_tensor < T, 4, kSums ? 1 : 3, 32, kSums >, layout, stream);
  else if (tensor_tokens(problem) == 32)
    launch(differentiate_tensor < T, 2, kSums ? 1 : 6, 32, kSums >, layout, stream);
  else
    launch(differentiate_tensor < T, 2, kSums ? 1 : 8, 16, kSums >, layout, stream);
}

template <bool kSums>
void launch_walk(const BackwardLayout& layout, Stream stream) {
  with_numbers(layout.call.problem.key.kind, [&](auto number) {
    using T = decltype(number);
    if constexpr (sizeof(T) == 2) {
      if (layout.tensor()) return launch_tensor<T, kSums>(layout, stream);
    }
    launch(differentiate_plain<T, kSums>, layout, stream);
  });
}

void launch_ends(const BackwardLayout& layout, Stream stream) {
  const AttentionProblem& problem = layout.call.problem;
  const int64_t numbers = problem.heads * problem.key_columns;
  const int64_t strips = (numbers + kPartColumns - 1) / kPartColumns;
  const size_t shared = kPartNumbers * sizeof(float);
  if (layout.wants_query && !problem.query_per_sequence)
    EC_LAUNCH_BEHIND(add_query_sums, static_cast<unsigned>(strips), kAttentionThreads, shared, stream,
                     layout.call, layout.blocks);
  const bool own_queries = layout.wants_query && problem.query_per_sequence;
  if (layout.blocks == 1 || (!own_queries && layout.call.gradient.grad_temperature == nullptr)) return;
  const int64_t along = own_queries ? min(kMostMergeBlocks, strips) : 1;
  const Dim3 grid{static_cast<unsigned>(min(layout.blocks, problem.sequences)),
                  static_cast<unsigned>(along), 1};
  EC_LAUNCH_BEHIND(merge_gradients, grid, kAttentionThreads, shared, stream, layout.call, layout.blocks);
}

void fill_others(const BackwardLayout& layout, Stream stream) {
  const AttentionProblem& problem = layout.call.problem;
  const AttentionGradient& gradient = layout.call.gradient;
  Gaps gaps = {};
  const int64_t bytes = number_bytes(problem.key.kind);
  if (!gradient.accumulate) gaps.rows[0] = static_cast<unsigned char*>(gradient.grad_key);
  if (problem.value.data != nullptr) gaps.rows[1] = static_cast<unsigned char*>(gradient.grad_value);
  gaps.row_bytes[0] = bytes * problem.key_columns;
  gaps.row_bytes[1] = bytes * problem.value_columns;
  gaps.like_scores[0] = gradient.grad_bias;
  gaps.like_tokens = gradient.grad_mask;
  if (gaps.rows[0] != nullptr || gaps.rows[1] != nullptr || gaps.like_scores[0] != nullptr ||
      gaps.like_tokens != nullptr)
    run_fill_gaps(layout.plan, gaps, stream);
}

}  // namespace

bool attention_supported(const AttentionProblem& problem) {
  AttentionGradient gradient = {};
  float wanted = 0.0f;
  gradient.grad_query = &wanted;
  gradient.grad_out.kind = problem.key.kind;
  return BackwardLayout(problem, gradient, 1, nullptr).fit;
}

int64_t attention_most_row_bytes(const AttentionProblem& problem) {
  AttentionProblem tried = problem;
  tried.value_columns = 16;  // rows end in zeros up to as many
  const bool others = problem.value.data != nullptr;
  int64_t fit = 0, none = int64_t{1} << 20;  // 16 columns, of keys
  while (none - fit > 1) {
    const int64_t middle = (fit + none) / 2;
    tried.key_columns = 16 * middle;
    if (!others) tried.value_columns = tried.key_columns;
    (attention_supported(tried) ? fit : none) = middle;
  }
  return 16 * (fit + (others ? 1 : 0)) * number_bytes(problem.key.kind);
}

size_t attention_backward_workspace_bytes(const AttentionProblem& problem,
                                          const AttentionGradient& gradient, int multiprocessors) {
  return BackwardLayout(problem, gradient, multiprocessors, nullptr).arena.used();
}

bool run_attention_backward(const AttentionProblem& problem, const AttentionGradient& gradient,
                            int multiprocessors, void* workspace, Stream stream) {
  const BackwardLayout layout(problem, gradient, multiprocessors, workspace);
  if (!layout.fit) return false;
  if (problem.sequences == 0) {
    if (layout.wants_query && !problem.query_per_sequence)
      clear(gradient.grad_query, static_cast<size_t>(problem.heads * problem.key_columns) * sizeof(float),
            stream);
    return !launches_failed();
  }
  layout.plan.run(problem, stream);
  const int64_t rows = problem.sequences * problem.heads;
  const auto blocks = static_cast<unsigned>(min(ceiling(rows, kAttentionWarps), kMostPrepareBlocks));
  EC_LAUNCH(prepare_backward, blocks, kAttentionThreads, 0, stream, layout.call);
  if (layout.may_be_sharp()) launch_walk<true>(layout, stream);
  launch_walk<false>(layout, stream);
  launch_ends(layout, stream);
  fill_others(layout, stream);
  return !launches_failed();
}

}  // namespace ec::cuda
