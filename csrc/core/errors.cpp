// SPDX-License-Identifier: Apache-2.0
#include "core/errors.h"

#include <cstdarg>
#include <cstdio>

namespace ec {

ec_status fail(ec_error* error, ec_status status, const char* argument, int64_t row, const char* format,
               ...) {
  if (error == nullptr) return status;
  error->row = row;
  if (argument == nullptr) argument = "";
  std::snprintf(error->argument, sizeof(error->argument), "%s", argument);
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error->message, sizeof(error->message), format, arguments);
  va_end(arguments);
  return status;
}

ec_status check_given(const void* pointer, const char* name, ec_error* error) {
  if (pointer != nullptr) return EC_OK;
  return fail(error, EC_INVALID_VALUE, name, -1, "'%s' must be given; got NULL", name);
}

}  // namespace ec
