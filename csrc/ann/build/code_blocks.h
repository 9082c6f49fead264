// SPDX-License-Identifier: Apache-2.0
// Some coded rows made ready for the kernels of a build.
#pragma once

#include <cstdint>

#include "ann/build/build.h"
#include "ann/build/graph_kernels.h"
#include "core/workspace.h"

namespace ec {
namespace ann {

constexpr int64_t kColumnStep = 16;  // what kernels write and read whole

// (bits of a distance) << 32 | slot: in the order of distances that are not negative, ties by slot.
using Key = uint64_t;
inline uint32_t slot_of(Key key) { return static_cast<uint32_t>(key); }
inline float distance_of(Key key) {
  const uint32_t bits = static_cast<uint32_t>(key >> 32);
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// Left side of a block of distances.
class LeftBlock {
 public:
  bool allocate(int64_t capacity, const CodeShape& shape);
  void load(const CodedRows& rows, const uint32_t* slots, int64_t count, const GraphKernels& kernels);
  LeftCodes codes() const;

 private:
  AlignedBuffer<int8_t> bytes_;
  AlignedBuffer<float> factors_;  // [5][capacity]
  int64_t capacity_ = 0;
  int64_t head_bytes_ = 0;
  int64_t tail_bytes_ = 0;
};

// Right side. Rows may be dropped from it, so that what is left stays side by side.
class RightBlock {
 public:
  bool allocate(int64_t capacity);
  void load(const CodedRows& rows, const uint32_t* slots, int64_t count);
  // Row to becomes a copy of row from.
  void move(int64_t from, int64_t to);
  void pad(int64_t count);  // after moves: rows up to a multiple of kColumnStep
  RightCodes codes(int64_t first) const;

 private:
  AlignedBuffer<const uint8_t*> pointers_;  // [2][capacity]
  AlignedBuffer<float> factors_;            // [3][capacity]
  int64_t capacity_ = 0;
};

}  // namespace ann
}  // namespace ec
