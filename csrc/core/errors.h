// SPDX-License-Identifier: Apache-2.0
// Filling an ec_error.
#pragma once

#include "capi/embedcore.h"

namespace ec {

// Writes the printf-style message into *error (which may be null) and returns status.
#if defined(__GNUC__)
__attribute__((format(printf, 5, 6)))
#endif
ec_status
fail(ec_error* error, ec_status status, const char* argument, int64_t row, const char* format, ...);

// What the C ABI cannot do without.
ec_status check_given(const void* pointer, const char* name, ec_error* error);

}  // namespace ec
