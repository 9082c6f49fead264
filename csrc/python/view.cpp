// SPDX-License-Identifier: Apache-2.0
#include "python/view.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <new>
#include <string>

#include "python/raise.h"
#include "python/source.h"

namespace py = pybind11;

namespace ecpy {
namespace {

bool float_dtype(const dlpack::DataType& type, ec_dtype* dtype) {
  if (type.lanes != 1) return false;
  if (type.code == dlpack::kBfloat && type.bits == 16) {
    *dtype = EC_BFLOAT16;
    return true;
  }
  if (type.code != dlpack::kFloat) return false;
  switch (type.bits) {
    case 16:
      *dtype = EC_FLOAT16;
      return true;
    case 32:
      *dtype = EC_FLOAT32;
      return true;
    case 64:
      *dtype = EC_FLOAT64;
      return true;
    default:
      return false;
  }
}

dlpack::DataType dlpack_type(ec_dtype dtype) {
  const auto bits = static_cast<uint8_t>(dtype_bytes(dtype) * 8);
  return {dtype == EC_BFLOAT16 ? dlpack::kBfloat : dlpack::kFloat, bits, 1};
}

void check_axes(const Source& source, py::handle array, const Argument& argument, int least, int most) {
  if (source.axes >= least && source.axes <= most) return;
  const char* wanted = least != most ? "a 1-D or 2-D array"
                       : most == 1   ? "a 1-D array"
                                     : "a 2-D array of shape (rows, columns)";
  raise_value("%s: '%s' must be %s; got shape %s.", argument.where, argument.name, wanted,
              shape_text(array).c_str());
}

// True when the view can be of the memory itself: items on their own alignment, the last axis
// contiguous, rows a whole number of items apart.
bool usable_in_place(const Source& source, int64_t item_bytes) {
  if (reinterpret_cast<uintptr_t>(source.data) % static_cast<uintptr_t>(item_bytes) != 0) {
    return false;
  }
  if (source.axes == 1) {
    return source.shape[0] <= 1 || source.stride_bytes[0] % item_bytes == 0;
  }
  const bool contiguous = source.shape[1] <= 1 || source.stride_bytes[1] == item_bytes;
  return contiguous && (source.shape[0] <= 1 || source.stride_bytes[0] % item_bytes == 0);
}

int64_t item_count(const Source& source, int64_t item_bytes) {
  const int64_t columns = source.axes == 2 ? source.shape[1] : 1;
  int64_t count = 0;
  int64_t bytes = 0;
  if (!ec::multiply_sizes(source.shape[0], columns, &count) ||
      !ec::multiply_sizes(count, item_bytes, &bytes)) {
    throw std::bad_alloc();
  }
  return count;
}

template <int kItemBytes>
void pack_items(const Source& source, int64_t columns, unsigned char* out) {
  for (int64_t row = 0; row < source.shape[0]; ++row) {
    const char* item = source.data + row * source.stride_bytes[0];
    for (int64_t column = 0; column < columns; ++column) {
      std::memcpy(out, item, kItemBytes);
      out += kItemBytes;
      item += source.stride_bytes[1];
    }
  }
}

void pack(const Source& source, int64_t item_bytes, ec::AlignedBuffer<unsigned char>* packed) {
  const int64_t count = item_count(source, item_bytes);
  if (!packed->allocate(count * item_bytes)) throw std::bad_alloc();
  const int64_t columns = source.axes == 2 ? source.shape[1] : 1;
  switch (item_bytes) {
    case 1:
      return pack_items<1>(source, columns, packed->data());
    case 2:
      return pack_items<2>(source, columns, packed->data());
    case 4:
      return pack_items<4>(source, columns, packed->data());
    default:
      return pack_items<8>(source, columns, packed->data());
  }
}

template <class T>
bool widen(const unsigned char* in, int64_t count, int64_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, in + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    if (sizeof(T) == 8 && T(-1) > T(0) && value > T(INT64_MAX)) return false;
    out[i] = static_cast<int64_t>(value);
  }
  return true;
}

bool widen_all(const dlpack::DataType& type, const unsigned char* in, int64_t count, int64_t* out) {
  const bool is_signed = type.code == dlpack::kInt;
  switch (type.bits) {
    case 8:
      return is_signed ? widen<int8_t>(in, count, out) : widen<uint8_t>(in, count, out);
    case 16:
      return is_signed ? widen<int16_t>(in, count, out) : widen<uint16_t>(in, count, out);
    case 32:
      return is_signed ? widen<int32_t>(in, count, out) : widen<uint32_t>(in, count, out);
    default:
      return is_signed ? widen<int64_t>(in, count, out) : widen<uint64_t>(in, count, out);
  }
}

py::dtype numpy_dtype(ec_dtype dtype) {
  return dtype == EC_FLOAT64 ? py::dtype::of<double>() : py::dtype::of<float>();
}

bool c_contiguous(const Source& source, int64_t item_bytes) {
  if (source.axes == 0 || source.shape[0] == 0 || source.shape[1] == 0) return true;
  const int64_t columns = source.axes == 2 ? source.shape[1] : 1;
  if (source.axes == 2 && columns > 1 && source.stride_bytes[1] != item_bytes) return false;
  return source.shape[0] <= 1 || source.stride_bytes[0] == columns * item_bytes;
}

std::string wanted_shape(int axes, const std::array<int64_t, 2>& shape) {
  if (axes == 1) return "(" + std::to_string(shape[0]) + ",)";
  return "(" + std::to_string(shape[0]) + ", " + std::to_string(shape[1]) + ")";
}

}  // namespace

const char* dtype_name(ec_dtype dtype) {
  switch (dtype) {
    case EC_FLOAT16:
      return "float16";
    case EC_BFLOAT16:
      return "bfloat16";
    case EC_FLOAT32:
      return "float32";
    default:
      return "float64";
  }
}

int dtype_bytes(ec_dtype dtype) { return dtype == EC_FLOAT64 ? 8 : dtype == EC_FLOAT32 ? 4 : 2; }

ArrayView view_array(py::handle array, const Argument& argument, int least_axes, int most_axes) {
  Source source = open_source(array, argument);
  ArrayView view;
  ec_matrix& matrix = view.matrix_;
  if (!float_dtype(source.type, &matrix.dtype)) {
    raise_type("%s: '%s' must be float16, bfloat16, float32 or float64; got %s.", argument.where,
               argument.name, type_name(source.type).c_str());
  }
  check_axes(source, array, argument, least_axes, most_axes);
  const int64_t item_bytes = dtype_bytes(matrix.dtype);
  view.axes_ = source.axes;
  view.exchange_ = source.exchange;
  matrix.rows = source.shape[0];
  matrix.columns = source.axes == 2 ? source.shape[1] : 1;
  if (usable_in_place(source, item_bytes)) {
    matrix.data = source.data;
    matrix.row_stride = matrix.rows > 1 ? source.stride_bytes[0] / item_bytes : matrix.columns;
    view.owner_ = std::move(source.owner);
  } else {
    pack(source, item_bytes, &view.packed_);
    matrix.data = view.packed_.data();
    matrix.row_stride = matrix.columns;
  }
  return view;
}

IndexView view_indices(py::handle array, const Argument& argument) {
  Source source = open_source(array, argument);
  const dlpack::DataType& type = source.type;
  const bool integer = type.code == dlpack::kInt || type.code == dlpack::kUnsigned;
  if (!integer || type.lanes != 1 || type.bits < 8 || type.bits > 64) {
    raise_type("%s: '%s' must have an integer dtype; got %s.", argument.where, argument.name,
               type_name(type).c_str());
  }
  check_axes(source, array, argument, 1, 1);
  IndexView view;
  view.size_ = source.shape[0];
  const bool is_int64 = type.code == dlpack::kInt && type.bits == 64;
  if (is_int64 && c_contiguous(source, 8) && usable_in_place(source, 8)) {
    view.data_ = reinterpret_cast<const int64_t*>(source.data);
    view.owner_ = std::move(source.owner);
    return view;
  }
  ec::AlignedBuffer<unsigned char> packed;
  pack(source, type.bits / 8, &packed);
  if (!view.converted_.allocate(view.size_)) throw std::bad_alloc();
  if (!widen_all(type, packed.data(), view.size_, view.converted_.data())) {
    raise_value("%s: '%s' must hold values that int64 can hold; got %s values above 2**63 - 1.",
                argument.where, argument.name, type_name(type).c_str());
  }
  view.data_ = view.converted_.data();
  return view;
}

OutputView make_output(const dlpack::ExchangeApi* exchange, ec_dtype dtype, int axes,
                       std::array<int64_t, 2> shape) {
  OutputView output;
  if (exchange == nullptr) {
    const py::array::ShapeContainer sizes(shape.begin(), shape.begin() + axes);
    py::array array(numpy_dtype(dtype), sizes);
    output.data_ = array.mutable_data();
    output.object_ = std::move(array);
    return output;
  }
  dlpack::Tensor prototype = {};
  prototype.device = {dlpack::kCpu, 0};
  prototype.ndim = axes;
  prototype.dtype = dlpack_type(dtype);
  prototype.shape = shape.data();
  dlpack::VersionedTensor* tensor = nullptr;
  std::string message;
  const auto keep_message = [](void* context, const char* kind, const char* text) {
    *static_cast<std::string*>(context) = std::string(kind) + ": " + text;
  };
  if (exchange->allocate(&prototype, &tensor, &message, keep_message) != 0) {
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
    raise_value("the array's library could not allocate the result: %s", message.c_str());
  }
  output.data_ = static_cast<char*>(tensor->tensor.data) + tensor->tensor.byte_offset;
  void* object = nullptr;
  if (exchange->tensor_to_object(tensor, &object) != 0) throw py::error_already_set();
  output.object_ = py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
  return output;
}

OutputView view_output(py::handle array, const Argument& argument, ec_dtype dtype, int axes,
                       std::array<int64_t, 2> shape) {
  Source source = open_source(array, argument);
  ec_dtype found = EC_FLOAT16;
  if (!float_dtype(source.type, &found) || found != dtype) {
    raise_type("%s: '%s' must be %s; got %s.", argument.where, argument.name, dtype_name(dtype),
               type_name(source.type).c_str());
  }
  if (axes == 1) shape[1] = 1;
  if (source.axes != axes || source.shape[0] != shape[0] || source.shape[1] != shape[1]) {
    raise_value("%s: '%s' must have the shape %s; got shape %s.", argument.where, argument.name,
                wanted_shape(axes, shape).c_str(), shape_text(array).c_str());
  }
  const int64_t item_bytes = dtype_bytes(dtype);
  if (!c_contiguous(source, item_bytes) || !usable_in_place(source, item_bytes)) {
    raise_value("%s: '%s' must be C-contiguous and aligned; got a strided or misaligned array.",
                argument.where, argument.name);
  }
  if (!source.writable) {
    raise_value("%s: '%s' must be writable; got a read-only array.", argument.where, argument.name);
  }
  OutputView output;
  output.data_ = source.data;
  output.owner_ = std::move(source.owner);
  output.object_ = py::reinterpret_borrow<py::object>(array);
  return output;
}

}  // namespace ecpy
