// SPDX-License-Identifier: Apache-2.0
// One producer of memory, opened: what view.cpp makes views from.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "python/dlpack.h"
#include "python/view.h"

namespace ecpy {

constexpr int kMostAxes = 3;  // what any view may have

struct Source {
  char* data = nullptr;
  int axes = 0;
  std::array<int64_t, kMostAxes> shape = {1, 1, 1};         // of the first axes
  std::array<int64_t, kMostAxes> stride_bytes = {0, 0, 0};  // arbitrary for axes of size 0 and 1
  dlpack::DataType type = {0, 0, 1};
  bool writable = false;
  const dlpack::ExchangeApi* exchange = nullptr;
  Owner owner;
};

// Opens any kind of array. Throws TypeError for what is no array, is not on the CPU, requires grad
// or has a byte order, mask or dtype that no view can have. The dtype and the axes are the caller's
// to check: source.type may be any integer, float, complex or boolean type.
Source open_source(pybind11::handle array, const Argument& argument);

// "float32", "int64", ...
std::string type_name(const dlpack::DataType& type);

// "(3, 4)"
std::string shape_text(pybind11::handle array);

}  // namespace ecpy
