// SPDX-License-Identifier: Apache-2.0
// Filtered search as loops in double, and indexes for the kernels that are to find the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "ann/ann.h"
#include "ann/filters.h"
#include "native/check.h"
#include "native/numbers.h"

namespace ann_model {

using namespace ec::cuda::ann;
using ec::cuda::AnyRows;
using ec::cuda::BFloat;
using ec::cuda::NumberKind;

constexpr Metric kMetrics[] = {Metric::kCosine, Metric::kInnerProduct, Metric::kL2};

inline bool on_hopper = false;  // searches are those of a device that has its instructions
inline int multiprocessors = 2;
inline bool lists_first = false;  // searches make the lists of their filters

// An index over rows of float32, a few numbers apart.
struct Data {
  Data(Metric metric, int64_t rows, int columns, uint64_t seed) : stride(columns + 3) {
    numbers::Source source(seed);
    vectors.assign(static_cast<size_t>(rows * stride), std::nanf(""));
    for (int64_t i = 0; i < rows; ++i) {
      double square = 0.0;
      for (int k = 0; k < columns; ++k) {
        const double x = source.next() + 0.4;
        vectors[static_cast<size_t>(i * stride + k)] = static_cast<float>(x);
        square += x * x;
      }
      inverse_norms.push_back(static_cast<float>(1.0 / std::sqrt(square)));
      ids.push_back(7 * (rows - i));
    }
    const int padded = (columns + kCodeStep - 1) / kCodeStep * kCodeStep;
    mean.assign(static_cast<size_t>(columns), 0.25f);
    // On 16 bytes, as copies of codes have to be.
    codes.resize(static_cast<size_t>(rows * padded / 8 + 1));
    offsets.resize(static_cast<size_t>(rows));
    norms.resize(static_cast<size_t>(rows));
    index = {metric,
             RowKind::kFloat32,
             rows,
             stride,
             columns,
             padded,
             vectors.data(),
             inverse_norms.data(),
             mean.data(),
             ids.data(),
             reinterpret_cast<BFloat*>(codes.data()),
             offsets.data(),
             norms.data(),
             &roughness};
    CHECK(run_encode(index, multiprocessors, nullptr));
    CHECK(roughness >= 0.0f && roughness <= 1.0f / 256);
  }

  // All rows like the first.
  void make_equal() {
    const auto step = static_cast<std::ptrdiff_t>(stride);
    for (size_t i = 1; i < inverse_norms.size(); ++i)
      std::copy_n(vectors.begin(), step, vectors.begin() + static_cast<std::ptrdiff_t>(i) * step);
    std::fill(inverse_norms.begin(), inverse_norms.end(), inverse_norms[0]);
    CHECK(run_encode(index, multiprocessors, nullptr));
  }

  double distance(const float* query, int64_t slot) const {
    double product = 0.0, square = 0.0, own = 0.0, other = 0.0;
    for (int k = 0; k < index.columns; ++k) {
      const double x = vectors[static_cast<size_t>(slot * stride + k)], q = query[k];
      product += x * q, square += (x - q) * (x - q), own += x * x, other += q * q;
    }
    if (index.metric == Metric::kL2) return std::sqrt(square);
    return index.metric == Metric::kInnerProduct ? -product : 1.0 - product / std::sqrt(own * other);
  }

  struct alignas(16) Piece {
    BFloat numbers[8];
  };
  int64_t stride;
  std::vector<float> vectors, inverse_norms, mean, offsets, norms;
  std::vector<int64_t> ids;
  std::vector<Piece> codes;
  float roughness = -1.0f;
  IndexRows index = {};
};

// A mask as lists have it: one filter, the second of two; the first lets nothing pass.
struct Passing {
  explicit Passing(const std::vector<uint8_t>& mask)
      : rows(static_cast<int64_t>(mask.size())), words(filter_words(rows)), counts(2, -1) {
    std::vector<uint32_t> order(mask.size());
    std::iota(order.begin(), order.end(), 0u);
    bits.assign(static_cast<size_t>(2 * words), 0xffffffffu);
    CHECK(run_mark_ids(nullptr, 0, {}, rows, bits.data(), nullptr));
    CHECK(run_mark_mask(mask.data(), 1, order.data(), rows, rows, bits.data() + words, nullptr));
    std::vector<unsigned> in_order(static_cast<size_t>(words), 0xffffffffu);
    CHECK(run_mark_mask(mask.data(), 1, nullptr, rows, rows, in_order.data(), nullptr));
    CHECK(std::equal(in_order.begin(), in_order.end(), bits.begin() + words));
    slots.assign(static_cast<size_t>(2 * rows), 0xffffffffu);
    std::vector<unsigned char> workspace(list_workspace_bytes(2, rows));
    CHECK(run_list({bits.data(), 2, rows, slots.data(), rows, counts.data(),
                    reinterpret_cast<int64_t*>(workspace.data()), nullptr},
                   nullptr));
    std::vector<uint32_t> right;
    for (size_t i = 0; i < mask.size(); ++i)
      if (mask[i] != 0) right.push_back(static_cast<uint32_t>(i));
    CHECK(counts[0] == 0 && counts[1] == static_cast<int64_t>(right.size()));
    CHECK(std::equal(right.begin(), right.end(), slots.begin() + rows));
  }

  int64_t rows, words;
  std::vector<int64_t> counts;
  std::vector<uint32_t> slots;
  std::vector<unsigned> bits;
};

struct Answers {
  std::vector<int64_t> ids, counts;
  std::vector<float> distances;
};

// Queries in the order in which tiles have them, with filters of their own; and the slots that live.
struct Batch {
  std::vector<int32_t> which, firsts;
  std::vector<uint32_t> every;
  std::vector<unsigned> alive;
};

inline Answers search(const Data& data, const std::vector<float>& queries, int k, bool certain,
                      const Passing* passing, const Graph* graph = nullptr, const Batch& batch = {}) {
  const int64_t count = static_cast<int64_t>(queries.size()) / data.index.columns;
  Answers answers = {std::vector<int64_t>(static_cast<size_t>(count * k)),
                     std::vector<int64_t>(static_cast<size_t>(count)),
                     std::vector<float>(static_cast<size_t>(count * k))};
  SearchProblem problem = {};
  problem.index = data.index;
  problem.queries = {queries.data(), count, data.index.columns, data.index.columns, NumberKind::kFloat32};
  problem.count = count;
  problem.tiles = (count + 127) / 128;
  problem.filter = passing == nullptr ? -1 : 1;
  std::vector<uint32_t> slots;
  std::vector<int64_t> counts;
  if (passing != nullptr) {
    slots = passing->slots, counts = passing->counts;
    if (lists_first) {
      problem.listed = static_cast<int64_t>(counts.size());
      std::fill(slots.begin(), slots.end(), 0xffffffffu);
      std::fill(counts.begin(), counts.end(), -1);
    }
    problem.slots = slots.data();
    problem.slots_stride = data.index.rows;
    problem.counts = counts.data();
    problem.bits = passing->bits.data();
  }
  problem.every_count = data.index.rows;
  if (!batch.which.empty()) problem.which = batch.which.data();
  if (!batch.firsts.empty()) {
    problem.firsts = batch.firsts.data();
    problem.tiles = static_cast<int64_t>(batch.firsts.size()) - 1;
  }
  if (!batch.every.empty()) {
    problem.every = batch.every.data();
    problem.every_count = static_cast<int64_t>(batch.every.size());
    problem.alive = batch.alive.data();
  }
  problem.k = k;
  problem.certain = certain;
  problem.hopper = on_hopper;
  problem.graph = graph;
  problem.ids = answers.ids.data();
  problem.distances = answers.distances.data();
  problem.found = answers.counts.data();
  struct alignas(256) Block {
    unsigned char bytes[256];
  };
  std::vector<Block> workspace(search_workspace_bytes(problem, multiprocessors) / sizeof(Block) + 1);
  CHECK(run_search(problem, multiprocessors, workspace.data(), nullptr));
  if (passing != nullptr) CHECK(counts == passing->counts);
  return answers;
}

inline void agree(const Data& data, const std::vector<float>& queries, int k, bool certain,
                  const std::vector<uint8_t>* mask) {
  const Passing* none = nullptr;
  const Passing some(mask == nullptr ? std::vector<uint8_t>(1) : *mask);
  const Answers answers = search(data, queries, k, certain, mask == nullptr ? none : &some);
  for (size_t q = 0; q < answers.counts.size(); ++q) {
    const float* query = queries.data() + q * static_cast<size_t>(data.index.columns);
    std::vector<double> right;
    for (int64_t slot = 0; slot < data.index.rows; ++slot)
      if (mask == nullptr || (*mask)[static_cast<size_t>(slot)] != 0)
        right.push_back(data.distance(query, slot));
    std::sort(right.begin(), right.end());
    const size_t wanted = std::min(right.size(), static_cast<size_t>(k));
    CHECK(answers.counts[q] == static_cast<int64_t>(wanted));
    for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
      const size_t at = q * static_cast<size_t>(k) + i;
      const int64_t id = answers.ids[at];
      if (i >= wanted) {
        CHECK(id == -1 && std::isinf(answers.distances[at]));
        continue;
      }
      // Sums in double of terms in float32, of a few units.
      CHECK(std::fabs(static_cast<double>(answers.distances[at]) - right[i]) < 2e-6 * data.index.columns);
      const int64_t slot = data.index.rows - id / 7;
      CHECK(id % 7 == 0 && (mask == nullptr || (*mask)[static_cast<size_t>(slot)] != 0));
      if (i == 0) continue;
      const float before = answers.distances[at - 1], own = answers.distances[at];
      CHECK(before < own || (before == own && answers.ids[at - 1] < id));
    }
  }
}

inline std::vector<float> some_queries(int64_t count, int columns, uint64_t seed) {
  numbers::Source source(seed);
  std::vector<float> queries;
  for (int64_t i = 0; i < count * columns; ++i) queries.push_back(static_cast<float>(source.next()));
  return queries;
}

}  // namespace ann_model
