// SPDX-License-Identifier: Apache-2.0
// The C ABI of gradients of depths on the GPU.
#include "common/device.h"
#include "common/workspace.h"
#include "core/errors.h"
#include "depth/gradient.h"
#include "depth/shapes.h"

namespace ec::cuda {
namespace {

AnyRows rows_of(const ec_matrix& matrix) {
  return {matrix.data, matrix.rows, matrix.row_stride, matrix.columns, kind_of(matrix.dtype)};
}

ec_status find_metric(ec_depth_metric metric, Metric* found, ec_error* error) {
  constexpr Metric kSmooth[] = {Metric::kCosine, Metric::kChord, Metric::kArc, Metric::kL2,
                                Metric::kSpatial};
  static_assert(EC_DEPTH_COSINE == 0 && EC_DEPTH_SPATIAL == 4, "their order");
  if (metric < EC_DEPTH_COSINE || metric > EC_DEPTH_SPATIAL)
    return fail(error, EC_UNSUPPORTED, "metric", -1,
                "'metric' must be cosine, chord, arc, L2 or spatial for gradients on the GPU; got "
                "ec_depth_metric %d",
                static_cast<int>(metric));
  *found = kSmooth[metric];
  return EC_OK;
}

ec_status check_narrow(const ec_matrix& matrix, const char* argument, ec_error* error) {
  if (matrix.dtype != EC_FLOAT64) return EC_OK;
  return fail(error, EC_INVALID_TYPE, argument, -1,
              "'%s' must be float16, bfloat16 or float32 for gradients on the GPU; got float64", argument);
}

struct Prepared {
  GradientProblem problem = {};
  int multiprocessors = 0;

  ec_status prepare(const ec_cuda_place* place, const ec_matrix* x, const ec_matrix* corpus,
                    const ec_cuda_depth_gradient* gradient, ec_error* error) {
    ec_status status = check_given(place, "place", error);
    if (status == EC_OK) status = check_given(x, "x", error);
    if (status == EC_OK) status = check_given(gradient, "gradient", error);
    if (status == EC_OK) status = check_shapes(*x, corpus, error);
    if (status == EC_OK) status = check_narrow(*x, "x", error);
    if (status == EC_OK && corpus != nullptr) status = check_narrow(*corpus, "corpus", error);
    if (status == EC_OK) status = find_metric(gradient->metric, &problem.metric, error);
    if (status == EC_OK) status = check_given(gradient->pull, "pull", error);
    if (status == EC_OK) status = check_given(gradient->weights, "weights", error);
    if (status != EC_OK) return status;
    problem.rows = rows_of(*x);
    problem.own_corpus = corpus == nullptr;
    if (corpus != nullptr) problem.corpus = rows_of(*corpus);
    problem.pull = gradient->pull, problem.weights = gradient->weights;
    problem.of_rows = gradient->of_x;
    problem.of_corpus = corpus == nullptr ? nullptr : gradient->of_corpus;
    problem.of_weights = gradient->of_weights;
    DeviceFacts facts;
    status = find_device(place->device, &facts, error);
    multiprocessors = facts.multiprocessors;
    return status;
  }
};

}  // namespace
}  // namespace ec::cuda

using ec::cuda::Prepared;
using ec::cuda::Stream;

ec_status ec_cuda_depth_gradient_workspace(const ec_cuda_place* place, const ec_matrix* x,
                                           const ec_matrix* corpus, const ec_cuda_depth_gradient* gradient,
                                           int64_t* bytes, ec_error* error) {
  Prepared prepared;
  const ec_status status = prepared.prepare(place, x, corpus, gradient, error);
  if (status != EC_OK) return status;
  *bytes =
      static_cast<int64_t>(ec::cuda::gradient_workspace_bytes(prepared.problem, prepared.multiprocessors));
  return EC_OK;
}

ec_status ec_cuda_depth_gradient_run(const ec_cuda_place* place, const ec_matrix* x,
                                     const ec_matrix* corpus, const ec_cuda_depth_gradient* gradient,
                                     void* workspace, ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, x, corpus, gradient, error);
  if (status == EC_OK) status = ec::check_given(workspace, "workspace", error);
  if (status != EC_OK) return status;
  const ec::cuda::CurrentDevice current(place->device);
  const bool all = ec::cuda::run_gradient(prepared.problem, prepared.multiprocessors, workspace,
                                          static_cast<Stream>(place->stream));
  return ec::cuda::started(all, error);
}
