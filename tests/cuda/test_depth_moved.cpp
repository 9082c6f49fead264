// SPDX-License-Identifier: Apache-2.0
// L2 and spatial depth where rows are far from the origin, near one another, wide, huge or tiny.
#include "depth_model.h"

using namespace depth_model;

namespace {

// Far from the origin for their spread, which leaves few of their digits.
void rows_far_from_the_origin() {
  const int64_t columns = 40;
  for (const double offset : {1e3, -1e5}) {
    const Array x(random_rows(30, columns, 1, 1.0, offset), columns);
    const Array y(random_rows(70, columns, 2, 1.0, offset), columns, NumberKind::kFloat64);
    for (const Metric metric : kMoved) {
      agree({metric, &x});
      agree({metric, &x, &y});
      agree({metric, &y, &x});
    }
  }
}

// Tight clusters far apart: within one, all pairs are near for the size of the numbers.
void tight_clusters() {
  const int64_t columns = 20;
  Values rows = random_rows(45, columns, 3, 1e-3, 0.0);
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] += static_cast<double>(i / columns % 3) * (i % 2 == 0 ? 1.0 : -0.5);
  for (const NumberKind kind : {NumberKind::kFloat32, NumberKind::kFloat64}) {
    const Array x(rows, columns, kind);
    for (const Metric metric : kMoved) agree({metric, &x});
  }
}

// A few rows so far out that the squares of the others are nothing beside theirs.
void rows_far_out() {
  const int64_t columns = 16;
  for (const double far : {1e4, 1e12, 1e30}) {
    Values rows = random_rows(40, columns, 4);
    for (int64_t k = 0; k < columns; ++k) rows[static_cast<size_t>(13 * columns + k)] *= far;
    const Array x(rows, columns);
    agree({Metric::kSpatial, &x});
    // The mean distance is that to the far row: weight takes it off again.
    Values weights(40, 1.0);
    weights[13] = 0.0;
    for (const Metric metric : kMoved) agree({metric, &x, nullptr, weights});
  }
}

// Rows of which many are the same, and of which all are.
void the_same_rows() {
  const int64_t columns = 10;
  Values rows = random_rows(20, columns, 5);
  for (size_t i = 5 * columns; i < rows.size(); ++i) rows[i] = rows[i % columns];
  const Array many(rows, columns), zeros(Values(12 * columns, 0.0), columns),
      same(Values(12 * columns, 3.25), columns);
  for (const Metric metric : kMoved)
    for (const Array* x : {&many, &zeros, &same}) agree({metric, x});
}

// L2 depth has a unit: at the scale where it is neither 0 nor 1 all digits count.
void every_scale() {
  const int64_t columns = 70;
  for (const double scale : {1e-36, 1e-3, 0.1, 1e15, 1e36}) {
    const Array x(random_rows(12, columns, 6, scale), columns);
    for (const Metric metric : kMoved) agree({metric, &x}, 1.0 / scale);
  }
  for (const double scale : {1e-300, 1e200}) {
    const Array x(random_rows(12, columns, 6, scale), columns, NumberKind::kFloat64);
    for (const Metric metric : kMoved) agree({metric, &x}, 1.0 / scale);
  }
}

void wide_rows() {
  for (const int64_t columns : {384, 1100}) {
    const Array x(random_rows(6, columns, 7, 1.0 / 16.0), columns),
        y(random_rows(30, columns, 8, 1.0 / 16.0), columns, NumberKind::kFloat16, 1, 1);
    for (const Metric metric : kMoved) agree({metric, &x, &y});
  }
}

// Float64 rows that float32 would make the same.
void differences_beyond_float32() {
  const int64_t columns = 6;
  Values rows = random_rows(15, columns, 9, 1e-9, 0.0);
  for (double& number : rows) number += 1.0;
  const Array x(rows, columns, NumberKind::kFloat64);
  for (const Metric metric : kMoved) agree({metric, &x});
}

}  // namespace

int main() {
  rows_far_from_the_origin();
  tight_clusters();
  rows_far_out();
  the_same_rows();
  every_scale();
  wide_rows();
  differences_beyond_float32();
  return check::report();
}
