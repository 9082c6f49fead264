// SPDX-License-Identifier: Apache-2.0
// The C ABI of depth on the GPU.
#include "common/device.h"
#include "common/workspace.h"
#include "core/errors.h"
#include "depth/depth.h"
#include "depth/hopper/hopper_pairs.h"
#include "depth/shapes.h"

namespace ec::cuda {
namespace {

AnyRows rows_of(const ec_matrix& matrix) {
  return {matrix.data, matrix.rows, matrix.row_stride, matrix.columns, kind_of(matrix.dtype)};
}

ec_status find_metric(ec_depth_metric metric, Metric* found, ec_error* error) {
  constexpr Metric kMetrics[] = {
      Metric::kCosine,    Metric::kChord,      Metric::kArc, Metric::kL2,          Metric::kSpatial,
      Metric::kHalfspace, Metric::kProjection, Metric::kIrw, Metric::kMahalanobis, Metric::kAiIrw};
  if (metric < EC_DEPTH_COSINE || metric > EC_DEPTH_AI_IRW)
    return fail(error, EC_INVALID_VALUE, "metric", -1, "'metric' must be one of ec_depth_metric; got %d",
                static_cast<int>(metric));
  *found = kMetrics[metric];
  return EC_OK;
}

ec_status check_covariance(const ec_cuda_depth_options& options, bool own_corpus, ec_error* error) {
  if (options.covariance == nullptr || (!own_corpus && options.groups == 1)) return EC_OK;
  return fail(error, EC_INVALID_VALUE, "covariance", -1,
              "'covariance' must be NULL for several groups, and for rows in their own corpus");
}

ec_status check_directions(const ec_cuda_depth_options& options, Metric metric, ec_error* error) {
  if (!is_directional(metric)) return EC_OK;
  if (options.directions == nullptr || options.direction_count < 1 || options.direction_count > 1 << 20)
    return fail(
        error, EC_INVALID_VALUE, "directions", -1,
        "'directions' must be given for halfspace, projection, IRW and AI-IRW, 1 to 1048576 of them; "
        "got %lld",
        static_cast<long long>(options.directions == nullptr ? 0 : options.direction_count));
  if (metric == Metric::kProjection && options.weights != nullptr)
    return fail(error, EC_INVALID_VALUE, "weights", -1,
                "'weights' are not supported by metric 'projection'");
  return EC_OK;
}

ec_status check_options(const ec_cuda_depth_options& options, int64_t corpus_rows, ec_error* error) {
  if (options.precision != EC_PRECISION_FLOAT32 && options.precision != EC_PRECISION_BFLOAT16)
    return fail(error, EC_INVALID_VALUE, "precision", -1,
                "'precision' must be float32 or bfloat16 on the GPU; got ec_precision %d",
                static_cast<int>(options.precision));
  if (!(options.shrinkage <= 1.0))
    return fail(error, EC_INVALID_VALUE, "shrinkage", -1, "'shrinkage' must be at most 1; got %g",
                options.shrinkage);
  if (options.weights != nullptr && options.weights_dtype != EC_FLOAT32 &&
      options.weights_dtype != EC_FLOAT64)
    return fail(error, EC_INVALID_TYPE, "weights", -1, "'weights' must be float32 or float64");
  if (options.groups < 1 || (options.groups > 1 && options.starts == nullptr))
    return fail(error, EC_INVALID_VALUE, "groups", -1,
                "'groups' must be at least 1, and more than one must have starts; got %lld",
                static_cast<long long>(options.groups));
  if (options.groups > 1 && options.sums != nullptr)
    return fail(error, EC_INVALID_VALUE, "groups", -1,
                "'groups' must be 1 where 'sums' are given; got %lld",
                static_cast<long long>(options.groups));
  const int64_t* starts = options.starts;
  if (starts == nullptr) return EC_OK;
  bool right = starts[0] == 0 && starts[options.groups] == corpus_rows;
  for (int64_t g = 0; right && g < options.groups; ++g) right = starts[g] <= starts[g + 1];
  if (right) return EC_OK;
  return fail(error, EC_INVALID_VALUE, "starts", -1,
              "'starts' must rise from 0 to the number of corpus rows (%lld)",
              static_cast<long long>(corpus_rows));
}

// A call in the form of the kernels.
struct Prepared {
  DepthProblem problem;
  int multiprocessors = 0;

  ec_status prepare(const ec_cuda_place* place, const ec_matrix* x, const ec_matrix* corpus,
                    const ec_cuda_depth_options* options, ec_error* error) {
    ec_status status = check_given(place, "place", error);
    if (status == EC_OK) status = check_given(x, "x", error);
    if (status == EC_OK) status = check_given(options, "options", error);
    return status == EC_OK ? prepare(*place, *x, corpus, *options, error) : status;
  }

  const AnyRows& corpus() const { return problem.own_corpus ? problem.rows : problem.corpus; }
  bool angular() const {
    return problem.metric == Metric::kCosine || problem.metric == Metric::kChord ||
           problem.metric == Metric::kArc;
  }

 private:
  ec_status prepare(const ec_cuda_place& place, const ec_matrix& x, const ec_matrix* corpus,
                    const ec_cuda_depth_options& options, ec_error* error) {
    ec_status status = check_shapes(x, corpus, error);
    if (status == EC_OK) status = check_options(options, corpus == nullptr ? x.rows : corpus->rows, error);
    if (status == EC_OK) status = find_metric(options.metric, &problem.metric, error);
    if (status == EC_OK) status = check_directions(options, problem.metric, error);
    if (status == EC_OK) status = check_covariance(options, corpus == nullptr, error);
    if (status != EC_OK) return status;
    problem.rows = rows_of(x);
    problem.given_sums = problem.metric == Metric::kCosine ? options.sums : nullptr;
    problem.own_corpus = corpus == nullptr && problem.given_sums == nullptr;
    problem.corpus = problem.own_corpus ? AnyRows{}
                     : problem.given_sums != nullptr
                         ? AnyRows{nullptr, 0, x.columns, x.columns, NumberKind::kFloat32}
                         : rows_of(*corpus);
    problem.strict = options.precision == EC_PRECISION_FLOAT32;
    problem.depths = nullptr;
    problem.weights = options.weights;
    problem.weights_kind = kind_of(options.weights_dtype);
    problem.weights_stride = options.weights_stride;
    problem.groups = options.groups;
    problem.starts = options.starts;
    problem.order = options.order;
    problem.shrinkage = options.shrinkage;
    problem.covariance = options.covariance;
    problem.covariance_found = options.covariance != nullptr && options.covariance_found != 0;
    problem.directions = options.directions;
    problem.direction_count = options.direction_count;
    DeviceFacts facts;
    status = find_device(place.device, &facts, error);
    multiprocessors = facts.multiprocessors;
    problem.hopper = runs_hopper_pairs(facts.major, facts.minor);
    return status;
  }
};

ec_status name_bad_value(int64_t found, const char* argument, ec_error* error) {
  if (found == kNoneFound) return EC_OK;
  const int64_t row = found / kBadValues;
  const auto row_text = static_cast<long long>(row);
  switch (static_cast<BadValue>(found % kBadValues)) {
    case BadValue::kNotFinite:
      return fail(error, EC_INVALID_VALUE, argument, row,
                  "'%s' must be finite; row %lld holds a NaN or an infinite value", argument, row_text);
    case BadValue::kZero:
      return fail(error, EC_INVALID_VALUE, argument, row,
                  "'%s' must not hold zero rows (they have no direction); row %lld is zero", argument,
                  row_text);
    default:
      return fail(error, EC_INVALID_VALUE, argument, row,
                  "'%s' must be finite and not negative; weight %lld is not", argument, row_text);
  }
}

}  // namespace
}  // namespace ec::cuda

using ec::cuda::Prepared;
using ec::cuda::Stream;

ec_status ec_cuda_depth_workspace(const ec_cuda_place* place, const ec_matrix* x, const ec_matrix* corpus,
                                  const ec_cuda_depth_options* options, int64_t* bytes, ec_error* error) {
  Prepared prepared;
  const ec_status status = prepared.prepare(place, x, corpus, options, error);
  if (status != EC_OK) return status;
  *bytes =
      static_cast<int64_t>(ec::cuda::depth_workspace_bytes(prepared.problem, prepared.multiprocessors));
  return EC_OK;
}

ec_status ec_cuda_depth_score(const ec_cuda_place* place, const ec_matrix* x, const ec_matrix* corpus,
                              const ec_cuda_depth_options* options, void* workspace, void* depths,
                              ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, x, corpus, options, error);
  if (status != EC_OK) return status;
  status = ec::check_given(depths, "depths", error);
  if (status == EC_OK) status = ec::check_given(workspace, "workspace", error);
  if (status != EC_OK) return status;
  prepared.problem.depths = depths;
  const ec::cuda::CurrentDevice current(place->device);
  const bool all = ec::cuda::run_depth(prepared.problem, prepared.multiprocessors, workspace,
                                       static_cast<Stream>(place->stream));
  return ec::cuda::started(all, error);
}

ec_status ec_cuda_depth_covariance_bytes(const ec_cuda_place* place, const ec_matrix* x,
                                         const ec_matrix* corpus, const ec_cuda_depth_options* options,
                                         int64_t* bytes, ec_error* error) {
  Prepared prepared;
  const ec_status status = prepared.prepare(place, x, corpus, options, error);
  if (status != EC_OK) return status;
  *bytes = static_cast<int64_t>(ec::cuda::covariance_bytes(prepared.problem, prepared.multiprocessors));
  return EC_OK;
}

ec_status ec_cuda_depth_direction_sums(const ec_cuda_place* place, const ec_matrix* corpus,
                                       const ec_cuda_depth_options* options, void* workspace, double* sums,
                                       ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, corpus, nullptr, options, error);
  if (status == EC_OK) status = ec::check_given(sums, "sums", error);
  if (status == EC_OK) status = ec::check_given(workspace, "workspace", error);
  if (status == EC_OK && options->sums != nullptr)
    status =
        ec::fail(error, EC_INVALID_VALUE, "options", -1, "'options' must not have sums, which are made");
  if (status == EC_OK && (prepared.problem.metric != ec::cuda::Metric::kCosine || options->groups != 1))
    status = ec::fail(error, EC_INVALID_VALUE, "metric", -1, "'metric' must be cosine, and 'groups' 1");
  if (status != EC_OK) return status;
  prepared.problem.wanted_sums = sums;
  const ec::cuda::CurrentDevice current(place->device);
  const bool all = ec::cuda::run_depth(prepared.problem, prepared.multiprocessors, workspace,
                                       static_cast<Stream>(place->stream));
  return ec::cuda::started(all, error);
}

ec_status ec_cuda_depth_check(const ec_cuda_place* place, const ec_matrix* x, const ec_matrix* corpus,
                              const ec_cuda_depth_options* options, void* workspace, ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, x, corpus, options, error);
  if (status == EC_OK) status = ec::check_given(workspace, "workspace", error);
  if (status != EC_OK) return status;
  const ec::cuda::DepthProblem& problem = prepared.problem;
  const auto stream = static_cast<Stream>(place->stream);
  const ec::cuda::CurrentDevice current(place->device);
  auto* found = static_cast<int64_t*>(workspace);  // of x, of the corpus, of the weights
  ec::cuda::find_bad_rows(problem.rows, prepared.angular(), prepared.multiprocessors, found, stream);
  ec::cuda::find_bad_rows(prepared.corpus(), prepared.angular(), prepared.multiprocessors, found + 1,
                          stream);
  const bool weighted = problem.weights != nullptr;
  if (weighted)
    ec::cuda::find_bad_weights(problem.weights, problem.weights_kind, problem.weights_stride,
                               prepared.corpus().count, prepared.multiprocessors, found + 2, stream);
  status = ec::cuda::last_failure(error);
  int64_t bad[3] = {ec::cuda::kNoneFound, ec::cuda::kNoneFound, ec::cuda::kNoneFound};
  if (status == EC_OK) status = ec::cuda::read_back(bad, found, weighted ? 24 : 16, place->stream, error);
  if (status == EC_OK) status = ec::cuda::name_bad_value(bad[0], "x", error);
  if (status == EC_OK)
    status = ec::cuda::name_bad_value(bad[1], problem.own_corpus ? "x" : "corpus", error);
  return status == EC_OK ? ec::cuda::name_bad_value(bad[2], "weights", error) : status;
}
