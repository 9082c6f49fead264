// SPDX-License-Identifier: Apache-2.0
// The element-wise step of spatial depth; see spatial.h.
#include "depth/spatial.h"

#include EC_ISA_HEADER
#include "core/isa_table.h"

namespace ec {
namespace EC_ISA {

constexpr int kPanelRows = kLanes * kTileVectors;

template <bool kSkipping>
static void weigh_tile(const SpatialTile& tile) {
  VF sums[kTileVectors], column_norm[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    sums[v] = load(tile.weight_sum + v * kLanes);
    column_norm[v] = load(tile.column_norm + v * kLanes);
  }
  for (int r = 0; r < kTileRows; ++r) {
    const VF row_norm = set1(tile.row_norm[r]), row_weight = set1(tile.row_weight[r]);
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      float* at = tile.c + r * kPanelRows + v * kLanes;
      const VF squared = fnma(set1(2.0f), load(at), add(row_norm, column_norm[v]));
      // The bound only keeps lanes finite whose weight is 0 or which are skipped.
      VF w = mul(row_weight, rsqrt(max(squared, set1(1e-30f))));
      if (kSkipping) {
        const unsigned lanes =
            static_cast<unsigned>((tile.skip[r] >> (v * kLanes)) & ((1u << kLanes) - 1u));
        w = zero_where(mask_from_bits(lanes), w);
      }
      store(at, w);
      sums[v] = add(sums[v], w);
    }
  }
  for (int v = 0; v < kTileVectors; ++v) store(tile.weight_sum + v * kLanes, sums[v]);
}

static void weigh(const SpatialTile& tile) {
  if (tile.skip != nullptr)
    weigh_tile<true>(tile);
  else
    weigh_tile<false>(tile);
}

static const SpatialKernels kTable = {weigh};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(SpatialKernels, spatial)
