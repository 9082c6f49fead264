// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/check_columns.h"

#include <limits>
#include <string>

#include "ann/attributes/errors.h"
#include "ann/attributes/text.h"

namespace ec::ann {

namespace {

void require(bool holds, const Column& column, const char* what) {
  if (!holds) fail_value("column " + quoted(*column.name) + " " + what);
}

void check_nulls(const Column& column) {
  if (!column.has_nulls()) return;
  require(column.nulls.size() == column.rows, column, "must have one null mark for each row");
  for (int64_t i = 0; i < column.rows; ++i)
    require(column.nulls[i] <= 1, column, "must have null marks of 0 or 1");
}

void check_category(const Column& column) {
  require(column.codes.size() == column.rows, column, "must have one code for each row");
  for (int64_t i = 0; i < column.rows; ++i)
    require(column.codes[i] >= -1 && column.codes[i] < column.dictionary.size(), column,
            "must have codes that its labels have");
}

void check_set(const Column& column) {
  require(column.offsets.size() == column.rows + 1 && column.offsets[0] == 0 &&
              column.offsets[column.rows] == column.codes.size(),
          column, "must have offsets from 0 to the number of its codes");
  for (int64_t i = 0; i < column.rows; ++i)
    require(column.set_begin(i) <= column.set_end(i) && column.set_end(i) <= column.codes.size(), column,
            "must have offsets that ascend");
  for (int64_t i = 0; i < column.rows; ++i) {
    require(!column.is_null(i) || column.set_begin(i) == column.set_end(i), column,
            "must have no codes in null rows");
    int32_t last = -1;
    for (int64_t j = column.set_begin(i); j < column.set_end(i); ++j) {
      require(column.codes[j] > last && column.codes[j] < column.dictionary.size(), column,
              "must have ascending codes that its labels have in each row");
      last = column.codes[j];
    }
  }
}

void check_numeric(const Column& column) {
  require(column.keys.size() == column.rows, column, "must have one value for each row");
  const int64_t least = key_of(-std::numeric_limits<double>::infinity());
  const int64_t most = key_of(std::numeric_limits<double>::infinity());
  for (int64_t i = 0; i < column.rows; ++i) {
    const int64_t key = column.keys[i];
    require(column.kind != ColumnKind::kNumber || (key >= least && key <= most && key != -1), column,
            "must have keys of numbers other than NaN and -0.0");
    require(key == 0 || !column.is_null(i), column, "must have the key 0 in null rows");
  }
}

}  // namespace

void check_column(const Column& column, int64_t rows) {
  if (!is_utf8(*column.name)) fail_value("column " + quoted(*column.name) + " must have a name in UTF-8");
  require(column.rows == rows, column, "must have as many rows as the table");
  const bool numeric = is_numeric(column.kind);
  require(numeric ? column.codes.size() == 0 && column.dictionary.size() == 0 : column.keys.size() == 0,
          column, "must have codes or numbers, as its kind has");
  require(column.kind == ColumnKind::kSet || column.offsets.size() == 0, column,
          "must have no offsets unless it is a set");
  require(column.kind != ColumnKind::kCategory || !column.has_nulls(), column,
          "must have no null marks, being a category");
  check_nulls(column);
  if (numeric) return check_numeric(column);
  if (column.kind == ColumnKind::kSet) return check_set(column);
  check_category(column);
}

}  // namespace ec::ann
