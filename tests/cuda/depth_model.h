// SPDX-License-Identifier: Apache-2.0
// Depths as loops in double, and arrays for the kernels that are to find the same.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "depth/depth.h"
#include "native/check.h"
#include "native/numbers.h"

namespace depth_model {

using ec::cuda::AnyRows;
using ec::cuda::DepthProblem;
using ec::cuda::Metric;
using ec::cuda::NumberKind;

constexpr int kMultiprocessors = 2;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr Metric kMetrics[] = {Metric::kCosine, Metric::kChord, Metric::kArc, Metric::kL2,
                               Metric::kSpatial};
constexpr Metric kAngular[] = {Metric::kCosine, Metric::kChord, Metric::kArc};
constexpr Metric kMoved[] = {Metric::kL2, Metric::kSpatial};

using Values = std::vector<double>;  // [row][column]

inline ec_dtype dtype(NumberKind kind) {
  return kind == NumberKind::kFloat32    ? EC_FLOAT32
         : kind == NumberKind::kFloat16  ? EC_FLOAT16
         : kind == NumberKind::kBFloat16 ? EC_BFLOAT16
                                         : EC_FLOAT64;
}

// Rows of a kind, a few numbers apart and not from an aligned place where asked.
struct Array {
  Array(const Values& values, int64_t columns, NumberKind kind = NumberKind::kFloat32, int64_t gap = 0,
        int64_t start = 0)
      : stored(dtype(kind), spread(values, columns, gap, start)),
        matrix{stored.bytes.data() + start * numbers::size_of(dtype(kind)),
               static_cast<int64_t>(values.size()) / columns, columns + gap, columns, kind} {}
  Array(const Array&) = delete;

  static Values spread(const Values& values, int64_t columns, int64_t gap, int64_t start) {
    Values all(static_cast<size_t>(start), 7.0);
    for (size_t i = 0; i < values.size(); ++i) {
      all.push_back(values[i]);
      if ((i + 1) % static_cast<size_t>(columns) == 0)
        all.insert(all.end(), static_cast<size_t>(gap), kNaN);
    }
    return all;
  }

  // As they are stored.
  Values values() const {
    Values found;
    const auto start =
        static_cast<size_t>(static_cast<const unsigned char*>(matrix.data) - stored.bytes.data()) /
        static_cast<size_t>(numbers::size_of(stored.dtype));
    for (int64_t i = 0; i < matrix.count; ++i)
      for (int64_t k = 0; k < matrix.columns; ++k)
        found.push_back(stored[start + static_cast<size_t>(i * matrix.stride + k)]);
    return found;
  }

  numbers::Array stored;
  AnyRows matrix;
};

inline Values random_rows(int64_t count, int64_t columns, unsigned seed, double scale = 1.0,
                          double offset = 0.125) {
  Values values = numbers::Source(seed).some(count * columns);
  for (double& value : values) value = scale * (value + offset);
  for (int64_t i = 0; i < count; ++i) {  // no rows of zeros
    double& first = values[static_cast<size_t>(i * columns)];
    first = first == 0.0 ? scale : first;
  }
  return values;
}

struct Call {
  Metric metric;
  const Array* rows;
  const Array* corpus = nullptr;  // null: the rows
  Values weights = {};            // none: 1 each
  NumberKind weights_kind = NumberKind::kFloat32;
  std::vector<int64_t> labels = {};  // of the corpus; none: one group
  int64_t groups = 1;
  bool strict = true;
  bool hopper = false;      // as on a device that has its instructions
  double shrinkage = -1.0;  // of the covariance
  Values directions = {};   // [direction][column]
};

inline double distance(Metric metric, const double* a, const double* b, int64_t columns) {
  double ab = 0.0, aa = 0.0, bb = 0.0, square = 0.0, moved = 0.0;
  for (int64_t k = 0; k < columns; ++k) ab += a[k] * b[k], aa += a[k] * a[k], bb += b[k] * b[k];
  for (int64_t k = 0; k < columns; ++k) {
    const double difference = a[k] / std::sqrt(aa) - b[k] / std::sqrt(bb);
    square += difference * difference;
    moved += (a[k] - b[k]) * (a[k] - b[k]);
  }
  if (metric == Metric::kL2) return std::sqrt(moved);
  if (metric == Metric::kCosine) return 1.0 - ab / std::sqrt(aa) / std::sqrt(bb);
  return metric == Metric::kChord ? std::sqrt(square)
                                  : 2.0 * std::asin(std::fmin(1.0, std::sqrt(square) / 2.0));
}

// Depths [row][group]; scale: of the numbers, so that squares do not leave double.
inline Values model(const Call& call, double scale = 1.0) {
  const int64_t columns = call.rows->matrix.columns;
  Values rows = call.rows->values(), others = call.corpus == nullptr ? rows : call.corpus->values();
  for (Values* values : {&rows, &others})
    for (double& value : *values) value *= scale;
  const auto groups = static_cast<size_t>(call.groups), width = static_cast<size_t>(columns);
  Values depths;
  for (size_t i = 0; i < rows.size() / width; ++i) {
    Values sums(groups), totals(groups), vectors(groups * width);
    for (size_t j = 0; j < others.size() / width; ++j) {
      if (call.corpus == nullptr && i == j) continue;
      const size_t group = call.labels.empty() ? 0 : static_cast<size_t>(call.labels[j]);
      const double weight = call.weights.empty() ? 1.0 : call.weights[j];
      const double *x = &rows[i * width], *y = &others[j * width];
      totals[group] += weight;
      if (call.metric != Metric::kSpatial) {
        sums[group] += weight * distance(call.metric, x, y, columns);
        continue;
      }
      const double length = distance(Metric::kL2, x, y, columns);
      for (size_t k = 0; k < width && length > 0.0; ++k)
        vectors[group * width + k] += weight * (x[k] - y[k]) / length;
    }
    for (size_t group = 0; group < groups; ++group) {
      double square = 0.0;
      for (size_t k = 0; k < width; ++k) square += vectors[group * width + k] * vectors[group * width + k];
      const double mean = sums[group] / totals[group];
      depths.push_back(!(totals[group] > 0.0)            ? kNaN
                       : call.metric == Metric::kL2      ? 1.0 / (1.0 + mean / scale)
                       : call.metric == Metric::kSpatial ? 1.0 - std::sqrt(square) / totals[group]
                       : call.metric == Metric::kArc     ? std::acos(-1.0) - mean
                                                         : 2.0 - mean);
    }
  }
  return depths;
}

inline Values depths_of(const Call& call) {
  const int64_t count = call.rows->matrix.count;
  const Array& corpus = call.corpus == nullptr ? *call.rows : *call.corpus;
  const bool wide = call.rows->matrix.kind == NumberKind::kFloat64;
  numbers::Array depths(wide ? EC_FLOAT64 : EC_FLOAT32, count * call.groups);
  for (size_t i = 0; i < depths.size(); ++i) depths.set(i, -1.0);
  DepthProblem problem = {call.metric,   call.rows->matrix, call.corpus == nullptr,
                          corpus.matrix, call.strict,       depths.data()};
  if (call.corpus == nullptr) problem.corpus = {};
  const Array weights(call.weights, 1, call.weights_kind, 2, 1);
  if (!call.weights.empty()) problem.weights = weights.matrix.data;
  problem.weights_kind = call.weights_kind, problem.weights_stride = 3;
  std::vector<int64_t> order, starts = {0};
  for (int64_t group = 0; group < call.groups && !call.labels.empty(); ++group) {
    for (size_t j = 0; j < call.labels.size(); ++j)
      if (call.labels[j] == group) order.push_back(static_cast<int64_t>(j));
    starts.push_back(static_cast<int64_t>(order.size()));
  }
  problem.groups = call.groups;
  problem.hopper = call.hopper, problem.shrinkage = call.shrinkage;
  problem.directions = call.directions.data();
  problem.direction_count = static_cast<int64_t>(call.directions.size()) / call.rows->matrix.columns;
  if (!call.labels.empty()) problem.starts = starts.data(), problem.order = order.data();
  const size_t bytes = ec::cuda::depth_workspace_bytes(problem, kMultiprocessors);
  // Exactly as much as was asked for, on a boundary as Torch's and CuPy's allocators give it.
  const std::unique_ptr<void, decltype(&std::free)> workspace(std::aligned_alloc(256, bytes), &std::free);
  std::memset(workspace.get(), 0xff, bytes);
  CHECK(ec::cuda::run_depth(problem, kMultiprocessors, workspace.get(), nullptr));
  Values found;
  for (size_t i = 0; i < depths.size(); ++i) found.push_back(depths[i]);
  return found;
}

// Strict angular depths are right to 2e-6. Those of moved rows, to which two bf16 numbers leave 2^-18 of
// their size: L2 depths too, as single errors average out and a quarter of them is left in 1 / (1 + E);
// spatial ones to 1e-5.
inline double tolerance(Metric metric) { return metric == Metric::kSpatial ? 1e-5 : 2e-6; }

// NaN where it is wanted, and only there.
inline void agree(Metric metric, const Values& got, const Values& wanted, double limit) {
  CHECK(got.size() == wanted.size());
  double worst = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(wanted[i])) continue;
    const double error = std::fabs(got[i] - wanted[i]);
    worst = std::fmax(worst, std::isnan(error) ? 1e9 : error);
  }
  CHECK(worst <= limit);
  if (worst > limit) std::fprintf(stderr, "metric %d: %g\n", static_cast<int>(metric), worst);
}

inline void agree(const Call& call, double scale = 1.0) {
  agree(call.metric, depths_of(call), model(call, scale), tolerance(call.metric));
}

}  // namespace depth_model
