// SPDX-License-Identifier: Apache-2.0
#include "python/strided.h"

#include <cstring>
#include <new>

#include "python/raise.h"

namespace ecpy {
namespace {

// What arrays without items point to where their library gives none: a null pointer is an array that is
// not there.
alignas(64) unsigned char g_no_items[64];

bool read_dtype(const dlpack::DataType& type, ec_dtype* dtype) {
  if (type.lanes != 1) return false;
  if (type.code == dlpack::kBfloat && type.bits == 16) {
    *dtype = EC_BFLOAT16;
    return true;
  }
  *dtype = type.bits == 16 ? EC_FLOAT16 : type.bits == 32 ? EC_FLOAT32 : EC_FLOAT64;
  return type.code == dlpack::kFloat && (type.bits == 16 || type.bits == 32 || type.bits == 64);
}

int64_t size_bytes(const Source& source, int64_t item_bytes) {
  int64_t bytes = item_bytes;
  for (int axis = 0; axis < source.axes; ++axis)
    if (!ec::multiply_sizes(bytes, source.shape[axis], &bytes)) throw std::bad_alloc();
  return bytes;
}

void pack(const Source& source, int64_t item_bytes, unsigned char* to) {
  const auto& shape = source.shape;
  const auto& stride = source.stride_bytes;
  for (int64_t i = 0; i < shape[0]; ++i)
    for (int64_t j = 0; j < shape[1]; ++j)
      for (int64_t k = 0; k < shape[2]; ++k) {
        std::memcpy(to, source.data + i * stride[0] + j * stride[1] + k * stride[2],
                    static_cast<size_t>(item_bytes));
        to += item_bytes;
      }
}

}  // namespace

bool StridedView::c_contiguous() const {
  for (int axis = 0; axis < axes(); ++axis)
    if (shape(axis) == 0) return true;
  int64_t expected = 1;
  for (int axis = axes() - 1; axis >= 0; --axis) {
    if (shape(axis) > 1 && stride(axis) != expected) return false;
    expected *= shape(axis);
  }
  return true;
}

StridedView view_strided(pybind11::handle array, const Argument& argument, LastAxis last) {
  StridedView view;
  view.source_ = open_source(array, argument);
  Source& source = view.source_;
  view.bool_ = source.type.code == dlpack::kBool && source.type.bits == 8;
  if (!view.bool_ && !read_dtype(source.type, &view.dtype_))
    raise_type("%s: '%s' must be float16, bfloat16, float32 or float64; got %s.", argument.where,
               argument.name, type_name(source.type).c_str());
  if (source.axes < 1 || source.axes > kMostAxes)
    raise_value("%s: '%s' must be an array of 1 to 3 axes; got shape %s.", argument.where, argument.name,
                shape_text(array).c_str());
  const int64_t item_bytes = source.type.bits / 8;
  bool in_place = reinterpret_cast<uintptr_t>(source.data) % static_cast<uintptr_t>(item_bytes) == 0;
  for (int axis = 0; axis < source.axes; ++axis) {
    if (source.shape[axis] <= 1) source.stride_bytes[axis] = 0;
    if (source.stride_bytes[axis] % item_bytes != 0) in_place = false;
    view.stride_[axis] = source.stride_bytes[axis] / item_bytes;
  }
  const int end = source.axes - 1;
  if (last == LastAxis::kContiguous && source.shape[end] > 1 && view.stride_[end] != 1) in_place = false;
  view.data_ = source.data == nullptr ? g_no_items : static_cast<void*>(source.data);
  if (in_place) return view;
  if (!view.packed_.allocate(size_bytes(source, item_bytes))) throw std::bad_alloc();
  pack(source, item_bytes, view.packed_.data());
  view.data_ = view.packed_.data();
  int64_t step = 1;
  for (int axis = end; axis >= 0; --axis) {
    view.stride_[axis] = source.shape[axis] <= 1 ? 0 : step;
    step *= source.shape[axis];
  }
  return view;
}

std::string shape_text(const StridedView& view) {
  std::string text = "(";
  for (int axis = 0; axis < view.axes(); ++axis)
    text += (axis > 0 ? ", " : "") + std::to_string(view.shape(axis));
  return text + (view.axes() == 1 ? ",)" : ")");
}

}  // namespace ecpy
