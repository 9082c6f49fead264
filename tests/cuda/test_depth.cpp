// SPDX-License-Identifier: Apache-2.0
// The kernels of depth on the emulation, against loops in double: numbers of every kind, width, layout and
// size, and bad ones.
#include <utility>

#include "depth_model.h"

using namespace depth_model;

namespace {

void cosine_of_every_width_kind_and_layout() {
  for (const int64_t columns : {1, 3, 4, 31, 129, 384, 1028, 2500}) {
    for (const NumberKind kind :
         {NumberKind::kFloat32, NumberKind::kFloat16, NumberKind::kBFloat16, NumberKind::kFloat64}) {
      const Values rows = random_rows(9, columns, 1), corpus = random_rows(37, columns, 2);
      for (const auto& [gap, start] : {std::pair<int64_t, int64_t>{0, 0}, {4, 4}, {3, 1}}) {
        const Array x(rows, columns, kind, gap, start), y(corpus, columns, kind, gap, start);
        agree({Metric::kCosine, &x, &y});
        agree({Metric::kCosine, &y});
      }
    }
  }
}

void pairs_of_several_tiles() {
  const int64_t columns = 33;
  const Array x(random_rows(140, columns, 3), columns),
      y(random_rows(200, columns, 4), columns, NumberKind::kFloat16, 3, 1);
  Values weights;
  for (int i = 0; i < 200; ++i) weights.push_back(i % 5 * 3.0);
  for (const Metric metric : kMetrics) {
    agree({metric, &x, &y});
    agree({metric, &y, nullptr, weights});
  }
  // Of bf16, the correction leaves what is not linear, the less the more pairs there are.
  for (const Metric metric : kAngular) {
    Call call = {metric, &x, &y};
    agree(metric, depths_of({metric, &x, &y, {}, NumberKind::kFloat32, {}, 1, false}), model(call), 3e-5);
    call = {metric, &y, nullptr, weights};
    agree(metric, depths_of({metric, &y, nullptr, weights, NumberKind::kFloat32, {}, 1, false}),
          model(call), 3e-5);
  }
}

// Tiles of a corpus of its own rows stand for their mirror images: near pairs, weights and bad rows too.
void mirrored_tiles() {
  const int64_t columns = 6, count = 300;
  Values rows = random_rows(count, columns, 15), weights;
  for (int64_t i = 0; i < count; ++i) weights.push_back(static_cast<double>(i * i % 7));
  weights[131] = 1e5;
  for (const auto& [to, from] : {std::pair<int64_t, int64_t>{290, 3}, {291, 140}, {292, 291}, {7, 6}})
    for (int64_t k = 0; k < columns; ++k)
      rows[static_cast<size_t>(to * columns + k)] =
          rows[static_cast<size_t>(from * columns + k)] * (k == 2 ? -1.0001 : -1.0);
  const Array x(rows, columns);
  rows[static_cast<size_t>(200 * columns)] = kNaN;
  const Array bad(rows, columns);
  for (const Metric metric : {Metric::kChord, Metric::kArc}) {
    agree({metric, &x});
    agree({metric, &x, nullptr, weights});
    for (const double depth : depths_of({metric, &bad})) CHECK(std::isnan(depth));
  }
}

void pairs_of_every_width() {
  for (const int64_t columns : {1, 5, 32, 33, 96, 300}) {
    const Array x(random_rows(5, columns, 5), columns, NumberKind::kBFloat16),
        y(random_rows(20, columns, 6), columns),
        z(random_rows(20, columns, 6), columns, NumberKind::kFloat64, 1, 1);
    for (const Metric metric : kMetrics) {
      if (metric == Metric::kCosine) continue;
      agree({metric, &x, &y});
      if (columns == 33) agree({metric, &x, &z});
    }
  }
}

// Where products have lost the distance.
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
  for (const NumberKind kind : {NumberKind::kFloat32, NumberKind::kFloat64}) {
    const Array x(rows, columns, kind);
    for (const Metric metric : kMetrics) agree({metric, &x});
  }
}

void directions_of_any_length() {
  const int64_t columns = 100;
  for (const double scale : {1e-36, 1e-20, 1e36}) {
    const Array x(random_rows(9, columns, 8, scale), columns);
    for (const Metric metric : kAngular) agree({metric, &x}, 1.0 / scale);
  }
  for (const double scale : {1e-300, 1e200}) {
    const Array x(random_rows(9, columns, 8, scale), columns, NumberKind::kFloat64);
    for (const Metric metric : kAngular) agree({metric, &x}, 1.0 / scale);
  }
}

// As far as their own digits go: of numbers that small, a few are left.
void denormal_numbers_have_directions() {
  const Array x(random_rows(9, 64, 13, 1e-40), 64);
  for (const Metric metric : kAngular) agree({metric, &x}, 1e40);
}

void bad_rows_harm_themselves_alone() {
  const int64_t columns = 40;
  const Values good = random_rows(12, columns, 9);
  const Array x_good(good, columns), y(random_rows(20, columns, 10), columns);
  Values rows = good;
  std::fill(rows.begin() + 2 * columns, rows.begin() + 3 * columns, 0.0);
  rows[static_cast<size_t>(5 * columns + 17)] = kNaN;
  rows[static_cast<size_t>(7 * columns + 39)] = -std::numeric_limits<double>::infinity();
  for (const NumberKind kind : {NumberKind::kFloat32, NumberKind::kFloat64}) {
    const Array x(rows, columns, kind);
    for (const Metric metric : kMetrics) {
      const bool angular = metric != Metric::kL2 && metric != Metric::kSpatial;
      Values wanted = model({metric, &x_good, &y});
      wanted[5] = wanted[7] = kNaN;
      if (angular)
        wanted[2] = kNaN;
      else
        wanted[2] = model({metric, &x, &y})[2];  // a row of zeros is one as others
      agree(metric, depths_of({metric, &x, &y}), wanted, tolerance(metric));
      for (const double depth : depths_of({metric, &y, &x})) CHECK(std::isnan(depth));
    }
  }
}

void few_rows() {
  const Array x(random_rows(1, 8, 11), 8), none({}, 8);
  for (const Metric metric : kMetrics) {
    agree({metric, &x, &x});
    CHECK(std::isnan(depths_of({metric, &x})[0]));  // a row alone in its own corpus
    CHECK(std::isnan(depths_of({metric, &x, &none})[0]));
    CHECK(depths_of({metric, &none, &x}).empty());
  }
}

void launches_repeat() {
  const Array x(random_rows(150, 20, 12), 20);
  for (const Metric metric : {Metric::kCosine, Metric::kArc, Metric::kSpatial}) {
    const Values first = depths_of({metric, &x});
    CHECK(depths_of({metric, &x}) == first);
  }
}

void bad_values_are_found() {
  Values rows = random_rows(300, 7, 14);
  const auto found_in = [](const Array& x, bool angular) {
    int64_t found = 77;
    CHECK(ec::cuda::find_bad_rows(x.matrix, angular, kMultiprocessors, &found, nullptr));
    return found;
  };
  const auto record = [](int64_t row, ec::cuda::BadValue bad) {
    return row * ec::cuda::kBadValues + static_cast<int64_t>(bad);
  };
  for (const NumberKind kind : {NumberKind::kFloat32, NumberKind::kFloat16, NumberKind::kFloat64}) {
    Values bad = rows;
    CHECK(found_in(Array(bad, 7, kind, 1, 1), true) == ec::cuda::kNoneFound);
    bad[250 * 7 + 6] = kNaN;
    bad[260 * 7] = std::numeric_limits<double>::infinity();
    CHECK(found_in(Array(bad, 7, kind, 1, 1), true) == record(250, ec::cuda::BadValue::kNotFinite));
    std::fill_n(bad.begin() + 33 * 7, 7, 0.0);
    CHECK(found_in(Array(bad, 7, kind, 1, 1), true) == record(33, ec::cuda::BadValue::kZero));
    CHECK(found_in(Array(bad, 7, kind, 1, 1), false) == record(250, ec::cuda::BadValue::kNotFinite));
  }
  Values weights(500, 0.5);
  for (const double wrong : {1.0, -1e-30, kNaN, std::numeric_limits<double>::infinity()}) {
    weights[400] = weights[401] = wrong;
    for (const NumberKind kind : {NumberKind::kFloat32, NumberKind::kFloat64}) {
      const Array stored(weights, 1, kind, 1);
      int64_t found = 77;
      CHECK(
          ec::cuda::find_bad_weights(stored.matrix.data, kind, 2, 500, kMultiprocessors, &found, nullptr));
      CHECK(found == (wrong == 1.0 ? ec::cuda::kNoneFound : record(400, ec::cuda::BadValue::kWeight)));
    }
  }
}

}  // namespace

int main() {
  cosine_of_every_width_kind_and_layout();
  pairs_of_several_tiles();
  mirrored_tiles();
  pairs_of_every_width();
  near_and_opposite_pairs();
  directions_of_any_length();
  denormal_numbers_have_directions();
  bad_rows_harm_themselves_alone();
  few_rows();
  launches_repeat();
  bad_values_are_found();
  return check::report();
}
