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

#include "depth/cosine.h"
#include "native/check.h"
#include "native/numbers.h"

namespace {

using ec::cuda::CosineProblem;
using ec::cuda::Matrix;
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

  numbers::Array stored;
  Matrix matrix;
};

double cosine(const double* a, const double* b, int64_t columns) {
  double ab = 0.0, aa = 0.0, bb = 0.0;
  for (int64_t k = 0; k < columns; ++k) ab += a[k] * b[k], aa += a[k] * a[k], bb += b[k] * b[k];
  return ab / std::sqrt(aa) / std::sqrt(bb);
}

Values model(const Values& rows, const Values* corpus, const std::vector<float>& weights, int64_t columns) {
  const Values& others = corpus == nullptr ? rows : *corpus;
  const auto count = [&](const Values& values) { return static_cast<int64_t>(values.size()) / columns; };
  Values depths;
  for (int64_t i = 0; i < count(rows); ++i) {
    double sum = 0.0, total = 0.0;
    for (int64_t j = 0; j < count(others); ++j) {
      if (corpus == nullptr && i == j) continue;
      const double weight = weights.empty() ? 1.0 : static_cast<double>(weights[static_cast<size_t>(j)]);
      sum += weight * (1.0 - cosine(&rows[static_cast<size_t>(i * columns)],
                                    &others[static_cast<size_t>(j * columns)], columns));
      total += weight;
    }
    depths.push_back(2.0 - sum / total);
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

std::vector<float> depths_of(const Array& rows, const Array* corpus, const std::vector<float>& weights) {
  std::vector<float> depths(static_cast<size_t>(rows.matrix.count), -1.0f);
  const CosineProblem problem = {rows.matrix, corpus == nullptr ? Matrix{} : corpus->matrix,
                                 weights.empty() ? nullptr : weights.data(), depths.data()};
  const size_t bytes = ec::cuda::cosine_workspace_bytes(problem, kMultiprocessors);
  // Exactly as much as was asked for, on a boundary as Torch's and CuPy's allocators give it.
  const auto workspace =
      std::unique_ptr<void, decltype(&std::free)>(std::aligned_alloc(256, bytes), &std::free);
  std::memset(workspace.get(), 0xff, bytes);
  ec::cuda::run_cosine(problem, kMultiprocessors, workspace.get(), nullptr);
  return depths;
}

void agree(const std::vector<float>& got, const Values& wanted, double tolerance) {
  CHECK(got.size() == wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const bool right = std::fabs(static_cast<double>(got[i]) - wanted[i]) <= tolerance;
    CHECK(right);
    if (!right)
      return void(std::fprintf(stderr, "depth %d: %g, not %g\n", static_cast<int>(i), got[i], wanted[i]));
  }
}

constexpr double kTolerance = 2e-6;

void every_width_kind_and_layout() {
  for (const int64_t columns : {1, 3, 4, 31, 128, 129, 384, 1028, 2500}) {
    for (const NumberKind kind : {NumberKind::kFloat32, NumberKind::kFloat16, NumberKind::kBFloat16}) {
      const Values rows = random_rows(9, columns, 1), corpus = random_rows(37, columns, 2);
      for (const auto& [gap, start] : {std::pair<int64_t, int64_t>{0, 0}, {4, 4}, {3, 1}}) {
        const Array x(rows, columns, kind, gap, start), y(corpus, columns, kind, gap, start);
        agree(depths_of(x, &y, {}), model(rows, &corpus, {}, columns), kTolerance);
        agree(depths_of(y, nullptr, {}), model(corpus, nullptr, {}, columns), kTolerance);
      }
    }
  }
}

void kinds_may_differ_and_rows_be_weighed() {
  const int64_t columns = 36;
  const Values rows = random_rows(5, columns, 3), corpus = random_rows(33, columns, 4);
  std::vector<float> weights;
  for (int i = 0; i < 33; ++i) weights.push_back(static_cast<float>(i % 5));
  const Array x(rows, columns, NumberKind::kBFloat16, 0, 0), y(corpus, columns, NumberKind::kFloat32, 0, 0);
  agree(depths_of(x, &y, weights), model(rows, &corpus, weights, columns), kTolerance);
  agree(depths_of(y, nullptr, weights), model(corpus, nullptr, weights, columns), kTolerance);
}

void any_length_will_do() {
  const int64_t columns = 200;
  for (const double scale : {1e-36, 1e-20, 1e15, 1e30}) {
    const Values rows = random_rows(9, columns, 5), large = random_rows(9, columns, 5, scale);
    const Array x(large, columns, NumberKind::kFloat32, 0, 0);
    agree(depths_of(x, nullptr, {}), model(rows, nullptr, {}, columns), 2 * kTolerance);
  }
}

void bad_rows_harm_themselves_alone() {
  const int64_t columns = 40;
  Values rows = random_rows(12, columns, 6);
  const Values corpus = random_rows(20, columns, 7);
  const Values wanted = model(rows, &corpus, {}, columns);
  std::fill(rows.begin() + 2 * columns, rows.begin() + 3 * columns, 0.0);
  rows[static_cast<size_t>(5 * columns + 17)] = kNaN;
  rows[static_cast<size_t>(7 * columns + 39)] = -std::numeric_limits<double>::infinity();
  const Array x(rows, columns, NumberKind::kFloat32, 0, 0), y(corpus, columns, NumberKind::kFloat32, 0, 0);
  const std::vector<float> got = depths_of(x, &y, {});
  for (size_t i = 0; i < got.size(); ++i) {
    if (i == 2 || i == 5 || i == 7)
      CHECK(std::isnan(got[i]));
    else
      CHECK(std::fabs(static_cast<double>(got[i]) - wanted[i]) <= kTolerance);
  }
  for (const float depth : depths_of(y, &x, {})) CHECK(std::isnan(depth));
}

void few_rows() {
  const Values one = random_rows(1, 8, 8), none;
  const Array x(one, 8, NumberKind::kFloat32, 0, 0), y(none, 8, NumberKind::kFloat32, 0, 0);
  agree(depths_of(x, &x, {}), {2.0}, kTolerance);
  CHECK(std::isnan(depths_of(x, nullptr, {})[0]));  // a row alone in its own corpus
  CHECK(depths_of(y, &x, {}).empty());
}

void launches_repeat() {
  const Values rows = random_rows(150, 50, 9);
  const Array x(rows, 50, NumberKind::kFloat32, 0, 0);
  const std::vector<float> first = depths_of(x, nullptr, {});
  for (int i = 0; i < 3; ++i) CHECK(depths_of(x, nullptr, {}) == first);
}

}  // namespace

int main() {
  every_width_kind_and_layout();
  kinds_may_differ_and_rows_be_weighed();
  any_length_will_do();
  bad_rows_harm_themselves_alone();
  few_rows();
  launches_repeat();
  return check::report();
}
