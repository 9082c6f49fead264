// SPDX-License-Identifier: Apache-2.0
// Searches among rows of which codes alone are kept, filters put together, and what searches say of
// themselves, on the emulation.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ann/ann.h"
#include "ann/filters.h"
#include "native/check.h"
#include "native/numbers.h"

using namespace ec::cuda::ann;
using ec::cuda::BFloat;
using ec::cuda::NumberKind;

namespace {

constexpr int kMultiprocessors = 2;
constexpr Metric kMetrics[] = {Metric::kCosine, Metric::kInnerProduct, Metric::kL2};

// Rows of bytes along axes that are as good as any.
struct Codes {
  Codes(Metric metric, int64_t rows, int columns, int query_columns, uint64_t seed)
      : stride(columns + 3), head(columns / 2 + 1) {
    numbers::Source source(seed);
    const auto take = [&](std::vector<float>* to, int64_t count, double size) {
      for (int64_t i = 0; i < count; ++i) to->push_back(static_cast<float>(size * source.next()));
    };
    take(&axes, int64_t{columns} * query_columns, 0.2);
    take(&mean, query_columns, 0.5);
    take(&scales, 2 * rows, 0.02);
    for (float& scale : scales) scale = std::fabs(scale) + 0.01f;
    take(&offsets, rows, metric == Metric::kInnerProduct ? 0.0 : 1.0);
    for (float& offset : offsets) offset = -std::fabs(offset);
    for (int64_t i = 0; i < rows * stride; ++i)
      bytes.push_back(static_cast<uint8_t>(std::lround(127.0 * source.next()) + 128));
    for (int64_t i = 0; i < rows; ++i) ids.push_back(5 * i + 1);
    const int padded = (columns + kCodeStep - 1) / kCodeStep * kCodeStep;
    codes.resize(static_cast<size_t>(rows * padded / 8 + 1));
    norms.resize(static_cast<size_t>(rows));
    index.metric = metric;
    index.kind = RowKind::kCodes;
    index.rows = rows, index.stride = stride;
    index.columns = columns, index.padded = padded;
    index.vectors = bytes.data();
    index.mean = mean.data(), index.ids = ids.data();
    index.codes = reinterpret_cast<BFloat*>(codes.data());
    index.offsets = offsets.data(), index.norms = norms.data(), index.roughness = &roughness;
    index.coded = {scales.data(), axes.data(), head, query_columns};
    const std::vector<float> given = offsets;
    CHECK(run_encode(index, kMultiprocessors, nullptr));
    CHECK(offsets == given);  // which rows of codes come with
    CHECK(roughness > 0.0f && roughness <= 1.0f / 256);
  }

  double distance(const float* query, int64_t slot) const {
    double own = 0.0, from = 0.0, along = 0.0;
    for (int k = 0; k < index.coded.query_columns; ++k) own += square(query[k]);
    const double unit = index.metric == Metric::kCosine ? 1.0 / std::sqrt(own) : 1.0;
    std::vector<double> turned(static_cast<size_t>(index.columns));
    for (int k = 0; k < index.coded.query_columns; ++k) {
      const double x = unit * query[k], m = mean[static_cast<size_t>(k)];
      from += (x - m) * (x - m), along += x * m;
      const double part = index.metric == Metric::kInnerProduct ? x : x - m;
      for (int j = 0; j < index.columns; ++j)
        turned[static_cast<size_t>(j)] +=
            part * static_cast<double>(axes[static_cast<size_t>(j * index.coded.query_columns + k)]);
    }
    double score = offsets[static_cast<size_t>(slot)];
    for (int j = 0; j < index.columns; ++j) {
      const double scale = scales[static_cast<size_t>(2 * slot + (j < head ? 0 : 1))];
      score +=
          scale * (bytes[static_cast<size_t>(slot * stride + j)] - 128) * turned[static_cast<size_t>(j)];
    }
    if (index.metric == Metric::kInnerProduct) return -(along + score);
    const double whole = std::max(0.0, from - 2.0 * score);
    return index.metric == Metric::kL2 ? std::sqrt(whole) : 0.5 * whole;
  }

  static double square(double a) { return a * a; }

  struct alignas(16) Piece {
    BFloat numbers[8];
  };
  int64_t stride;
  int head;
  std::vector<float> axes, mean, scales, offsets, norms;
  std::vector<uint8_t> bytes;
  std::vector<int64_t> ids;
  std::vector<Piece> codes;
  float roughness = -1.0f;
  IndexRows index = {};
};

// Bits and a list of one filter.
struct Passing {
  explicit Passing(const std::vector<uint8_t>& mask) : rows(static_cast<int64_t>(mask.size())) {
    std::vector<uint32_t> order(mask.size());
    std::iota(order.begin(), order.end(), 0u);
    bits.resize(static_cast<size_t>(filter_words(rows)));
    CHECK(run_mark_mask(mask.data(), 1, order.data(), rows, rows, bits.data(), nullptr));
    std::vector<unsigned char> workspace(list_workspace_bytes(1, rows));
    auto* scratch = reinterpret_cast<int64_t*>(workspace.data());
    // Their number first, then as long a list.
    CHECK(run_list({bits.data(), 1, rows, nullptr, 0, &count, scratch, nullptr}, nullptr));
    CHECK(count == std::count(mask.begin(), mask.end(), uint8_t{1}));
    slots.resize(static_cast<size_t>(count));
    CHECK(run_list({bits.data(), 1, rows, slots.data(), count, &count, scratch, nullptr}, nullptr));
    for (const uint32_t slot : slots) CHECK(mask[slot] == 1);
  }

  int64_t rows, count = -1;
  std::vector<uint32_t> slots;
  std::vector<unsigned> bits;
};

struct Answers {
  std::vector<int64_t> ids, counts;
  std::vector<float> distances;
  std::vector<Explanation> explanations;
};

Answers search(const Codes& data, const std::vector<float>& queries, int k, Passing* passing) {
  const int columns = data.index.coded.query_columns;
  const int64_t count = static_cast<int64_t>(queries.size()) / columns;
  const auto size = static_cast<size_t>(count);
  Answers answers = {std::vector<int64_t>(size * static_cast<size_t>(k)), std::vector<int64_t>(size),
                     std::vector<float>(size * static_cast<size_t>(k)), std::vector<Explanation>(size)};
  SearchProblem problem = {};
  problem.index = data.index;
  problem.queries = {queries.data(), count, columns, columns, NumberKind::kFloat32};
  problem.count = count;
  problem.tiles = (count + 127) / 128;
  problem.filter = passing == nullptr ? -1 : 0;
  if (passing != nullptr) {
    problem.slots = passing->slots.data();
    problem.slots_stride = passing->count;
    problem.counts = &passing->count;
    problem.bits = passing->bits.data();
  }
  problem.every_count = data.index.rows;
  problem.k = k;
  problem.ids = answers.ids.data();
  problem.distances = answers.distances.data();
  problem.found = answers.counts.data();
  problem.explanations = answers.explanations.data();
  struct alignas(256) Block {
    unsigned char bytes[256];
  };
  std::vector<Block> workspace(search_workspace_bytes(problem, kMultiprocessors) / sizeof(Block) + 1);
  CHECK(run_search(problem, kMultiprocessors, workspace.data(), nullptr));
  return answers;
}

void agree(const Codes& data, const std::vector<float>& queries, int k, const std::vector<uint8_t>* mask) {
  Passing some(mask == nullptr ? std::vector<uint8_t>(1) : *mask);
  const Answers answers = search(data, queries, k, mask == nullptr ? nullptr : &some);
  for (size_t q = 0; q < answers.counts.size(); ++q) {
    const float* query = queries.data() + q * static_cast<size_t>(data.index.coded.query_columns);
    std::vector<double> right;
    for (int64_t slot = 0; slot < data.index.rows; ++slot)
      if (mask == nullptr || (*mask)[static_cast<size_t>(slot)] != 0)
        right.push_back(data.distance(query, slot));
    std::sort(right.begin(), right.end());
    const size_t wanted = std::min(right.size(), static_cast<size_t>(k));
    CHECK(answers.counts[q] == static_cast<int64_t>(wanted));
    for (size_t i = 0; i < wanted; ++i) {
      const size_t at = q * static_cast<size_t>(k) + i;
      const int64_t id = answers.ids[at];
      CHECK(id % 5 == 1 && (mask == nullptr || (*mask)[static_cast<size_t>(id / 5)] != 0));
      // Turned in float32: terms of a few units.
      const double found = answers.distances[at];
      CHECK(std::fabs(found - right[i]) < 1e-5 * data.index.columns);
      CHECK(std::fabs(found - data.distance(query, id / 5)) < 1e-5 * data.index.columns);
    }
    const Explanation& told = answers.explanations[q];
    CHECK(told.passing == static_cast<int64_t>(right.size()) && told.pool == 0 && told.met == 0);
    CHECK(told.way == Way::kList && told.measured >= static_cast<int64_t>(wanted));
    CHECK(told.measured <= told.passing);
  }
}

std::vector<float> some_queries(int64_t count, int columns, uint64_t seed) {
  numbers::Source source(seed);
  std::vector<float> queries;
  for (int64_t i = 0; i < count * columns; ++i) queries.push_back(static_cast<float>(source.next()));
  return queries;
}

void all_shapes() {
  struct Shape {
    int rows, columns, query_columns, queries, k;
  };
  for (const Metric metric : kMetrics) {
    for (const Shape& shape : {Shape{1, 1, 1, 1, 1}, Shape{127, 31, 33, 2, 5}, Shape{128, 32, 32, 5, 40},
                               Shape{300, 70, 90, 3, 10}, Shape{140, 35, 70, 131, 3}}) {
      const Codes data(metric, shape.rows, shape.columns, shape.query_columns, 5);
      const std::vector<float> queries = some_queries(shape.queries, shape.query_columns, 6);
      agree(data, queries, shape.k, nullptr);
      std::vector<uint8_t> mask;
      for (int i = 0; i < shape.rows; ++i) mask.push_back(i * 31 % 97 < 20 ? 1 : 0);
      agree(data, queries, shape.k, &mask);
    }
  }
}

void queries_without_an_answer() {
  for (const Metric metric : kMetrics) {
    const Codes data(metric, 60, 20, 24, 7);
    std::vector<float> queries = some_queries(3, 24, 8);
    queries[24 + 3] = std::nanf("");
    const Answers answers = search(data, queries, 4, nullptr);
    CHECK(answers.counts[0] == 4 && answers.counts[1] == 0 && answers.counts[2] == 4);
    for (size_t i = 4; i < 8; ++i) CHECK(answers.ids[i] == -1 && std::isnan(answers.distances[i]));
    CHECK(answers.explanations[1].measured == 0);
  }
}

void bits_are_put_one_behind_the_other() {
  for (const int64_t rows : {1, 9000}) {
    const auto words = static_cast<size_t>(filter_words(rows));
    std::vector<unsigned> a(words), b(words);
    for (size_t i = 0; i < words; ++i) a[i] = static_cast<unsigned>(7 * i), b[i] = ~a[i];
    const unsigned* sources[] = {b.data(), a.data(), b.data()};
    std::vector<unsigned> all(3 * words), right;
    for (const unsigned* source : sources) right.insert(right.end(), source, source + words);
    CHECK(run_gather(sources, 3, rows, all.data(), nullptr));
    CHECK(all == right);
  }
  const uint64_t before = ec::emulation::started();
  CHECK(run_gather(nullptr, 0, 5, nullptr, nullptr) && run_gather(nullptr, 2, 0, nullptr, nullptr));
  CHECK(ec::emulation::started() == before);
}

}  // namespace

int main() {
  all_shapes();
  queries_without_an_answer();
  bits_are_put_one_behind_the_other();
  return check::report();
}
