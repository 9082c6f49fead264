// SPDX-License-Identifier: Apache-2.0
// Searches on a device that runs Hopper's scan: what test_ann.cpp has too few rows, columns and queries
// for.
#include "ann_model.h"

using namespace ann_model;

namespace {

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
// finds them.
void filters_of_queries() {
  const int columns = 40, k = 7;
  const int64_t rows = 900;
  for (const Metric metric : {Metric::kCosine, Metric::kL2}) {
    const Data data(metric, rows, columns, 23);
    const std::vector<float> queries = some_queries(80, columns, 24);
    for (const int64_t of_ten : {1, 10}) {
      const Passing passing(some_mask(rows, of_ten));
      Batch batch;
      for (int i = 0; i < 80; ++i) batch.which.push_back(i < 5 ? -1 : i < 78 ? 1 : 0);
      batch.firsts = {0, 3, 5, 75, 78, 80};
      for (const bool some_dead : {false, true}) {
        for (uint32_t slot = 0; some_dead && slot < rows; ++slot)
          if (slot % 5 != 2) batch.every.push_back(slot);
        on_hopper = false;
        const Answers plain = search(data, queries, k, false, &passing, nullptr, batch);
        on_hopper = true;
        const Answers answers = search(data, queries, k, false, &passing, nullptr, batch);
        CHECK(answers.ids == plain.ids && answers.counts == plain.counts);
        CHECK(answers.distances == plain.distances);
        CHECK(answers.counts[0] == k && answers.counts[40] == k && answers.counts[79] == 0);
      }
    }
  }
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
  many_tiles_and_stages();
  filters_of_queries();
  repeats();
  queries_without_an_answer();
  no_rows();
  return check::report();
}
