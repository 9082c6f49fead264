// SPDX-License-Identifier: Apache-2.0
// The C ABI of depth on the GPU.
#include <cinttypes>

#include "common/device.h"
#include "core/errors.h"
#include "depth/depth.h"
#include "depth/shapes.h"

namespace ec::cuda {
namespace {

ec_status find_kind(const ec_matrix& matrix, const char* argument, NumberKind* kind, ec_error* error) {
  switch (matrix.dtype) {
    case EC_FLOAT16:
      *kind = NumberKind::kFloat16;
      return EC_OK;
    case EC_BFLOAT16:
      *kind = NumberKind::kBFloat16;
      return EC_OK;
    case EC_FLOAT32:
      *kind = NumberKind::kFloat32;
      return EC_OK;
    default:
      return fail(error, EC_INVALID_TYPE, argument, -1,
                  "'%s' must be float16, bfloat16 or float32 on the GPU; got float64", argument);
  }
}

ec_status check_options(const ec_cuda_depth_options& options, ec_error* error) {
  if (options.metric < EC_DEPTH_COSINE || options.metric > EC_DEPTH_ARC)
    return fail(
        error, EC_UNSUPPORTED, "metric", -1,
        "'metric' must be 'cosine', 'chord' or 'arc' on the GPU, which has no kernel for others yet");
  if (options.precision != EC_PRECISION_FLOAT32 && options.precision != EC_PRECISION_BFLOAT16)
    return fail(error, EC_INVALID_VALUE, "precision", -1,
                "'precision' must be 'float32' or 'bfloat16' on the GPU");
  return EC_OK;
}

ec_status make_problem(const ec_matrix& x, const ec_matrix* corpus, const ec_cuda_depth_options& options,
                       DepthProblem* problem, ec_error* error) {
  ec_status status = check_options(options, error);
  if (status == EC_OK) status = check_shapes(x, corpus, error);
  NumberKind kind = NumberKind::kFloat32, corpus_kind = NumberKind::kFloat32;
  if (status == EC_OK) status = find_kind(x, "x", &kind, error);
  if (status == EC_OK && corpus != nullptr) status = find_kind(*corpus, "corpus", &corpus_kind, error);
  if (status != EC_OK) return status;
  const auto rows_of = [](const ec_matrix& matrix, NumberKind of) {
    return AnyRows{matrix.data, matrix.rows, matrix.row_stride, matrix.columns, of};
  };
  const Metric metric = options.metric == EC_DEPTH_COSINE  ? Metric::kCosine
                        : options.metric == EC_DEPTH_CHORD ? Metric::kChord
                                                           : Metric::kArc;
  *problem = {metric,
              rows_of(x, kind),
              corpus == nullptr,
              corpus == nullptr ? AnyRows{} : rows_of(*corpus, corpus_kind),
              options.weights,
              options.precision == EC_PRECISION_FLOAT32,
              nullptr};
  return EC_OK;
}

}  // namespace
}  // namespace ec::cuda

ec_status ec_cuda_depth_workspace(const ec_cuda_place* place, const ec_matrix* x, const ec_matrix* corpus,
                                  const ec_cuda_depth_options* options, int64_t* bytes, ec_error* error) {
  ec::cuda::DepthProblem problem;
  ec_status status = ec::cuda::make_problem(*x, corpus, *options, &problem, error);
  int multiprocessors = 0;
  if (status == EC_OK) status = ec::cuda::find_multiprocessors(place->device, &multiprocessors, error);
  if (status != EC_OK) return status;
  *bytes = static_cast<int64_t>(ec::cuda::depth_workspace_bytes(problem, multiprocessors));
  return EC_OK;
}

ec_status ec_cuda_depth_score(const ec_cuda_place* place, const ec_matrix* x, const ec_matrix* corpus,
                              const ec_cuda_depth_options* options, void* workspace, float* depths,
                              ec_error* error) {
  ec::cuda::DepthProblem problem;
  ec_status status = ec::cuda::make_problem(*x, corpus, *options, &problem, error);
  int multiprocessors = 0;
  if (status == EC_OK) status = ec::cuda::find_multiprocessors(place->device, &multiprocessors, error);
  if (status != EC_OK) return status;
  problem.depths = depths;
  const ec::cuda::CurrentDevice current(place->device);
  ec::cuda::run_depth(problem, multiprocessors, workspace, static_cast<ec::cuda::Stream>(place->stream));
  return ec::cuda::last_failure(error);
}
