// SPDX-License-Identifier: Apache-2.0
// Sums of distances by Hopper's kernels on the emulation, against loops in double. Compiled by nvcc
// together with hopper_pairs.cu and preparation.cu (-x cu, for sm_90a), the same on a GPU: all memory is
// then the device's too.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "depth/hopper/hopper_pairs.h"
#include "depth/preparation.h"
#include "native/check.h"
#include "native/numbers.h"

#if defined(__CUDACC__)
#pragma nv_diag_suppress 20011  // of functions of the host alone
void* operator new(size_t bytes) {
  void* memory = nullptr;
  return cudaMallocManaged(&memory, bytes + 1) == cudaSuccess ? memory : nullptr;
}
void operator delete(void* memory) noexcept { cudaFree(memory); }
void operator delete(void* memory, size_t) noexcept { cudaFree(memory); }
#endif

namespace {

#if defined(__CUDACC__)
void* take_workspace(size_t bytes) { return ::operator new(bytes); }
void give_back_workspace(void* memory) { ::operator delete(memory); }
void wait_for_device() {
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  const cudaError_t code = cudaGetLastError();
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(code));
  std::exit(1);
}
#else
void* take_workspace(size_t bytes) { return std::aligned_alloc(256, bytes); }
void give_back_workspace(void* memory) { std::free(memory); }
void wait_for_device() {}
#endif

using ec::PairMetric;
using ec::cuda::AnyRows;
using ec::cuda::HopperPairs;
using ec::cuda::HopperPlan;
using ec::cuda::NumberKind;

constexpr PairMetric kMetrics[] = {PairMetric::kChord, PairMetric::kArc};
constexpr int kMultiprocessors = 2;

using Values = std::vector<double>;  // [row][column]
using Weights = std::vector<float>;

struct Array {
  Array(const Values& given, int64_t columns, NumberKind kind = NumberKind::kFloat32, int64_t gap = 0)
      : columns(columns) {
    Values all;
    for (size_t i = 0; i < given.size(); ++i) {
      all.push_back(given[i]);
      if ((i + 1) % static_cast<size_t>(columns) == 0)
        all.insert(all.end(), static_cast<size_t>(gap), std::numeric_limits<double>::quiet_NaN());
    }
    const ec_dtype dtype = kind == NumberKind::kFloat32   ? EC_FLOAT32
                           : kind == NumberKind::kFloat16 ? EC_FLOAT16
                                                          : EC_BFLOAT16;
    stored = numbers::Array(dtype, all);
    rows = {stored.data(), static_cast<int64_t>(given.size()) / columns, columns + gap, columns, kind};
    for (int64_t i = 0; i < rows.count; ++i)
      for (int64_t k = 0; k < columns; ++k)
        values.push_back(stored[static_cast<size_t>(i * rows.stride + k)]);
    for (int64_t i = 0; i < rows.count; ++i) {
      double square = 0.0;
      for (int64_t k = 0; k < columns; ++k) square += at(i, k) * at(i, k);
      for (int64_t k = 0; k < columns; ++k)
        values[static_cast<size_t>(i * columns + k)] /= std::sqrt(square);
    }
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  double at(int64_t i, int64_t k) const { return values[static_cast<size_t>(i * columns + k)]; }

  int64_t columns;
  numbers::Array stored;
  AnyRows rows;
  Values values;  // of the unit rows
};

Values random_rows(int64_t count, int64_t columns, unsigned seed) {
  Values values = numbers::Source(seed).some(count * columns);
  for (double& value : values) value += 0.125;
  return values;
}

struct Means {
  double distance, cosine;
};

// Over the corpus, of row i.
Means model(PairMetric metric, const Array& x, const Array* corpus, const Weights& weights, int64_t i) {
  const Array& others = corpus == nullptr ? x : *corpus;
  double distances = 0.0, cosines = 0.0, total = 0.0;
  for (int64_t j = 0; j < others.rows.count; ++j) {
    if (corpus == nullptr && i == j) continue;
    const double weight = weights.empty() ? 1.0 : static_cast<double>(weights[static_cast<size_t>(j)]);
    double square = 0.0, cosine = 0.0;
    for (int64_t k = 0; k < x.columns; ++k) {
      square += (x.at(i, k) - others.at(j, k)) * (x.at(i, k) - others.at(j, k));
      cosine += x.at(i, k) * others.at(j, k);
    }
    distances += weight * ec::pair_distance(metric, square);
    cosines += weight * cosine;
    total += weight;
  }
  return {distances / total, cosines / total};
}

struct Got {
  std::vector<ec::cuda::PairSums> sums;
  std::vector<ec::cuda::Scaling> row_scalings;
};

// Blocks of a few positions each.
ec::cuda::Segments shares_of(int64_t positions) {
  const ec::cuda::Cut cut = {8, 2};
  return {nullptr, nullptr, cut, positions, cut.segments(positions)};
}

ec::cuda::PreparedSide side_of(const AnyRows& rows, const float* weights,
                               const ec::cuda::Packing& packing) {
  return {
      rows,   {nullptr, nullptr, 1, rows.count}, shares_of(packing.rows_of(rows.count)), weights, nullptr,
      packing};
}

Got sums_of(PairMetric metric, const Array& x, const Array* corpus, const Weights& given, bool split) {
  const bool own = corpus == nullptr;
  const AnyRows others = own ? x.rows : corpus->rows;
  Got got = {std::vector<ec::cuda::PairSums>(static_cast<size_t>(x.rows.count)),
             std::vector<ec::cuda::Scaling>(static_cast<size_t>(x.rows.count))};
  std::vector<ec::cuda::Scaling> scalings(static_cast<size_t>(others.count));
  CHECK(ec::cuda::fits_hopper_pairs(x.rows.count, others.count, x.columns));
  HopperPlan plan(x.rows.count, others.count, x.columns, split, kMultiprocessors);
  // Exactly as much as was asked for, on a boundary as Torch's and CuPy's allocators give it.
  using Memory = std::unique_ptr<void, decltype(&give_back_workspace)>;
  std::vector<Memory> kept;
  const auto take = [&](int64_t bytes) {
    const auto whole = static_cast<size_t>((bytes + 255) / 256 * 256);
    kept.emplace_back(take_workspace(whole), &give_back_workspace);
    std::memset(kept.back().get(), 0xff, whole);
    return kept.back().get();
  };
  plan.rows.numbers = static_cast<ec::cuda::BFloat*>(take(plan.rows.size() * 2));
  plan.others.numbers = static_cast<ec::cuda::BFloat*>(take(plan.others.size() * 2));
  plan.sums = static_cast<unsigned long long*>(take(plan.sum_count() * 8));
  plan.scale = static_cast<double*>(take(8));
  std::vector<double> total = {0.0};
  for (const float weight : given) total[0] += static_cast<double>(weight);
  Weights weights = given;
  if (!given.empty()) weights.resize(static_cast<size_t>(plan.sum_count() / 2), 0.0f);
  const float* each = given.empty() ? nullptr : weights.data();
  ec::cuda::Preparation preparation = {{side_of(others, each, {}), {}}, 1};
  ec::cuda::Packing& packing = preparation.sides[0].packing;
  packing.scalings = own ? got.row_scalings.data() : scalings.data();
  packing.panels[1] = plan.others;
  if (own) packing.panels[0] = plan.rows;
  preparation.sides[0] = side_of(others, each, packing);
  if (!own) {
    ec::cuda::Packing of_rows;
    of_rows.scalings = got.row_scalings.data();
    of_rows.panels[0] = plan.rows;
    preparation.sides[preparation.count++] = side_of(x.rows, nullptr, of_rows);
  }
  preparation.zeros = plan.sums, preparation.zero_count = plan.sum_count();
  preparation.total = given.empty() ? nullptr : total.data(), preparation.scale = plan.scale;
  run_preparation(preparation, nullptr);
  const HopperPairs pairs = {
      metric, x.rows, own, others, each, got.row_scalings.data(), own ? nullptr : scalings.data()};
  run_hopper_pairs(pairs, plan, {}, nullptr);
  wait_for_device();
  const ec::cuda::FixedSums fixed = hopper_sums(plan, metric);
  const double all = given.empty() ? static_cast<double>(others.count) : total[0];
  for (int64_t i = 0; i < x.rows.count; ++i) {
    const auto at = static_cast<size_t>(i);
    const double left_out = !own ? 0.0 : given.empty() ? 1.0 : static_cast<double>(given[at]);
    got.sums[at] = fixed.of(i, all - left_out);
  }
  return got;
}

// With the linear correction, as score.cuh makes it.
void agree(PairMetric metric, const Array& x, const Array* corpus, const Weights& weights, bool strict,
           double tolerance) {
  const Array& others = corpus == nullptr ? x : *corpus;
  const Got got = sums_of(metric, x, corpus, weights, strict);
  double worst = 0.0, total = 0.0;
  for (int64_t j = 0; j < others.rows.count; ++j)
    total += weights.empty() ? 1.0 : static_cast<double>(weights[static_cast<size_t>(j)]);
  for (int64_t i = 0; i < x.rows.count; ++i) {
    const auto at = static_cast<size_t>(i);
    const Means wanted = model(metric, x, corpus, weights, i);
    const double own = corpus != nullptr ? 0.0 : weights.empty() ? 1.0 : static_cast<double>(weights[at]);
    const double distance = got.sums[at].distances / (total - own),
                 cosine = got.sums[at].products / (total - own);
    const double limit = static_cast<double>(strict ? ec::cuda::kStrictNearLimit : ec::cuda::kNearLimit);
    const double bent =
        std::fabs(cosine) <= limit ? ec::pair_slope(metric, cosine) * (wanted.cosine - cosine) : 0.0;
    const double error = std::fabs(distance + bent - wanted.distance);
    worst = std::isnan(error) ? 1e9 : std::fmax(worst, error);
  }
  CHECK(worst <= tolerance);
  if (!(worst <= tolerance)) std::fprintf(stderr, "metric %d: %g\n", static_cast<int>(metric), worst);
}

Weights some_weights(int64_t count) {
  Weights weights;
  for (int64_t i = 0; i < count; ++i) weights.push_back(static_cast<float>(i % 5) * 3.0f);
  return weights;
}

// 3 tiles of rows and 3 of the corpus.
void several_tiles() {
  const int64_t columns = 72;
  const Array x(random_rows(400, columns, 3), columns),
      y(random_rows(530, columns, 4), columns, NumberKind::kFloat16, 3);
  for (const PairMetric metric : kMetrics) {
    agree(metric, x, &y, {}, true, 2e-6);
    agree(metric, x, &y, {}, false, 3e-5);  // what is not linear is left
    agree(metric, x, &y, some_weights(530), false, 3e-5);
    agree(metric, y, nullptr, some_weights(530), true, 2e-6);
    agree(metric, y, nullptr, {}, false, 3e-5);
  }
}

void every_width_and_kind() {
  for (const int64_t columns : {1, 5, 63, 64, 65, 260, 400}) {
    const Array x(random_rows(5, columns, 5), columns, NumberKind::kBFloat16, columns % 2),
        y(random_rows(20, columns, 6), columns);
    for (const PairMetric metric : kMetrics) agree(metric, x, &y, {}, true, 2e-6);
  }
}

void counts_at_the_seams_of_tiles() {
  const int64_t columns = 16;
  for (const auto& [rows, others] : {std::pair<int64_t, int64_t>{1, 1}, {64, 65}, {192, 240}, {193, 241}}) {
    const Array x(random_rows(rows, columns, 7), columns), y(random_rows(others, columns, 8), columns);
    agree(PairMetric::kArc, x, &y, {}, true, 2e-6);
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
  const Array x(rows, columns);
  for (const PairMetric metric : kMetrics) {
    agree(metric, x, nullptr, {}, true, 2e-6);
    agree(metric, x, nullptr, some_weights(40), true, 2e-6);
    agree(metric, x, &x, some_weights(40), false, 3e-4);
  }
}

void bad_rows_harm_themselves_alone() {
  const int64_t columns = 40;
  const Array y(random_rows(20, columns, 10), columns);
  Values bad = random_rows(12, columns, 9);
  const Array good(bad, columns);
  std::fill(bad.begin() + 2 * columns, bad.begin() + 3 * columns, 0.0);
  bad[static_cast<size_t>(5 * columns + 17)] = std::numeric_limits<double>::quiet_NaN();
  bad[static_cast<size_t>(7 * columns + 39)] = -std::numeric_limits<double>::infinity();
  const Array x(bad, columns);
  const Got of_good = sums_of(PairMetric::kArc, good, &y, {}, true);
  const Got of_bad = sums_of(PairMetric::kArc, x, &y, {}, true);
  for (size_t i = 0; i < 12; ++i) {
    const bool is_bad = i == 2 || i == 5 || i == 7;
    CHECK(std::isnan(of_bad.row_scalings[i].second) == is_bad);
    CHECK(is_bad || of_bad.sums[i].distances == of_good.sums[i].distances);
  }
}

void launches_repeat() {
  const Array x(random_rows(300, 50, 12), 50);
  const Got first = sums_of(PairMetric::kArc, x, nullptr, {}, false);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Got again = sums_of(PairMetric::kArc, x, nullptr, {}, false);
    for (size_t i = 0; i < first.sums.size(); ++i)
      CHECK(again.sums[i].distances == first.sums[i].distances &&
            again.sums[i].products == first.sums[i].products);
  }
}

}  // namespace

int main() {
  several_tiles();
  every_width_and_kind();
  counts_at_the_seams_of_tiles();
  near_and_opposite_pairs();
  bad_rows_harm_themselves_alone();
  launches_repeat();
  return check::report();
}
