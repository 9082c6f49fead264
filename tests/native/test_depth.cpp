// SPDX-License-Identifier: Apache-2.0
// Depth through the C ABI against loops in double, under every instruction set that runs here.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "embedcore.h"
#include "native/check.h"

namespace {

constexpr double kPi = 3.14159265358979323846;

// Reproducible numbers in [-1, 1), moved off zero so that the corpus has a direction.
std::vector<float> numbers(int64_t count, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<double>(seed >> 40) / 8388608.0 - 1.0) + 0.25f;
  }
  return values;
}

struct Corpus {
  std::vector<float> values;
  int64_t rows, columns;

  ec_matrix matrix() const { return {values.data(), rows, columns, columns, EC_FLOAT32}; }
  const float* row(int64_t i) const { return values.data() + i * columns; }
};

double distance(ec_depth_metric metric, const float* a, const float* b, int64_t columns) {
  double ab = 0.0, aa = 0.0, bb = 0.0, gap = 0.0;
  for (int64_t i = 0; i < columns; ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
    gap += (x - y) * (x - y);
  }
  const double c = std::fmax(-1.0, std::fmin(1.0, ab / std::sqrt(aa * bb)));
  if (metric == EC_DEPTH_COSINE) return 1.0 - c;
  if (metric == EC_DEPTH_CHORD) return std::sqrt(2.0 - 2.0 * c);
  if (metric == EC_DEPTH_ARC) return std::acos(c);
  return std::sqrt(gap);
}

double expected(ec_depth_metric metric, const Corpus& x, int64_t row, const Corpus& corpus, bool self) {
  double total = 0.0;
  std::vector<double> vector(static_cast<size_t>(x.columns), 0.0);
  for (int64_t j = 0; j < corpus.rows; ++j) {
    if (self && j == row) continue;
    const double gap = distance(metric, x.row(row), corpus.row(j), x.columns);
    total += gap;
    for (int64_t i = 0; i < x.columns && gap > 0.0; ++i)
      vector[static_cast<size_t>(i)] +=
          (static_cast<double>(x.row(row)[i]) - static_cast<double>(corpus.row(j)[i])) / gap;
  }
  const double mean = total / static_cast<double>(self ? corpus.rows - 1 : corpus.rows);
  if (metric == EC_DEPTH_L2) return 1.0 / (1.0 + mean);
  if (metric != EC_DEPTH_SPATIAL) return (metric == EC_DEPTH_ARC ? kPi : 2.0) - mean;
  double square = 0.0;
  for (const double value : vector) square += value * value;
  return 1.0 - std::sqrt(square) / static_cast<double>(self ? corpus.rows - 1 : corpus.rows);
}

ec_depth_options options(ec_depth_metric metric, ec_precision precision, int threads) {
  ec_depth_options result;
  std::memset(&result, 0, sizeof result);
  result.metric = metric;
  result.precision = precision;
  result.threads = threads;
  result.groups = 1;
  return result;
}

void depths_are_right(ec_depth_metric metric, ec_precision precision, const Corpus& x, const Corpus& corpus,
                      bool self, double tolerance) {
  const ec_depth_options one = options(metric, precision, 1), three = options(metric, precision, 3);
  const ec_matrix x_matrix = x.matrix(), corpus_matrix = corpus.matrix();
  std::vector<double> depths(static_cast<size_t>(x.rows)), again(depths.size());
  ec_error error;
  CHECK(ec_depth_score(&x_matrix, self ? nullptr : &corpus_matrix, &one, depths.data(), &error) == EC_OK);
  CHECK(ec_depth_score(&x_matrix, self ? nullptr : &corpus_matrix, &three, again.data(), &error) == EC_OK);
  CHECK(depths == again);
  for (int64_t i = 0; i < x.rows; ++i) {
    const double gap = depths[static_cast<size_t>(i)] - expected(metric, x, i, self ? x : corpus, self);
    if (!(std::fabs(gap) <= tolerance))
      std::fprintf(stderr, "%s metric %d precision %d row %d: off by %g\n", ec_get_isa(), metric, precision,
                   static_cast<int>(i), gap);
    CHECK(std::fabs(gap) <= tolerance);
  }
}

// Rounding a row to bf16 or int8 moves a cosine by about 2^-9 or 2^-7 over the root of the columns; the
// mean over a few dozen rows, corrected, is far closer, but these corpora are small.
void every_metric_is_right() {
  const int64_t widths[] = {1, 7, 33, 130};
  for (const int64_t columns : widths) {
    const Corpus x = {numbers(60 * columns, 1), 60, columns};
    const Corpus corpus = {numbers(53 * columns, 2), 53, columns};
    for (const bool self : {false, true}) {
      for (const ec_depth_metric metric :
           {EC_DEPTH_COSINE, EC_DEPTH_CHORD, EC_DEPTH_ARC, EC_DEPTH_L2, EC_DEPTH_SPATIAL})
        depths_are_right(metric, EC_PRECISION_FLOAT32, x, corpus, self, 2e-6);
      if (columns < 100) continue;
      for (const ec_depth_metric metric : {EC_DEPTH_CHORD, EC_DEPTH_ARC}) {
        depths_are_right(metric, EC_PRECISION_BFLOAT16, x, corpus, self, 1e-4);
        depths_are_right(metric, EC_PRECISION_INT8, x, corpus, self, 4e-4);
      }
    }
  }
}

void bad_rows_are_named() {
  Corpus x = {numbers(20 * 9, 3), 20, 9};
  x.values[7 * 9 + 4] = NAN;
  const ec_matrix matrix = x.matrix();
  std::vector<double> depths(20);
  for (const ec_depth_metric metric : {EC_DEPTH_COSINE, EC_DEPTH_ARC, EC_DEPTH_L2, EC_DEPTH_SPATIAL}) {
    const ec_depth_options call = options(metric, EC_PRECISION_FLOAT32, 2);
    ec_error error;
    CHECK(ec_depth_score(&matrix, nullptr, &call, depths.data(), &error) == EC_INVALID_VALUE);
    CHECK(error.row == 7);
    CHECK(std::strcmp(error.argument, "x") == 0);
  }
}

}  // namespace

int main() {
  const char* names[16] = {};
  const int count = ec_list_isas(names, 16);
  for (int i = 0; i < count; ++i) {
    CHECK(ec_set_isa(names[i], nullptr) == EC_OK);
    every_metric_is_right();
    bad_rows_are_named();
  }
  return check::report();
}
