// SPDX-License-Identifier: Apache-2.0
// How much memory the backward takes beside the gradients: a twentieth of the tokens, beside the scores
// that are kept.
#pragma once

#include "attention/layout.h"

namespace ec::cuda {

constexpr int64_t kTokenShare = 20;   // 1 / what is taken
constexpr int64_t kMostTurns = 4;     // of a slot
constexpr int64_t kTurnTokens = 256;  // of a block, so that waiting for a turn is little beside them

inline int64_t token_bytes(const AttentionProblem& problem) {
  const bool others = problem.value.data != nullptr;
  return most_places(problem) * (problem.key_columns + (others ? problem.value_columns : 0)) *
         number_bytes(problem.key.kind);
}

// What the forward keeps beside out and the scores: what rounding left of out, and lse.
inline int64_t kept_bytes(const AttentionProblem& problem) {
  const bool rounded = problem.key.kind != NumberKind::kFloat32;
  const int64_t rows = problem.sequences * problem.heads;
  return rows * (static_cast<int64_t>(sizeof(float)) + (rounded ? problem.value_columns : 0));
}

// Slots for the gradient of the query of all sequences: one a block where there is room, beside what is
// taken already, or where blocks have little to do; else blocks take turns at them.
inline int64_t count_query_slots(const AttentionProblem& problem, int64_t blocks, int64_t taken) {
  if (most_places(problem) < kTurnTokens * blocks) return blocks;
  const int64_t slot = problem.heads * problem.key_columns * static_cast<int64_t>(sizeof(float));
  const int64_t room = token_bytes(problem) / kTokenShare - kept_bytes(problem) - taken;
  return max(ceiling(blocks, kMostTurns), min(blocks, room / slot));
}

}  // namespace ec::cuda
