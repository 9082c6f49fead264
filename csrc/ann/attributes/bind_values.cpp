// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/bind_values.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "ann/attributes/errors.h"
#include "ann/attributes/text.h"

namespace ec::ann {

namespace {

constexpr double kAboveIntegers = 9223372036854775808.0;  // 2^63, the first that int64 has not

const char* operation_name(Operation operation) {
  switch (operation) {
    case Operation::kEqual:
      return "'=='";
    case Operation::kLess:
      return "'<'";
    case Operation::kLessEqual:
      return "'<='";
    case Operation::kGreater:
      return "'>'";
    case Operation::kGreaterEqual:
      return "'>='";
    case Operation::kBetween:
      return "'between'";
    case Operation::kIsIn:
      return "'isin'";
    case Operation::kContains:
      return "'contains'";
    case Operation::kContainsAny:
      return "'contains_any'";
    case Operation::kContainsAll:
      return "'contains_all'";
    default:
      return "'is_null'";
  }
}

std::string value_text(const Value& value) {
  char text[40];
  switch (value.tag) {
    case Value::Tag::kBool:
      return value.integer != 0 ? "the boolean True" : "the boolean False";
    case Value::Tag::kInteger:
      return "the integer " + std::to_string(value.integer);
    case Value::Tag::kNumber:
      std::snprintf(text, sizeof(text), "the number %.17g", value.number);
      return text;
    case Value::Tag::kText:
      return "the string " + quoted(value.text);
    default:
      return "a datetime";
  }
}

const char* contents_name(const Column& column) {
  switch (column.kind) {
    case ColumnKind::kInteger:
      return "integers";
    case ColumnKind::kNumber:
      return "numbers";
    case ColumnKind::kDatetime:
      return "datetimes";
    default:
      return label_kind_name(column.dictionary.kind());
  }
}

[[noreturn]] void fail_value_kind(const Column& column, const Value& value) {
  fail_kind("column " + quoted(*column.name) + " holds " + contents_name(column) + "; got " +
            value_text(value));
}

[[noreturn]] void fail_operation(const Column& column, Operation operation, const char* needs,
                                 const char* instead) {
  fail_kind("column " + quoted(*column.name) + " is " + kind_phrase(column.kind) + "; " +
            operation_name(operation) + " needs a " + needs + " column; use " + instead);
}

// ---- bounds of numeric columns ------------------------------------------------------------------------

// low <= key <= high; empty when low > high.
struct Interval {
  int64_t low = INT64_MIN;
  int64_t high = INT64_MAX;
};

constexpr Interval kEmpty = {0, -1};

// What lies on one side of a value that is between the keys below and above (below + 1 == above), or at a
// key: exact, below == above.
struct Place {
  int64_t below;
  int64_t above;
  bool under = false;  // the value is below all keys,
  bool over = false;   // or above all
};

Interval interval_at(Operation operation, const Place& place) {
  const bool exact = !place.under && !place.over && place.below == place.above;
  const bool wants_less = operation == Operation::kLess || operation == Operation::kLessEqual;
  if (operation == Operation::kEqual) return exact ? Interval{place.below, place.below} : kEmpty;
  if (place.under || place.over) return wants_less == place.over ? Interval{} : kEmpty;
  switch (operation) {
    case Operation::kLess:
      if (!exact) return {INT64_MIN, place.below};
      return place.below == INT64_MIN ? kEmpty : Interval{INT64_MIN, place.below - 1};
    case Operation::kLessEqual:
      return {INT64_MIN, place.below};
    case Operation::kGreater:
      if (!exact) return {place.above, INT64_MAX};
      return place.above == INT64_MAX ? kEmpty : Interval{place.above + 1, INT64_MAX};
    default:
      return {place.above, INT64_MAX};
  }
}

Place place_of_number_among_integers(double number) {
  if (number >= kAboveIntegers) return {0, 0, false, true};
  if (number < -kAboveIntegers) return {0, 0, true, false};
  const double below = std::floor(number);
  const int64_t key = static_cast<int64_t>(below);
  // A number with a fraction is far below 2^63, so key + 1 is no overflow.
  return {key, below == number ? key : key + 1};
}

// The nearest double may lie on either side of an integer beyond 2^53.
Place place_of_integer_among_numbers(int64_t integer) {
  const double nearest = static_cast<double>(integer);
  const int64_t key = key_of(nearest);
  if (nearest >= kAboveIntegers) return {key - 1, key};
  const int64_t back = static_cast<int64_t>(nearest);
  return {back <= integer ? key : key - 1, back >= integer ? key : key + 1};
}

// False for NaN, which compares with nothing.
bool place_of(const Column& column, const Value& value, Place* place) {
  const bool datetime = column.kind == ColumnKind::kDatetime;
  if (datetime != (value.tag == Value::Tag::kDatetime)) fail_value_kind(column, value);
  if (value.tag == Value::Tag::kNumber) {
    if (std::isnan(value.number)) return false;
    const int64_t key = key_of(value.number);
    *place =
        column.kind == ColumnKind::kNumber ? Place{key, key} : place_of_number_among_integers(value.number);
    return true;
  }
  if (!datetime && value.tag != Value::Tag::kInteger) fail_value_kind(column, value);
  *place = column.kind == ColumnKind::kNumber ? place_of_integer_among_numbers(value.integer)
                                              : Place{value.integer, value.integer};
  return true;
}

Interval interval_of(const Column& column, Operation operation, const Value& value) {
  Place place;
  return place_of(column, value, &place) ? interval_at(operation, place) : kEmpty;
}

void bind_numeric(Operation operation, const std::vector<Value>& values, Predicate* predicate) {
  const Column& column = *predicate->column;
  if (operation == Operation::kIsIn) {
    std::vector<int64_t> points;
    for (const Value& value : values) {
      const Interval at = interval_of(column, Operation::kEqual, value);
      if (at.low == at.high) points.push_back(at.low);
    }
    return set_points(std::move(points), predicate);
  }
  Interval interval;
  if (operation == Operation::kBetween) {
    const Interval above = interval_of(column, Operation::kGreaterEqual, values[0]);
    const Interval below = interval_of(column, Operation::kLessEqual, values[1]);
    interval = {std::max(above.low, below.low), std::min(above.high, below.high)};
  } else {
    interval = interval_of(column, operation, values[0]);
  }
  predicate->test = interval.low <= interval.high ? Test::kInterval : Test::kNothing;
  predicate->low = interval.low;
  predicate->high = interval.high;
}

// ---- labels -------------------------------------------------------------------------------------------

// The code of a value in the dictionary, -1 when it has none.
int32_t code_of_value(const Column& column, const Value& value) {
  const Dictionary& dictionary = column.dictionary;
  switch (dictionary.kind()) {
    case LabelKind::kNone:
      return -1;
    case LabelKind::kText:
      if (value.tag != Value::Tag::kText) fail_value_kind(column, value);
      return dictionary.find(value.text);
    case LabelKind::kBoolean:
      if (value.tag != Value::Tag::kBool) fail_value_kind(column, value);
      return dictionary.find(value.integer);
    default:
      break;
  }
  if (value.tag == Value::Tag::kInteger) return dictionary.find(value.integer);
  if (value.tag != Value::Tag::kNumber) fail_value_kind(column, value);
  if (std::isnan(value.number)) return -1;
  const Interval at = interval_at(Operation::kEqual, place_of_number_among_integers(value.number));
  return at.low == at.high ? dictionary.find(at.low) : -1;
}

// The codes of those values that have one.
std::vector<int32_t> codes_of_values(const Column& column, const std::vector<Value>& values) {
  std::vector<int32_t> codes;
  for (const Value& value : values) {
    const int32_t code = code_of_value(column, value);
    if (code >= 0) codes.push_back(code);
  }
  return codes;
}

}  // namespace

void check_operation(const Column& column, Operation operation) {
  const bool set = column.kind == ColumnKind::kSet;
  switch (operation) {
    case Operation::kIsNull:
      return;
    case Operation::kEqual:
    case Operation::kIsIn:
      if (set)
        fail_operation(column, operation, "category, number, integer or datetime",
                       "contains, contains_any or contains_all");
      return;
    case Operation::kContains:
    case Operation::kContainsAny:
    case Operation::kContainsAll:
      if (!set) fail_operation(column, operation, "set", "== or isin");
      return;
    default:
      if (!is_numeric(column.kind))
        fail_operation(column, operation, "number, integer or datetime",
                       set ? "contains, contains_any or contains_all" : "== or isin");
  }
}

Predicate bind(const Column& column, Operation operation, const std::vector<Value>& values) {
  Predicate predicate;
  predicate.column = &column;
  if (operation == Operation::kIsNull) {
    predicate.test = Test::kNull;
  } else if (operation == Operation::kContainsAll && values.empty()) {
    predicate.test = Test::kNotNull;  // every set contains all of nothing
  } else if (is_numeric(column.kind)) {
    bind_numeric(operation, values, &predicate);
  } else if (values.size() == 1) {
    predicate.code = code_of_value(column, values[0]);
    predicate.test = predicate.code < 0 ? Test::kNothing : Test::kCode;
  } else {
    set_codes(codes_of_values(column, values), &predicate);
  }
  prepare(&predicate);
  return predicate;
}

std::vector<Predicate> bind_each(const Column& column, const std::vector<Value>& values) {
  std::vector<int32_t> codes = codes_of_values(column, values);
  Predicate predicate;
  predicate.column = &column;
  if (codes.size() < values.size()) return {predicate};  // one of them is in no set
  std::sort(codes.begin(), codes.end());
  codes.erase(std::unique(codes.begin(), codes.end()), codes.end());
  std::vector<Predicate> each(codes.size(), predicate);
  for (size_t i = 0; i < codes.size(); ++i) {
    each[i].test = Test::kCode;
    each[i].code = codes[i];
    prepare(&each[i]);
  }
  return each;
}

}  // namespace ec::ann
