// SPDX-License-Identifier: Apache-2.0
// Searches on a device that runs Hopper's scan: what test_ann.cpp has too few rows, columns and queries
// for.
#include <limits>

#include "ann/hopper/first_bars.cuh"
#include "ann_model.h"

using namespace ann_model;
using ec::cuda::kWarpSize;

namespace {

constexpr int kQueries = 16;  // of a warp

// Bars of queries with bounds [query][2 * kNumbers], as lanes have them of products.
template <int kNumbers>
__global__ void raise_bars(const float* bounds, int kept, float* bars) {
  const int lane = static_cast<int>(threadIdx.x);
  const auto bound = [&](int of, int i) {
    return bounds[(of / 4 + 8 * (i / 2 % 2)) * 2 * kNumbers + i / 4 * 8 + of % 4 * 2 + i % 2];
  };
  float own[2] = {bars[lane / 4], bars[lane / 4 + 8]};
  find_bars<kNumbers>([&](int, int i) { return bound(lane, i); }, lane, kept, own);
  for (int half = 0; half < 2; ++half) {
    __syncwarp();
    if (lane % 4 == 0) bars[lane / 4 + 8 * half] = own[half];
  }
}

// As many rows reach a bar as are kept, and not many more; where there are not so many, nothing is left
// out, and a query of which nothing is to get in stays so.
template <int kNumbers>
void bars_let_in_what_is_kept() {
  constexpr int kRows = 2 * kNumbers;
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  numbers::Source source(31);
  for (const int kept : {32, 64, 160}) {
    std::vector<float> bounds;
    for (int query = 0; query < kQueries; ++query) {
      for (int row = 0; row < kRows; ++row) {
        const auto x = static_cast<float>(source.next());
        const bool rare = query == 1 && row % 8 == 0;
        bounds.push_back(query == 0                 ? 0.25f                         // all the same
                         : query == 2               ? (row % 3 == 0 ? 1.0f : 0.0f)  // of two kinds
                         : query == 3               ? (row < kept - 1 ? x : nan)    // too few
                         : query == 4               ? nan
                         : query == 5               ? (row == 7 ? infinity : x)
                         : query == 6               ? -1e30f * x * x
                         : query == 7               ? static_cast<float>(row)
                         : rare || row % query == 5 ? nan
                                                    : x);
      }
    }
    std::vector<float> bars(kQueries, -infinity);
    bars[9] = nan;
    EC_LAUNCH(raise_bars<kNumbers>, 1, kWarpSize, 0, nullptr, bounds.data(), kept, bars.data());
    for (int query = 0; query < kQueries; ++query) {
      const float* own = bounds.data() + query * kRows;
      const float bar = bars[static_cast<size_t>(query)];
      if (query == 9) {
        CHECK(std::isnan(bar));
        continue;
      }
      const auto reaching = std::count_if(own, own + kRows, [&](float x) { return x >= bar; });
      const auto all = std::count_if(own, own + kRows, [](float x) { return !std::isnan(x); });
      CHECK(reaching >= std::min<std::ptrdiff_t>(kept, all));
      // Of 32 that are kept, what most searches keep, all but a few numbers are found by the rounds.
      if (kept == 32 && query >= 7 && all >= 2 * kept) CHECK(reaching <= 3 * kept / 2);
      if (query == 0 && all >= kept) CHECK(reaching == all);
    }
  }
}

std::vector<uint8_t> some_mask(int64_t rows, int64_t of_ten) {
  std::vector<uint8_t> mask;
  for (int64_t i = 0; i < rows; ++i) mask.push_back(i * 7 % 10 < of_ten ? 1 : 0);
  return mask;
}

// Blocks go round the ring several times for a tile, or have several tiles in it; one or both warpgroups
// have queries; columns end in the middle of a stage.
void many_tiles_and_stages() {
  struct Shape {
    Metric metric;
    int64_t rows;
    int columns, queries, k;
  };
  for (const Shape& shape : {Shape{Metric::kCosine, 2100, 5, 70, 10},
                             {Metric::kInnerProduct, 1300, 420, 3, 10},
                             {Metric::kL2, 800, 90, 130, 40},
                             {Metric::kL2, 511, 64, 65, 4}}) {
    const Data data(shape.metric, shape.rows, shape.columns, 21);
    const std::vector<float> queries = some_queries(shape.queries, shape.columns, 22);
    agree(data, queries, shape.k, false, nullptr);
    const std::vector<uint8_t> mask = some_mask(shape.rows, 6);
    agree(data, queries, shape.k, false, &mask);
  }
}

// Queries with filters of their own, in tiles that begin anywhere, by lists or by bits: as the plain scan
// finds them. A filter may pass fewer rows of a tile than are kept.
void filters_of_queries() {
  const int columns = 40, k = 7;
  const int64_t rows = 900;
  for (const Metric metric : {Metric::kCosine, Metric::kL2}) {
    const Data data(metric, rows, columns, 23);
    const std::vector<float> queries = some_queries(80, columns, 24);
    for (const int64_t of_ten : {1, 4, 10}) {
      Batch batch;
      for (int i = 0; i < 80; ++i) batch.which.push_back(i < 5 ? -1 : i < 78 ? 1 : 0);
      batch.firsts = {0, 3, 5, 75, 78, 80};
      for (const bool some_dead : {false, true}) {
        std::vector<uint8_t> mask = some_mask(rows, of_ten), living(mask.size(), 1);
        for (uint32_t slot = 0; some_dead && slot < rows; ++slot) {
          living[slot] = slot % 5 != 2 ? 1 : 0;
          mask[slot] &= living[slot];
          if (living[slot] != 0) batch.every.push_back(slot);
        }
        const Passing passing(mask), all(living);
        batch.alive.assign(all.bits.begin() + all.words, all.bits.end());
        on_hopper = false;
        const Answers plain = search(data, queries, k, false, &passing, nullptr, batch);
        on_hopper = lists_first = true;
        const Answers answers = search(data, queries, k, false, &passing, nullptr, batch);
        lists_first = false;
        CHECK(answers.ids == plain.ids && answers.counts == plain.counts);
        CHECK(answers.distances == plain.distances);
        CHECK(answers.counts[0] == k && answers.counts[40] == k && answers.counts[79] == 0);
        for (size_t at = 0; at < answers.ids.size(); ++at) {
          const int64_t slot = rows - answers.ids[at] / 7, filter = batch.which[at / k];
          if (answers.ids[at] >= 0) CHECK((filter < 0 ? living : mask)[static_cast<size_t>(slot)] != 0);
        }
      }
    }
  }
}

// Where few rows pass, tiles are small; of these and of others first ones have as many rows as are kept, or
// about as many. Equal rows are at the bars of some.
void few_rows_pass() {
  const int columns = 70;
  const int64_t rows = 1500;
  Data data(Metric::kInnerProduct, rows, columns, 33);
  for (int64_t i = 0; i < rows; ++i)  // six of each
    std::copy_n(data.vectors.begin() + i / 6 * 6 * data.stride, columns,
                data.vectors.begin() + i * data.stride);
  CHECK(run_encode(data.index, multiprocessors, nullptr));
  const std::vector<float> queries = some_queries(67, columns, 34);
  multiprocessors = 3;
  struct Case {
    int64_t passing;
    int k;
  };
  for (const Case& some : {Case{1, 10}, {33, 10}, {65, 42}, {130, 10}, {300, 10}, {1000, 42}}) {
    std::vector<uint8_t> mask(static_cast<size_t>(rows));
    for (int64_t i = 0; i < some.passing; ++i) mask[static_cast<size_t>(i * 7 % rows)] = 1;
    const Passing passing(mask);
    on_hopper = false;
    const Answers plain = search(data, queries, some.k, false, &passing);
    on_hopper = true;
    const Answers answers = search(data, queries, some.k, false, &passing);
    CHECK(answers.ids == plain.ids && answers.counts == plain.counts);
    CHECK(answers.distances == plain.distances);
  }
  multiprocessors = 2;
}

// The same lists, whatever the order in which threads come.
void repeats() {
  const int columns = 33, k = 12;
  const Data data(Metric::kL2, 700, columns, 25);
  const std::vector<float> queries = some_queries(20, columns, 26);
  const Answers first = search(data, queries, k, true, nullptr);
  for (int order = 0; order < 4; ++order) {
    const Answers again = search(data, queries, k, true, nullptr);
    CHECK(again.ids == first.ids && again.distances == first.distances);
  }
}

// A query that has no answer, beside others of its warp.
void queries_without_an_answer() {
  const int columns = 20, k = 3;
  const Data data(Metric::kCosine, 300, columns, 27);
  std::vector<float> queries = some_queries(12, columns, 28);
  std::fill_n(queries.begin() + 4 * columns, columns, 0.0f);
  queries[9 * columns] = std::nanf("");
  const Answers answers = search(data, queries, k, false, nullptr);
  for (size_t i = 0; i < 12; ++i) CHECK(answers.counts[i] == (i == 4 || i == 9 ? 0 : k));
}

// There is nothing to map.
void no_rows() {
  const Data data(Metric::kInnerProduct, 0, 8, 29);
  const Answers answers = search(data, some_queries(2, 8, 30), 3, false, nullptr);
  for (const int64_t count : answers.counts) CHECK(count == 0);
  for (const int64_t id : answers.ids) CHECK(id == -1);
}

}  // namespace

int main() {
  on_hopper = true;
  bars_let_in_what_is_kept<128>();
  bars_let_in_what_is_kept<32>();
  many_tiles_and_stages();
  filters_of_queries();
  few_rows_pass();
  repeats();
  queries_without_an_answer();
  no_rows();
  return check::report();
}
