// SPDX-License-Identifier: Apache-2.0
// The kernels of attention on the emulation, against loops in double: every form, place and cut.
#include "attention_call.h"

namespace {

using attention_call::Call;
using attention_call::compare;
using attention_call::gradients_are_right;
using attention_call::results_are_right;
using attention_model::kDense;
using attention_model::kLengths;
using attention_model::kRagged;
using attention_model::Model;
using attention_model::Shape;
using attention_model::Wanted;

constexpr ec_dtype kDtypes[] = {EC_FLOAT32, EC_BFLOAT16, EC_FLOAT16};
constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;

void calls_are_equal(const Call& a, const Call& b) {
  CHECK(a.out.bytes == b.out.bytes && a.lse.bytes == b.lse.bytes);
  CHECK(a.scores.bytes == b.scores.bytes && a.weights.bytes == b.weights.bytes);
  CHECK(a.grad_key.bytes == b.grad_key.bytes && a.grad_value.bytes == b.grad_value.bytes);
  CHECK(a.grad_query.bytes == b.grad_query.bytes && a.grad_bias.bytes == b.grad_bias.bytes);
  CHECK(a.grad_temperature.bytes == b.grad_temperature.bytes && a.grad_mask.bytes == b.grad_mask.bytes);
}

void every_form() {
  for (const Shape& shape : attention_model::kShapes) {
    Model model(shape);
    const Wanted wanted(model);
    for (const ec_dtype dtype : kDtypes) {
      Call call(model, dtype);
      call.forward(2);
      results_are_right(call, wanted);
      call.backward(2, false, dtype);
      gradients_are_right(call, wanted);
    }
  }
}

// Rows that lie so that they can be copied in pieces, and others; blocks that cut every sequence, or none.
void every_place_and_cut() {
  const Shape shapes[] = {
      {"places", 3, 70, 3, 24, 40, kLengths, kTanh, kFree, false, false, true},
      {"places, own queries", 3, 70, 6, 24, 0, kRagged, kPlain, kNormed, true, true},
  };
  for (const Shape& shape : shapes) {
    Model model(shape);
    const Wanted wanted(model);
    const struct {
      int64_t gap, start;
      int multiprocessors;
    } cases[] = {{8, 8, 7}, {3, 1, 1}, {4, 4, 2}, {2, 6, 3}};
    for (const auto& each : cases) {
      for (const ec_dtype dtype : {EC_FLOAT32, EC_BFLOAT16}) {
        Call call(model, dtype, each.gap, each.start);
        call.forward(each.multiprocessors);
        results_are_right(call, wanted);
        call.backward(each.multiprocessors, false, dtype);
        gradients_are_right(call, wanted);
      }
    }
  }
}

void runs_repeat_and_accumulate() {
  const Shape shape = {"twice", 2, 90, 9, 48, 0, kRagged, kTanh, kNormed, false, false, true};
  Model model(shape);
  const Wanted wanted(model);
  for (const ec_dtype dtype : kDtypes) {
    Call call(model, dtype), again(model, dtype);
    for (Call* each : {&call, &again}) {
      each->forward(3);
      each->backward(3, false, dtype);
    }
    calls_are_equal(call, again);
    call.backward(3, true, dtype);
    compare("grad_key, twice", call, call.grad_key, wanted.grad_key, 2.0);
  }
}

void many_sequences() {
  const Shape shapes[] = {
      {"many, ragged", 40, 120, 2, 8, 0, kRagged, kTanh, kNormed, false, true},
      {"many lengths", 36, 20, 6, 16, 0, kLengths, kPlain, kFree, true},
  };
  for (const Shape& shape : shapes) {
    Model model(shape);
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

// A sequence of more parts than a warp has lanes, of which many tokens at both ends do not count.
void many_parts_behind_many_others() {
  const Shape shape = {"many parts", 1, 2600, 6, 16, 0, kDense, kTanh, kNormed, false, true};
  Model model(shape);
  for (size_t i = 0; i < model.keep.size(); ++i)
    if (i < 700 || i >= 1900) model.keep[i] = 0;
  const Wanted wanted(model);
  for (const ec_dtype dtype : {EC_FLOAT32, EC_BFLOAT16}) {
    Call call(model, dtype);
    call.forward(90);
    results_are_right(call, wanted);
    call.backward(90, false, dtype);
    gradients_are_right(call, wanted);
  }
}

// What rounding has left of out gives it back, but for the last digits.
void rest_and_out_are_wide() {
  const Shape shape = {"rest", 3, 50, 6, 40, 0, kRagged, kTanh, kNormed};
  const Model model(shape);
  for (const double size : {1.0, 1e-6, 1e4}) {
    Model sized = model;
    for (double& number : sized.key) number *= size;
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(sized, dtype);
      call.forward(2);
      int differ = 0;
      for (size_t i = 0; i < call.out.size(); ++i) {
        const double exact = call.wide[i], given = call.out[i];
        if (!std::isfinite(given)) continue;
        int exponent = -1000;  // of 0
        if (given != 0.0) std::frexp(given, &exponent);
        const int least = dtype == EC_FLOAT16 ? -32 : -141, digits = dtype == EC_FLOAT16 ? 10 : 7;
        const double unit = std::ldexp(1.0, std::max(least, exponent - 1 - digits - 8));
        CHECK(std::fabs(given + unit * call.rest[i] - exact) <= unit);
        differ += given != exact && call.rest[i] != 0;
      }
      CHECK(differ > static_cast<int>(call.out.size()) / 2);
    }
  }
}

// Blocks with many tokens take turns at the slots of the query's gradient.
void blocks_take_turns() {
  const Shape shape = {"turns", 2, 2400, 6, 16, 0, kLengths, kTanh, kNormed};
  Model model(shape);
  const Wanted wanted(model);
  for (const ec_dtype dtype : {EC_FLOAT32, EC_BFLOAT16}) {
    Call call(model, dtype), again(model, dtype);
    for (Call* each : {&call, &again}) {
      each->forward(7);
      each->backward(7, false, dtype);
    }
    gradients_are_right(call, wanted);
    calls_are_equal(call, again);
  }
}

}  // namespace

int main() {
  every_form();
  every_place_and_cut();
  runs_repeat_and_accumulate();
  many_sequences();
  many_parts_behind_many_others();
  rest_and_out_are_wide();
  blocks_take_turns();
  return check::report();
}
