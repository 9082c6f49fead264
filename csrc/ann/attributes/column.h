// SPDX-License-Identifier: Apache-2.0
// One attribute of every slot, and an index over those that were there when it was built.
//
// Numbers of any kind are kept as int64 keys in the order of their values: integers and datetimes as
// they are, floating-point ones by key_of(). Comparisons are then exact, and one index serves all.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ann/attributes/dictionary.h"
#include "ann/attributes/postings.h"
#include "ann/attributes/shared_array.h"
#include "ann/attributes/sorted_keys.h"
#include "core/internal.h"

namespace ec::ann {

enum class ColumnKind : uint8_t { kCategory = 1, kInteger = 2, kNumber = 3, kDatetime = 4, kSet = 5 };

EC_INTERNAL const char* kind_name(ColumnKind kind);  // "category", ...
const char* kind_phrase(ColumnKind kind);            // "a category", ...
inline bool is_numeric(ColumnKind kind) {
  return kind == ColumnKind::kInteger || kind == ColumnKind::kNumber || kind == ColumnKind::kDatetime;
}

// Order-preserving; -0.0 is 0.0. Requires: value is not NaN.
int64_t key_of(double value);
EC_INTERNAL double number_of(int64_t key);

// Values for some rows of a column, as a caller gives them. Pointers are the caller's.
struct Payload {
  std::string name;
  ColumnKind kind = ColumnKind::kCategory;
  int64_t rows = 0;
  const int32_t* codes = nullptr;    // category: one a row, -1 for null; set: of all rows in turn
  int64_t code_count = 0;            // set
  const int64_t* offsets = nullptr;  // set: rows + 1
  const int64_t* integers = nullptr;
  const double* numbers = nullptr;  // NaN is null
  const uint8_t* nulls = nullptr;   // one a row, or null; integer, datetime and set
  Labels labels;
};

// Index over slots [0, rows).
struct ColumnIndex {
  int64_t rows = 0;
  Postings postings;  // entry 0: null rows; entry code + 1: rows with that code
  SortedKeys sorted;  // numeric columns
};

// Immutable once a table holds it.
struct Column {
  std::shared_ptr<const std::string> name;
  ColumnKind kind = ColumnKind::kCategory;
  int64_t rows = 0;
  SharedArray<int32_t> codes;    // category: one a row, -1 for null; set: ascending in each row, distinct
  SharedArray<int64_t> offsets;  // set: where each row's codes begin, rows + 1
  SharedArray<int64_t> keys;     // numeric
  SharedArray<uint8_t> nulls;    // numeric and set; empty while no row is null
  Dictionary dictionary;         // category and set
  std::shared_ptr<const ColumnIndex> index;
  std::vector<uint32_t> changed;  // slots below index->rows with other values now, ascending

  bool has_nulls() const { return nulls.size() > 0; }
  bool is_null(int64_t slot) const {
    return kind == ColumnKind::kCategory ? codes[slot] < 0 : has_nulls() && nulls[slot] != 0;
  }
  int64_t set_begin(int64_t slot) const { return offsets[slot]; }
  int64_t set_end(int64_t slot) const { return offsets[slot + 1]; }
};

// A column of null rows; its kind and labels are those of the payload that brings it.
Column null_column(const Payload& payload, int64_t rows);
// Throws KindError unless values of the payload fit the column, ValueError unless they are sound.
void check_payload(const Column& column, const Payload& payload);
// Each requires check_payload (for take: slots in range) and leaves the index as it was.
Column appended(const Column& column, const Payload& payload);
Column appended_nulls(const Column& column, int64_t count);
Column updated(const Column& column, const Payload& payload, const int64_t* slots);
Column taken(const Column& column, const int64_t* order, int64_t count);

// True when so many rows are not in the index, or changed since, that it should be built anew.
bool index_is_stale(const Column& column);
std::shared_ptr<const ColumnIndex> build_index(const Column& column);

}  // namespace ec::ann
