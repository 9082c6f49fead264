// SPDX-License-Identifier: Apache-2.0
// Scratch memory for drivers: aligned, never throwing. Kernels allocate nothing.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <type_traits>
#include <utility>

namespace ec {

constexpr size_t kCacheLineBytes = 64;
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr int64_t kHugeBytes = int64_t{8} << 20;  // from here on huge pages are asked for

// Fewer page faults and address translations; no more than a hint.
inline void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__)
  if (data != nullptr) madvise(data, bytes, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

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
    if (bytes > INT64_MAX - static_cast<int64_t>(kHugePageBytes)) return false;
    const size_t alignment = bytes >= kHugeBytes ? kHugePageBytes : kCacheLineBytes;
    bytes = round_up(bytes > 0 ? bytes : 1, static_cast<int64_t>(alignment));
    data_ = static_cast<T*>(std::aligned_alloc(alignment, static_cast<size_t>(bytes)));
    if (alignment == kHugePageBytes) advise_huge_pages(data_, static_cast<size_t>(bytes));
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

// Aligned memory that lies in the object itself up to kNearBytes: where a whole call takes a microsecond,
// half of it would be the heap's.
template <class T, int64_t kNearBytes>
class NearBuffer {
  static_assert(std::is_trivially_copyable<T>::value, "values are neither made nor destroyed");

 public:
  NearBuffer() = default;
  NearBuffer(const NearBuffer&) = delete;
  NearBuffer& operator=(const NearBuffer&) = delete;

  // As that of AlignedBuffer.
  bool allocate(int64_t count) {
    data_ = nullptr;
    size_ = 0;
    if (count >= 0 && count <= kNearBytes / static_cast<int64_t>(sizeof(T))) {
      data_ = reinterpret_cast<T*>(near_);
    } else {
      if (!far_.allocate(count)) return false;
      data_ = far_.data();
    }
    size_ = count;
    return true;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  alignas(kCacheLineBytes) unsigned char near_[kNearBytes];
  AlignedBuffer<T> far_;
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace ec
