// SPDX-License-Identifier: Apache-2.0
// The C ABI of low-rank attention on the GPU.
#include <cmath>
#include <optional>

#include "attention/attention.h"
#include "attention/check.h"
#include "attention/hopper/hopper_forward.h"
#include "common/device.h"
#include "common/workspace.h"
#include "core/errors.h"

namespace ec::cuda {
namespace {

// Compute capabilities whose blocks store into each other's shared memory: those of data centres.
constexpr bool has_clusters(int major) { return major == 9 || major == 10; }

Numbers numbers_of(const ec_array& array) {
  return {array.data, {array.stride[0], array.stride[1], array.stride[2]}, kind_of(array.dtype)};
}

ec_status make_problem(const ec_attention_problem& given, AttentionProblem* problem, ec_error* error) {
  const ec_status status = check_attention_shapes(given, error);
  if (status != EC_OK) return status;
  if (given.key.dtype == EC_FLOAT64)
    return fail(error, EC_INVALID_TYPE, "key", -1,
                "'key' must be float16, bfloat16 or float32 on the GPU; got float64");
  if (given.temperature.data == nullptr &&
      !(given.fixed_temperature > 0.0 && given.fixed_temperature < HUGE_VAL))
    return fail(error, EC_INVALID_VALUE, "temperature", -1,
                "'temperature' must be positive and finite; got %g", given.fixed_temperature);
  *problem = {given.sequences,
              given.tokens,
              given.heads,
              given.key_columns,
              given.value_columns,
              numbers_of(given.key),
              numbers_of(given.value),
              numbers_of(given.query),
              given.query_per_sequence != 0,
              given.offsets,
              given.lengths,
              given.keep,
              {given.keep_stride[0], given.keep_stride[1]},
              numbers_of(given.mask),
              numbers_of(given.bias),
              numbers_of(given.temperature),
              given.fixed_temperature,
              static_cast<Activation>(given.activation),
              static_cast<HeadNorm>(given.norm)};
  if (attention_supported(*problem)) return EC_OK;
  const auto most = static_cast<long long>(attention_most_row_bytes(*problem));
  const auto columns = static_cast<long long>(given.key_columns);
  if (given.value.data == nullptr)
    return fail(error, EC_UNSUPPORTED, "key", -1,
                "'key' must have rows of at most %lld bytes on this GPU; got %lld columns", most, columns);
  return fail(error, EC_UNSUPPORTED, "key", -1,
              "'key' and 'value' must have rows of at most %lld bytes together on this GPU; got %lld and "
              "%lld columns",
              most, columns, static_cast<long long>(given.value_columns));
}

AttentionResult result_of(const ec_attention_result& given, int8_t* rest) {
  return {given.out,
          static_cast<float*>(given.lse),
          static_cast<float*>(given.scores),
          static_cast<float*>(given.weights),
          static_cast<float*>(given.wide),
          rest};
}

AttentionGradient gradient_of(const ec_attention_gradient& given, const int8_t* rest) {
  AttentionGradient gradient = {};
  gradient.grad_out = numbers_of(*given.grad_out);
  if (given.grad_lse != nullptr) gradient.grad_lse = numbers_of(*given.grad_lse);
  gradient.grad_weights = static_cast<const float*>(given.grad_weights);
  gradient.out = given.out;
  gradient.out_kind = kind_of(given.out_dtype);
  gradient.rest = rest;
  gradient.lse = static_cast<const float*>(given.lse);
  gradient.scores = static_cast<const float*>(given.scores);
  gradient.grad_key = given.grad_key;
  gradient.grad_value = given.grad_value;
  gradient.grad_query = static_cast<float*>(given.grad_query);
  gradient.grad_temperature = static_cast<float*>(given.grad_temperature);
  gradient.grad_bias = static_cast<float*>(given.grad_bias);
  gradient.grad_mask = static_cast<float*>(given.grad_mask);
  gradient.accumulate = given.accumulate != 0;
  return gradient;
}

ec_status check_result(const ec_attention_problem& problem, const ec_attention_result* result,
                       ec_error* error) {
  const ec_status status = check_given(result, "result", error);
  return status == EC_OK && problem.sequences > 0 ? check_given(result->out, "out", error) : status;
}

ec_status check_gradient(const ec_attention_problem& problem, const ec_attention_gradient* gradient,
                         ec_error* error) {
  ec_status status = check_given(gradient, "gradient", error);
  if (status == EC_OK) status = check_given(gradient->grad_out, "grad_out", error);
  if (status != EC_OK || problem.sequences == 0) return status;
  status = check_given(gradient->out, "out", error);
  if (status == EC_OK) status = check_given(gradient->lse, "lse", error);
  if (status == EC_OK && problem.query.data != nullptr && problem.tokens > 0)
    status = check_given(gradient->scores, "scores", error);
  return status;
}

ec_status check_rest(const ec_attention_problem& problem, ec_dtype out_dtype, ec_error* error) {
  if (problem.key.dtype != EC_FLOAT32 && out_dtype == problem.key.dtype) return EC_OK;
  return fail(error, EC_INVALID_TYPE, "rest", -1,
              "'rest' must be NULL unless 'key' and 'out' are both float16 or both bfloat16");
}

// A problem in the form of the kernels, with its device the calling thread's: how much blocks may share is
// asked of that.
struct Prepared {
  AttentionProblem problem;
  int multiprocessors = 0;
  std::optional<CurrentDevice> current;

  ec_status prepare(const ec_cuda_place* place, const ec_attention_problem* given, ec_error* error) {
    ec_status status = check_given(place, "place", error);
    if (status == EC_OK) status = check_given(given, "problem", error);
    DeviceFacts facts;
    if (status == EC_OK) status = find_device(place->device, &facts, error);
    if (status != EC_OK) return status;
    multiprocessors = facts.multiprocessors;
    current.emplace(place->device);
    const ec_status made = make_problem(*given, &problem, error);
    problem.clusters = has_clusters(facts.major);
    problem.hopper = runs_hopper_forward(facts.major, facts.minor);
    return made;
  }
};

}  // namespace
}  // namespace ec::cuda

using ec::cuda::Prepared;
using ec::cuda::Stream;

ec_status ec_cuda_attention_forward_workspace(const ec_cuda_place* place,
                                              const ec_attention_problem* problem,
                                              const ec_attention_result* result, int64_t* bytes,
                                              ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, problem, error);
  if (status == EC_OK) status = ec::cuda::check_result(*problem, result, error);
  if (status != EC_OK) return status;
  *bytes = static_cast<int64_t>(ec::cuda::attention_forward_workspace_bytes(
      prepared.problem, ec::cuda::result_of(*result, nullptr), prepared.multiprocessors));
  return EC_OK;
}

ec_status ec_cuda_attention_forward(const ec_cuda_place* place, const ec_attention_problem* problem,
                                    const ec_attention_result* result, int8_t* rest, void* workspace,
                                    ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, problem, error);
  if (status == EC_OK) status = ec::cuda::check_result(*problem, result, error);
  if (status == EC_OK) status = ec::check_given(workspace, "workspace", error);
  if (status == EC_OK && rest != nullptr)
    status = ec::cuda::check_rest(*problem, problem->key.dtype, error);
  if (status != EC_OK) return status;
  const bool all = ec::cuda::run_attention_forward(prepared.problem, ec::cuda::result_of(*result, rest),
                                                   prepared.multiprocessors, workspace,
                                                   static_cast<Stream>(place->stream));
  return ec::cuda::started(all, error);
}

ec_status ec_cuda_attention_backward_workspace(const ec_cuda_place* place,
                                               const ec_attention_problem* problem,
                                               const ec_attention_gradient* gradient, int64_t* bytes,
                                               ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, problem, error);
  if (status == EC_OK) status = ec::cuda::check_gradient(*problem, gradient, error);
  if (status != EC_OK) return status;
  *bytes = static_cast<int64_t>(ec::cuda::attention_backward_workspace_bytes(
      prepared.problem, ec::cuda::gradient_of(*gradient, nullptr), prepared.multiprocessors));
  return EC_OK;
}

ec_status ec_cuda_attention_backward(const ec_cuda_place* place, const ec_attention_problem* problem,
                                     const ec_attention_gradient* gradient, const int8_t* rest,
                                     void* workspace, ec_error* error) {
  Prepared prepared;
  ec_status status = prepared.prepare(place, problem, error);
  if (status == EC_OK) status = ec::cuda::check_gradient(*problem, gradient, error);
  if (status == EC_OK) status = ec::check_given(workspace, "workspace", error);
  if (status == EC_OK && rest != nullptr)
    status = ec::cuda::check_rest(*problem, gradient->out_dtype, error);
  if (status != EC_OK) return status;
  const bool all = ec::cuda::run_attention_backward(
      prepared.problem, ec::cuda::gradient_of(*gradient, rest), prepared.multiprocessors, workspace,
      static_cast<Stream>(place->stream));
  return ec::cuda::started(all, error);
}
