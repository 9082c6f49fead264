// SPDX-License-Identifier: Apache-2.0
#include "attention/check.h"

#include "core/errors.h"

namespace ec {
namespace {

bool known_dtype(ec_dtype dtype) { return dtype >= EC_FLOAT16 && dtype <= EC_FLOAT64; }

ec_status check_arrays(const ec_attention_problem& problem, ec_error* error) {
  const struct {
    const char* name;
    const ec_array& array;
  } arrays[] = {{"key", problem.key},   {"value", problem.value}, {"query", problem.query},
                {"mask", problem.mask}, {"bias", problem.bias},   {"temperature", problem.temperature}};
  for (const auto& each : arrays)
    if (each.array.data != nullptr && !known_dtype(each.array.dtype))
      return fail(error, EC_INVALID_TYPE, each.name, -1, "'%s' must have a dtype of ec_dtype; got %d",
                  each.name, static_cast<int>(each.array.dtype));
  if (problem.key.data == nullptr && problem.sequences > 0 && problem.tokens > 0)
    return fail(error, EC_INVALID_VALUE, "key", -1, "'key' must have data; got NULL");
  if (problem.value.data != nullptr && problem.value.dtype != problem.key.dtype)
    return fail(error, EC_INVALID_TYPE, "value", -1, "'value' must have the dtype of 'key'; got another");
  if (problem.value.data == nullptr && problem.value_columns != problem.key_columns)
    return fail(error, EC_INVALID_VALUE, "value", -1,
                "'value' must be given where its columns (%lld) are not those of 'key' (%lld)",
                static_cast<long long>(problem.value_columns), static_cast<long long>(problem.key_columns));
  return EC_OK;
}

ec_status check_choices(const ec_attention_problem& problem, ec_error* error) {
  if (problem.sequences < 0 || problem.tokens < 0)
    return fail(error, EC_INVALID_VALUE, "key", -1,
                "'key' must have numbers of sequences and tokens that are not negative; got %lld and %lld",
                static_cast<long long>(problem.sequences), static_cast<long long>(problem.tokens));
  if (problem.activation != EC_ACTIVATION_NONE && problem.activation != EC_ACTIVATION_TANH)
    return fail(error, EC_INVALID_VALUE, "activation", -1,
                "'activation' must be one of ec_activation; got %d", static_cast<int>(problem.activation));
  if (problem.norm != EC_HEAD_NORM_NONE && problem.norm != EC_HEAD_NORM_L2)
    return fail(error, EC_INVALID_VALUE, "norm", -1, "'norm' must be one of ec_head_norm; got %d",
                static_cast<int>(problem.norm));
  return EC_OK;
}

}  // namespace

ec_status check_attention_shapes(const ec_attention_problem& problem, ec_error* error) {
  const ec_status status = check_choices(problem, error);
  if (status != EC_OK) return status;
  if (problem.heads < 1)
    return fail(error, EC_INVALID_VALUE, "query", -1, "'query' must have at least one head; got %lld",
                static_cast<long long>(problem.heads));
  if (problem.key_columns < 1)
    return fail(error, EC_INVALID_VALUE, "key", -1, "'key' must have at least one column; got %lld",
                static_cast<long long>(problem.key_columns));
  if (problem.value_columns < 1)
    return fail(error, EC_INVALID_VALUE, "value", -1, "'value' must have at least one column; got %lld",
                static_cast<long long>(problem.value_columns));
  return check_arrays(problem, error);
}

}  // namespace ec
