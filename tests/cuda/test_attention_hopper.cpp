// SPDX-License-Identifier: Apache-2.0
// The forward of attention as a device with Hopper's instructions takes it, on the emulation: each token is
// read once, and what comes out is right whatever the places, cuts, numbers and requests are.
#include "attention_call.h"

namespace {

using attention_call::Array;
using attention_call::Call;
using attention_call::compare;
using attention_call::Places;
using attention_model::kDense;
using attention_model::kLengths;
using attention_model::kRagged;
using attention_model::Model;
using attention_model::Shape;

constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;

constexpr int64_t kEdge = 8;  // tokens that are copied at a time where a tile ends

// A forward, and how many bytes of tokens it has copied.
int64_t forward(Call& call, int multiprocessors) {
  call.problem.hopper = true;
  const uint64_t before = ec::emulation::copied_bytes();
  call.forward(multiprocessors);
  return static_cast<int64_t>(ec::emulation::copied_bytes() - before);
}

Places places_of(const Array& array) {
  Places places;
  for (size_t i = 0; i < array.size(); ++i) places.emplace_back(i, array[i]);
  return places;
}

void agree(const Call& call, const Call& exact) {
  compare("out", call, call.out, places_of(exact.out));
  compare("wide", call, call.wide, places_of(exact.wide));
  compare("lse", call, call.lse, places_of(exact.lse));
  compare("scores", call, call.scores, places_of(exact.scores));
  compare("weights", call, call.weights, places_of(exact.weights));
}

bool same_results(const Call& a, const Call& b) {
  return a.out.bytes == b.out.bytes && a.lse.bytes == b.lse.bytes && a.scores.bytes == b.scores.bytes &&
         a.weights.bytes == b.weights.bytes && a.wide.bytes == b.wide.bytes && a.rest == b.rest;
}

constexpr Shape kForms[] = {
    {"8 heads", 2, 200, 8, 384, 0, kDense, kTanh, kNormed},
    {"16 heads, 768 columns", 1, 150, 16, 768, 0, kDense, kTanh, kNormed},
    {"32 heads, 768 columns", 1, 100, 32, 768, 0, kDense, kTanh, kNormed},
    {"1000 columns", 1, 70, 12, 1000, 0, kDense, kPlain, kNormed},
    {"64 heads", 1, 140, 64, 512, 0, kDense, kTanh, kNormed},
    {"33 heads, odd panels", 2, 90, 33, 200, 0, kRagged, kTanh, kFree},
    {"lengths", 4, 150, 9, 136, 0, kLengths, kPlain, kFree},
    {"ragged", 6, 500, 16, 264, 0, kRagged, kTanh, kNormed, true},
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
      for (const int multiprocessors : {1, 5}) {
        Call call(model, dtype), again(model, dtype);
        forward(call, multiprocessors);
        agree(call, exact);
        forward(again, multiprocessors);
        CHECK(same_results(call, again));
      }
    }
  }
}

}  // namespace

int main() {
  every_form();
  return check::report();
}
