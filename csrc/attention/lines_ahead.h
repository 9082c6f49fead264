// SPDX-License-Identifier: Apache-2.0
// Fetching the rows of the next block while this one is worked on; included by kernels only.
#pragma once

#include "attention/kernels.h"

namespace ec {
namespace EC_ISA {

constexpr int kLineBytes = 64;

// Cache lines of rows, one by one: each row of the list is walked before the next one.
class LinesAhead {
 public:
  LinesAhead(const RowsAhead& ahead, int64_t first, int64_t last)
      : rows_(ahead.rows),
        row_(first),
        last_(last < ahead.count ? last : ahead.count),
        bytes_(ahead.bytes) {
    if (row_ < last_) at_ = static_cast<const char*>(rows_[row_]);
    end_ = at_ + (row_ < last_ ? bytes_ : 0);
  }
  inline void fetch() {
    __builtin_prefetch(at_, 0, 2);
    at_ += kLineBytes;
    if (__builtin_expect(at_ >= end_, 0)) next();
  }

 private:
  void next() {
    if (row_ + 1 >= last_) {
      at_ = end_;  // stays here: the same line again costs nothing
      return;
    }
    at_ = static_cast<const char*>(rows_[++row_]);
    end_ = at_ + bytes_;
  }

  const void* const* rows_;
  int64_t row_, last_, bytes_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
};

}  // namespace EC_ISA
}  // namespace ec
