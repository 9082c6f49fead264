// SPDX-License-Identifier: Apache-2.0
// Depths in groups of a corpus and with weights of any unit, on the emulation, against loops in double.
#include <algorithm>

#include "depth_model.h"

using namespace depth_model;

namespace {

// labels[row] = a group drawn for each row; each group but `empty` has one at least.
std::vector<int64_t> some_labels(int64_t rows, int64_t groups, int64_t empty = -1) {
  numbers::Source source(99);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t drawn = i < groups ? i : static_cast<int64_t>((source.next() + 1.0) * 1e4) % groups;
    labels.push_back(drawn == empty ? (empty + 1) % groups : drawn);
  }
  return labels;
}

Values some_weights(int64_t rows) {
  Values weights;
  for (int64_t i = 0; i < rows; ++i) weights.push_back(static_cast<double>(i * 7 % 5));
  return weights;
}

// Few groups, which are split, and more than there are blocks for; one of them empty.
void any_number_of_groups() {
  const int64_t columns = 24;
  const Array x(random_rows(20, columns, 1), columns), y(random_rows(150, columns, 2), columns);
  for (const int64_t groups : {3, 9}) {
    const std::vector<int64_t> labels = some_labels(150, groups, groups == 9 ? 5 : -1);
    for (const Metric metric : kMetrics) {
      Call call = {metric, &x, &y, {}, NumberKind::kFloat32, labels, groups};
      agree(call);
      if (groups != 3) continue;
      call.weights = some_weights(150);
      agree(call);
    }
  }
}

// Rows leave themselves out of their own group only; some are alone in it.
void rows_in_their_own_groups() {
  const int64_t columns = 20;
  const Array x(random_rows(140, columns, 3), columns, NumberKind::kFloat32, 3, 1);
  std::vector<int64_t> labels = some_labels(140, 3);
  std::replace(labels.begin(), labels.end(), int64_t{2}, int64_t{1});
  labels[77] = 2;
  for (const Metric metric : kMetrics) {
    Call call = {metric, &x, nullptr, {}, NumberKind::kFloat32, labels, 3};
    agree(call);
    if (metric == Metric::kChord || metric == Metric::kL2) continue;
    call.weights = some_weights(140);
    call.weights[77] = 1.0;
    agree(call);
  }
}

// More groups than travel to the device at once.
void very_many_groups() {
  const int64_t columns = 4, rows = 1000;
  const Array x(random_rows(3, columns, 4), columns), y(random_rows(rows, columns, 5), columns);
  agree({Metric::kCosine, &x, &y, {}, NumberKind::kFloat32, some_labels(rows, 950, 17), 950});
}

void groups_of_several_tiles() {
  const int64_t columns = 8, rows = 700;
  const Array x(random_rows(9, columns, 6), columns), y(random_rows(rows, columns, 7), columns);
  const std::vector<int64_t> labels = some_labels(rows, 2);
  for (const Metric metric : {Metric::kArc, Metric::kL2, Metric::kSpatial})
    agree({metric, &x, &y, {}, NumberKind::kFloat32, labels, 2});
}

void bad_rows_and_weights_harm_their_group_alone() {
  const int64_t columns = 16, groups = 3;
  const Values good = random_rows(60, columns, 8);
  const Array x(random_rows(6, columns, 9), columns), y(good, columns);
  const std::vector<int64_t> labels = some_labels(60, groups);
  const Values weights(60, 2.0);
  Values rows = good;
  rows[static_cast<size_t>(31 * columns + 5)] = kNaN;
  const Array bad(rows, columns);
  const auto spoil = [&](Values wanted, int64_t group) {
    for (size_t i = static_cast<size_t>(group); i < wanted.size(); i += groups) wanted[i] = kNaN;
    return wanted;
  };
  for (const Metric metric : kMetrics) {
    const Values wanted = model({metric, &x, &y, weights, NumberKind::kFloat32, labels, groups});
    agree(metric, depths_of({metric, &x, &bad, weights, NumberKind::kFloat32, labels, groups}),
          spoil(wanted, labels[31]), tolerance(metric));
    for (const double weight : {-1.0, kNaN, std::numeric_limits<double>::infinity()}) {
      if (metric != Metric::kCosine && weight > 0.0) continue;
      Values wrong = weights;
      wrong[44] = weight;
      agree(metric, depths_of({metric, &x, &y, wrong, NumberKind::kFloat64, labels, groups}),
            spoil(wanted, labels[44]), tolerance(metric));
    }
    // Their own depths: a bad row has none at all, and harms its own group.
    Values own = spoil(model({metric, &y, nullptr, {}, NumberKind::kFloat32, labels, groups}), labels[31]);
    for (size_t group = 0; group < groups; ++group) own[31 * groups + group] = kNaN;
    agree(metric, depths_of({metric, &bad, nullptr, {}, NumberKind::kFloat32, labels, groups}), own,
          tolerance(metric));
  }
}

void weights_of_any_unit() {
  const int64_t columns = 12;
  const Array x(random_rows(5, columns, 10), columns), y(random_rows(40, columns, 11), columns);
  const Values weights = some_weights(40);
  for (const Metric metric : {Metric::kCosine, Metric::kArc, Metric::kSpatial}) {
    const Values wanted = model({metric, &x, &y, weights});
    for (const double unit : {1e-320, 1e-36, 1e36, 1e300}) {
      const NumberKind kind = unit > 1e-40 && unit < 1e40 ? NumberKind::kFloat32 : NumberKind::kFloat64;
      Values scaled = weights;
      for (double& weight : scaled) weight *= unit;
      agree(metric, depths_of({metric, &x, &y, scaled, kind}), wanted,
            unit > 1e-310 ? tolerance(metric) : 1e-3);
    }
    for (const double depth : depths_of({metric, &x, &y, Values(40, 0.0)})) CHECK(std::isnan(depth));
  }
}

// A row with all but all of the weight leaves the others theirs when it leaves itself out.
void a_heavy_row_costs_the_others_nothing() {
  const int64_t columns = 33;
  const Array x(random_rows(20, columns, 12), columns);
  Values weights = some_weights(20);
  weights[7] = 1e6;
  for (const Metric metric : kMetrics) agree({metric, &x, nullptr, weights});
}

}  // namespace

int main() {
  any_number_of_groups();
  rows_in_their_own_groups();
  very_many_groups();
  groups_of_several_tiles();
  bad_rows_and_weights_harm_their_group_alone();
  weights_of_any_unit();
  a_heavy_row_costs_the_others_nothing();
  return check::report();
}
