// SPDX-License-Identifier: Apache-2.0
// Tiles of inner products to sums of distances; see pairwise.h.
//
// Numerics: distances in float32 (arc to 2.8e-7, the others correctly rounded but for c itself), added
// in float32 lanes that the driver empties into integers before they lose digits.
#include "depth/pairwise.h"

#include EC_ISA_HEADER
#include "core/isa_table.h"

namespace ec {
namespace EC_ISA {

constexpr int kPanelRows = kLanes * kTileVectors;
static_assert(kPanelRows <= 64, "a row of a tile has one bit a column in 64");

struct Chord {
  static inline VF distance(VF c, VF, VF) { return sqrt(max(zero(), fnma(set1(2.0f), c, set1(2.0f)))); }
};

struct Arc {
  static inline VF distance(VF c, VF, VF) {
    const VF size = min(abs(c), set1(1.0f));
    VF p = set1(kArcCoefficient[kArcDegree]);
#pragma GCC unroll 8
    for (int i = kArcDegree - 1; i >= 0; --i) p = fma(p, size, set1(kArcCoefficient[i]));
    const VF arc = mul(p, sqrt(sub(set1(1.0f), size)));
    return select(greater(zero(), c), sub(set1(static_cast<float>(kPi)), arc), arc);
  }
};

struct L2 {
  static inline VF distance(VF c, VF row_norm, VF column_norm) {
    return sqrt(max(zero(), fnma(set1(2.0f), c, add(row_norm, column_norm))));
  }
};

static bool near_unit(const float* c, float limit, uint64_t* near) {
  VF largest[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) largest[v] = zero();
  for (int r = 0; r < kTileRows; ++r)
    for (int v = 0; v < kTileVectors; ++v)
      largest[v] = max(largest[v], abs(load(c + r * kPanelRows + v * kLanes)));
  for (int v = 1; v < kTileVectors; ++v) largest[0] = max(largest[0], largest[v]);
  const VF bound = set1(limit);
  if (mask_bits(greater(largest[0], bound)) == 0) return false;
  for (int r = 0; r < kTileRows; ++r) {
    near[r] = 0;
    for (int v = 0; v < kTileVectors; ++v) {
      const VM close = greater(abs(load(c + r * kPanelRows + v * kLanes)), bound);
      near[r] |= static_cast<uint64_t>(mask_bits(close)) << (v * kLanes);
    }
  }
  return true;
}

static bool near_l2(const float* c, const float* row_norm, const float* column_norm, float limit,
                    uint64_t* near) {
  uint64_t any = 0;
  for (int r = 0; r < kTileRows; ++r) {
    near[r] = 0;
    const VF own = set1(row_norm[r]);
    for (int v = 0; v < kTileVectors; ++v) {
      const VF twice = add(load(c + r * kPanelRows + v * kLanes), load(c + r * kPanelRows + v * kLanes));
      const VF bound = mul(set1(limit), add(own, load(column_norm + v * kLanes)));
      near[r] |= static_cast<uint64_t>(mask_bits(greater(twice, bound))) << (v * kLanes);
    }
    any |= near[r];
  }
  return any != 0;
}

template <class Metric, bool kSymmetric, bool kCorrected, bool kSkipping>
static void reduce(const PairTile& tile) {
  VF column_sum[kTileVectors], column_dot[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    if (kSymmetric) column_sum[v] = load(tile.column_sum + v * kLanes);
    if (kSymmetric && kCorrected) column_dot[v] = load(tile.column_dot + v * kLanes);
  }
  for (int r = 0; r < kTileRows; ++r) {
    VF row_sum = load(tile.row_sum + r * kLanes);
    VF row_dot = kCorrected ? load(tile.row_dot + r * kLanes) : zero();
    const VF row_norm = tile.row_norm != nullptr ? set1(tile.row_norm[r]) : zero();
    const VF row_weight = kSymmetric ? set1(tile.row_weight[r]) : zero();
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      const VF column_norm = tile.column_norm != nullptr ? load(tile.column_norm + v * kLanes) : zero();
      const VF column_weight = load(tile.column_weight + v * kLanes);
      VF c = load(tile.c + r * kPanelRows + v * kLanes);
      VF distance = Metric::distance(c, row_norm, column_norm);
      if (kSkipping) {
        const unsigned lanes =
            static_cast<unsigned>((tile.skip[r] >> (v * kLanes)) & ((1u << kLanes) - 1u));
        const VM skipped = mask_from_bits(lanes);
        distance = zero_where(skipped, distance);
        c = zero_where(skipped, c);
      }
      row_sum = fma(column_weight, distance, row_sum);
      if (kCorrected) row_dot = fma(column_weight, c, row_dot);
      if (kSymmetric) column_sum[v] = fma(row_weight, distance, column_sum[v]);
      if (kSymmetric && kCorrected) column_dot[v] = fma(row_weight, c, column_dot[v]);
    }
    store(tile.row_sum + r * kLanes, row_sum);
    if (kCorrected) store(tile.row_dot + r * kLanes, row_dot);
  }
  for (int v = 0; v < kTileVectors; ++v) {
    if (kSymmetric) store(tile.column_sum + v * kLanes, column_sum[v]);
    if (kSymmetric && kCorrected) store(tile.column_dot + v * kLanes, column_dot[v]);
  }
}

#define EC_REDUCE_FORMS(Metric)                                                   \
  {                                                                               \
      {{reduce<Metric, false, false, false>, reduce<Metric, false, false, true>}, \
       {reduce<Metric, false, true, false>, reduce<Metric, false, true, true>}},  \
      {{reduce<Metric, true, false, false>, reduce<Metric, true, false, true>},   \
       {reduce<Metric, true, true, false>, reduce<Metric, true, true, true>}},    \
  }

static const PairwiseKernels kTable = {
    near_unit,
    near_l2,
    {EC_REDUCE_FORMS(Chord), EC_REDUCE_FORMS(Arc), EC_REDUCE_FORMS(L2)},
};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(PairwiseKernels, pairwise)
