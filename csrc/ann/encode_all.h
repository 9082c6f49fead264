// SPDX-License-Identifier: Apache-2.0
// Codes of many rows.
#pragma once

#include "ann/index_data.h"

namespace ec::ann {

// Codes of `count` rows that lie row_bytes() apart; norms may be null. Throws bad_alloc.
void encode_all(const IndexData& index, const unsigned char* rows, int64_t count, int threads,
                uint8_t* heads, uint8_t* tails, float* norms);

}  // namespace ec::ann
