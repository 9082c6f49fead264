// SPDX-License-Identifier: Apache-2.0
// Gradients of depths on the emulation, against their formulas as loops in double.
#include "depth_model.h"

#include "depth/gradient.h"

using namespace depth_model;

namespace {

struct Factors {
  std::vector<float> pull, weights;
};

Factors some_factors(int64_t rows, int64_t others) {
  Factors factors;
  for (int64_t i = 0; i < rows; ++i) factors.pull.push_back(0.25f * static_cast<float>(i % 7) - 0.6f);
  for (int64_t j = 0; j < others; ++j) factors.weights.push_back(static_cast<float>(j * 5 % 4) + 0.5f);
  return factors;
}

struct Gradients {
  Values of_rows, of_corpus, of_weights;
};

double dot(const Values& a, const Values& b) {
  double sum = 0.0;
  for (size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}
Values sum_of(const Values& a, double factor, const Values& b) {
  Values sum = a;
  for (size_t k = 0; k < a.size(); ++k) sum[k] += factor * b[k];
  return sum;
}
Values row_of(const Values& rows, size_t i, int64_t columns) {
  const auto width = static_cast<size_t>(columns);
  return {rows.begin() + static_cast<int64_t>(i * width),
          rows.begin() + static_cast<int64_t>((i + 1) * width)};
}

// What a pair's t is, and its gradient by the first row; by the second one it is that of the pair turned
// round, of spatial depth the opposite. end: e of the first row.
double pair_value(Metric metric, const Values& x, const Values& y, const Values& end, Values& gradient) {
  const double lengths = std::sqrt(dot(x, x) * dot(y, y)), c = dot(x, y) / lengths;
  gradient.assign(x.size(), 0.0);
  if (metric == Metric::kL2 || metric == Metric::kSpatial) {
    Values gap = sum_of(x, -1.0, y);
    const double length = std::sqrt(dot(gap, gap));
    if (length == 0.0) return 0.0;
    for (double& number : gap) number /= length;
    if (metric == Metric::kL2) return gradient = gap, length;
    const double across = dot(gap, end);
    for (size_t k = 0; k < x.size(); ++k) gradient[k] = (end[k] - across * gap[k]) / length;
    return across;
  }
  // Of c: what of y is across x.
  Values slope(x.size());
  for (size_t k = 0; k < x.size(); ++k) slope[k] = y[k] / lengths - c * x[k] / dot(x, x);
  // From the difference, as 1 - c has no digits for near pairs.
  Values a = x, b = y;
  for (size_t k = 0; k < x.size(); ++k) a[k] /= std::sqrt(dot(x, x)), b[k] /= std::sqrt(dot(y, y));
  const Values minus = sum_of(a, -1.0, b), plus = sum_of(a, 1.0, b);
  const double near = std::sqrt(dot(minus, minus)), far = std::sqrt(dot(plus, plus));
  if (metric == Metric::kCosine) return gradient = slope, c;
  const bool arc = metric == Metric::kArc, opposite = far < near;
  const double small = std::fmin(near, far);
  if (small < 1e-14 && (arc || !opposite)) return opposite ? std::acos(-1.0) : 0.0;
  const double by_cosine = arc ? -1.0 / (near * far / 2.0) : -1.0 / near;
  for (size_t k = 0; k < x.size(); ++k) gradient[k] = by_cosine * slope[k];
  if (!arc) return near;
  return opposite ? std::acos(-1.0) - 2.0 * std::asin(far / 2.0) : 2.0 * std::asin(near / 2.0);
}

Gradients model(Metric metric, const Array& x, const Array* corpus, const Factors& factors) {
  const int64_t columns = x.matrix.columns;
  const auto width = static_cast<size_t>(columns);
  const Values rows = x.values(), others = corpus == nullptr ? rows : corpus->values();
  const size_t n = rows.size() / width, m = others.size() / width;
  Gradients found = {Values(rows.size()), Values(others.size()), Values(m)};
  for (size_t i = 0; i < n; ++i) {
    Values end(width), gradient;
    for (size_t j = 0; j < m && metric == Metric::kSpatial; ++j) {
      if (corpus == nullptr && i == j) continue;
      pair_value(Metric::kL2, row_of(rows, i, columns), row_of(others, j, columns), {}, gradient);
      end = sum_of(end, static_cast<double>(factors.weights[j]), gradient);
    }
    const double length = std::sqrt(dot(end, end));
    for (double& number : end) number = length > 0.0 ? number / length : 0.0;
    for (size_t j = 0; j < m; ++j) {
      if (corpus == nullptr && i == j) continue;
      const Values a = row_of(rows, i, columns), b = row_of(others, j, columns);
      const double pull = static_cast<double>(factors.pull[i]),
                   both = pull * static_cast<double>(factors.weights[j]);
      const double sign = metric == Metric::kSpatial ? -1.0 : 1.0;
      found.of_weights[j] += sign * pull * pair_value(metric, a, b, end, gradient);
      for (size_t k = 0; k < width; ++k) found.of_rows[i * width + k] += sign * both * gradient[k];
      Values turned;
      pair_value(metric, b, a, end, turned);
      if (metric == Metric::kSpatial)
        for (size_t k = 0; k < width; ++k) turned[k] = -gradient[k];
      Values& to = corpus == nullptr ? found.of_rows : found.of_corpus;
      for (size_t k = 0; k < width; ++k) to[j * width + k] += sign * both * turned[k];
    }
  }
  return found;
}

Gradients gradients_of(Metric metric, const Array& x, const Array* corpus, const Factors& factors) {
  const bool own = corpus == nullptr;
  const AnyRows others = own ? x.matrix : corpus->matrix;
  const auto numbers = [](const AnyRows& rows) { return static_cast<size_t>(rows.count * rows.columns); };
  std::vector<float> of_rows(numbers(x.matrix), 7.0f), of_corpus(numbers(others), 7.0f);
  Values of_weights(static_cast<size_t>(others.count), 7.0);
  const ec::cuda::GradientProblem problem = {metric,
                                             x.matrix,
                                             own,
                                             own ? AnyRows{} : others,
                                             factors.pull.data(),
                                             factors.weights.data(),
                                             of_rows.data(),
                                             own ? nullptr : of_corpus.data(),
                                             of_weights.data()};
  const size_t bytes = ec::cuda::gradient_workspace_bytes(problem, kMultiprocessors);
  const std::unique_ptr<void, decltype(&std::free)> workspace(std::aligned_alloc(256, bytes), &std::free);
  std::memset(workspace.get(), 0xff, bytes);
  CHECK(ec::cuda::run_gradient(problem, kMultiprocessors, workspace.get(), nullptr));
  if (own) of_corpus.assign(numbers(others), 0.0f);
  return {Values(of_rows.begin(), of_rows.end()), Values(of_corpus.begin(), of_corpus.end()), of_weights};
}

// Errors of single factors are some 1e-7 / chord^2, up to 1e-4 next to where pairs are measured anew;
// `limit` is of the largest number.
void near_to(Metric metric, const char* what, const Values& got, const Values& wanted, double limit) {
  double largest = 0.0, worst = 0.0;
  CHECK(got.size() == wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::fmax(largest, std::fabs(wanted[i]));
    const double error = std::fabs(got[i] - wanted[i]);
    worst = std::fmax(worst, std::isnan(error) ? 1e9 : error);
  }
  CHECK(worst <= limit * largest);
  if (!(worst <= limit * largest))
    std::fprintf(stderr, "metric %d, %s: %g of %g\n", static_cast<int>(metric), what, worst, largest);
}

void agree(Metric metric, const Array& x, const Array* corpus, const Factors& factors,
           double limit = 1e-5) {
  const Gradients got = gradients_of(metric, x, corpus, factors),
                  wanted = model(metric, x, corpus, factors);
  near_to(metric, "rows", got.of_rows, wanted.of_rows, limit);
  if (corpus != nullptr) near_to(metric, "corpus", got.of_corpus, wanted.of_corpus, limit);
  near_to(metric, "weights", got.of_weights, wanted.of_weights, limit);
}

// Several tiles, and shares of them.
void every_metric_and_layout() {
  for (const int64_t columns : {5, 33, 100}) {
    const Array x(random_rows(70, columns, 1), columns),
        y(random_rows(150, columns, 2), columns,
          columns == 33 ? NumberKind::kFloat16 : NumberKind::kFloat32, 3, 1);
    for (const Metric metric : kMetrics) {
      agree(metric, x, &y, some_factors(70, 150));
      agree(metric, y, nullptr, some_factors(150, 150));
    }
  }
}

void near_opposite_and_equal_rows() {
  const int64_t columns = 24;
  Values rows = random_rows(30, columns, 3);
  for (int64_t i = 1; i < 20; ++i)
    for (int64_t k = 0; k < columns; ++k) {
      double& number = rows[static_cast<size_t>(i * columns + k)];
      const double first = rows[static_cast<size_t>(k)];
      if (i < 4) number = first;  // the same
      if (i >= 4 && i < 12) number = first + (k == i ? 0.01 * static_cast<double>(i) : 0.0);
      if (i >= 12) number = -first * (k == i ? 1.01 : 1.0);
    }
  const Array x(rows, columns), y(random_rows(5, columns, 4), columns);
  for (const Metric metric : kMetrics) {
    agree(metric, x, nullptr, some_factors(30, 30), 2e-5);
    agree(metric, y, &x, some_factors(5, 30), 2e-5);
  }
}

void rows_of_any_size_and_far_from_the_origin() {
  const int64_t columns = 16;
  for (const double scale : {1e-15, 1e15}) {
    const Array x(random_rows(20, columns, 5, scale), columns),
        y(random_rows(40, columns, 6, scale), columns);
    for (const Metric metric : kMetrics) agree(metric, x, &y, some_factors(20, 40));
  }
  const Array x(random_rows(20, columns, 5, 1.0, 50.0), columns),
      y(random_rows(40, columns, 6, 1.0, 50.0), columns);
  for (const Metric metric : kMoved) agree(metric, x, &y, some_factors(20, 40));
}

void gradients_repeat() {
  const Array x(random_rows(90, 20, 7), 20);
  for (const Metric metric : kMetrics) {
    const Gradients first = gradients_of(metric, x, nullptr, some_factors(90, 90)),
                    again = gradients_of(metric, x, nullptr, some_factors(90, 90));
    CHECK(first.of_rows == again.of_rows);
    CHECK(first.of_weights == again.of_weights);
  }
}

void rows_without_a_gradient_have_none() {
  Values bad = random_rows(12, 8, 8);
  std::fill(bad.begin() + 16, bad.begin() + 24, 0.0);
  const Array x(bad, 8), y(random_rows(20, 8, 9), 8);
  for (const Metric metric : kAngular) {
    const Gradients got = gradients_of(metric, x, &y, some_factors(12, 20));
    for (size_t i = 0; i < 12 * 8; ++i) CHECK(std::isnan(got.of_rows[i]) == (i / 8 == 2));
  }
}

}  // namespace

int main() {
  every_metric_and_layout();
  near_opposite_and_equal_rows();
  rows_of_any_size_and_far_from_the_origin();
  gradients_repeat();
  rows_without_a_gradient_have_none();
  return check::report();
}
