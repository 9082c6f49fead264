// SPDX-License-Identifier: Apache-2.0
// Filtered search on the emulation, against loops in double.
#include <array>

#include "ann/keys.cuh"
#include "ann_model.h"

using namespace ann_model;
using ec::cuda::kWarpSize;

namespace {

__global__ void sort_keys(const Key* keys, int count, KeyList list) {
  const int lane = static_cast<int>(threadIdx.x);
  list.clear(lane);
  for (int i = 0; i < count; i += kWarpSize)
    list.insert(sort_warp(i + lane < count ? keys[i + lane] : 0, lane), 0, lane);
}

__global__ void merge_lists(KeyList a, KeyList b) { a.insert_list(b, static_cast<int>(threadIdx.x)); }

void lists_keep_the_best() {
  numbers::Source source(3);
  for (const int kept : {32, 64, 160}) {
    std::vector<Key> best[2] = {std::vector<Key>(kept), std::vector<Key>(kept)}, all;
    for (const int count : {kept == 64 ? 20 : 300, 75}) {
      std::vector<Key> keys;
      for (int i = 0; i < count; ++i) {  // many equal bounds
        const auto bound = static_cast<float>(source.next());
        keys.push_back(key_of(bound, static_cast<uint32_t>(all.size())));
        CHECK(bound_of(keys.back()) == bound && slot_of(keys.back()) == all.size());
        all.push_back(keys.back());
      }
      EC_LAUNCH(sort_keys, 1, kWarpSize, 0, nullptr, keys.data(), count,
                (KeyList{best[count == 75].data(), kept}));
    }
    EC_LAUNCH(merge_lists, 1, kWarpSize, 0, nullptr, (KeyList{best[0].data(), kept}),
              (KeyList{best[1].data(), kept}));
    std::sort(all.begin(), all.end(), std::greater<>());
    all.resize(static_cast<size_t>(kept));
    CHECK(best[0] == all);
  }
}

void all_shapes() {
  for (const Metric metric : kMetrics) {
    for (const auto& [rows, columns, queries, k] : {std::array<int, 4>{1, 1, 1, 1},
                                                    {127, 31, 2, 5},
                                                    {128, 32, 1, 40},
                                                    {130, 33, 130, 3},
                                                    {600, 70, 3, 10},
                                                    {400, 5, 1, 150}}) {
      const Data data(metric, rows, columns, 5);
      const std::vector<float> given = some_queries(queries, columns, 6);
      agree(data, given, k, false, nullptr);
      std::vector<uint8_t> mask;
      for (int i = 0; i < rows; ++i) mask.push_back(i * 31 % 97 < 20 ? 1 : 0);
      agree(data, given, k, true, &mask);
    }
  }
}

// More lists of a query than the block that merges them has warps, short ones and longer.
void many_lists() {
  multiprocessors = 40;
  const int columns = 6;
  const Data data(Metric::kL2, 2500, columns, 15);
  for (const int k : {10, 30}) agree(data, some_queries(2, columns, 16), k, false, nullptr);
  multiprocessors = 2;
}

// Of more equal rows in a tile than are put aside at once, those of the lowest slots are kept, in whatever
// order threads come.
void ties_go_to_the_lowest_slots() {
  const int k = 10, kept = 32;
  for (const Metric metric : kMetrics) {
    Data data(metric, 300, 9, 11);
    data.make_equal();
    const std::vector<float> queries = some_queries(3, 9, 12);
    const Passing all(std::vector<uint8_t>(300, 1));
    for (int order = 0; order < 6; ++order) {
      const Answers answers = search(data, queries, k, false, order % 2 == 0 ? nullptr : &all);
      for (size_t i = 0; i < answers.ids.size(); ++i)  // ids fall where slots rise
        CHECK(answers.ids[i] == 7 * (300 - (kept - 1 - static_cast<int64_t>(i) % k)));
    }
  }
}

// Where there are no rows, there are no bits, and nothing is started for them.
void filters_of_no_rows() {
  const int64_t ids[] = {3, 4};
  const uint8_t mask = 1;
  const uint64_t before = ec::emulation::started();
  CHECK(run_mark_ids(ids, 2, {}, 0, nullptr, nullptr));
  CHECK(run_mark_mask(&mask, 1, nullptr, 0, 0, nullptr, nullptr));
  CHECK(ec::emulation::started() == before);
}

// As damaged files may have them.
void rows_that_are_not_finite_are_not_found() {
  const int columns = 9, k = 5;
  for (const Metric metric : kMetrics) {
    for (const int64_t rows : {4, 300}) {  // fewer than are kept, and more
      Data data(metric, rows, columns, 13);
      const std::vector<int64_t> sound = {1, rows - 2, rows - 1};
      for (int64_t i = 0; i < rows; ++i)
        if (std::find(sound.begin(), sound.end(), i) == sound.end())
          data.vectors[static_cast<size_t>(i * data.stride + i % columns)] = std::nanf("");
      CHECK(run_encode(data.index, multiprocessors, nullptr));
      const std::vector<float> queries = some_queries(2, columns, 14);
      for (const bool certain : {false, true}) {
        const Answers answers = search(data, queries, k, certain, nullptr);
        for (size_t q = 0; q < 2; ++q) {
          CHECK(answers.counts[q] == 3);
          std::vector<double> right;
          for (const int64_t slot : sound)
            right.push_back(data.distance(queries.data() + q * static_cast<size_t>(columns), slot));
          std::sort(right.begin(), right.end());
          for (size_t i = 0; i < k; ++i) {
            const size_t at = q * static_cast<size_t>(k) + i;
            if (i < 3)
              CHECK(std::fabs(static_cast<double>(answers.distances[at]) - right[i]) < 1e-5);
            else
              CHECK(answers.ids[at] == -1 && std::isinf(answers.distances[at]));
          }
        }
      }
    }
  }
}

// More words than a block lists at once.
void long_lists() {
  std::vector<uint8_t> mask(20000);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i * i % 7 == 2 || i > 19990 ? 1 : 0;
  const Passing passing(mask);
}

// More words than a block adds up what comes before them at once.
void longer_lists() {
  const int64_t rows = int64_t{258} * 256 * 32 - 7, words = filter_words(rows);
  std::vector<unsigned> bits(static_cast<size_t>(words));
  std::vector<uint32_t> right;
  for (uint32_t slot = 3; slot < rows; slot += 1201) {
    bits[slot / 32] |= 1u << (slot % 32);
    right.push_back(slot);
  }
  std::vector<uint32_t> slots(right.size());
  std::vector<unsigned char> workspace(list_workspace_bytes(1, rows));
  for (uint32_t* to : {slots.data(), static_cast<uint32_t*>(nullptr)}) {
    int64_t count = -1;
    CHECK(run_list({bits.data(), 1, rows, to, static_cast<int64_t>(slots.size()), &count,
                    reinterpret_cast<int64_t*>(workspace.data()), nullptr},
                   nullptr));
    CHECK(count == static_cast<int64_t>(right.size()));
  }
  CHECK(slots == right);
}

// So many chunks of filters that blocks list several of them.
void lists_of_many_filters() {
  const int64_t rows = int64_t{9} * 256 * 32 - 5, words = filter_words(rows), filters = 460, most = 40;
  std::vector<unsigned> bits(static_cast<size_t>(filters * words));
  std::vector<uint32_t> right(static_cast<size_t>(filters * most), 0xffffffffu), slots = right;
  std::vector<int64_t> right_counts, counts(static_cast<size_t>(filters), -1);
  for (int64_t filter = 0; filter < filters; ++filter) {
    int64_t count = 0;
    for (int64_t slot = filter; slot < rows && filter % 7 != 3; slot += 2003 + filter) {
      bits[static_cast<size_t>(filter * words + slot / 32)] |= 1u << (slot % 32);
      right[static_cast<size_t>(filter * most + count++)] = static_cast<uint32_t>(slot);
    }
    right_counts.push_back(count);
  }
  std::vector<unsigned char> workspace(list_workspace_bytes(filters, rows));
  auto* scratch = reinterpret_cast<int64_t*>(workspace.data());
  CHECK(
      run_list({bits.data(), filters, rows, slots.data(), most, counts.data(), scratch, nullptr}, nullptr));
  CHECK(slots == right && counts == right_counts);
}

// The first half of the rows hang together, and nothing leads to the others: what a walk finds is of these,
// and a scan finds all.
struct HalfGraph {
  explicit HalfGraph(const Data& data) : half(data.index.rows / 2) {
    links.assign(static_cast<size_t>(data.index.rows * kDegree), 0xffffffffu);
    std::vector<std::pair<double, uint32_t>> others(static_cast<size_t>(half));
    for (int64_t i = 0; i < half; ++i) {
      const float* own = data.vectors.data() + i * data.stride;
      for (int64_t j = 0; j < half; ++j)
        others[static_cast<size_t>(j)] = {data.distance(own, j), static_cast<uint32_t>(j)};
      std::sort(others.begin(), others.end());
      for (int n = 0; n < kDegree - 4; ++n)  // the rest stay open
        links[static_cast<size_t>(i * kDegree + n)] = n < 16
                                                          ? others[static_cast<size_t>(n) + 1].second
                                                          : static_cast<uint32_t>((i * 7 + n * 31) % half);
    }
    for (uint32_t i = 0; i < half; i += 29) entries.push_back(i);
    graph.links = links.data();
    graph.entries = entries.data();
    graph.entry_count = static_cast<int64_t>(entries.size());
    graph.plan = {64, {0, 0, 0, 0}, data.index.rows};
  }

  int64_t half;
  std::vector<uint32_t> links, entries;
  Graph graph = {};
};

void walks_end_where_the_graph_does() {
  const int64_t rows = 900;
  const int columns = 20, k = 10, count = 4;
  for (const Metric metric : kMetrics) {
    const Data data(metric, rows, columns, 9);
    HalfGraph half(data);
    const std::vector<float> queries = some_queries(count, columns, 10);
    const auto slots_of = [&](const Answers& answers) {
      std::vector<int64_t> slots;
      for (const int64_t id : answers.ids) slots.push_back(rows - id / 7);
      return slots;
    };
    // Nearest rows of the first half, as a scan of them finds.
    std::vector<uint8_t> mask(static_cast<size_t>(rows));
    std::fill(mask.begin(), mask.begin() + half.half, uint8_t{1});
    const Passing first(mask);
    const std::vector<int64_t> right = slots_of(search(data, queries, k, true, &first));
    const std::vector<int64_t> found = slots_of(search(data, queries, k, false, nullptr, &half.graph));
    size_t same = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i] < half.half);
      const auto row = right.begin() + static_cast<std::ptrdiff_t>(i / k * k);
      same += std::find(row, row + k, found[i]) != row + k ? 1 : 0;
    }
    CHECK(same >= found.size() * 9 / 10);
    // Half of the rows pass, so that pools are twice as wide; none of those that a walk can meet.
    for (auto& pass : mask) pass ^= 1;
    const Passing second(mask);
    const Answers scanned = search(data, queries, k, false, &second);
    CHECK(search(data, queries, k, false, &second, &half.graph).ids == scanned.ids);
    // Where walks do not pay, nothing walks.
    half.graph.plan = {64, {rows + 1, 0, 0, 0}, rows};
    CHECK(search(data, queries, k, false, nullptr, &half.graph).ids ==
          search(data, queries, k, false, nullptr).ids);
  }
}

}  // namespace

int main() {
  lists_keep_the_best();
  filters_of_no_rows();
  long_lists();
  longer_lists();
  lists_of_many_filters();
  for (const bool hopper : {false, true}) {
    on_hopper = lists_first = hopper;
    all_shapes();
    many_lists();
    ties_go_to_the_lowest_slots();
    rows_that_are_not_finite_are_not_found();
    walks_end_where_the_graph_does();
  }
  return check::report();
}
