// SPDX-License-Identifier: Apache-2.0
// The kernels of attention on the emulation, against loops in double.
#include "attention_call.h"

namespace {

using attention_call::Call;
using attention_call::compare;
using attention_model::Model;
using attention_model::Shape;
using attention_model::Wanted;

constexpr ec_dtype kDtypes[] = {EC_FLOAT32, EC_BFLOAT16, EC_FLOAT16};

void results_are_right(const Call& call, const Wanted& wanted) {
  compare("out", call, call.out, wanted.out);
  compare("wide", call, call.wide, wanted.out);
  compare("lse", call, call.lse, wanted.lse);
  compare("scores", call, call.scores, wanted.scores);
  compare("weights", call, call.weights, wanted.weights);
}

void gradients_are_right(const Call& call, const Wanted& wanted) {
  compare("grad_key", call, call.grad_key, wanted.grad_key);
  compare("grad_value", call, call.grad_value, wanted.grad_value);
  compare("grad_query", call, call.grad_query, wanted.grad_query);
  compare("grad_temperature", call, call.grad_temperature, wanted.grad_temperature);
  compare("grad_bias", call, call.grad_bias, wanted.grad_bias);
  compare("grad_mask", call, call.grad_mask, wanted.grad_mask);
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

}  // namespace

int main() {
  every_form();
  return check::report();
}
