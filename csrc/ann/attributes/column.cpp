// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/column.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "ann/attributes/errors.h"
#include "ann/attributes/text.h"

namespace ec::ann {

namespace {

constexpr int64_t kMostChanged = 1024;     // rows outside the index that are no reason to build it anew,
constexpr int64_t kMostChangedShare = 16;  // nor is one in so many

bool payload_is_null(const Payload& payload, int64_t i) {
  if (payload.kind == ColumnKind::kCategory) return payload.codes[i] < 0;
  if (payload.kind == ColumnKind::kNumber && std::isnan(payload.numbers[i])) return true;
  return payload.nulls != nullptr && payload.nulls[i] != 0;
}

bool payload_has_nulls(const Payload& payload) {
  for (int64_t i = 0; i < payload.rows; ++i)
    if (payload_is_null(payload, i)) return true;
  return false;
}

// Null rows have the key 0, so that equal columns are equal bytes.
int64_t payload_key(const Column& column, const Payload& payload, int64_t i) {
  if (payload_is_null(payload, i)) return 0;
  if (payload.kind == ColumnKind::kNumber) return key_of(payload.numbers[i]);
  if (column.kind == ColumnKind::kNumber) return key_of(static_cast<double>(payload.integers[i]));
  return payload.integers[i];
}

// Marks count rows behind the column's; null where is_null(i). Nothing is kept while no row is null.
template <class IsNull>
void extend_nulls(const Column& column, int64_t count, bool any_null, IsNull&& is_null, Column* next) {
  if (!column.has_nulls() && !any_null) return;
  uint8_t* tail = nullptr;
  if (column.has_nulls()) {
    next->nulls = column.nulls.extended(count, &tail);
  } else {
    next->nulls = SharedArray<uint8_t>::make(column.rows + count, &tail);
    if (column.rows > 0) std::memset(tail, 0, static_cast<size_t>(column.rows));
    tail += column.rows;
  }
  for (int64_t i = 0; i < count; ++i) tail[i] = is_null(i) ? 1 : 0;
}

// The codes of row i of a set payload in this column's dictionary, ascending and distinct.
void row_codes(const Payload& payload, int64_t i, const std::vector<int32_t>& code_of,
               std::vector<int32_t>* codes) {
  codes->clear();
  if (payload_is_null(payload, i)) return;
  for (int64_t j = payload.offsets[i]; j < payload.offsets[i + 1]; ++j)
    codes->push_back(code_of[static_cast<size_t>(payload.codes[j])]);
  std::sort(codes->begin(), codes->end());
  codes->erase(std::unique(codes->begin(), codes->end()), codes->end());
}

void append_sets(const Column& column, const Payload& payload, const std::vector<int32_t>& code_of,
                 Column* next) {
  std::vector<int32_t> all;
  std::vector<int32_t> row;
  int64_t* offsets = nullptr;
  next->offsets = column.offsets.extended(payload.rows, &offsets);
  for (int64_t i = 0; i < payload.rows; ++i) {
    row_codes(payload, i, code_of, &row);
    all.insert(all.end(), row.begin(), row.end());
    offsets[i] = column.codes.size() + static_cast<int64_t>(all.size());
  }
  int32_t* codes = nullptr;
  next->codes = column.codes.extended(static_cast<int64_t>(all.size()), &codes);
  std::copy(all.begin(), all.end(), codes);
}

// Slot takes that row of the payload.
struct Change {
  uint32_t slot;
  int64_t row;
};

std::vector<Change> changes_of(const int64_t* slots, int64_t count) {
  std::vector<Change> changes(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    changes[static_cast<size_t>(i)] = {static_cast<uint32_t>(slots[i]), i};
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& a, const Change& b) { return a.slot < b.slot; });
  size_t kept = 0;
  for (size_t i = 0; i < changes.size(); ++i) {
    if (i + 1 < changes.size() && changes[i + 1].slot == changes[i].slot) continue;
    changes[kept++] = changes[i];
  }
  changes.resize(kept);
  return changes;
}

void update_sets(const Column& column, const Payload& payload, const std::vector<int32_t>& code_of,
                 const std::vector<Change>& changes, Column* next) {
  std::vector<int32_t> all;
  all.reserve(static_cast<size_t>(column.codes.size()));
  std::vector<int32_t> row;
  int64_t* offsets = nullptr;
  next->offsets = SharedArray<int64_t>::make(column.rows + 1, &offsets);
  *offsets++ = 0;
  auto change = changes.begin();
  for (int64_t slot = 0; slot < column.rows; ++slot) {
    if (change != changes.end() && change->slot == slot) {
      row_codes(payload, change->row, code_of, &row);
      all.insert(all.end(), row.begin(), row.end());
      ++change;
    } else {
      all.insert(all.end(), column.codes.data() + column.set_begin(slot),
                 column.codes.data() + column.set_end(slot));
    }
    offsets[slot] = static_cast<int64_t>(all.size());
  }
  int32_t* codes = nullptr;
  next->codes = SharedArray<int32_t>::make(static_cast<int64_t>(all.size()), &codes);
  std::copy(all.begin(), all.end(), codes);
}

void mark_changed(const std::vector<Change>& changes, Column* column) {
  const int64_t indexed = column->index == nullptr ? 0 : column->index->rows;
  std::vector<uint32_t> slots;
  for (const Change& change : changes)
    if (change.slot < indexed) slots.push_back(change.slot);
  std::vector<uint32_t> merged;
  std::set_union(column->changed.begin(), column->changed.end(), slots.begin(), slots.end(),
                 std::back_inserter(merged));
  column->changed = std::move(merged);
}

void check_codes(const Payload& payload, int64_t begin, int64_t end, int64_t row, int32_t least) {
  for (int64_t j = begin; j < end; ++j)
    if (payload.codes[j] < least || payload.codes[j] >= payload.labels.size())
      fail_value("column " + quoted(payload.name) + " has the code " + std::to_string(payload.codes[j]) +
                 " in row " + std::to_string(row < 0 ? j : row) + ", but " +
                 std::to_string(payload.labels.size()) + " labels");
}

}  // namespace

const char* kind_name(ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kCategory:
      return "category";
    case ColumnKind::kInteger:
      return "integer";
    case ColumnKind::kNumber:
      return "number";
    case ColumnKind::kDatetime:
      return "datetime";
    default:
      return "set";
  }
}

const char* kind_phrase(ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kCategory:
      return "a category";
    case ColumnKind::kInteger:
      return "an integer column";
    case ColumnKind::kNumber:
      return "a number column";
    case ColumnKind::kDatetime:
      return "a datetime column";
    default:
      return "a set";
  }
}

int64_t key_of(double value) {
  if (value == 0.0) return 0;
  int64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits >= 0 ? bits : bits ^ INT64_MAX;
}

double number_of(int64_t key) {
  const int64_t bits = key >= 0 ? key : key ^ INT64_MAX;
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

Column null_column(const Payload& payload, int64_t rows) {
  Column column;
  column.name = std::make_shared<const std::string>(payload.name);
  column.kind = payload.kind;
  if (column.kind == ColumnKind::kSet) {
    int64_t* offsets = nullptr;
    column.offsets = SharedArray<int64_t>::make(1, &offsets);
    offsets[0] = 0;
  }
  return rows > 0 ? appended_nulls(column, rows) : column;
}

void check_payload(const Column& column, const Payload& payload) {
  const bool widens = column.kind == ColumnKind::kNumber && payload.kind == ColumnKind::kInteger;
  if (column.kind != payload.kind && !widens)
    fail_kind("column " + quoted(*column.name) + " is " + kind_phrase(column.kind) +
              "; got values of kind " + kind_name(payload.kind));
  const LabelKind have = column.dictionary.kind();
  const LabelKind given = payload.labels.kind;
  if (have != LabelKind::kNone && given != LabelKind::kNone && have != given)
    fail_kind("column " + quoted(*column.name) + " holds " + label_kind_name(have) + "; got " +
              label_kind_name(given));
  if (payload.kind == ColumnKind::kCategory) check_codes(payload, 0, payload.rows, -1, -1);
  if (payload.kind != ColumnKind::kSet) return;
  int64_t end = payload.offsets[0];
  for (int64_t i = 0; i < payload.rows; ++i) {
    if (payload.offsets[i] < 0 || payload.offsets[i + 1] < payload.offsets[i] ||
        payload.offsets[i + 1] > payload.code_count)
      fail_value("column " + quoted(payload.name) + " must have ascending offsets from 0 to " +
                 std::to_string(payload.code_count) + "; got " + std::to_string(payload.offsets[i]) +
                 " and " + std::to_string(payload.offsets[i + 1]) + " for row " + std::to_string(i));
    end = payload.offsets[i + 1];
    check_codes(payload, payload.offsets[i], end, i, 0);
  }
}

Column appended(const Column& column, const Payload& payload) {
  Column next = column;
  next.rows += payload.rows;
  std::vector<int32_t> code_of;
  if (!is_numeric(column.kind)) next.dictionary = column.dictionary.merged(payload.labels, &code_of);
  if (column.kind == ColumnKind::kCategory) {
    int32_t* codes = nullptr;
    next.codes = column.codes.extended(payload.rows, &codes);
    for (int64_t i = 0; i < payload.rows; ++i)
      codes[i] = payload.codes[i] < 0 ? -1 : code_of[static_cast<size_t>(payload.codes[i])];
    return next;
  }
  if (column.kind == ColumnKind::kSet) {
    append_sets(column, payload, code_of, &next);
  } else {
    int64_t* keys = nullptr;
    next.keys = column.keys.extended(payload.rows, &keys);
    for (int64_t i = 0; i < payload.rows; ++i) keys[i] = payload_key(column, payload, i);
  }
  extend_nulls(
      column, payload.rows, payload_has_nulls(payload),
      [&](int64_t i) { return payload_is_null(payload, i); }, &next);
  return next;
}

Column appended_nulls(const Column& column, int64_t count) {
  Column next = column;
  next.rows += count;
  if (column.kind == ColumnKind::kCategory) {
    int32_t* codes = nullptr;
    next.codes = column.codes.extended(count, &codes);
    std::fill(codes, codes + count, -1);
    return next;
  }
  if (column.kind == ColumnKind::kSet) {
    int64_t* offsets = nullptr;
    next.offsets = column.offsets.extended(count, &offsets);
    std::fill(offsets, offsets + count, column.codes.size());
  } else {
    int64_t* keys = nullptr;
    next.keys = column.keys.extended(count, &keys);
    std::fill(keys, keys + count, 0);
  }
  extend_nulls(column, count, count > 0, [](int64_t) { return true; }, &next);
  return next;
}

Column updated(const Column& column, const Payload& payload, const int64_t* slots) {
  Column next = column;
  const std::vector<Change> changes = changes_of(slots, payload.rows);
  std::vector<int32_t> code_of;
  if (!is_numeric(column.kind)) next.dictionary = column.dictionary.merged(payload.labels, &code_of);
  mark_changed(changes, &next);
  if (column.kind == ColumnKind::kCategory) {
    int32_t* codes = nullptr;
    next.codes = column.codes.copied(&codes);
    for (const Change& change : changes) {
      const int32_t code = payload.codes[change.row];
      codes[change.slot] = code < 0 ? -1 : code_of[static_cast<size_t>(code)];
    }
    return next;
  }
  if (column.kind == ColumnKind::kSet) {
    update_sets(column, payload, code_of, changes, &next);
  } else {
    int64_t* keys = nullptr;
    next.keys = column.keys.copied(&keys);
    for (const Change& change : changes) keys[change.slot] = payload_key(column, payload, change.row);
  }
  if (!column.has_nulls() && !payload_has_nulls(payload)) return next;
  uint8_t* nulls = nullptr;
  next.nulls = SharedArray<uint8_t>::make(column.rows, &nulls);
  for (int64_t i = 0; i < column.rows; ++i) nulls[i] = column.is_null(i) ? 1 : 0;
  for (const Change& change : changes) nulls[change.slot] = payload_is_null(payload, change.row) ? 1 : 0;
  return next;
}

Column taken(const Column& column, const int64_t* order, int64_t count) {
  Column next;
  next.name = column.name;
  next.kind = column.kind;
  next.rows = count;
  next.dictionary = column.dictionary;
  if (column.kind == ColumnKind::kCategory) {
    int32_t* codes = nullptr;
    next.codes = SharedArray<int32_t>::make(count, &codes);
    for (int64_t i = 0; i < count; ++i) codes[i] = column.codes[order[i]];
    return next;
  }
  if (column.kind == ColumnKind::kSet) {
    int64_t* offsets = nullptr;
    next.offsets = SharedArray<int64_t>::make(count + 1, &offsets);
    offsets[0] = 0;
    for (int64_t i = 0; i < count; ++i)
      offsets[i + 1] = offsets[i] + column.set_end(order[i]) - column.set_begin(order[i]);
    int32_t* codes = nullptr;
    next.codes = SharedArray<int32_t>::make(offsets[count], &codes);
    for (int64_t i = 0; i < count; ++i)
      std::copy(column.codes.data() + column.set_begin(order[i]),
                column.codes.data() + column.set_end(order[i]), codes + offsets[i]);
  } else {
    int64_t* keys = nullptr;
    next.keys = SharedArray<int64_t>::make(count, &keys);
    for (int64_t i = 0; i < count; ++i) keys[i] = column.keys[order[i]];
  }
  if (!column.has_nulls()) return next;
  uint8_t* nulls = nullptr;
  next.nulls = SharedArray<uint8_t>::make(count, &nulls);
  for (int64_t i = 0; i < count; ++i) nulls[i] = column.nulls[order[i]];
  return next;
}

bool index_is_stale(const Column& column) {
  const int64_t indexed = column.index == nullptr ? 0 : column.index->rows;
  const int64_t outside = column.rows - indexed + static_cast<int64_t>(column.changed.size());
  return outside > std::max(kMostChanged, column.rows / kMostChangedShare);
}

std::shared_ptr<const ColumnIndex> build_index(const Column& column) {
  auto index = std::make_shared<ColumnIndex>();
  index->rows = column.rows;
  const int64_t entries = 1 + static_cast<int64_t>(column.dictionary.size());
  if (column.kind == ColumnKind::kCategory) {
    index->postings = Postings(column.rows, entries, [&](auto&& found) {
      for (int64_t i = 0; i < column.rows; ++i) found(int64_t{1} + column.codes[i], i);
    });
    return index;
  }
  index->postings = Postings(column.rows, entries, [&](auto&& found) {
    for (int64_t i = 0; i < column.rows; ++i) {
      if (column.is_null(i)) found(int64_t{0}, i);
      if (column.kind != ColumnKind::kSet) continue;
      for (int64_t j = column.set_begin(i); j < column.set_end(i); ++j)
        found(int64_t{1} + column.codes[j], i);
    }
  });
  if (is_numeric(column.kind))
    index->sorted =
        SortedKeys(column.rows, column.keys.data(), column.has_nulls() ? column.nulls.data() : nullptr);
  return index;
}

}  // namespace ec::ann
