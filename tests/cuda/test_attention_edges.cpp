// SPDX-License-Identifier: Apache-2.0
// The kernels of attention on the emulation: many heads and columns, whose 16 bits are compared with what
// float32 gives, and numbers, weights and rows at the edges, against loops in double.
#include "attention_call.h"

namespace {

using attention_call::Call;
using attention_call::compare;
using attention_call::gradients_are_right;
using attention_call::places_of;
using attention_call::results_are_right;
using attention_model::kDense;
using attention_model::kLengths;
using attention_model::kRagged;
using attention_model::Model;
using attention_model::Shape;
using attention_model::Wanted;

constexpr ec_dtype kDtypes[] = {EC_FLOAT32, EC_BFLOAT16, EC_FLOAT16};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;

// Whether 16 bits, on tensor cores as a rule, give what float32 gives.
void agrees_with_float(const Shape& shape, ec_dtype dtype) {
  const Model model(shape);
  Call call(model, dtype), exact(model, EC_FLOAT32);
  call.forward(2);
  exact.forward(2);
  compare("out", call, call.out, places_of(exact.out));
  compare("lse", call, call.lse, places_of(exact.lse));
  compare("weights", call, call.weights, places_of(exact.weights));
  call.backward(2, false, dtype);
  exact.backward(2);
  compare("grad_key", call, call.grad_key, places_of(exact.grad_key));
  compare("grad_value", call, call.grad_value, places_of(exact.grad_value));
  compare("grad_query", call, call.grad_query, places_of(exact.grad_query));
  compare("grad_temperature", call, call.grad_temperature, places_of(exact.grad_temperature));
  compare("grad_bias", call, call.grad_bias, places_of(exact.grad_bias));
}

void many_heads_and_columns() {
  const Shape shapes[] = {
      {"16 heads", 3, 100, 16, 136, 0, kRagged, kTanh, kNormed, false, true},
      {"17 heads", 2, 40, 17, 56, 400, kLengths, kPlain, kFree, false, false, true, true},
      {"33 heads", 2, 50, 33, 48, 0, kDense, kTanh, kNormed, false, false, false, true},
      {"64 heads, own queries", 2, 40, 64, 40, 72, kDense, kPlain, kNormed, true},
      {"70 heads", 1, 40, 70, 24, 0, kDense, kTanh, kNormed},
  };
  for (const Shape& shape : shapes) agrees_with_float(shape, EC_BFLOAT16);
  agrees_with_float(shapes[1], EC_FLOAT16);
  agrees_with_float(shapes[2], EC_FLOAT16);
  agrees_with_float({"bf16, 800 columns", 1, 20, 20, 800, 0, kDense, kTanh, kNormed}, EC_BFLOAT16);
  agrees_with_float({"bf16, 1024 columns", 2, 75, 30, 1024, 0, kRagged, kTanh, kNormed}, EC_BFLOAT16);
  agrees_with_float({"bf16, 1100 columns", 1, 20, 8, 1100, 0, kDense, kTanh, kNormed}, EC_BFLOAT16);
}

// What does not fit shared memory as well as tokens do.
void wide_rows() {
  const Shape shapes[] = {
      {"4100 columns", 1, 11, 2, 4100, 0, kDense, kTanh, kNormed},
      {"3001 and 2500 columns", 2, 6, 3, 3001, 2500, kLengths, kPlain, kFree},
  };
  for (const Shape& shape : shapes) {
    Model model(shape);
    const Wanted wanted(model);
    Call call(model, EC_FLOAT32);
    call.forward(2);
    results_are_right(call, wanted);
    call.backward(2);
    gradients_are_right(call, wanted);
  }
}

// All weight is on few tokens. Differences of the loss are less exact then.
void sharp_sequences() {
  for (const bool masked : {false, true}) {
    Shape shape = {"sharp", 2, 60, 6, 20, 12, kDense, kPlain, kFree, false, false, masked};
    Model model(shape);
    for (double& temperature : model.temperature) temperature *= 0.02;
    const Wanted wanted(model);
    for (const ec_dtype dtype : {EC_FLOAT32, EC_BFLOAT16}) {
      Call call(model, dtype);
      call.forward(3);
      results_are_right(call, wanted);
      call.backward(3, false, dtype);
      gradients_are_right(call, wanted);
    }
  }
}

// Weights sum to 1: the same gradient of all of them is none.
void gradients_of_weights() {
  const Shape shape = {"weights", 2, 90, 6, 24, 0, kRagged, kTanh, kFree, false, false, true};
  Model model(shape);
  const Wanted wanted(model);
  for (const ec_dtype dtype : {EC_FLOAT32, EC_BFLOAT16}) {
    Call call(model, dtype);
    call.grad_weights.assign(static_cast<size_t>(model.score_count()), 0.75f);
    call.forward(3);
    call.backward(3, false, dtype);
    gradients_are_right(call, wanted);
  }
}

// A NaN reaches its own sequence alone, and huge scores end in weights of 0 and 1.
void numbers_beyond() {
  const Shape shape = {"beyond", 3, 40, 6, 16, 0, kDense, kPlain, kFree};
  const Model good(shape);
  Model bad(shape);
  bad.key[static_cast<size_t>(bad.row(1, 7) * 16 + 3)] = NAN;
  for (const ec_dtype dtype : kDtypes) {
    Call of_good(good, dtype), of_bad(bad, dtype);
    of_good.forward(2);
    of_bad.forward(2);
    for (size_t i = 0; i < of_good.out.size(); ++i) {
      if (i / (6 * 16) == 1)
        CHECK(std::isnan(of_bad.out[i]));
      else
        CHECK(of_bad.out[i] == of_good.out[i]);
    }
  }
  Model huge(shape);
  for (double& number : huge.query) number *= 3e3;
  for (const ec_dtype dtype : kDtypes) {
    Call call(huge, dtype);
    call.forward(2);
    call.backward(2, false, dtype);
    for (size_t i = 0; i < call.weights.size(); ++i)
      CHECK(call.weights[i] >= 0.0 && call.weights[i] <= 1.001);
    for (size_t i = 0; i < call.grad_key.size(); ++i) CHECK(std::isfinite(call.grad_key[i]));
    for (size_t i = 0; i < call.grad_query.size(); ++i) CHECK(std::isfinite(call.grad_query[i]));
  }
}

void nothing_gives_nothing() {
  const Shape shape = {"nothing", 3, 6, 6, 8, 8, kDense, kTanh, kNormed};
  const Model model(shape);
  for (const ec_dtype dtype : kDtypes) {
    Call none(model, dtype);
    none.problem.sequences = 0;
    none.forward(2);
    none.backward(2, false, dtype);
    for (size_t i = 0; i < none.grad_query.size(); ++i) CHECK(none.grad_query[i] == 0.0);
    const std::vector<uint8_t> keep(18, 0);
    for (const bool masked : {false, true}) {
      Call empty(model, dtype);
      if (masked)
        empty.problem.keep = keep.data();
      else
        empty.problem.tokens = 0;
      empty.forward(2);
      for (size_t i = 0; i < empty.out.size(); ++i) CHECK(empty.out[i] == 0.0);
      for (size_t i = 0; i < empty.lse.size(); ++i) CHECK(empty.lse[i] == -kInfinity);
      empty.backward(2, false, dtype);
      for (size_t i = 0; i < empty.grad_query.size(); ++i) CHECK(empty.grad_query[i] == 0.0);
      for (size_t i = 0; i < empty.grad_temperature.size(); ++i) CHECK(empty.grad_temperature[i] == 0.0);
      for (size_t i = 0; i < empty.grad_key.size() && masked; ++i) CHECK(empty.grad_key[i] == 0.0);
      for (size_t i = 0; i < empty.scores.size() && masked; ++i) CHECK(empty.scores[i] == 0.0);
    }
  }
}

}  // namespace

int main() {
  many_heads_and_columns();
  wide_rows();
  sharp_sequences();
  gradients_of_weights();
  numbers_beyond();
  nothing_gives_nothing();
  return check::report();
}
