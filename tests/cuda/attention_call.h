// SPDX-License-Identifier: Apache-2.0
// One model of attention as the kernels take it, with room for exactly what they give.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "attention/attention.h"
#include "native/attention_model.h"
#include "native/check.h"
#include "native/numbers.h"

namespace attention_call {

using attention_model::Model;
using attention_model::Places;
using ec::cuda::NumberKind;
using numbers::Array;

inline NumberKind kind_of(ec_dtype dtype) {
  return dtype == EC_FLOAT16    ? NumberKind::kFloat16
         : dtype == EC_BFLOAT16 ? NumberKind::kBFloat16
         : dtype == EC_FLOAT32  ? NumberKind::kFloat32
                                : NumberKind::kFloat64;
}

// Of the largest number of a result; see tests/native/test_attention.cpp. Float32 sums are those of other
// orders, and float16 rounds the weights.
inline double tolerance(ec_dtype dtype) {
  return dtype == EC_FLOAT32 ? 5e-6 : dtype == EC_FLOAT16 ? 3e-3 : 1.6e-2;
}

// Exactly as much as was asked for, on a boundary as Torch's and CuPy's allocators give it.
struct Workspace {
  explicit Workspace(size_t bytes) : memory(std::aligned_alloc(256, bytes), &std::free) {
    if (bytes > 0) std::memset(memory.get(), 0xff, bytes);
  }
  std::unique_ptr<void, decltype(&std::free)> memory;
};

// Rows with numbers behind each that are not theirs, from a place that is aligned or not.
struct Rows {
  Rows(ec_dtype dtype, const std::vector<double>& values, int64_t columns, int64_t gap, int64_t start)
      : stride(columns + gap), first(start) {
    std::vector<double> all(static_cast<size_t>(start), 7.0);
    for (size_t i = 0; i < values.size(); ++i) {
      all.push_back(values[i]);
      if ((i + 1) % static_cast<size_t>(columns) == 0) all.insert(all.end(), static_cast<size_t>(gap), NAN);
    }
    array = Array(dtype, all);
  }
  const void* data() { return array.bytes.data() + first * numbers::size_of(array.dtype); }
  Array array;
  int64_t stride, first;
};

struct Call {
  Call(const Model& of, ec_dtype type, int64_t gap = 0, int64_t start = 0)
      : model(of),
        dtype(type),
        key(type, of.key, of.shape.key_columns, gap, start),
        value(type, of.value, of.value_columns(), gap, start),
        query(EC_FLOAT32, of.query),
        mask(EC_BFLOAT16, of.mask),
        bias(EC_FLOAT64, of.bias),
        temperature(EC_FLOAT64, of.temperature),
        grad_out(EC_FLOAT32, of.grad_out),
        grad_lse(EC_FLOAT32, of.grad_lse),
        out(type, of.shape.heads * of.shape.sequences * of.value_columns()),
        lse(EC_FLOAT32, of.shape.sequences * of.shape.heads),
        scores(EC_FLOAT32, of.score_count()),
        weights(EC_FLOAT32, of.score_count()),
        wide(EC_FLOAT32, static_cast<int64_t>(out.size())),
        rest(out.size(), -1),
        grad_key(type, static_cast<int64_t>(of.key.size())),
        grad_value(type, static_cast<int64_t>(of.value.size())),
        grad_query(EC_FLOAT32, static_cast<int64_t>(of.query.size())),
        grad_temperature(EC_FLOAT32, of.shape.sequences * of.shape.heads),
        grad_bias(EC_FLOAT32, of.score_count()),
        grad_mask(EC_FLOAT32, of.rows()) {
    describe();
    for (Array* array : {&out, &lse, &scores, &weights, &wide, &grad_key, &grad_value, &grad_query,
                         &grad_temperature, &grad_bias, &grad_mask})
      std::fill(array->bytes.begin(), array->bytes.end(), static_cast<unsigned char>(0xff));
  }

  void describe() {
    const attention_model::Shape& shape = model.shape;
    const int64_t room = shape.tokens, heads = shape.heads;
    problem = {};
    problem.sequences = shape.sequences;
    problem.tokens = room;
    problem.heads = heads;
    problem.key_columns = shape.key_columns;
    problem.value_columns = model.value_columns();
    problem.key = {key.data(), {room * key.stride, key.stride, 1}, kind_of(dtype)};
    if (shape.value_columns > 0)
      problem.value = {value.data(), {room * value.stride, value.stride, 1}, kind_of(dtype)};
    if (shape.scored)
      problem.query = {query.data(), {shape.key_columns * heads, heads, 1}, NumberKind::kFloat32};
    problem.query_per_sequence = shape.own_query;
    problem.offsets = model.offsets.empty() ? nullptr : model.offsets.data();
    problem.lengths = model.lengths.empty() ? nullptr : model.lengths.data();
    if (!model.keep.empty()) problem.keep = model.keep.data();
    problem.keep_stride[0] = room;
    problem.keep_stride[1] = 1;
    if (shape.mask) problem.mask = {mask.data(), {room, 1, 0}, NumberKind::kBFloat16};
    if (shape.bias) problem.bias = {bias.data(), {room * heads, heads, 1}, NumberKind::kFloat64};
    problem.temperature = {temperature.data(), {heads, 1, 0}, NumberKind::kFloat64};
    problem.activation =
        shape.activation == EC_ACTIVATION_TANH ? ec::Activation::kTanh : ec::Activation::kNone;
    problem.norm = shape.norm == EC_HEAD_NORM_L2 ? ec::HeadNorm::kL2 : ec::HeadNorm::kNone;
  }

  static float* floats(Array& array) { return reinterpret_cast<float*>(array.bytes.data()); }

  void forward(int multiprocessors) {
    const ec::cuda::AttentionResult result = {out.data(),      floats(lse),  floats(scores),
                                              floats(weights), floats(wide), rest.data()};
    const Workspace workspace(
        ec::cuda::attention_forward_workspace_bytes(problem, result, multiprocessors));
    CHECK(
        ec::cuda::run_attention_forward(problem, result, multiprocessors, workspace.memory.get(), nullptr));
  }

  void backward(int multiprocessors, bool accumulate = false, ec_dtype of_grad_out = EC_FLOAT32) {
    const int64_t heads = model.shape.heads, values = model.value_columns();
    grad_out = Array(of_grad_out, model.grad_out);
    ec::cuda::AttentionGradient gradient = {};
    gradient.grad_out = {grad_out.data(), {heads * values, values, 1}, kind_of(of_grad_out)};
    gradient.grad_lse = {grad_lse.data(), {heads, 1, 0}, NumberKind::kFloat32};
    gradient.out = out.data();
    gradient.out_kind = kind_of(dtype);
    gradient.rest = dtype == EC_FLOAT32 ? nullptr : rest.data();
    gradient.lse = floats(lse);
    gradient.scores = floats(scores);
    gradient.grad_key = grad_key.data();
    gradient.grad_value = grad_value.data();
    gradient.grad_query = model.shape.scored ? floats(grad_query) : nullptr;
    gradient.grad_temperature = floats(grad_temperature);
    gradient.grad_bias = floats(grad_bias);
    gradient.grad_mask = floats(grad_mask);
    gradient.accumulate = accumulate;
    gradient.grad_weights = grad_weights.empty() ? nullptr : grad_weights.data();
    CHECK(ec::cuda::attention_supported(problem));
    const Workspace workspace(
        ec::cuda::attention_backward_workspace_bytes(problem, gradient, multiprocessors));
    CHECK(ec::cuda::run_attention_backward(problem, gradient, multiprocessors, workspace.memory.get(),
                                           nullptr));
  }

  const Model& model;
  ec_dtype dtype;
  Rows key, value;
  Array query, mask, bias, temperature, grad_out, grad_lse;
  Array out, lse, scores, weights, wide;
  std::vector<int8_t> rest;
  Array grad_key, grad_value, grad_query, grad_temperature, grad_bias, grad_mask;
  std::vector<float> grad_weights;  // may be none
  ec::cuda::AttentionProblem problem;
};

constexpr double kLeastScale = 1e-2;  // of results that are 0 but for rounding

inline void compare(const char* what, const Call& call, const Array& got, const Places& wanted,
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
      std::fprintf(stderr, "%s, %d heads, dtype %d, %s[%d]: %g, not %g\n", call.model.shape.name,
                   static_cast<int>(call.model.shape.heads), call.dtype, what,
                   static_cast<int>(place.first), is, should);
  }
}

inline Places places_of(const Array& array) {
  Places places;
  for (size_t i = 0; i < array.size(); ++i) places.emplace_back(i, array[i]);
  return places;
}

inline void same_results_but_for_rounding(const Call& call, const Call& exact) {
  compare("out", call, call.out, places_of(exact.out));
  compare("wide", call, call.wide, places_of(exact.wide));
  compare("lse", call, call.lse, places_of(exact.lse));
  compare("scores", call, call.scores, places_of(exact.scores));
  compare("weights", call, call.weights, places_of(exact.weights));
}

inline void same_gradients_but_for_rounding(const Call& call, const Call& exact) {
  compare("grad_key", call, call.grad_key, places_of(exact.grad_key));
  compare("grad_value", call, call.grad_value, places_of(exact.grad_value));
  compare("grad_query", call, call.grad_query, places_of(exact.grad_query));
  compare("grad_temperature", call, call.grad_temperature, places_of(exact.grad_temperature));
  compare("grad_bias", call, call.grad_bias, places_of(exact.grad_bias));
  compare("grad_mask", call, call.grad_mask, places_of(exact.grad_mask));
}

inline bool same_results(const Call& a, const Call& b) {
  return a.out.bytes == b.out.bytes && a.lse.bytes == b.lse.bytes && a.scores.bytes == b.scores.bytes &&
         a.weights.bytes == b.weights.bytes && a.wide.bytes == b.wide.bytes && a.rest == b.rest;
}

// Tokens that count.
inline int64_t counted_tokens(const Call& call) {
  int64_t tokens = 0;
  for (int64_t b = 0; b < call.model.shape.sequences; ++b)
    for (int64_t t = 0; t < call.model.room(b); ++t) tokens += call.model.counts(b, t) ? 1 : 0;
  return tokens;
}

inline void results_are_right(const Call& call, const attention_model::Wanted& wanted) {
  compare("out", call, call.out, wanted.out);
  compare("wide", call, call.wide, wanted.out);
  compare("lse", call, call.lse, wanted.lse);
  compare("scores", call, call.scores, wanted.scores);
  compare("weights", call, call.weights, wanted.weights);
}

inline void gradients_are_right(const Call& call, const attention_model::Wanted& wanted) {
  compare("grad_key", call, call.grad_key, wanted.grad_key);
  compare("grad_value", call, call.grad_value, wanted.grad_value);
  compare("grad_query", call, call.grad_query, wanted.grad_query);
  compare("grad_temperature", call, call.grad_temperature, wanted.grad_temperature);
  compare("grad_bias", call, call.grad_bias, wanted.grad_bias);
  compare("grad_mask", call, call.grad_mask, wanted.grad_mask);
}

}  // namespace attention_call
