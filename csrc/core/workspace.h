// SPDX-License-Identifier: Apache-2.0
// Scratch memory for drivers: aligned, never throwing. Kernels allocate nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <type_traits>
#include <utility>

namespace ec {

constexpr size_t kCacheLineBytes = 64;

// *product = a * b and *sum = a + b. False when one of them is negative or the result does not fit;
// what is stored then means nothing.
inline bool multiply_sizes(int64_t a, int64_t b, int64_t* product) {
  return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, product);
}
inline bool add_sizes(int64_t a, int64_t b, int64_t* sum) {
  return a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, sum);
}

// value rounded up to a multiple of step. Requires: 0 <= value <= INT64_MAX - step, step > 0.
inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Uninitialised memory for count values of T that starts on a cache line and is padded to whole
// ones.
template <class T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable<T>::value, "values are neither made nor destroyed");
  static_assert(alignof(T) <= kCacheLineBytes, "a cache line is the alignment given");

 public:
  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { std::free(data_); }

  // Replaces the memory; the old values are lost. False when count is negative, when the size
  // overflows or when there is not enough memory; the buffer is empty then.
  bool allocate(int64_t count) {
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
    int64_t bytes = 0;
    if (!multiply_sizes(count, static_cast<int64_t>(sizeof(T)), &bytes)) return false;
    if (bytes > INT64_MAX - static_cast<int64_t>(kCacheLineBytes)) return false;
    bytes = round_up(bytes > 0 ? bytes : 1, static_cast<int64_t>(kCacheLineBytes));
    data_ = static_cast<T*>(std::aligned_alloc(kCacheLineBytes, static_cast<size_t>(bytes)));
    if (data_ == nullptr) return false;
    size_ = count;
    return true;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

  void swap(AlignedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace ec
