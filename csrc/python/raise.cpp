// SPDX-License-Identifier: Apache-2.0
#include "python/raise.h"

#include <cstdarg>
#include <cstring>

namespace py = pybind11;

namespace ecpy {

void raise_error(const char* where, ec_status status, const ec_error& error) {
  PyObject* type = PyExc_RuntimeError;
  switch (status) {
    case EC_INTERRUPTED:
      if (PyErr_Occurred() != nullptr) throw py::error_already_set();
      PyErr_Format(PyExc_RuntimeError, "%s: the call was interrupted", where);
      throw py::error_already_set();
    case EC_INVALID_VALUE:
      type = PyExc_ValueError;
      break;
    case EC_INVALID_TYPE:
      type = PyExc_TypeError;
      break;
    case EC_OUT_OF_MEMORY:
      type = PyExc_MemoryError;
      break;
    case EC_UNSUPPORTED:
      type = PyExc_NotImplementedError;
      break;
    default:
      break;
  }
  const size_t length = std::strlen(error.message);
  const char* end = length > 0 && error.message[length - 1] == '.' ? "" : ".";
  PyErr_Format(type, "%s: %s%s", where, error.message, end);
  throw py::error_already_set();
}

void raise_type(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  PyErr_FormatV(PyExc_TypeError, format, arguments);
  va_end(arguments);
  throw py::error_already_set();
}

void raise_value(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  PyErr_FormatV(PyExc_ValueError, format, arguments);
  va_end(arguments);
  throw py::error_already_set();
}

}  // namespace ecpy
