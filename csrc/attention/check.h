// SPDX-License-Identifier: Apache-2.0
// What must hold of a problem wherever its arrays lie: their numbers are not read.
#pragma once

#include "capi/embedcore.h"

namespace ec {

ec_status check_attention_shapes(const ec_attention_problem& problem, ec_error* error);

}  // namespace ec
