// SPDX-License-Identifier: Apache-2.0
// Mahalanobis depth on the emulation, against covariances that are made anew for each row and solved in
// long double.
#include <utility>

#include "depth_model.h"

using namespace depth_model;

namespace {

using Wide = long double;

// The weighted scatter of rows, their number and weight, and the sum of fourth powers about the mean.
struct Moments {
  std::vector<Wide> mean, scatter;
  Wide weight = 0, fourth = 0;
  int64_t used = 0;

  Moments(const Values& rows, const Values& weights, size_t columns)
      : mean(columns), scatter(columns * columns) {
    for (size_t i = 0; i < weights.size(); ++i) {
      weight += weights[i], used += weights[i] > 0.0 ? 1 : 0;
      for (size_t k = 0; k < columns; ++k) mean[k] += Wide{weights[i]} * rows[i * columns + k];
    }
    for (Wide& number : mean) number /= weight;
    for (size_t i = 0; i < weights.size(); ++i) {
      Wide square = 0;
      for (size_t k = 0; k < columns; ++k) {
        const Wide own = rows[i * columns + k] - mean[k];
        square += own * own;
        for (size_t j = 0; j < columns; ++j)
          scatter[k * columns + j] += weights[i] * own * (rows[i * columns + j] - mean[j]);
      }
      fourth += weights[i] * square * square;
    }
  }

  Wide trace() const {
    Wide sum = 0;
    for (size_t k = 0; k < mean.size(); ++k) sum += scatter[k * mean.size() + k];
    return sum;
  }
  // Ledoit and Wolf's.
  double shrinkage() const {
    Wide squares = 0;
    for (const Wide number : scatter) squares += number * number / weight / weight;
    const auto width = static_cast<Wide>(mean.size());
    const Wide scale = trace() / weight / width, spread = squares - width * scale * scale;
    const Wide noise = (fourth / weight - squares) / static_cast<Wide>(used);
    return static_cast<double>(std::fmin(std::fmax(noise, Wide{0}) / spread, Wide{1}));
  }
};

// x' matrix^-1 x, for a positive definite matrix.
Wide inverse_form(std::vector<Wide> matrix, std::vector<Wide> x) {
  const size_t n = x.size();
  Wide sum = 0;
  for (size_t k = 0; k < n; ++k) {
    sum += x[k] * x[k] / matrix[k * n + k];
    for (size_t i = k + 1; i < n; ++i) {
      const Wide factor = matrix[i * n + k] / matrix[k * n + k];
      x[i] -= factor * x[k];
      for (size_t j = k + 1; j < n; ++j) matrix[i * n + j] -= factor * matrix[k * n + j];
    }
  }
  return sum;
}

struct Members {
  Values rows, weights;
};
Members members_of(const Call& call, int64_t group, int64_t without) {
  const Array& corpus = call.corpus == nullptr ? *call.rows : *call.corpus;
  const Values rows = corpus.values();
  const auto width = static_cast<size_t>(corpus.matrix.columns);
  Members found;
  for (int64_t j = 0; j < corpus.matrix.count; ++j) {
    if (j == without || (!call.labels.empty() && call.labels[static_cast<size_t>(j)] != group)) continue;
    const auto from = rows.begin() + j * corpus.matrix.columns;
    found.rows.insert(found.rows.end(), from, from + static_cast<int64_t>(width));
    found.weights.push_back(call.weights.empty() ? 1.0 : call.weights[static_cast<size_t>(j)]);
  }
  return found;
}

double depth_of(const Call& call, const double* x, int64_t group, int64_t without, double shrinkage) {
  const Members members = members_of(call, group, without);
  const auto width = static_cast<size_t>(call.rows->matrix.columns);
  const Moments moments(members.rows, members.weights, width);
  const Wide scale = 1 / (moments.weight - (call.weights.empty() ? 1 : 0));
  std::vector<Wide> covariance = moments.scatter, centred(width);
  for (Wide& number : covariance) number *= (1 - Wide{shrinkage}) * scale;
  for (size_t k = 0; k < width; ++k) {
    covariance[k * width + k] += shrinkage * moments.trace() * scale / static_cast<Wide>(width);
    centred[k] = x[k] - moments.mean[k];
  }
  return static_cast<double>(1 / (1 + inverse_form(covariance, centred)));
}

Values expected(const Call& call) {
  const Values rows = call.rows->values();
  const int64_t columns = call.rows->matrix.columns;
  Values depths;
  for (int64_t i = 0; i < call.rows->matrix.count; ++i)
    for (int64_t group = 0; group < call.groups; ++group) {
      const bool own =
          call.corpus == nullptr && (call.labels.empty() || call.labels[static_cast<size_t>(i)] == group);
      double shrinkage = call.shrinkage;
      if (shrinkage < 0.0) {
        const Members all = members_of(call, group, -1);
        const Moments moments(all.rows, all.weights, static_cast<size_t>(columns));
        shrinkage = moments.used > columns + 1 ? 0.0 : moments.shrinkage();
      }
      depths.push_back(
          depth_of(call, &rows[static_cast<size_t>(i * columns)], group, own ? i : -1, shrinkage));
    }
  return depths;
}

void check_call(const Call& call, double limit = 1e-7) {
  agree(call.metric, depths_of(call), expected(call), limit);
}

Call call_of(const Array* rows, const Array* corpus = nullptr) {
  return {Metric::kMahalanobis, rows, corpus};
}

void of_every_width_kind_and_layout() {
  for (const int64_t columns : {1, 2, 3, 17, 65}) {
    for (const NumberKind kind :
         {NumberKind::kFloat32, NumberKind::kFloat16, NumberKind::kBFloat16, NumberKind::kFloat64}) {
      if (columns == 65 && kind != NumberKind::kFloat32) continue;
      const Values rows = random_rows(9, columns, 1), others = random_rows(columns + 20, columns, 2);
      const Array x(rows, columns, kind, 3, 1), y(others, columns, kind, 3, 1);
      const double limit = kind == NumberKind::kFloat64 ? 1e-12 : 1e-7;
      check_call(call_of(&x, &y), limit);
      check_call(call_of(&y), limit);
    }
  }
}

void many_rows_in_parts() {
  const int64_t columns = 5;
  const Array x(random_rows(700, columns, 3), columns, NumberKind::kFloat64);
  Call call = call_of(&x);
  const Values got = depths_of(call);
  const Values rows = x.values();
  for (const int64_t i : {0, 255, 256, 511, 699})
    CHECK(std::fabs(got[static_cast<size_t>(i)] -
                    depth_of(call, &rows[static_cast<size_t>(i * columns)], 0, i, 0.0)) < 1e-12);
  CHECK(depths_of(call) == got);
}

void shrunk_and_weighted() {
  const int64_t columns = 12;
  const Array x(random_rows(7, columns, 4), columns, NumberKind::kFloat64),
      few(random_rows(8, columns, 5), columns, NumberKind::kFloat64),
      many(random_rows(30, columns, 6), columns, NumberKind::kFloat64);
  for (const Array* corpus : {&few, &many}) {
    Values weights;
    for (int64_t i = 0; i < corpus->matrix.count; ++i)
      weights.push_back(1e-3 * static_cast<double>(1 + i * i % 7));
    for (const double shrinkage : {-1.0, 0.25, 1.0}) {
      for (const bool weighted : {false, true}) {
        for (const bool own : {false, true}) {
          Call call = own ? call_of(corpus) : call_of(&x, corpus);
          call.shrinkage = shrinkage;
          if (weighted) call.weights = weights, call.weights_kind = NumberKind::kFloat64;
          check_call(call, 1e-11);
        }
      }
    }
  }
}

void groups_and_weights() {
  const int64_t columns = 4, count = 90;
  const Array x(random_rows(11, columns, 7), columns), y(random_rows(count, columns, 8), columns);
  std::vector<int64_t> labels;
  Values weights;
  for (int64_t i = 0; i < count; ++i) labels.push_back(i * i % 5), weights.push_back(0.5 + (i * 3 % 4));
  for (int64_t& label : labels) label = label == 4 ? 2 : label == 3 ? 0 : label;
  for (const Array* corpus : {&y, static_cast<const Array*>(nullptr)}) {
    Call call = corpus == nullptr ? call_of(&y) : call_of(&x, corpus);
    call.labels = labels, call.groups = 3;
    check_call(call);
    call.weights = weights;
    check_call(call);
  }
}

// Whose squares leave float64, and rows far from a small corpus.
void numbers_of_any_size() {
  const int64_t columns = 6;
  const Array plain(random_rows(20, columns, 9), columns, NumberKind::kFloat64);
  const Values wanted = depths_of(call_of(&plain));
  for (const double scale : {0x1p-900, 0x1p+900}) {
    const Array x(random_rows(20, columns, 9, scale), columns, NumberKind::kFloat64);
    CHECK(depths_of(call_of(&x)) == wanted);
  }
  const Array far(random_rows(3, columns, 10, 1e300), columns, NumberKind::kFloat64);
  for (const double depth : depths_of(call_of(&far, &plain))) CHECK(depth >= 0.0 && depth < 1e-200);
}

void what_has_no_depth_is_none() {
  const int64_t columns = 3;
  Values rows = random_rows(12, columns, 11);
  const Array good(rows, columns);
  const Values all = depths_of(call_of(&good, &good));
  rows[7] = kNaN, rows[16] = -std::numeric_limits<double>::infinity();
  const Array bad(rows, columns);
  const Values found = depths_of(call_of(&bad, &good));
  for (size_t i = 0; i < found.size(); ++i)
    CHECK(i == 2 || i == 5 ? std::isnan(found[i]) : found[i] == all[i]);
  for (const double depth : depths_of(call_of(&good, &bad))) CHECK(std::isnan(depth));
  for (const double depth : depths_of(call_of(&bad))) CHECK(std::isnan(depth));
  Call negative = call_of(&good);
  negative.weights = Values(12, 1.0);
  negative.weights[4] = -1.0;
  for (const double depth : depths_of(negative)) CHECK(std::isnan(depth));
  // Too few rows, and rows that are all equal.
  const Array two(random_rows(2, columns, 12), columns), same(Values(30, 0.5), columns);
  for (const double depth : depths_of(call_of(&two))) CHECK(std::isnan(depth));
  for (const double depth : depths_of(call_of(&good, &same))) CHECK(std::isnan(depth));
  for (const double depth : depths_of(call_of(&two, &good))) CHECK(depth > 0.0);
}

// A column that is the sum of the others has no inverse: auto shrinks, 0 refuses.
void singular_covariances() {
  const int64_t columns = 5, count = 40;
  Values rows = random_rows(count, columns, 13);
  for (int64_t i = 0; i < count; ++i) {
    double* row = &rows[static_cast<size_t>(i * columns)];
    row[4] = row[0] + row[1] + row[2] + row[3];
  }
  const Array y(rows, columns, NumberKind::kFloat64);
  Call call = call_of(&y);
  const Values shrunk = depths_of(call);
  const Moments moments(rows, Values(count, 1.0), columns);
  call.shrinkage = moments.shrinkage();
  CHECK(call.shrinkage > 0.0 && call.shrinkage < 1.0);
  agree(call.metric, shrunk, expected(call), 1e-9);
  call.shrinkage = 0.0;
  for (const double depth : depths_of(call)) CHECK(std::isnan(depth));
}

// A row that alone leaves a direction is infinitely far without itself.
void a_direction_of_one_row() {
  const int64_t columns = 2;
  const Array x({0, 0, 1, 0, 2, 0, 4, 0, 3, 1}, columns, NumberKind::kFloat64);
  Call call = call_of(&x);
  call.shrinkage = 0.0;
  const Values depths = depths_of(call);
  CHECK(depths[4] == 0.0);
  CHECK(depths[0] > 0.0 && depths[3] > 0.0);
}

}  // namespace

int main() {
  of_every_width_kind_and_layout();
  many_rows_in_parts();
  shrunk_and_weighted();
  groups_and_weights();
  numbers_of_any_size();
  what_has_no_depth_is_none();
  singular_covariances();
  a_direction_of_one_row();
  return check::report();
}
