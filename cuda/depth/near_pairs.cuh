// SPDX-License-Identifier: Apache-2.0
// Pairs of unit rows whose product has lost the distance, measured anew from the rows as given.
//
// Which these are: split products are off by some 2^-18 / sqrt(d) + 2^-23 in c, what is not split by 2^-9 /
// sqrt(d). A distance is off by its slope there, 1 / chord, times that, and no linear correction takes it
// out where near pairs and others are summed together. At kStrictNearLimit chord is 0.045, which leaves
// errors below 1e-5 in a single distance of 384 columns; at kNearLimit it is 0.32, which leaves 3e-4, of
// which a corpus with a share of near pairs averages a part only: rows that are near one another have their
// errors in common. Nearer pairs would cost more than the documented bounds.
//
// A warp takes up to kNearTogether pairs of one row at once: the row is loaded once for all of them, and
// their loads are under way together.
#pragma once

#include "depth/unit_rows.cuh"

namespace ec::cuda {

constexpr int kNearTogether = 4;

// Columns [at, at + 4) of a row, zeros beyond its end; whole: four are loaded at once.
__device__ __forceinline__ void load_together(const AnyRows& rows, int64_t row, int at, bool whole,
                                              float (&to)[kTogether]) {
  if (!whole) {
#pragma unroll
    for (int k = 0; k < kTogether; ++k) to[k] = at + k < rows.columns ? rows.number(row, at + k) : 0.0f;
    return;
  }
  const int64_t place = row * rows.stride + at;
  if (rows.kind == NumberKind::kFloat32)
    load_four(static_cast<const float*>(rows.data) + place, to);
  else if (rows.kind == NumberKind::kFloat16)
    load_four(static_cast<const Half*>(rows.data) + place, to);
  else
    load_four(static_cast<const BFloat*>(rows.data) + place, to);
}
__device__ __forceinline__ bool loads_together(const AnyRows& rows) {
  const int64_t bytes = rows.kind == NumberKind::kFloat32 ? 16 : 8;
  return rows.columns % kTogether == 0 && rows.stride % kTogether == 0 &&
         reinterpret_cast<uintptr_t>(rows.data) % static_cast<uintptr_t>(bytes) == 0;
}

// |x - y|^2 or |x + y|^2 of unit rows, the smaller one, and which (sign of c).
struct MeasuredPair {
  float square, sign;
};

// Of row `row` and the first `count` others: lane p gets pair p. By a warp. Index: a number of rows.
template <int kPairs, class Index>
__device__ __forceinline__ MeasuredPair measure_pairs(const AnyRows& rows, Index row,
                                                      const Scaling& scaling, const AnyRows& others,
                                                      const Index (&other)[kPairs],
                                                      const Scaling (&scalings)[kPairs], int count,
                                                      int lane) {
  const bool whole = loads_together(rows), others_whole = loads_together(others);
  float minus[kPairs] = {}, plus[kPairs] = {};
#pragma unroll 1
  for (int at = lane * kTogether; at < static_cast<int>(rows.columns); at += kWarpColumns) {
    float x[kTogether], y[kPairs][kTogether];
    load_together(rows, row, at, whole, x);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) load_together(others, other[p], at, others_whole, y[p]);
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const float a = scaling.unit(x[k]);
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const float b = scalings[p].unit(y[p][k]);
        minus[p] += (a - b) * (a - b);
        plus[p] += (a + b) * (a + b);
      }
    }
  }
  MeasuredPair found = {0.0f, 1.0f};
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    if (p >= count) break;
    const float nearer = warp_sum(minus[p]), opposite = warp_sum(plus[p]);
    if (p == lane) found = nearer <= opposite ? MeasuredPair{nearer, 1.0f} : MeasuredPair{opposite, -1.0f};
  }
  return found;
}

}  // namespace ec::cuda
