// SPDX-License-Identifier: Apache-2.0
// Attention on the GPU as Python calls it. Shapes and dtypes are Python's word (attention/_on_device.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "python/arrays.h"
#include "python/raise.h"

namespace py = pybind11;

namespace {

// Address, three strides in elements, dtype; address 0: not given.
using ArrayNumbers = std::tuple<uintptr_t, int64_t, int64_t, int64_t, int>;

ec_array array_of(const ArrayNumbers& numbers) {
  const auto& [address, first, second, third, dtype] = numbers;
  return {ecpy::pointer_of<const void>(address), {first, second, third}, static_cast<ec_dtype>(dtype)};
}

struct Problem {
  // Sequences, tokens, heads, columns of keys and of values.
  using Sizes = std::array<int64_t, 5>;
  // Key, value, query, mask, bias, temperature.
  using Arrays = std::array<ArrayNumbers, 6>;
  // Offsets and lengths, of int64.
  using Limits = std::array<uintptr_t, 2>;
  // Address and strides.
  using Keep = std::tuple<uintptr_t, int64_t, int64_t>;

  Problem(const Sizes& sizes, const Arrays& arrays, bool query_per_sequence, const Limits& limits,
          const Keep& keep, double temperature, int activation, int norm) {
    problem.sequences = sizes[0];
    problem.tokens = sizes[1];
    problem.heads = sizes[2];
    problem.key_columns = sizes[3];
    problem.value_columns = sizes[4];
    problem.key = array_of(arrays[0]);
    problem.value = array_of(arrays[1]);
    problem.query = array_of(arrays[2]);
    problem.mask = array_of(arrays[3]);
    problem.bias = array_of(arrays[4]);
    problem.temperature = array_of(arrays[5]);
    problem.query_per_sequence = query_per_sequence ? 1 : 0;
    problem.offsets = ecpy::pointer_of<const int64_t>(limits[0]);
    problem.lengths = ecpy::pointer_of<const int64_t>(limits[1]);
    problem.keep = ecpy::pointer_of<const uint8_t>(std::get<0>(keep));
    problem.keep_stride[0] = std::get<1>(keep);
    problem.keep_stride[1] = std::get<2>(keep);
    problem.fixed_temperature = temperature;
    problem.activation = static_cast<ec_activation>(activation);
    problem.norm = static_cast<ec_head_norm>(norm);
  }

  ec_attention_problem problem = {};
};

// results: out, lse, scores, weights, wide, rest; 0 where not wanted.
void attention_forward(const char* where, const ecpy::PlaceNumbers& place_numbers, const Problem& given,
                       const std::array<uintptr_t, 6>& results, const py::object& allocate) {
  const ec_cuda_place place = ecpy::place_of(place_numbers);
  const auto at = [&](size_t i) { return ecpy::pointer_of<void>(results[i]); };
  const ec_attention_result result = {at(0), at(1), at(2), at(3), at(4)};
  int8_t* rest = ecpy::pointer_of<int8_t>(results[5]);
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(
      where, ec_cuda_attention_forward_workspace(&place, &given.problem, &result, &bytes, &error), error);
  void* workspace = ecpy::allocated(allocate, bytes);
  const ec_status status = ecpy::start_released(
      [&] { return ec_cuda_attention_forward(&place, &given.problem, &result, rest, workspace, &error); });
  ecpy::check_status(where, status, error);
}

// saved: out, lse, scores, rest of the forward. gradients: of key, value, query, temperature, bias, mask; 0
// where not wanted.
void attention_backward(const char* where, const ecpy::PlaceNumbers& place_numbers, const Problem& given,
                        const ArrayNumbers& grad_out, const ArrayNumbers& grad_lse, uintptr_t grad_weights,
                        const std::array<uintptr_t, 4>& saved, int out_dtype,
                        const std::array<uintptr_t, 6>& gradients, bool accumulate,
                        const py::object& allocate) {
  const ec_cuda_place place = ecpy::place_of(place_numbers);
  const ec_array of_out = array_of(grad_out), of_lse = array_of(grad_lse);
  const auto at = [&](size_t i) { return ecpy::pointer_of<void>(gradients[i]); };
  ec_attention_gradient gradient = {};
  gradient.grad_out = &of_out;
  gradient.grad_lse = of_lse.data == nullptr ? nullptr : &of_lse;
  gradient.grad_weights = ecpy::pointer_of<const void>(grad_weights);
  gradient.out = ecpy::pointer_of<const void>(saved[0]);
  gradient.out_dtype = static_cast<ec_dtype>(out_dtype);
  gradient.lse = ecpy::pointer_of<const void>(saved[1]);
  gradient.scores = ecpy::pointer_of<const void>(saved[2]);
  const int8_t* rest = ecpy::pointer_of<const int8_t>(saved[3]);
  gradient.grad_key = at(0);
  gradient.grad_value = at(1);
  gradient.grad_query = at(2);
  gradient.grad_temperature = at(3);
  gradient.grad_bias = at(4);
  gradient.grad_mask = at(5);
  gradient.accumulate = accumulate ? 1 : 0;
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(
      where, ec_cuda_attention_backward_workspace(&place, &given.problem, &gradient, &bytes, &error),
      error);
  void* workspace = ecpy::allocated(allocate, bytes);
  const ec_status status = ecpy::start_released([&] {
    return ec_cuda_attention_backward(&place, &given.problem, &gradient, rest, workspace, &error);
  });
  ecpy::check_status(where, status, error);
}

}  // namespace

void register_attention(py::module_& module) {
  py::class_<Problem>(module, "AttentionProblem")
      .def(py::init<const Problem::Sizes&, const Problem::Arrays&, bool, const Problem::Limits&,
                    const Problem::Keep&, double, int, int>());
  module.def("attention_forward", &attention_forward);
  module.def("attention_backward", &attention_backward);
}
