// SPDX-License-Identifier: Apache-2.0
// Fetching the rows of the next block while this one is worked on; included by kernels only.
#pragma once

#include "attention/kernels.h"

// gcc takes a function that only fetches for one without effect, and drops its calls.
#define EC_FETCHING inline __attribute__((always_inline))

#define EC_UNROLL _Pragma("GCC unroll 16")

namespace ec {
namespace EC_ISA {

// Tiles take whole lines faster than anything else does. The second line of each pair is left to the
// processor, and what is fetched goes to the second cache: that leaves miss buffers to them.
#if defined(__AMX_TILE__)
constexpr bool kFetchPairs = true;
#else
constexpr bool kFetchPairs = false;
#endif
constexpr int64_t kLineBytes = kFetchPairs ? 128 : 64;

static EC_FETCHING void fetch(const void* at) { __builtin_prefetch(at, 0, kFetchPairs ? 2 : 3); }

// Row i of those to come, or row where there is none: what is fetched again is in the cache.
template <class Number>
static EC_FETCHING const Number* row_ahead(const RowsAhead& ahead, int64_t i, const Number* row) {
  return i < ahead.count ? static_cast<const Number*>(ahead.rows[i]) : row;
}

// Lines that lie one behind the other, so many of them to be fetched in each of the first steps of a loop.
struct LineRun {
  const char* at;
  int64_t steps, lines_a_step;
};

// The lines of rows to come, one after the other as memory has them, spread evenly over the steps of
// several loops: a line that is fetched occupies a miss buffer until it has come, and what finds none free
// waits, be it in the second cache or not.
class LinesAhead {
 public:
  LinesAhead(const RowsAhead& ahead, int64_t row_bytes, int64_t steps)
      : row_(ahead.rows), left_(ahead.count), row_bytes_(row_bytes) {
    const int64_t lines = left_ * ((row_bytes + kLineBytes - 1) / kLineBytes);
    pace_ = steps > 0 ? (lines * kWhole + steps - 1) / steps : 0;
    next_rows();
  }

  // Before a loop of so many steps.
  void add_steps(int64_t steps) { due_ += pace_ * steps; }
  // What the next steps of the loop fetch, no more than `steps`: of what lies in one piece. None: no steps.
  LineRun take(int64_t steps) {
    const int64_t left = (end_ - at_ + kLineBytes - 1) / kLineBytes;
    const int64_t lines = due_ / kWhole < left ? due_ / kWhole : left;
    if (lines <= 0 || steps <= 0) return {at_, 0, 0};
    const int64_t lines_a_step = (lines + steps - 1) / steps;
    const LineRun run{at_, lines / lines_a_step, lines_a_step};
    at_ += run.steps * lines_a_step * kLineBytes;
    due_ -= run.steps * lines_a_step * kWhole;
    if (at_ >= end_) next_rows();
    return run;
  }

 private:
  static constexpr int64_t kWhole = 64;  // a line, in parts

  // The next row, and those that begin where it ends.
  void next_rows() {
    if (left_ <= 0) {
      at_ = end_;
      pace_ = due_ = 0;
      return;
    }
    at_ = end_ = static_cast<const char*>(*row_);
    for (; left_ > 0 && static_cast<const char*>(*row_) == end_; ++row_, --left_) end_ += row_bytes_;
  }

  const void* const* row_;
  int64_t left_, row_bytes_;
  int64_t pace_, due_ = 0;  // parts of a line: of each step, and not yet fetched
  const char *at_ = nullptr, *end_ = nullptr;
};

static EC_FETCHING void fetch_lines(const LineRun& run, int64_t step) {
  const char* at = run.at + step * run.lines_a_step * kLineBytes;
  for (int64_t i = 0; i < run.lines_a_step; ++i) fetch(at + i * kLineBytes);
}

// Does step(i) for i below count, and fetches meanwhile.
template <class Step>
static EC_FETCHING void do_steps(int64_t count, LinesAhead& ahead, const Step& step) {
  int64_t i = 0;
  ahead.add_steps(count);
  for (LineRun run = ahead.take(count); run.steps > 0; run = ahead.take(count - i))
    for (int64_t k = 0; k < run.steps; ++k, ++i) {
      fetch_lines(run, k);
      step(i);
    }
  for (; i < count; ++i) step(i);
}

}  // namespace EC_ISA
}  // namespace ec
