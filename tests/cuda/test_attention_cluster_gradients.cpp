// SPDX-License-Identifier: Apache-2.0
// The backward of attention by clusters of two blocks on the emulation: 33 to 64 heads and more columns
// than one block has registers for.
#include "attention_call.h"

namespace {

using attention_call::Array;
using attention_call::Call;
using attention_call::compare;
using attention_call::counted_tokens;
using attention_call::gradients_are_right;
using attention_call::places_of;
using attention_call::same_gradients_but_for_rounding;
using attention_model::kDense;
using attention_model::kLengths;
using attention_model::kRagged;
using attention_model::Model;
using attention_model::Shape;

constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;

// Forward and backward, and how many bytes of tokens and scores the backward has copied.
int64_t run(Call& call, int multiprocessors) {
  call.problem.clusters = true;
  call.forward(multiprocessors);
  const uint64_t before = ec::emulation::copied_bytes();
  call.backward(multiprocessors, false, call.dtype);
  return static_cast<int64_t>(ec::emulation::copied_bytes() - before);
}

// Of what a cluster copies, where all tokens count that are not beyond the lengths: each block has half of
// a token, and all of its scores.
int64_t bytes_of_clusters(const Call& call) {
  const Shape& shape = call.model.shape;
  const int64_t columns = shape.key_columns + shape.value_columns;
  return counted_tokens(call) * (columns * numbers::size_of(call.dtype) + 2 * shape.heads * 4);
}

bool same_gradients(const Call& a, const Call& b) {
  return a.grad_key.bytes == b.grad_key.bytes && a.grad_value.bytes == b.grad_value.bytes &&
         a.grad_query.bytes == b.grad_query.bytes && a.grad_bias.bytes == b.grad_bias.bytes &&
         a.grad_temperature.bytes == b.grad_temperature.bytes && a.grad_mask.bytes == b.grad_mask.bytes;
}

// As differences of the loss are.
void gradients_are_those_of_the_loss() {
  const Shape shapes[] = {
      {"33 heads, ragged", 3, 42, 33, 400, 0, kRagged, kTanh, kNormed},
      {"values", 2, 18, 34, 392, 40, kLengths, kPlain, kFree, true, false, true, true},
  };
  for (const Shape& shape : shapes) {
    Model model(shape);
    const attention_model::Wanted wanted(model);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(model, dtype);
      run(call, 4);
      gradients_are_right(call, wanted);
    }
  }
}

// Digit by digit the same in every run, whichever block is ahead.
void each_token_is_read_once() {
  const Shape shapes[] = {
      {"64 heads", 1, 37, 64, 768, 0, kDense, kTanh, kNormed},
      {"1024 columns", 1, 33, 64, 1024, 0, kDense, kTanh, kFree},
      {"33 heads, lengths", 3, 50, 33, 400, 0, kLengths, kPlain, kNormed},
      {"values", 1, 40, 48, 1000, 24, kDense, kTanh, kNormed},
      {"own queries", 3, 70, 48, 512, 0, kRagged, kTanh, kNormed, true},
      {"wide values", 1, 20, 40, 512, 768, kDense, kTanh, kFree, false, false, false, true},
  };
  for (const Shape& shape : shapes) {
    const Model model(shape);
    Call exact(model, EC_FLOAT32);
    run(exact, 2);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(model, dtype), again(model, dtype);
      CHECK(run(call, 6) == bytes_of_clusters(call));
      same_gradients_but_for_rounding(call, exact);
      run(again, 6);
      CHECK(same_gradients(call, again));
    }
  }
}

// Devices without them have the plain path, which copies scores once.
void devices_without_clusters() {
  const Shape shape = {"520 columns", 1, 40, 64, 520, 0, kDense, kTanh, kNormed};
  const Model model(shape);
  Call exact(model, EC_FLOAT32), call(model, EC_BFLOAT16);
  run(exact, 2);
  call.forward(4);
  const uint64_t before = ec::emulation::copied_bytes();
  call.backward(4, false, EC_BFLOAT16);
  CHECK(static_cast<int64_t>(ec::emulation::copied_bytes() - before) == 40 * (520 * 2 + 64 * 4));
  same_gradients_but_for_rounding(call, exact);
}

// Tokens that do not count; sequences that blocks cut or have many of; rows that lie oddly, and of odd
// lengths; gradients that are added to others.
void places_and_cuts() {
  const Shape shapes[] = {
      {"cut", 1, 100, 64, 544, 0, kDense, kTanh, kNormed, false, true},
      {"many", 12, 60, 34, 416, 0, kRagged, kTanh, kNormed, true, true, true},
      {"odd columns", 2, 40, 50, 527, 0, kLengths, kPlain, kNormed},
  };
  for (const Shape& shape : shapes) {
    const Model model(shape);
    Call exact(model, EC_FLOAT32);
    run(exact, 2);
    for (const int64_t gap : {3, 4}) {
      Call call(model, gap == 3 ? EC_BFLOAT16 : EC_FLOAT16, gap, gap);
      run(call, 10);
      same_gradients_but_for_rounding(call, exact);
      if (gap == 3) continue;
      call.backward(10, true, call.dtype);
      compare("grad_key, twice", call, call.grad_key, places_of(exact.grad_key), 2.0);
    }
  }
}

// Whose sums of weights are taken first: with all weight on few tokens, and with gradients of the weights.
void sharp_sequences() {
  const Shape shapes[] = {
      {"sharp", 2, 50, 40, 400, 0, kRagged, kPlain, kFree, false, true, true},
      {"weights", 2, 40, 36, 528, 48, kLengths, kTanh, kNormed, true},
  };
  for (const Shape& shape : shapes) {
    Model model(shape);
    const bool of_weights = shape.own_query;
    if (!of_weights)
      for (double& temperature : model.temperature) temperature *= 0.05;
    std::vector<float> grad_weights;
    for (size_t i = 0; of_weights && i < static_cast<size_t>(model.score_count()); ++i)
      grad_weights.push_back(static_cast<float>(i % 11) - 5.0f);
    // Of numbers as the tokens have them: sharp weights tell more.
    for (std::vector<double>* numbers : {&model.key, &model.value, &model.query, &model.grad_out}) {
      const Array array(EC_BFLOAT16, *numbers);
      for (size_t i = 0; i < numbers->size(); ++i)
        if (std::isfinite((*numbers)[i])) (*numbers)[i] = array[i];
    }
    Call exact(model, EC_FLOAT32);
    exact.grad_weights = grad_weights;
    run(exact, 2);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16}) {
      Call call(model, dtype);
      call.grad_weights = grad_weights;
      const int64_t copied = run(call, 6);
      CHECK(of_weights ? copied == 2 * bytes_of_clusters(call) : copied > bytes_of_clusters(call));
      same_gradients_but_for_rounding(call, exact);
    }
  }
}

// Clusters with many tokens take turns at the slots of the query's gradient, each block at its half.
void clusters_take_turns() {
  const Shape shape = {"turns", 2, 258, 33, 392, 0, kLengths, kTanh, kNormed};
  const Model model(shape);
  Call exact(model, EC_FLOAT32), call(model, EC_BFLOAT16), again(model, EC_BFLOAT16);
  run(exact, 2);
  run(call, 4);
  same_gradients_but_for_rounding(call, exact);
  run(again, 4);
  CHECK(same_gradients(call, again));
}

}  // namespace

int main() {
  gradients_are_those_of_the_loss();
  each_token_is_read_once();
  devices_without_clusters();
  places_and_cuts();
  sharp_sequences();
  clusters_take_turns();
  return check::report();
}
