// SPDX-License-Identifier: Apache-2.0
#include "attention/hopper/hopper_forward.h"

#include "attention/hopper/attend_halves.cuh"
#include "attention/hopper/attend_panels.cuh"
#include "attention/hopper/merge_panels.cuh"
#include "attention/layout.h"

namespace ec::cuda {
namespace {

constexpr int64_t kMostCounted = int64_t{1} << 30;  // rows and numbers of the maps
constexpr int64_t kMostApart = int64_t{1} << 38;    // numbers
// Panels beside those of a tile, so that something is under way while it is weighed.
constexpr int kLeastAhead = 4;
constexpr int64_t kMostMergeBlocks = 256;  // of a sequence
// Panels of a block, and of one that has more than 32 heads or is one of a cluster.
constexpr int kMostPanels = 16, kMostPanelsOfMany = 8;

int head_rows(int64_t heads) { return heads <= 16 ? 16 : heads <= 32 ? 32 : 64; }

int panels_of(const AttentionProblem& problem) {
  return static_cast<int>((problem.key_columns + kPanelColumns - 1) / kPanelColumns);
}

// The panels that a warpgroup of a kernel has.
int own_panels(int panels) { return panels <= 6 ? 3 : panels <= 8 ? 4 : panels <= 12 ? 6 : 8; }

template <int kRows>
size_t state_bytes(int blocks) {
  return blocks == 1 ? sizeof(PoolState<BFloat, kRows>) : sizeof(HalfState<BFloat, kRows>);
}
size_t state_bytes(int rows, int blocks) {
  return rows == 16   ? sizeof(PoolState<BFloat, 16>)
         : rows == 32 ? state_bytes<32>(blocks)
                      : state_bytes<64>(blocks);
}

// How such a problem is laid out for blocks alone, or for `blocks` in a cluster.
HopperFit fit_blocks(int rows, int panels, int blocks, size_t most_shared) {
  HopperFit fit;
  fit.blocks = blocks;
  fit.panels = (panels + blocks - 1) / blocks;
  if (fit.panels > (rows == 64 || blocks > 1 ? kMostPanelsOfMany : kMostPanels)) return {};
  const size_t others = kSwizzleBytes +
                        static_cast<size_t>(fit.panels) * rows * kPanelColumns * sizeof(BFloat) +
                        state_bytes(rows, blocks);
  const bool pair = blocks == 1 && hopper_pairs_up(rows, own_panels(fit.panels));
  for (int each = pair ? 2 : 1; each >= 1; --each) {
    // A block has 1 KB beside what it asks for.
    const size_t most = each == 1 ? most_shared : (most_shared + 1024) / 2 - 1024;
    if (most < others) continue;
    fit.slots = static_cast<int>(min((most - others) / kPanelBytes, size_t{kMostSlots}));
    fit.shared_bytes = others + static_cast<size_t>(fit.slots) * kPanelBytes;
    fit.blocks_each = each;
    // Blocks of a cluster keep a tile while they multiply the next one.
    fit.fits = fit.slots >= fit.panels + (blocks > 1 ? fit.panels : min(fit.panels, kLeastAhead));
    if (fit.fits) break;
  }
  return fit;
}

// Whether the copy engine finds the tokens.
bool is_mapped(const AttentionProblem& problem) {
  const Numbers& key = problem.key;
  const int64_t apart = key.stride[1], arrays_apart = key.stride[0];
  if (reinterpret_cast<uintptr_t>(key.data) % 16 != 0 || apart % 8 != 0 || apart < problem.key_columns ||
      apart > kMostCounted || problem.tokens < 1 || problem.tokens > min(kMostCounted, kMostApart / apart))
    return false;
  if (problem.offsets != nullptr || problem.sequences == 1) return true;
  return arrays_apart > 0 && arrays_apart % apart == 0 && arrays_apart / apart <= kMostCounted &&
         arrays_apart <= kMostApart && problem.sequences <= kMostCounted;
}

template <class T, int kRows, int kOwn>
void launch(const HopperForward& problem, const HopperFit& fit, int64_t blocks, Stream stream) {
  allow_shared(attend_panels<T, kRows, kOwn>, fit.shared_bytes);
  const auto grid = static_cast<unsigned>(blocks);
  if (problem.call.sequences.begins == nullptr)  // this is the first kernel of its call
    EC_LAUNCH((attend_panels<T, kRows, kOwn>), grid, kHopperThreads, fit.shared_bytes, stream, problem);
  else
    EC_LAUNCH_BEHIND((attend_panels<T, kRows, kOwn>), grid, kHopperThreads, fit.shared_bytes, stream,
                     problem);
}
template <class T, int kRows, int kOwn>
void launch_halves(const HopperForward& problem, const HopperFit& fit, int64_t blocks, Stream stream) {
  allow_shared(attend_half_panels<T, kRows, kOwn>, fit.shared_bytes);
  EC_LAUNCH_CLUSTERS((attend_half_panels<T, kRows, kOwn>), (Dim3{1, kHalfBlocks, 1}),
                     (Dim3{static_cast<unsigned>(blocks), kHalfBlocks, 1}), kHopperThreads,
                     fit.shared_bytes, stream, problem);
}
template <class T, int kRows>
void launch_rows(const HopperForward& problem, const HopperFit& fit, int64_t blocks, Stream stream) {
  const int own = own_panels(fit.panels);
  if constexpr (kRows == 64) {
    if (fit.blocks > 1 && own == 3) return launch_halves<T, kRows, 3>(problem, fit, blocks, stream);
  }
  if constexpr (kRows >= 32) {
    if (fit.blocks > 1) return launch_halves<T, kRows, 4>(problem, fit, blocks, stream);
  }
  if (own == 3) return launch<T, kRows, 3>(problem, fit, blocks, stream);
  if (own == 4) return launch<T, kRows, 4>(problem, fit, blocks, stream);
  if constexpr (kRows <= 32) {
    if (own == 6) return launch<T, kRows, 6>(problem, fit, blocks, stream);
    return launch<T, kRows, 8>(problem, fit, blocks, stream);
  }
}
template <class T>
void launch_kind(const HopperForward& problem, const HopperFit& fit, int64_t blocks, Stream stream) {
  const int rows = head_rows(problem.call.problem.heads);
  if (rows == 16) return launch_rows<T, 16>(problem, fit, blocks, stream);
  if (rows == 32) return launch_rows<T, 32>(problem, fit, blocks, stream);
  return launch_rows<T, 64>(problem, fit, blocks, stream);
}

}  // namespace

bool runs_hopper_forward(int major, int minor) { return major == 9 && minor == 0; }

HopperFit fit_hopper_forward(const AttentionProblem& problem, size_t most_shared) {
  if (problem.key.kind == NumberKind::kFloat32 || problem.value.data != nullptr ||
      problem.query.data == nullptr || problem.heads < kLeastTensorHeads ||
      problem.heads > kMostTensorHeads || problem.key_columns > kMostPanels * kPanelColumns ||
      !is_mapped(problem))
    return {};
  const int rows = head_rows(problem.heads);
  const int panels = panels_of(problem);
  if (panels < kPoolers) return {};
  HopperFit fit = fit_blocks(rows, panels, 1, most_shared);
  if (!fit.fits && rows >= 32) fit = fit_blocks(rows, panels, kHalfBlocks, most_shared);
  fit.slot_numbers = PanelSlots(panels, problem.heads).numbers();
  return fit;
}

void run_hopper_forward(const ForwardCall& call, const HopperFit& fit, int64_t blocks, Stream stream) {
  const AttentionProblem& given = call.problem;
  const bool one = given.offsets != nullptr || given.sequences == 1;
  HopperForward problem = {};
  problem.call = call;
  problem.panels[0] = fit.panels;
  problem.panels[1] = panels_of(given) - fit.panels;
  problem.slots = fit.slots;
  const TiledArrays tokens = {given.key.data,
                              given.key_columns,
                              given.tokens,
                              given.key.stride[1],
                              one ? 1 : given.sequences,
                              one ? given.tokens * given.key.stride[1] : given.key.stride[0]};
  if (!make_tile_map(tokens, kTileTokens, &problem.tiles) ||
      !make_tile_map(tokens, kEdgeTokens, &problem.edges))
    return;
  if (given.key.kind == NumberKind::kFloat16)
    launch_kind<Half>(problem, fit, blocks, stream);
  else
    launch_kind<BFloat>(problem, fit, blocks, stream);
}

void run_hopper_merge(const ForwardCall& call, int64_t blocks, Stream stream) {
  const AttentionProblem& problem = call.problem;
  const PanelSlots slots(panels_of(problem), problem.heads);
  const bool few = blocks / problem.sequences <= kFewParts;  // that sequences have, most of them
  const int64_t items =
      slots.groups * ceiling(slots.panels * kGroupThreads, few ? kAttentionThreads : kSpreadThreads);
  const Dim3 grid{static_cast<unsigned>(min(blocks, problem.sequences)),
                  static_cast<unsigned>(min(items, kMostMergeBlocks)), 1};
  const size_t bytes = sizeof(MergeMemory) + static_cast<size_t>(blocks) * kFragmentHeads * sizeof(float);
  if (problem.key.kind == NumberKind::kFloat16)
    EC_LAUNCH_BEHIND(merge_panels<Half>, grid, kAttentionThreads, bytes, stream, call, slots, blocks);
  else
    EC_LAUNCH_BEHIND(merge_panels<BFloat>, grid, kAttentionThreads, bytes, stream, call, slots, blocks);
}

}  // namespace ec::cuda
