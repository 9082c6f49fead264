// SPDX-License-Identifier: Apache-2.0
// The forward of attention as a device with Hopper's instructions takes it.
#pragma once

#include "attention_call.h"

#include "attention/hopper/hopper_forward.h"

namespace attention_on_hopper {

using attention_call::Call;

constexpr int64_t kEdge = 8;  // tokens that are copied at a time where a tile ends

// A forward, which is Hopper's or not, by so many blocks that share the columns, and how many bytes of
// tokens it has copied.
inline int64_t forward(Call& call, int multiprocessors, bool fits = true, int blocks = 1) {
  call.problem.hopper = true;
  const auto fit = ec::cuda::fit_hopper_forward(call.problem, ec::emulation::most_shared());
  CHECK(fit.fits == fits && (!fits || fit.blocks == blocks));
  const uint64_t before = ec::emulation::copied_bytes();
  call.forward(multiprocessors);
  return static_cast<int64_t>(ec::emulation::copied_bytes() - before);
}

// Whether so many bytes are those of all tokens that count, but for what lies beside a cut: tokens up to a
// multiple of kEdge of each piece.
inline bool has_read_once(const Call& call, int64_t bytes, int64_t pieces) {
  const int64_t row = call.model.shape.key_columns * 2, least = attention_call::counted_tokens(call) * row;
  return bytes >= least && bytes <= least + pieces * (kEdge - 1) * row;
}

}  // namespace attention_on_hopper
