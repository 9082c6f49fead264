// SPDX-License-Identifier: Apache-2.0
// Reproducible numbers, and arrays of every dtype to and from double, by arithmetic instead of on bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "embedcore.h"

namespace numbers {

// A 16-bit format: bits of its fraction, and the exponent of its least normal number.
struct Format {
  int fraction;
  int least;
  uint32_t infinity;
};
constexpr Format kHalf = {10, -14, 0x7c00u};
constexpr Format kBfloat = {7, -126, 0x7f80u};

// The nearest number of the format, ties to even.
inline uint16_t nearest(const Format& format, double value) {
  const uint32_t sign = std::signbit(value) ? 0x8000u : 0u;
  if (std::isnan(value)) return static_cast<uint16_t>(format.infinity + 1);
  if (std::isinf(value)) return static_cast<uint16_t>(sign | format.infinity);
  int exponent = 0;
  const bool zero = std::frexp(value, &exponent) == 0.0;
  exponent = zero ? format.least : std::max(exponent - 1, format.least);
  // A carry out of the fraction goes to the exponent, and from the largest number to infinity.
  const double steps = std::nearbyint(std::ldexp(std::fabs(value), format.fraction - exponent));
  const double bits = std::ldexp(exponent - format.least, format.fraction) + steps;
  return static_cast<uint16_t>(sign |
                               (bits < format.infinity ? static_cast<uint32_t>(bits) : format.infinity));
}

inline double value_of(const Format& format, uint16_t bits) {
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude > format.infinity) return std::numeric_limits<double>::quiet_NaN();
  const int exponent = static_cast<int>(magnitude >> format.fraction);
  const int fraction = static_cast<int>(magnitude & ((1u << format.fraction) - 1));
  const int scale = format.least - format.fraction;
  const double value = magnitude == format.infinity ? std::numeric_limits<double>::infinity()
                       : exponent == 0
                           ? std::ldexp(fraction, scale)
                           : std::ldexp(fraction + (1 << format.fraction), scale + exponent - 1);
  return (bits & 0x8000u) != 0 ? -value : value;
}

inline int64_t size_of(ec_dtype dtype) { return dtype == EC_FLOAT64 ? 8 : dtype == EC_FLOAT32 ? 4 : 2; }

// An array in memory that ends where its numbers end.
struct Array {
  ec_dtype dtype = EC_FLOAT32;
  std::vector<unsigned char> bytes;

  Array() = default;
  Array(ec_dtype type, int64_t count) : dtype(type), bytes(static_cast<size_t>(count * size_of(type))) {}
  Array(ec_dtype type, const std::vector<double>& values)
      : Array(type, static_cast<int64_t>(values.size())) {
    for (size_t i = 0; i < values.size(); ++i) set(i, values[i]);
  }

  size_t size() const { return bytes.size() / static_cast<size_t>(size_of(dtype)); }
  void* data() { return bytes.data(); }

  void set(size_t i, double value) {
    const float single = static_cast<float>(value);
    const uint16_t bits = dtype == EC_FLOAT16 || dtype == EC_BFLOAT16
                              ? nearest(dtype == EC_FLOAT16 ? kHalf : kBfloat, value)
                              : uint16_t{0};
    const void* from = dtype == EC_FLOAT64   ? static_cast<const void*>(&value)
                       : dtype == EC_FLOAT32 ? static_cast<const void*>(&single)
                                             : static_cast<const void*>(&bits);
    const auto size = static_cast<size_t>(size_of(dtype));
    std::memcpy(bytes.data() + i * size, from, size);
  }

  double operator[](size_t i) const {
    const unsigned char* from = bytes.data() + i * static_cast<size_t>(size_of(dtype));
    double value = 0.0;
    float single = 0.0f;
    uint16_t bits = 0;
    if (dtype == EC_FLOAT64) {
      std::memcpy(&value, from, sizeof value);
      return value;
    }
    if (dtype == EC_FLOAT32) {
      std::memcpy(&single, from, sizeof single);
      return static_cast<double>(single);
    }
    std::memcpy(&bits, from, sizeof bits);
    return value_of(dtype == EC_FLOAT16 ? kHalf : kBfloat, bits);
  }
};

// Multiples of 1/64 in (-1, 1): exact in every dtype.
class Source {
 public:
  explicit Source(uint64_t seed) : state_(seed * 2654435761u + 1) {}
  double next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(static_cast<int64_t>((state_ >> 33) % 127) - 63) / 64.0;
  }
  std::vector<double> some(int64_t count) {
    std::vector<double> values(static_cast<size_t>(count));
    for (double& value : values) value = next();
    return values;
  }

 private:
  uint64_t state_;
};

}  // namespace numbers
