// SPDX-License-Identifier: Apache-2.0
// The forward of attention as a device with Hopper's instructions takes it, on the emulation: each token is
// read once, and what comes out is right whatever the places, cuts, numbers and requests are.
#include "attention_on_hopper.h"

#include "attention/hopper/weigh_panels.cuh"

namespace {

using attention_call::Call;
using attention_call::same_results;
using attention_call::same_results_but_for_rounding;
using attention_model::kDense;
using attention_model::kLengths;
using attention_model::kRagged;
using attention_model::Model;
using attention_model::Shape;
using attention_on_hopper::forward;
using attention_on_hopper::has_read_once;

constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;

constexpr Shape kForms[] = {
    {"8 heads", 2, 200, 8, 384, 0, kDense, kTanh, kNormed},
    {"16 heads, 768 columns", 1, 150, 16, 768, 0, kDense, kTanh, kNormed},
    {"32 heads, 768 columns", 1, 100, 32, 768, 0, kDense, kTanh, kNormed},
    {"1000 columns", 1, 70, 12, 1000, 0, kDense, kPlain, kNormed},
    {"64 heads", 1, 140, 64, 384, 0, kDense, kTanh, kNormed},
    {"64 heads, 512 columns", 1, 70, 64, 512, 0, kDense, kTanh, kNormed},
    {"33 heads, odd panels", 2, 90, 33, 200, 0, kRagged, kTanh, kFree},
    {"lengths", 4, 150, 9, 136, 0, kLengths, kPlain, kFree},
    {"ragged", 6, 350, 16, 264, 0, kRagged, kTanh, kNormed, true},
    {"mask and bias", 3, 130, 20, 72, 0, kDense, kTanh, kNormed, false, false, true, true},
    {"kept", 3, 130, 7, 328, 0, kDense, kPlain, kNormed, true, true, false, true},
    {"ragged, all", 5, 300, 24, 88, 0, kRagged, kPlain, kFree, true, true, true, true},
};

void every_form() {
  for (const Shape& shape : kForms) {
    const Model model(shape);
    Call exact(model, EC_FLOAT32);
    exact.forward(2);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call whole(model, dtype), cut(model, dtype), again(model, dtype);
      forward(whole, 1);
      same_results_but_for_rounding(whole, exact);
      forward(cut, 5);
      same_results_but_for_rounding(cut, exact);
      if (dtype == EC_FLOAT16) continue;
      forward(again, 5);
      CHECK(same_results(cut, again));
    }
  }
}

// One sequence that many blocks have: more parts than a thread asks for at once, and than a lane weighs
// without asking again; references that move, and heads that are not all of eight.
void many_parts() {
  for (const int parts : {9, 10, 33, 170}) {
    const Shape shape = {"parts", 1, 64 * parts - 5, 10, 72, 0, kDense, kPlain, kFree};
    Model model(shape);
    for (double& temperature : model.temperature) temperature *= 0.2;
    Call exact(model, EC_FLOAT32);
    exact.forward(2);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      if (parts > 100 && dtype == EC_FLOAT16) continue;
      Call call(model, dtype), again(model, dtype);
      forward(call, parts);
      same_results_but_for_rounding(call, exact);
      forward(again, parts);
      CHECK(same_results(call, again));
    }
  }
}

void each_token_is_read_once() {
  const struct {
    Shape shape;
    int multiprocessors;
    int64_t pieces;  // that may end within a sequence, or before others of an array
  } cases[] = {
      {{"whole", 3, 200, 16, 768, 0, kDense, kTanh, kNormed}, 1, 0},
      {{"64 heads", 2, 90, 40, 384, 0, kDense, kTanh, kNormed}, 1, 0},
      {{"cut", 1, 350, 32, 520, 0, kDense, kTanh, kNormed}, 4, 3},
      {{"cut, narrow", 2, 300, 16, 256, 0, kDense, kTanh, kNormed}, 3, 5},
      {{"lengths", 4, 150, 9, 704, 0, kLengths, kPlain, kFree}, 2, 5},
      {{"ragged", 6, 350, 16, 640, 0, kRagged, kTanh, kNormed}, 3, 8},
  };
  for (const auto& each : cases) {
    const Model model(each.shape);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(model, dtype);
      CHECK(has_read_once(call, forward(call, each.multiprocessors), each.pieces));
    }
  }
}

void as_loops_in_double_say() {
  const Shape shapes[] = {
      {"double", 2, 150, 6, 72, 0, kRagged, kTanh, kNormed, false, true},
      {"double, mask", 1, 80, 9, 80, 0, kDense, kPlain, kFree, true, false, true, true},
  };
  for (const Shape& shape : shapes) {
    Model model(shape);
    const attention_model::Wanted wanted(model);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(model, dtype);
      forward(call, 2);
      attention_call::results_are_right(call, wanted);
    }
  }
}

// Scores that no bound holds for, whose references move, and all weight on few tokens.
void sharp_sequences() {
  const Shape shape = {"sharp", 2, 350, 20, 136, 0, kRagged, kPlain, kFree, false, true, true};
  Model model(shape);
  for (double& temperature : model.temperature) temperature *= 0.05;
  Call exact(model, EC_FLOAT32);
  exact.forward(2);
  for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
    Call call(model, dtype);
    forward(call, 2);
    same_results_but_for_rounding(call, exact);
  }
}

// Numbers of a query that float16 has not.
void large_and_small_queries() {
  const Shape shape = {"sizes", 1, 100, 6, 72, 0, kDense, kPlain, kNormed};
  for (const double size : {1e-6, 1e6}) {
    Model model(shape);
    for (double& number : model.query) number *= size;
    Call exact(model, EC_FLOAT32);
    exact.forward(2);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(model, dtype);
      forward(call, 2);
      same_results_but_for_rounding(call, exact);
    }
  }
}

// Rows with others' numbers between them, which the copy engine finds or not; many short sequences, and
// those without tokens.
void places() {
  const Shape shapes[] = {
      {"many", 40, 300, 8, 128, 0, kRagged, kTanh, kNormed, true},
      {"many lengths", 36, 20, 17, 96, 0, kLengths, kPlain, kFree},
      {"odd columns", 3, 100, 16, 101, 0, kLengths, kTanh, kNormed},
  };
  for (const Shape& shape : shapes) {
    const Model model(shape);
    Call exact(model, EC_FLOAT32);
    exact.forward(2);
    const struct {
      int64_t gap, start;
    } cases[] = {{8, 8}, {3, 0}, {3, 8}, {8, 4}};
    for (const auto& each : cases) {
      Call call(model, EC_BFLOAT16, each.gap, each.start);
      forward(call, 3, (shape.key_columns + each.gap) % 8 == 0 && each.start % 8 == 0);
      same_results_but_for_rounding(call, exact);
    }
  }
  const Model model(shapes[0]);
  const std::vector<uint8_t> keep(300, 0);
  for (const bool masked : {false, true}) {
    Call none(model, EC_BFLOAT16);
    if (masked) {
      none.problem.keep = keep.data();
    } else {
      none.problem.tokens = 0;
      none.problem.offsets = nullptr;
    }
    forward(none, 2, masked);
    for (size_t i = 0; i < none.out.size(); ++i) CHECK(none.out[i] == 0.0);
  }
}

// A NaN stays in its sequence, whatever tile it comes with.
void numbers_beyond() {
  for (const auto layout : {kDense, kRagged}) {
    const Shape shape = {"beyond", 3, 120, 6, 136, 0, layout, kPlain, kFree};
    const Model good(shape);
    Model bad(shape);
    bad.key[static_cast<size_t>(bad.row(2, 0) * 136 + 100)] = NAN;
    Call of_good(good, EC_BFLOAT16), of_bad(bad, EC_BFLOAT16);
    forward(of_good, 1);
    forward(of_bad, 1);
    for (size_t i = 0; i < of_good.out.size(); ++i)
      if (i / (6 * 136) == 2)
        CHECK(std::isnan(of_bad.out[i]));
      else
        CHECK(of_bad.out[i] == of_good.out[i]);
  }
}

// Requests for nothing but out.
void out_alone() {
  const Shape shape = {"out", 3, 130, 12, 200, 0, kDense, kTanh, kNormed};
  const Model model(shape);
  Call all(model, EC_BFLOAT16), alone(model, EC_BFLOAT16);
  forward(all, 2);
  alone.problem.hopper = true;
  ec::cuda::AttentionResult result = {};
  result.out = alone.out.data();
  const attention_call::Workspace workspace(
      ec::cuda::attention_forward_workspace_bytes(alone.problem, result, 2));
  CHECK(ec::cuda::run_attention_forward(alone.problem, result, 2, workspace.memory.get(), nullptr));
  CHECK(alone.out.bytes == all.out.bytes);
}

// As near as the comment at near_tanh says, on both sides of where it changes.
void tanh_is_near() {
  for (int i = -4000; i <= 4000; ++i) {
    const float a = static_cast<float>(i) / 400.0f;
    const double exact = std::tanh(static_cast<double>(a));
    CHECK(std::fabs(static_cast<double>(ec::cuda::near_tanh(a)) - exact) <= 2e-7 * std::fabs(exact));
  }
  CHECK(ec::cuda::near_tanh(1e30f) == 1.0f && ec::cuda::near_tanh(-1e30f) == -1.0f);
  CHECK(ec::cuda::near_tanh(1e-30f) == 1e-30f && std::isnan(ec::cuda::near_tanh(NAN)));
}

}  // namespace

int main() {
  tanh_is_near();
  every_form();
  many_parts();
  each_token_is_read_once();
  as_loops_in_double_say();
  sharp_sequences();
  large_and_small_queries();
  places();
  numbers_beyond();
  out_alone();
  return check::report();
}
