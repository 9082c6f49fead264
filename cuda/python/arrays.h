// SPDX-License-Identifier: Apache-2.0
// Arrays on a device as Python describes them: numbers only, so that no array library is named here.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <tuple>

#include "capi/embedcore_cuda.h"
#include "python/raise.h"

namespace ecpy {

// Address, rows, columns, elements between rows, dtype. What they say is Python's word (_device.py).
using MatrixNumbers = std::tuple<uintptr_t, int64_t, int64_t, int64_t, int>;

inline ec_matrix matrix_of(const MatrixNumbers& numbers) {
  const auto& [address, rows, columns, stride, dtype] = numbers;
  return {reinterpret_cast<const void*>(address), rows, columns, stride, static_cast<ec_dtype>(dtype)};
}

// Device and stream.
using PlaceNumbers = std::tuple<int, uintptr_t>;

inline ec_cuda_place place_of(const PlaceNumbers& numbers) {
  return {std::get<0>(numbers), reinterpret_cast<void*>(std::get<1>(numbers))};
}

template <class T>
T* pointer_of(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Starts kernels without the interpreter lock: a stream whose queue is full keeps the caller waiting.
template <class Call>
ec_status start_released(Call&& call) {
  const pybind11::gil_scoped_release released;
  return call();
}

// Starts kernels by call(place, error).
template <class Call>
void start(const char* where, const PlaceNumbers& numbers, Call&& call) {
  const ec_cuda_place place = place_of(numbers);
  ec_error error = {};
  const ec_status status = start_released([&] { return call(&place, &error); });
  check_status(where, status, error);
}

// Scratch memory by Python's allocate(bytes), which gives an address; it lives until the caller lets go.
inline void* allocated(const pybind11::object& allocate, int64_t bytes) {
  return pointer_of<void>(allocate(bytes).cast<uintptr_t>());
}

}  // namespace ecpy
