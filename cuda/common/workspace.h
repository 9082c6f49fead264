// SPDX-License-Identifier: Apache-2.0
// Arrays of a workspace, and the kinds of numbers in arrays: what launches of every family need.
#pragma once

#include <cstddef>
#include <cstdint>

#include "capi/embedcore.h"
#include "common/numbers.cuh"

namespace ec::cuda {

inline int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Hands out arrays of a workspace one after another; without a start it only measures.
class Arena {
 public:
  explicit Arena(void* start) : start_(static_cast<unsigned char*>(start)) {}
  template <class T>
  T* take(int64_t count) {
    constexpr size_t kAlignment = 256;
    unsigned char* found = start_ == nullptr ? nullptr : start_ + used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(found);
  }
  void* take_bytes(size_t size) { return take<unsigned char>(static_cast<int64_t>(size)); }
  size_t used() const { return used_; }

 private:
  unsigned char* start_;
  size_t used_ = 0;
};

inline NumberKind kind_of(ec_dtype dtype) {
  switch (dtype) {
    case EC_FLOAT16:
      return NumberKind::kFloat16;
    case EC_BFLOAT16:
      return NumberKind::kBFloat16;
    case EC_FLOAT32:
      return NumberKind::kFloat32;
    default:
      return NumberKind::kFloat64;
  }
}

// Calls the body with a number of the kind, which is not float64.
template <class Body>
void with_numbers(NumberKind kind, const Body& body) {
  if (kind == NumberKind::kFloat32)
    body(float{});
  else if (kind == NumberKind::kFloat16)
    body(Half{});
  else
    body(BFloat{});
}

}  // namespace ec::cuda
