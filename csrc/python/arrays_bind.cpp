// SPDX-License-Identifier: Apache-2.0
// The views as Python sees them: for tests, and for Python code that makes results.
#include <pybind11/pybind11.h>

#include <cstring>
#include <string_view>

#include "python/view.h"

namespace py = pybind11;

namespace {

py::dict describe(py::handle array, const char* where, const char* name) {
  const ecpy::ArrayView view = ecpy::view_array(array, {where, name}, 1, 2);
  const ec_matrix& matrix = view.matrix();
  py::dict result;
  result["data"] = reinterpret_cast<uintptr_t>(matrix.data);
  result["rows"] = matrix.rows;
  result["columns"] = matrix.columns;
  result["row_stride"] = matrix.row_stride;
  result["dtype"] = ecpy::dtype_name(matrix.dtype);
  result["axes"] = view.axes();
  result["packed"] = view.packed();
  // What the view reads, row by row, as raw bytes: independent of strides.
  const auto row_bytes = static_cast<size_t>(matrix.columns * ecpy::dtype_bytes(matrix.dtype));
  const auto* data = static_cast<const char*>(matrix.data);
  py::list rows;
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const int64_t offset = row * matrix.row_stride * ecpy::dtype_bytes(matrix.dtype);
    rows.append(py::bytes(data + offset, row_bytes));
  }
  result["row_bytes"] = rows;
  return result;
}

py::list describe_indices(py::handle array, const char* where, const char* name) {
  const ecpy::IndexView view = ecpy::view_indices(array, {where, name});
  py::list result;
  for (int64_t i = 0; i < view.size(); ++i) result.append(view.data()[i]);
  return result;
}

ec_dtype result_dtype(const char* name) {
  return std::string_view(name) == "float64" ? EC_FLOAT64 : EC_FLOAT32;
}

// The shape of like, of its kind; filled with zeros so that no test reads uninitialised memory.
py::object output_like(py::handle like, py::handle out, const char* where, const char* dtype) {
  const ecpy::ArrayView view = ecpy::view_array(like, {where, "x"}, 1, 2);
  const ec_dtype kind = result_dtype(dtype);
  ecpy::OutputView output =
      ecpy::open_output(out, {where, "out"}, view, kind, view.axes(), {view.rows(), view.columns()});
  const auto bytes = static_cast<size_t>(view.rows() * view.columns() * ecpy::dtype_bytes(kind));
  if (bytes > 0) std::memset(output.data(), 0, bytes);
  return output.object();
}

void touch(py::handle array) { ecpy::view_array(array, {"touch", "x"}, 1, 2); }

}  // namespace

void register_arrays(py::module_& module) {
  module.def("_describe", &describe, py::arg("array"), py::arg("where"), py::arg("name"));
  module.def("_describe_indices", &describe_indices, py::arg("array"), py::arg("where"), py::arg("name"));
  module.def("_output_like", &output_like, py::arg("like"), py::arg("out"), py::arg("where"),
             py::arg("dtype"));
  module.def("_touch", &touch, py::arg("array"));
}
