// SPDX-License-Identifier: Apache-2.0
#include "ann/build/head_panels.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/parallel.h"

namespace ec {
namespace ann {

namespace {

// One number of a head where a group of 32 bits holds int8 numbers, or int16 ones.
void put_number(uint32_t* word, int64_t within, int group, int number) {
  if (group == 4) {
    reinterpret_cast<int8_t*>(word)[within] = static_cast<int8_t>(number);
  } else {
    reinterpret_cast<int16_t*>(word)[within] = static_cast<int16_t>(number);
  }
}

void pack_row(const uint8_t* head, int64_t numbers, const ProductKernels& product, uint32_t* words,
              int32_t* sum) {
  *sum = 0;
  if (product.int8_group == 4) {
    for (int64_t k = 0; k < numbers; k += 4, words += product.panel_rows) {
      uint32_t word;
      std::memcpy(&word, head + k, sizeof(word));
      *words = word ^ 0x80808080u;
    }
  } else {
    for (int64_t k = 0; k < numbers; ++k) {
      put_number(words + k / 2 * product.panel_rows, k % 2, product.int8_group, head[k] - 128);
    }
  }
  for (int64_t k = 0; k < numbers; ++k) *sum += head[k];
  *sum -= static_cast<int32_t>(128 * numbers);
}

}  // namespace

ec_status pack_heads(const CodedRows& rows, int64_t numbers, const BuildOptions& options,
                     const ProductKernels& product, HeadPanels* panels) {
  panels->groups = numbers / product.int8_group;
  panels->panels = (panels->count() + product.panel_rows - 1) / product.panel_rows;
  const int64_t padded = panels->panels * product.panel_rows;
  if (!panels->words.allocate(padded * panels->groups) || !panels->scale.allocate(padded) ||
      !panels->bias.allocate(padded) || !panels->norm.allocate(padded)) {
    return EC_OUT_OF_MEMORY;
  }
  return parallel_for(panels->panels, options.threads, options.monitor, [&](int64_t p, int /*worker*/) {
    uint32_t* words = panels->words.data() + p * panels->groups * product.panel_rows;
    for (int64_t i = 0; i < product.panel_rows; ++i) {
      const int64_t at = p * product.panel_rows + i;
      const bool real = at < panels->count();
      const int64_t slot = real ? panels->slots[at] : panels->slots.back();
      const uint8_t* head = rows.heads + slot * rows.shape.head_bytes;
      int32_t sum = 0;
      pack_row(head, numbers, product, words + i, &sum);
      panels->bias[at] = product.int8_bias * sum;
      panels->scale[at] = factors_of(head, rows.shape).head_scale;
      panels->norm[at] = real ? rows.norms[slot] : std::numeric_limits<float>::infinity();
    }
  });
}

}  // namespace ann
}  // namespace ec
