// SPDX-License-Identifier: Apache-2.0
// The kernels of depth on the emulation, against loops in double.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "depth/depth.h"
#include "native/check.h"
#include "native/numbers.h"

namespace {

using ec::cuda::AnyRows;
using ec::cuda::DepthProblem;
using ec::cuda::Metric;
using ec::cuda::NumberKind;

constexpr int kMultiprocessors = 2;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Values = std::vector<double>;  // [row][column]

// Rows of a kind, a few numbers apart and not from an aligned place where asked.
struct Array {
  Array(const Values& values, int64_t columns, NumberKind kind, int64_t gap, int64_t start)
      : stored(dtype(kind), spread(values, columns, gap, start)),
        matrix{stored.bytes.data() + start * numbers::size_of(dtype(kind)),
               static_cast<int64_t>(values.size()) / columns, columns + gap, columns, kind} {}

  static ec_dtype dtype(NumberKind kind) {
    return kind == NumberKind::kFloat32   ? EC_FLOAT32
           : kind == NumberKind::kFloat16 ? EC_FLOAT16
                                          : EC_BFLOAT16;
  }
  static Values spread(const Values& values, int64_t columns, int64_t gap, int64_t start) {
    Values all(static_cast<size_t>(start), 7.0);
    for (size_t i = 0; i < values.size(); ++i) {
      all.push_back(values[i]);
      if ((i + 1) % static_cast<size_t>(columns) == 0)
        all.insert(all.end(), static_cast<size_t>(gap), kNaN);
    }
    return all;
  }

  // As they are stored, where there is no gap.
  Values values(int64_t columns) const {
    Values found;
    for (int64_t i = 0; i < matrix.count * columns; ++i) found.push_back(stored[static_cast<size_t>(i)]);
    return found;
  }

  numbers::Array stored;
  AnyRows matrix;
};

double distance(Metric metric, const double* a, const double* b, int64_t columns) {
  double ab = 0.0, aa = 0.0, bb = 0.0, square = 0.0;
  for (int64_t k = 0; k < columns; ++k) ab += a[k] * b[k], aa += a[k] * a[k], bb += b[k] * b[k];
  for (int64_t k = 0; k < columns; ++k) {
    const double difference = a[k] / std::sqrt(aa) - b[k] / std::sqrt(bb);
    square += difference * difference;
  }
  if (metric == Metric::kCosine) return 1.0 - ab / std::sqrt(aa) / std::sqrt(bb);
  return metric == Metric::kChord ? std::sqrt(square)
                                  : 2.0 * std::asin(std::fmin(1.0, std::sqrt(square) / 2.0));
}

Values model(Metric metric, const Values& rows, const Values* corpus, const std::vector<float>& weights,
             int64_t columns) {
  const Values& others = corpus == nullptr ? rows : *corpus;
  const auto count = [&](const Values& values) { return static_cast<int64_t>(values.size()) / columns; };
  Values depths;
  for (int64_t i = 0; i < count(rows); ++i) {
    double sum = 0.0, total = 0.0;
    for (int64_t j = 0; j < count(others); ++j) {
      if (corpus == nullptr && i == j) continue;
      const double weight = weights.empty() ? 1.0 : static_cast<double>(weights[static_cast<size_t>(j)]);
      sum += weight * distance(metric, &rows[static_cast<size_t>(i * columns)],
                               &others[static_cast<size_t>(j * columns)], columns);
      total += weight;
    }
    depths.push_back((metric == Metric::kArc ? std::acos(-1.0) : 2.0) - sum / total);
  }
  return depths;
}

Values random_rows(int64_t count, int64_t columns, unsigned seed, double scale = 1.0) {
  Values values = numbers::Source(seed).some(count * columns);
  for (double& value : values) value = scale * (value + 0.125);
  for (int64_t i = 0; i < count; ++i) {  // no rows of zeros
    double& first = values[static_cast<size_t>(i * columns)];
    first = first == 0.0 ? scale : first;
  }
  return values;
}

std::vector<float> depths_of(Metric metric, const Array& rows, const Array* corpus,
                             const std::vector<float>& weights = {}, bool strict = true) {
  std::vector<float> depths(static_cast<size_t>(rows.matrix.count), -1.0f);
  const DepthProblem problem = {metric,
                                rows.matrix,
                                corpus == nullptr,
                                corpus == nullptr ? AnyRows{} : corpus->matrix,
                                weights.empty() ? nullptr : weights.data(),
                                strict,
                                depths.data()};
  const size_t bytes = ec::cuda::depth_workspace_bytes(problem, kMultiprocessors);
  // Exactly as much as was asked for, on a boundary as Torch's and CuPy's allocators give it.
  const std::unique_ptr<void, decltype(&std::free)> workspace(std::aligned_alloc(256, bytes), &std::free);
  std::memset(workspace.get(), 0xff, bytes);
  CHECK(ec::cuda::run_depth(problem, kMultiprocessors, workspace.get(), nullptr));
  return depths;
}

void agree(Metric metric, const std::vector<float>& got, const Values& wanted, double tolerance = 2e-6) {
  CHECK(got.size() == wanted.size());
  double worst = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - wanted[i]);
    worst = std::fmax(worst, std::isnan(error) ? 1e9 : error);
  }
  CHECK(worst <= tolerance);
  if (worst > tolerance) std::fprintf(stderr, "metric %d: %g\n", static_cast<int>(metric), worst);
}

constexpr Metric kMetrics[] = {Metric::kCosine, Metric::kChord, Metric::kArc};

void every_width_kind_and_layout() {
  for (const int64_t columns : {1, 3, 4, 31, 128, 129, 384, 1028, 2500}) {
    for (const NumberKind kind : {NumberKind::kFloat32, NumberKind::kFloat16, NumberKind::kBFloat16}) {
      const Values rows = random_rows(9, columns, 1), corpus = random_rows(37, columns, 2);
      for (const auto& [gap, start] : {std::pair<int64_t, int64_t>{0, 0}, {4, 4}, {3, 1}}) {
        const Array x(rows, columns, kind, gap, start), y(corpus, columns, kind, gap, start);
        agree(Metric::kCosine, depths_of(Metric::kCosine, x, &y),
              model(Metric::kCosine, rows, &corpus, {}, columns));
        agree(Metric::kCosine, depths_of(Metric::kCosine, y, nullptr),
              model(Metric::kCosine, corpus, nullptr, {}, columns));
      }
    }
  }
}

void pairs_of_several_tiles() {
  const int64_t columns = 40;
  const Values rows = random_rows(140, columns, 3), corpus = random_rows(200, columns, 4);
  const Array x(rows, columns, NumberKind::kFloat32, 0, 0), y(corpus, columns, NumberKind::kFloat16, 3, 1);
  std::vector<float> weights;
  for (int i = 0; i < 200; ++i) weights.push_back(static_cast<float>(i % 5) * 3.0f);
  for (const Metric metric : kMetrics) {
    agree(metric, depths_of(metric, x, &y), model(metric, rows, &corpus, {}, columns));
    agree(metric, depths_of(metric, y, nullptr, weights), model(metric, corpus, nullptr, weights, columns));
    // Of bf16, the correction leaves what is not linear, the less the more pairs there are.
    agree(metric, depths_of(metric, x, &y, {}, false), model(metric, rows, &corpus, {}, columns), 3e-5);
    agree(metric, depths_of(metric, y, nullptr, weights, false),
          model(metric, corpus, nullptr, weights, columns), 3e-5);
  }
}

void pairs_of_every_width() {
  for (const int64_t columns : {1, 5, 31, 32, 33, 96, 100, 400}) {
    const Values rows = random_rows(5, columns, 5), corpus = random_rows(20, columns, 6);
    const Array x(rows, columns, NumberKind::kBFloat16, 0, 0),
        y(corpus, columns, NumberKind::kFloat32, 0, 0);
    for (const Metric metric : {Metric::kChord, Metric::kArc})
      agree(metric, depths_of(metric, x, &y), model(metric, rows, &corpus, {}, columns));
  }
}

// Where bf16 has lost the distance.
void near_and_opposite_pairs() {
  const int64_t columns = 64;
  Values rows = random_rows(40, columns, 7);
  for (int64_t i = 1; i < 40; ++i) {
    for (int64_t k = 0; k < columns; ++k) {
      double& number = rows[static_cast<size_t>(i * columns + k)];
      const double first = rows[static_cast<size_t>(k)];
      if (i < 10) number = first;                                     // the same
      if (i >= 10 && i < 20) number = first + (k == i ? 1e-4 : 0.0);  // all but the same
      if (i >= 20 && i < 30) number = -first * (k == i ? 1.001 : 1.0);
    }
  }
  const Array x(rows, columns, NumberKind::kFloat32, 0, 0);
  const Values stored = x.values(columns);
  for (const Metric metric : kMetrics)
    agree(metric, depths_of(metric, x, nullptr), model(metric, stored, nullptr, {}, columns));
}

void any_length_will_do() {
  const int64_t columns = 200;
  for (const double scale : {1e-36, 1e-20, 1e15, 1e36}) {
    const Values rows = random_rows(9, columns, 8), large = random_rows(9, columns, 8, scale);
    const Array x(large, columns, NumberKind::kFloat32, 0, 0);
    for (const Metric metric : kMetrics)
      agree(metric, depths_of(metric, x, nullptr), model(metric, rows, nullptr, {}, columns));
  }
}

// As far as their own digits go: of numbers that small, a few are left.
void denormal_numbers_have_directions() {
  const int64_t columns = 64;
  const Array x(random_rows(9, columns, 13, 1e-40), columns, NumberKind::kFloat32, 0, 0);
  const Values stored = x.values(columns);
  for (const Metric metric : kMetrics)
    agree(metric, depths_of(metric, x, nullptr), model(metric, stored, nullptr, {}, columns));
}

void bad_rows_harm_themselves_alone() {
  const int64_t columns = 40;
  const Values good = random_rows(12, columns, 9), corpus = random_rows(20, columns, 10);
  Values rows = good;
  std::fill(rows.begin() + 2 * columns, rows.begin() + 3 * columns, 0.0);
  rows[static_cast<size_t>(5 * columns + 17)] = kNaN;
  rows[static_cast<size_t>(7 * columns + 39)] = -std::numeric_limits<double>::infinity();
  const Array x(rows, columns, NumberKind::kFloat32, 0, 0), y(corpus, columns, NumberKind::kFloat32, 0, 0);
  for (const Metric metric : kMetrics) {
    const Values wanted = model(metric, good, &corpus, {}, columns);
    const std::vector<float> got = depths_of(metric, x, &y);
    for (size_t i = 0; i < got.size(); ++i) {
      if (i == 2 || i == 5 || i == 7)
        CHECK(std::isnan(got[i]));
      else
        CHECK(std::fabs(static_cast<double>(got[i]) - wanted[i]) <= 2e-6);
    }
    for (const float depth : depths_of(metric, y, &x)) CHECK(std::isnan(depth));
  }
}

void few_rows() {
  const Values one = random_rows(1, 8, 11), none;
  const Array x(one, 8, NumberKind::kFloat32, 0, 0), y(none, 8, NumberKind::kFloat32, 0, 0);
  for (const Metric metric : kMetrics) {
    agree(metric, depths_of(metric, x, &x), model(metric, one, &one, {}, 8));
    CHECK(std::isnan(depths_of(metric, x, nullptr)[0]));  // a row alone in its own corpus
    CHECK(depths_of(metric, y, &x).empty());
  }
}

void launches_repeat() {
  const Values rows = random_rows(150, 50, 12);
  const Array x(rows, 50, NumberKind::kFloat32, 0, 0);
  for (const Metric metric : kMetrics) {
    const std::vector<float> first = depths_of(metric, x, nullptr);
    CHECK(depths_of(metric, x, nullptr) == first);
  }
}

}  // namespace

int main() {
  every_width_kind_and_layout();
  pairs_of_several_tiles();
  pairs_of_every_width();
  near_and_opposite_pairs();
  any_length_will_do();
  denormal_numbers_have_directions();
  bad_rows_harm_themselves_alone();
  few_rows();
  launches_repeat();
  return check::report();
}
