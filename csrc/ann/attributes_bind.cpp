// SPDX-License-Identifier: Apache-2.0
// Attributes as Python calls them: payloads in, tables and filters out.
#include "ann/attributes/table.h"

#include <cstring>
#include <deque>
#include <optional>
#include <vector>

#include "ann/attributes/errors.h"
#include "ann/attributes/evaluate.h"
#include "ann/attributes/given_sets.h"
#include "ann/attributes/steps.h"
#include "ann/attributes_python.h"
#include "python/monitor.h"

namespace py = pybind11;

namespace {

using ec::ann::ColumnKind;
using ec::ann::Filters;
using ec::ann::LabelKind;
using ec::ann::Payload;
using ec::ann::Table;
using ecpy::TablePointer;
using ecpy::VectorView;

constexpr int64_t kKeepLockRows = 1 << 17;  // below, for one short program, releasing the lock costs more
constexpr size_t kKeepLockBytes = 1 << 12;  // than it gives

// ---- payloads -----------------------------------------------------------------------------------------

// A column's values, and the Python objects that they lie in.
class Values {
 public:
  Values(py::handle name, py::handle tuple) : title_("column '" + name.cast<std::string>() + "'") {
    payload_.name = name.cast<std::string>();
    if (!py::isinstance<py::tuple>(tuple) || py::len(tuple) < 3) fail_form();
    parts_ = py::reinterpret_borrow<py::tuple>(tuple);
    const std::string kind = py::isinstance<py::str>(parts_[0]) ? parts_[0].cast<std::string>() : "";
    if (parts_.size() != (kind == "set" ? 5 : 3)) fail_form();
    if (kind == "category")
      set_category();
    else if (kind == "set")
      set_set();
    else if (kind == "integer")
      set_integers(ColumnKind::kInteger);
    else if (kind == "datetime")
      set_integers(ColumnKind::kDatetime);
    else if (kind == "number")
      set_numbers();
    else
      fail_form();
  }

  const Payload& payload() const { return payload_; }

 private:
  [[noreturn]] void fail_form() const {
    ecpy::raise_type(
        "%s must be a tuple ('category', codes, labels), ('integer' | 'datetime' | 'number', values, "
        "nulls) "
        "or ('set', offsets, codes, labels, nulls).",
        title_.c_str());
  }

  template <class T>
  const T* vector(py::handle object, const char* what, const char* dtype, int64_t* size) {
    const VectorView<T> view = ecpy::view_vector_of<T>(object, title_ + ": " + what, dtype);
    owners_.push_back(view.owner());
    *size = view.size();
    return view.data();
  }

  void set_category() {
    payload_.kind = ColumnKind::kCategory;
    payload_.codes = vector<int32_t>(parts_[1], "codes", "int32", &payload_.rows);
    set_labels(parts_[2]);
  }

  void set_set() {
    payload_.kind = ColumnKind::kSet;
    int64_t offsets = 0;
    payload_.offsets = vector<int64_t>(parts_[1], "offsets", "int64", &offsets);
    if (offsets < 1) ecpy::raise_value("%s: offsets must have one number more than rows.", title_.c_str());
    payload_.rows = offsets - 1;
    payload_.codes = vector<int32_t>(parts_[2], "codes", "int32", &payload_.code_count);
    set_labels(parts_[3]);
    set_nulls(parts_[4]);
  }

  void set_integers(ColumnKind kind) {
    payload_.kind = kind;
    payload_.integers = vector<int64_t>(parts_[1], "values", "int64", &payload_.rows);
    set_nulls(parts_[2]);
  }

  void set_numbers() {
    payload_.kind = ColumnKind::kNumber;
    payload_.numbers = vector<double>(parts_[1], "values", "float64", &payload_.rows);
    set_nulls(parts_[2]);
  }

  void set_nulls(py::handle nulls) {
    if (nulls.is_none()) return;
    int64_t size = 0;
    payload_.nulls = vector<uint8_t>(nulls, "nulls", "bool", &size);
    if (size != payload_.rows)
      ecpy::raise_value("%s: nulls must have %lld values; got %lld.", title_.c_str(),
                        static_cast<long long>(payload_.rows), static_cast<long long>(size));
  }

  [[noreturn]] void fail_label(py::handle label) const {
    ecpy::raise_type("%s: labels must be strings, integers or booleans, all of one kind; got %s.",
                     title_.c_str(), Py_TYPE(label.ptr())->tp_name);
  }

  void set_labels(py::handle labels) {
    if (!py::isinstance<py::list>(labels) && !py::isinstance<py::tuple>(labels))
      ecpy::raise_type("%s: labels must be a list; got %s.", title_.c_str(),
                       Py_TYPE(labels.ptr())->tp_name);
    const py::tuple held(py::reinterpret_borrow<py::object>(labels));  // strings stay while we read them
    owners_.push_back(held);
    for (const py::handle label : held) add_label(label);
  }

  void add_label(py::handle label) {
    const bool boolean = PyBool_Check(label.ptr());
    const bool text = PyUnicode_Check(label.ptr());
    const LabelKind kind = boolean                     ? LabelKind::kBoolean
                           : text                      ? LabelKind::kText
                           : PyLong_Check(label.ptr()) ? LabelKind::kInteger
                                                       : LabelKind::kNone;
    LabelKind& have = payload_.labels.kind;
    if (kind == LabelKind::kNone || (have != LabelKind::kNone && have != kind)) fail_label(label);
    have = kind;
    if (text) {
      Py_ssize_t size = 0;
      const char* bytes = PyUnicode_AsUTF8AndSize(label.ptr(), &size);
      if (bytes == nullptr) throw py::error_already_set();
      payload_.labels.text.emplace_back(bytes, static_cast<size_t>(size));
      return;
    }
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(label.ptr(), &overflow);
    if (overflow != 0) ecpy::raise_value("%s: integer labels must fit int64.", title_.c_str());
    payload_.labels.numbers.push_back(number);
  }

  std::string title_;
  py::tuple parts_;
  std::vector<py::object> owners_;
  Payload payload_;
};

class Columns {
 public:
  explicit Columns(const py::dict& columns) {
    for (const auto& item : columns) {
      if (!py::isinstance<py::str>(item.first))
        ecpy::raise_type("columns must have strings for names; got %s.",
                         Py_TYPE(item.first.ptr())->tp_name);
      values_.emplace_back(item.first, item.second);
      payloads_.push_back(values_.back().payload());
    }
  }
  const std::vector<Payload>& payloads() const { return payloads_; }

 private:
  std::deque<Values> values_;
  std::vector<Payload> payloads_;
};

TablePointer table_append(const Table& table, int64_t rows, const py::dict& columns) {
  const Columns given(columns);
  Table::Pointer next;
  ecpy::released([&] { next = table.append(rows, given.payloads()); });
  return ecpy::as_holder(std::move(next));
}

TablePointer table_update(const Table& table, py::handle slots, const py::dict& columns) {
  const VectorView<int64_t> view = ecpy::view_vector_of<int64_t>(slots, "slots", "int64");
  const Columns given(columns);
  Table::Pointer next;
  ecpy::released([&] { next = table.update(view.data(), view.size(), given.payloads()); });
  return ecpy::as_holder(std::move(next));
}

TablePointer table_take(const Table& table, py::handle order) {
  const VectorView<int64_t> view = ecpy::view_vector_of<int64_t>(order, "order", "int64");
  Table::Pointer next;
  ecpy::released([&] { next = table.take(view.data(), view.size()); });
  return ecpy::as_holder(std::move(next));
}

py::list table_schema(const Table& table) {
  py::list schema;
  for (const Table::ColumnPointer& column : table.columns())
    schema.append(
        py::make_tuple(*column->name, ec::ann::kind_name(column->kind), column->dictionary.size()));
  return schema;
}

py::dict table_bytes(const Table& table) {
  const ec::ann::TableBytes bytes = table.size_bytes();
  py::dict parts;
  parts["values"] = bytes.values;
  parts["dictionaries"] = bytes.dictionaries;
  parts["indexes"] = bytes.indexes;
  return parts;
}

// ---- filters --------------------------------------------------------------------------------------------

// Programs, seen in place.
struct Programs {
  explicit Programs(py::handle programs) {
    if (!py::isinstance<py::list>(programs))
      ecpy::raise_type("programs must be a list of bytes; got %s.", Py_TYPE(programs.ptr())->tp_name);
    held = py::tuple(py::reinterpret_borrow<py::object>(programs));
    views.reserve(held.size());
    for (const py::handle program : held) {
      if (!PyBytes_Check(program.ptr()))
        ecpy::raise_type("programs must be bytes; got %s.", Py_TYPE(program.ptr())->tp_name);
      views.emplace_back(PyBytes_AS_STRING(program.ptr()),
                         static_cast<size_t>(PyBytes_GET_SIZE(program.ptr())));
    }
  }

  py::tuple held;
  std::vector<std::string_view> views;
};

std::shared_ptr<Filters> table_evaluate(const Table& table, py::handle programs, py::handle live,
                                        int threads) {
  const Programs given(programs);
  const std::vector<std::string_view>& views = given.views;
  const VectorView<uint64_t> alive = ecpy::view_live(live, table.rows());
  auto filters = std::make_shared<Filters>();
  if (views.size() == 1 && views[0].size() < kKeepLockBytes && table.rows() < kKeepLockRows) {
    evaluate(table, views, alive.data(), 1, nullptr, filters.get());
    return filters;
  }
  ecpy::PyMonitor monitor;
  ec_status status = EC_OK;
  ecpy::released(
      [&] { status = evaluate(table, views, alive.data(), threads, monitor.get(), filters.get()); });
  ecpy::check_status("AnnTable.evaluate", status, {});
  return filters;
}

// Programs as steps (steps.h): int64 arrays (steps, 4), (programs + 1,) and (constants,).
py::tuple table_steps(const Table& table, py::handle programs) {
  const ec::ann::Steps steps = steps_of(table, Programs(programs).views);
  const auto count = static_cast<py::ssize_t>(steps.steps.size());
  py::array_t<int64_t> rows({count, py::ssize_t{4}});
  std::memcpy(rows.mutable_data(), steps.steps.data(), steps.steps.size() * sizeof(ec::ann::Step));
  const auto vector = [](const std::vector<int64_t>& values) {
    return py::array_t<int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
  };
  return py::make_tuple(rows, vector(steps.starts), vector(steps.constants));
}

std::shared_ptr<Filters> filters_from_masks(const py::list& masks, py::handle live) {
  std::vector<VectorView<uint8_t>> views;
  std::vector<const uint8_t*> pointers;
  for (const py::handle mask : masks) {
    views.push_back(ecpy::view_vector_of<uint8_t>(mask, "masks", "bool"));
    if (views.back().size() != views[0].size())
      ecpy::raise_value("masks must have equally many rows; got %lld and %lld.",
                        static_cast<long long>(views[0].size()),
                        static_cast<long long>(views.back().size()));
    pointers.push_back(views.back().data());
  }
  const int64_t rows = views.empty() ? 0 : views[0].size();
  const VectorView<uint64_t> alive = views.empty() ? VectorView<uint64_t>() : ecpy::view_live(live, rows);
  auto filters = std::make_shared<Filters>();
  ecpy::released([&] { *filters = ec::ann::filters_of_masks(pointers, rows, alive.data()); });
  return filters;
}

std::shared_ptr<Filters> filters_from_slots(const py::list& lists, int64_t rows, py::handle live) {
  if (rows < 0 || rows > UINT32_MAX)
    ecpy::raise_value("rows must be from 0 to 2**32 - 1; got %lld.", static_cast<long long>(rows));
  std::vector<VectorView<int64_t>> views;
  std::vector<ec::ann::SlotList> slots;
  for (const py::handle list : lists) {
    views.push_back(ecpy::view_vector_of<int64_t>(list, "slots", "int64"));
    slots.push_back({views.back().data(), views.back().size()});
  }
  const VectorView<uint64_t> alive = ecpy::view_live(live, rows);
  auto filters = std::make_shared<Filters>();
  ecpy::released([&] { *filters = ec::ann::filters_of_slots(slots, rows, alive.data()); });
  return filters;
}

std::shared_ptr<Filters> filters_concatenate(const py::list& parts) {
  std::vector<const Filters*> pointers;
  for (const py::handle part : parts) pointers.push_back(&part.cast<const Filters&>());
  return std::make_shared<Filters>(ec::ann::concatenate(pointers));
}

const ec::ann::AllowedSet& set_at(const Filters& filters, int64_t i) {
  if (i < 0 || i >= filters.size())
    ecpy::raise_value("a batch of %lld filters has no number %lld.", static_cast<long long>(filters.size()),
                      static_cast<long long>(i));
  return filters[i];
}

py::array filter_counts(const Filters& filters) {
  py::array_t<int64_t> counts(filters.size());
  for (int64_t i = 0; i < filters.size(); ++i) counts.mutable_data()[i] = filters[i].count;
  return std::move(counts);
}

// Calls visit(slot) for each slot that passes, ascending.
template <class Visit>
void for_each_slot(const ec::ann::AllowedSet& set, Visit&& visit) {
  for (const uint32_t slot : set.slots) visit(static_cast<int64_t>(slot));
  for (size_t w = 0; w < set.bits.size(); ++w)
    for (uint64_t word = set.bits[w]; word != 0; word &= word - 1)
      visit(static_cast<int64_t>(w) * 64 + __builtin_ctzll(word));
}

py::array filter_mask(const Filters& filters, int64_t i) {
  const ec::ann::AllowedSet& set = set_at(filters, i);
  py::array_t<bool> mask(set.rows);
  bool* to = mask.mutable_data();
  std::fill(to, to + set.rows, false);
  for_each_slot(set, [&](int64_t slot) { to[slot] = true; });
  return std::move(mask);
}

py::array filter_slots(const Filters& filters, int64_t i) {
  const ec::ann::AllowedSet& set = set_at(filters, i);
  py::array_t<int64_t> slots(set.count);
  int64_t* to = slots.mutable_data();
  for_each_slot(set, [&](int64_t slot) { *to++ = slot; });
  return std::move(slots);
}

void translate_kind_error(std::exception_ptr failure) {
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const ec::ann::KindError& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  }
}

}  // namespace

VectorView<uint64_t> ecpy::view_live(py::handle live, int64_t rows) {
  if (live.is_none()) return {};
  VectorView<uint64_t> view = view_vector_of<uint64_t>(live, "live", "uint64");
  if (view.size() != ec::ann::word_count(rows))
    raise_value("live must have %lld words for %lld rows; got %lld.",
                static_cast<long long>(ec::ann::word_count(rows)), static_cast<long long>(rows),
                static_cast<long long>(view.size()));
  return view;
}

void register_ann_attributes(py::module_& module) {
  py::register_local_exception_translator(translate_kind_error);
  py::class_<Table, TablePointer>(module, "AnnTable")
      .def(py::init<>())
      .def("append", &table_append, py::arg("rows"), py::arg("columns"))
      .def("update", &table_update, py::arg("slots"), py::arg("columns"))
      .def("take", &table_take, py::arg("order"))
      .def("evaluate", &table_evaluate, py::arg("programs"), py::arg("live"), py::arg("threads"))
      .def("steps", &table_steps, py::arg("programs"))
      .def_property_readonly("rows", &Table::rows)
      .def("schema", &table_schema)
      .def("values", &ecpy::column_values, py::arg("name"), py::arg("slots"))
      .def("nbytes", &table_bytes)
      .def("parts", &ecpy::table_parts)
      .def_static("from_parts", &ecpy::table_from_parts, py::arg("parts"), py::arg("owner"));
  py::class_<Filters, std::shared_ptr<Filters>>(module, "AnnFilters")
      .def("__len__", &Filters::size)
      .def_property_readonly("rows", &Filters::rows)
      .def("counts", &filter_counts)
      .def("mask", &filter_mask, py::arg("i"))
      .def("slots", &filter_slots, py::arg("i"))
      .def_static("from_masks", &filters_from_masks, py::arg("masks"), py::arg("live"))
      .def_static("from_slots", &filters_from_slots, py::arg("slots"), py::arg("rows"), py::arg("live"))
      .def_static("concatenate", &filters_concatenate, py::arg("parts"));
}
