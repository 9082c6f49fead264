// SPDX-License-Identifier: Apache-2.0
// Products of whole panels, on processors that multiply tiles.
#pragma once

#include "product/product.h"

namespace ec {

constexpr int64_t kTurnedGroups = 16;  // groups of a row that lie side by side when a panel is turned

struct ProductTileKernels {
  // A panel's rows as lines, panel_rows times `groups` (rounded up to kTurnedGroups) words.
  void (*turn_panel)(const uint32_t* panel, int64_t groups, uint32_t* turned);
  // c[panel_rows][panel_rows] = a b', scaled, of a turned panel and one as it is packed.
  // Numerics: as product_bfloat and product_int8; column_bias is not used.
  void (*product_bfloat)(const uint32_t* turned, const uint32_t* b, int64_t groups,
                         const ProductScales& scales, float* c);
  void (*product_int8)(const uint32_t* turned, const uint32_t* b, int64_t groups,
                       const ProductScales& scales, float* c);
};

// Null where there are no tiles.
const ProductTileKernels* product_tiles_kernels(Isa isa);

}  // namespace ec
