// SPDX-License-Identifier: Apache-2.0
#include "depth/shapes.h"

#include "core/errors.h"

namespace ec {

// int8 sums stay in 32 bits up to here: columns * 255 * 127 < 2^31.
constexpr int64_t kMaxColumns = 65536;

ec_status check_shape(const ec_matrix& matrix, const char* argument, ec_error* error) {
  if (matrix.dtype < EC_FLOAT16 || matrix.dtype > EC_FLOAT64)
    return fail(error, EC_INVALID_TYPE, argument, -1, "'%s' must have a dtype of ec_dtype; got %d",
                argument, static_cast<int>(matrix.dtype));
  if (matrix.rows < 1 || matrix.columns < 1)
    return fail(error, EC_INVALID_VALUE, argument, -1,
                "'%s' must have at least one row and one column; got shape (%lld, %lld)", argument,
                static_cast<long long>(matrix.rows), static_cast<long long>(matrix.columns));
  if (matrix.columns > kMaxColumns)
    return fail(error, EC_INVALID_VALUE, argument, -1,
                "'%s' must have at most %lld columns; got shape (%lld, %lld)", argument,
                static_cast<long long>(kMaxColumns), static_cast<long long>(matrix.rows),
                static_cast<long long>(matrix.columns));
  if (matrix.data == nullptr)
    return fail(error, EC_INVALID_VALUE, argument, -1, "'%s' must not be null", argument);
  return EC_OK;
}

ec_status check_shapes(const ec_matrix& x, const ec_matrix* corpus, ec_error* error) {
  ec_status status = check_shape(x, "x", error);
  if (status != EC_OK || corpus == nullptr) return status;
  status = check_shape(*corpus, "corpus", error);
  if (status == EC_OK && corpus->columns != x.columns)
    return fail(error, EC_INVALID_VALUE, "corpus", -1,
                "'corpus' must have the same number of columns as 'x' (%lld); got shape (%lld, %lld)",
                static_cast<long long>(x.columns), static_cast<long long>(corpus->rows),
                static_cast<long long>(corpus->columns));
  return status;
}

}  // namespace ec
