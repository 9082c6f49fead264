// SPDX-License-Identifier: Apache-2.0
// Attention of 33 to 64 heads on the emulation: each token is read once, by one block or by the two of a
// cluster, and what comes out is right whatever the columns, arrays and requests are.
#include "attention_call.h"

namespace {

using attention_call::Call;
using attention_call::counted_tokens;
using attention_call::same_results;
using attention_call::same_results_but_for_rounding;
using attention_model::kDense;
using attention_model::kLengths;
using attention_model::kRagged;
using attention_model::Model;
using attention_model::Shape;

constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;

// A forward, and how many bytes of tokens it has copied.
int64_t forward(Call& call, bool clusters, int multiprocessors) {
  call.problem.clusters = clusters;
  const uint64_t before = ec::emulation::copied_bytes();
  call.forward(multiprocessors);
  return static_cast<int64_t>(ec::emulation::copied_bytes() - before);
}

// Of all tokens that count.
int64_t token_bytes(const Call& call) {
  const Shape& shape = call.model.shape;
  return counted_tokens(call) * (shape.key_columns + shape.value_columns) * numbers::size_of(call.dtype);
}

void each_token_is_read_once() {
  const Shape shapes[] = {
      {"64 heads", 1, 45, 64, 768, 0, kDense, kTanh, kNormed},
      {"1024 columns", 1, 40, 64, 1024, 0, kDense, kTanh, kNormed},
      {"33 heads, odd halves", 3, 150, 33, 528, 0, kRagged, kTanh, kNormed, false, true},
      {"values", 2, 40, 40, 600, 776, kLengths, kPlain, kFree, false, false, true, true},
      {"own queries", 3, 70, 48, 640, 0, kLengths, kPlain, kNormed, true},
      {"few keys", 1, 40, 64, 8, 1024, kDense, kTanh, kNormed},
      {"bias", 1, 40, 36, 544, 0, kDense, kTanh, kFree, false, true, true, true},
  };
  for (const Shape& shape : shapes) {
    const Model model(shape);
    Call exact(model, EC_FLOAT32);
    exact.forward(2);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(model, dtype), again(model, dtype);
      CHECK(forward(call, true, 6) == token_bytes(call));
      same_results_but_for_rounding(call, exact);
      forward(again, true, 6);
      CHECK(same_results(call, again));
    }
  }
}

// As many columns as one block pools are read once on every device; without clusters, two blocks or four
// have heads of their own beyond.
void devices_without_clusters() {
  const struct {
    Shape shape;
    int times;
  } cases[] = {
      {{"384 columns", 2, 40, 64, 384, 0, kDense, kTanh, kNormed}, 1},
      {{"512 columns", 1, 70, 40, 512, 0, kRagged, kPlain, kNormed}, 1},
      {{"520 columns", 1, 40, 64, 520, 0, kDense, kTanh, kNormed}, 2},
  };
  for (const auto& each : cases) {
    const Model model(each.shape);
    Call exact(model, EC_FLOAT32), call(model, EC_BFLOAT16);
    exact.forward(2);
    CHECK(forward(call, false, 4) == each.times * token_bytes(call));
    same_results_but_for_rounding(call, exact);
  }
}

// Scores that no bound holds for, whose references move, and all weight on few tokens.
void sharp_sequences() {
  const Shape shape = {"sharp", 2, 90, 40, 528, 0, kRagged, kPlain, kFree, false, true, true};
  Model model(shape);
  for (double& temperature : model.temperature) temperature *= 0.05;
  Call exact(model, EC_FLOAT32);
  exact.forward(2);
  for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
    Call call(model, dtype);
    forward(call, true, 6);
    same_results_but_for_rounding(call, exact);
  }
}

// Sequences of no, few and many tokens, that blocks cut or have many of; rows that lie oddly, and those
// without tokens; requests for nothing but out.
void places_and_cuts() {
  const Shape shapes[] = {
      {"cut", 1, 200, 64, 544, 0, kDense, kTanh, kNormed, false, true},
      {"many", 12, 60, 34, 544, 0, kRagged, kTanh, kNormed, true},
      {"odd columns", 2, 40, 50, 527, 0, kLengths, kTanh, kNormed},
  };
  for (const Shape& shape : shapes) {
    const Model model(shape);
    Call exact(model, EC_FLOAT32);
    exact.forward(2);
    for (const int64_t gap : {3, 4}) {
      Call call(model, EC_BFLOAT16, gap, gap);
      forward(call, true, 14);
      same_results_but_for_rounding(call, exact);
    }
    Call none(model, EC_BFLOAT16);
    none.problem.tokens = 0;
    none.problem.offsets = nullptr;
    none.problem.clusters = true;
    none.forward(4);
    for (size_t i = 0; i < none.out.size(); ++i) CHECK(none.out[i] == 0.0);
  }
}

// A NaN stays in its sequence.
void numbers_beyond() {
  const Shape shape = {"beyond", 3, 40, 36, 528, 0, kDense, kPlain, kFree};
  const Model good(shape);
  Model bad(shape);
  bad.key[static_cast<size_t>(bad.row(1, 7) * 528 + 500)] = NAN;
  Call of_good(good, EC_BFLOAT16), of_bad(bad, EC_BFLOAT16);
  forward(of_good, true, 2);
  forward(of_bad, true, 2);
  for (size_t i = 0; i < of_good.out.size(); ++i)
    if (i / (36 * 528) == 1)
      CHECK(std::isnan(of_bad.out[i]));
    else
      CHECK(of_bad.out[i] == of_good.out[i]);
}

}  // namespace

int main() {
  each_token_is_read_once();
  devices_without_clusters();
  sharp_sequences();
  places_and_cuts();
  numbers_beyond();
  return check::report();
}
