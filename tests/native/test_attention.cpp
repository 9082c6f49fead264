// SPDX-License-Identifier: Apache-2.0
// Attention through the C ABI under every instruction set that runs here: results against loops in double,
// gradients against differences of the loss of those loops.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "embedcore.h"
#include "native/attention_model.h"
#include "native/check.h"
#include "native/numbers.h"

namespace {

using attention_model::Model;
using attention_model::Places;
using attention_model::Shape;
using numbers::Array;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr ec_dtype kDtypes[] = {EC_FLOAT64, EC_FLOAT32, EC_BFLOAT16, EC_FLOAT16};

// Of the largest number of a result. Float: sums of a few hundred products. 16 bits: a few roundings of
// the results, of out in the backward, and (bf16) of the weights. Double: the step of the differences.
double tolerance(ec_dtype dtype) {
  return dtype == EC_FLOAT64 ? 3e-8 : dtype == EC_FLOAT32 ? 5e-6 : dtype == EC_FLOAT16 ? 2e-3 : 1.6e-2;
}

constexpr double kLeastScale = 1e-2;  // of results that are 0 but for rounding

// One model in one dtype, as the library takes it and with room for what it gives.
struct Call {
  Call(const Model& of, ec_dtype type)
      : model(of),
        dtype(type),
        real(type == EC_FLOAT64 ? EC_FLOAT64 : EC_FLOAT32),
        key(type, of.key),
        value(type, of.value),
        query(type, of.query),
        mask(EC_FLOAT32, of.mask),
        bias(EC_FLOAT64, of.bias),
        temperature(EC_FLOAT64, of.temperature),
        grad_out(real, of.grad_out),
        grad_lse(EC_FLOAT32, of.grad_lse),
        out(type, of.shape.heads * of.shape.sequences * of.value_columns()),
        lse(real, of.shape.sequences * of.shape.heads),
        scores(real, of.score_count()),
        weights(real, of.score_count()),
        wide(real, static_cast<int64_t>(out.size())),
        grad_key(type, static_cast<int64_t>(of.key.size())),
        grad_value(type, static_cast<int64_t>(of.value.size())),
        grad_query(real, static_cast<int64_t>(of.query.size())),
        grad_temperature(real, of.shape.sequences * of.shape.heads),
        grad_bias(real, of.score_count()),
        grad_mask(real, of.rows()) {
    describe();
  }

  void describe() {
    const Shape& shape = model.shape;
    const int64_t room = shape.tokens, heads = shape.heads, values = model.value_columns();
    std::memset(&problem, 0, sizeof problem);
    problem.sequences = shape.sequences;
    problem.tokens = room;
    problem.heads = heads;
    problem.key_columns = shape.key_columns;
    problem.value_columns = values;
    problem.key = {key.data(), {room * shape.key_columns, shape.key_columns, 1}, dtype};
    if (shape.value_columns > 0) problem.value = {value.data(), {room * values, values, 1}, dtype};
    if (shape.scored) problem.query = {query.data(), {shape.key_columns * heads, heads, 1}, dtype};
    problem.query_per_sequence = shape.own_query ? 1 : 0;
    problem.offsets = model.offsets.empty() ? nullptr : model.offsets.data();
    problem.lengths = model.lengths.empty() ? nullptr : model.lengths.data();
    if (!model.keep.empty()) problem.keep = model.keep.data();
    problem.keep_stride[0] = room;
    problem.keep_stride[1] = 1;
    if (shape.mask) problem.mask = {mask.data(), {room, 1, 0}, EC_FLOAT32};
    if (shape.bias) problem.bias = {bias.data(), {room * heads, heads, 1}, EC_FLOAT64};
    problem.temperature = {temperature.data(), {heads, 1, 0}, EC_FLOAT64};
    problem.activation = shape.activation;
    problem.norm = shape.norm;
  }

  void forward(int threads) {
    problem.threads = threads;
    const ec_attention_result result = {out.data(), lse.data(), scores.data(), weights.data(), wide.data()};
    ec_error error = {};
    CHECK(ec_attention_forward(&problem, &result, &error) == EC_OK);
  }

  void backward(int threads, bool accumulate, bool from_wide = false) {
    const int64_t heads = model.shape.heads, values = model.value_columns();
    const ec_array of_out = {grad_out.data(), {heads * values, values, 1}, real};
    const ec_array of_lse = {grad_lse.data(), {heads, 1, 0}, EC_FLOAT32};
    ec_attention_gradient gradient;
    std::memset(&gradient, 0, sizeof gradient);
    gradient.grad_out = &of_out;
    gradient.grad_lse = &of_lse;
    gradient.out = from_wide ? wide.data() : out.data();
    gradient.out_dtype = from_wide ? real : dtype;
    gradient.lse = lse.data();
    gradient.scores = scores.data();
    gradient.grad_key = grad_key.data();
    gradient.grad_value = model.shape.value_columns > 0 ? grad_value.data() : nullptr;
    gradient.grad_query = model.shape.scored ? grad_query.data() : nullptr;
    gradient.grad_temperature = grad_temperature.data();
    gradient.grad_bias = grad_bias.data();
    gradient.grad_mask = grad_mask.data();
    gradient.accumulate = accumulate ? 1 : 0;
    problem.threads = threads;
    ec_error error = {};
    CHECK(ec_attention_backward(&problem, &gradient, &error) == EC_OK);
  }

  const Model& model;
  ec_dtype dtype, real;
  Array key, value, query, mask, bias, temperature, grad_out, grad_lse;
  Array out, lse, scores, weights, wide;
  Array grad_key, grad_value, grad_query, grad_temperature, grad_bias, grad_mask;
  ec_attention_problem problem;
};

void compare(const char* what, const Call& call, const Array& got, const Places& wanted,
             double factor = 1.0) {
  double largest = kLeastScale;
  for (const auto& place : wanted)
    if (std::isfinite(place.second)) largest = std::fmax(largest, factor * std::fabs(place.second));
  const double bound = tolerance(call.dtype) * largest;
  int told = 0;
  for (const auto& place : wanted) {
    const double is = got[place.first], should = factor * place.second;
    const bool right = is == should || std::fabs(is - should) <= bound;
    CHECK(right);
    if (!right && ++told <= 3)
      std::fprintf(stderr, "%s %s dtype %d %s[%d]: %g, not %g\n", ec_get_isa(), call.model.shape.name,
                   call.dtype, what, static_cast<int>(place.first), is, should);
  }
}

void gradients_are_right(const Call& call, const attention_model::Wanted& wanted) {
  compare("grad_key", call, call.grad_key, wanted.grad_key);
  if (call.model.shape.value_columns > 0) compare("grad_value", call, call.grad_value, wanted.grad_value);
  compare("grad_query", call, call.grad_query, wanted.grad_query);
  compare("grad_temperature", call, call.grad_temperature, wanted.grad_temperature);
  compare("grad_bias", call, call.grad_bias, wanted.grad_bias);
  compare("grad_mask", call, call.grad_mask, wanted.grad_mask);
}

void one_call_is_right(const Model& model, const attention_model::Wanted& wanted, ec_dtype dtype) {
  Call call(model, dtype), threaded(model, dtype);
  call.forward(1);
  compare("out", call, call.out, wanted.out);
  compare("wide", call, call.wide, wanted.out);
  compare("lse", call, call.lse, wanted.lse);
  compare("scores", call, call.scores, wanted.scores);
  compare("weights", call, call.weights, wanted.weights);
  for (const bool from_wide : {true, false}) {
    call.backward(1, false, from_wide);
    gradients_are_right(call, wanted);
  }
  threaded.forward(3);
  threaded.backward(3, false);
  CHECK(call.out.bytes == threaded.out.bytes && call.lse.bytes == threaded.lse.bytes);
  CHECK(call.scores.bytes == threaded.scores.bytes && call.weights.bytes == threaded.weights.bytes);
  CHECK(call.grad_key.bytes == threaded.grad_key.bytes);
  CHECK(call.grad_query.bytes == threaded.grad_query.bytes);
  CHECK(call.grad_temperature.bytes == threaded.grad_temperature.bytes);
  call.backward(1, true);
  compare("grad_key, twice", call, call.grad_key, wanted.grad_key, 2.0);
}

// ---- what is refused, and what is empty -----------------------------------------------------------

const Shape kSmall = {"small", 3, 6, 2, 5, 4, attention_model::kDense, EC_ACTIVATION_TANH, EC_HEAD_NORM_L2};

void refused(const ec_attention_problem& problem, const char* argument, int64_t row) {
  ec_error error = {};
  const ec_attention_result result = {};
  const ec_attention_gradient gradient = {};
  CHECK(ec_attention_forward(&problem, &result, &error) == EC_INVALID_VALUE);
  CHECK(std::strcmp(error.argument, argument) == 0);
  CHECK(error.row == row);
  CHECK(error.message[0] != '\0');
  CHECK(ec_attention_backward(&problem, &gradient, &error) == EC_INVALID_VALUE);
  CHECK(ec_attention_forward(&problem, &result, nullptr) == EC_INVALID_VALUE);
}

void bad_problems_are_refused() {
  const Model model(kSmall);
  const Call call(model, EC_FLOAT32);
  ec_attention_problem bad = call.problem;
  bad.heads = 0;
  refused(bad, "query", -1);
  bad = call.problem;
  bad.key_columns = 0;
  refused(bad, "key", -1);
  bad = call.problem;
  bad.value_columns = 0;
  refused(bad, "value", -1);
  const std::vector<int64_t> offsets[] = {
      {1, 2, 4, 6}, {0, 4, 2, 6}, {0, 2, 4, 5}, {0, -1, 4, 6}, {0, 2, 7, 6}};
  const int64_t offset_rows[] = {0, 2, 3, 1, 3};
  for (int i = 0; i < 5; ++i) {
    bad = call.problem;
    bad.offsets = offsets[i].data();
    refused(bad, "cu_seqlens", offset_rows[i]);
  }
  const std::vector<int64_t> lengths[] = {{6, 7, 6}, {0, 6, -1}};
  const int64_t length_rows[] = {1, 2};
  for (int i = 0; i < 2; ++i) {
    bad = call.problem;
    bad.lengths = lengths[i].data();
    refused(bad, "lengths", length_rows[i]);
  }
  for (const double t : {0.0, -1.0, kInfinity, static_cast<double>(NAN)}) {
    bad = call.problem;
    bad.temperature.data = nullptr;
    bad.fixed_temperature = t;
    refused(bad, "temperature", -1);
    const double one[] = {1.0, 1.0, 1.0, 1.0, 1.0, t};
    bad.temperature = {one, {2, 1, 0}, EC_FLOAT64};
    refused(bad, "temperature", 2);
  }
}

void unknown_choices_are_refused() {
  const Model model(kSmall);
  const Call call(model, EC_FLOAT32);
  ec_attention_problem bad = call.problem;
  bad.activation = static_cast<ec_activation>(7);
  refused(bad, "activation", -1);
  bad = call.problem;
  bad.norm = static_cast<ec_head_norm>(7);
  refused(bad, "norm", -1);
  bad = call.problem;
  bad.sequences = -1;
  refused(bad, "key", -1);
  bad = call.problem;
  bad.key.data = nullptr;
  refused(bad, "key", -1);
  bad = call.problem;
  bad.value.data = nullptr;
  bad.value_columns = bad.key_columns + 1;
  refused(bad, "value", -1);
  bad = call.problem;
  bad.query.dtype = static_cast<ec_dtype>(99);
  ec_error error = {};
  const ec_attention_result result = {};
  CHECK(ec_attention_forward(&bad, &result, &error) == EC_INVALID_TYPE);
  CHECK(std::strcmp(error.argument, "query") == 0);
}

void missing_results_are_refused() {
  const Model model(kSmall);
  const Call call(model, EC_FLOAT32);
  ec_error error = {};
  const ec_attention_result result = {};
  const ec_attention_gradient gradient = {};
  CHECK(ec_attention_forward(nullptr, &result, &error) == EC_INVALID_VALUE);
  CHECK(ec_attention_forward(&call.problem, nullptr, &error) == EC_INVALID_VALUE);
  CHECK(ec_attention_forward(&call.problem, &result, &error) == EC_INVALID_VALUE);
  CHECK(std::strcmp(error.argument, "out") == 0);
  CHECK(ec_attention_backward(&call.problem, &gradient, &error) == EC_INVALID_VALUE);
  CHECK(std::strcmp(error.argument, "grad_out") == 0);
}

void nothing_gives_nothing(ec_dtype dtype) {
  const Model model(kSmall);
  Call none(model, dtype);
  none.problem.sequences = 0;
  none.forward(1);
  none.backward(1, false);
  for (size_t i = 0; i < none.grad_query.size(); ++i) CHECK(none.grad_query[i] == 0.0);

  Call empty(model, dtype);
  empty.problem.tokens = 0;
  std::memset(empty.out.data(), 1, empty.out.bytes.size());
  empty.forward(1);
  for (size_t i = 0; i < empty.out.size(); ++i) CHECK(empty.out[i] == 0.0);
  for (size_t i = 0; i < empty.lse.size(); ++i) CHECK(empty.lse[i] == -kInfinity);
  empty.backward(1, false);
  for (size_t i = 0; i < empty.grad_query.size(); ++i) CHECK(empty.grad_query[i] == 0.0);
  for (size_t i = 0; i < empty.grad_temperature.size(); ++i) CHECK(empty.grad_temperature[i] == 0.0);
}

}  // namespace

int main() {
  const char* names[16] = {};
  const int count = ec_list_isas(names, 16);
  for (const Shape& shape : attention_model::kShapes) {
    Model model(shape);
    const attention_model::Wanted wanted(model);
    for (int i = 0; i < count; ++i) {
      CHECK(ec_set_isa(names[i], nullptr) == EC_OK);
      for (const ec_dtype dtype : kDtypes) one_call_is_right(model, wanted, dtype);
    }
  }
  for (int i = 0; i < count; ++i) {
    CHECK(ec_set_isa(names[i], nullptr) == EC_OK);
    for (const ec_dtype dtype : kDtypes) nothing_gives_nothing(dtype);
  }
  bad_problems_are_refused();
  unknown_choices_are_refused();
  missing_results_are_refused();
  return check::report();
}
