// SPDX-License-Identifier: Apache-2.0
// Gradients of attention in 16 bits on the emulation, where grad_out has any size: against formulas in
// double, and at most twice as far from them as the same formulas with every result rounded to the 16 bits,
// as Torch has them.
#include <string>

#include "attention_call.h"

namespace {

using attention_call::Array;
using attention_call::Call;
using attention_model::kDense;
using attention_model::Model;
using attention_model::Shape;

constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kPlain = EC_ACTIVATION_NONE;
constexpr auto kNormed = EC_HEAD_NORM_L2;
constexpr auto kFree = EC_HEAD_NORM_NONE;
using Vector = std::vector<double>;

// Rounds what it is given, or nothing.
struct Rounding {
  bool rounds;
  ec_dtype dtype;
  double operator()(double a) const {
    if (!rounds || !std::isfinite(a)) return a;
    return Array(dtype, Vector{a})[0];
  }
};

// One sequence of dense tokens, whose numbers have 16 bits.
struct Sequence {
  const Shape& shape;
  Vector key, value, query, grad_out, temperature;  // query: [column][head]
  Rounding rounded;

  int64_t tokens() const { return shape.tokens; }
  int64_t heads() const { return shape.heads; }
  size_t at(int64_t t, int64_t j) const { return static_cast<size_t>(t * heads() + j); }

  // sum over i of a[i * a_step] b[i * b_step]
  static double dot(const double* a, int64_t a_step, const double* b, int64_t b_step, int64_t count) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) sum += a[i * a_step] * b[i * b_step];
    return sum;
  }
};

struct Gradients {
  Vector key, value, query;  // query: [head][column]
};

// a, lengths over the heads, and weights.
struct Scores {
  explicit Scores(const Sequence& of)
      : a(static_cast<size_t>(of.tokens() * of.heads())),
        f(a),
        weights(a),
        length(static_cast<size_t>(of.tokens()), 1.0) {
    const Shape& shape = of.shape;
    const int64_t heads = of.heads(), columns = shape.key_columns;
    for (int64_t t = 0; t < of.tokens(); ++t) {
      double squares = 0.0;
      for (int64_t j = 0; j < heads; ++j) {
        const double z = of.rounded(Sequence::dot(&of.key[static_cast<size_t>(t * columns)], 1,
                                                  &of.query[static_cast<size_t>(j)], heads, columns));
        a[of.at(t, j)] = shape.activation == kTanh ? of.rounded(std::tanh(z)) : z;
        squares += a[of.at(t, j)] * a[of.at(t, j)];
      }
      if (shape.norm == kNormed) length[static_cast<size_t>(t)] = of.rounded(std::sqrt(squares));
      for (int64_t j = 0; j < heads; ++j)
        f[of.at(t, j)] = of.rounded(a[of.at(t, j)] / length[static_cast<size_t>(t)]);
    }
    for (int64_t j = 0; j < heads; ++j) {
      double total = 0.0;
      for (int64_t t = 0; t < of.tokens(); ++t)
        total += weights[of.at(t, j)] =
            std::exp(of.rounded(f[of.at(t, j)] / of.temperature[static_cast<size_t>(j)]));
      for (int64_t t = 0; t < of.tokens(); ++t)
        weights[of.at(t, j)] = of.rounded(weights[of.at(t, j)] / total);
    }
  }
  Vector a, f, weights, length;
};

// dz by way of the products with grad_out, as autograd goes.
Vector score_gradients(const Sequence& of, const Scores& scores) {
  const Shape& shape = of.shape;
  const int64_t heads = of.heads();
  const bool others = shape.value_columns > 0;
  const Vector& values = others ? of.value : of.key;
  const int64_t columns = others ? shape.value_columns : shape.key_columns;
  Vector dz(scores.a.size());
  for (int64_t j = 0; j < heads; ++j) {
    double sum = 0.0;
    for (int64_t t = 0; t < of.tokens(); ++t) {
      const double product =
          of.rounded(Sequence::dot(&values[static_cast<size_t>(t * columns)], 1,
                                   &of.grad_out[static_cast<size_t>(j * columns)], 1, columns));
      dz[of.at(t, j)] = product;
      sum += scores.weights[of.at(t, j)] * product;
    }
    for (int64_t t = 0; t < of.tokens(); ++t) {
      double& number = dz[of.at(t, j)];
      number = of.rounded(of.rounded(scores.weights[of.at(t, j)] * (number - sum)) /
                          of.temperature[static_cast<size_t>(j)]);
    }
  }
  for (int64_t t = 0; t < of.tokens(); ++t) {
    const double length = scores.length[static_cast<size_t>(t)];
    double of_length = 0.0;
    for (int64_t j = 0; j < heads; ++j)
      of_length -= of.rounded(dz[of.at(t, j)] * of.rounded(scores.f[of.at(t, j)] / length));
    of_length = of.rounded(of_length);
    for (int64_t j = 0; j < heads; ++j) {
      double& number = dz[of.at(t, j)];
      if (shape.norm == kNormed)
        number = of.rounded(of.rounded(number / length) + of.rounded(of_length * scores.f[of.at(t, j)]));
      const double a = scores.a[of.at(t, j)];
      if (shape.activation == kTanh) number = of.rounded(number * (1.0 - a * a));
    }
  }
  return dz;
}

Gradients gradients_of(const Sequence& of) {
  const Shape& shape = of.shape;
  const int64_t heads = of.heads(), keys = shape.key_columns;
  const bool others = shape.value_columns > 0;
  const int64_t values = others ? shape.value_columns : keys;
  const Scores scores(of);
  const Vector dz = score_gradients(of, scores);
  Gradients found;
  for (int64_t t = 0; t < of.tokens(); ++t) {
    for (int64_t k = 0; k < values; ++k)
      found.value.push_back(of.rounded(Sequence::dot(&scores.weights[of.at(t, 0)], 1,
                                                     &of.grad_out[static_cast<size_t>(k)], values, heads)));
    for (int64_t k = 0; k < keys; ++k)
      found.key.push_back(of.rounded(
          Sequence::dot(&dz[of.at(t, 0)], 1, &of.query[static_cast<size_t>(k * heads)], 1, heads)));
  }
  if (!others) {
    for (size_t i = 0; i < found.key.size(); ++i) found.key[i] = of.rounded(found.key[i] + found.value[i]);
    found.value.clear();
  }
  for (int64_t j = 0; j < heads; ++j)
    for (int64_t k = 0; k < keys; ++k)
      found.query.push_back(of.rounded(Sequence::dot(&dz[static_cast<size_t>(j)], heads,
                                                     &of.key[static_cast<size_t>(k)], keys, of.tokens())));
  return found;
}

Vector in_short(ec_dtype dtype, const Vector& numbers) {
  const Array array(dtype, numbers);
  Vector result;
  for (size_t i = 0; i < array.size(); ++i) result.push_back(array[i]);
  return result;
}

// The largest distance of `got` from what is right.
template <class Numbers>
double error_of(const Numbers& got, const Vector& right) {
  double largest = 0.0;
  for (size_t i = 0; i < right.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - right[i]);
    largest = std::isfinite(error) ? std::fmax(largest, error) : INFINITY;
  }
  return largest;
}

void compare(const char* what, const Shape& shape, double size, double own, double plain) {
  const bool right = own <= 2.0 * plain;
  CHECK(right);
  if (!right)
    std::fprintf(stderr, "%s, grad_out of %g, %s: off by %g, plainly by %g\n", shape.name, size, what, own,
                 plain);
}

// grad_out of this size or, by heads, of smaller ones too. All numbers have 16 bits. Tokens may have much
// in common, so that gradients cancel.
Model model_of(const Shape& shape, ec_dtype dtype, double size, bool by_heads) {
  Model model(shape);
  const auto columns = static_cast<size_t>(model.value_columns());
  for (size_t i = 0; i < model.grad_out.size(); ++i)
    model.grad_out[i] *= size * (by_heads ? std::pow(10.0, -static_cast<double>(i / columns % 7)) : 1.0);
  if (shape.name == std::string("common"))
    for (double& number : model.key) number = 1.0 + 0.1 * number;
  for (double& number : model.query) number /= std::sqrt(static_cast<double>(shape.key_columns));
  for (double& number : model.grad_lse) number = 0.0;
  for (Vector* numbers : {&model.key, &model.value, &model.query, &model.grad_out, &model.temperature})
    *numbers = in_short(dtype, *numbers);
  return model;
}

Sequence sequence_of(const Model& model, const Rounding& rounding) {
  return {model.shape, model.key, model.value, model.query, model.grad_out, model.temperature, rounding};
}

void errors_are_those_of_the_plain_computation(const Shape& shape, ec_dtype dtype) {
  for (const bool by_heads : {false, true}) {
    for (const double size : {1e-6, 1e3}) {
      const Model model = model_of(shape, dtype, size, by_heads);
      const Gradients right = gradients_of(sequence_of(model, {false, dtype})),
                      plainly = gradients_of(sequence_of(model, {true, dtype}));
      Call call(model, dtype);
      call.problem.clusters = true;
      call.forward(2);
      call.backward(2, false, dtype);
      compare("keys", shape, size, error_of(call.grad_key, right.key), error_of(plainly.key, right.key));
      compare("values", shape, size, error_of(call.grad_value, right.value),
              error_of(plainly.value, right.value));
      compare("query", shape, size, error_of(call.grad_query, right.query),
              error_of(plainly.query, right.query));
    }
  }
}

// The formulas are those of differences of the loss.
void formulas_are_right() {
  const Shape shapes[] = {
      {"formulas", 1, 30, 6, 12, 0, kDense, kTanh, kNormed},
      {"formulas, values", 1, 30, 5, 12, 8, kDense, kPlain, kFree},
  };
  for (const Shape& shape : shapes) {
    Model model = model_of(shape, EC_FLOAT16, 1.0, false);
    const Gradients found = gradients_of(sequence_of(model, {false, EC_FLOAT16}));
    const attention_model::Wanted wanted(model);
    for (const auto& place : wanted.grad_key)
      CHECK(std::fabs(found.key[place.first] - place.second) <= 1e-8);
    for (const auto& place : wanted.grad_value)
      CHECK(std::fabs(found.value[place.first] - place.second) <= 1e-8);
    for (const auto& place : wanted.grad_query)
      CHECK(std::fabs(found.query[place.first] - place.second) <= 1e-8);
  }
}

void every_size_of_gradients() {
  const Shape shapes[] = {
      {"8 heads", 1, 100, 8, 48, 0, kDense, kTanh, kNormed},
      {"16 heads, values", 1, 70, 16, 40, 56, kDense, kPlain, kFree},
      {"20 heads", 1, 70, 20, 72, 0, kDense, kTanh, kNormed},
      {"32 heads, 800 columns", 1, 40, 32, 800, 0, kDense, kTanh, kNormed},
      {"40 heads, 384 columns", 1, 40, 40, 384, 0, kDense, kTanh, kNormed},
      {"64 heads, values", 1, 50, 64, 24, 88, kDense, kPlain, kNormed},
      {"33 heads, 400 columns", 1, 36, 33, 400, 0, kDense, kTanh, kNormed},
      {"48 heads, values", 1, 20, 48, 512, 776, kDense, kPlain, kFree},
      {"64 heads, 1024 columns", 1, 20, 64, 1024, 0, kDense, kTanh, kFree},
      {"common", 1, 100, 8, 24, 0, kDense, kTanh, kNormed},
      {"12 heads, 1100 columns", 1, 40, 12, 1100, 0, kDense, kTanh, kFree},
  };
  for (const Shape& shape : shapes)
    for (const ec_dtype dtype : {EC_FLOAT16, EC_BFLOAT16})
      errors_are_those_of_the_plain_computation(shape, dtype);
}

// A grad_out of a size times a power of two gives gradients of that size, digit by digit: nothing in
// between is too large or too small for float16.
void sizes_make_no_difference() {
  const Shape shapes[] = {
      {"9 heads", 2, 90, 9, 48, 0, kDense, kTanh, kNormed},
      {"30 heads, values", 2, 60, 30, 40, 24, kDense, kTanh, kFree, true},
      {"40 heads, 400 columns", 2, 24, 40, 400, 0, kDense, kTanh, kNormed},
  };
  for (const Shape& shape : shapes) {
    for (const ec_dtype dtype : {EC_FLOAT16, EC_BFLOAT16}) {
      const Model model = model_of(shape, dtype, 1.0, true);
      Call one(model, dtype);
      one.problem.clusters = true;
      one.forward(3);
      one.backward(3, false, EC_FLOAT32);
      for (const int power : {-60, -20, 20, 60}) {
        Model other = model;
        for (double& number : other.grad_out) number = std::ldexp(number, power);
        Call scaled(other, dtype);
        scaled.problem.clusters = true;
        scaled.forward(3);
        scaled.backward(3, false, EC_FLOAT32);
        for (size_t i = 0; i < one.grad_query.size(); ++i)
          CHECK(scaled.grad_query[i] == std::ldexp(one.grad_query[i], power));
      }
    }
  }
}

// Of more digits than the tokens it is rounded to theirs, wherever it is multiplied: nothing is left where
// the loss is the same whatever the weights are.
void rounded_gradients_agree() {
  const Shape shape = {"constant", 2, 120, 8, 32, 0, kDense, kPlain, kFree};
  for (const ec_dtype dtype : {EC_FLOAT16, EC_BFLOAT16}) {
    for (const ec_dtype of_grad : {EC_FLOAT32, EC_FLOAT16, EC_BFLOAT16}) {
      Model model(shape);
      for (size_t i = 0; i < model.key.size(); ++i) model.key[i] = i % 32 == 0 ? model.key[i] : 0.75;
      for (size_t i = 0; i < model.grad_out.size(); ++i)
        model.grad_out[i] = i % 32 == 0 ? 0.0 : model.grad_out[i] / 3.0;
      for (double& number : model.grad_lse) number = 0.0;
      Call call(model, dtype);
      call.forward(3);
      call.backward(3, false, of_grad);
      double largest = 0.0;
      for (size_t i = 0; i < call.grad_query.size(); ++i)
        largest = std::fmax(largest, std::fabs(call.grad_query[i]));
      CHECK(largest <= 1e-5);
      if (largest > 1e-5) std::fprintf(stderr, "dtype %d of %d: %g\n", of_grad, dtype, largest);
    }
  }
}

}  // namespace

int main() {
  formulas_are_right();
  every_size_of_gradients();
  sizes_make_no_difference();
  rounded_gradients_agree();
  return check::report();
}
