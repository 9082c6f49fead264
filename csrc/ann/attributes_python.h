// SPDX-License-Identifier: Apache-2.0
// What the bindings of attributes share: NumPy arrays in and out, long work without the interpreter lock.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "ann/attributes/table.h"
#include "python/gil.h"
#include "python/raise.h"

namespace ecpy {

// A vector of T, seen in place.
template <class T>
class VectorView {
 public:
  VectorView() = default;
  VectorView(const T* data, int64_t size, pybind11::object owner)
      : data_(data), size_(size), owner_(std::move(owner)) {}
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  const pybind11::object& owner() const { return owner_; }

 private:
  const T* data_ = nullptr;
  int64_t size_ = 0;
  pybind11::object owner_;
};

// TypeError for what is no NumPy array of T, ValueError for another shape; a strided or misaligned array
// is copied. bool arrays are seen as uint8_t.
template <class T>
VectorView<T> view_vector_of(pybind11::handle object, const std::string& name, const char* dtype_name) {
  namespace py = pybind11;
  if (!py::isinstance<py::array>(object))
    raise_type("%s must be a NumPy array of %s; got %s.", name.c_str(), dtype_name,
               Py_TYPE(object.ptr())->tp_name);
  py::array array = py::reinterpret_borrow<py::array>(object);
  const bool boolean = sizeof(T) == 1 && array.dtype().kind() == 'b';
  const bool same = array.dtype().equal(py::dtype::of<T>()) || boolean ||
                    (sizeof(T) == 1 && array.dtype().itemsize() == 1 && array.dtype().kind() == 'u');
  if (!same)
    raise_type("%s must have dtype %s; got %s.", name.c_str(), dtype_name,
               std::string(py::str(array.dtype())).c_str());
  if (array.ndim() != 1)
    raise_value("%s must have one axis; got %d.", name.c_str(), static_cast<int>(array.ndim()));
  constexpr int kUsable = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array.flags() & kUsable) != kUsable)
    array = py::reinterpret_steal<py::array>(py::detail::npy_api::get().PyArray_NewCopy_(array.ptr(), 0));
  if (!array) throw py::error_already_set();
  const int64_t size = array.shape(0);
  const T* data = static_cast<const T*>(array.data());
  return {data, size, std::move(array)};
}

// A read-only array over memory that keep keeps.
template <class T>
pybind11::array array_over(const T* data, int64_t size, std::shared_ptr<const void> keep) {
  namespace py = pybind11;
  if (size == 0) return py::array(py::dtype::of<T>(), size);
  auto* held = new std::shared_ptr<const void>(std::move(keep));
  py::capsule base(held, [](void* p) { delete static_cast<std::shared_ptr<const void>*>(p); });
  py::array array(py::dtype::of<T>(), size, data, base);
  array.attr("setflags")(false);
  return array;
}

template <class T>
pybind11::array_t<T> new_array(int64_t size) {
  return pybind11::array_t<T>(size);
}

// Keeps a Python object until the last version that sees its memory is gone, on whatever thread.
inline std::shared_ptr<const void> keep_object(pybind11::object object) {
  return {static_cast<const void*>(object.release().ptr()), [](const void* p) {
            if (Py_IsInitialized() == 0) return;
            const PyGILState_STATE state = take_lock([] { return PyGILState_Ensure(); });
            Py_DECREF(static_cast<PyObject*>(const_cast<void*>(p)));
            PyGILState_Release(state);
          }};
}

// Runs call() without the interpreter lock; its exceptions are thrown on with the lock held.
template <class Call>
void released(Call&& call) {
  std::exception_ptr failure;
  without_gil([&] {
    try {
      call();
    } catch (...) {
      failure = std::current_exception();
    }
    return 0;
  });
  if (failure != nullptr) std::rethrow_exception(failure);
}

using TablePointer = std::shared_ptr<ec::ann::Table>;
// pybind11 holds no pointers to const; nothing here changes a table.
inline TablePointer as_holder(ec::ann::Table::Pointer table) {
  return std::const_pointer_cast<ec::ann::Table>(std::move(table));
}

// Live slots as searches have them: None, or one bit a slot.
VectorView<uint64_t> view_live(pybind11::handle live, int64_t rows);

pybind11::tuple column_values(const ec::ann::Table& table, const std::string& name, pybind11::handle slots);
pybind11::dict table_parts(const ec::ann::Table& table);
TablePointer table_from_parts(pybind11::dict parts, pybind11::object owner);

}  // namespace ecpy
