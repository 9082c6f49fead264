// SPDX-License-Identifier: Apache-2.0
// Fetching the rows of the next block while this one is worked on; included by kernels only.
#pragma once

#include "attention/kernels.h"

namespace ec {
namespace EC_ISA {

constexpr int kLineBytes = 64;

// Cache lines of rows, row by row, a few at each step of other work.
class LinesAhead {
 public:
  // The rows [first, last) of the list, to be fetched within `steps` calls of fetch().
  LinesAhead(const RowsAhead& ahead, int64_t first, int64_t last, int64_t steps)
      : rows_(ahead.rows),
        row_(first),
        last_(last < ahead.count ? last : ahead.count),
        bytes_(ahead.bytes) {
    if (row_ >= last_) return;
    const int64_t lines = (last_ - row_) * ((bytes_ + kLineBytes - 1) / kLineBytes);
    each_ = steps > 0 ? (lines + steps - 1) / steps : 0;
    begin_row();
  }

  inline void fetch() {
    for (int64_t i = 0; i < each_; ++i) {
      __builtin_prefetch(at_, 0, 3);
      at_ += kLineBytes;
      if (__builtin_expect(at_ >= end_, 0)) next_row();
    }
  }

 private:
  void begin_row() {
    at_ = static_cast<const char*>(rows_[row_]);
    end_ = at_ + bytes_;
  }
  void next_row() {
    if (++row_ < last_)
      begin_row();
    else
      each_ = 0;
  }

  const void* const* rows_;
  int64_t row_, last_, bytes_;
  int64_t each_ = 0;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
};

}  // namespace EC_ISA
}  // namespace ec
