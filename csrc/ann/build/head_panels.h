// SPDX-License-Identifier: Apache-2.0
// Heads of coded rows packed for products/product.h: all pairs of two panels at a few instructions each.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/build/build.h"
#include "core/dispatch.h"
#include "product/product.h"

namespace ec {
namespace ann {

struct HeadPanels {
  std::vector<uint32_t> slots;    // packed rows, in order
  AlignedBuffer<uint32_t> words;  // [panels][groups][panel_rows]
  AlignedBuffer<float> scale;     // [padded rows]
  AlignedBuffer<int32_t> bias;
  AlignedBuffer<float> norm;  // of the padding infinite: no row is near it
  int64_t groups = 0;
  int64_t panels = 0;

  int64_t count() const { return static_cast<int64_t>(slots.size()); }
  const uint32_t* panel(int64_t i, const ProductKernels& product) const {
    return words.data() + i * groups * product.panel_rows;
  }
};

// Packs the first `numbers`, a multiple of 16, of the heads of panels->slots. Norms are those of the whole
// vectors. EC_INTERRUPTED, EC_OUT_OF_MEMORY.
ec_status pack_heads(const CodedRows& rows, int64_t numbers, const BuildOptions& options,
                     const ProductKernels& product, HeadPanels* panels);

}  // namespace ann
}  // namespace ec
