// SPDX-License-Identifier: Apache-2.0
// Steps of a build as Python calls them. Shapes and dtypes are Python's word (ann/_device_steps.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "python/arrays.h"
#include "python/raise.h"

namespace py = pybind11;

namespace {

// Metric, number, rows, columns; addresses of vectors, which lie side by side, and of the mean.
using Rows = std::tuple<int, int, int64_t, int64_t, uintptr_t, uintptr_t>;
// Columns; bytes of heads and of tails; addresses of axes, heads, tails and squares.
using Codes = std::tuple<int64_t, int64_t, int64_t, std::array<uintptr_t, 4>>;
// Bytes of a head; addresses of heads and of squares.
using Heads = std::tuple<int64_t, uintptr_t, uintptr_t>;
// An address, and how many are there.
using List = std::tuple<uintptr_t, int64_t>;

// Scratch memory of the size that measure(bytes, error) tells.
template <class Measure>
void* scratch(const char* where, const py::object& allocate, const Measure& measure) {
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(where, measure(&bytes, &error), error);
  return ecpy::allocated(allocate, bytes);
}

ec_cuda_ann_heads heads_of(const Heads& heads) {
  return {ecpy::pointer_of<const uint8_t>(std::get<1>(heads)), std::get<0>(heads),
          ecpy::pointer_of<const float>(std::get<2>(heads))};
}

void make_byte_codes(const char* where, const ecpy::PlaceNumbers& place, const Rows& given,
                     const Codes& wanted, const py::object& allocate) {
  ec_cuda_ann_index rows = {};
  rows.metric = static_cast<ec_ann_metric>(std::get<0>(given));
  rows.number = static_cast<ec_ann_number>(std::get<1>(given));
  rows.rows = std::get<2>(given);
  rows.columns = rows.row_stride = std::get<3>(given);
  rows.vectors = ecpy::pointer_of<const void>(std::get<4>(given));
  rows.mean = ecpy::pointer_of<const float>(std::get<5>(given));
  const auto& [columns, head_bytes, tail_bytes, arrays] = wanted;
  const ec_cuda_ann_byte_codes codes = {ecpy::pointer_of<const float>(arrays[0]),
                                        columns,
                                        head_bytes,
                                        tail_bytes,
                                        ecpy::pointer_of<uint8_t>(arrays[1]),
                                        ecpy::pointer_of<uint8_t>(arrays[2]),
                                        ecpy::pointer_of<float>(arrays[3])};
  void* workspace = scratch(where, allocate, [&](int64_t* bytes, ec_error* error) {
    return ec_cuda_ann_byte_codes_workspace(&rows, &codes, bytes, error);
  });
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_make_byte_codes(at, &rows, &codes, workspace, error);
  });
}

void group(const char* where, const ecpy::PlaceNumbers& place, const Heads& given, const List& drawn,
           const List& sample, int moves, const List& slots, uintptr_t cell_of,
           const py::object& allocate) {
  const ec_cuda_ann_heads heads = heads_of(given);
  const auto start_of = [](const List& list) {
    return ecpy::pointer_of<const uint32_t>(std::get<0>(list));
  };
  const ec_cuda_ann_grouping grouping = {
      start_of(drawn), std::get<1>(drawn), start_of(sample),   std::get<1>(sample),
      moves,           start_of(slots),    std::get<1>(slots), ecpy::pointer_of<uint32_t>(cell_of)};
  void* workspace = scratch(where, allocate, [&](int64_t* bytes, ec_error* error) {
    return ec_cuda_ann_group_workspace(&heads, &grouping, bytes, error);
  });
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_group(at, &heads, &grouping, workspace, error);
  });
}

void cell_means(const char* where, const ecpy::PlaceNumbers& place, const Heads& given, const List& cell_of,
                const List& means) {
  const ec_cuda_ann_heads heads = heads_of(given);
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_cell_means(at, &heads, ecpy::pointer_of<const uint32_t>(std::get<0>(cell_of)),
                                  std::get<1>(cell_of), std::get<1>(means),
                                  ecpy::pointer_of<uint8_t>(std::get<0>(means)), error);
  });
}

}  // namespace

void register_ann_build(py::module_& module) {
  module.def("ann_make_byte_codes", &make_byte_codes);
  module.def("ann_group", &group);
  module.def("ann_cell_means", &cell_means);
}
