// SPDX-License-Identifier: Apache-2.0
// Arrays that versions of a column share: growing one leaves what older versions see as it is.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "core/workspace.h"

namespace ec::ann {

// The first size() elements of memory that has spare room behind them, or of borrowed memory. An
// element that some version sees is never written again, so that readers of one version and the
// writer of the next need no lock.
template <class T>
class SharedArray {
  static_assert(std::is_trivially_copyable<T>::value, "elements are copied as bytes");

 public:
  SharedArray() = default;

  // Somebody else's memory; keep keeps it.
  static SharedArray borrow(const T* data, int64_t size, std::shared_ptr<const void> keep) {
    SharedArray array;
    array.data_ = data;
    array.size_ = size;
    array.keep_ = std::move(keep);
    return array;
  }

  // New memory, to be filled through *elements before the array is shared.
  static SharedArray make(int64_t size, T** elements) { return with_room(size, size, elements); }

  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  const T& operator[](int64_t i) const { return data_[i]; }
  int64_t size_bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }

  // This array and count elements more, to be filled through *tail before it is shared. The spare
  // room goes to whoever asks first; everybody else gets a copy.
  SharedArray extended(int64_t count, T** tail) const {
    if (storage_ != nullptr && size_ + count <= storage_->elements.size()) {
      int64_t end = size_;
      if (storage_->used.compare_exchange_strong(end, size_ + count)) {
        SharedArray array = *this;
        array.size_ += count;
        *tail = storage_->elements.data() + size_;
        return array;
      }
    }
    const int64_t size = size_ + count;
    T* elements = nullptr;
    SharedArray array = with_room(size, size_ == 0 ? size : std::max(size, size_ + size_ / 2), &elements);
    if (size_ > 0) std::memcpy(elements, data_, static_cast<size_t>(size_bytes()));
    *tail = elements + size_;
    return array;
  }

  // A copy, to be changed through *elements before it is shared.
  SharedArray copied(T** elements) const {
    SharedArray array = make(size_, elements);
    if (size_ > 0) std::memcpy(*elements, data_, static_cast<size_t>(size_bytes()));
    return array;
  }

  // The first size elements. Requires: 0 <= size <= size().
  SharedArray shortened(int64_t size) const {
    SharedArray array = *this;
    array.size_ = size;
    return array;
  }

 private:
  struct Storage {
    AlignedBuffer<T> elements;
    std::atomic<int64_t> used{0};  // elements that some version has or had
  };

  static SharedArray with_room(int64_t size, int64_t room, T** elements) {
    auto storage = std::make_shared<Storage>();
    if (!storage->elements.allocate(room)) throw std::bad_alloc();
    storage->used.store(size, std::memory_order_relaxed);
    *elements = storage->elements.data();
    SharedArray array;
    array.data_ = *elements;
    array.size_ = size;
    array.storage_ = storage.get();
    array.keep_ = std::move(storage);
    return array;
  }

  const T* data_ = nullptr;
  int64_t size_ = 0;
  Storage* storage_ = nullptr;  // held by keep_; null for borrowed memory
  std::shared_ptr<const void> keep_;
};

}  // namespace ec::ann
