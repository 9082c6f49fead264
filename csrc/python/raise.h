// SPDX-License-Identifier: Apache-2.0
// Python exceptions in the style of the house: who, which argument, what must hold, what it was.
#pragma once

#include <pybind11/pybind11.h>

#include "capi/embedcore.h"

namespace ecpy {

// Throws what the status means, with the text "<where>: <error.message>": ValueError, TypeError,
// MemoryError, NotImplementedError or RuntimeError; for EC_INTERRUPTED the exception that the monitor left
// pending. Requires: the GIL; status != EC_OK.
[[noreturn]] void raise_error(const char* where, ec_status status, const ec_error& error);

// The same as a statement after each call of the C ABI.
inline void check_status(const char* where, ec_status status, const ec_error& error) {
  if (status != EC_OK) raise_error(where, status, error);
}

// printf-style; the texts are built whole, of any length.
#if defined(__GNUC__)
#define EC_PRINTF __attribute__((format(printf, 1, 2)))
#else
#define EC_PRINTF
#endif
[[noreturn]] EC_PRINTF void raise_type(const char* format, ...);
[[noreturn]] EC_PRINTF void raise_value(const char* format, ...);
#undef EC_PRINTF

}  // namespace ecpy
