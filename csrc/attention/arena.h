// SPDX-License-Identifier: Apache-2.0
// Many arrays in one allocation, each on its own cache lines.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/workspace.h"

namespace ec {

// Hands out arrays one after another from a base; without a base it only measures.
class Arena {
 public:
  Arena() = default;
  explicit Arena(unsigned char* base) : base_(base) {}

  // An array of count values; null while measuring.
  template <class T>
  T* take(int64_t count) {
    T* array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    int64_t bytes = 0;
    if (!multiply_sizes(count, static_cast<int64_t>(sizeof(T)), &bytes) || bytes > kLargest - used_)
      overflowed_ = true;
    else
      used_ += round_up(bytes, static_cast<int64_t>(kCacheLineBytes));
    return array;
  }

  bool overflowed() const { return overflowed_; }
  int64_t used() const { return used_; }

 private:
  static constexpr int64_t kLargest = int64_t{1} << 60;

  unsigned char* base_ = nullptr;
  int64_t used_ = 0;
  bool overflowed_ = false;
};

// Memory for several copies of what an arena has measured.
class ArenaMemory {
 public:
  bool allocate(const Arena& measured, int64_t copies) {
    copy_bytes_ = measured.used();
    int64_t bytes = 0;
    return !measured.overflowed() && multiply_sizes(copy_bytes_, copies, &bytes) && memory_.allocate(bytes);
  }
  Arena copy(int64_t i) { return Arena(memory_.data() + i * copy_bytes_); }

 private:
  NearBuffer<unsigned char, 16 << 10> memory_;
  int64_t copy_bytes_ = 0;
};

}  // namespace ec
