// SPDX-License-Identifier: Apache-2.0
// Names and labels: are they text, how they stand in a message, which is the nearest.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/internal.h"

namespace ec::ann {

// UTF-8 as Python takes it: no overlong forms, no surrogates, nothing above U+10FFFF.
EC_INTERNAL bool is_utf8(std::string_view text);

// 'text', shortened when long, with what is no UTF-8 or would not print as \x escapes.
EC_INTERNAL std::string quoted(std::string_view text);

// The index of the name with the smallest edit distance to text, -1 when none is near: more than
// half of the letters would have to change.
int64_t nearest_name(std::string_view text, const std::vector<std::string_view>& names);

// Mixes all bits of the bytes; the same on every machine of one byte order.
uint64_t hash_bytes(const void* data, size_t size);
uint64_t hash_number(uint64_t number);

}  // namespace ec::ann
