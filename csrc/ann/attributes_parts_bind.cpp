// SPDX-License-Identifier: Apache-2.0
// Columns as arrays: the values of some rows, and all that a file keeps of a table.
//
// A table is {"table": int64 [version, rows, columns]} and for column i, under names that start with "i.":
//   name  uint8, UTF-8        kind  int64 [kind of column, kind of labels]
//   codes, offsets, keys, nulls             as column.h has them; those that the kind has not are left out
//   label_bytes, label_ends | label_numbers  the dictionary
// Indexes are made anew from these: sorting is cheaper than to check that a file's order is one.
#include "ann/attributes/column.h"
#include "ann/attributes_python.h"

namespace py = pybind11;

namespace {

using ec::ann::Column;
using ec::ann::ColumnKind;
using ec::ann::Dictionary;
using ec::ann::LabelKind;
using ec::ann::SharedArray;
using ec::ann::Table;
using ecpy::VectorView;

constexpr int64_t kVersion = 1;
constexpr int64_t kMostColumns = 1 << 20;

// ---- values of some rows --------------------------------------------------------------------------------

// Codes of this column to codes of a list that has only the labels in use, in the order of their first use.
class LabelsInUse {
 public:
  explicit LabelsInUse(const Dictionary& dictionary)
      : dictionary_(dictionary), place_(static_cast<size_t>(dictionary.size()), -1) {}

  int32_t place(int32_t code) {
    if (code < 0) return -1;
    int32_t& place = place_[static_cast<size_t>(code)];
    if (place < 0) {
      place = static_cast<int32_t>(labels_.size());
      labels_.append(label(code));
    }
    return place;
  }
  const py::list& labels() const { return labels_; }

 private:
  py::object label(int32_t code) const {
    if (dictionary_.kind() == LabelKind::kBoolean) return py::bool_(dictionary_.number(code) != 0);
    if (dictionary_.kind() == LabelKind::kInteger) return py::int_(dictionary_.number(code));
    const std::string_view text = dictionary_.text(code);
    return py::str(text.data(), text.size());
  }

  const Dictionary& dictionary_;
  std::vector<int32_t> place_;
  py::list labels_;
};

py::object nulls_of(const Column& column, const VectorView<int64_t>& slots) {
  if (!column.has_nulls()) return py::none();
  py::array_t<bool> nulls(slots.size());
  for (int64_t i = 0; i < slots.size(); ++i) nulls.mutable_data()[i] = column.is_null(slots.data()[i]);
  return std::move(nulls);
}

py::tuple category_values(const Column& column, const VectorView<int64_t>& slots) {
  LabelsInUse used(column.dictionary);
  py::array_t<int32_t> codes(slots.size());
  for (int64_t i = 0; i < slots.size(); ++i)
    codes.mutable_data()[i] = used.place(column.codes[slots.data()[i]]);
  return py::make_tuple("category", codes, used.labels());
}

py::tuple set_values(const Column& column, const VectorView<int64_t>& slots) {
  LabelsInUse used(column.dictionary);
  py::array_t<int64_t> offsets(slots.size() + 1);
  int64_t* ends = offsets.mutable_data();
  *ends = 0;
  for (int64_t i = 0; i < slots.size(); ++i, ++ends)
    ends[1] = ends[0] + column.set_end(slots.data()[i]) - column.set_begin(slots.data()[i]);
  py::array_t<int32_t> codes(*ends);
  int32_t* to = codes.mutable_data();
  for (int64_t i = 0; i < slots.size(); ++i)
    for (int64_t j = column.set_begin(slots.data()[i]); j < column.set_end(slots.data()[i]); ++j)
      *to++ = used.place(column.codes[j]);
  return py::make_tuple("set", offsets, codes, used.labels(), nulls_of(column, slots));
}

py::tuple numeric_values(const Column& column, const VectorView<int64_t>& slots) {
  if (column.kind != ColumnKind::kNumber) {
    py::array_t<int64_t> values(slots.size());
    for (int64_t i = 0; i < slots.size(); ++i) values.mutable_data()[i] = column.keys[slots.data()[i]];
    return py::make_tuple(ec::ann::kind_name(column.kind), values, nulls_of(column, slots));
  }
  py::array_t<double> values(slots.size());
  for (int64_t i = 0; i < slots.size(); ++i) {
    const int64_t slot = slots.data()[i];
    values.mutable_data()[i] = column.is_null(slot) ? std::numeric_limits<double>::quiet_NaN()
                                                    : ec::ann::number_of(column.keys[slot]);
  }
  return py::make_tuple("number", values, py::none());
}

// ---- writing parts
// ----------------------------------------------------------------------------------------

template <class T>
void put(py::dict& parts, const std::string& name, const SharedArray<T>& array) {
  if (array.size() > 0)
    parts[name.c_str()] =
        ecpy::array_over<T>(array.data(), array.size(), std::make_shared<const SharedArray<T>>(array));
}

py::array_t<int64_t> numbers(std::initializer_list<int64_t> values) {
  py::array_t<int64_t> array(static_cast<py::ssize_t>(values.size()));
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

SharedArray<uint8_t> as_bytes(const SharedArray<char>& text) {
  auto keep = std::make_shared<const SharedArray<char>>(text);
  return SharedArray<uint8_t>::borrow(reinterpret_cast<const uint8_t*>(text.data()), text.size(), keep);
}

void put_column(const Column& column, const std::string& prefix, py::dict& parts) {
  py::array_t<uint8_t> name(static_cast<py::ssize_t>(column.name->size()));
  std::copy(column.name->begin(), column.name->end(), name.mutable_data());
  parts[(prefix + "name").c_str()] = name;
  parts[(prefix + "kind").c_str()] =
      numbers({static_cast<int64_t>(column.kind), static_cast<int64_t>(column.dictionary.kind())});
  put(parts, prefix + "codes", column.codes);
  put(parts, prefix + "offsets", column.offsets);
  put(parts, prefix + "keys", column.keys);
  put(parts, prefix + "nulls", column.nulls);
  put(parts, prefix + "label_bytes", as_bytes(column.dictionary.bytes()));
  put(parts, prefix + "label_ends", column.dictionary.ends());
  put(parts, prefix + "label_numbers", column.dictionary.numbers());
}

// ---- reading parts
// ------------------------------------------------------------------------------------------

class Reader {
 public:
  Reader(py::dict parts, py::object owner) : parts_(std::move(parts)), owner_(std::move(owner)) {}

  // An array that is not there is empty. All wrong forms are ValueErrors: they come from a file.
  template <class T>
  SharedArray<T> array(const std::string& name) const {
    const py::str key(name);
    if (!parts_.contains(key)) return {};
    const py::object object = parts_[key];
    const bool sound = py::isinstance<py::array>(object) &&
                       py::reinterpret_borrow<py::array>(object).dtype().equal(py::dtype::of<T>()) &&
                       py::reinterpret_borrow<py::array>(object).ndim() == 1;
    if (!sound) ecpy::raise_value("part '%s' must be an array of one axis and its dtype.", name.c_str());
    const VectorView<T> view = ecpy::view_vector_of<T>(object, name, "its own");
    return SharedArray<T>::borrow(view.data(), view.size(),
                                  ecpy::keep_object(py::make_tuple(view.owner(), owner_)));
  }

  SharedArray<int64_t> header(const std::string& name, int64_t size) const {
    SharedArray<int64_t> found = array<int64_t>(name);
    if (found.size() != size)
      ecpy::raise_value("part '%s' must have %lld numbers; got %lld.", name.c_str(),
                        static_cast<long long>(size), static_cast<long long>(found.size()));
    return found;
  }

  Column column(const std::string& prefix, int64_t rows) const {
    const SharedArray<int64_t> kinds = header(prefix + "kind", 2);
    if (kinds[0] < 1 || kinds[0] > static_cast<int64_t>(ColumnKind::kSet) || kinds[1] < 0 ||
        kinds[1] > static_cast<int64_t>(LabelKind::kBoolean))
      ecpy::raise_value("part '%skind' must name a kind of column and one of labels; got %lld and %lld.",
                        prefix.c_str(), static_cast<long long>(kinds[0]), static_cast<long long>(kinds[1]));
    Column column;
    const SharedArray<uint8_t> name = array<uint8_t>(prefix + "name");
    column.name = std::make_shared<const std::string>(name.data(), name.data() + name.size());
    column.kind = static_cast<ColumnKind>(kinds[0]);
    column.rows = rows;
    column.codes = array<int32_t>(prefix + "codes");
    column.offsets = array<int64_t>(prefix + "offsets");
    column.keys = array<int64_t>(prefix + "keys");
    column.nulls = array<uint8_t>(prefix + "nulls");
    const SharedArray<uint8_t> bytes = array<uint8_t>(prefix + "label_bytes");
    column.dictionary =
        Dictionary::of(static_cast<LabelKind>(kinds[1]),
                       SharedArray<char>::borrow(reinterpret_cast<const char*>(bytes.data()), bytes.size(),
                                                 std::make_shared<const SharedArray<uint8_t>>(bytes)),
                       array<int64_t>(prefix + "label_ends"), array<int64_t>(prefix + "label_numbers"));
    return column;
  }

 private:
  py::dict parts_;
  py::object owner_;
};

}  // namespace

py::tuple ecpy::column_values(const Table& table, const std::string& name, py::handle slots) {
  const Column* column = table.find(name);
  if (column == nullptr) raise_value("column '%s' is unknown.", name.c_str());
  const VectorView<int64_t> view = view_vector_of<int64_t>(slots, "slots", "int64");
  for (int64_t i = 0; i < view.size(); ++i)
    if (view.data()[i] < 0 || view.data()[i] >= table.rows())
      raise_value("slot %lld is out of range: there are %lld rows.", static_cast<long long>(view.data()[i]),
                  static_cast<long long>(table.rows()));
  if (column->kind == ColumnKind::kCategory) return category_values(*column, view);
  if (column->kind == ColumnKind::kSet) return set_values(*column, view);
  return numeric_values(*column, view);
}

py::dict ecpy::table_parts(const Table& table) {
  py::dict parts;
  const int64_t columns = static_cast<int64_t>(table.columns().size());
  parts["table"] = numbers({kVersion, table.rows(), columns});
  for (int64_t i = 0; i < columns; ++i)
    put_column(*table.columns()[static_cast<size_t>(i)], std::to_string(i) + ".", parts);
  return parts;
}

ecpy::TablePointer ecpy::table_from_parts(py::dict parts, py::object owner) {
  const Reader reader(std::move(parts), std::move(owner));
  const SharedArray<int64_t> header = reader.header("table", 3);
  if (header[0] != kVersion)
    raise_value("part 'table' must be of version %lld; got %lld.", static_cast<long long>(kVersion),
                static_cast<long long>(header[0]));
  if (header[2] < 0 || header[2] > kMostColumns)
    raise_value("part 'table' must name from 0 to %lld columns; got %lld.",
                static_cast<long long>(kMostColumns), static_cast<long long>(header[2]));
  std::vector<Column> columns;
  for (int64_t i = 0; i < header[2]; ++i)
    columns.push_back(reader.column(std::to_string(i) + ".", header[1]));
  Table::Pointer table;
  released([&] { table = Table::from_columns(header[1], std::move(columns)); });
  return as_holder(std::move(table));
}
