// SPDX-License-Identifier: Apache-2.0
// From filter programs to the rows that pass.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ann/allowed.h"
#include "ann/attributes/table.h"
#include "capi/embedcore.h"
#include "core/internal.h"

namespace ec::ann {

// Evaluates programs over a table on threads; equal ones are evaluated once. live: a bitset over slots, or
// null when all are alive. Throws as parse_program does, for the first program that is wrong. Returns
// EC_INTERRUPTED when the monitor, which may be null, asked to stop; *filters is as it was then.
EC_INTERNAL ec_status evaluate(const Table& table, const std::vector<std::string_view>& programs,
                               const uint64_t* live, int threads, const ec_monitor* monitor,
                               Filters* filters);

}  // namespace ec::ann
