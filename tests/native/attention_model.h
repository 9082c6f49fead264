// SPDX-License-Identifier: Apache-2.0
// Attention in loops over double, and derivatives of its loss by differences: nothing of the library's
// backward is repeated here.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "embedcore.h"
#include "native/numbers.h"

namespace attention_model {

enum Layout { kDense, kLengths, kRagged };

struct Shape {
  const char* name;
  int64_t sequences, tokens, heads, key_columns;
  int64_t value_columns;  // 0: the keys are the values
  Layout layout;
  ec_activation activation;
  ec_head_norm norm;
  bool own_query = false, keep = false, mask = false, bias = false;
  bool scored = true;  // there is a query
};

constexpr Shape kShapes[] = {
    {"shared", 2, 37, 3, 19, 0, kDense, EC_ACTIVATION_TANH, EC_HEAD_NORM_L2},
    {"values", 3, 21, 5, 33, 40, kLengths, EC_ACTIVATION_NONE, EC_HEAD_NORM_NONE, false, false, false,
     true},
    {"ragged", 5, 90, 4, 16, 0, kRagged, EC_ACTIVATION_NONE, EC_HEAD_NORM_L2, true, false, true},
    {"kept", 3, 70, 9, 8, 24, kDense, EC_ACTIVATION_TANH, EC_HEAD_NORM_NONE, true, true, true, true},
    {"ragged, one head", 4, 150, 1, 5, 3, kRagged, EC_ACTIVATION_TANH, EC_HEAD_NORM_NONE, false, true},
    {"cut, unbounded", 2, 400, 2, 32, 17, kLengths, EC_ACTIVATION_NONE, EC_HEAD_NORM_NONE},
    {"cut, threaded", 1, 700, 8, 64, 0, kDense, EC_ACTIVATION_TANH, EC_HEAD_NORM_L2},
    {"bias alone", 2, 45, 3, 10, 7, kDense, EC_ACTIVATION_TANH, EC_HEAD_NORM_L2, false, false, true, true,
     false},
    {"mean", 3, 50, 1, 12, 0, kLengths, EC_ACTIVATION_NONE, EC_HEAD_NORM_NONE, false, true, false, false,
     false},
};

class Model {
 public:
  explicit Model(const Shape& of) : shape(of) {
    numbers::Source source(static_cast<uint64_t>(of.tokens));
    for (int64_t b = 0; b <= of.sequences && of.layout == kRagged; ++b)  // sequence 1 is empty
      offsets.push_back(b == 2 ? offsets[1] : of.tokens * b / of.sequences);
    for (int64_t b = 0; b < of.sequences && of.layout == kLengths; ++b)
      lengths.push_back(b == 0 ? of.tokens : b == 1 ? 0 : of.tokens / b);
    for (int64_t i = 0; i < rows() && of.keep; ++i) keep.push_back(i % 3 == 1 || i < 5 ? 0 : 1);
    mask = of.mask ? source.some(rows()) : std::vector<double>(static_cast<size_t>(rows()), 0.0);
    for (size_t i = 4; i < mask.size() && of.mask; i += 7)
      mask[i] = -std::numeric_limits<double>::infinity();
    bias =
        of.bias ? source.some(score_count()) : std::vector<double>(static_cast<size_t>(score_count()), 0.0);
    const int64_t factors = (of.own_query ? of.sequences : 1) * of.key_columns * of.heads;
    query = of.scored ? source.some(factors) : std::vector<double>(static_cast<size_t>(factors), 0.0);
    for (int64_t i = 0; i < of.sequences * of.heads; ++i)
      temperature.push_back(0.75 + 0.125 * static_cast<double>(i % 5));
    grad_out = source.some(of.sequences * of.heads * value_columns());
    grad_lse = source.some(of.sequences * of.heads);
    key = source.some(rows() * of.key_columns);
    value = source.some(rows() * of.value_columns);
    poison();
  }

  int64_t value_columns() const {
    return shape.value_columns > 0 ? shape.value_columns : shape.key_columns;
  }
  int64_t rows() const { return shape.layout == kRagged ? shape.tokens : shape.sequences * shape.tokens; }
  int64_t score_count() const { return rows() * shape.heads; }

  // Places of a token in arrays [sequence][token] and in those like scores.
  int64_t row(int64_t b, int64_t t) const {
    return (shape.layout == kRagged ? offsets[static_cast<size_t>(b)] : b * shape.tokens) + t;
  }
  int64_t score_at(int64_t b, int64_t j, int64_t t) const {
    if (shape.layout == kRagged) return j * shape.tokens + row(b, t);
    return (b * shape.heads + j) * shape.tokens + t;
  }
  int64_t room(int64_t b) const {
    const auto i = static_cast<size_t>(b);
    return shape.layout == kRagged ? offsets[i + 1] - offsets[i] : shape.tokens;
  }
  bool counts(int64_t b, int64_t t) const {
    const auto i = static_cast<size_t>(row(b, t));
    if (shape.layout == kLengths && t >= lengths[static_cast<size_t>(b)]) return false;
    return (keep.empty() || keep[i] != 0) && !std::isinf(mask[i]);
  }

  struct Head {
    double lse = -std::numeric_limits<double>::infinity();
    std::vector<double> out, weights;  // weights: of the tokens of the sequence
  };

  double score(int64_t b, int64_t j, int64_t t) const {
    const int64_t columns = shape.key_columns;
    double y = 0.0;
    for (int64_t k = 0; k < columns; ++k)
      y += key[static_cast<size_t>(row(b, t) * columns + k)] * query[query_at(b, j, k)];
    return y;
  }
  size_t query_at(int64_t b, int64_t j, int64_t k) const {
    const int64_t factor = shape.own_query ? b : 0;
    return static_cast<size_t>((factor * shape.key_columns + k) * shape.heads + j);
  }

  std::vector<Head> sequence(int64_t b) const {
    const int64_t heads = shape.heads, columns = value_columns();
    std::vector<Head> result(static_cast<size_t>(heads));
    for (Head& head : result) {
      head.out.assign(static_cast<size_t>(columns), 0.0);
      head.weights.assign(static_cast<size_t>(room(b)), 0.0);
    }
    std::vector<double> total(static_cast<size_t>(heads), 0.0), f(total);
    const std::vector<double>& values = shape.value_columns > 0 ? value : key;
    for (int64_t t = 0; t < room(b); ++t) {
      if (!counts(b, t)) continue;
      const int64_t at = row(b, t);
      double squares = 0.0;
      for (int64_t j = 0; j < heads; ++j) {
        const double z = score(b, j, t) + bias[static_cast<size_t>(at * heads + j)];
        double& a = f[static_cast<size_t>(j)];
        a = shape.activation == EC_ACTIVATION_TANH ? std::tanh(z) : z;
        squares += a * a;
      }
      for (int64_t j = 0; j < heads; ++j) {
        const auto h = static_cast<size_t>(j);
        const double length = shape.norm == EC_HEAD_NORM_L2 ? std::sqrt(squares) : 1.0;
        const double weight = std::exp((f[h] / length + mask[static_cast<size_t>(at)]) /
                                       temperature[static_cast<size_t>(b * heads + j)]);
        total[h] += weight;
        result[h].weights[static_cast<size_t>(t)] = weight;
        for (int64_t c = 0; c < columns; ++c)
          result[h].out[static_cast<size_t>(c)] += weight * values[static_cast<size_t>(at * columns + c)];
      }
    }
    for (size_t j = 0; j < result.size(); ++j) {
      if (total[j] == 0.0) continue;
      result[j].lse = std::log(total[j]);
      for (double& number : result[j].out) number /= total[j];
      for (double& number : result[j].weights) number /= total[j];
    }
    return result;
  }

  // sum of grad_out * out + grad_lse * lse over one sequence, or (-1) over all.
  double loss(int64_t b) const {
    double sum = 0.0;
    if (b < 0) {
      for (int64_t i = 0; i < shape.sequences; ++i) sum += loss(i);
      return sum;
    }
    const std::vector<Head> heads = sequence(b);
    for (size_t j = 0; j < heads.size(); ++j) {
      const size_t at = static_cast<size_t>(b * shape.heads) + j;
      if (std::isfinite(heads[j].lse)) sum += grad_lse[at] * heads[j].lse;
      const size_t columns = heads[j].out.size();
      for (size_t c = 0; c < columns; ++c) sum += grad_out[at * columns + c] * heads[j].out[c];
    }
    return sum;
  }

  // d loss(b) / d number by the five-point difference.
  double slope(int64_t b, double* number) const {
    constexpr double kStep = 1e-4;
    const double kept = *number;
    const auto at = [&](double steps) {
      *number = kept + steps * kStep;
      return loss(b);
    };
    const double near = at(1.0) - at(-1.0), far = at(2.0) - at(-2.0);
    *number = kept;
    return (8.0 * near - far) / (12.0 * kStep);
  }

  Shape shape;
  std::vector<int64_t> offsets, lengths;
  std::vector<uint8_t> keep;
  std::vector<double> key, value, query, mask, bias, temperature, grad_out, grad_lse;

 private:
  // What is never read is NaN.
  void poison() {
    for (int64_t b = 0; b < shape.sequences; ++b)
      for (int64_t t = 0; t < room(b); ++t) {
        if (counts(b, t)) continue;
        for (int64_t k = 0; k < shape.key_columns; ++k)
          key[static_cast<size_t>(row(b, t) * shape.key_columns + k)] = NAN;
        for (int64_t k = 0; k < shape.value_columns; ++k)
          value[static_cast<size_t>(row(b, t) * shape.value_columns + k)] = NAN;
      }
  }
};

// Numbers of a result by their places; gradients are sampled.
using Places = std::vector<std::pair<size_t, double>>;

struct Wanted {
  explicit Wanted(Model& model) {
    const Shape& shape = model.shape;
    for (int64_t b = 0; b < shape.sequences; ++b) {
      results(model, b);
      for (int64_t t = 0; t < model.room(b); ++t) token_gradients(model, b, t);
      for (int64_t j = 0; j < shape.heads; ++j) {
        const auto at = static_cast<size_t>(b * shape.heads + j);
        grad_temperature.emplace_back(at, model.slope(b, &model.temperature[at]));
      }
    }
    const int64_t factors = shape.own_query ? shape.sequences : 1;
    for (int64_t b = 0; b < factors && shape.scored; ++b)
      for (int64_t j = 0; j < shape.heads; ++j)
        for (int64_t k = 0; k < shape.key_columns; ++k)
          if (sampled(static_cast<int64_t>(model.query.size())))
            grad_query.emplace_back(
                (b * shape.heads + j) * shape.key_columns + k,
                model.slope(shape.own_query ? b : -1, &model.query[model.query_at(b, j, k)]));
  }

  Places out, lse, scores, weights;
  Places grad_key, grad_value, grad_query, grad_temperature, grad_bias, grad_mask;

 private:
  static constexpr int64_t kSamples = 100;

  bool sampled(int64_t of) { return turn_++ % (1 + of / kSamples) == 0; }

  void results(const Model& model, int64_t b) {
    const std::vector<Model::Head> heads = model.sequence(b);
    for (int64_t j = 0; j < model.shape.heads; ++j) {
      const Model::Head& head = heads[static_cast<size_t>(j)];
      const int64_t at = b * model.shape.heads + j;
      lse.emplace_back(at, head.lse);
      for (size_t c = 0; c < head.out.size(); ++c)
        out.emplace_back(static_cast<size_t>(at) * head.out.size() + c, head.out[c]);
      for (int64_t t = 0; t < model.room(b); ++t) {
        weights.emplace_back(model.score_at(b, j, t), head.weights[static_cast<size_t>(t)]);
        scores.emplace_back(model.score_at(b, j, t), model.counts(b, t) ? model.score(b, j, t) : 0.0);
      }
    }
  }

  // Tokens that do not count get zeros.
  void token_gradients(Model& model, int64_t b, int64_t t) {
    const Shape& shape = model.shape;
    const bool counts = model.counts(b, t);
    const auto row = static_cast<size_t>(model.row(b, t));
    const auto rows_of = [&](std::vector<double>& numbers, int64_t columns, Places* to) {
      for (size_t i = row * static_cast<size_t>(columns); i < (row + 1) * static_cast<size_t>(columns); ++i)
        if (!counts)
          to->emplace_back(i, 0.0);
        else if (sampled(static_cast<int64_t>(numbers.size())))
          to->emplace_back(i, model.slope(b, &numbers[i]));
    };
    rows_of(model.key, shape.key_columns, &grad_key);
    rows_of(model.value, shape.value_columns, &grad_value);
    rows_of(model.mask, 1, &grad_mask);
    for (int64_t j = 0; j < shape.heads; ++j) {
      const auto at = static_cast<size_t>(model.score_at(b, j, t));
      if (!counts)
        grad_bias.emplace_back(at, 0.0);
      else if (sampled(model.score_count()))
        grad_bias.emplace_back(
            at,
            model.slope(b, &model.bias[row * static_cast<size_t>(shape.heads) + static_cast<size_t>(j)]));
    }
  }

  int64_t turn_ = 0;
};

}  // namespace attention_model
