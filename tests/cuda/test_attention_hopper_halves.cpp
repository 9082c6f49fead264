// SPDX-License-Identifier: Apache-2.0
// The forward of attention on Hopper by two blocks of a cluster, which have half of the columns each
// (attention/hopper/attend_halves.cuh), on the emulation.
#include "attention_on_hopper.h"

namespace {

using attention_call::Call;
using attention_call::same_results;
using attention_call::same_results_but_for_rounding;
using attention_model::kDense;
using attention_model::kLengths;
using attention_model::kRagged;
using attention_model::Model;
using attention_model::Shape;
using attention_on_hopper::has_read_once;

constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;

int64_t forward(Call& call, int multiprocessors) {
  return attention_on_hopper::forward(call, multiprocessors, true, 2);
}

// Blocks with as many panels, and with one less; those whose ring holds two tiles and no more.
constexpr Shape kForms[] = {
    {"64 heads, 768 columns", 1, 80, 64, 768, 0, kDense, kTanh, kNormed},
    {"1024 columns", 1, 70, 50, 1024, 0, kDense, kPlain, kNormed},
    {"32 heads, 904 columns", 1, 70, 32, 904, 0, kDense, kTanh, kNormed},
    {"three tiles", 1, 150, 33, 520, 0, kDense, kTanh, kNormed},
    {"odd panels and columns, ragged", 3, 50, 33, 531, 0, kRagged, kTanh, kFree, true},
    {"mask and bias, lengths", 3, 40, 36, 520, 0, kLengths, kTanh, kNormed, false, false, true, true},
    {"kept", 1, 90, 34, 584, 0, kDense, kPlain, kNormed, true, true, false, true},
    {"ragged, all", 2, 70, 35, 528, 0, kRagged, kPlain, kFree, true, true, true, true},
};

// By one cluster, which walks all, and by more.
void every_form() {
  for (const Shape& shape : kForms) {
    const Model model(shape);
    const int64_t gap = (8 - shape.key_columns % 8) % 8;
    Call exact(model, EC_FLOAT32);
    exact.forward(2);
    Call half(model, EC_FLOAT16, gap), whole(model, EC_BFLOAT16, gap), cut(model, EC_BFLOAT16, gap);
    forward(half, 2);
    same_results_but_for_rounding(half, exact);
    forward(whole, 2);
    same_results_but_for_rounding(whole, exact);
    forward(cut, 6);
    same_results_but_for_rounding(cut, exact);
  }
}

void results_repeat() {
  const Shape shape = {"repeated", 1, 120, 34, 520, 0, kRagged, kPlain, kFree, false, true, true};
  const Model model(shape);
  Call once(model, EC_BFLOAT16), again(model, EC_BFLOAT16);
  forward(once, 4);
  forward(again, 4);
  CHECK(same_results(once, again));
}

void each_token_is_read_once() {
  const struct {
    Shape shape;
    int multiprocessors;
    int64_t pieces;  // that may end within a sequence, or before others of an array
  } cases[] = {
      {{"whole", 1, 72, 33, 520, 0, kDense, kTanh, kNormed}, 2, 0},
      {{"cut", 1, 90, 40, 640, 0, kDense, kTanh, kNormed}, 6, 2},
  };
  for (const auto& each : cases) {
    const Model model(each.shape);
    Call call(model, EC_BFLOAT16);
    CHECK(has_read_once(call, forward(call, each.multiprocessors), each.pieces));
  }
}

// Scores that no bound holds for, whose references move, and all weight on few tokens.
void sharp_sequences() {
  const Shape shape = {"sharp", 1, 140, 33, 520, 0, kRagged, kPlain, kFree, false, true, true};
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

// Many short sequences and those without tokens: pieces that begin where others end.
void many_sequences() {
  const Shape shapes[] = {
      {"many", 9, 36, 33, 520, 0, kRagged, kTanh, kNormed, true},
      {"many lengths", 7, 9, 33, 520, 0, kLengths, kPlain, kFree},
  };
  for (const Shape& shape : shapes) {
    const Model model(shape);
    Call exact(model, EC_FLOAT32), call(model, EC_BFLOAT16);
    exact.forward(2);
    forward(call, 4);
    same_results_but_for_rounding(call, exact);
  }
  const Model model(shapes[0]);
  const std::vector<uint8_t> keep(36, 0);
  Call none(model, EC_BFLOAT16);
  none.problem.keep = keep.data();
  forward(none, 2);
  for (size_t i = 0; i < none.out.size(); ++i) CHECK(none.out[i] == 0.0);
}

// A NaN stays in its sequence, whatever tile it comes with and block it comes to.
void numbers_beyond() {
  const Shape shape = {"beyond", 3, 30, 33, 520, 0, kRagged, kPlain, kFree};
  const Model good(shape);
  Model bad(shape);
  bad.key[static_cast<size_t>(bad.row(2, 0) * 520 + 500)] = NAN;  // of the second block
  Call of_good(good, EC_BFLOAT16), of_bad(bad, EC_BFLOAT16);
  forward(of_good, 2);
  forward(of_bad, 2);
  for (size_t i = 0; i < of_good.out.size(); ++i)
    if (i / (33 * 520) == 2)
      CHECK(std::isnan(of_bad.out[i]));
    else
      CHECK(of_bad.out[i] == of_good.out[i]);
}

}  // namespace

int main() {
  every_form();
  results_repeat();
  each_token_is_read_once();
  sharp_sequences();
  many_sequences();
  numbers_beyond();
  return check::report();
}
