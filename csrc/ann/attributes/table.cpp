// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/table.h"

#include <exception>
#include <unordered_set>

#include "ann/attributes/check_columns.h"
#include "ann/attributes/errors.h"
#include "ann/attributes/text.h"
#include "core/parallel.h"

namespace ec::ann {

namespace {

constexpr int64_t kMostRows = UINT32_MAX;   // slots are 32 bits wide
constexpr int64_t kInlineValues = 1 << 16;  // below, one thread builds indexes sooner than two

// Runs change(i) for each column on several threads when that pays; the first exception is thrown on.
template <class Change>
void for_each_column(int64_t columns, int64_t rows, Change&& change) {
  std::vector<std::exception_ptr> failed(static_cast<size_t>(columns));
  const int threads = columns * rows < kInlineValues ? 1 : 0;
  parallel_for(columns, threads, nullptr, [&](int64_t i, int) {
    try {
      change(static_cast<size_t>(i));
    } catch (...) {
      failed[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failed)
    if (failure != nullptr) std::rethrow_exception(failure);
}

void check_slots(const int64_t* slots, int64_t count, int64_t rows) {
  for (int64_t i = 0; i < count; ++i)
    if (slots[i] < 0 || slots[i] >= rows)
      fail_value("slot " + std::to_string(slots[i]) + " is out of range: there are " +
                 std::to_string(rows) + " rows");
}

// One payload for each name, with rows rows, under a name that is text.
void check_names(const std::vector<Payload>& payloads, int64_t rows) {
  std::unordered_set<std::string_view> seen;
  for (const Payload& payload : payloads) {
    if (!is_utf8(payload.name)) fail_value("column " + quoted(payload.name) + " must have a name in UTF-8");
    if (!seen.insert(payload.name).second) fail_value("column " + quoted(payload.name) + " is given twice");
    if (payload.rows != rows)
      fail_value("column " + quoted(payload.name) + " must have " + std::to_string(rows) + " rows; got " +
                 std::to_string(payload.rows));
  }
}

// The columns of a table and, for each, which payload brings values, -1 where none does.
struct Plan {
  std::vector<Column> columns;
  std::vector<int64_t> payload;
};

Plan plan_of(const Table& table, const std::vector<Payload>& payloads) {
  Plan plan;
  std::unordered_map<std::string_view, size_t> position;
  for (const Table::ColumnPointer& column : table.columns()) {
    position[*column->name] = plan.columns.size();
    plan.columns.push_back(*column);
  }
  plan.payload.assign(plan.columns.size(), -1);
  for (size_t i = 0; i < payloads.size(); ++i) {
    const auto found = position.find(payloads[i].name);
    if (found != position.end()) {
      plan.payload[found->second] = static_cast<int64_t>(i);
    } else {
      plan.columns.push_back(null_column(payloads[i], table.rows()));
      plan.payload.push_back(static_cast<int64_t>(i));
    }
  }
  for (size_t c = 0; c < plan.columns.size(); ++c)
    if (plan.payload[c] >= 0)
      check_payload(plan.columns[c], payloads[static_cast<size_t>(plan.payload[c])]);
  return plan;
}

void refresh_index(Column* column) {
  if (!index_is_stale(*column)) return;
  column->index = build_index(*column);
  column->changed.clear();
}

}  // namespace

const Column* Table::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

Table::Pointer Table::make(int64_t rows, std::vector<Column> columns) {
  auto table = std::make_shared<Table>();
  table->rows_ = rows;
  for (Column& column : columns) {
    auto held = std::make_shared<const Column>(std::move(column));
    table->by_name_[*held->name] = held.get();
    table->columns_.push_back(std::move(held));
  }
  return table;
}

Table::Pointer Table::append(int64_t rows, const std::vector<Payload>& payloads) const {
  if (rows < 0) fail_value("a table cannot grow by " + std::to_string(rows) + " rows");
  if (rows > kMostRows - rows_)
    fail_value("a table has room for " + std::to_string(kMostRows) + " rows; got " + std::to_string(rows_) +
               " and " + std::to_string(rows) + " more");
  check_names(payloads, rows);
  Plan plan = plan_of(*this, payloads);
  const int64_t columns = static_cast<int64_t>(plan.columns.size());
  for_each_column(columns, rows, [&](size_t c) {
    Column& column = plan.columns[c];
    column = plan.payload[c] < 0 ? appended_nulls(column, rows)
                                 : appended(column, payloads[static_cast<size_t>(plan.payload[c])]);
    refresh_index(&column);
  });
  return make(rows_ + rows, std::move(plan.columns));
}

Table::Pointer Table::update(const int64_t* slots, int64_t count,
                             const std::vector<Payload>& payloads) const {
  check_slots(slots, count, rows_);
  check_names(payloads, count);
  Plan plan = plan_of(*this, payloads);
  const int64_t columns = static_cast<int64_t>(plan.columns.size());
  for_each_column(columns, rows_, [&](size_t c) {
    if (plan.payload[c] < 0) return;
    Column& column = plan.columns[c];
    column = updated(column, payloads[static_cast<size_t>(plan.payload[c])], slots);
    refresh_index(&column);
  });
  return make(rows_, std::move(plan.columns));
}

Table::Pointer Table::take(const int64_t* order, int64_t count) const {
  if (count > kMostRows)
    fail_value("a table has room for " + std::to_string(kMostRows) + " rows; got " + std::to_string(count));
  check_slots(order, count, rows_);
  std::vector<Column> columns(columns_.size());
  for_each_column(static_cast<int64_t>(columns.size()), count, [&](size_t c) {
    columns[c] = taken(*columns_[c], order, count);
    columns[c].index = build_index(columns[c]);
  });
  return make(count, std::move(columns));
}

Table::Pointer Table::from_columns(int64_t rows, std::vector<Column> columns) {
  if (rows < 0 || rows > kMostRows)
    fail_value("a table has from 0 to " + std::to_string(kMostRows) + " rows; got " + std::to_string(rows));
  std::unordered_set<std::string_view> seen;
  for (const Column& column : columns)
    if (!seen.insert(*column.name).second) fail_value("column " + quoted(*column.name) + " is there twice");
  for_each_column(static_cast<int64_t>(columns.size()), rows, [&](size_t c) {
    check_column(columns[c], rows);
    columns[c].index = build_index(columns[c]);
  });
  return make(rows, std::move(columns));
}

TableBytes Table::size_bytes() const {
  TableBytes bytes;
  for (const ColumnPointer& column : columns_) {
    bytes.values += column->codes.size_bytes() + column->offsets.size_bytes() + column->keys.size_bytes() +
                    column->nulls.size_bytes();
    bytes.dictionaries += column->dictionary.size_bytes();
    if (column->index != nullptr)
      bytes.indexes += column->index->postings.size_bytes() + column->index->sorted.size_bytes();
    bytes.indexes += static_cast<int64_t>(column->changed.size() * sizeof(uint32_t));
  }
  return bytes;
}

}  // namespace ec::ann
