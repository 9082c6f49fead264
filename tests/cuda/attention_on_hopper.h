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

// Of all tokens that count.
inline int64_t token_bytes(const Call& call) {
  return attention_call::counted_tokens(call) * call.model.shape.key_columns * 2;
}

}  // namespace attention_on_hopper
