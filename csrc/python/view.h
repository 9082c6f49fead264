// SPDX-License-Identifier: Apache-2.0
// The only file that knows Python memory: any array kind becomes a view that the C ABI takes.
//
// NumPy arrays (with ml_dtypes.bfloat16), types with the DLPack C exchange API (Torch), objects
// with __dlpack__, and objects with the buffer protocol are seen in place. Copied into scratch are
// only arrays whose last axis is not contiguous, and misaligned ones. A view keeps its producer
// alive.
//
// Requires for all of it: the GIL, also for the destruction of a view. The data may be read
// without.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <utility>

#include "capi/embedcore.h"
#include "core/workspace.h"
#include "python/dlpack.h"

namespace ecpy {

// Whose array an error speaks of: "depth.score", "x".
struct Argument {
  const char* where;
  const char* name;
  bool may_require_grad = false;  // the caller sees to gradients itself
};

// Keeps alive what a view points into.
class Owner {
 public:
  Owner() = default;
  explicit Owner(pybind11::object object) : object_(std::move(object)) {}
  explicit Owner(dlpack::VersionedTensor* tensor) : versioned_(tensor) {}
  explicit Owner(dlpack::ManagedTensor* tensor) : managed_(tensor) {}
  Owner(Owner&& other) noexcept { swap(other); }
  Owner& operator=(Owner&& other) noexcept {
    swap(other);
    return *this;
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() {
    if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
    if (managed_ != nullptr && managed_->deleter != nullptr) managed_->deleter(managed_);
  }

 private:
  void swap(Owner& other) noexcept {
    std::swap(object_, other.object_);
    std::swap(versioned_, other.versioned_);
    std::swap(managed_, other.managed_);
  }

  pybind11::object object_;
  dlpack::VersionedTensor* versioned_ = nullptr;
  dlpack::ManagedTensor* managed_ = nullptr;
};

// Rows of floating-point numbers, one or two axes.
class ArrayView {
 public:
  // A vector of n values is seen as n rows of one column.
  const ec_matrix& matrix() const { return matrix_; }
  int axes() const { return axes_; }
  int64_t rows() const { return matrix_.rows; }
  int64_t columns() const { return matrix_.columns; }
  ec_dtype dtype() const { return matrix_.dtype; }
  bool packed() const { return packed_.size() > 0; }  // a copy in scratch is seen, not the array

  // The dtype of results: float64 for float64, else float32.
  ec_dtype result_dtype() const { return dtype() == EC_FLOAT64 ? EC_FLOAT64 : EC_FLOAT32; }

  // The table of the array's own library, null for NumPy and for kinds that get NumPy results.
  const dlpack::ExchangeApi* exchange() const { return exchange_; }

 private:
  friend ArrayView view_array(pybind11::handle, const Argument&, int, int);

  ec_matrix matrix_ = {nullptr, 0, 0, 0, EC_FLOAT32};
  int axes_ = 0;
  const dlpack::ExchangeApi* exchange_ = nullptr;
  ec::AlignedBuffer<unsigned char> packed_;
  Owner owner_;
};

// TypeError for another kind, dtype or device, ValueError for another number of axes.
ArrayView view_array(pybind11::handle array, const Argument& argument, int least_axes, int most_axes);

inline ArrayView view_matrix(pybind11::handle array, const Argument& argument) {
  return view_array(array, argument, 2, 2);
}
inline ArrayView view_vector(pybind11::handle array, const Argument& argument) {
  return view_array(array, argument, 1, 1);
}

// A vector of integers of any width, seen as contiguous int64 (copied unless it is that already).
class IndexView {
 public:
  const int64_t* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  friend IndexView view_indices(pybind11::handle, const Argument&);

  const int64_t* data_ = nullptr;
  int64_t size_ = 0;
  ec::AlignedBuffer<int64_t> converted_;
  Owner owner_;
};

// TypeError for another kind, dtype or device, ValueError for another number of axes or a value
// that int64 does not hold.
IndexView view_indices(pybind11::handle array, const Argument& argument);

// Memory for a result, C-contiguous.
class OutputView {
 public:
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  // What the Python caller gets.
  pybind11::object& object() { return object_; }

 private:
  friend OutputView make_output(const dlpack::ExchangeApi*, ec_dtype, int, std::array<int64_t, 2>);
  friend OutputView view_output(pybind11::handle, const Argument&, ec_dtype, int, std::array<int64_t, 2>);

  void* data_ = nullptr;
  pybind11::object object_;
  Owner owner_;
};

// A new array of the kind that exchange belongs to, NumPy where it is null; uninitialised.
OutputView make_output(const dlpack::ExchangeApi* exchange, ec_dtype dtype, int axes,
                       std::array<int64_t, 2> shape);

// The user's own array: TypeError for another kind, dtype or device, ValueError for another shape,
// and for memory that is not C-contiguous or not writable.
OutputView view_output(pybind11::handle array, const Argument& argument, ec_dtype dtype, int axes,
                       std::array<int64_t, 2> shape);

// out= as users give it: theirs when it is not None, else a new array of the kind of like.
inline OutputView open_output(pybind11::handle out, const Argument& argument, const ArrayView& like,
                              ec_dtype dtype, int axes, std::array<int64_t, 2> shape) {
  return out.is_none() ? make_output(like.exchange(), dtype, axes, shape)
                       : view_output(out, argument, dtype, axes, shape);
}

const char* dtype_name(ec_dtype dtype);
int dtype_bytes(ec_dtype dtype);

}  // namespace ecpy
