// SPDX-License-Identifier: Apache-2.0
// The corpus in order of groups, cut into segments that lie in one group each: the shares of blocks. A
// position counts in that order, a row in the caller's array.
#pragma once

#include "common/warp.cuh"
#include "depth/groups.cuh"

namespace ec::cuda {

struct Segment {
  int64_t begin, end;  // positions
  int64_t group;
};

// How groups are cut: into parts of at most most_units units of rows, even to one unit; an empty group is
// one empty segment.
struct Cut {
  int64_t unit, most_units;

  __host__ __device__ int64_t units(int64_t rows) const { return (rows + unit - 1) / unit; }
  __host__ __device__ int64_t segments(int64_t rows) const {
    return max(int64_t{1}, (units(rows) + most_units - 1) / most_units);
  }
};

// All segments. One group has no arrays: its segments are counted out.
struct Segments {
  Segment* all;    // [count], or null
  int64_t* first;  // [groups + 1], of each group, or null
  Cut cut;
  int64_t rows, count;

  __device__ Segment segment(int64_t number) const {
    if (all != nullptr) return all[number];
    const int64_t units = cut.units(rows);
    return {units * number / count * cut.unit, min(rows, units * (number + 1) / count * cut.unit), 0};
  }
  __device__ int64_t begin(int64_t group) const { return first == nullptr ? 0 : first[group]; }
  __device__ int64_t end(int64_t group) const { return first == nullptr ? count : first[group + 1]; }
};

// Depths [row][group], double where x is float64.
struct Depths {
  void* to;
  bool wide;
  int64_t groups;

  __device__ void store(int64_t row, int64_t group, double depth) const {
    const int64_t at = row * groups + group;
    if (wide)
      static_cast<double*>(to)[at] = depth;
    else
      static_cast<float*>(to)[at] = static_cast<float>(depth);
  }
};

}  // namespace ec::cuda
