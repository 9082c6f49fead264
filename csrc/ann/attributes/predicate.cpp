// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/predicate.h"

#include <algorithm>
#include <utility>

namespace ec::ann {

namespace {

constexpr size_t kSearchedCodes = 16;     // above, a bitset of the dictionary tells members faster
constexpr int64_t kEstimatedPoints = 64;  // above, counting the rows costs as much as finding them
constexpr int64_t kTestedAtOnce = 512;    // rows, so that what is between fits the stack

int64_t indexed_rows(const Column& column) { return column.index == nullptr ? 0 : column.index->rows; }

// ---- values -----------------------------------------------------------------------------------------

bool is_one_of(const Predicate& predicate, int32_t code) {
  if (!predicate.is_member.empty()) return test_bit(predicate.is_member.data(), code);
  return std::binary_search(predicate.codes.begin(), predicate.codes.end(), code);
}

template <class Wanted>
void test_sets(const Column& column, const uint32_t* slots, int64_t count, uint8_t* pass, Wanted&& wanted) {
  const int32_t* codes = column.codes.data();
  for (int64_t i = 0; i < count; ++i) {
    pass[i] = 0;
    const int64_t end = column.set_end(slots[i]);
    for (int64_t j = column.set_begin(slots[i]); j < end; ++j) {
      if (!wanted(codes[j])) continue;
      pass[i] = 1;
      break;
    }
  }
}

void test_codes(const Predicate& predicate, const uint32_t* slots, int64_t count, uint8_t* pass) {
  const Column& column = *predicate.column;
  const bool single = predicate.test == Test::kCode;
  const int32_t code = predicate.code;
  if (column.kind == ColumnKind::kSet) {
    if (single) return test_sets(column, slots, count, pass, [&](int32_t have) { return have == code; });
    return test_sets(column, slots, count, pass, [&](int32_t have) { return is_one_of(predicate, have); });
  }
  const int32_t* codes = column.codes.data();
  if (single) {
    for (int64_t i = 0; i < count; ++i) pass[i] = codes[slots[i]] == code ? 1 : 0;
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int32_t have = codes[slots[i]];
    pass[i] = have >= 0 && is_one_of(predicate, have) ? 1 : 0;
  }
}

void test_keys(const Predicate& predicate, const uint32_t* slots, int64_t count, uint8_t* pass) {
  const Column& column = *predicate.column;
  const int64_t* keys = column.keys.data();
  if (predicate.test == Test::kInterval) {
    // One comparison without a sign: key - low wraps to more than the width outside the interval.
    const uint64_t low = static_cast<uint64_t>(predicate.low);
    const uint64_t width = static_cast<uint64_t>(predicate.high) - low;
    for (int64_t i = 0; i < count; ++i)
      pass[i] = static_cast<uint64_t>(keys[slots[i]]) - low <= width ? 1 : 0;
  } else {
    for (int64_t i = 0; i < count; ++i)
      pass[i] =
          std::binary_search(predicate.points.begin(), predicate.points.end(), keys[slots[i]]) ? 1 : 0;
  }
  if (!column.has_nulls()) return;
  const uint8_t* nulls = column.nulls.data();
  for (int64_t i = 0; i < count; ++i) pass[i] = nulls[slots[i]] != 0 ? 0 : pass[i];
}

// Calls found(slot) for the rows behind the index that pass, ascending.
template <class Found>
void for_each_in_tail(const Predicate& predicate, Found&& found) {
  uint32_t slots[kTestedAtOnce];
  uint8_t pass[kTestedAtOnce];
  const int64_t rows = predicate.column->rows;
  for (int64_t begin = indexed_rows(*predicate.column); begin < rows; begin += kTestedAtOnce) {
    const int64_t count = std::min(kTestedAtOnce, rows - begin);
    for (int64_t i = 0; i < count; ++i) slots[i] = static_cast<uint32_t>(begin + i);
    test_rows(predicate, slots, count, pass);
    for (int64_t i = 0; i < count; ++i)
      if (pass[i] != 0) found(slots[i]);
  }
}

// ---- the index --------------------------------------------------------------------------------------

Postings::Slots posting_of(const Column& column, int64_t entry) {
  return column.index == nullptr ? Postings::Slots{} : column.index->postings[entry];
}

int64_t entry_of(const Predicate& predicate) {
  return predicate.test == Test::kNull ? 0 : int64_t{1} + predicate.code;
}

// Calls found(run) for the run of each point that has rows, ascending.
template <class Found>
void for_each_point_run(const Predicate& predicate, Found&& found) {
  if (predicate.column->index == nullptr) return;
  const SortedKeys& sorted = predicate.column->index->sorted;
  const int64_t* keys = sorted.keys();
  const int64_t size = sorted.size();
  if (static_cast<int64_t>(predicate.points.size()) < size / 8) {
    for (const int64_t point : predicate.points) {
      const SortedKeys::Run run = sorted.find(point, point);
      if (run.size() > 0) found(run);
    }
    return;
  }
  int64_t begin = 0;  // both are sorted: one walk through them
  for (const int64_t point : predicate.points) {
    while (begin < size && keys[begin] < point) ++begin;
    int64_t end = begin;
    while (end < size && keys[end] == point) ++end;
    if (end > begin) found(SortedKeys::Run{begin, end});
    begin = end;
  }
}

// Calls list(slots, count) or bits(words) for each part of what the index has; slots of one list are
// distinct but, in runs, in no order.
template <class List, class Bits>
void for_each_part(const Predicate& predicate, List&& list, Bits&& bits) {
  const Column& column = *predicate.column;
  const auto posting = [&](int64_t entry) {
    const Postings::Slots slots = posting_of(column, entry);
    if (slots.bits != nullptr)
      bits(slots.bits);
    else if (slots.count > 0)
      list(slots.list, slots.count);
  };
  switch (predicate.test) {
    case Test::kNull:
    case Test::kCode:
      return posting(entry_of(predicate));
    case Test::kCodes:
      for (const int32_t code : predicate.codes) posting(int64_t{1} + code);
      return;
    case Test::kInterval:
      if (predicate.run.size() > 0)
        list(column.index->sorted.slots() + predicate.run.begin, predicate.run.size());
      return;
    case Test::kPoints:
      for_each_point_run(predicate, [&](SortedKeys::Run run) {
        list(column.index->sorted.slots() + run.begin, run.size());
      });
      return;
    default:
      return;
  }
}

void collect_index(const Predicate& predicate, bool first, Collector* collector) {
  if (predicate.test == Test::kInterval && !collector->is_small() && predicate.run.size() > 0)
    return predicate.column->index->sorted.collect(predicate.run, first, collector);
  const int64_t words = word_count(indexed_rows(*predicate.column));
  for_each_part(
      predicate, [&](const uint32_t* slots, int64_t count) { collector->add(slots, count); },
      [&](const uint64_t* bits) { collector->add_bits(bits, words); });
}

// The index has every row as it is now.
bool index_is_exact(const Column& column) {
  return column.index != nullptr && column.changed.empty() && column.index->rows == column.rows;
}

// Requires: no row has changed since the index was built.
AllowedSet rows_of_posting(const Predicate& predicate) {
  const int64_t rows = predicate.column->rows;
  const Postings::Slots found = posting_of(*predicate.column, entry_of(predicate));
  if (found.bits == nullptr) {
    std::vector<uint32_t> slots(found.list, found.list + found.count);
    for_each_in_tail(predicate, [&](uint32_t slot) { slots.push_back(slot); });
    return set_of_sorted(std::move(slots), rows);
  }
  std::vector<uint64_t> bits;
  bits.reserve(static_cast<size_t>(word_count(rows)));
  bits.assign(found.bits, found.bits + word_count(indexed_rows(*predicate.column)));
  bits.resize(static_cast<size_t>(word_count(rows)));
  int64_t count = found.count;
  for_each_in_tail(predicate, [&](uint32_t slot) {
    set_bit(bits.data(), slot);
    ++count;
  });
  return set_of_bits(std::move(bits), rows, count);
}

// Requires: no row has changed since the index was built; few rows pass and no part is a bitset.
AllowedSet rows_sorted(const Predicate& predicate) {
  std::vector<uint32_t> slots;
  slots.reserve(static_cast<size_t>(predicate.expected));
  for_each_part(
      predicate,
      [&](const uint32_t* part, int64_t count) { slots.insert(slots.end(), part, part + count); },
      [](const uint64_t*) {});
  sort_slots(predicate.column->rows, &slots);
  if (predicate.test == Test::kCodes)  // a set may have several of them
    slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  for_each_in_tail(predicate, [&](uint32_t slot) { slots.push_back(slot); });
  return set_of_sorted(std::move(slots), predicate.column->rows);
}

void replace_changed(const Predicate& predicate, Collector* collector) {
  const std::vector<uint32_t>& changed = predicate.column->changed;
  uint8_t pass[kTestedAtOnce];
  for (size_t begin = 0; begin < changed.size(); begin += kTestedAtOnce) {
    const int64_t count = std::min(kTestedAtOnce, static_cast<int64_t>(changed.size() - begin));
    test_rows(predicate, changed.data() + begin, count, pass);
    for (int64_t i = 0; i < count; ++i) {
      collector->remove(changed[begin + static_cast<size_t>(i)]);
      if (pass[i] != 0) collector->add(changed[begin + static_cast<size_t>(i)]);
    }
  }
}

int64_t matches_in_index(const Predicate& predicate) {
  int64_t total = 0;
  switch (predicate.test) {
    case Test::kNull:
    case Test::kCode:
      return posting_of(*predicate.column, entry_of(predicate)).count;
    case Test::kNotNull:
      return indexed_rows(*predicate.column) - posting_of(*predicate.column, 0).count;
    case Test::kCodes:
      for (const int32_t code : predicate.codes)
        total += posting_of(*predicate.column, int64_t{1} + code).count;
      return std::min(total, indexed_rows(*predicate.column));
    case Test::kInterval:
      return predicate.run.size();
    case Test::kPoints:
      if (static_cast<int64_t>(predicate.points.size()) > kEstimatedPoints)
        return indexed_rows(*predicate.column);
      for_each_point_run(predicate, [&](SortedKeys::Run run) { total += run.size(); });
      return total;
    default:
      return 0;
  }
}

}  // namespace

void set_codes(std::vector<int32_t> codes, Predicate* predicate) {
  std::sort(codes.begin(), codes.end());
  codes.erase(std::unique(codes.begin(), codes.end()), codes.end());
  if (codes.size() < 2) {
    predicate->test = codes.empty() ? Test::kNothing : Test::kCode;
    if (!codes.empty()) predicate->code = codes[0];
    return;
  }
  predicate->test = Test::kCodes;
  if (codes.size() > kSearchedCodes) {
    predicate->is_member.resize(static_cast<size_t>(word_count(predicate->column->dictionary.size())));
    for (const int32_t code : codes) set_bit(predicate->is_member.data(), code);
  }
  predicate->codes = std::move(codes);
}

void set_points(std::vector<int64_t> points, Predicate* predicate) {
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  if (points.size() < 2) {
    predicate->test = points.empty() ? Test::kNothing : Test::kInterval;
    if (!points.empty()) predicate->low = predicate->high = points[0];
    return;
  }
  predicate->test = Test::kPoints;
  predicate->points = std::move(points);
}

void prepare(Predicate* predicate) {
  const Column& column = *predicate->column;
  if (predicate->test == Test::kInterval && column.index != nullptr)
    predicate->run = column.index->sorted.find(predicate->low, predicate->high);
  const int64_t indexed = indexed_rows(column);
  const int64_t matches = matches_in_index(*predicate);
  if (indexed == column.rows)
    predicate->expected = matches;
  else if (indexed == 0)
    predicate->expected = predicate->test == Test::kNothing ? 0 : column.rows / 4;  // nothing is known
  else
    predicate->expected = static_cast<int64_t>(
        static_cast<double>(matches) * static_cast<double>(column.rows) / static_cast<double>(indexed));
}

AllowedSet rows_of(const Predicate& predicate) {
  const Column& column = *predicate.column;
  if (predicate.test == Test::kNothing) return empty_set(column.rows);
  if (predicate.test == Test::kNotNull) {
    Predicate null = predicate;
    null.test = Test::kNull;
    return complement(rows_of(null));
  }
  const bool unchanged = column.changed.empty();
  const bool one_posting = predicate.test == Test::kCode || predicate.test == Test::kNull;
  if (unchanged && one_posting) return rows_of_posting(predicate);
  if (unchanged && !is_dense(predicate.expected, indexed_rows(column))) return rows_sorted(predicate);
  Collector collector(column.rows, predicate.expected);
  collect_index(predicate, true, &collector);
  if (!unchanged) replace_changed(predicate, &collector);
  for_each_in_tail(predicate, [&](uint32_t slot) { collector.add(slot); });
  const bool counted = predicate.test == Test::kInterval && index_is_exact(column);
  return collector.finish(counted ? predicate.run.size() : -1);
}

void collect_rows(const Predicate& predicate, Collector* collector) {
  if (predicate.test == Test::kNothing) return;
  if (predicate.test == Test::kNotNull || !predicate.column->changed.empty())
    return collector->add(rows_of(predicate));
  collect_index(predicate, false, collector);
  for_each_in_tail(predicate, [&](uint32_t slot) { collector->add(slot); });
}

void test_rows(const Predicate& predicate, const uint32_t* slots, int64_t count, uint8_t* pass) {
  switch (predicate.test) {
    case Test::kNull:
      for (int64_t i = 0; i < count; ++i) pass[i] = predicate.column->is_null(slots[i]) ? 1 : 0;
      return;
    case Test::kNotNull:
      for (int64_t i = 0; i < count; ++i) pass[i] = predicate.column->is_null(slots[i]) ? 0 : 1;
      return;
    case Test::kCode:
    case Test::kCodes:
      return test_codes(predicate, slots, count, pass);
    case Test::kInterval:
    case Test::kPoints:
      return test_keys(predicate, slots, count, pass);
    default:
      std::fill(pass, pass + count, uint8_t{0});
  }
}

bool rows_unsorted(const Predicate& predicate, std::vector<uint32_t>* slots) {
  const Column& column = *predicate.column;
  const bool run = predicate.test == Test::kInterval || predicate.test == Test::kPoints;
  if (!run || !index_is_exact(column) || is_dense(predicate.expected, column.rows)) return false;
  slots->reserve(static_cast<size_t>(predicate.expected));
  for_each_part(
      predicate,
      [&](const uint32_t* part, int64_t count) { slots->insert(slots->end(), part, part + count); },
      [](const uint64_t*) {});
  return true;
}

bool keep_by_bits(const Predicate& predicate, std::vector<uint32_t>* slots) {
  const Column& column = *predicate.column;
  if (!index_is_exact(column)) return false;
  if (predicate.test != Test::kCode && predicate.test != Test::kInterval) return false;
  // In nanoseconds, as measured: what testing costs for each slot beyond looking at a bit, and what making
  // the bitset costs for each word and each single slot that is put in.
  const double test_cost = column.kind == ColumnKind::kSet ? 3.5 : 1.0;
  const double word_cost = 0.3;
  const double single_cost = 0.5;
  const uint64_t* bits = nullptr;
  double cost = word_cost * static_cast<double>(word_count(column.rows));
  if (predicate.test == Test::kInterval) {
    cost += single_cost * static_cast<double>(column.index->sorted.collect_steps(predicate.run));
  } else {
    const Postings::Slots found = posting_of(column, entry_of(predicate));
    bits = found.bits;
    cost = bits != nullptr ? 0.0 : cost + single_cost * static_cast<double>(found.count);
  }
  if (test_cost * static_cast<double>(slots->size()) <= cost) return false;
  if (bits != nullptr) {
    keep_in(bits, slots);
    return true;
  }
  Collector collector(column.rows, column.rows);
  collect_index(predicate, true, &collector);
  keep_in(collector.bits(), slots);
  return true;
}

}  // namespace ec::ann
