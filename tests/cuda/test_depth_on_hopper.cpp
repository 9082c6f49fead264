// SPDX-License-Identifier: Apache-2.0
// Whole calls of chord and arc depth on a device that runs Hopper's kernels.
#include "depth_model.h"

using namespace depth_model;

namespace {

constexpr Metric kOfPairs[] = {Metric::kChord, Metric::kArc};

Call on_hopper(Metric metric, const Array& rows, const Array* corpus, const Values& weights = {}) {
  Call call = {metric, &rows, corpus, weights};
  call.hopper = true;
  return call;
}

void every_kind_of_rows() {
  const int64_t columns = 70;
  for (const NumberKind kind :
       {NumberKind::kFloat32, NumberKind::kFloat16, NumberKind::kBFloat16, NumberKind::kFloat64}) {
    const Array x(random_rows(30, columns, 1), columns, kind, 3, 1),
        y(random_rows(260, columns, 2), columns);
    for (const Metric metric : kOfPairs) {
      agree(on_hopper(metric, x, &y));
      agree(on_hopper(metric, x, nullptr));
    }
  }
}

void weights_and_several_tiles() {
  const int64_t columns = 20;
  const Array x(random_rows(280, columns, 3), columns);
  Values weights;
  for (int i = 0; i < 280; ++i) weights.push_back(i % 5 * 3e20);
  for (const Metric metric : kOfPairs) agree(on_hopper(metric, x, nullptr, weights));
}

// Less exact products and the same correction as elsewhere.
void bfloat_products() {
  const int64_t columns = 40;
  const Array x(random_rows(50, columns, 4), columns), y(random_rows(250, columns, 5), columns);
  for (const Metric metric : kOfPairs) {
    Call call = on_hopper(metric, x, &y);
    call.strict = false;
    agree(metric, depths_of(call), model(call), 3e-5);
  }
}

void bad_rows_and_weights() {
  const int64_t columns = 24;
  Values bad = random_rows(12, columns, 6);
  std::fill(bad.begin() + 2 * columns, bad.begin() + 3 * columns, 0.0);
  bad[5 * columns + 3] = kNaN;
  const Array x(bad, columns), y(random_rows(40, columns, 7), columns);
  for (const Metric metric : kOfPairs) {
    const Values got = depths_of(on_hopper(metric, x, &y)), wanted = model({metric, &x, &y});
    for (size_t i = 0; i < got.size(); ++i) {
      if (i == 2 || i == 5)
        CHECK(std::isnan(got[i]));
      else
        CHECK(std::fabs(got[i] - wanted[i]) <= tolerance(metric));
    }
    for (const double depth : depths_of(on_hopper(metric, y, &x))) CHECK(std::isnan(depth));
    Values weights(40, 1.0);
    weights[9] = -1.0;
    for (const double depth : depths_of(on_hopper(metric, y, nullptr, weights))) CHECK(std::isnan(depth));
  }
}

// What Hopper's kernels do not take goes the plain way.
void groups_and_other_metrics() {
  const int64_t columns = 16;
  const Array x(random_rows(30, columns, 8), columns);
  for (const Metric metric : kMetrics) {
    Call call = on_hopper(metric, x, nullptr);
    for (int i = 0; i < 30; ++i) call.labels.push_back(i % 2);
    call.groups = 2;
    agree(call);
    call.labels.assign(30, 0), call.groups = 1;
    agree(call);
  }
}

}  // namespace

int main() {
  every_kind_of_rows();
  weights_and_several_tiles();
  bfloat_products();
  bad_rows_and_weights();
  groups_and_other_metrics();
  return check::report();
}
