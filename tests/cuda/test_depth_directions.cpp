// SPDX-License-Identifier: Apache-2.0
// Depths over directions on the emulation: halfspace, projection, IRW and AI-IRW, against loops in double.
#include <algorithm>
#include <utility>

#include "depth_model.h"

using namespace depth_model;

namespace {

constexpr Metric kRanked[] = {Metric::kHalfspace, Metric::kIrw, Metric::kAiIrw};
constexpr Metric kDirectional[] = {Metric::kHalfspace, Metric::kProjection, Metric::kIrw, Metric::kAiIrw};

bool belongs(const Call& call, int64_t j, int64_t group) {
  return call.labels.empty() || call.labels[static_cast<size_t>(j)] == group;
}
double weight_of(const Call& call, int64_t j) {
  return call.weights.empty() ? 1.0 : call.weights[static_cast<size_t>(j)];
}

double dot(const double* a, const double* b, int64_t columns) {
  double sum = 0.0;
  for (int64_t k = 0; k < columns; ++k) sum += a[k] * b[k];
  return sum;
}

// Eigenvectors [column][vector] of a symmetric matrix, which becomes diagonal: Jacobi's rotations.
Values diagonalise(Values& a, int64_t n) {
  Values vectors(static_cast<size_t>(n * n));
  const auto at = [n](int64_t i, int64_t j) { return static_cast<size_t>(i * n + j); };
  for (int64_t i = 0; i < n; ++i) vectors[at(i, i)] = 1.0;
  for (int sweep = 0; sweep < 30; ++sweep) {
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) {
        if (a[at(p, q)] == 0.0) continue;
        const double angle = 0.5 * std::atan2(2.0 * a[at(p, q)], a[at(q, q)] - a[at(p, p)]);
        const double c = std::cos(angle), s = std::sin(angle);
        const auto rotate = [&](double& x, double& y) {
          const double before = x;
          x = c * before - s * y, y = s * before + c * y;
        };
        for (int64_t k = 0; k < n; ++k) rotate(a[at(k, p)], a[at(k, q)]);
        for (int64_t k = 0; k < n; ++k) rotate(a[at(p, k)], a[at(q, k)]);
        for (int64_t k = 0; k < n; ++k) rotate(vectors[at(k, p)], vectors[at(k, q)]);
      }
    }
  }
  return vectors;
}

// Directions that whiten a group: u C^-1/2.
Values whitened(const Call& call, const Values& others, int64_t group) {
  const int64_t n = call.rows->matrix.columns, count = static_cast<int64_t>(others.size()) / n;
  Values mean(static_cast<size_t>(n)), scatter(static_cast<size_t>(n * n)), along;
  double total = 0.0;
  for (int64_t j = 0; j < count; ++j) {
    if (!belongs(call, j, group)) continue;
    total += weight_of(call, j);
    for (int64_t k = 0; k < n; ++k)
      mean[static_cast<size_t>(k)] += weight_of(call, j) * others[static_cast<size_t>(j * n + k)];
  }
  for (double& number : mean) number /= total;
  for (int64_t j = 0; j < count; ++j) {
    if (!belongs(call, j, group)) continue;
    const double* row = &others[static_cast<size_t>(j * n)];
    for (int64_t k = 0; k < n; ++k)
      for (int64_t l = 0; l < n; ++l)
        scatter[static_cast<size_t>(k * n + l)] += weight_of(call, j) *
                                                   (row[k] - mean[static_cast<size_t>(k)]) *
                                                   (row[l] - mean[static_cast<size_t>(l)]);
  }
  double trace = 0.0;
  for (int64_t k = 0; k < n; ++k) trace += scatter[static_cast<size_t>(k * n + k)];
  for (double& number : scatter) number *= 1.0 - call.shrinkage;
  for (int64_t k = 0; k < n; ++k)
    scatter[static_cast<size_t>(k * n + k)] += call.shrinkage * trace / static_cast<double>(n);
  const Values vectors = diagonalise(scatter, n);
  for (size_t d = 0; d < call.directions.size() / static_cast<size_t>(n); ++d) {
    Values turned(static_cast<size_t>(n)), back(static_cast<size_t>(n));
    for (int64_t v = 0; v < n; ++v)
      for (int64_t k = 0; k < n; ++k)
        turned[static_cast<size_t>(v)] +=
            call.directions[d * static_cast<size_t>(n) + static_cast<size_t>(k)] *
            vectors[static_cast<size_t>(k * n + v)];
    for (int64_t v = 0; v < n; ++v)
      for (int64_t k = 0; k < n; ++k)
        back[static_cast<size_t>(k)] += turned[static_cast<size_t>(v)] *
                                        vectors[static_cast<size_t>(k * n + v)] /
                                        std::sqrt(scatter[static_cast<size_t>(v * n + v)]);
    along.insert(along.end(), back.begin(), back.end());
  }
  return along;
}

double median(Values values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 != 0 ? values[half] : (values[half - 1] + values[half]) / 2.0;
}

// Of one projection in those of a group, and their weights.
double smaller_tail(double own, const Values& values, const Values& weights) {
  double below = 0.0, above = 0.0, total = 0.0;
  for (size_t j = 0; j < values.size(); ++j) {
    total += weights[j];
    below += values[j] <= own ? weights[j] : 0.0;
    above += values[j] >= own ? weights[j] : 0.0;
  }
  return std::fmin(below, above) / total;
}
double outlying(double own, const Values& values) {
  const double middle = median(values);
  Values deviations;
  for (const double value : values) deviations.push_back(std::fabs(value - middle));
  const double distance = std::fabs(own - middle);
  return distance > 0.0 ? distance / median(deviations) : 0.0;
}

Values expected(const Call& call) {
  const int64_t columns = call.rows->matrix.columns, count = call.rows->matrix.count;
  const Values rows = call.rows->values(), others = call.corpus == nullptr ? rows : call.corpus->values();
  const auto many = static_cast<int64_t>(call.directions.size()) / columns;
  Values depths(static_cast<size_t>(count * call.groups));
  for (int64_t group = 0; group < call.groups; ++group) {
    const Values along = call.metric == Metric::kAiIrw ? whitened(call, others, group) : call.directions;
    for (int64_t i = 0; i < count; ++i) {
      double sum = 0.0, least = 1.0, worst = 0.0;
      for (int64_t d = 0; d < many; ++d) {
        const double* u = &along[static_cast<size_t>(d * columns)];
        Values values, weights;
        for (int64_t j = 0; j < static_cast<int64_t>(others.size()) / columns; ++j) {
          if (!belongs(call, j, group) || (call.corpus == nullptr && i == j)) continue;
          values.push_back(dot(u, &others[static_cast<size_t>(j * columns)], columns));
          weights.push_back(weight_of(call, j));
        }
        const double own = dot(u, &rows[static_cast<size_t>(i * columns)], columns);
        if (call.metric == Metric::kProjection) {
          worst = std::fmax(worst, outlying(own, values));
          continue;
        }
        const double tail = smaller_tail(own, values, weights);
        sum += tail, least = std::fmin(least, tail);
      }
      depths[static_cast<size_t>(i * call.groups + group)] =
          call.metric == Metric::kProjection  ? 1.0 / (1.0 + worst)
          : call.metric == Metric::kHalfspace ? least
                                              : sum / static_cast<double>(many);
    }
  }
  return depths;
}

// Medians are float32; MAD divides their errors by its own size.
double limit_of(Metric metric) { return metric == Metric::kProjection ? 3e-6 : 1e-7; }
void check_call(const Call& call) {
  agree(call.metric, depths_of(call), expected(call), limit_of(call.metric));
}

Call call_of(Metric metric, const Array* rows, const Array* corpus, int64_t directions,
             unsigned seed = 77) {
  Call call = {metric, rows, corpus};
  call.directions = random_rows(directions, rows->matrix.columns, seed, 1.0, 0.0);
  call.shrinkage = 0.0;
  return call;
}

void of_every_width_kind_and_layout() {
  for (const int64_t columns : {1, 2, 5, 70}) {
    for (const NumberKind kind :
         {NumberKind::kFloat32, NumberKind::kFloat16, NumberKind::kBFloat16, NumberKind::kFloat64}) {
      if (columns == 70 && kind != NumberKind::kFloat32) continue;
      const Array x(random_rows(7, columns, 1), columns, kind, 3, 1),
          y(random_rows(columns + 13, columns, 2), columns, kind, 3, 1);
      for (const Metric metric : kDirectional) {
        // A median of 16-bit numbers may be one of the rows, a MAD nearly 0.
        if (columns == 1 && metric == Metric::kProjection) continue;
        Call call = call_of(metric, &x, &y, 6);
        call.shrinkage = columns == 70 ? 0.2 : 0.0;
        check_call(call);
        Call own = call_of(metric, &y, nullptr, 6);
        own.shrinkage = call.shrinkage;
        check_call(own);
      }
    }
  }
}

// More than the warps of a block take at once, and more directions than a tile.
void many_rows_and_directions() {
  const int64_t columns = 3;
  const Array x(random_rows(5, columns, 3), columns), y(random_rows(1100, columns, 4), columns);
  for (const Metric metric : kDirectional)
    check_call(call_of(metric, &x, &y, metric == Metric::kHalfspace ? 66 : 3));
  const Array few(random_rows(41, columns, 5), columns);
  check_call(call_of(Metric::kAiIrw, &few, nullptr, 70));
}

void groups_and_weights() {
  const int64_t columns = 4, count = 90;
  const Array x(random_rows(300, columns, 7), columns), y(random_rows(count, columns, 8), columns);
  std::vector<int64_t> labels;
  Values weights;
  for (int64_t i = 0; i < count; ++i)
    labels.push_back(i % 7 == 3 ? 2 : i * i % 3), weights.push_back(1e-9 * static_cast<double>(i * 3 % 4));
  for (const bool own : {false, true}) {
    for (const Metric metric : kDirectional) {
      Call call = own ? call_of(metric, &y, nullptr, 5) : call_of(metric, &x, &y, 5);
      call.labels = labels, call.groups = 3;
      check_call(call);
      if (metric == Metric::kProjection) continue;
      call.weights = weights;
      check_call(call);
      call.weights_kind = NumberKind::kFloat64;
      check_call(call);
    }
  }
}

// Equal rows tie along every direction, wherever they stand; of most rows equal, the MAD is 0.
void ties() {
  const int64_t columns = 3, count = 120;
  Values rows = random_rows(count, columns, 9);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < columns; ++k)
      if (i % 4 != 0)
        rows[static_cast<size_t>(i * columns + k)] = rows[static_cast<size_t>(i % 8 * columns + k)];
  const Array y(rows, columns);
  for (const Metric metric : kDirectional) check_call(call_of(metric, &y, nullptr, 5));
  for (const Metric metric : kDirectional) check_call(call_of(metric, &y, &y, 5));
  for (int64_t i = 0; i < count - 5; ++i)
    for (int64_t k = 0; k < columns; ++k) rows[static_cast<size_t>(i * columns + k)] = 0.75;
  const Array same(rows, columns);
  for (const Metric metric : {Metric::kHalfspace, Metric::kIrw, Metric::kProjection}) {
    const Values depths = depths_of(call_of(metric, &same, nullptr, 5));
    agree(metric, depths, expected(call_of(metric, &same, nullptr, 5)), 1e-7);
    if (metric != Metric::kProjection) continue;
    CHECK(depths[0] == 1.0 && depths[count - 1] == 0.0);
  }
}

void numbers_of_any_size() {
  const int64_t columns = 6;
  const Array plain(random_rows(24, columns, 10), columns, NumberKind::kFloat64);
  for (const Metric metric : kDirectional) {
    const Values wanted = depths_of(call_of(metric, &plain, nullptr, 4));
    for (const double scale : {0x1p-900, 0x1p+900}) {
      const Array x(random_rows(24, columns, 10, scale), columns, NumberKind::kFloat64);
      CHECK(depths_of(call_of(metric, &x, nullptr, 4)) == wanted);
    }
  }
  // Far from the origin, and a row far from all.
  Values moved = random_rows(24, columns, 10, 1.0, 1e6);
  const Array offset(moved, columns, NumberKind::kFloat64);
  for (const Metric metric : kRanked) check_call(call_of(metric, &offset, nullptr, 7));
  moved = random_rows(24, columns, 10);
  std::fill_n(moved.begin() + 12, columns, 1e30);
  const Array far(moved, columns, NumberKind::kFloat64);
  for (const Metric metric : {Metric::kHalfspace, Metric::kIrw}) {
    check_call(call_of(metric, &far, nullptr, 7));
    CHECK(depths_of(call_of(metric, &far, nullptr, 7))[2] == 0.0);
  }
}

void what_has_no_depth_is_none() {
  const int64_t columns = 3;
  Values rows = random_rows(12, columns, 11);
  const Array good(rows, columns), one(random_rows(1, columns, 12), columns), none({}, columns);
  rows[7] = kNaN, rows[16] = -std::numeric_limits<double>::infinity();
  const Array bad(rows, columns);
  for (const Metric metric : kDirectional) {
    const Values all = depths_of(call_of(metric, &good, &good, 6)),
                 found = depths_of(call_of(metric, &bad, &good, 6));
    for (size_t i = 0; i < found.size(); ++i)
      CHECK(i == 2 || i == 5 ? std::isnan(found[i]) : found[i] == all[i]);
    for (const double depth : depths_of(call_of(metric, &good, &bad, 6))) CHECK(std::isnan(depth));
    // In groups: those with a bad row have no depths, and the bad rows none in any.
    Call own = call_of(metric, &bad, nullptr, 6);
    own.labels = {0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0}, own.groups = 2;
    const Values parts = depths_of(own);
    for (size_t i = 0; i < 12; ++i) {
      CHECK(std::isnan(parts[2 * i]) == (i == 2 || i == 5));
      CHECK(std::isnan(parts[2 * i + 1]));
    }
    CHECK(std::isnan(depths_of(call_of(metric, &one, nullptr, 6))[0]));
    CHECK(depths_of(call_of(metric, &none, &good, 6)).empty());
    for (const double depth : depths_of(call_of(metric, &good, &none, 6))) CHECK(std::isnan(depth));
    if (metric == Metric::kProjection) continue;
    Call negative = call_of(metric, &good, nullptr, 6);
    negative.weights = Values(12, 1.0);
    negative.weights[4] = -1.0;
    for (const double depth : depths_of(negative)) CHECK(std::isnan(depth));
  }
  // More columns than rows, not shrunk.
  const Array wide(random_rows(4, 6, 13), 6);
  for (const double depth : depths_of(call_of(Metric::kAiIrw, &wide, nullptr, 6))) CHECK(std::isnan(depth));
}

}  // namespace

int main() {
  of_every_width_kind_and_layout();
  many_rows_and_directions();
  groups_and_weights();
  ties();
  numbers_of_any_size();
  what_has_no_depth_is_none();
  return check::report();
}
