// SPDX-License-Identifier: Apache-2.0
// How calls of attention are laid out: tiles that fit, and arrays of the workspace.
#pragma once

#include "attention/memory.cuh"
#include "common/workspace.h"

namespace ec::cuda {

constexpr int kLeastTensorHeads = 5, kMostTensorHeads = 64;

inline int64_t round_up(int64_t a, int64_t step) { return (a + step - 1) / step * step; }

// Blocks of a multiprocessor that share so much each; a block has 1 KB beside what it asks for.
inline int64_t blocks_each(size_t shared_bytes, size_t most_shared) {
  return 2 * (shared_bytes + 1024) <= most_shared + 1024 ? 2 : 1;
}

inline int number_bytes(NumberKind kind) {
  return kind == NumberKind::kFloat64 ? 8 : kind == NumberKind::kFloat32 ? 4 : 2;
}

// Which tokens are places: kernels that find out, and their arrays.
struct Plan {
  Plan(const AttentionProblem& problem, Arena& arena);
  void run(const AttentionProblem& problem, Stream stream) const;
  bool has_gaps() const { return begins != nullptr; }

  Sequences sequences;
  int64_t *begins = nullptr, *firsts = nullptr, *counts = nullptr;
};

// Arrays with numbers of each token, and what they are where a token is no place.
struct Gaps {
  unsigned char* rows[2];  // [sequence][token][bytes]: zeros
  int64_t row_bytes[2];
  float* like_scores[2];
  float value[2];
  float* like_tokens;  // zeros
};
void run_fill_gaps(const Plan& plan, const Gaps& gaps, Stream stream);

// Rows as they lie in a stage. Without columns there are none.
RowShape row_shape(const Numbers& rows, int64_t columns, bool staged);
// keys: whether keys that are not the values are staged; saved_heads: of scores that are staged too.
int stage_bytes(const AttentionProblem& problem, const TileShape& tile, int64_t saved_heads);
TileShape tile_shape(const AttentionProblem& problem, int tokens, int stages, bool keys,
                     int64_t saved_heads);
// The tile of block i of a cluster, which has half of the columns: those of the first are at least as many,
// and rows and stages of both lie alike. A tile stays in its stage when another is taken.
TileShape half_of(const AttentionProblem& problem, const TileShape& all, int64_t saved_heads, int i);

// The most tokens that may count, as far as the host knows.
int64_t most_places(const AttentionProblem& problem);

}  // namespace ec::cuda
