// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "core/errors.h"
#include "depth/score.h"
#include "depth/shapes.h"
#include "product/matrix_rows.h"

namespace ec {

namespace {

ec_status check_names(const ec_depth_options& options, ec_error* error) {
  if (options.metric < EC_DEPTH_COSINE || options.metric > EC_DEPTH_IRW)
    return fail(error, EC_INVALID_VALUE, "metric", -1, "'metric' must be one of ec_depth_metric; got %d",
                static_cast<int>(options.metric));
  if (options.precision < EC_PRECISION_FLOAT32 || options.precision > EC_PRECISION_INT8)
    return fail(error, EC_INVALID_VALUE, "precision", -1, "'precision' must be one of ec_precision; got %d",
                static_cast<int>(options.precision));
  return EC_OK;
}

ec_status check_parts(const ec_depth_options& options, int64_t rows, ec_error* error) {
  for (int64_t j = 0; options.weights != nullptr && j < rows; ++j)
    if (!(options.weights[j] >= 0.0f) || !std::isfinite(options.weights[j]))
      return fail(error, EC_INVALID_VALUE, "weights", j,
                  "'weights' must be finite and not negative; weight %lld is %g", static_cast<long long>(j),
                  static_cast<double>(options.weights[j]));
  if (options.groups < 1)
    return fail(error, EC_INVALID_VALUE, "groups", -1, "'groups' must be at least 1; got %lld",
                static_cast<long long>(options.groups));
  for (int64_t j = 0; options.labels != nullptr && j < rows; ++j)
    if (options.labels[j] < 0 || options.labels[j] >= options.groups)
      return fail(error, EC_INVALID_VALUE, "labels", j, "'labels' must lie in [0, %lld); label %lld is %d",
                  static_cast<long long>(options.groups), static_cast<long long>(j), options.labels[j]);
  return EC_OK;
}

ec_status check_values(const ec_matrix& matrix, const char* argument, ec_error* error) {
  const MatrixRows rows(matrix, *row_kernels(current_isa()));
  for (int64_t row = 0; row < matrix.rows; ++row)
    if (!std::isfinite(rows.largest(row))) {
      FirstFault fault;
      fault.report(row, RowFault::kNotFinite);
      return fault.raise(argument, error);
    }
  return EC_OK;
}

// Their values are checked where they are packed.
ec_status check_directions(const ec_depth_options& options, const ec_matrix& x, int64_t corpus_rows,
                           ec_error* error) {
  if (options.metric != EC_DEPTH_HALFSPACE && options.metric != EC_DEPTH_PROJECTION &&
      options.metric != EC_DEPTH_IRW)
    return EC_OK;
  const ec_matrix* directions = options.directions;
  if (directions == nullptr)
    return fail(error, EC_INVALID_VALUE, "directions", -1,
                "'directions' must be given for metrics 'halfspace', 'projection' and 'irw'");
  const ec_status status = check_shape(*directions, "directions", error);
  if (status != EC_OK) return status;
  if (directions->columns != x.columns)
    return fail(error, EC_INVALID_VALUE, "directions", -1,
                "'directions' must have the same number of columns as 'x' (%lld); got shape (%lld, %lld)",
                static_cast<long long>(x.columns), static_cast<long long>(directions->rows),
                static_cast<long long>(directions->columns));
  if (options.metric == EC_DEPTH_PROJECTION && options.weights != nullptr)
    return fail(error, EC_INVALID_VALUE, "weights", -1,
                "'weights' are not supported by metric 'projection'");
  if (corpus_rows > INT32_MAX)
    return fail(error, EC_INVALID_VALUE, "corpus", -1,
                "the corpus must have fewer than 2^31 rows for metrics over directions; got %lld",
                static_cast<long long>(corpus_rows));
  return EC_OK;
}

}  // namespace

ec_status check_depth_call(const ec_matrix* x, const ec_matrix* corpus, const ec_depth_options* options,
                           ec_error* error) {
  ec_status status = check_names(*options, error);
  if (status != EC_OK) return status;
  status = check_shapes(*x, corpus, error);
  if (status != EC_OK) return status;
  const int64_t corpus_rows = corpus == nullptr ? x->rows : corpus->rows;
  status = check_directions(*options, *x, corpus_rows, error);
  return status != EC_OK ? status : check_parts(*options, corpus_rows, error);
}

}  // namespace ec

extern "C" ec_status ec_depth_check(const ec_matrix* x, const ec_matrix* corpus,
                                    const ec_depth_options* options, ec_error* error) {
  ec_status status = ec::check_depth_call(x, corpus, options, error);
  if (status == EC_OK) status = ec::check_values(*x, "x", error);
  if (status == EC_OK && corpus != nullptr) status = ec::check_values(*corpus, "corpus", error);
  return status;
}
