// SPDX-License-Identifier: Apache-2.0
// Arrays of up to three axes with any strides, for kernels that follow them.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <string>

#include "capi/embedcore.h"
#include "core/workspace.h"
#include "python/source.h"
#include "python/view.h"

namespace ecpy {

enum class LastAxis { kAny, kContiguous };

class StridedView {
 public:
  int axes() const { return source_.axes; }
  int64_t shape(int axis) const { return source_.shape[axis]; }
  // Elements; 0 for an axis of one item, so that it is broadcast.
  int64_t stride(int axis) const { return stride_[axis]; }
  void* data() const { return data_; }  // not null, even where there are no items
  ec_dtype dtype() const { return dtype_; }
  bool is_bool() const { return bool_; }
  bool writable() const { return source_.writable && packed_.size() == 0; }
  bool c_contiguous() const;

 private:
  friend StridedView view_strided(pybind11::handle, const Argument&, LastAxis);

  Source source_;
  std::array<int64_t, kMostAxes> stride_ = {0, 0, 0};
  void* data_ = nullptr;
  ec_dtype dtype_ = EC_FLOAT32;
  bool bool_ = false;
  ec::AlignedBuffer<unsigned char> packed_;
};

// A floating-point or boolean array of one to three axes. Misaligned memory and, for kContiguous, a last
// axis that is not contiguous are copied into scratch. TypeError for another dtype, ValueError for
// another number of axes.
StridedView view_strided(pybind11::handle array, const Argument& argument, LastAxis last = LastAxis::kAny);

// "(3, 4)"
std::string shape_text(const StridedView& view);

}  // namespace ecpy
