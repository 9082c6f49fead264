// SPDX-License-Identifier: Apache-2.0
// What must hold in columns that come from a file.
#pragma once

#include <cstdint>

#include "ann/attributes/column.h"

namespace ec::ann {

// Throws ValueError unless a column without index is one that the functions of column.h could have made.
// Its dictionary is checked already.
void check_column(const Column& column, int64_t rows);

}  // namespace ec::ann
