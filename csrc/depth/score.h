// SPDX-License-Identifier: Apache-2.0
// What every entry point of depth checks first.
#pragma once

#include "capi/embedcore.h"

namespace ec {

// Shapes, labels and weights. corpus may be null (x is the corpus).
ec_status check_depth_call(const ec_matrix* x, const ec_matrix* corpus, const ec_depth_options* options,
                           ec_error* error);

}  // namespace ec
