// SPDX-License-Identifier: Apache-2.0
// What the shapes and dtypes of matrices must be, wherever their numbers lie.
#pragma once

#include "capi/embedcore.h"

namespace ec {

ec_status check_shape(const ec_matrix& matrix, const char* argument, ec_error* error);

// Of rows and their corpus, which may be null (x is the corpus).
ec_status check_shapes(const ec_matrix& x, const ec_matrix* corpus, ec_error* error);

}  // namespace ec
