// SPDX-License-Identifier: Apache-2.0
// Fetching the rows of the next block while this one is worked on; included by kernels only.
#pragma once

#include "attention/kernels.h"

// gcc takes a function that only fetches for one without effect, and drops its calls.
#define EC_FETCHING inline __attribute__((always_inline))

namespace ec {
namespace EC_ISA {

constexpr int64_t kLineBytes = 64;

static EC_FETCHING void fetch(const void* at) { __builtin_prefetch(at, 0, 3); }

// Row i of those to come, or row where there is none: what is fetched again is in the cache.
template <class Number>
static EC_FETCHING const Number* row_ahead(const RowsAhead& ahead, int64_t i, const Number* row) {
  return i < ahead.count ? static_cast<const Number*>(ahead.rows[i]) : row;
}

// The lines of rows to come, one after the other as memory has them, spread evenly over the steps of a
// loop: a line that is fetched occupies a miss buffer until it has come, and what finds none free waits, be
// it in the second cache or not.
class LinesAhead {
 public:
  LinesAhead(const RowsAhead& ahead, int64_t row_bytes, int64_t steps)
      : row_(ahead.rows), left_(ahead.count), row_bytes_(row_bytes) {
    const int64_t lines = left_ * ((row_bytes + kLineBytes - 1) / kLineBytes);
    pace_ = steps > 0 ? (lines * kWhole + steps - 1) / steps : 0;
    next_row();
  }

  bool done() const { return pace_ == 0; }
  EC_FETCHING void step() {
    for (due_ += pace_; due_ >= kWhole; due_ -= kWhole) {
      fetch(at_);
      at_ += kLineBytes;
      if (at_ >= end_) next_row();
    }
  }

 private:
  static constexpr int64_t kWhole = 64;  // a line, in parts

  EC_FETCHING void next_row() {
    if (left_-- <= 0) {
      pace_ = due_ = 0;
      return;
    }
    at_ = static_cast<const char*>(*row_++);
    end_ = at_ + row_bytes_;
  }

  const void* const* row_;
  int64_t left_, row_bytes_;
  int64_t pace_, due_ = 0;  // parts of a line: of each step, and not yet fetched
  const char *at_, *end_;   // of the row; nothing where all is done
};

}  // namespace EC_ISA
}  // namespace ec
